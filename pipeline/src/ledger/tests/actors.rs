//! Sessions that do random things with what they believe, and check that they are told the truth.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::audit::{Audit, Checked, run_events};
use super::faulty::{Fault, Store, poll};
use super::scene::{Session, all_well, job, packed, page_id, run_id, settlement};
use crate::core::id::{Generation, PageId};
use crate::core::outcome::Outcome;
use crate::core::page::{Mark, PageStatus};
use crate::core::redrive::Selection;
use crate::core::run::{RunEvent, RunStatus};
use crate::core::time::Timestamp;
use crate::ledger::{
    Held, LedgerError, Redrive, RunChange, RunRow, SessionStatus, SettleEnd, Settlement,
};

/// What a session does next. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create,
    Lease(u8),
    /// Records some of the pages it believes it holds, with outcomes by these digits.
    Settle(u64),
    Note(u8, u8),
    Release(u8),
    TakeOver(u8),
    /// Takes what failed of a page again, in the run's generation.
    Reopen(u8),
    /// One event on the run as it last saw it.
    ChangeRun(u8),
    LookAtRun,
    Take(u8),
    Give(u8),
    /// Marks another session dead.
    Bury(u8),
}

/// What came of it.
enum Done {
    Opened(Result<(), LedgerError>),
    Leased(Result<Held, LedgerError>),
    Noted(PageId, Result<Held, LedgerError>),
    Released,
    Settled(Vec<Settlement>, Result<Vec<SettleEnd>, LedgerError>),
    Changed(RunEvent, Result<RunChange, LedgerError>),
    Looked(Result<RunRow, LedgerError>),
    Took(Result<u32, LedgerError>),
    Gave(u32, Result<(), LedgerError>),
    Else,
}

type Doing = Pin<Box<dyn Future<Output = Done>>>;

pub(super) struct Actor {
    number: usize,
    lives: u32,
    session: Session,
    doing: Option<Doing>,
    open: bool,
    /// Pages it believes it holds.
    held: BTreeMap<PageId, Held>,
    /// A group that is not yet known to be settled: it goes again, as the worker's settler does.
    unsettled: Vec<Settlement>,
    run: Option<RunRow>,
    permits: u32,
    /// Permits it is giving back until it is told that they are back.
    giving: u32,
}

/// A mark by a digit; `None`: another try.
fn mark(digit: u64) -> Option<Mark> {
    match digit % 10 {
        0..=2 => Some(Mark::Done(Outcome::Succeeded)),
        3 => Some(Mark::Done(Outcome::Failed)),
        4 => Some(Mark::Done(Outcome::TimedOut)),
        5 => Some(Mark::Done(Outcome::Skipped)),
        6 => Some(Mark::Moved),
        7 => Some(Mark::Done(Outcome::Aborted)),
        _ => None,
    }
}

impl Actor {
    pub(super) fn new(store: &Arc<Store>, number: usize, plan: Vec<Fault>) -> Self {
        Self {
            number,
            lives: 0,
            session: Session::new(store, &format!("s{number}"), plan),
            doing: None,
            open: false,
            held: BTreeMap::new(),
            unsettled: Vec::new(),
            run: None,
            permits: 0,
            giving: 0,
        }
    }

    /// The process dies wherever it is, and another starts in its place with the same bad luck.
    pub(super) fn crash(&mut self) {
        self.lives += 1;
        let name = format!("s{}x{}", self.number, self.lives);
        let ledger = crate::ledger::Ledger::new(
            self.session.table.clone(),
            super::faulty::runtime(),
            crate::core::id::SessionId::new(name),
        );
        let session = Session {
            ledger,
            table: self.session.table.clone(),
        };
        let (number, lives) = (self.number, self.lives);
        *self = Self {
            number,
            lives,
            session,
            doing: None,
            open: false,
            held: BTreeMap::new(),
            unsettled: Vec::new(),
            run: None,
            permits: 0,
            giving: 0,
        };
    }

    pub(super) fn heal(&self) {
        self.session.table.heal();
    }

    pub(super) fn is_busy(&self) -> bool {
        self.doing.is_some()
    }

    /// Begins an operation, unless one is under way.
    pub(super) fn begin(&mut self, op: &Op) {
        if self.doing.is_some() {
            return;
        }
        self.doing = if !self.open {
            Some(self.announce())
        } else if !self.unsettled.is_empty() {
            let group = std::mem::take(&mut self.unsettled);
            Some(self.settle(group))
        } else if self.giving > 0 {
            Some(self.give(self.giving))
        } else {
            self.chosen(op)
        };
    }

