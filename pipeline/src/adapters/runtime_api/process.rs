//! One process of a handler: started, watched, asked, ended. Whatever happens to it, its whole group ends with it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::desk::{Desk, InitError, Said, Task};
use super::endpoint::Endpoint;
use super::memory;
use crate::adapters::cgroup::{Divided, Held, Want};
use crate::adapters::command::{Group, Reaper, SESSION_VARIABLE};
use crate::adapters::invocation;
use crate::core::class::{Class, Failure};
use crate::core::job::HandlerSpec;

/// What is kept of what a process writes: as much as Lambda's log tail ("Invoke", LogResult).
const LOG_BYTES_KEPT: usize = 4096;

/// Read at a time.
const READ_BYTES: usize = 4096;

/// A process that does not ask for work within this is given up; Lambda gives ten seconds, on faster disks.
pub(super) const START_WAIT_MAX: Duration = Duration::from_mins(2);

/// How long what a dead process wrote last may take to arrive.
const LAST_WORDS_WAIT_MAX: Duration = Duration::from_millis(200);

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Exited(i32),
    Signalled(i32),
    /// Ended by us for its memory.
    OutOfMemory {
        held_bytes: u64,
        bytes_max: u64,
    },
    /// Ended by the kernel, as it wanted more than it may have.
    OverItsBound {
        bytes_max: u64,
    },
    /// Ended by the kernel, which had no memory left for it, though it held no more than it may.
    NoneLeft,
    Unknown,
}

/// The end of a process that was asked something.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) why: Why,
    /// What it wrote since it took the event.
    pub(super) log: Vec<u8>,
    /// Whether it had taken the event.
    pub(super) was_asked: bool,
}

/// The end of what a process writes.
#[derive(Default)]
pub(super) struct Tail(Mutex<Vec<u8>>);

impl Tail {
    /// An event was taken: what was written before is not of it.
    pub(super) fn begin(&self) {
        self.bytes().clear();
    }

    pub(super) fn since_begun(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.bytes();
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(LOG_BYTES_KEPT);
        kept.drain(..surplus);
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process is started from.
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) spec: &'a HandlerSpec,
    pub(super) arn: &'a Arc<str>,
    pub(super) function: &'a str,
    pub(super) divided: Option<&'a Arc<Divided>>,
    pub(super) reaper: Option<&'a Arc<Reaper>>,
}

impl Start<'_> {
    /// Starts one, and waits until it asks for work. Dropped before that, it ends.
    ///
    /// # Errors
    /// It does not come as far, and why.
    pub(super) async fn run(self) -> Result<Ready, Failure> {
        let tail = Arc::new(Tail::default());
        let desk = Desk::new(Arc::clone(&tail));
        let endpoint = Endpoint::open(Arc::clone(&desk), Arc::clone(self.arn)).await;
        let endpoint = endpoint.map_err(|error| self.unavailable(&error))?;
        let (child, group) = self
            .spawn(endpoint.address)
            .map_err(|error| self.unavailable(&error))?;
        let memory = self.bound(&child);
        let mut ready = Ready::watch(child, group, (desk, endpoint), memory);
        let up = tokio::time::timeout(START_WAIT_MAX, ready.up()).await;
        let cause = match up {
            Ok(Ok(())) => return Ok(ready),
            Ok(Err(NotUp::Said(error))) => {
                invocation::read_error(&error.body, error.kind.as_deref(), &[]).to_string()
            }
            Ok(Err(NotUp::Died(why))) => format!("{} before it asked for work", in_words(why)),
            Err(_) => format!("it did not ask for work within {START_WAIT_MAX:?}"),
        };
        ready.hear_out().await;
        let cause = format!("{} does not start: {cause}", self.program.display());
        let cause = invocation::with_log(&cause, &tail.since_begun());
        Err(Failure::new(Class::Unavailable, cause))
    }

    /// Called as soon as the process is there. It gets its work only after it has asked for it, so whatever it takes for that counts.
    fn bound(&self, child: &Child) -> Memory {
        let (Some(process), Some(bytes_max)) = (child.id(), self.spec.memory_bytes) else {
            return Memory::Unbounded;
        };
        match self.divided.map(|divided| divided.hold(process, bytes_max)) {
            Some(Ok(held)) => {
                take_in_children(&held, process);
                Memory::Held(held)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a process has no cgroup, so its memory is watched");
                Memory::Watched { process, bytes_max }
            }
            None => Memory::Watched { process, bytes_max },
        }
    }

    fn unavailable(&self, error: &io::Error) -> Failure {
        let cause = format!("{} did not start: {error}", self.program.display());
        Failure::new(Class::Unavailable, cause)
    }

    fn spawn(&self, api: SocketAddr) -> io::Result<(Child, Group)> {
        let spec = self.spec;
        let mut command = std::process::Command::new(self.program);
        // "Using Lambda environment variables": those that runtimes rely on.
        command
            .args(&spec.argv[1..])
            .current_dir(&spec.cwd)
            .env("LAMBDA_TASK_ROOT", &spec.cwd)
            .env("AWS_LAMBDA_FUNCTION_NAME", self.function)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env(
                "AWS_LAMBDA_LOG_GROUP_NAME",
                format!("/aws/lambda/{}", self.function),
            )
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env(
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                mebibytes(spec.memory_bytes),
            )
            .envs(&spec.environment)
            .env("AWS_LAMBDA_RUNTIME_API", api.to_string())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(reaper) = self.reaper {
            command.env(SESSION_VARIABLE, reaper.session());
        }
        let child = Command::from(command).spawn()?;
        let process = child.id().expect("it was not waited for yet");
        let group = Group::of(process, self.reaper)?;
        Ok((child, group))
    }
}

