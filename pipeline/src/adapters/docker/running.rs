//! One container: fed, started, listened to within bounds, stopped. What its words mean is not decided here,
//! and removing it is the holder's.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for real containers, which no simulated clock can hurry"
)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::ContainerState;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::container::{Fed, LOG_KEPT_BYTES};
use super::engine::{Engine, EngineError, Output};
use super::exit::{SIGKILL, exit_of};
use crate::adapters::command::child::{
    Ended, Exit, FED_BYTES, Listen, Pieces, READ_BYTES, gather, keep_end,
};
use crate::core::class::{Class, Failure};
use crate::ports::executor::{OUTPUT_BYTES_MAX, Stop};

/// How long the engine may take to hand over what a container said before its end.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a killed container may take to die: longer only if it hangs in the kernel, or the engine does.
const KILL_WAIT_MAX: Duration = Duration::from_secs(15);

/// How long the engine may take to accept the first input: it fits into a socket's buffer, so that nobody
/// needs to read it.
const FIRST_INPUT_WAIT_MAX: Duration = Duration::from_secs(10);

/// What an entry of a log takes beside its text, at most: sizes, time, stream, and the mark of a line that
/// was split.
const LOG_ENTRY_BYTES: u64 = 256;

/// What goes into a container.
pub(super) struct Input<'a> {
    first: String,
    rest: Pieces<'a>,
}

impl<'a> Input<'a> {
    pub(super) fn new(mut pieces: Pieces<'a>) -> Self {
        Self {
            first: gather(&mut pieces, FED_BYTES),
            rest: pieces,
        }
    }

    /// When it goes in. If what it begins with is short, that is all of it.
    pub(super) fn fed(&self) -> Fed {
        if self.first.len() <= FED_BYTES {
            Fed::BeforeStart
        } else {
            Fed::AsItRuns
        }
    }
}

/// How a container is stopped.
#[derive(Clone, Copy)]
pub(super) struct Stopping<'a> {
    pub(super) stop: &'a Stop,
    pub(super) grace: Duration,
    /// It is ended when it has run for longer, whoever started it.
    pub(super) timeout: Option<Duration>,
}

/// A container that is listened to.
pub(super) struct Running<'a> {
    engine: &'a Engine,
    id: &'a str,
    output: Output,
    feeding: Feeding<'a>,
    origin: Origin,
    /// How long it has run already.
    age: Duration,
}

type Feeding<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where its words come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Straight from it.
    Attached,
    /// From its log, which may have lost its beginning.
    Log,
}

impl<'a> Running<'a> {
    /// Starts a new container.
    pub(super) async fn start(
        engine: &'a Engine,
        id: &'a str,
        input: Input<'a>,
        listen: Listen,
    ) -> Result<Self, Failure> {
        let attached = engine.attach(id, listen).await;
        let attached = attached.map_err(|error| error.failure())?;
        let mut stdin = attached.input;
        let feeding: Feeding<'a> = match input.fed() {
            Fed::BeforeStart => {
                feed_first(&mut stdin, &input.first).await?;
                Box::pin(std::future::ready(()))
            }
            Fed::AsItRuns => Box::pin(feed(stdin, input)),
        };
        engine.start(id).await.map_err(|error| error.failure())?;
        Ok(Self {
            engine,
            id,
            output: attached.output.map_err(EngineError::from).boxed(),
            feeding,
            origin: Origin::Attached,
            age: Duration::ZERO,
        })
    }

    /// Takes up one that another started.
    pub(super) async fn adopt(
        engine: &'a Engine,
        id: &'a str,
        listen: Listen,
    ) -> Result<Self, Failure> {
        let state = engine.state(id).await.map_err(|error| error.failure())?;
        let log = engine.log(id, listen).await;
        Ok(Self {
            engine,
            id,
            output: log.map_err(|error| error.failure())?,
            feeding: Box::pin(std::future::ready(())),
            origin: Origin::Log,
            age: age_of(&state),
        })
    }

    /// Follows it to its end.
    pub(super) async fn end(self, stopping: Stopping<'_>) -> Result<Ended, Failure> {
        let Self {
            engine,
            id,
            mut output,
            mut feeding,
            origin,
            age,
        } = self;
        let late_at = stopping
            .timeout
            .map(|timeout| Instant::now() + timeout.saturating_sub(age));
        let mut is_late = false;
        let mut heard = Heard::default();
        let mut waiting = pin!(engine.wait(id));
        let mut asking = pin!(engine.stop(id, stopping.grace));
        let (mut is_fed, mut is_over, mut is_silent) = (false, false, false);
        let (mut stopped, mut is_asked) = (false, false);
        let mut deadline: Option<Instant> = None;
        // One that another has ended is over already: its age says whether for its time.
        while !(is_over && is_silent) {
            tokio::select! {
                biased;
                () = stopping.stop.cancelled(), if !(stopped || is_late || is_over) => {
                    stopped = true;
                    deadline = Some(Instant::now() + stopping.grace + KILL_WAIT_MAX);
                }
                ended = &mut waiting, if !is_over => {
                    ended.map_err(|error| error.failure())?;
                    is_over = true;
                    deadline = Some(Instant::now() + DRAIN_WAIT_MAX);
                }
                () = until(late_at), if late_at.is_some() && !(stopped || is_late || is_over) => {
                    is_late = true;
                    deadline = Some(Instant::now() + stopping.grace + KILL_WAIT_MAX);
                }
                () = until(deadline), if deadline.is_some() => {
                    if is_over {
                        return Err(cut_off());
                    }
                    return Ok(heard.ended(Exit::Unknown, stopped));
                }
                asked = &mut asking, if (stopped || is_late) && !is_asked => {
                    is_asked = true;
                    if let Err(error) = asked {
                        tracing::warn!(%error, container = id, "it could not be stopped");
                    }
                }
                () = &mut feeding, if !is_fed => is_fed = true,
                said = output.next(), if !is_silent => match said {
                    Some(said) => heard.take(said.map_err(|error| error.failure())?),
                    None => is_silent = true,
                },
            }
            if heard.stdout.len() > OUTPUT_BYTES_MAX {
                return Ok(heard.ended(Exit::TooMuchOutput, stopped));
            }
        }
        if origin == Origin::Log && heard.log_bytes > LOG_KEPT_BYTES {
            let cause = "its worker died, and its log is longer than Docker keeps, so its output is not known";
            return Err(Failure::new(Class::Crashed, cause));
        }
        let state = engine.state(id).await.map_err(|error| error.failure())?;
        let exit = match (exit_of(&state), stopping.timeout) {
            // By us, or by a worker that died before it could say so.
            (Exit::Signal(_) | Exit::Code(_) | Exit::Unknown, Some(timeout)) if is_late => {
                Exit::TooLong(timeout)
            }
            (Exit::Signal(_), Some(timeout))
                if origin == Origin::Log && age_of(&state) >= timeout =>
            {
                Exit::TooLong(timeout)
            }
            (Exit::Signal(SIGKILL), _) if !stopped => {
                let why = killed(engine, id, &state).await;
                why.map_err(|error| error.failure())?
            }
            (exit, _) => exit,
        };
        Ok(heard.ended(exit, stopped))
    }
}