    fn chosen(&mut self, op: &Op) -> Option<Doing> {
        let ledger = self.session.ledger.clone();
        let run = run_id();
        match *op {
            Op::Create => Some(Box::pin(async move {
                let made = ledger.create_pages(&run, &packed(), Generation(0)).await;
                drop(made);
                Done::Else
            })),
            Op::Lease(which) => {
                let page = self.some_page(which);
                // The worker never leases what it holds; a hint for such a page is spent.
                if self.held.contains_key(&page) {
                    return None;
                }
                Some(Box::pin(async move {
                    Done::Leased(ledger.lease(&run, page, Timestamp(i64::MAX)).await)
                }))
            }
            Op::Settle(digits) => {
                let group = self.group(digits);
                (!group.is_empty()).then(|| self.settle(group))
            }
            Op::Note(which, index) => {
                let held = self.some_held(which)?;
                Some(Box::pin(async move {
                    let index = index % held.page.items.len() as u8;
                    Done::Noted(held.page.id, ledger.note(&run, &held, index).await)
                }))
            }
            Op::Release(which) => {
                let held = self.some_held(which)?;
                self.held.remove(&held.page.id);
                Some(Box::pin(async move {
                    drop(ledger.release(&run, &held, Timestamp(0)).await);
                    Done::Released
                }))
            }
            Op::TakeOver(which) => {
                let page = self.some_page(which);
                Some(Box::pin(async move {
                    drop(take_over(&ledger, page).await);
                    Done::Else
                }))
            }
            Op::Reopen(which) => {
                let page = self.some_page(which);
                Some(Box::pin(async move {
                    drop(reopen(&ledger, page).await);
                    Done::Else
                }))
            }
            Op::ChangeRun(which) => self.change_run(which),
            Op::LookAtRun => Some(Box::pin(
                async move { Done::Looked(ledger.run(&run).await) },
            )),
            Op::Take(wanted) => {
                let (held, wanted) = (self.permits, u32::from(wanted % 8));
                Some(Box::pin(async move {
                    Done::Took(ledger.take_permits(&job(), held, wanted).await)
                }))
            }
            Op::Give(given) => {
                let given = u32::from(given).checked_rem(self.permits + 1)?;
                (given > 0).then(|| self.give(given))
            }
            Op::Bury(which) => Some(Box::pin(async move {
                drop(bury(&ledger, which).await);
                Done::Else
            })),
        }
    }

    fn announce(&self) -> Doing {
        let ledger = self.session.ledger.clone();
        Box::pin(async move {
            let job = job();
            let opened = ledger.open_session(&job, Duration::from_secs(30), "a test");
            Done::Opened(opened.await)
        })
    }

    fn settle(&self, group: Vec<Settlement>) -> Doing {
        let ledger = self.session.ledger.clone();
        Box::pin(async move {
            let ends = ledger.settle(&run_id(), group.clone()).await;
            Done::Settled(group, ends)
        })
    }

    fn give(&self, given: u32) -> Doing {
        let (ledger, held) = (self.session.ledger.clone(), self.permits);
        Box::pin(async move { Done::Gave(given, ledger.give_permits(&job(), held, given).await) })
    }

    fn change_run(&self, which: u8) -> Option<Doing> {
        let row = self.run.clone()?;
        let mut events = run_events();
        let event = events.swap_remove(usize::from(which) % events.len());
        let (ledger, redrive) = (self.session.ledger.clone(), self.redrive());
        Some(Box::pin(async move {
            let redrive = (event == RunEvent::Redrive).then_some(&redrive);
            let change = ledger.change_run(&row, &event, redrive).await;
            Done::Changed(event, change)
        }))
    }

    /// A selection that is nobody else's.
    fn redrive(&self) -> Redrive {
        Redrive {
            selection: Selection {
                key: Some(self.session.ledger.session().to_string()),
                ..Selection::default()
            },
            refresh: false,
        }
    }

    /// A page, or one that an item of it moved to.
    fn some_page(&self, which: u8) -> PageId {
        let page = page_id(u32::from(which) % super::scene::PAGES);
        match which {
            0..=199 => page,
            200.. => page.escalation_of(which % super::scene::PAGE_ITEMS as u8),
        }
    }

