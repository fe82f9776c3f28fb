//! One process: started in a group of its own, fed, listened to within bounds, stopped, and cleaned up
//! after. What its words mean is not decided here.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::group::Group;
use super::reaper::Reaper;
use crate::ports::executor::{OUTPUT_BYTES_MAX, Stop};

/// How much of the end of stderr is kept: a cause is half as long, and the last line may be cut off it.
pub(in crate::adapters) const STDERR_BYTES_KEPT: usize = 8 * 1024;

/// Read at a time, once a process has shown that it says more than a little.
pub(in crate::adapters) const READ_BYTES: usize = 64 * 1024;

/// What is set aside for the first words of a process.
const FIRST_BYTES: usize = 1024;

/// Written at a time: what a pipe holds (pipe(7)).
pub(in crate::adapters) const FED_BYTES: usize = 64 * 1024;

/// As much as any pipe takes without a reader, even one of a user who holds too many (pipe(7)).
const PIPE_BYTES: usize = 4096;

/// How long to read on when a process has exited, but somebody who left its group still holds its pipe.
const DRAIN_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long a killed process may take to die: longer only if it hangs in the kernel.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// By the system: it needed more memory than it may have.
    #[cfg_attr(
        not(feature = "docker"),
        allow(
            dead_code,
            reason = "of processes without an engine the kernel only says the signal"
        )
    )]
    OutOfMemory,
    /// It was ended for its time.
    #[cfg_attr(
        not(feature = "docker"),
        expect(dead_code, reason = "who calls a command minds the time")
    )]
    TooLong(Duration),
    /// By us: it said more than [`OUTPUT_BYTES_MAX`].
    TooMuchOutput,
    /// Nobody knows: it was killed and did not die, or could not be waited for.
    Unknown,
}

/// A process that is over.
#[derive(Debug)]
pub(in crate::adapters) struct Ended {
    pub(in crate::adapters) exit: Exit,
    /// Whether it had been told to stop.
    pub(in crate::adapters) stopped: bool,
    pub(in crate::adapters) stdout: Vec<u8>,
    /// Its last words, at most [`STDERR_BYTES_KEPT`].
    pub(in crate::adapters) stderr: Vec<u8>,
}

/// What goes into a process, piece by piece; each is made when the ones before it were read.
pub(in crate::adapters) type Pieces<'a> = Box<dyn Iterator<Item = String> + Send + 'a>;

/// What a process is started with.
pub(super) struct Start<'a> {
    pub(super) command: std::process::Command,
    pub(super) input: Pieces<'a>,
    /// Whether anybody reads its stdout.
    pub(super) listen: Listen,
    pub(super) reaper: Option<&'a Arc<Reaper>>,
}

/// What is heard of stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Listen {
    All,
    Nothing,
}

/// How a process is stopped.
pub(super) struct Stopping<'a> {
    pub(super) stop: &'a Stop,
    pub(super) grace: Duration,
}

/// Runs a process to its end. If the future is dropped, its whole group is killed.
///
/// # Errors
/// It could not be started.
pub(super) async fn run(start: Start<'_>, stopping: Stopping<'_>) -> io::Result<Ended> {
    let Start {
        command,
        input: mut rest,
        listen,
        reaper,
    } = start;
    let first = gather(&mut rest, PIPE_BYTES);
    let mut running = Running::start(command, &first, listen, reaper)?;
    let mut feeding = pin!(feed(running.child.stdin.take(), first, rest));
    let mut is_fed = false;
    while !running.is_over() {
        let deadline = running.phase.deadline();
        tokio::select! {
            biased;
            () = stopping.stop.cancelled(), if running.phase == Phase::Free => {
                running.ask(stopping.grace);
            }
            () = until(deadline), if deadline.is_some() => running.lose_patience(),
            status = running.child.wait(), if running.exit.is_none() => running.exited(status),
            () = &mut feeding, if !is_fed => is_fed = true,
            // Before stderr: this one is bounded, so it cannot keep the other waiting for ever.
            read = read_some(&mut running.stdout, &mut running.said),
                if running.stdout.is_some() => running.heard(&read),
            read = read_some(&mut running.stderr, &mut running.tail),
                if running.stderr.is_some() => running.heard_error(&read),
        }
    }
    Ok(running.ended())
}

/// What may happen next to a process because of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    Free,
    /// Told to stop; it is killed then.
    Asked(Instant),
    /// Killed; it is given up then.
    Killed(Instant),
    /// Exited; its pipes are given up then.
    Draining(Instant),
}

impl Phase {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Free => None,
            Self::Asked(at) | Self::Killed(at) | Self::Draining(at) => Some(at),
        }
    }
}

struct Running {
    group: Group,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    tail: Vec<u8>,
    exit: Option<Exit>,
    stopped: bool,
    phase: Phase,
}

