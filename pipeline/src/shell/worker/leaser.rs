//! The leaser: turns hints into leased pages, as many as the engine asks for and no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc};

use crate::core::class::{Class, Failure};
use crate::core::id::{Generation, PageId, RunId};
use crate::core::item::{Input, Object};
use crate::core::lane::Lane;
use crate::core::page::Refusal;
use crate::core::planted::{Bug, is_planted};
use crate::ledger::{Held, LedgerError};
use crate::ports::queue::Handle;
use crate::ports::{Message, ObjectsError, Queue, QueueError};
use crate::shell::env::{Env, Mode, OpenError, RunHandle};
use crate::shell::hints::{self, HINT_VISIBILITY};
use crate::shell::router::{part_inputs, reading_cursor};
use crate::shell::source::SourceError;

use super::engine::Event;

/// How long one receive waits: long, as an empty answer costs as much as a full one.
const RECEIVE_WAIT: Duration = Duration::from_secs(10);

/// Between tries after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A lease that takes longer is not waited for: another page is wanted in its place …
const OVERDUE_AFTER: Duration = Duration::from_secs(1);

/// … of so many, so that those which come late after all are few.
const OVERDUE_MAX: usize = 4;

/// Hints that are spent are deleted so many at a time, or once no lease is under way: as many as one request takes
/// ("DeleteMessageBatch").
const SPENT_AT_ONCE: usize = 10;

/// How many more pages the engine wants.
#[derive(Debug, Default)]
pub(super) struct Demand {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    /// Beside those that are coming.
    pages: usize,
    /// Hints that were received, and of which the engine has not heard.
    coming: usize,
    /// Those whose lease takes long.
    overdue: usize,
}

impl Demand {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine wants so many pages, with those that are coming.
    pub(super) fn set(&self, pages: usize) {
        let mut wanted = self.wanted();
        let coming = wanted.coming - wanted.overdue.min(OVERDUE_MAX);
        let pages = pages.saturating_sub(coming);
        let before = std::mem::replace(&mut wanted.pages, pages);
        drop(wanted);
        if before == 0 && pages > 0 {
            self.changed.notify_one();
        }
    }

    /// So many are coming.
    pub(super) fn coming(&self) -> usize {
        self.wanted().coming
    }

    /// The engine has heard what became of one that was coming.
    pub(super) fn has_come(&self) {
        self.wanted().coming -= 1;
    }

    fn comes(&self, hints: usize) {
        let mut wanted = self.wanted();
        wanted.coming += hints;
        wanted.pages = wanted.pages.saturating_sub(hints);
    }
}

/// A page that was just leased, with its items.
pub(super) struct Leased {
    pub(super) run: RunHandle,
    pub(super) held: Held,
    /// One input an item; or why they cannot be read, which then is every item's failure.
    pub(super) inputs: Result<Vec<Arc<Input>>, Failure>,
}

/// Leases pages until the session ends, and says so.
pub(super) async fn lease(
    env: Arc<Env>,
    lane: Lane,
    demand: Arc<Demand>,
    events: mpsc::UnboundedSender<Event>,
) {
    let Some(queue) = env.queues.get(&lane) else {
        tracing::error!(%lane, "no queue for this lane");
        let _ = events.send(Event::NoMorePages);
        return;
    };
    // Three loops, so that a request of one that takes long keeps no other waiting. The channels need no bound: no more
    // hints are under way than the engine wants pages, and what is spent is deleted together, however much it is.
    let (hints, received) = mpsc::unbounded_channel();
    let (handles, spent) = mpsc::unbounded_channel();
    let lease = async {
        lease_all(&env, lane, &demand, received, handles, &events).await;
        // What is still to be deleted is not waited for: a hint that stays is found spent.
        let _ = events.send(Event::NoMorePages);
    };
    tokio::join!(
        receive_all(&env, lane, queue, &demand, hints),
        lease,
        delete_all(queue, spent),
    );
}

/// Receives as many hints as pages are wanted, until the session ends.
async fn receive_all(
    env: &Env,
    lane: Lane,
    queue: &Arc<dyn Queue>,
    demand: &Demand,
    hints: mpsc::UnboundedSender<Vec<Message>>,
) {
    while !env.is_ending() {
        let wanted = demand.wanted().pages;
        if wanted == 0 {
            tokio::select! {
                biased;
                () = env.kill.cancelled() => {}
                () = env.drain.cancelled() => {}
                () = demand.changed.notified() => {}
            }
            continue;
        }
        let messages = match receive(env, queue, wanted).await {
            Some(Ok(messages)) => messages,
            Some(Err(error)) => {
                tracing::warn!(%lane, %error, "no hints can be received");
                env.pause(AGAIN_AFTER).await;
                continue;
            }
            None => return,
        };
        env.note_lane(lane, messages.is_empty());
        if messages.is_empty() {
            continue;
        }
        demand.comes(messages.len());
        if hints.send(messages).is_err() {
            return;
        }
    }
}