    fn some_held(&self, which: u8) -> Option<Held> {
        let which = usize::from(which).checked_rem(self.held.len())?;
        self.held.values().nth(which).cloned()
    }

    fn group(&self, digits: u64) -> Vec<Settlement> {
        let mut left = digits;
        let mut group = Vec::new();
        for held in self.held.values() {
            let last = held.page.id.escalated.is_some();
            group.push(settlement(held, |_| {
                left = left.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mark = mark(left >> 32);
                if last && mark == Some(Mark::Moved) {
                    None
                } else {
                    mark
                }
            }));
        }
        group
    }

    /// Goes on with what it does, up to its next call; checks what it is told at the end.
    pub(super) fn go_on(&mut self, audit: &mut Audit) -> Checked {
        let Some(doing) = self.doing.as_mut() else {
            return Ok(());
        };
        let polled = poll(doing.as_mut());
        audit.look()?;
        let Poll::Ready(done) = polled else {
            return Ok(());
        };
        self.doing = None;
        let me = self.session.ledger.session().clone();
        self.learn(done, audit)
            .map_err(|what| format!("{me}: {what}"))
    }

    fn learn(&mut self, done: Done, audit: &Audit) -> Checked {
        match done {
            Done::Opened(Ok(())) => {
                self.open = true;
                self.my_row(audit).map(|_| ())
            }
            Done::Leased(Ok(held)) | Done::Noted(_, Ok(held)) => {
                self.held.insert(held.page.id, held);
                Ok(())
            }
            // The worker drops a page whose write failed.
            Done::Noted(page, Err(_)) => {
                self.held.remove(&page);
                Ok(())
            }
            Done::Settled(group, Ok(ends)) => {
                let told = group.into_iter().zip(ends);
                told.map(|(settlement, end)| self.settled(&settlement, end, audit))
                    .collect()
            }
            Done::Settled(_, Err(error @ (LedgerError::Broken(_) | LedgerError::Page(_)))) => {
                Err(format!("a settle broke a promise: {error}"))
            }
            Done::Settled(group, Err(_)) => {
                self.unsettled = group;
                Ok(())
            }
            Done::Changed(event, Ok(_)) => self.changed(&event, audit),
            Done::Looked(Ok(row)) => {
                self.run = Some(row);
                Ok(())
            }
            Done::Took(Ok(taken)) => {
                self.permits += taken;
                self.permits_are_mine(audit)
            }
            Done::Gave(given, Ok(())) => {
                self.giving = 0;
                self.permits -= given;
                self.permits_are_mine(audit)
            }
            // Its lease on life is lost: the process ends.
            Done::Gave(_, Err(LedgerError::Raced)) => {
                self.crash();
                Ok(())
            }
            Done::Gave(given, Err(_)) => {
                self.giving = given;
                Ok(())
            }
            Done::Opened(Err(_))
            | Done::Leased(Err(_))
            | Done::Changed(_, Err(_))
            | Done::Looked(Err(_))
            | Done::Took(Err(_))
            | Done::Released
            | Done::Else => Ok(()),
        }
    }

    fn settled(&mut self, asked: &Settlement, end: SettleEnd, audit: &Audit) -> Checked {
        let id = asked.held.page.id;
        match end {
            SettleEnd::Recorded(held) => {
                for (index, item) in asked.items.iter().enumerate() {
                    let there = audit.outcome(id, index, asked.held.page.generation);
                    if there != item.mark.outcome() {
                        return Err(format!(
                            "told that {asked:?} is recorded, item {index} is {there:?}"
                        ));
                    }
                }
                if held.page.status == PageStatus::Settled {
                    self.held.remove(&id);
                } else {
                    self.held.insert(id, held);
                }
                Ok(())
            }
            SettleEnd::Lost => {
                self.held.remove(&id);
                let now = &audit.page(id).ok_or("a page vanished")?.page;
                let mine = PageStatus::Leased {
                    session: self.session.ledger.session().clone(),
                };
                if now.status == mine && now.epoch == asked.held.page.epoch {
                    return Err(format!(
                        "L4: told that {id} is lost, and it is leased to me: {now:?}"
                    ));
                }
                Ok(())
            }
        }
    }

    fn changed(&self, event: &RunEvent, audit: &Audit) -> Checked {
        let row = audit.run_row();
        let redrive = self.redrive();
        let overtaken = row.state.status != RunStatus::Running;
        if *event == RunEvent::Redrive && !overtaken && row.redrive.as_ref() != Some(&redrive) {
            return Err(format!(
                "told that it redrives {redrive:?}, and the run does {:?}",
                row.redrive
            ));
        }
        Ok(())
    }