/// Lambda's unit. Without a bound, the most that a function there can have.
fn mebibytes(bytes: Option<u64>) -> String {
    const MOST: u64 = 10_240;
    bytes.map_or(MOST, |bytes| bytes >> 20).to_string()
}

fn in_words(why: Why) -> String {
    match why {
        Why::Exited(code) => format!("it exited with status {code}"),
        Why::Signalled(signal) => format!("it was killed by signal {signal}"),
        Why::OutOfMemory {
            held_bytes,
            bytes_max,
        } => {
            format!("it held {held_bytes} bytes, more than the {bytes_max} it may,")
        }
        Why::OverItsBound { bytes_max } => {
            format!("it wanted more bytes than the {bytes_max} it may hold, and was ended")
        }
        Why::NoneLeft => "it was ended, as there was no memory left,".to_owned(),
        Why::Unknown => "it ended, nobody knows how,".to_owned(),
    }
}

/// A wrapper's child may have been started before the wrapper was moved, and is not moved with it. What a child that was moved
/// starts is born where it is, so a pass that finds nobody new was the last.
fn take_in_children(held: &Held, process: u32) {
    /// A wrapper of a wrapper of a wrapper, each caught in the moment it forks.
    const PASSES_MAX: u32 = 4;
    let mut taken = Vec::new();
    for _ in 0..PASSES_MAX {
        let found = memory::started_by(process);
        let before = taken.len();
        for child in found {
            // Gone meanwhile is as good.
            if !taken.contains(&child) && held.take_in(child).is_ok() {
                taken.push(child);
            }
        }
        if taken.len() == before {
            return;
        }
    }
}

/// Who keeps a process within its memory.
enum Memory {
    Unbounded,
    /// We do, by looking at it.
    Watched {
        process: u32,
        bytes_max: u64,
    },
    /// The kernel.
    Held(Held),
}

impl Memory {
    /// Returns when it holds more than it may, if that is ours to see.
    async fn too_much(&self) -> Why {
        let Self::Watched { process, bytes_max } = *self else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(memory::LOOK_EVERY).await;
            let held_bytes = memory::held_bytes(process).unwrap_or(0);
            if held_bytes > bytes_max {
                return Why::OutOfMemory {
                    held_bytes,
                    bytes_max,
                };
            }
        }
    }

    /// What the kernel says of a process that has ended, however that looked.
    fn want(&self) -> Option<Why> {
        let Self::Held(held) = self else { return None };
        let bytes_max = held.bytes_max;
        Some(match held.want()? {
            Want::OverItsBound => Why::OverItsBound { bytes_max },
            Want::NoneLeft => Why::NoneLeft,
        })
    }
}

/// Why a process is not up.
enum NotUp {
    Said(InitError),
    Died(Why),
}

