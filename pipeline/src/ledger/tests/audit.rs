//! What must hold of the store after every single call: read without faults, compared with a recount
//! and with what was seen before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::faulty::{Store, finish};
use super::scene::{PERMITS_MAX, Session, job, limits, run_id};
use crate::core::id::{Generation, PageId};
use crate::core::outcome::{Outcome, Settled};
use crate::core::page::{Mark, PageStatus};
use crate::core::run::{Reason, Run, RunEvent};
use crate::core::tally::{Tallies, Tally};
use crate::ledger::{Held, RunRow, SessionRow};

/// Any promise that did not hold, as text.
pub(super) type Checked = Result<(), String>;

fn hold(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

/// All that the run's events can be in these tests.
pub(super) fn run_events() -> Vec<RunEvent> {
    let input = || Reason::Input {
        problem: "gone".to_owned(),
    };
    vec![
        RunEvent::Pause(Reason::Asked),
        RunEvent::Pause(Reason::Interrupted),
        RunEvent::Resume(None),
        RunEvent::Resume(Some(limits(7))),
        RunEvent::Resume(Some(limits(8))),
        RunEvent::Stop,
        RunEvent::Succeed,
        RunEvent::Fail(input()),
        RunEvent::Redrive,
    ]
}

/// Watches the store, and remembers.
pub(super) struct Audit {
    watcher: Session,
    store: Arc<Store>,
    /// The store as it was last looked at.
    version: u64,
    pages: BTreeMap<PageId, Held>,
    run: Run,
    /// Outcomes seen, by page, item and generation.
    outcomes: BTreeMap<(PageId, usize, Generation), Outcome>,
    /// What was seen of each generation, to compare the tallies with.
    seen: BTreeMap<u32, Tally>,
}

impl Audit {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        let watcher = Session::new(store, "watcher", Vec::new());
        let run = finish(watcher.ledger.run(&run_id())).expect("the run is there");
        Self {
            watcher,
            store: store.clone(),
            version: 0,
            pages: BTreeMap::new(),
            run: run.state,
            outcomes: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn page(&self, id: PageId) -> Option<&Held> {
        self.pages.get(&id)
    }

    pub(super) fn all_pages(&self) -> impl Iterator<Item = &Held> {
        self.pages.values()
    }

    pub(super) fn outcome(
        &self,
        page: PageId,
        index: usize,
        generation: Generation,
    ) -> Option<Outcome> {
        self.outcomes.get(&(page, index, generation)).copied()
    }

    pub(super) fn sessions(&self) -> Vec<SessionRow> {
        finish(self.watcher.ledger.sessions(&job())).expect("nothing fails")
    }

    pub(super) fn run_row(&self) -> RunRow {
        finish(self.watcher.ledger.run(&run_id())).expect("the run is there")
    }

    pub(super) fn look(&mut self) -> Checked {
        let version = self.store.version();
        if std::mem::replace(&mut self.version, version) == version {
            return Ok(());
        }
        let pages = finish(self.watcher.ledger.pages_of_part(&run_id(), 0)).expect("nothing fails");
        for now in pages {
            self.look_at(&now)?;
        }
        self.look_at_escalations()?;
        self.look_at_tallies()?;
        self.look_at_permits()?;
        self.look_at_run()
    }

    fn look_at(&mut self, now: &Held) -> Checked {
        let id = now.page.id;
        let before = self.pages.insert(id, now.clone());
        let Some(before) = before else {
            return hold(now.page.epoch.0 == 0, || format!("{id} was born {now:?}"));
        };
        if before == *now {
            return Ok(());
        }
        let (old, new) = (&before.page, &now.page);
        let what = || format!("from {old:?} to {new:?}");
        hold(new.epoch >= old.epoch, || format!("S1: epochs, {}", what()))?;
        hold(new.generation >= old.generation, || {
            format!("S1: generations, {}", what())
        })?;
        let leased = |status: &PageStatus| matches!(status, PageStatus::Leased { .. });
        if leased(&new.status) && old.status != new.status {
            hold(new.epoch > old.epoch, || format!("S1: a lease, {}", what()))?;
        }
        let declared = match (&old.status, &new.status) {
            (PageStatus::Leased { session }, PageStatus::Leased { session: next }) => {
                session == next
            }
            (
                PageStatus::Ready | PageStatus::Waiting { .. },
                PageStatus::Leased { .. } | PageStatus::Ready,
            )
            | (PageStatus::Settled, PageStatus::Ready)
            | (
                PageStatus::Leased { .. },
                PageStatus::Ready | PageStatus::Waiting { .. } | PageStatus::Settled,
            ) => true,
            (
                PageStatus::Ready | PageStatus::Waiting { .. },
                PageStatus::Waiting { .. } | PageStatus::Settled,
            )
            | (
                PageStatus::Settled,
                PageStatus::Leased { .. } | PageStatus::Waiting { .. } | PageStatus::Settled,
            ) => false,
        };
        hold(declared, || format!("S4: {}", what()))?;
        let reopened = new.generation > old.generation;
        let seen = self.seen.entry(new.generation.0).or_default();
        for (index, (was, is)) in old.items.iter().zip(&new.items).enumerate() {
            match (was.mark, is.mark) {
                (Mark::Pending, Mark::Done(outcome)) => {
                    let key = (id, index, new.generation);
                    let former = self.outcomes.insert(key, outcome);
                    hold(former.is_none(), || {
                        format!("S1: a second outcome, {}", what())
                    })?;
                    seen.settled.add(outcome, 1);
                }
                (Mark::Pending, Mark::Moved | Mark::Pending) => {}
                (Mark::Done(outcome), Mark::Pending) => {
                    let may = reopened && outcome != Outcome::Succeeded;
                    hold(may, || format!("S7: {}", what()))?;
                    seen.reopened.add(outcome, 1);
                }
                (was, is) => hold(was == is, || format!("S1: {}", what()))?,
            }
            let retries = |state: &crate::core::page::ItemState| state.retries.iter().sum::<u32>();
            hold(reopened || retries(is) >= retries(was), || {
                format!("S11: retries are forgotten, {}", what())
            })?;
        }
        if reopened {
            seen.opened += new.pending() as u64;
        }
        if new.status == PageStatus::Settled {
            seen.pages += 1;
        }
        Ok(())
    }

    /// An item has moved exactly if its new page is there.
    fn look_at_escalations(&self) -> Checked {
        for held in self.pages.values() {
            for (index, item) in held.page.items.iter().enumerate() {
                let there = self
                    .pages
                    .contains_key(&held.page.id.escalation_of(index as u8));
                let moved = item.mark == Mark::Moved;
                if held.page.id.escalated.is_none() {
                    hold(there == moved, || {
                        format!("S3: item {index} of {:?} has a page: {there}", held.page)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn look_at_tallies(&self) -> Checked {
        let tallies: Tallies =
            finish(self.watcher.ledger.tallies(&run_id())).expect("nothing fails");
        let mut recount = Settled::default();
        for held in self.pages.values() {
            recount += held.page.counts();
        }
        hold(tallies.settled() == recount, || {
            format!("S3: tallies {tallies:?}, recount {recount:?}")
        })?;
        for generation in 0..=self.run.generation.0 + 1 {
            let said = tallies.generation(generation);
            let seen = self.seen.get(&generation).cloned().unwrap_or_default();
            let classes: u64 = said.classes.values().sum();
            let failures = said.settled.failures();
            hold(classes == failures, || format!("S3: classes of {said:?}"))?;
            let plain = Tally {
                classes: BTreeMap::new(),
                ..said
            };
            hold(plain == seen, || {
                format!("S2: generation {generation}: tallied {plain:?}, seen {seen:?}")
            })?;
        }
        Ok(())
    }

    fn look_at_permits(&self) -> Checked {
        let pool = finish(self.watcher.ledger.pool(&job())).expect("nothing fails");
        let held: u32 = self.sessions().iter().map(|session| session.permits).sum();
        hold(pool.lent == held && held <= PERMITS_MAX, || {
            format!("S10: the pool is {pool:?}, sessions hold {held}")
        })
    }

    fn look_at_run(&mut self) -> Checked {
        let row = self.run_row();
        let before = std::mem::replace(&mut self.run, row.state.clone());
        if before == row.state {
            return Ok(());
        }
        let mut ways = run_events().into_iter().map(|event| before.apply(&event));
        hold(ways.any(|way| way.as_ref() == Ok(&row.state)), || {
            format!("S4: the run went from {before:?} to {:?}", row.state)
        })
    }
}