impl Running {
    fn start(
        mut command: std::process::Command,
        first: &str,
        listen: Listen,
        reaper: Option<&Arc<Reaper>>,
    ) -> io::Result<Self> {
        // No closure before exec and no change of user: the standard library then uses posix_spawn,
        // which does not copy this process's page tables.
        command
            .process_group(0)
            .stdin(stdin_of(first)?)
            .stdout(match listen {
                Listen::All => Stdio::piped(),
                Listen::Nothing => Stdio::null(),
            })
            .stderr(Stdio::piped());
        let mut child = Command::from(command).spawn()?;
        let process = child.id().expect("it was not waited for yet");
        let group = Group::of(process, reaper)?;
        Ok(Self {
            group,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            said: Vec::new(),
            tail: Vec::new(),
            exit: None,
            stopped: false,
            phase: Phase::Free,
        })
    }

    fn is_over(&self) -> bool {
        self.exit.is_some() && self.stdout.is_none() && self.stderr.is_none()
    }

    fn ask(&mut self, grace: Duration) {
        self.stopped = true;
        self.group.signal(Signal::SIGTERM);
        self.phase = Phase::Asked(Instant::now() + grace);
    }

    fn kill(&mut self) {
        self.group.signal(Signal::SIGKILL);
        self.phase = Phase::Killed(Instant::now() + KILL_WAIT_MAX);
    }

    fn lose_patience(&mut self) {
        match self.phase {
            Phase::Free => {}
            Phase::Asked(_) => self.kill(),
            Phase::Killed(_) => {
                self.exit.get_or_insert(Exit::Unknown);
                self.stop_listening();
            }
            Phase::Draining(_) => self.stop_listening(),
        }
    }

    fn stop_listening(&mut self) {
        self.stdout = None;
        self.stderr = None;
    }

    fn exited(&mut self, status: io::Result<ExitStatus>) {
        let exit = match status {
            Ok(status) => exit_of(status),
            Err(error) => {
                tracing::error!(%error, "a process could not be waited for");
                Exit::Unknown
            }
        };
        self.exit = Some(exit);
        // Whatever it left behind in its group goes with it, and lets go of the pipes.
        self.group.end();
        self.phase = Phase::Draining(Instant::now() + DRAIN_WAIT_MAX);
    }

    fn heard(&mut self, read: &io::Result<usize>) {
        if self.said.len() > OUTPUT_BYTES_MAX {
            self.exit = Some(Exit::TooMuchOutput);
            self.stop_listening();
            return;
        }
        if !matches!(read, Ok(1..)) {
            self.stdout = None;
        }
    }

    fn heard_error(&mut self, read: &io::Result<usize>) {
        if !matches!(read, Ok(1..)) {
            self.stderr = None;
        }
        if self.tail.len() >= READ_BYTES {
            keep_end(&mut self.tail);
        }
    }

    fn ended(mut self) -> Ended {
        self.group.end();
        keep_end(&mut self.tail);
        Ended {
            exit: self.exit.unwrap_or(Exit::Unknown),
            stopped: self.stopped,
            stdout: self.said,
            stderr: self.tail,
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Cuts it to [`STDERR_BYTES_KEPT`], from the front.
pub(in crate::adapters) fn keep_end(bytes: &mut Vec<u8>) {
    let surplus = bytes.len().saturating_sub(STDERR_BYTES_KEPT);
    bytes.drain(..surplus);
}

/// Pieces until they are more than so many bytes, or until there are no more.
pub(in crate::adapters) fn gather(pieces: &mut Pieces<'_>, bytes: usize) -> String {
    let mut gathered = String::new();
    while gathered.len() <= bytes
        && let Some(piece) = pieces.next()
    {
        if gathered.is_empty() {
            gathered = piece;
        } else {
            gathered.push_str(&piece);
        }
    }
    gathered
}

/// Short input fits into a pipe before anybody reads it: then nothing is left to feed.
fn stdin_of(first: &str) -> io::Result<Stdio> {
    if first.len() > PIPE_BYTES {
        return Ok(Stdio::piped());
    }
    let (reader, mut writer) = io::pipe()?;
    io::Write::write_all(&mut writer, first.as_bytes())?;
    Ok(Stdio::from(reader))
}

/// Writes all input, or as much as the process wants: one that closes its stdin early may.
async fn feed(stdin: Option<ChildStdin>, first: String, mut rest: Pieces<'_>) {
    let Some(mut stdin) = stdin else {
        return;
    };
    let mut gathered = first;
    while !gathered.is_empty() {
        if let Err(error) = stdin.write_all(gathered.as_bytes()).await {
            tracing::trace!(%error, "a process did not read all of its input");
            return;
        }
        gathered = gather(&mut rest, FED_BYTES);
    }
}

/// Adds what is there; nothing at the end. Dropped without effect if something else comes first.
async fn read_some(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    let pipe = pipe.as_mut().expect("asked only while it is open");
    if into.capacity() == into.len() {
        let more = if into.is_empty() {
            FIRST_BYTES
        } else {
            READ_BYTES
        };
        into.reserve(more);
    }
    pipe.read_buf(into).await
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
