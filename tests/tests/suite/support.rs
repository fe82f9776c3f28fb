//! What journeys share: a directory with a job in it, the real program run there, children that keep a
//! log, and waits with deadlines.
//!
//! A journey knows nothing of the program's inside: it writes files, runs commands, reads what they print.

#![expect(
    clippy::disallowed_methods,
    reason = "journeys watch real processes, by the clock on the wall"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

/// No command of a journey takes so long, however busy the machine; at full scale some do.
const COMMAND_MAX: Duration = Duration::from_secs(120);
const COMMAND_MAX_FULL: Duration = Duration::from_secs(1800);

/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Asks for the full figures: `TROMMEL_JOURNEY_SCALE=full`.
const SCALE_VARIABLE: &str = "TROMMEL_JOURNEY_SCALE";

/// Whether the full figures are asked for.
pub(crate) fn is_full() -> bool {
    std::env::var(SCALE_VARIABLE).is_ok_and(|scale| scale == "full")
}

/// The size of a journey: one that keeps the suite short, or the full one.
pub(crate) fn scaled<T>(usual: T, full: T) -> T {
    if is_full() { full } else { usual }
}

fn command_max() -> Duration {
    scaled(COMMAND_MAX, COMMAND_MAX_FULL)
}

/// Says a figure, past the harness, which would keep the words of a test that passes.
pub(crate) fn figure(what: &str) {
    let line = format!("FIGURE: {what}\n");
    io::stderr()
        .write_all(line.as_bytes())
        .expect("the words must not get lost");
}

/// The time on the wall's clock, for what is measured.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < within,
            "waited {within:?} in vain: {what}"
        );
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    wait_for(what, within, || is_so().then_some(()));
}

/// A directory with a job in it, in which the program runs.
pub(crate) struct Place {
    dir: TempDir,
    commands: AtomicU32,
    variables: Vec<(String, String)>,
    /// The ledger, if it is not the place's own.
    ledger: Option<String>,
}

impl Place {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            commands: AtomicU32::new(0),
            variables: Vec::new(),
            ledger: None,
        }
    }

    /// An empty one whose commands see these variables and look into this ledger. `run` and `worker` are
    /// not told of it: their job names it.
    pub(crate) fn elsewhere(ledger: &str, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            variables: variables.iter().map(owned).collect(),
            ledger: Some(ledger.to_owned()),
            ..Self::new()
        }
    }

    /// Has its commands see one more variable.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// One with a job.
    pub(crate) fn with_job(job: &str) -> Self {
        let place = Self::new();
        place.write("job.toml", job);
        place
    }

    /// A path in it.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the directories above it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let above = path.parent().expect("a file lies in a directory");
        fs::create_dir_all(above).expect("a directory of ours");
        fs::write(&path, bytes).expect("a file of ours");
        path
    }

    /// Writes a shell script that may use `note`, which adds a line to the children's log.
    pub(crate) fn script(&self, name: &str, body: &str) {
        let (dir, log) = (self.dir.path().display(), self.log_path());
        let log = log.display();
        let text = format!("#!/bin/sh\ncd '{dir}'\nnote() {{ echo \"$*\" >> '{log}'; }}\n{body}\n");
        let path = self.write(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }

    fn log_path(&self) -> PathBuf {
        self.path("children.log")
    }

    /// What the children noted, in the order in which they did.
    pub(crate) fn log(&self) -> Log {
        let bytes = match fs::read(self.log_path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("the children's log: {error}"),
        };
        let text = String::from_utf8(bytes).expect("children note plain text");
        // A line is written at once; a last one without its end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        Log {
            lines: whole.lines().map(words).collect(),
        }
    }

    /// Starts the program.
    pub(crate) fn start(&self, args: &[&str]) -> Process {
        self.start_with(args, Stdio::null())
    }

    fn start_with(&self, args: &[&str], stdin: Stdio) -> Process {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let out = self.path(format!("command-{number}.out"));
        let err = self.path(format!("command-{number}.err"));
        let file = |path: &Path| File::create(path).expect("a file of ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_trommel-cli"));
        command.env_remove("TROMMEL_LEDGER");
        let names_a_job = matches!(args.first(), Some(&("run" | "serve" | "worker")));
        if let (Some(ledger), false) = (&self.ledger, names_a_job) {
            command.env("TROMMEL_LEDGER", ledger);
        }
        let child = command
            .args(args)
            .current_dir(self.dir.path())
            .envs(self.variables.iter().cloned())
            .stdin(stdin)
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .expect("the program starts");
        Process {
            child,
            what: args.join(" "),
            out,
            err,
        }
    }

    /// Runs the program to its end.
    pub(crate) fn trommel(&self, args: &[&str]) -> Done {
        self.start(args).wait()
    }

    /// Runs the program to its end with this text on its standard input.
    pub(crate) fn trommel_reading(&self, args: &[&str], stdin: &str) -> Done {
        let path = self.write("stdin", stdin);
        let file = File::open(path).expect("just written");
        self.start_with(args, file.into()).wait()
    }

    /// How the latest run stands.
    pub(crate) fn status(&self) -> Status {
        self.trommel(&["status", "--json"]).exits(0).json()
    }

    /// How the latest run stands, as long as it may not be there yet.
    pub(crate) fn maybe_status(&self) -> Option<Status> {
        let done = self.trommel(&["status", "--json"]);
        (done.code() == Some(0)).then(|| done.json())
    }

    /// All items of the latest run that fulfil these options.
    pub(crate) fn items(&self, options: &[&str]) -> Vec<Item> {
        let all = ["items", "--json", "--limit", "1000000"];
        let args: Vec<&str> = all.iter().chain(options).copied().collect();
        self.trommel(&args).exits(0).json()
    }

    /// The records of the latest run's result files of one kind, `SUCCEEDED` for example.
    pub(crate) fn results(&self, kind: &str) -> Vec<Value> {
        let dir = self.path("out").join(&self.status().run);
        let manifest = fs::read_to_string(dir.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
        let files = manifest["resultFiles"][kind].as_array();
        let files = files.expect("a manifest has all kinds");
        let records = files.iter().flat_map(|file| {
            let key = file["key"].as_str().expect("a file has a name");
            let text = fs::read_to_string(self.path("out").join(key)).expect("it is there");
            let lines = text.lines().map(serde_json::from_str);
            let records: Vec<Value> = lines.map(|line| line.expect("JSON lines")).collect();
            assert_eq!(file["items"], records.len(), "{key}: its manifest counts");
            records
        });
        records.collect()
    }

    /// The counts are right by a recount.
    pub(crate) fn audit(&self) {
        self.trommel(&["audit"]).exits(0);
    }
}

