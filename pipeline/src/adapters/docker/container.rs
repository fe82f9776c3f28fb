//! What a call's container is made of. Pure.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType};
use sha2::{Digest as _, Sha256};

use super::identity::{Identity, WORKER_LABEL, hexadecimal};
use super::worker::Worker;
use crate::adapters::command::scratch;
use crate::core::class::{Class, Failure};
use crate::core::item::Input;
use crate::core::job::{DockerSpec, Network};
use crate::ports::executor::CallItem;

/// Where an item's file lies in the container. Its name there is the end of its key, so that programs that
/// go by a file's extension find it.
const FILE_DIRECTORY: &str = "/trommel";

/// Keeps bytes as they are, at some thirty more a line ("Local file logging driver"); `json-file` would
/// replace what is no UTF-8, and a container that is adopted would say something else than one that is not.
const LOG_DRIVER: &str = "local";

/// A log file is followed by the next when it is so long, and there are so many of them ("Local file logging
/// driver", `max-size`, `max-file`): no container may fill a disk, and no output that is allowed is lost.
const LOG_FILE_MEBIBYTES: u64 = 16;
const LOG_FILES: u64 = 3;

/// As long as a log is no longer than this nothing of it was dropped: the last file may be new.
pub(super) const LOG_KEPT_BYTES: u64 = ((LOG_FILES - 1) * LOG_FILE_MEBIBYTES) << 20;

/// Docker counts processors in billionths.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// What the container does, in a digest: only one that does the same is adopted.
pub(super) const WORK_LABEL: &str = "trommel.work";

/// Whether the container had its input before it was started, or while it ran.
pub(super) const INPUT_LABEL: &str = "trommel.input";

/// When a container gets its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Before its start: whoever dies then, it has all of it.
    BeforeStart,
    /// As it reads: a dead worker may have cut it short.
    AsItRuns,
}

impl Fed {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::BeforeStart => "before-start",
            Self::AsItRuns => "as-it-runs",
        }
    }
}

/// What one call wants of its container.
pub(super) struct Task {
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
    /// The item's file, mounted for reading.
    pub(super) mount: Option<Mount>,
    /// Of image, arguments, limits and input.
    pub(super) work: String,
}

impl Task {
    pub(super) fn new(
        spec: &DockerSpec,
        arguments: Vec<OsString>,
        items: &[&CallItem],
    ) -> Result<Self, Failure> {
        let arguments = arguments.into_iter().map(text).collect::<Result<_, _>>()?;
        Ok(Self {
            work: work_of(spec, &arguments, items),
            arguments,
            variables: Vec::new(),
            mount: None,
        })
    }
}

/// The container of a call.
pub(super) fn body(spec: &DockerSpec, task: Task) -> ContainerCreateBody {
    let mut variables = spec.environment.clone();
    for (name, value) in task.variables {
        variables.insert(name.to_owned(), value);
    }
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| format!("{name}={value}"));
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: (!task.arguments.is_empty()).then_some(task.arguments),
        env: Some(variables.collect()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // The end of what we write is the end of its input.
        stdin_once: Some(true),
        labels: Some(HashMap::from([(WORK_LABEL.to_owned(), task.work)])),
        host_config: Some(host_config(spec, task.mount)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &DockerSpec, mount: Option<Mount>) -> HostConfig {
    let memory = spec.memory_bytes.map(|bytes| bytes as i64);
    HostConfig {
        memory,
        // As much as memory means: no swap ("Runtime options with Memory, CPUs, and GPUs").
        memory_swap: memory,
        nano_cpus: spec
            .cpu_millis
            .map(|millis| (millis * NANOS_PER_MILLI) as i64),
        network_mode: Some(match &spec.network {
            Network::None => "none".to_owned(),
            Network::Named(name) => name.clone(),
        }),
        mounts: mount.map(|mount| vec![mount]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        log_config: Some(HostConfigLogConfig {
            typ: Some(LOG_DRIVER.to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), format!("{LOG_FILE_MEBIBYTES}m")),
                ("max-file".to_owned(), LOG_FILES.to_string()),
            ])),
        }),
        ..HostConfig::default()
    }
}

/// Writes whose it is onto a container that is to be made.
pub(super) fn mark(body: &mut ContainerCreateBody, identity: &Identity, worker: &Worker, fed: Fed) {
    let labels = body.labels.get_or_insert_default();
    for (name, value) in identity.labels() {
        labels.insert(name.to_owned(), value);
    }
    labels.insert(WORKER_LABEL.to_owned(), worker.label());
    labels.insert(INPUT_LABEL.to_owned(), fed.label().to_owned());
}

/// Where the file of a key lies in the container.
pub(super) fn path_inside(key: &[u8]) -> PathBuf {
    Path::new(FILE_DIRECTORY).join(scratch::file_name(key))
}

