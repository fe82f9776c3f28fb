//! Taking in: marks, then the items' part, then all of it ready in one transaction. Hints come last.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::core::event::{EventKind, ObjectEvent};
use crate::core::id::{PageId, SessionId};
use crate::core::item::{Input, Object, Pin};
use crate::core::job::{Dedupe, Missing};
use crate::core::lane::{Lane, Routed};
use crate::core::mark::{Claim, IntakeId, MARK_KEPT, MarkOf, Taken};
use crate::core::packing::{Order, PAGE_OBJECT_BYTES_MAX, pack};
use crate::core::page::PAGE_ITEMS_MAX;
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::core::window::Window;
use crate::ledger::{
    INTAKE_PAGES_MAX, Intake, IntakeCounts, IntakeState, LedgerError, Marked, NewRun, ReadyEnd,
    SessionStatus,
};
use crate::ports::ObjectsError;
use crate::shell::env::{Env, OpenError, RunHandle};
use crate::shell::source::freeze;

use super::letters::Letters;
use super::{AGAIN_AFTER, Ingest};

/// An event whose mark changes hands is looked at again so often, then it comes back later.
const LOOKS_MAX: u32 = 5;

/// Whether a message may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// All it told is ready, or was taken in before, or is kept elsewhere.
    Yes,
    /// Not yet: it comes back.
    Later,
}

/// Takes in what messages tell; answers for each whether it is done with.
pub(super) async fn take(env: &Arc<Env>, ingest: &Ingest, letters: Letters) -> Vec<Done> {
    let mut done = vec![Done::Yes; letters.messages];
    let mut counts = letters.counts;
    let mut groups = Groups::new(ingest);
    for (index, event) in letters.events {
        match candidate(env, ingest, event).await {
            Looked::Work(event, object) => groups.add(index, event, object),
            Looked::Skipped => counts.ignored += 1,
            Looked::NotNow => done[index] = Done::Later,
        }
    }
    let groups = groups.close();
    let taken = join_all(groups.iter().map(|group| take_group(env, ingest, group))).await;
    for (group, fates) in groups.iter().zip(taken) {
        counts.add(&fates.counts);
        for (candidate, fate) in group.iter().zip(fates.done) {
            if fate == Done::Later {
                done[candidate.message] = Done::Later;
            }
        }
    }
    for (index, message) in letters.junk {
        let kept = async {
            let run = open_window(env, ingest, now(env, ingest)).await?;
            Ok(env.ledger.quarantine(&env.job, &run.id, &message).await?)
        };
        let kept: Result<(), TakeError> = kept.await;
        if let Err(error) = kept {
            tracing::warn!(%error, message = message.id, "a message that cannot be read is not kept yet");
            done[index] = Done::Later;
        }
    }
    if !counts.is_empty() {
        let counted = async {
            let run = open_window(env, ingest, now(env, ingest)).await?;
            Ok(env.ledger.count_met(&run.id, &counts).await?)
        };
        let counted: Result<(), TakeError> = counted.await;
        if let Err(error) = counted {
            tracing::debug!(%error, "duplicates and the like were not counted");
        }
    }
    done
}

/// An event that may become an item.
struct Candidate {
    message: usize,
    event: ObjectEvent,
    /// None: it was removed.
    object: Option<Object>,
}

enum Looked {
    Work(ObjectEvent, Option<Object>),
    Skipped,
    NotNow,
}

/// The object that an event names; what it leaves out is looked up.
async fn candidate(env: &Arc<Env>, ingest: &Ingest, mut event: ObjectEvent) -> Looked {
    if event.kind == EventKind::Removed {
        return Looked::Work(event, None);
    }
    if let Some(object) = event.object() {
        return Looked::Work(event, Some(object));
    }
    let run = match open_window(env, ingest, now(env, ingest)).await {
        Ok(run) => run,
        Err(error) => {
            tracing::warn!(%error, "an object's size cannot be looked up");
            return Looked::NotNow;
        }
    };
    match run.stores.input.head(&event.store_key()).await {
        Ok(found) => {
            event.size_bytes = Some(found.size_bytes);
            event.etag = Some(found.pin.etag.clone());
            let object = event.object();
            Looked::Work(event, object)
        }
        Err(ObjectsError::NotFound(_)) => match ingest.events.missing {
            Missing::Skip => Looked::Skipped,
            // A state that no object has: reading it finds it gone, and the job's rules say what then.
            Missing::Fail | Missing::Retry => {
                let object = Object {
                    bucket: Some(event.bucket.clone()),
                    key: event.key.clone(),
                    size_bytes: 0,
                    pin: Pin {
                        etag: "\"gone\"".into(),
                        version: event.version.clone(),
                    },
                };
                Looked::Work(event, Some(object))
            }
        },
        Err(error) => {
            tracing::warn!(%error, "an object's size cannot be looked up");
            Looked::NotNow
        }
    }
}

