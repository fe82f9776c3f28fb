//! A page: up to 100 items of one lane that share one state row. It is leased and recorded as a
//! whole, with an outcome for each item.
//!
//! ```text
//!             lease                record (all settled)
//!   ready ───────────▶ leased ─────────────────────────▶ settled
//!     ▲  ▲               │ │                                │
//!     │  └───────────────┘ │ release (retry is far off)     │
//!     │   release, died    ▼                                │
//!     │                 waiting ── lease, once due ─▶ leased│
//!     └───────────────── reopen (a redrive) ────────────────┘
//! ```
//!
//! Every change of hands raises the epoch; every write has a name of its own, and is conditional on the
//! name of the write before it. So a former holder's late write finds another name, and is fenced.
//! Running the items is not here but in [`super::work`].

use super::class::Class;
use super::id::{Epoch, Generation, PageId, SessionId};
use super::invariant::{InvariantId, Violation, check};
use super::lane::Lane;
use super::outcome::{Outcome, Settled};
use super::part::Stretch;
use super::tally::Tally;
use super::time::Timestamp;
use crate::core::planted::{Bug, is_planted};

/// A page holds at most this many items.
pub const PAGE_ITEMS_MAX: usize = 100;

/// A page whose holder died this often is suspect: its items run alone, one at a time.
pub const DEATHS_TO_SUSPECT: u32 = 2;

/// An item that was running alone at this many deaths of its worker fails as `WorkerDied`.
pub const DEATHS_ALONE_MAX: u32 = 2;

/// What a page's row says of one item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// No outcome in this generation yet.
    #[default]
    Pending,
    /// A terminal outcome.
    Done(Outcome),
    /// Escalated: its state is in the page that [`PageId::escalation_of`] names.
    Moved,
}

impl Mark {
    /// One character: what rows hold and people read.
    pub fn letter(self) -> char {
        match self {
            Self::Pending => '.',
            Self::Done(Outcome::Succeeded) => 'S',
            Self::Done(Outcome::Failed) => 'F',
            Self::Done(Outcome::TimedOut) => 'T',
            Self::Done(Outcome::Aborted) => 'A',
            Self::Done(Outcome::Skipped) => 'K',
            Self::Moved => 'M',
        }
    }

    /// The mark of that letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        let all = Outcome::ALL
            .into_iter()
            .map(Self::Done)
            .chain([Self::Pending, Self::Moved]);
        all.into_iter().find(|mark| mark.letter() == letter)
    }

    /// Its outcome, if it has one.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Done(outcome) => Some(outcome),
            Self::Pending | Self::Moved => None,
        }
    }
}

/// One item of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemState {
    /// Outcome, or none yet.
    pub mark: Mark,
    /// Retries charged, one number a retry rule.
    pub retries: Vec<u32>,
    /// Throttles, charged to infrastructure.
    pub throttles: u32,
    /// Not to be called before this moment.
    pub due: Option<Timestamp>,
    /// Deaths of workers in which it was noted as running alone.
    pub deaths_alone: u32,
}

/// Who has the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageStatus {
    /// Nobody; it may be leased.
    Ready,
    /// Nobody; it may be leased once this moment has come.
    Waiting {
        /// The moment.
        due: Timestamp,
    },
    /// This session.
    Leased {
        /// The session.
        session: SessionId,
    },
    /// Nobody ever, but for a redrive: all items have an outcome or have moved.
    Settled,
}

impl PageStatus {
    /// The status without its detail, as rows hold it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Waiting { .. } => "waiting",
            Self::Leased { .. } => "leased",
            Self::Settled => "settled",
        }
    }
}

/// A page's state, as its row holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name.
    pub id: PageId,
    /// Its lane.
    pub lane: Lane,
    /// Which items of its part it holds, in the order of their indexes.
    pub stretches: Vec<Stretch>,
    /// Who has it.
    pub status: PageStatus,
    /// Grows at each change of hands.
    pub epoch: Epoch,
    /// The generation its marks belong to.
    pub generation: Generation,
    /// Deaths of its holders in this generation.
    pub deaths: u32,
    /// The index of the item that its holder noted as running alone.
    pub alone: Option<u8>,
    /// Its items.
    pub items: Vec<ItemState>,
    /// Where outputs of its items lie: names of stretches of output parts, in the order of settling.
    pub outputs: Vec<String>,
}

