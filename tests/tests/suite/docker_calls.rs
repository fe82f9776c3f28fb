//! Jobs whose calls are containers. They need Docker's engine, so they are ignored where nobody says that it is there; the
//! project's own check runs them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Place, figure, wait_until};

/// A static program and scripts: Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";
const WORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers/work.sh");
const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers/contract.sh");

/// An image of /work.sh, /contract.sh and what they need; imported if it is not there. What goes into it names it.
pub(crate) fn image() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let mut hash = DefaultHasher::new();
        for path in [BUSYBOX, WORK, CONTRACT] {
            let bytes = fs::read(path).unwrap_or_else(|error| {
                panic!("{path}: {error}; busybox is in apt-get install busybox-static")
            });
            hash.write(&bytes);
        }
        let name = format!("trommel-work:{:016x}", hash.finish());
        if docker(&["images", "-q", &name]).is_empty() {
            import(&name);
        }
        name
    })
}

fn import(name: &str) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let bin = root.path().join("bin");
    fs::create_dir(&bin).expect("just made");
    fs::copy(BUSYBOX, bin.join("busybox")).expect("just read");
    for applet in ["sh", "cat", "sleep", "echo", "tail", "awk", "sed"] {
        symlink("busybox", bin.join(applet)).expect("a new name");
    }
    fs::copy(WORK, root.path().join("work.sh")).expect("a file of ours");
    fs::copy(CONTRACT, root.path().join("contract.sh")).expect("a file of ours");
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(root.path())
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .expect("every system has tar");
    let packed = tar.stdout.take().expect("piped");
    docker_reading(&["import", "-", name], packed.into());
    let packing = tar.wait().expect("it was started");
    assert!(packing.success(), "tar: {packing}");
}

/// What a docker command says.
pub(crate) fn docker(args: &[&str]) -> String {
    docker_reading(args, Stdio::null())
}

fn docker_reading(args: &[&str], stdin: Stdio) -> String {
    let done = Command::new("docker").args(args).stdin(stdin).output();
    let done =
        done.unwrap_or_else(|error| panic!("docker: {error}; install docker.io and docker-cli"));
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{words}; start Docker's engine: dockerd"
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn left_of(run: &str) -> usize {
    docker(&["ps", "-aq", "--filter", &format!("label=trommel.run={run}")])
        .lines()
        .count()
}

/// Listens to the engine: it remembers only its last few hundred events.
struct Starts {
    listening: Child,
    heard: PathBuf,
}

impl Starts {
    fn listen(place: &Place) -> Self {
        const SAID: &str = "{{index .Actor.Attributes \"trommel.run\"}} \
            {{index .Actor.Attributes \"trommel.item\"}}/{{index .Actor.Attributes \"trommel.attempt\"}}";
        let heard = place.path("starts");
        let listening = Command::new("docker")
            .args([
                "events",
                "--filter",
                "event=start",
                "--filter",
                "label=trommel.run",
                "--format",
                SAID,
            ])
            .stdout(File::create(&heard).expect("a file of ours"))
            .spawn();
        Self {
            listening: listening.expect("docker is there"),
            heard,
        }
    }

    /// How often a container was started for each item and attempt of a run.
    fn of(mut self, run: &str) -> BTreeMap<String, u32> {
        self.listening.kill().expect("it listens");
        self.listening.wait().expect("just killed");
        let mut starts = BTreeMap::new();
        for line in fs::read_to_string(&self.heard)
            .expect("a file of ours")
            .lines()
        {
            if let Some((_, attempt)) = line.split_once(' ').filter(|(of, _)| *of == run) {
                *starts.entry(attempt.to_owned()).or_default() += 1;
            }
        }
        starts
    }
}

/// Five of each kind of failure among a hundred items.
fn wrong(n: u64) -> &'static str {
    match n {
        n if n >= 75 => "well",
        n => match n % 15 {
            0 => "eat",
            5 => "sleep",
            10 => "exit",
            _ => "well",
        },
    }
}