/// What children noted: words by line.
pub(crate) struct Log {
    /// All lines.
    pub(crate) lines: Vec<Vec<String>>,
}

impl Log {
    /// The second word of the lines that begin with this one.
    pub(crate) fn of(&self, word: &str) -> Vec<String> {
        let lines = self.lines.iter().filter(|line| line[0] == word);
        lines
            .map(|line| line.get(1).cloned().unwrap_or_default())
            .collect()
    }

    /// How many lines begin with this word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.lines.iter().filter(|line| line[0] == word).count()
    }

    /// How often each second word stands in lines that begin with this one.
    pub(crate) fn tally(&self, word: &str) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for name in self.of(word) {
            *tally.entry(name).or_insert(0) += 1;
        }
        tally
    }

    /// The most that had noted `start` and not yet `end` at one time.
    pub(crate) fn at_once(&self) -> usize {
        let mut now: usize = 0;
        let mut most = 0;
        for line in &self.lines {
            match line[0].as_str() {
                "start" => now += 1,
                "end" => now -= 1,
                _ => {}
            }
            most = most.max(now);
        }
        most
    }

    /// Starts of items that had noted their end before.
    pub(crate) fn started_again(&self) -> usize {
        let mut ended = BTreeSet::new();
        let mut again = 0;
        for line in &self.lines {
            match line[0].as_str() {
                "end" => drop(ended.insert(&line[1])),
                "start" if ended.contains(&line[1]) => again += 1,
                _ => {}
            }
        }
        again
    }
}

/// What `--json` says of a run.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
pub(crate) struct Status {
    pub(crate) run: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    pub(crate) generation: u32,
    pub(crate) item_counts: Counts,
    pub(crate) total_is_final: bool,
    pub(crate) failures: u64,
}

/// Its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) running: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) timed_out: u64,
    pub(crate) aborted: u64,
    pub(crate) skipped: u64,
    pub(crate) total: u64,
}

impl Counts {
    /// Every item counted once.
    pub(crate) fn add_up(&self) -> bool {
        let settled = self.succeeded + self.failed + self.timed_out + self.aborted + self.skipped;
        self.pending + self.running + settled == self.total
    }

    /// `[pending, running, succeeded, failed, timed out, aborted, skipped]`.
    pub(crate) fn list(&self) -> [u64; 7] {
        [
            self.pending,
            self.running,
            self.succeeded,
            self.failed,
            self.timed_out,
            self.aborted,
            self.skipped,
        ]
    }
}

/// What `items --json` says of an item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
pub(crate) struct Item {
    pub(crate) item: String,
    pub(crate) state: String,
    pub(crate) lane: String,
    pub(crate) attempts: u32,
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) class: Option<String>,
    #[serde(default)]
    pub(crate) cause: Option<String>,
}

/// A process of the program. It is killed when dropped; its calls die with it.
pub(crate) struct Process {
    child: Child,
    what: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).expect("a file of ours")).into_owned()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process number"));
        kill(pid, signal).expect("a child of ours");
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Done {
        self.wait_within(command_max())
    }

    /// Waits for its end, so long at most.
    pub(crate) fn wait_within(mut self, within: Duration) -> Done {
        let begun = Instant::now();
        let status = wait_for(&format!("the end of `{}`", self.what), within, || {
            self.child.try_wait().expect("a child of ours")
        });
        Done {
            status,
            what: self.what.clone(),
            stdout: fs::read_to_string(&self.out).expect("it writes UTF-8"),
            stderr: self.said(),
            waited: begun.elapsed(),
        }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be over, and waited for, already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
pub(crate) struct Done {
    status: ExitStatus,
    what: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// How long its end was waited for.
    pub(crate) waited: Duration,
}

impl Done {
    /// Its exit code; none if a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// It must have exited with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        let (what, status) = (&self.what, self.status);
        let (out, err) = (&self.stdout, &self.stderr);
        assert_eq!(
            self.code(),
            Some(code),
            "`{what}` ended with {status}, not {code}\nstdout: {out}\nstderr: {err}"
        );
        self
    }

    /// What it printed with `--json`.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("`{}`: {error}: {}", self.what, self.stdout),
        }
    }
}

/// Whether a process of that number is there and not merely waiting to be waited for.
pub(crate) fn is_alive(process: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return false;
    };
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.starts_with('Z')
}