/// What may happen to a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageEvent {
    /// A session wants to work on it.
    Lease {
        /// The session.
        session: SessionId,
        /// Its clock; a page that waits is not leased before its due.
        now: Timestamp,
    },
    /// The holder records what became of items, and keeps the page unless all are settled.
    Record {
        /// The holder.
        session: SessionId,
        /// Its lease.
        epoch: Epoch,
        /// The items as they are now, in the order of their indexes.
        items: Vec<ItemState>,
        /// Where outputs were put, if any.
        outputs: Option<String>,
    },
    /// The holder is about to run this item alone.
    Note {
        /// The holder.
        session: SessionId,
        /// Its lease.
        epoch: Epoch,
        /// The item's index.
        index: u8,
    },
    /// The holder gives it back: ready, or waiting until the earliest due of its items if that lies after `now`.
    Release {
        /// The holder.
        session: SessionId,
        /// Its lease.
        epoch: Epoch,
        /// The holder's clock.
        now: Timestamp,
    },
    /// This session was marked dead.
    HolderDied {
        /// The session.
        session: SessionId,
    },
    /// This session lives, and does not let go of the page of a run that has ended: it is taken, which fences what it sends
    /// late. Ready, or waiting until the earliest due of its items if that lies after `now`.
    Revoke {
        /// The session.
        session: SessionId,
        /// The taker's clock.
        now: Timestamp,
    },
    /// A redrive takes the items of these indexes (those that are still pending need no naming).
    Reopen {
        /// The redrive's generation.
        generation: Generation,
        /// Indexes of items with an outcome other than succeeded.
        items: Vec<u8>,
    },
}

/// Why an event does nothing. Only `Illegal` is a mistake; the others are daily life.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another session has it.
    #[error("leased by {holder}")]
    Busy {
        /// The holder.
        holder: SessionId,
    },
    /// It waits for this moment.
    #[error("not due before {due}")]
    TooEarly {
        /// The moment.
        due: Timestamp,
    },
    /// Nothing is left to do.
    #[error("already settled")]
    Settled,
    /// The caller's lease is no more.
    #[error("the lease of epoch {held} is no more, the page is at {current}")]
    Fenced {
        /// The caller's epoch.
        held: Epoch,
        /// The page's.
        current: Epoch,
    },
    /// It happened before.
    #[error("it happened before")]
    Done,
    /// A mistake of the caller.
    #[error("{event} is illegal while {status}")]
    Illegal {
        /// The event.
        event: &'static str,
        /// The state.
        status: &'static str,
    },
    /// A mistake of the caller that would have broken a promise.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// A [`Violation`] that can be compared and cloned inside a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub Violation);

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Broken(Broken(violation))
    }
}

/// What a change of a page adds to the run's tally, and to evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Goes into the same transaction as the page. Classes are not filled in here.
    pub tally: Tally,
    /// Items that fail as `WorkerDied` with this change.
    pub worker_died: Vec<u8>,
}

impl Page {
    /// A page as the router makes it.
    #[must_use]
    pub fn new(id: PageId, lane: Lane, stretches: Vec<Stretch>, generation: Generation) -> Self {
        let items = stretches.iter().map(|stretch| stretch.items as usize).sum();
        Self {
            id,
            lane,
            stretches,
            status: PageStatus::Ready,
            epoch: Epoch(0),
            generation,
            deaths: 0,
            alone: None,
            items: vec![ItemState::default(); items],
            outputs: Vec::new(),
        }
    }

    /// The state and effects after an event, or why it does nothing.
    ///
    /// # Errors
    /// The refusal; the page stays as it is.
    pub fn apply(&self, event: &PageEvent) -> Result<(Self, Effects), Refusal> {
        match event {
            PageEvent::Lease { session, now } => self.lease(session, *now),
            PageEvent::Record {
                session,
                epoch,
                items,
                outputs,
            } => self.record(session, *epoch, items, outputs.as_deref()),
            PageEvent::Note {
                session,
                epoch,
                index,
            } => self.note(session, *epoch, *index),
            PageEvent::Release {
                session,
                epoch,
                now,
            } => self.release(session, *epoch, *now),
            PageEvent::HolderDied { session } => self.holder_died(session),
            PageEvent::Revoke { session, now } => self.revoke(session, *now),
            PageEvent::Reopen { generation, items } => self.reopen(*generation, items),
        }
    }

    /// Whether its items must run alone.
    pub fn is_suspect(&self) -> bool {
        self.deaths >= DEATHS_TO_SUSPECT
    }

    /// How many items have which outcome.
    pub fn counts(&self) -> Settled {
        let mut settled = Settled::default();
        for outcome in self.items.iter().filter_map(|item| item.mark.outcome()) {
            settled.add(outcome, 1);
        }
        settled
    }

