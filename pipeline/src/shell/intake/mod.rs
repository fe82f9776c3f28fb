//! Intake: messages out of the ingest queue become items of a window, and are deleted once these are ready.
//!
//! A message is the truth until then, so it stays hidden from others for as long as it is worked on, and comes back
//! if this session dies. Which events are news is decided by marks (`taking`); nothing here runs an item.

mod letters;
mod taking;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::core::id::{RunId, SessionId};
use crate::core::job::{EventsSpec, Job};
use crate::core::mark::{IntakeId, Sequencer};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Tick;
use crate::ledger::{LedgerError, NewRun};
use crate::ports::queue::Handle;
use crate::ports::{Message, Objects, Queue, QueueError};

use super::env::Env;
use letters::Letters;

/// Intakes of a session at one time: while one writes, others receive.
pub(super) const INTAKES: usize = 4;

/// One intake gathers at most so many messages: as many as a page has items, where each tells of one.
const MESSAGES_MAX: usize = 100;

/// ... and for at most so long after its first: a page closes after a second, full or not.
const GATHER_MAX: Duration = Duration::from_secs(1);

/// How long the first receive waits: long, as an empty answer costs as much as a full one.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);

/// Between tries after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is pending is counted this often at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What taking in events needs beside a session.
pub struct Ingest {
    /// The job.
    pub job: Arc<Job>,
    /// Its events.
    pub events: EventsSpec,
    /// What each window's run starts with; its name and time are filled in.
    pub template: NewRun,
    /// Where events come from.
    pub queue: Arc<dyn Queue>,
    /// Whether sequencers are believed here.
    pub sequencer: Sequencer,
    /// Where result files go, and what their names begin with.
    pub results: Option<(Arc<dyn Objects>, Vec<u8>)>,
    /// Places that Trommel itself writes, as `bucket/prefix`: events of these are no work.
    pub own_places: Vec<Vec<u8>>,
    intakes: AtomicU64,
    active: Mutex<BTreeSet<IntakeId>>,
    opened: Mutex<BTreeSet<RunId>>,
    counted: Mutex<Option<(Tick, u64)>>,
}

/// What a caller of [`Ingest::new`] knows.
pub struct IngestParts {
    /// The job.
    pub job: Arc<Job>,
    /// Its events.
    pub events: EventsSpec,
    /// What each window's run starts with.
    pub template: NewRun,
    /// Where events come from.
    pub queue: Arc<dyn Queue>,
    /// Whether sequencers are believed here.
    pub sequencer: Sequencer,
    /// Where result files go, and what their names begin with.
    pub results: Option<(Arc<dyn Objects>, Vec<u8>)>,
    /// Places that Trommel itself writes, as `bucket/prefix`.
    pub own_places: Vec<Vec<u8>>,
}

impl Ingest {
    /// For one session: a new one needs a new one.
    pub fn new(parts: IngestParts) -> Arc<Self> {
        let IngestParts {
            job,
            events,
            template,
            queue,
            sequencer,
            results,
            own_places,
        } = parts;
        Arc::new(Self {
            job,
            events,
            template,
            queue,
            sequencer,
            results,
            own_places,
            intakes: AtomicU64::new(0),
            active: Mutex::default(),
            opened: Mutex::default(),
            counted: Mutex::default(),
        })
    }

    /// A new intake of this session, under way until [`Ingest::done`].
    fn begin(&self, session: &SessionId) -> IntakeId {
        let number = self.intakes.fetch_add(1, Ordering::Relaxed);
        let id = IntakeId::new(format!("{session}.{number:x}"));
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.insert(id.clone());
        id
    }

    fn done(&self, id: &IntakeId) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.remove(id);
    }

    fn is_under_way(&self, id: &IntakeId) -> bool {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.contains(id)
    }
}

/// Takes in until the session ends.
pub(super) async fn take_in(env: &Arc<Env>, ingest: &Ingest) {
    while !env.is_ending() {
        if is_full(env, ingest).await {
            env.note_not_looking();
            env.pause(AGAIN_AFTER).await;
            continue;
        }
        let messages = match gather(env, ingest).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(%error, "nothing can be received from the ingest queue");
                env.pause(AGAIN_AFTER).await;
                continue;
            }
        };
        if !messages.is_empty() {
            handle(env, ingest, messages).await;
        }
    }
}

/// Whether so much is pending that nothing more is to be received.
async fn is_full(env: &Env, ingest: &Ingest) -> bool {
    let now = env.runtime.clock.tick();
    let known = *ingest
        .counted
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let pending = match known {
        Some((at, pending)) if now.since(at) < COUNT_EVERY => pending,
        Some(_) | None => match pending(env).await {
            Ok(pending) => {
                *ingest
                    .counted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some((now, pending));
                pending
            }
            Err(error) => {
                tracing::warn!(%error, "what is pending cannot be counted");
                return true;
            }
        },
    };
    pending >= ingest.events.pending_max
}