/// Events in groups, of which each can become ready in one transaction.
struct Groups<'a> {
    ingest: &'a Ingest,
    closed: Vec<Vec<Candidate>>,
    open: Vec<Candidate>,
    lumps: usize,
    fines: usize,
    fine_bytes: u64,
}

impl<'a> Groups<'a> {
    fn new(ingest: &'a Ingest) -> Self {
        Self {
            ingest,
            closed: Vec::new(),
            open: Vec::new(),
            lumps: 0,
            fines: 0,
            fine_bytes: 0,
        }
    }

    fn add(&mut self, message: usize, event: ObjectEvent, object: Option<Object>) {
        if let Some(object) = &object {
            match self.ingest.job.size_rule().route(Some(object.size_bytes)) {
                Routed::To(Lane::Container) => self.lumps += 1,
                Routed::To(Lane::Function) | Routed::TooLarge { .. } => {
                    self.fines += 1;
                    self.fine_bytes = self.fine_bytes.saturating_add(object.size_bytes);
                }
            }
        }
        self.open.push(Candidate {
            message,
            event,
            object,
        });
        // One page for the fines; the last of them may go over.
        let is_full = self.lumps + 1 >= INTAKE_PAGES_MAX
            || self.fines >= PAGE_ITEMS_MAX
            || self.fine_bytes >= PAGE_OBJECT_BYTES_MAX;
        if is_full {
            self.close_open();
        }
    }

    fn close_open(&mut self) {
        self.closed.push(std::mem::take(&mut self.open));
        (self.lumps, self.fines, self.fine_bytes) = (0, 0, 0);
    }

    fn close(mut self) -> Vec<Vec<Candidate>> {
        if !self.open.is_empty() {
            self.close_open();
        }
        self.closed
    }
}

/// What became of a group, by its candidates' order.
struct Fates {
    done: Vec<Done>,
    counts: IntakeCounts,
}

/// Takes in a group, however often it takes; gives up only when the session ends.
async fn take_group(env: &Arc<Env>, ingest: &Ingest, group: &[Candidate]) -> Fates {
    let mut id = ingest.begin(env.ledger.session());
    loop {
        let taken = try_take(env, ingest, group, &id).await;
        match taken {
            Ok(fates) => {
                ingest.done(&id);
                return fates;
            }
            Err(TakeError::Void) => {
                tracing::info!(intake = %id, "an intake was declared void: it begins again");
                ingest.done(&id);
                id = ingest.begin(env.ledger.session());
            }
            Err(error) => tracing::warn!(intake = %id, %error, "an intake is not ready yet"),
        }
        if env.is_ending() {
            ingest.done(&id);
            return Fates {
                done: vec![Done::Later; group.len()],
                counts: IntakeCounts::default(),
            };
        }
        env.pause(AGAIN_AFTER).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Cannot(String),
    #[error("it was declared void")]
    Void,
}

impl From<OpenError> for TakeError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Ledger(error) => Self::Ledger(error),
            OpenError::Cannot(why) => Self::Cannot(why),
        }
    }
}

/// What an event is to this intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Take,
    Duplicate,
    Superseded,
    Removed,
    Later,
}