    /// How many items have no outcome yet.
    pub fn pending(&self) -> usize {
        self.items.iter().filter(|item| is_pending(item)).count()
    }

    /// The index in the part of the item with this index in the page.
    pub fn index_in_part(&self, index: u8) -> Option<u32> {
        let mut left = u32::from(index);
        for stretch in &self.stretches {
            if left < stretch.items {
                return Some(stretch.first + left);
            }
            left -= stretch.items;
        }
        None
    }

    fn lease(&self, session: &SessionId, now: Timestamp) -> Result<(Self, Effects), Refusal> {
        match &self.status {
            PageStatus::Ready => {}
            PageStatus::Waiting { due } if *due <= now => {}
            PageStatus::Waiting { due } => return Err(Refusal::TooEarly { due: *due }),
            PageStatus::Leased { session: holder } => {
                return Err(Refusal::Busy {
                    holder: holder.clone(),
                });
            }
            PageStatus::Settled => return Err(Refusal::Settled),
        }
        let mut page = self.clone();
        page.status = PageStatus::Leased {
            session: session.clone(),
        };
        if !is_planted(Bug::LeaseKeepsEpoch) {
            page.epoch = self.epoch.next();
        }
        Ok((page, Effects::default()))
    }

    fn record(
        &self,
        session: &SessionId,
        epoch: Epoch,
        items: &[ItemState],
        outputs: Option<&str>,
    ) -> Result<(Self, Effects), Refusal> {
        self.held_by(session, epoch, "record")?;
        check(items.len() == self.items.len(), InvariantId::S3, || {
            format!(
                "{} items recorded for a page of {}",
                items.len(),
                self.items.len()
            )
        })?;
        let mut tally = Tally::default();
        for (index, (before, after)) in self.items.iter().zip(items).enumerate() {
            match (before.mark, after.mark) {
                (Mark::Pending, Mark::Done(outcome)) => tally.settled.add(outcome, 1),
                (Mark::Pending, Mark::Pending | Mark::Moved) => {}
                (former, now) => check(former == now, InvariantId::S1, || {
                    format!(
                        "item {index} of page {} from {former:?} to {now:?}",
                        self.id
                    )
                })?,
            }
        }
        let mut page = self.clone();
        page.items = items.to_vec();
        page.outputs.extend(outputs.map(str::to_owned));
        // What has an outcome no longer runs alone: a death from now on is not its doing.
        page.alone = self
            .alone
            .filter(|index| items.get(usize::from(*index)).is_some_and(is_pending));
        if page.pending() == 0 {
            page.status = PageStatus::Settled;
            tally.pages = 1;
        }
        Ok((
            page,
            Effects {
                tally,
                worker_died: Vec::new(),
            },
        ))
    }

    fn note(
        &self,
        session: &SessionId,
        epoch: Epoch,
        index: u8,
    ) -> Result<(Self, Effects), Refusal> {
        self.held_by(session, epoch, "note")?;
        let item = self.items.get(usize::from(index));
        if !item.is_some_and(is_pending) {
            return Err(Refusal::Illegal {
                event: "a note of an item that is not pending",
                status: self.status.as_str(),
            });
        }
        let mut page = self.clone();
        page.alone = Some(index);
        Ok((page, Effects::default()))
    }

