//! The `command` executor: a process a call, on this machine.
//!
//! It checks the source, fills in the command line, runs the process ([`child`]) and reads its answer
//! ([`protocol`]). It decides neither retries nor timeouts: whoever wants a call to end stops it.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for real processes, which no simulated clock can hurry"
)]

mod argv;
mod child;
mod group;
mod protocol;
mod reaper;
mod scratch;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;

pub use argv::{ResolveError, resolve};
pub(in crate::adapters) use group::Group;
pub(in crate::adapters) use reaper::SESSION_VARIABLE;
pub use reaper::{Reaper, reaper_main};

use crate::core::class::{Class, Failure};
use crate::core::item::{Input, Object};
use crate::core::job::OutputMode;
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use crate::ports::objects::{Objects, ObjectsError};
use argv::{Holes, Template};
use child::{Ended, Listen, Start, Stopping};
use scratch::Scratch;

/// A command, as a job says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments; `{path}`, `{key}` and `{size}` in the arguments are filled in.
    pub argv: Vec<String>,
    /// The directory it runs in, and that a relative program is looked for from.
    pub cwd: PathBuf,
    /// Whether its stdout is kept.
    pub output: OutputMode,
}

/// Runs a command for each call.
pub struct CommandExecutor {
    program: PathBuf,
    template: Template,
    cwd: PathBuf,
    output: OutputMode,
    input: Option<Arc<dyn Objects>>,
    reaper: Option<Arc<Reaper>>,
}

impl CommandExecutor {
    /// Resolves the program, against this process's PATH. `input` is where object items lie: none for
    /// jobs over values. Without a `reaper` calls outlive a worker that is killed with `kill -9`.
    ///
    /// # Errors
    /// [`ResolveError`]: the program cannot be run.
    pub fn new(
        spec: &CommandSpec,
        input: Option<Arc<dyn Objects>>,
        reaper: Option<Arc<Reaper>>,
    ) -> Result<Self, ResolveError> {
        let (program, arguments) = spec.argv.split_first().ok_or(ResolveError::Empty)?;
        let search = std::env::var_os("PATH");
        Ok(Self {
            program: resolve(program, &spec.cwd, search.as_deref())?,
            template: Template::new(arguments),
            cwd: spec.cwd.clone(),
            output: spec.output,
            input,
            reaper,
        })
    }

    /// Carries out a call of items whose sources are as they were listed.
    async fn execute(&self, call: &Call, items: &[&CallItem], stop: &Stop) -> Vec<ItemReport> {
        if is_batch(call) {
            return self.execute_batch(call, items, stop).await;
        }
        let [item] = items else {
            unreachable!("a call of more items is a batch");
        };
        let report = match self.execute_single(call, item, stop).await {
            Ok(ended) => protocol::read_single(&ended, self.output),
            Err(NotRun::Stopped) => ItemReport::Undecided(protocol::stopped()),
            Err(NotRun::Failed(failure)) => ItemReport::Failed(failure),
        };
        vec![report]
    }

    async fn execute_single(
        &self,
        call: &Call,
        item: &CallItem,
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        // Held until the process is over: the file goes with it.
        let file = self.file_for(item, stop).await?;
        let mut command = self.command(self.arguments(item, &file)?);
        command
            .env("TROMMEL_RUN", call.run.as_str())
            .env("TROMMEL_ITEM", item.id.to_string())
            .env("TROMMEL_ATTEMPT", item.attempt.to_string())
            .env("TROMMEL_EPOCH", item.epoch.to_string())
            .env("TROMMEL_IDEMPOTENCY_KEY", item.idempotency_key(&call.run));
        let input = protocol::single_input(item);
        let listen = match self.output {
            OutputMode::Keep => Listen::All,
            OutputMode::None => Listen::Nothing,
        };
        let input = Box::new(std::iter::once(input));
        self.run(call, command, input, listen, stop).await
    }

    async fn execute_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Vec<ItemReport> {
        let ended = match self.run_batch(call, items, stop).await {
            Ok(ended) => ended,
            Err(NotRun::Stopped) => {
                return vec![ItemReport::Undecided(protocol::stopped()); items.len()];
            }
            Err(NotRun::Failed(failure)) => {
                return vec![protocol::unanswered(failure, items.len()); items.len()];
            }
        };
        protocol::read_batch(&ended, items, self.output)
    }