/// A process that can be asked. When it is dropped it ends, with all that it started.
pub(super) struct Ready {
    process: Option<u32>,
    desk: Arc<Desk>,
    exit: watch::Receiver<Option<Why>>,
    /// All that was written has been read.
    heard: watch::Receiver<Option<()>>,
    _endpoint: Endpoint,
    _watching: Watching,
}

/// Ends the process and those who listen to it.
struct Watching(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Watching {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Ready {
    fn watch(
        mut child: Child,
        group: Group,
        (desk, endpoint): (Arc<Desk>, Endpoint),
        memory: Memory,
    ) -> Self {
        let process = child.id();
        let (heard, all_heard) = watch::channel(None);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let tail = Arc::clone(&desk.tail);
        let listen = tokio::spawn(async move {
            tokio::join!(listen(stdout, &tail), listen(stderr, &tail));
            heard.send_replace(Some(()));
        });
        let (exited, exit) = watch::channel(None);
        let watch = tokio::spawn(async move {
            let why = end_of(child, group, memory).await;
            exited.send_replace(Some(why));
        });
        Self {
            process,
            desk,
            exit,
            heard: all_heard,
            _endpoint: endpoint,
            _watching: Watching(vec![listen, watch]),
        }
    }

    async fn up(&mut self) -> Result<(), NotUp> {
        tokio::select! {
            biased;
            up = self.desk.up() => up.map_err(NotUp::Said),
            why = ended(&mut self.exit) => Err(NotUp::Died(why)),
        }
    }

    /// Whether it could take an event: the kernel knows sooner than whoever waits for its end.
    pub(super) fn is_alive(&self) -> bool {
        let Some(process) = self.process.filter(|_| self.exit.borrow().is_none()) else {
            return false;
        };
        // A look that takes no exit status from whoever waits for it.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let id = Id::Pid(Pid::from_raw(process as i32));
        matches!(waitid(id, look), Ok(WaitStatus::StillAlive))
    }

    /// Lets it carry out one event.
    ///
    /// # Errors
    /// It ended before it answered.
    pub(super) async fn ask(&mut self, task: Task) -> Result<Said, Death> {
        self.desk.lay(task);
        let why = tokio::select! {
            biased;
            said = self.desk.answer() => return Ok(said),
            why = ended(&mut self.exit) => why,
        };
        // An answer may have come with the death.
        if let Some(said) = self.desk.take_answer() {
            return Ok(said);
        }
        let was_asked = !self.desk.is_untaken();
        self.hear_out().await;
        Err(Death {
            why,
            log: self.desk.tail.since_begun(),
            was_asked,
        })
    }

    /// What it wrote since it took its event.
    pub(super) fn log(&self) -> Vec<u8> {
        self.desk.tail.since_begun()
    }

    /// Waits a moment for what was written last.
    async fn hear_out(&mut self) {
        let all = self.heard.wait_for(Option::is_some);
        // What it left behind may hold its pipes; then this is all.
        let _ = tokio::time::timeout(LAST_WORDS_WAIT_MAX, all).await;
    }
}

async fn ended(exit: &mut watch::Receiver<Option<Why>>) -> Why {
    match exit.wait_for(Option::is_some).await {
        Ok(why) => why.unwrap_or(Why::Unknown),
        Err(_) => Why::Unknown,
    }
}

async fn listen(pipe: Option<impl AsyncRead + Unpin>, tail: &Tail) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        tail.add(&buffer[..read]);
    }
}

/// Waits for the end of a process. If it is dropped, the group ends; its memory's cgroup first, as the group's note is the last
/// that holds the helper.
async fn end_of(mut child: Child, mut group: Group, memory: Memory) -> Why {
    let why = tokio::select! {
        biased;
        status = child.wait() => memory.want().unwrap_or_else(|| status.map_or(Why::Unknown, why_of)),
        why = memory.too_much() => why,
    };
    group.end();
    if matches!(why, Why::OutOfMemory { .. }) {
        // Killed by now: this takes its exit status.
        let _ = child.wait().await;
    }
    why
}

fn why_of(status: ExitStatus) -> Why {
    match (status.code(), status.signal()) {
        (Some(code), _) => Why::Exited(code),
        (None, Some(signal)) => Why::Signalled(signal),
        (None, None) => Why::Unknown,
    }
}