async fn try_take(
    env: &Arc<Env>,
    ingest: &Ingest,
    group: &[Candidate],
    id: &IntakeId,
) -> Result<Fates, TakeError> {
    let fates = match ingest.events.dedupe {
        Dedupe::On => mark_all(env, ingest, group, id).await?,
        Dedupe::Off => group.iter().map(unmarked).collect(),
    };
    let mut counts = IntakeCounts::default();
    let mut inputs: Vec<Arc<Input>> = Vec::new();
    for (candidate, fate) in group.iter().zip(&fates) {
        match (fate, &candidate.object) {
            (Fate::Take, Some(object)) => inputs.push(Arc::new(Input::Object(object.clone()))),
            (Fate::Take, None) | (Fate::Removed, _) => counts.removed += 1,
            (Fate::Duplicate, _) => counts.duplicates += 1,
            (Fate::Superseded, _) => counts.superseded += 1,
            (Fate::Later, _) => {}
        }
    }
    if !inputs.is_empty() {
        make_ready(env, ingest, id, &inputs, counts).await?;
        counts = IntakeCounts::default();
    }
    let done = fates.into_iter().map(|fate| match fate {
        Fate::Take | Fate::Duplicate | Fate::Superseded | Fate::Removed => Done::Yes,
        Fate::Later => Done::Later,
    });
    Ok(Fates {
        done: done.collect(),
        counts,
    })
}

fn unmarked(candidate: &Candidate) -> Fate {
    match candidate.object {
        Some(_) => Fate::Take,
        None => Fate::Removed,
    }
}

/// Marks all events: those of one object in the order they came, others at the same time.
async fn mark_all(
    env: &Arc<Env>,
    ingest: &Ingest,
    group: &[Candidate],
    id: &IntakeId,
) -> Result<Vec<Fate>, TakeError> {
    let mut by_mark: BTreeMap<MarkOf, Vec<usize>> = BTreeMap::new();
    let mut fates = vec![Fate::Removed; group.len()];
    for (index, candidate) in group.iter().enumerate() {
        if let Some(at) = MarkOf::event(&candidate.event) {
            by_mark.entry(at).or_default().push(index);
        }
    }
    let claim = |index: usize| Claim {
        intake: id.clone(),
        index: index as u32,
    };
    let claim = &claim;
    let marked = by_mark.iter().map(|(at, indexes)| async move {
        let mut fates = Vec::new();
        for index in indexes {
            fates.push((
                *index,
                mark(env, ingest, at, &group[*index], &claim(*index)).await?,
            ));
        }
        Ok::<_, TakeError>(fates)
    });
    for marked in join_all(marked).await {
        for (index, fate) in marked? {
            fates[index] = fate;
        }
    }
    Ok(fates)
}

async fn mark(
    env: &Arc<Env>,
    ingest: &Ingest,
    at: &MarkOf,
    candidate: &Candidate,
    claim: &Claim,
) -> Result<Fate, TakeError> {
    let expires = expires(env);
    for _ in 0..LOOKS_MAX {
        let event = (candidate.event.kind, Taken::of(&candidate.event, claim));
        let marked = env
            .ledger
            .mark(at, event, ingest.sequencer, expires)
            .await?;
        let held = match (marked, candidate.event.kind) {
            (Marked::Won, EventKind::Removed) => return Ok(Fate::Removed),
            (Marked::Won, EventKind::Created | EventKind::Restored | EventKind::Listed) => {
                return Ok(Fate::Take);
            }
            (Marked::Late, _) => return Ok(Fate::Superseded),
            // Nothing has to become ready for a removal to be known.
            (Marked::Held(_), EventKind::Removed) => return Ok(Fate::Duplicate),
            (Marked::Held(held), EventKind::Created | EventKind::Restored | EventKind::Listed) => {
                held
            }
        };
        // The same event twice in one intake: both become ready, or none.
        if held.intake == claim.intake || is_planted(Bug::DuplicatesTrusted) {
            return Ok(Fate::Duplicate);
        }
        match state_of(env, ingest, &held.intake).await? {
            Some(IntakeState::Ready { .. }) => return Ok(Fate::Duplicate),
            Some(IntakeState::Void) => {
                if env.ledger.pass_mark(at, &held, claim, expires).await? {
                    return Ok(Fate::Take);
                }
            }
            None => return Ok(Fate::Later),
        }
    }
    Ok(Fate::Later)
}

/// What became of another intake; none: somebody is still at it. One whose session is no more is declared void.
async fn state_of(
    env: &Arc<Env>,
    ingest: &Ingest,
    id: &IntakeId,
) -> Result<Option<IntakeState>, TakeError> {
    if let Some(state) = env.ledger.intake(&env.job, id).await? {
        return Ok(Some(state));
    }
    let owner = id
        .as_str()
        .rsplit_once('.')
        .map(|(session, _)| SessionId::new(session));
    let at_work = match owner {
        Some(owner) if owner == *env.ledger.session() => ingest.is_under_way(id),
        Some(owner) => {
            let sessions = env.ledger.sessions(&env.job).await?;
            let is_live = |status| status == SessionStatus::Live;
            sessions
                .iter()
                .any(|row| row.id == owner && is_live(row.status))
        }
        None => false,
    };
    if at_work && !is_planted(Bug::IntakesNotVoided) {
        return Ok(None);
    }
    Ok(Some(
        env.ledger.void_intake(&env.job, id, expires(env)).await?,
    ))
}