/// Leases what the hints name, each page for itself, and tells the engine of each; until no more hints come.
async fn lease_all(
    env: &Arc<Env>,
    lane: Lane,
    demand: &Demand,
    mut received: mpsc::UnboundedReceiver<Vec<Message>>,
    handles: mpsc::UnboundedSender<Vec<Handle>>,
    events: &mpsc::UnboundedSender<Event>,
) {
    let mut leases = FuturesUnordered::new();
    let mut spent = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(first) = leases.next() => {
                // With all that ended at the same time, so that the engine hears of them at once.
                let mut ended = vec![first];
                while let Some(Some(lease)) = leases.next().now_or_never() {
                    ended.push(lease);
                }
                for Lease { leased, spent: handle } in ended {
                    spent.extend(handle);
                    let event = match leased {
                        Some(leased) => Event::Leased(Box::new(leased)),
                        None => Event::NotLeased,
                    };
                    if events.send(event).is_err() {
                        return;
                    }
                }
            }
            Some(messages) = received.recv() => {
                let lease = |message| async move {
                    let lease = lease_one(env, lane, message);
                    watch(env, demand, events, lease).await
                };
                leases.extend(messages.into_iter().map(lease));
            }
            else => return,
        }
        let full = spent.len() - spent.len() % SPENT_AT_ONCE;
        let ready = if leases.is_empty() { spent.len() } else { full };
        if ready > 0 && handles.send(spent.drain(..ready).collect()).is_err() {
            return;
        }
    }
}

/// Waits for a lease; the engine asks for another page where it takes long.
async fn watch(
    env: &Env,
    demand: &Demand,
    events: &mpsc::UnboundedSender<Event>,
    lease: impl Future<Output = Lease>,
) -> Lease {
    tokio::pin!(lease);
    tokio::select! {
        biased;
        lease = lease.as_mut() => return lease,
        () = env.runtime.clock.sleep(OVERDUE_AFTER) => {}
    }
    demand.wanted().overdue += 1;
    let _ = events.send(Event::Overdue);
    let lease = lease.await;
    demand.wanted().overdue -= 1;
    lease
}

/// Deletes hints that are spent, until no more come.
async fn delete_all(queue: &Arc<dyn Queue>, mut spent: mpsc::UnboundedReceiver<Vec<Handle>>) {
    while let Some(mut handles) = spent.recv().await {
        while let Ok(more) = spent.try_recv() {
            handles.extend(more);
        }
        delete(queue, handles).await;
    }
}

/// Hints, or none if the session ends.
async fn receive(
    env: &Env,
    queue: &Arc<dyn Queue>,
    wanted: usize,
) -> Option<Result<Vec<Message>, QueueError>> {
    let profile = queue.profile();
    let wait = RECEIVE_WAIT.min(profile.wait_max);
    tokio::select! {
        biased;
        () = env.kill.cancelled() => None,
        () = env.drain.cancelled() => None,
        messages = queue.receive(wanted.min(profile.batch_max), wait, HINT_VISIBILITY) => {
            Some(messages)
        }
    }
}

/// A hint is spent once its page is leased or found not ready.
struct Lease {
    leased: Option<Leased>,
    spent: Option<Handle>,
}

async fn lease_one(env: &Arc<Env>, lane: Lane, message: Message) -> Lease {
    let spent = Some(message.handle);
    let Some((run, page)) = hints::decode(&message.body) else {
        tracing::warn!(%lane, "a message in the lane's queue is no hint: deleted");
        return Lease {
            leased: None,
            spent,
        };
    };
    match try_lease(env, &run, page).await {
        Ok(leased) => Lease { leased, spent },
        Err(LeaseError::Spent(why)) => {
            tracing::debug!(%run, %page, why, "nothing to lease");
            Lease {
                leased: None,
                spent,
            }
        }
        Err(LeaseError::Later(why)) => {
            tracing::warn!(%run, %page, why, "a page was not leased; its hint comes back");
            Lease {
                leased: None,
                spent: None,
            }
        }
    }
}

enum LeaseError {
    /// The page is not ready; whoever makes it so hints anew.
    Spent(String),
    /// It may be leased later.
    Later(String),
}

impl From<LedgerError> for LeaseError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Raced
            | LedgerError::NotFound(_)
            | LedgerError::Page(
                Refusal::Busy { .. }
                | Refusal::TooEarly { .. }
                | Refusal::Settled
                | Refusal::Fenced { .. }
                | Refusal::Done,
            ) => Self::Spent(error.to_string()),
            LedgerError::Table(_)
            | LedgerError::Newer { .. }
            | LedgerError::Damaged { .. }
            | LedgerError::Page(Refusal::Illegal { .. } | Refusal::Broken(_))
            | LedgerError::Run(_)
            | LedgerError::Broken(_) => Self::Later(error.to_string()),
        }
    }
}