    fn release(
        &self,
        session: &SessionId,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<(Self, Effects), Refusal> {
        self.held_by(session, epoch, "release")?;
        let mut page = self.clone();
        page.alone = None;
        page.status = page.unheld(now);
        Ok((page, Effects::default()))
    }

    /// Ready if an item may run now, else waiting for the first that may.
    fn unheld(&self, now: Timestamp) -> PageStatus {
        let pending = self.items.iter().filter(|item| item.mark == Mark::Pending);
        match pending.map(|item| item.due).min() {
            Some(Some(due)) if due > now => PageStatus::Waiting { due },
            Some(Some(_) | None) | None => PageStatus::Ready,
        }
    }

    /// The page without this holder.
    fn taken_from(&self, session: &SessionId) -> Result<Self, Refusal> {
        match &self.status {
            PageStatus::Leased { session: holder } if holder == session => {}
            PageStatus::Leased { .. }
            | PageStatus::Ready
            | PageStatus::Waiting { .. }
            | PageStatus::Settled => return Err(Refusal::Done),
        }
        let mut page = self.clone();
        page.epoch = self.epoch.next();
        page.status = PageStatus::Ready;
        Ok(page)
    }

    fn revoke(&self, session: &SessionId, now: Timestamp) -> Result<(Self, Effects), Refusal> {
        let mut page = self.taken_from(session)?;
        page.alone = None;
        page.status = match is_planted(Bug::TakenBeforeItsRetry) {
            true => PageStatus::Ready,
            false => page.unheld(now),
        };
        Ok((page, Effects::default()))
    }

    fn holder_died(&self, session: &SessionId) -> Result<(Self, Effects), Refusal> {
        let mut page = self.taken_from(session)?;
        let mut effects = Effects::default();
        page.deaths += 1;
        if is_planted(Bug::TakeOverForgets) {
            page.items.fill(ItemState::default());
        }
        let Some(index) = page.alone.take() else {
            return Ok((page, effects));
        };
        let item = page
            .items
            .get_mut(usize::from(index))
            .ok_or(Refusal::Illegal {
                event: "holder_died with a note beyond the page",
                status: "leased",
            })?;
        item.deaths_alone += 1;
        if item.deaths_alone >= DEATHS_ALONE_MAX && item.mark == Mark::Pending {
            item.mark = Mark::Done(Outcome::Failed);
            effects.worker_died.push(index);
            effects.tally.settled.add(Outcome::Failed, 1);
            effects
                .tally
                .classes
                .insert(Class::WorkerDied.as_str().to_owned(), 1);
        }
        if page.pending() == 0 {
            page.status = PageStatus::Settled;
            effects.tally.pages = 1;
        }
        Ok((page, effects))
    }

    fn reopen(&self, generation: Generation, indexes: &[u8]) -> Result<(Self, Effects), Refusal> {
        if self.generation >= generation {
            return Err(Refusal::Done);
        }
        match &self.status {
            PageStatus::Settled | PageStatus::Ready | PageStatus::Waiting { .. } => {}
            PageStatus::Leased { session } => {
                return Err(Refusal::Busy {
                    holder: session.clone(),
                });
            }
        }
        let mut page = self.clone();
        let mut effects = Effects::default();
        for index in indexes {
            let illegal = Refusal::Illegal {
                event: "reopen",
                status: "of fewer items",
            };
            let item = page.items.get_mut(usize::from(*index)).ok_or(illegal)?;
            match item.mark {
                Mark::Done(Outcome::Succeeded) if is_planted(Bug::RedriveReopensSuccesses) => {
                    effects.tally.reopened.add(Outcome::Succeeded, 1);
                }
                Mark::Done(Outcome::Succeeded) | Mark::Moved => {
                    check(false, InvariantId::S7, || {
                        format!(
                            "reopening item {index} of page {}, which is {:?}",
                            self.id, item.mark
                        )
                    })?;
                }
                Mark::Done(_) if is_planted(Bug::RedriveSkipsUncounted) => {}
                Mark::Done(outcome) => effects.tally.reopened.add(outcome, 1),
                Mark::Pending => {}
            }
            item.mark = Mark::Pending;
        }
        effects.tally.opened = page.pending() as u64;
        if effects.tally.opened == 0 {
            return Err(Refusal::Settled);
        }
        for item in page
            .items
            .iter_mut()
            .filter(|item| item.mark == Mark::Pending)
        {
            *item = ItemState::default();
        }
        page.generation = generation;
        page.epoch = self.epoch.next();
        page.deaths = 0;
        page.alone = None;
        page.status = PageStatus::Ready;
        Ok((page, effects))
    }

    fn held_by(
        &self,
        session: &SessionId,
        epoch: Epoch,
        event: &'static str,
    ) -> Result<(), Refusal> {
        let fenced = Refusal::Fenced {
            held: epoch,
            current: self.epoch,
        };
        match &self.status {
            PageStatus::Leased { session: holder } if holder == session && self.epoch == epoch => {
                Ok(())
            }
            PageStatus::Leased { .. }
            | PageStatus::Ready
            | PageStatus::Waiting { .. }
            | PageStatus::Settled
                if epoch < self.epoch =>
            {
                Err(fenced)
            }
            PageStatus::Settled => Err(Refusal::Settled),
            PageStatus::Leased { .. } | PageStatus::Ready | PageStatus::Waiting { .. } => {
                Err(Refusal::Illegal {
                    event,
                    status: self.status.as_str(),
                })
            }
        }
    }
}

fn is_pending(item: &ItemState) -> bool {
    item.mark == Mark::Pending
}

#[cfg(test)]
mod tests;