    fn my_row(&self, audit: &Audit) -> Result<crate::ledger::SessionRow, String> {
        let me = self.session.ledger.session();
        let mut sessions = audit.sessions().into_iter();
        let row = sessions.find(|row| row.id == *me);
        row.ok_or_else(|| "told that it is announced, and nobody knows it".to_owned())
    }

    /// Never more calls than the pool knows of, while it lives.
    fn permits_are_mine(&self, audit: &Audit) -> Checked {
        let row = self.my_row(audit)?;
        if row.status == SessionStatus::Live && row.permits < self.permits {
            return Err(format!(
                "S10: believes in {} permits, its row has {}",
                self.permits, row.permits
            ));
        }
        Ok(())
    }
}

async fn take_over(ledger: &crate::ledger::Ledger, page: PageId) -> Result<(), LedgerError> {
    let Some(held) = ledger.page(&run_id(), page).await? else {
        return Ok(());
    };
    let PageStatus::Leased { session } = held.page.status.clone() else {
        return Ok(());
    };
    let sessions = ledger.sessions(&job()).await?;
    let lives =
        |row: &&crate::ledger::SessionRow| row.id == session && row.status == SessionStatus::Live;
    if sessions.iter().find(lives).is_none() {
        ledger.take_over(&run_id(), &held, &session).await?;
    }
    Ok(())
}

async fn reopen(ledger: &crate::ledger::Ledger, page: PageId) -> Result<(), LedgerError> {
    let generation = ledger.run(&run_id()).await?.state.generation;
    let Some(held) = ledger.page(&run_id(), page).await? else {
        return Ok(());
    };
    let failed = |mark: Mark| match mark {
        Mark::Done(outcome) => outcome != Outcome::Succeeded,
        Mark::Pending | Mark::Moved => false,
    };
    let items = (0u8..).zip(&held.page.items);
    let items = items.filter(|(_, item)| failed(item.mark));
    let items = items.map(|(index, _)| index).collect();
    ledger
        .reopen(&run_id(), &held, generation, items)
        .await
        .map(|_| ())
}

async fn bury(ledger: &crate::ledger::Ledger, which: u8) -> Result<(), LedgerError> {
    let mut sessions = ledger.sessions(&job()).await?;
    sessions.retain(|row| row.status == SessionStatus::Live && row.id != *ledger.session());
    let Some(which) = usize::from(which).checked_rem(sessions.len()) else {
        return Ok(());
    };
    ledger.mark_dead(&job(), &sessions[which]).await
}

/// Without faults from here on: everybody is buried, and a last session finishes the work.
pub(super) fn clear_up(store: &Arc<Store>, audit: &mut Audit) -> Checked {
    use super::faulty::finish;
    let last = Session::open(store, "last").ledger;
    for row in audit.sessions() {
        if row.id != *last.session() && row.status == SessionStatus::Live {
            finish(last.mark_dead(&job(), &row)).map_err(|e| format!("burying: {e}"))?;
        }
    }
    finish(last.create_pages(&run_id(), &packed(), Generation(0)))
        .map_err(|e| format!("making pages: {e}"))?;
    audit.look()?;
    let pages: Vec<PageId> = audit.all_pages().map(|held| held.page.id).collect();
    for page in pages {
        finish(take_over(&last, page)).map_err(|e| format!("taking {page} over: {e}"))?;
        audit.look()?;
        if audit.page(page).map(|held| &held.page.status) == Some(&PageStatus::Settled) {
            continue;
        }
        let held = finish(last.lease(&run_id(), page, Timestamp(i64::MAX)))
            .map_err(|e| format!("L1: leasing {page}: {e}"))?;
        audit.look()?;
        let ends = finish(last.settle(&run_id(), vec![all_well(&held)]))
            .map_err(|e| format!("L1: settling {page}: {e}"))?;
        audit.look()?;
        let settled = matches!(&ends[..], [SettleEnd::Recorded(held)]
            if held.page.status == PageStatus::Settled);
        if !settled {
            return Err(format!("L1: {page} ended as {ends:?}"));
        }
    }
    let lent: u32 = audit.sessions().iter().map(|row| row.permits).sum();
    if lent > 0 {
        return Err(format!("L4: {lent} permits are still lent"));
    }
    Ok(())
}
