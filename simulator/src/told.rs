//! What the pipeline was told of each call, once network and platform had their say: what it must go by.
//!
//! [`crate::watch`] stands at the handler and knows what was done; this stands where the answer arrives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trommel::core::class::{Class, Failure};
use trommel::core::id::ItemId;
use trommel::core::lane::Lane;
use trommel::core::time::Tick;
use trommel::ports::Executor;
use trommel::ports::executor::{Call, CallReport, ItemReport, Stop};

use crate::exec::lock;
use crate::job_rules::TIMEOUT_SECONDS;
use crate::node::Node;

/// One call of one item, as the pipeline made it and heard of it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) item: ItemId,
    pub(crate) lane: Lane,
    pub(crate) generation: u32,
    pub(crate) epoch: u32,
    pub(crate) attempt: u32,
    pub(crate) began: Tick,
    /// When the answer came, or the call was dropped.
    pub(crate) ended: Tick,
    pub(crate) came_to: CameTo,
}

impl Told {
    /// Whether it ran about as long as it may, and nobody stopped it: its time may have been up when it was heard.
    pub(crate) fn was_nearly_late(&self) -> bool {
        self.came_to == CameTo::Stopped && self.ended.since(self.began) > NEARLY
    }
}

/// What a call came to for one of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CameTo {
    /// Nobody heard: its process died, or its lease was lost.
    Nothing,
    /// It was stopped before it said.
    Stopped,
    /// One of several without a word, any of which may be why: they are called again in halves, uncharged.
    Halved,
    Succeeded,
    Failed(Failure),
}

/// All of them, in the order in which they began.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Vec<Told>>);

impl Journal {
    pub(crate) fn all(&self) -> Vec<Told> {
        lock(&self.0).clone()
    }
}

/// An executor whose answers are noted.
pub(crate) struct ToldExecutor {
    pub(crate) base: Arc<dyn Executor>,
    pub(crate) lane: Lane,
    pub(crate) node: Node,
    pub(crate) journal: Arc<Journal>,
}

/// Clocks drift by half a percent: a call that ran about as long as it may was stopped for that, or just not.
const NEARLY: Duration = Duration::from_millis(19_850);

#[async_trait]
impl Executor for ToldExecutor {
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let batch = call.batch;
        let began = self.node.tick();
        let note = |item: &trommel::ports::executor::CallItem| Told {
            item: item.id,
            lane: self.lane,
            generation: item.generation.0,
            epoch: item.epoch.0,
            attempt: item.attempt,
            began,
            ended: began,
            came_to: CameTo::Nothing,
        };
        let noted: Vec<Told> = call.items.iter().map(note).collect();
        let items = noted.len();
        let first = {
            let mut all = lock(&self.journal.0);
            let first = all.len();
            all.extend(noted);
            first
        };
        let report = self.base.call(call, stop.clone()).await;
        let ended = self.node.tick();
        let end = End {
            batch,
            stopped: stop.is_cancelled(),
            took: ended.since(began),
        };
        let came_to = end.of(&report.items);
        let mut all = lock(&self.journal.0);
        for (told, came_to) in all[first..first + items].iter_mut().zip(came_to) {
            (told.ended, told.came_to) = (ended, came_to);
        }
        report
    }
}

/// What else decides what an answer means.
struct End {
    batch: bool,
    stopped: bool,
    took: Duration,
}

impl End {
    fn of(&self, reports: &[ItemReport]) -> Vec<CameTo> {
        if !self.stopped && self.took > NEARLY {
            // Whether its time was up when it was heard is not known.
            return vec![CameTo::Stopped; reports.len()];
        }
        if self.stopped && self.took < NEARLY {
            return reports.iter().map(interrupted).collect();
        }
        let said = reports.iter().map(|report| self.said(report));
        let mut came_to: Vec<CameTo> = said.clone().map(|(came_to, _)| came_to).collect();
        let silent: Vec<usize> = said
            .enumerate()
            .filter_map(|(index, (_, decided))| (!decided).then_some(index))
            .collect();
        let one_of_them = |came_to: &CameTo| match came_to {
            CameTo::Failed(failure) => may_be_one_item(&failure.class),
            CameTo::Nothing | CameTo::Stopped | CameTo::Halved | CameTo::Succeeded => false,
        };
        if silent.len() > 1 && one_of_them(&came_to[silent[0]]) {
            for index in silent {
                came_to[index] = CameTo::Halved;
            }
        }
        came_to
    }

    /// What was said of one, and whether it was said of it rather than of the call.
    fn said(&self, report: &ItemReport) -> (CameTo, bool) {
        let believed = !self.stopped || self.batch;
        match report {
            ItemReport::Succeeded(_) if believed => (CameTo::Succeeded, true),
            ItemReport::Failed(failure) if believed => (CameTo::Failed(failure.clone()), true),
            ItemReport::Undecided(failure) if !self.stopped => {
                (CameTo::Failed(failure.clone()), false)
            }
            ItemReport::Succeeded(_) | ItemReport::Failed(_) | ItemReport::Undecided(_) => {
                let cause = format!("ran longer than {TIMEOUT_SECONDS}s");
                (CameTo::Failed(Failure::new(Class::Timeout, cause)), false)
            }
        }
    }
}

/// What was said of an item as its call was stopped: with its run, or for its process to leave.
fn interrupted(report: &ItemReport) -> CameTo {
    match report {
        ItemReport::Succeeded(_) => CameTo::Succeeded,
        ItemReport::Failed(failure) => CameTo::Failed(failure.clone()),
        ItemReport::Undecided(_) => CameTo::Stopped,
    }
}

/// Whether one bad item may be why a whole call failed; else the call itself is the reason.
fn may_be_one_item(class: &Class) -> bool {
    let of_the_call = [
        "Throttled",
        "Unavailable",
        "WorkerDied",
        "TooLarge",
        "SourceChanged",
        "Gone",
    ];
    !of_the_call.contains(&class.to_string().as_str())
}