/// Freezes the items and makes them ready in the window that is now, or in the next if that is sealed.
async fn make_ready(
    env: &Arc<Env>,
    ingest: &Ingest,
    id: &IntakeId,
    inputs: &[Arc<Input>],
    counts: IntakeCounts,
) -> Result<(), TakeError> {
    let mut window = now(env, ingest);
    loop {
        let run = open_window(env, ingest, window).await?;
        // A name of its own: what an earlier try froze may be ready, and not the same.
        let draw = env.runtime.entropy.next_u64();
        let name = format!("{id}-{draw:016x}.jsonl.zst");
        let place = freeze(&run.stores, name, inputs).await;
        let intake = Intake {
            id: id.clone(),
            items: inputs.len() as u32,
            place: place.map_err(|error| TakeError::Cannot(error.to_string()))?,
            pages: pack(0, inputs, &ingest.job.size_rule(), Order::Free),
            counts,
            expires: expires(env),
        };
        match env.ledger.make_ready(&env.job, &run.id, &intake).await? {
            end @ (ReadyEnd::Ready(_) | ReadyEnd::ReadyBefore(_)) => {
                tell(env, &run, &intake, inputs, end).await;
                return Ok(());
            }
            ReadyEnd::Sealed => window = window.next(),
            ReadyEnd::Void => return Err(TakeError::Void),
        }
    }
}

/// What is ready is told to those who work on it.
async fn tell(env: &Env, run: &RunHandle, intake: &Intake, inputs: &[Arc<Input>], end: ReadyEnd) {
    let pages = match end {
        ReadyEnd::Ready(pages) => {
            // Whoever leases these here need not read them again.
            if let Some(page) = pages.first() {
                run.cache.put(page.part, inputs.into());
            }
            pages
        }
        ReadyEnd::ReadyBefore(pages) => pages,
        ReadyEnd::Sealed | ReadyEnd::Void => Vec::new(),
    };
    let lanes = intake.pages.iter().map(|page| page.lane);
    hint_all(env, run, pages.into_iter().zip(lanes).collect()).await;
    run.settled.notify_waiters();
}

async fn hint_all(env: &Env, run: &RunHandle, pages: Vec<(PageId, Lane)>) {
    for lane in Lane::ALL {
        let of_lane = pages.iter().filter(|(_, of)| *of == lane);
        let of_lane: Vec<PageId> = of_lane.map(|(page, _)| *page).collect();
        if !of_lane.is_empty() {
            env.hint(&run.id, lane, &of_lane).await;
        }
    }
}

fn now(env: &Env, ingest: &Ingest) -> Window {
    Window::at(env.runtime.clock.now(), ingest.events.window)
}

fn expires(env: &Env) -> Timestamp {
    env.runtime.clock.now().after(MARK_KEPT)
}

/// The run of a window, made if it is not there.
async fn open_window(
    env: &Arc<Env>,
    ingest: &Ingest,
    window: Window,
) -> Result<RunHandle, TakeError> {
    let run = window.run(&env.job);
    if !ingest.is_open(&run) {
        let new = NewRun {
            id: run.clone(),
            created: env.runtime.clock.now(),
            ..ingest.template.clone()
        };
        env.ledger.open_window(&new, window).await?;
        ingest.opened(run.clone());
    }
    Ok(env.open_run(&run).await?)
}

impl Ingest {
    fn is_open(&self, run: &crate::core::id::RunId) -> bool {
        let opened = self
            .opened
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        opened.contains(run)
    }

    /// Remembers a window; of old ones nothing is asked any more.
    fn opened(&self, run: crate::core::id::RunId) {
        /// The one that is now, and its neighbours.
        const REMEMBERED: usize = 4;
        let mut opened = self
            .opened
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        opened.insert(run);
        if opened.len() > REMEMBERED {
            opened.pop_first();
        }
    }
}
