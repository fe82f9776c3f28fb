//! Sessions that do random things with what they believe, and check that they are told the truth.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::audit::{Audit, Checked, run_events};
use super::deeds::{bury, reopen, some_page, stop_and_redrive, take_over};
use super::faulty::{Fault, Store, poll};
use super::scene::{Session, job, packed, page_id, run_id, settlement};
use crate::core::id::{Generation, PageId};
use crate::core::outcome::Outcome;
use crate::core::page::{Mark, PageStatus};
use crate::core::redrive::Selection;
use crate::core::run::RunEvent;
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
    /// Takes all pages over whose holders are dead.
    Sweep,
    /// Takes what failed of a page again, in the run's generation.
    Reopen(u8),
    /// One event on the run as it last saw it.
    ChangeRun(u8),
    LookAtRun,
    /// Stops the run if it runs, and redrives it.
    Redrive,
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
    Looked(Box<Result<RunRow, LedgerError>>),
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

    /// Goes on to the end of what it does.
    pub(super) fn finish(&mut self, audit: &mut Audit) -> Checked {
        while self.doing.is_some() {
            self.go_on(audit)?;
        }
        Ok(())
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
                let page = some_page(which);
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
                let page = some_page(which);
                Some(Box::pin(async move {
                    drop(take_over(&ledger, page).await);
                    Done::Else
                }))
            }
            Op::Sweep => Some(Box::pin(async move {
                for number in 0..super::scene::PAGES {
                    drop(take_over(&ledger, page_id(number)).await);
                }
                Done::Else
            })),
            Op::Redrive => {
                let redrive = self.redrive();
                Some(Box::pin(async move {
                    Done::Changed(RunEvent::Redrive, stop_and_redrive(&ledger, &redrive).await)
                }))
            }
            Op::Reopen(which) => {
                let page = some_page(which);
                Some(Box::pin(async move {
                    drop(reopen(&ledger, page).await);
                    Done::Else
                }))
            }
            Op::ChangeRun(which) => self.change_run(which),
            Op::LookAtRun => Some(Box::pin(async move {
                Done::Looked(Box::new(ledger.run(&run).await))
            })),
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
        Box::pin(async move { Done::Gave(given, ledger.give_permits(&job(), held - given).await) })
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
                let mut told = group.into_iter().zip(ends);
                told.try_for_each(|(settlement, end)| self.settled(&settlement, end, audit))
            }
            Done::Settled(_, Err(error @ (LedgerError::Broken(_) | LedgerError::Page(_)))) => {
                Err(format!("a settle broke a promise: {error}"))
            }
            Done::Settled(group, Err(_)) => {
                self.unsettled = group;
                Ok(())
            }
            Done::Changed(event, Ok(change)) => self.changed(&event, &change, audit),
            Done::Looked(row) => {
                self.run = row.ok().or(self.run.take());
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
            | Done::Took(Err(_))
            | Done::Released
            | Done::Else => Ok(()),
        }
    }

    fn settled(&mut self, asked: &Settlement, end: SettleEnd, audit: &Audit) -> Checked {
        let id = asked.held.page.id;
        match end {
            SettleEnd::Recorded(held) => {
                let before = &asked.held.page.items;
                for (index, item) in asked.items.iter().enumerate() {
                    if before[index].mark != Mark::Pending {
                        continue;
                    }
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

    fn changed(&self, event: &RunEvent, change: &RunChange, audit: &Audit) -> Checked {
        let row = audit.run_row();
        let redrive = self.redrive();
        let is_latest = row.state.generation == change.after.generation;
        if *event == RunEvent::Redrive && is_latest && row.redrive.as_ref() != Some(&redrive) {
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