/// Puts a file of this machine there.
///
/// # Errors
/// `BadInput`: a path that is no text cannot be said to Docker.
pub(super) fn mount(file: &Path, inside: &Path) -> Result<Mount, Failure> {
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(text(file.into())?),
        target: Some(text(inside.into())?),
        read_only: Some(true),
        ..Mount::default()
    })
}

fn text(word: OsString) -> Result<String, Failure> {
    word.into_string().map_err(|word| {
        let cause = format!(
            "{} is no UTF-8, and Docker takes no other arguments and paths; read the item from stdin",
            word.display()
        );
        Failure::new(Class::BadInput, cause)
    })
}

fn work_of(spec: &DockerSpec, arguments: &Vec<String>, items: &[&CallItem]) -> String {
    let mut digest = Sha256::new();
    let limits = (spec.memory_bytes, spec.cpu_millis, &spec.network);
    digest.update(format!(
        "{:?}",
        (&spec.image, arguments, &spec.environment, limits)
    ));
    for item in items {
        digest.update([0]);
        digest.update(match &*item.input {
            Input::Value(json) => json.as_bytes().to_vec(),
            Input::Object(_) => item.input.to_json().into_bytes(),
        });
    }
    hexadecimal(digest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;
    use std::sync::Arc;

    use super::*;
    use crate::core::id::{Epoch, Generation, PageId};
    use crate::core::job::OutputMode;
    use crate::ports::executor::OUTPUT_BYTES_MAX;

    fn spec() -> DockerSpec {
        DockerSpec {
            image: "thumbnail:1".to_owned(),
            argv: Vec::new(),
            environment: BTreeMap::from([("TROMMEL_RUN".to_owned(), "mine".to_owned())]),
            memory_bytes: Some(64 << 20),
            cpu_millis: Some(1500),
            network: Network::None,
            output: OutputMode::Keep,
        }
    }

    fn item(value: &str) -> CallItem {
        CallItem {
            id: PageId::new(0, 1).origin(0),
            attempt: 1,
            epoch: Epoch(1),
            generation: Generation(0),
            input: Arc::new(Input::Value(value.into())),
        }
    }

    fn task(spec: &DockerSpec, arguments: &[&str], value: &str) -> Task {
        let arguments = arguments.iter().map(OsString::from).collect();
        Task::new(spec, arguments, &[&item(value)]).expect("plain words")
    }

    #[test]
    fn limits_are_set_without_swap_and_without_new_privileges() {
        let made = body(&spec(), task(&spec(), &["run"], "1"));
        let host = made.host_config.expect("always set");
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(64 << 20), Some(64 << 20))
        );
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(
            host.security_opt,
            Some(vec!["no-new-privileges".to_owned()])
        );
        let log = host.log_config.expect("always set");
        assert_eq!(log.config.expect("always set")["max-size"], "16m");
    }

    #[test]
    fn a_log_keeps_every_output_that_is_allowed() {
        const { assert!(LOG_KEPT_BYTES > 2 * OUTPUT_BYTES_MAX as u64) }
    }

    #[test]
    fn without_arguments_the_image_runs_its_own_command() {
        assert_eq!(body(&spec(), task(&spec(), &[], "1")).cmd, None);
    }

    #[test]
    fn what_trommel_says_of_the_call_stands_instead_of_the_jobs_own_variables() {
        let mut task = task(&spec(), &[], "1");
        task.variables = vec![("TROMMEL_RUN", "run-1".to_owned())];
        let env = body(&spec(), task).env.expect("always set");
        assert_eq!(env, ["TROMMEL_RUN=run-1"]);
    }

    #[test]
    fn another_image_argument_limit_or_input_is_other_work() {
        let bigger = DockerSpec {
            memory_bytes: None,
            ..spec()
        };
        let works = [
            task(&spec(), &["a"], "1").work,
            task(&spec(), &["b"], "1").work,
            task(&spec(), &["a"], "2").work,
            task(&bigger, &["a"], "1").work,
        ];
        let distinct: std::collections::BTreeSet<_> = works.iter().collect();
        assert_eq!(distinct.len(), works.len());
        assert_eq!(works[0], task(&spec(), &["a"], "1").work);
    }

    #[test]
    fn a_file_keeps_its_extension_inside_and_is_only_read() {
        let inside = path_inside(b"in/a b.png");
        assert_eq!(inside, Path::new("/trommel/a b.png"));
        let mount = mount(Path::new("/data/in/a b.png"), &inside).expect("plain paths");
        assert_eq!(mount.target.as_deref(), Some("/trommel/a b.png"));
        assert_eq!(mount.read_only, Some(true));
    }

    #[test]
    fn an_argument_that_is_no_text_is_bad_input() {
        let word = OsString::from_vec(b"\xff".to_vec());
        let refused = Task::new(&spec(), vec![word], &[&item("1")]).err();
        assert_eq!(refused.expect("no text").class, Class::BadInput);
    }
}