fn job() -> Place {
    let image = image();
    let script = "case $(cat) in *eat*) tail /dev/zero;; *sleep*) sleep 600;; *exit*) exit 3;; *) sleep 0.3; echo 1;; esac";
    let place = Place::with_job(&format!(
        "name = \"containers\"\ninput = {{ jsonl = \"in.jsonl\" }}\nmax_concurrency = 4\ntolerated_failure_count = 15\n\
         results = \"out\"\n[function]\ntimeout = \"5s\"\ngrace = \"1s\"\n[function.docker]\nimage = \"{image}\"\n\
         command = [\"sh\", \"-c\", {script:?}]\nmemory = \"32 MiB\"\nnetwork = \"none\"\n"
    ));
    let lines = (0..100).map(|n| format!("{{\"n\":{n},\"do\":\"{}\"}}\n", wrong(n)));
    place.write("in.jsonl", lines.collect::<String>());
    place
}

pub(crate) fn classes(place: &Place) -> BTreeMap<String, u32> {
    let mut classes = BTreeMap::new();
    let failed = place.items(&["--state", "failed"]).into_iter();
    for item in failed.chain(place.items(&["--state", "timed-out"])) {
        *classes.entry(item.class.unwrap_or_default()).or_default() += 1;
    }
    classes
}

#[test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
fn docker_calls_end_as_their_containers_do_and_a_killed_worker_s_are_adopted() {
    let place = job();
    let starts = Starts::listen(&place);
    let worker = place.start(&["run", "job.toml"]);
    wait_until("some are done and some run", Duration::from_mins(1), || {
        place
            .maybe_status()
            .is_some_and(|status| status.item_counts.succeeded >= 20)
    });
    let run = place.status().run;
    worker.signal(Signal::SIGKILL);
    worker.wait();
    assert!(left_of(&run) > 0, "containers outlive their worker");
    let begun = crate::support::now();
    place
        .start(&["resume"])
        .wait_within(Duration::from_mins(5))
        .exits(3);
    let took = begun.elapsed();
    let counts = place.status().item_counts;
    assert_eq!(
        (counts.succeeded, counts.failed, counts.timed_out),
        (85, 10, 5)
    );
    let wanted = [("OutOfMemory", 5), ("Timeout", 5), ("Exit3", 5)];
    assert_eq!(
        classes(&place),
        wanted
            .map(|(class, count)| (class.to_owned(), count))
            .into()
    );
    let starts = starts.of(&run);
    assert_eq!(starts.len(), 100);
    let twice: Vec<_> = starts.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    wait_until("nothing is left", Duration::from_secs(30), || {
        left_of(&run) == 0
    });
    place.audit();
    figure(&format!(
        "100 containers, a worker killed: the rest took {took:.1?}, none started twice for an attempt"
    ));
}

#[test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
fn docker_gives_what_a_command_gives() {
    let lines = (0..200).map(|n| format!("{{\"n\":{n},\"text\":\"item number {n}\"}}\n"));
    let lines: String = lines.collect();
    let mut told = Vec::new();
    for executor in [
        format!("command = [\"{WORK}\"]"),
        format!(
            "docker = {{ image = \"{}\", command = [\"sh\", \"/work.sh\"], network = \"none\" }}",
            image()
        ),
    ] {
        let place = Place::with_job(&format!(
            "name = \"work\"\ninput = {{ jsonl = \"in.jsonl\" }}\nmax_concurrency = 4\nresults = \"out\"\n[function]\n{executor}\n"
        ));
        place.write("in.jsonl", &lines);
        place.trommel(&["run", "job.toml"]).exits(0);
        told.push(crate::journey_handlers::canonical(&place));
    }
    assert_eq!(told[0].lines().count(), 200);
    assert_eq!(told[0], told[1]);
}