    async fn run_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        if self.template.needs_object() {
            let cause = "{path}, {key} and {size} mean one item, and this call carries a batch; \
                         read the items from stdin, or set max_items_per_batch = 1";
            return Err(Failure::new(Class::BadInput, cause).into());
        }
        let input = protocol::batch_input(&call.run, items)?;
        let nothing = Holes {
            path: Path::new(""),
            key: b"",
            size: 0,
        };
        let attempt = items.iter().map(|item| item.attempt).max().unwrap_or(1);
        let epoch = items
            .iter()
            .map(|item| item.epoch)
            .max()
            .unwrap_or_default();
        let mut command = self.command(self.template.fill(&nothing));
        command
            .env("TROMMEL_RUN", call.run.as_str())
            .env("TROMMEL_ATTEMPT", attempt.to_string())
            .env("TROMMEL_EPOCH", epoch.to_string())
            // Those of an outer worker would name the wrong item.
            .env_remove("TROMMEL_ITEM")
            .env_remove("TROMMEL_IDEMPOTENCY_KEY");
        self.run(call, command, Box::new(input), Listen::All, stop)
            .await
    }

    async fn run(
        &self,
        call: &Call,
        command: Command,
        input: child::Pieces<'_>,
        listen: Listen,
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        let start = Start {
            command,
            input,
            listen,
            reaper: self.reaper.as_ref(),
        };
        let stopping = Stopping {
            stop,
            grace: call.grace,
        };
        child::run(start, stopping)
            .await
            .map_err(|error| self.not_started(&error).into())
    }

    fn command(&self, arguments: Vec<OsString>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.cwd);
        if let Some(reaper) = &self.reaper {
            command.env(SESSION_VARIABLE, reaper.session());
        }
        command
    }

    fn arguments(&self, item: &CallItem, file: &File) -> Result<Vec<OsString>, Failure> {
        match &*item.input {
            Input::Object(object) => Ok(self.template.fill(&Holes {
                path: file.path(),
                key: &object.key,
                size: object.size_bytes,
            })),
            Input::Value(_) if self.template.needs_object() => {
                let cause = "{path}, {key} and {size} mean an object, and this item is a value; \
                             read it from stdin";
                Err(Failure::new(Class::BadInput, cause))
            }
            Input::Value(_) => Ok(self.template.fill(&Holes {
                path: Path::new(""),
                key: b"",
                size: 0,
            })),
        }
    }

    /// The file for `{path}`, if the command asks for one.
    async fn file_for(&self, item: &CallItem, stop: &Stop) -> Result<File, NotRun> {
        let Input::Object(object) = &*item.input else {
            return Ok(File::None);
        };
        if !self.template.needs_path() {
            return Ok(File::None);
        }
        let Some(input) = &self.input else {
            let cause = "{path} means an object, and this job has no store of objects";
            return Err(Failure::new(Class::BadInput, cause).into());
        };
        if let Some(path) = input.path(&object.store_key()) {
            return Ok(File::InStore(path));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(NotRun::Stopped),
            copy = Scratch::download(&**input, object) => Ok(File::Copy(copy?)),
        }
    }

    /// Why a process did not start. Whether the item or the machine is to blame, the kernel's word says.
    fn not_started(&self, error: &io::Error) -> Failure {
        let class = match error.kind() {
            // More than the kernel takes as arguments and environment; a NUL byte in an argument.
            io::ErrorKind::ArgumentListTooLong | io::ErrorKind::InvalidInput => Class::BadInput,
            _ => Class::Unavailable,
        };
        let (program, cwd) = (self.program.display(), self.cwd.display());
        Failure::new(class, format!("{program} did not start in {cwd}: {error}"))
    }

    /// How the source stands now, where it is a file in a directory; elsewhere nobody looks.
    async fn look(&self, item: &CallItem) -> Source {
        let (Input::Object(object), Some(input)) = (&*item.input, &self.input) else {
            return Source::AsListed;
        };
        if input.path(&object.store_key()).is_none() {
            return Source::AsListed;
        }
        match input.head(&object.store_key()).await {
            Ok(now) if now.pin == object.pin => Source::AsListed,
            Ok(now) => Source::Changed(changed(object, &now)),
            Err(ObjectsError::NotFound(key)) => Source::Gone(Failure::new(
                Class::Gone,
                format!("{key} is not there any more"),
            )),
            Err(error) => Source::Changed(scratch::failure_of(&error)),
        }
    }

    /// What an item's report is worth, now that its call is over.
    async fn check_after(&self, item: &CallItem, report: ItemReport) -> ItemReport {
        match report {
            ItemReport::Undecided(_) => report,
            ItemReport::Succeeded(_) | ItemReport::Failed(_) => match self.look(item).await {
                Source::Changed(failure) => ItemReport::Failed(failure),
                // A command may move or delete what it has done with.
                Source::AsListed | Source::Gone(_) => report,
            },
        }
    }
}

#[async_trait]
impl Executor for CommandExecutor {
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        if stop.is_cancelled() {
            return CallReport::undecided(call.items.len(), &protocol::stopped());
        }
        let mut reports = Vec::with_capacity(call.items.len());
        let mut going = Vec::with_capacity(call.items.len());
        for item in &call.items {
            match self.look(item).await {
                Source::AsListed => {
                    going.push(item);
                    reports.push(None);
                }
                Source::Changed(failure) | Source::Gone(failure) => {
                    reports.push(Some(ItemReport::Failed(failure)));
                }
            }
        }
        let mut answers = Vec::new();
        if !going.is_empty() {
            answers = self.execute(&call, &going, &stop).await;
        }
        let mut answers = answers.into_iter();
        let mut items = Vec::with_capacity(reports.len());
        for (item, report) in call.items.iter().zip(reports) {
            if let Some(report) = report {
                items.push(report);
                continue;
            }
            let answer = answers.next().expect("one answer for each that went");
            items.push(self.check_after(item, answer).await);
        }
        CallReport { items }
    }
}

fn is_batch(call: &Call) -> bool {
    call.batch || call.items.len() > 1
}

fn changed(listed: &Object, now: &Object) -> Failure {
    let cause = format!(
        "it was listed with {} bytes as {}, and has now {} bytes as {}",
        listed.size_bytes, listed.pin.etag, now.size_bytes, now.pin.etag
    );
    Failure::new(Class::SourceChanged, cause)
}

/// A source, compared with what was listed.
enum Source {
    AsListed,
    Changed(Failure),
    Gone(Failure),
}

/// Why there was no process.
enum NotRun {
    Stopped,
    Failed(Failure),
}

impl From<Failure> for NotRun {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What `{path}` stands for.
enum File {
    None,
    InStore(PathBuf),
    Copy(Scratch),
}

impl File {
    fn path(&self) -> &Path {
        match self {
            Self::None => Path::new(""),
            Self::InStore(path) => path,
            Self::Copy(copy) => copy.path(),
        }
    }
}

/// A name that nobody else has.
fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests;
