//! The scene of the ledger's tests: one run of a few pages, and what sessions do to it.

use std::sync::Arc;
use std::time::Duration;

use super::faulty::{Fault, FaultyTable, Store, finish, runtime};
use crate::core::id::{Generation, JobName, PageId, RunId, SessionId};
use crate::core::lane::Lane;
use crate::core::outcome::Outcome;
use crate::core::packing::Packed;
use crate::core::page::{ItemState, Mark};
use crate::core::part::{Cursor, Part, Place, Stretch};
use crate::core::run::{BreachStops, Limits};
use crate::core::time::Timestamp;
use crate::core::tolerance::Tolerance;
use crate::ledger::{Held, Ledger, NewRun, Settlement};

pub(super) const PAGES: u32 = 5;
pub(super) const PAGE_ITEMS: u32 = 3;
pub(super) const PERMITS_MAX: u32 = 10;

pub(super) fn run_id() -> RunId {
    RunId::new("brave-heron-4f2a")
}

pub(super) fn job() -> JobName {
    JobName::new("thumbnails")
}

pub(super) fn limits(count: u64) -> Limits {
    let tolerance = Tolerance {
        count: Some(count),
        percent: None,
    };
    Limits {
        tolerance,
        breach_stops: BreachStops::AtOnce,
    }
}

pub(super) fn page_id(number: u32) -> PageId {
    PageId::new(0, number)
}

pub(super) fn packed() -> Vec<Packed> {
    let page = |number| Packed {
        id: page_id(number),
        lane: Lane::Function,
        stretches: vec![Stretch {
            first: number * PAGE_ITEMS,
            items: PAGE_ITEMS,
        }],
    };
    (0..PAGES).map(page).collect()
}

/// One session with a plan of faults, on a store that others share.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) ledger: Ledger,
    pub(super) table: Arc<FaultyTable>,
}

impl Session {
    pub(super) fn new(store: &Arc<Store>, name: &str, plan: Vec<Fault>) -> Self {
        let table = FaultyTable::new(store.clone(), plan);
        let ledger = Ledger::new(table.clone(), runtime(), SessionId::new(name));
        Self { ledger, table }
    }

    /// A session that has announced itself, and whose calls do not fail.
    pub(super) fn open(store: &Arc<Store>, name: &str) -> Self {
        let session = Self::new(store, name, Vec::new());
        finish(
            session
                .ledger
                .open_session(&job(), Duration::from_secs(30), "a test"),
        )
        .expect("nothing fails");
        session
    }

    pub(super) fn lease(&self, number: u32) -> Held {
        finish(self.ledger.lease(&run_id(), page_id(number), Timestamp(0)))
            .expect("the page is ready")
    }
}

/// The run, its input read, and its pool of permits.
pub(super) fn set_up(store: &Arc<Store>) {
    let setter = Session::new(store, "setter", Vec::new()).ledger;
    let new = NewRun {
        id: run_id(),
        job: job(),
        job_text: String::new(),
        job_file: String::new(),
        base: String::new(),
        options: String::new(),
        limits: limits(0),
        created: Timestamp(1),
    };
    finish(setter.create_run(&new)).expect("nothing fails");
    let part = Part {
        number: 0,
        items: PAGES * PAGE_ITEMS,
        place: Place::Numbers { first: 0 },
    };
    let cursor = Cursor {
        parts: 1,
        items: u64::from(part.items),
        ..Cursor::default()
    };
    finish(setter.freeze(&run_id(), &part, &cursor)).expect("nothing fails");
    finish(setter.finish_input(&run_id(), &cursor)).expect("nothing fails");
    finish(setter.set_pool(&job(), PERMITS_MAX)).expect("nothing fails");
}

/// The run with its pages made.
pub(super) fn set_up_pages(store: &Arc<Store>) {
    set_up(store);
    let router = Session::new(store, "router", Vec::new()).ledger;
    finish(router.create_pages(&run_id(), &packed(), Generation(0))).expect("nothing fails");
}

/// What a worker records of a page: each pending item gets what `choose` says, `None` for a retry.
pub(super) fn settlement(held: &Held, mut choose: impl FnMut(usize) -> Option<Mark>) -> Settlement {
    let mut items: Vec<ItemState> = held.page.items.clone();
    let mut moved = Vec::new();
    let mut classes = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        if item.mark != Mark::Pending {
            continue;
        }
        let Some(mark) = choose(index) else {
            item.retries.resize(1, 0);
            item.retries[0] = (item.retries[0] + 1).min(35);
            continue;
        };
        item.mark = mark;
        match mark {
            Mark::Moved => moved.push(index as u8),
            Mark::Done(outcome) if outcome.is_failure() => classes.push("Crashed".to_owned()),
            Mark::Done(_) | Mark::Pending => {}
        }
    }
    Settlement {
        held: held.clone(),
        items,
        outputs: None,
        moved,
        classes,
    }
}

pub(super) fn all_well(held: &Held) -> Settlement {
    settlement(held, |_| Some(Mark::Done(Outcome::Succeeded)))
}