async fn try_lease(
    env: &Arc<Env>,
    run: &RunId,
    page: PageId,
) -> Result<Option<Leased>, LeaseError> {
    let run = match env.open_run(run).await {
        Ok(run) => run,
        Err(OpenError::Ledger(error)) => return Err(error.into()),
        Err(OpenError::Cannot(why)) => return Err(LeaseError::Later(why)),
    };
    // Held before it is looked whether the run goes on: a beat that says that this session does not work on it
    // must not be under way while it is leased.
    env.hold(&run.id, page);
    let seen = match env.lately_seen(&run).await {
        Ok(seen) => seen,
        Err(error) => {
            env.let_go(&run.id, page);
            return Err(error.into());
        }
    };
    let leased = if seen.mode == Mode::Work {
        lease_page(env, run.clone(), page, seen.generation).await
    } else {
        let status = seen.status.as_str();
        Err(LeaseError::Spent(format!("the run is {status}")))
    };
    if leased.is_err() {
        env.let_go(&run.id, page);
    }
    leased.map(Some)
}

async fn lease_page(
    env: &Arc<Env>,
    run: RunHandle,
    page: PageId,
    generation: Generation,
) -> Result<Leased, LeaseError> {
    let now = env.runtime.clock.now();
    let held = env.ledger.lease(&run.id, page, now).await?;
    if held.page.generation != generation {
        give_back(env, &run, &held).await;
        return Err(LeaseError::Spent("it is of another generation".to_owned()));
    }
    let inputs = match inputs_of(env, &run, &held).await {
        Ok(inputs) => Ok(inputs),
        Err(Unread::Item(failure)) => Err(failure),
        Err(Unread::Later(why)) => {
            give_back(env, &run, &held).await;
            return Err(LeaseError::Later(why));
        }
    };
    Ok(Leased { run, held, inputs })
}

async fn give_back(env: &Env, run: &RunHandle, held: &Held) {
    if let Err(error) = env
        .ledger
        .release(&run.id, held, env.runtime.clock.now())
        .await
    {
        tracing::warn!(run = %run.id, page = %held.page.id, %error, "a page was not given back");
    }
}

enum Unread {
    /// The source itself is the problem: what the items fail of.
    Item(Failure),
    /// It may be read later.
    Later(String),
}

async fn inputs_of(env: &Env, run: &RunHandle, held: &Held) -> Result<Vec<Arc<Input>>, Unread> {
    let later = |error: LedgerError| Unread::Later(error.to_string());
    let number = held.page.id.part;
    let part = if let Some(inputs) = run.cache.get(number) {
        inputs
    } else {
        let part = env.ledger.part(&run.id, number).await.map_err(later)?;
        let part = part.ok_or_else(|| Unread::Later(format!("part {number} is not there")))?;
        let cursor = reading_cursor(env, run).await.map_err(later)?;
        part_inputs(run, &part, &cursor).await.map_err(unread)?
    };
    let mut inputs = Vec::with_capacity(held.page.items.len());
    for stretch in &held.page.stretches {
        for index in stretch.first..stretch.first + stretch.items {
            let input = part.get(index as usize).ok_or_else(|| {
                let cause = format!("part {number} has {} items, not {index}", part.len());
                Unread::Item(Failure::new(Class::SourceChanged, cause))
            })?;
            inputs.push(input.clone());
        }
    }
    if run.now().refresh || is_planted(Bug::RefreshUnasked) {
        for input in &mut inputs {
            refresh(run, input).await?;
        }
    }
    Ok(inputs)
}

/// The object as it is now instead of as it was listed; one that is gone stays as it was, and fails so.
async fn refresh(run: &RunHandle, input: &mut Arc<Input>) -> Result<(), Unread> {
    let Input::Object(object) = input.as_ref() else {
        return Ok(());
    };
    match run.stores.input.head(&object.store_key()).await {
        Ok(now) => {
            *input = Arc::new(Input::Object(Object {
                size_bytes: now.size_bytes,
                pin: now.pin,
                ..object.clone()
            }));
        }
        Err(ObjectsError::NotFound(_) | ObjectsError::Changed(_)) => {}
        Err(error) => return Err(Unread::Later(error.to_string())),
    }
    Ok(())
}

fn unread(error: SourceError) -> Unread {
    let cause = error.to_string();
    match error {
        SourceError::NotFound { .. } => Unread::Item(Failure::new(Class::Gone, cause)),
        SourceError::Changed { .. } | SourceError::Bad { .. } => {
            Unread::Item(Failure::new(Class::SourceChanged, cause))
        }
        SourceError::Refused { .. } => Unread::Item(Failure::new(Class::Unavailable, cause)),
        SourceError::Unavailable { .. } => Unread::Later(cause),
    }
}

async fn delete(queue: &Arc<dyn Queue>, spent: Vec<Handle>) {
    for batch in spent.chunks(queue.profile().batch_max) {
        if let Err(error) = queue.delete(batch.to_vec()).await {
            tracing::debug!(%error, "spent hints were not deleted; they come back and are found spent");
        }
    }
}