/// What a container has said.
#[derive(Default)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// What it takes in a log, at most.
    log_bytes: u64,
}

impl Heard {
    fn take(&mut self, said: LogOutput) {
        match said {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                self.log_bytes += message.len() as u64 + LOG_ENTRY_BYTES;
                self.stdout.extend_from_slice(&message);
            }
            LogOutput::StdErr { message } => {
                self.log_bytes += message.len() as u64 + LOG_ENTRY_BYTES;
                self.stderr.extend_from_slice(&message);
                if self.stderr.len() >= READ_BYTES {
                    keep_end(&mut self.stderr);
                }
            }
            LogOutput::StdIn { .. } => {}
        }
    }

    fn ended(mut self, exit: Exit, stopped: bool) -> Ended {
        keep_end(&mut self.stderr);
        Ended {
            exit,
            stopped,
            stdout: self.stdout,
            stderr: self.stderr,
        }
    }
}

/// Why one was killed that we did not kill. The engine says it of most that were out of memory; it hears of
/// that separately, and on a busy machine after the end (containerd's issue 12260) or never, if it began to
/// listen too late. So one with a limit that nobody had the engine kill counts as out of memory, too: no
/// process of a container can kill its first one, which at most passes on that a child was killed.
pub(super) async fn killed(
    engine: &Engine,
    id: &str,
    state: &ContainerState,
) -> Result<Exit, EngineError> {
    let started = time(state.started_at.as_deref()).unwrap_or(Timestamp::UNIX_EPOCH);
    if engine.is_bounded(id).await? && engine.sent_no_signal(id, started).await? {
        return Ok(Exit::OutOfMemory);
    }
    Ok(Exit::Signal(SIGKILL))
}

/// How long it has run, or ran.
fn age_of(state: &ContainerState) -> Duration {
    let Some(started) = time(state.started_at.as_deref()) else {
        return Duration::ZERO;
    };
    // One that runs has the year 1 there.
    let ended = time(state.finished_at.as_deref()).filter(|ended| *ended > started);
    let ended = ended.unwrap_or_else(Timestamp::now);
    ended.duration_since(started).try_into().unwrap_or_default()
}

/// A time as the engine writes it.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn cut_off() -> Failure {
    let cause = "it ended, and Docker's engine did not hand over the rest of its output";
    Failure::new(Class::Unavailable, cause)
}

type Stdin = Pin<Box<dyn AsyncWrite + Send>>;

/// Writes short input, all of it, and closes.
async fn feed_first(stdin: &mut Stdin, input: &str) -> Result<(), Failure> {
    let feeding = async {
        stdin.write_all(input.as_bytes()).await?;
        stdin.shutdown().await
    };
    let fed = tokio::time::timeout(FIRST_INPUT_WAIT_MAX, feeding).await;
    let problem = match fed {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not read".to_owned(),
    };
    let cause = format!("Docker's engine did not take the input: {problem}");
    Err(Failure::new(Class::Unavailable, cause))
}

/// Writes all input, or as much as the container wants: one that closes its stdin early may.
async fn feed(mut stdin: Stdin, input: Input<'_>) {
    let mut gathered = input.first;
    let mut rest = input.rest;
    while !gathered.is_empty() {
        if let Err(error) = stdin.write_all(gathered.as_bytes()).await {
            tracing::trace!(%error, "a container did not read all of its input");
            return;
        }
        gathered = gather(&mut rest, FED_BYTES);
    }
    if let Err(error) = stdin.shutdown().await {
        tracing::trace!(%error, "a container closed its input first");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(pieces: &[usize]) -> Input<'static> {
        let pieces: Vec<String> = pieces.iter().map(|bytes| "x".repeat(*bytes)).collect();
        Input::new(Box::new(pieces.into_iter()))
    }

    #[test]
    fn short_input_goes_in_before_the_start_and_long_input_as_it_runs() {
        assert_eq!(input(&[10, 20]).fed(), Fed::BeforeStart);
        assert_eq!(input(&[FED_BYTES]).fed(), Fed::BeforeStart);
        assert_eq!(input(&[FED_BYTES, 1]).fed(), Fed::AsItRuns);
        assert_eq!(input(&[FED_BYTES + 1]).fed(), Fed::AsItRuns);
    }
}
