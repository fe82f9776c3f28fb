//! Trommel without a process that is always on: router, worker and sweeper as functions that Lambda calls.
//!
//! Each call is a session of its own: it takes up what its event names, and before it answers everything it holds is settled
//! or given back, as Lambda freezes what runs on. What no event names (due retries, lost hints, the dead, the end of windows) the
//! sweeper finds, which a schedule starts every minute. A task on ECS may outlast the function that started it: the next one
//! goes on with it. Other large items belong to `trommel worker --lane container` in a service of ECS. How a runtime calls these is not known here: see `tests/src/bin/lambda-trommel.rs`.

mod event;
mod leaving;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::adapters::tokio_runtime;
use crate::core::job::Job;
use crate::core::lane::Lane;
use crate::core::run::RunStatus;
use crate::job_file::{Executors, Overrides};
use crate::ports::{Executor, Queue};
use crate::shell::Session;

use super::backend::{Backend, Purpose};
use super::embed::EmbedError;
use super::foreground::{Foreground, Role, RunnerError};
use super::opener::{JobOpener, StoredJob};
use super::protection::Protection;
use super::serve::Served;
pub use event::{SqsAttributes, SqsBatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use leaving::Leaving;
use queue::EventQueue;

/// Hidden for no longer than this, a message is given back; one that is worked on is hidden for a session's 30 s.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Of the time a call has, so much is kept for its end, at most: calls under way are waited for, outcomes recorded.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// A sweeper stays so long while there is something to sweep: a session counts as dead after 30 s of silence that one sweeper
/// has seen itself, and the next sweeper comes a minute after this one.
const SWEEP_FOR: Duration = Duration::from_secs(50);

/// Between two looks at whether a call is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Nothing is held for so long, though a message is open: its page could not be had, and it comes again.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// A job's latest runs that a sweeper looks at; more never go on at one time.
const RUNS_MAX: usize = 32;

/// A job, as functions carry it out. Made once for each process, and asked again and again.
pub struct Function {
    job: Job,
    stored: StoredJob,
    backend: Arc<Backend>,
    opener: Arc<JobOpener>,
}

impl Function {
    /// A job text with a `dynamodb:` ledger, and the handler of its lanes that name no executor.
    ///
    /// # Errors
    /// [`EmbedError`]: the text is wrong, or the ledger cannot be reached.
    pub async fn new(
        job_text: impl Into<String>,
        handler: impl Executor + 'static,
    ) -> Result<Self, EmbedError> {
        let dir = std::env::current_dir()?;
        let stored = StoredJob {
            text: job_text.into(),
            file: "job".into(),
            base: dir.to_string_lossy().into_owned(),
            overrides: Overrides {
                dir,
                ..Overrides::default()
            },
        };
        let job = stored.parse(Executors::InProcess)?;
        let runtime = tokio_runtime::runtime();
        let backend = Arc::new(Backend::open(&job.ledger, Purpose::Run, runtime).await?);
        let opener = Arc::new(JobOpener::handler(backend.clone(), Arc::new(handler)));
        Ok(Self {
            job,
            stored,
            backend,
            opener,
        })
    }

    /// Takes in the events of these messages: they become items of a window. `within` is the time that is left.
    ///
    /// # Errors
    /// The ledger does not answer: all messages must come again. [`EmbedError::NoEvents`] if the job's input has an end.
    pub async fn router(
        &self,
        event: &SqsEvent,
        within: Duration,
    ) -> Result<SqsBatchResponse, EmbedError> {
        let served = Served::new(&self.job, &self.stored).ok_or(EmbedError::NoEvents)?;
        let (behind, sequencer) = self.backend.ingest(&served.events).await?;
        let queue = EventQueue::new(event.messages(), behind);
        let foreground = self.foreground();
        let env = foreground.env(&self.job).await?;
        let ingest = foreground
            .ingest_from(&served, (queue.clone(), sequencer))
            .await?;
        let session = Session::serve(env, &[], &foreground.who, ingest).await;
        let session = session.map_err(RunnerError::from)?;
        self.until(within, || queue.is_decided()).await;
        self.close(session, within).await;
        Ok(event.answer(&queue.failed()))
    }

    /// Works on the pages that these hints name. `within` is the time that is left.
    ///
    /// # Errors
    /// The ledger does not answer: all hints must come again.
    pub async fn worker(
        &self,
        lane: Lane,
        event: &SqsEvent,
        within: Duration,
    ) -> Result<SqsBatchResponse, EmbedError> {
        let leaves = CancellationToken::new();
        let foreground = Foreground {
            opener: Arc::new(Leaving {
                inner: self.opener.clone(),
                grace_max: grace_max(within),
                leaves: leaves.clone(),
            }),
            ..self.foreground()
        };
        let mut queues = self.backend.queues(&self.job).await?;
        let Some(behind) = queues.get(&lane) else {
            return Ok(SqsBatchResponse::default());
        };
        let queue = EventQueue::new(event.messages(), behind.clone());
        queues.insert(lane, queue.clone() as Arc<dyn Queue>);
        let env = foreground.env_with(&self.job, queues).await?;
        let session = Session::start(env.clone(), &[lane], &foreground.who).await;
        let session = session.map_err(RunnerError::from)?;
        let clock = &self.backend.runtime().clock;
        let mut busy_at = clock.tick();
        self.until(within, || {
            let holds = !env.runs_held().is_empty();
            if holds || !queue.is_taken() {
                busy_at = clock.tick();
            }
            let is_idle = clock.tick().since(busy_at) > IDLE_MAX;
            env.kill.is_cancelled() || is_idle || (queue.is_decided() && !holds)
        })
        .await;
        let given_back = env.pages_held();
        leaves.cancel();
        self.close(session, within).await;
        // They could be had by the next call at once, and a sweep finds them only after some seconds.
        for (run, pages) in given_back {
            env.hint(&run, lane, &pages).await;
        }
        Ok(event.answer(&queue.failed()))
    }

    /// Finds what no event names: to be started every minute. `within` is the time that is left.
    ///
    /// # Errors
    /// The ledger does not answer: the next one will do.
    pub async fn sweeper(&self, within: Duration) -> Result<(), EmbedError> {
        let foreground = self.foreground();
        let env = foreground.env(&self.job).await?;
        let ledger = env.ledger.clone();
        let session = match Served::new(&self.job, &self.stored) {
            Some(served) => {
                let (behind, sequencer) = self.backend.ingest(&served.events).await?;
                let nothing = EventQueue::new(Vec::new(), behind);
                let ingest = foreground
                    .ingest_from(&served, (nothing, sequencer))
                    .await?;
                Session::serve(env, &[], &foreground.who, ingest).await
            }
            None => Session::start(env, &[], &foreground.who).await,
        };
        let session = session.map_err(RunnerError::from)?;
        let clock = &self.backend.runtime().clock;
        let until = clock.tick() + ending(within).min(SWEEP_FOR);
        while clock.tick() < until {
            let open = self.open_runs(&session).await?;
            let windows = ledger
                .open_windows(&self.job.name)
                .await
                .map_err(RunnerError::from)?;
            if open == 0 && windows.is_empty() {
                break;
            }
            clock
                .sleep(
                    self.backend
                        .settings()
                        .sweep_every
                        .min(until.since(clock.tick())),
                )
                .await;
        }
        self.close(session, within).await;
        Ok(())
    }

    /// Opens the job's latest runs that go on: a run is judged and swept for as long as it is known. Answers how many.
    async fn open_runs(&self, session: &Session) -> Result<usize, RunnerError> {
        let ledger = &session.env().ledger;
        let runs = ledger.runs().await?.into_iter().rev();
        let mut open = 0;
        for run in runs.filter(|run| run.job == self.job.name).take(RUNS_MAX) {
            if ledger.run(&run.id).await?.state.status == RunStatus::Running {
                session.env().open_run(&run.id).await?;
                open += 1;
            }
        }
        Ok(open)
    }

    fn foreground(&self) -> Foreground {
        Foreground {
            backend: self.backend.clone(),
            opener: self.opener.clone(),
            who: format!("function {}", std::process::id()),
            role: Role::Router,
            drain: CancellationToken::new(),
            protection: Protection::default(),
            at_work: Arc::default(),
        }
    }

    /// Waits until it is done, or its time is nearly over.
    async fn until(&self, within: Duration, mut is_done: impl FnMut() -> bool) {
        let clock = &self.backend.runtime().clock;
        let until = clock.tick() + ending(within);
        while !is_done() && clock.tick() < until {
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the session in time: softly, else by force, and others take over what it held.
    async fn close(&self, session: Session, within: Duration) {
        let kill = session.env().kill.clone();
        let closed = self
            .backend
            .runtime()
            .within(within.min(ENDING_MAX), session.close())
            .await;
        if closed.is_err() {
            tracing::warn!("a call could not end in time: what it held is taken over");
            kill.cancel();
        }
    }
}

/// How much of the time that is left may be worked in.
fn ending(within: Duration) -> Duration {
    within.saturating_sub(reserve(within))
}

/// How long calls get to end. They get it twice, once by themselves and once when they were told to stop; the other half of
/// what is kept for the end is for writing down what became of them.
fn grace_max(within: Duration) -> Duration {
    reserve(within) / 4
}

/// How much is kept for the end.
fn reserve(within: Duration) -> Duration {
    ENDING_MAX.min(within / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_use_their_grace_twice_leave_time_to_write_down_what_became_of_them() {
        for seconds in [1, 20, 60, 900] {
            let within = Duration::from_secs(seconds);
            let ended = ending(within) + 2 * grace_max(within);
            let left = within.saturating_sub(ended);
            assert!(left >= reserve(within) / 2, "{seconds} s leave {left:?}");
        }
    }
}
