//! Makes a failing scenario small: the one or two faults that matter, few items, few nodes.
//!
//! A smaller scenario counts only if the same oracle says the same promise is broken. Everything is tried
//! again until nothing can go, or [`REPLAYS_MAX`] replays were made.

use crate::oracle::Violation;
use crate::point::{Kind, Point};
use crate::run::{Outcome, Text, run};
use crate::scenario::{FaultSource, Scenario, Trouble};
use crate::schedule::Schedule;

/// Replays at most: a second or two of work.
pub const REPLAYS_MAX: u32 = 2_000;

/// With more faults than this, none of them is there for a trouble's sake alone.
const FAULTS_TIMED_MAX: usize = 6;

/// A trouble is tried at so many moments up to its own, and at as many after.
const MOMENTS: u64 = 12;

/// A scenario that was made smaller.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// As small as it got. Its faults are a plan.
    pub scenario: Scenario,
    /// What is broken.
    pub violation: Violation,
    /// Faults and troubles before.
    pub size_before: usize,
    /// How many replays it took.
    pub replays: u32,
}

struct Shrinker<'a> {
    replay: Replay<'a>,
    oracle: String,
    best: Scenario,
    violation: Violation,
    replays: u32,
}

/// Shrinks a scenario that failed with this outcome; none if it passes when it is replayed.
pub fn shrink(scenario: &Scenario, outcome: &Outcome) -> Option<Shrunk> {
    shrink_by(scenario, outcome, &|scenario| run(scenario, Text::Hashed))
}

/// How a scenario is replayed.
type Replay<'a> = &'a dyn Fn(&Scenario) -> Outcome;

/// The same, replayed another way.
pub(crate) fn shrink_by(
    scenario: &Scenario,
    outcome: &Outcome,
    replay: Replay<'_>,
) -> Option<Shrunk> {
    let violation = outcome.violation.clone()?;
    let best = Scenario {
        faults: FaultSource::Plan(outcome.fired.clone()),
        ..scenario.clone()
    };
    let size_before = best.size();
    let mut shrinker = Shrinker {
        replay,
        oracle: violation.oracle.clone(),
        best: best.clone(),
        violation,
        replays: 0,
    };
    if !shrinker.takes(best) {
        return None;
    }
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_faults();
        shrinker.fewer_troubles();
        shrinker.better_timed();
        shrinker.fewer_nodes();
        shrinker.fewer_items();
        shrinker.calmer();
        if shrinker.best == before || shrinker.is_spent() {
            break;
        }
    }
    Some(Shrunk {
        scenario: shrinker.best,
        violation: shrinker.violation,
        size_before,
        replays: shrinker.replays,
    })
}

impl Shrinker<'_> {
    fn is_spent(&self) -> bool {
        self.replays >= REPLAYS_MAX
    }

    /// Takes this one if it fails alike.
    fn takes(&mut self, scenario: Scenario) -> bool {
        if self.is_spent() {
            return false;
        }
        self.replays += 1;
        let outcome = (self.replay)(&scenario);
        match outcome.violation {
            Some(violation) if violation.oracle == self.oracle => {
                self.best = scenario;
                self.violation = violation;
                // What did not strike does not matter.
                self.best.faults = FaultSource::Plan(outcome.fired);
                true
            }
            Some(_) | None => false,
        }
    }

    fn plan(&self) -> Vec<(Point, Kind)> {
        match &self.best.faults {
            FaultSource::Plan(plan) => plan.clone(),
            FaultSource::Swarm(_) => Vec::new(),
        }
    }

    /// Leaves out stretches of half, a quarter, … of the list, as delta debugging does.
    fn fewer<T: Clone>(
        &mut self,
        list: fn(&Self) -> Vec<T>,
        with: fn(&Scenario, Vec<T>) -> Scenario,
    ) {
        let mut length = list(self).len().div_ceil(2);
        while length > 0 && !self.is_spent() {
            let mut start = 0;
            loop {
                let all = list(self);
                if start >= all.len() || self.is_spent() {
                    break;
                }
                let end = (start + length).min(all.len());
                let rest = [&all[..start], &all[end..]].concat();
                let smaller = with(&self.best, rest);
                // What was behind is now here.
                if !self.takes(smaller) {
                    start = end;
                }
            }
            if length == 1 {
                break;
            }
            length = length.div_ceil(2);
        }
    }

    fn fewer_faults(&mut self) {
        self.fewer(Self::plan, |scenario, plan| Scenario {
            faults: FaultSource::Plan(plan),
            ..scenario.clone()
        });
    }

    fn fewer_troubles(&mut self) {
        let troubles = |shrinker: &Self| -> Vec<Trouble> { shrinker.best.troubles.clone() };
        self.fewer(troubles, |scenario, troubles| Scenario {
            troubles,
            ..scenario.clone()
        });
    }

    /// A fault may matter only because it lets a trouble come at the right moment: the trouble comes at others, without it.
    fn better_timed(&mut self) {
        for trouble in 0..self.best.troubles.len() {
            let mut fault = 0;
            while fault < self.plan().len() && self.plan().len() <= FAULTS_TIMED_MAX {
                if !self.goes_without(fault, trouble) {
                    fault += 1;
                }
            }
        }
    }

    fn goes_without(&mut self, fault: usize, trouble: usize) -> bool {
        let mut rest = self.plan();
        rest.remove(fault);
        let at_ms = self.best.troubles[trouble].at_ms;
        (1..=2 * MOMENTS).any(|moment| {
            let rest = rest.clone();
            self.with(|scenario| {
                scenario.faults = FaultSource::Plan(rest);
                scenario.troubles[trouble].at_ms = at_ms * moment / MOMENTS;
            })
        })
    }

    fn with(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut smaller = self.best.clone();
        change(&mut smaller);
        smaller != self.best && self.takes(smaller)
    }

    fn fewer_nodes(&mut self) {
        while self.best.workers > 1 && self.with(|scenario| scenario.workers -= 1) {}
    }

    /// Halves, then takes one by one.
    fn fewer_items(&mut self) {
        while self.best.workload.small > 0 && self.with(|s| s.workload.small /= 2) {}
        while self.best.workload.large > 0 && self.with(|s| s.workload.large /= 2) {}
        while self.best.workload.small > 0 && self.with(|s| s.workload.small -= 1) {}
        while self.best.workload.large > 0 && self.with(|s| s.workload.large -= 1) {}
    }

    /// Leaves out what the handler and the job do beyond the plain.
    fn calmer(&mut self) {
        self.with(|scenario| scenario.handler.flaky = 0);
        self.with(|scenario| scenario.handler.bad = 0);
        self.with(|scenario| scenario.handler.throttled = 0);
        self.with(|scenario| scenario.handler.panics = 0);
        self.with(|scenario| scenario.handler.slow = 0);
        self.with(|scenario| scenario.handler.killers = 0);
        self.with(|scenario| scenario.redrives = 0);
        self.with(|scenario| scenario.tuning.pauses = false);
        self.with(|scenario| scenario.tuning.tolerated_percent = None);
        self.with(|scenario| scenario.tuning.retries = 0);
        self.with(|scenario| scenario.tuning.batch = 1);
        self.with(|scenario| scenario.tuning.max_concurrency = 1);
        self.with(|scenario| scenario.tuning.results = false);
        self.with(|scenario| scenario.redrive_failed_only = false);
        self.with(|scenario| scenario.clocks.clear());
        self.with(|scenario| scenario.roles.clear());
        // Tasks in the order in which they became ready: then their order does not matter.
        self.with(|scenario| scenario.schedule = Schedule::Fifo);
    }
}