/// Items of windows that are not done with and have no outcome.
async fn pending(env: &Env) -> Result<u64, LedgerError> {
    let mut pending = 0;
    for open in env.ledger.open_windows(&env.job).await? {
        let settled = env.ledger.tallies(&open.row.id).await?.settled().total();
        let (total, _) = env.ledger.total_and_met(&open.row).await?;
        pending += total.saturating_sub(settled);
    }
    Ok(pending)
}

/// Messages, as many as come within a second of the first.
async fn gather(env: &Env, ingest: &Ingest) -> Result<Vec<Message>, QueueError> {
    let mut messages = receive(env, ingest, RECEIVE_WAIT).await?;
    env.note_oldest(messages.iter().map(|message| message.sent).min());
    let due = env.runtime.clock.tick() + GATHER_MAX;
    while !messages.is_empty() && messages.len() < MESSAGES_MAX && !env.is_ending() {
        let left = due.since(env.runtime.clock.tick());
        // What was received is not given up for what could not be.
        match receive(env, ingest, left).await {
            Ok(more) if more.is_empty() => break,
            Ok(more) => messages.extend(more),
            Err(error) => {
                tracing::debug!(%error, "no more messages just now");
                break;
            }
        }
        if env.runtime.clock.tick() >= due {
            break;
        }
    }
    Ok(messages)
}

async fn receive(env: &Env, ingest: &Ingest, wait: Duration) -> Result<Vec<Message>, QueueError> {
    let profile = ingest.queue.profile();
    let visibility = env.settings.session_duration;
    tokio::select! {
        biased;
        () = env.kill.cancelled() => Ok(Vec::new()),
        () = env.drain.cancelled() => Ok(Vec::new()),
        messages = ingest.queue.receive(profile.batch_max, wait.min(profile.wait_max), visibility) => messages,
    }
}

/// Takes in what messages tell, keeps them hidden meanwhile, and deletes those that are done with. An extension
/// under way is awaited before: it would bring back what is deleted.
async fn handle(env: &Arc<Env>, ingest: &Ingest, messages: Vec<Message>) {
    let handles: Vec<Handle> = messages
        .iter()
        .map(|message| message.handle.clone())
        .collect();
    if is_planted(Bug::DeletedBeforeReady) {
        delete(ingest, handles.clone()).await;
    }
    let taken = CancellationToken::new();
    let work = async {
        let fates = taking::take(env, ingest, Letters::open(&messages, ingest)).await;
        taken.cancel();
        fates
    };
    let (done, ()) =
        futures_util::future::join(work, keep_hidden(env, ingest, &handles, &taken)).await;
    if env.kill.is_cancelled() {
        return;
    }
    let (spent, back): (Vec<_>, Vec<_>) = handles
        .into_iter()
        .zip(done)
        .partition(|(_, done)| *done == taking::Done::Yes);
    let only =
        |pairs: Vec<(Handle, taking::Done)>| pairs.into_iter().map(|(handle, _)| handle).collect();
    delete(ingest, only(spent)).await;
    let soon = env.settings.session_duration / 3;
    change_visibility(ingest, &only(back), soon).await;
}

/// Extends the time for which messages are hidden, until they are taken in.
async fn keep_hidden(env: &Env, ingest: &Ingest, handles: &[Handle], taken: &CancellationToken) {
    let hidden = env.settings.session_duration;
    loop {
        tokio::select! {
            biased;
            () = taken.cancelled() => return,
            () = env.kill.cancelled() => return,
            () = env.runtime.clock.sleep(hidden / 3) => {}
        }
        change_visibility(ingest, handles, hidden).await;
    }
}

async fn change_visibility(ingest: &Ingest, handles: &[Handle], to: Duration) {
    for batch in handles.chunks(ingest.queue.profile().batch_max) {
        let entries = batch.iter().map(|handle| (handle.clone(), to)).collect();
        match ingest.queue.change_visibility(entries).await {
            Ok(rejected) if rejected.is_empty() => {}
            Ok(rejected) => {
                let reason = &rejected[0].reason;
                tracing::debug!(
                    messages = rejected.len(),
                    reason,
                    "messages are somebody else's by now"
                );
            }
            Err(error) => tracing::warn!(%error, "messages may come back before they are taken in"),
        }
    }
}

async fn delete(ingest: &Ingest, spent: Vec<Handle>) {
    for batch in spent.chunks(ingest.queue.profile().batch_max) {
        if let Err(error) = ingest.queue.delete(batch.to_vec()).await {
            tracing::debug!(%error, "messages were not deleted; they come back and are known again");
        }
    }
}
