//! The `handler` executor: Lambda handlers as they are, on this machine, without Docker and without an account.
//!
//! A handler's program asks the Lambda Runtime API for work. This is the host of that API: a pool of processes for each
//! handler ([`pool`]), an endpoint for each process ([`endpoint`], [`desk`]), and what their words and deaths mean
//! ([`crate::adapters::invocation`]). It decides no retries. The lane's timeout it minds itself: as on Lambda, a function
//! is told its deadline, and its time begins when its process is there.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for real processes, which no simulated clock can hurry"
)]

mod desk;
mod endpoint;
mod memory;
mod pool;
mod process;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::adapters::command::{Reaper, ResolveError};
use crate::adapters::invocation;
use crate::core::class::{Class, Failure};
use crate::core::job::{HandlerSpec, OutputMode};
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use async_trait::async_trait;
use desk::{Said, Task};
pub use pool::ColdStarts;
use pool::Pool;
use process::{Death, Ready};

/// The deadline of a call whose lane has no timeout: Lambda's handlers expect one. A day.
const DEADLINE_DEFAULT: Duration = Duration::from_hours(24);

/// A call tries so many processes that end before they take its event: more than one of them is no accident.
const UNTAKEN_MAX: u32 = 10;

/// Runs a Lambda handler for each call. Clones share their processes.
#[derive(Clone)]
pub struct HandlerExecutor {
    pool: Arc<Pool>,
    timeout: Option<Duration>,
    output: OutputMode,
}

impl HandlerExecutor {
    /// Resolves the program against this process's PATH; nothing is started before the first call. `timeout` is the
    /// lane's. Without a `reaper` processes outlive a worker that is killed with `kill -9`.
    ///
    /// # Errors
    /// [`ResolveError`]: the program cannot be run.
    pub fn new(
        spec: HandlerSpec,
        timeout: Option<Duration>,
        output: OutputMode,
        reaper: Option<Arc<Reaper>>,
    ) -> Result<Self, ResolveError> {
        Ok(Self {
            pool: Pool::new(spec, reaper)?,
            timeout,
            output,
        })
    }

    /// The same processes, for a lane with other settings.
    #[must_use]
    pub fn with(&self, timeout: Option<Duration>, output: OutputMode) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            timeout,
            output,
        }
    }

    /// How many processes were started, and how long they took until they asked for work.
    pub fn cold_starts(&self) -> ColdStarts {
        self.pool.cold_starts()
    }

    async fn invoke(&self, call: &Call, items: &[&CallItem], stop: &Stop) -> Result<Said, NotSaid> {
        let asked = invocation::invocation(call, items).map_err(NotSaid::Failed)?;
        for _ in 0..UNTAKEN_MAX {
            let ready = tokio::select! {
                biased;
                () = impatient(stop, call.grace) => return Err(NotSaid::Stopped),
                ready = self.pool.ready() => ready.map_err(NotSaid::Failed)?,
            };
            let task = Task::new(asked.clone(), self.timeout.unwrap_or(DEADLINE_DEFAULT));
            match self.ask(ready, task, impatient(stop, call.grace)).await {
                Ok(said) => return Ok(said),
                // It ended while nobody had asked it anything: another is asked.
                Err(NotSaid::NeverTaken) => {}
                Err(not_said) => return Err(not_said),
            }
        }
        let cause = "its processes ask for work and end before they take it";
        Err(NotSaid::Failed(Failure::new(Class::Unavailable, cause)))
    }

    /// Asks one process, and takes it back if it may be asked again.
    async fn ask(
        &self,
        mut ready: Ready,
        task: Task,
        impatient: impl Future<Output = ()>,
    ) -> Result<Said, NotSaid> {
        let told = tokio::select! {
            biased;
            told = ready.ask(task) => told,
            () = impatient => return Err(NotSaid::Stopped),
            timeout = late(self.timeout) => {
                let cause = format!("ran longer than {timeout:?}");
                let cause = invocation::with_log(&cause, &ready.log());
                return Err(NotSaid::Failed(Failure::new(Class::Timeout, cause)));
            }
        };
        match told {
            Ok(said) => {
                self.pool.take_back(ready);
                Ok(said)
            }
            Err(death) if !death.was_asked => Err(NotSaid::NeverTaken),
            Err(death) => Err(NotSaid::Failed(failure_of(&death))),
        }
    }
}

/// Returns when nobody waits any longer for a call that was stopped. It may answer within the grace: a handler cannot be
/// told to hurry.
async fn impatient(stop: &Stop, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Returns when a call that begins now has run too long. As on Lambda, it has no grace then.
async fn late(timeout: Option<Duration>) -> Duration {
    let Some(timeout) = timeout else {
        return std::future::pending().await;
    };
    tokio::time::sleep(timeout).await;
    timeout
}

/// Why a function said nothing.
enum NotSaid {
    Stopped,
    Failed(Failure),
    /// Its process was gone before it took the event.
    NeverTaken,
}

#[async_trait]
impl Executor for HandlerExecutor {
    fn start_wait_max(&self) -> Duration {
        process::START_WAIT_MAX
    }

    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let items: Vec<&CallItem> = call.items.iter().collect();
        let reports = match self.invoke(&call, &items, &stop).await {
            Ok(Said::Answer(body)) => invocation::read_answer(&call, &items, &body, self.output),
            Ok(Said::Error { body, kind, log }) => {
                let failure = invocation::read_error(&body, kind.as_deref(), &log);
                invocation::not_said(items.len(), &failure)
            }
            Ok(Said::TooLong) => {
                let cause = format!(
                    "it answered more than {} bytes",
                    crate::ports::executor::OUTPUT_BYTES_MAX
                );
                invocation::not_said(items.len(), &Failure::new(Class::BadOutput, cause))
            }
            Err(NotSaid::Failed(failure)) => invocation::not_said(items.len(), &failure),
            Err(NotSaid::Stopped | NotSaid::NeverTaken) => {
                let stopped = Failure::new(Class::Crashed, "stopped");
                vec![ItemReport::Undecided(stopped); items.len()]
            }
        };
        CallReport { items: reports }
    }
}

/// What the death of a process means for the call that it was at.
fn failure_of(death: &Death) -> Failure {
    let (class, cause) = match death.why {
        process::Why::OutOfMemory {
            held_bytes,
            bytes_max,
        } => (
            Class::OutOfMemory,
            format!(
                "it held {held_bytes} bytes of memory, more than the {bytes_max} it may, and was ended"
            ),
        ),
        process::Why::OverItsBound { bytes_max } => (
            Class::OutOfMemory,
            format!(
                "it wanted more bytes of memory than the {bytes_max} it may, and the kernel ended it"
            ),
        ),
        process::Why::NoneLeft => (
            Class::Crashed,
            "the kernel ended it, as no memory was left, though it held no more than it may"
                .to_owned(),
        ),
        process::Why::Exited(code) => (
            Class::Crashed,
            format!("it exited with status {code} without an answer"),
        ),
        process::Why::Signalled(9) => (
            Class::Crashed,
            "it was killed by signal 9 (out of memory?) without an answer".to_owned(),
        ),
        process::Why::Signalled(signal) => (
            Class::Crashed,
            format!("it was killed by signal {signal} without an answer"),
        ),
        process::Why::Unknown => (
            Class::Crashed,
            "it ended without an answer, and nobody knows how".to_owned(),
        ),
    };
    Failure::new(class, invocation::with_log(&cause, &death.log))
}

#[cfg(test)]
mod tests;
