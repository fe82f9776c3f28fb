//! One scenario in the model and on an emulator: the same faults must strike the same items, and each item must
//! come to the same end.
//!
//! Calls, their order and their number may differ: the emulator's time is its own.

use std::collections::BTreeSet;

use super::Stage;
use crate::own::EndedItem;
use crate::point::{Kind, Point};
use crate::run::{Outcome, Text, run};
use crate::scenario::{FaultSource, Scenario};

/// What a scenario came to, in what must not depend on where it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The oracle that spoke first, with what it saw; none: all promises were kept.
    pub broken: Option<String>,
    /// Where the run stood.
    pub status: Option<&'static str>,
    /// The faults that struck, whenever they did.
    pub faults: BTreeSet<(Point, Kind)>,
    /// The outcome of each item, in the order of the data; none: it is pending.
    pub items: Vec<Option<&'static str>>,
}

impl Fate {
    /// Of this outcome.
    pub fn of(outcome: &Outcome) -> Self {
        let broken = outcome.violation.as_ref();
        let item = |item: &EndedItem| item.outcome.map(trommel::core::outcome::Outcome::as_str);
        Self {
            broken: broken.map(|broken| format!("{}: {}", broken.oracle, broken.seen)),
            status: outcome.status.map(trommel::core::run::RunStatus::as_str),
            faults: outcome.fired.iter().cloned().collect(),
            items: outcome.items.iter().map(item).collect(),
        }
    }

    /// In what they differ, in a sentence; none: in nothing.
    pub fn differs_from(&self, other: &Self) -> Option<String> {
        if self.broken != other.broken {
            return Some(format!("{:?} and {:?}", self.broken, other.broken));
        }
        if self.status != other.status {
            return Some(format!("{:?} and {:?}", self.status, other.status));
        }
        if self.faults != other.faults {
            let only = |one: &Self, other: &Self| -> Vec<String> {
                let only = one.faults.difference(&other.faults);
                only.map(|(point, kind)| format!("{} {point}", kind.as_str()))
                    .collect()
            };
            let (here, there) = (only(self, other), only(other, self));
            return Some(format!("faults {here:?} and {there:?}"));
        }
        let pairs = (0..).zip(self.items.iter().zip(&other.items));
        let mut different = pairs.filter(|(_, (one, other))| one != other);
        let first: Option<(u32, _)> = different.next();
        first.map(|(place, (one, other))| format!("item {place}: {one:?} and {other:?}"))
    }
}

/// How many of a scenario's faults are known beforehand: those of a plan; none of a swarm's are.
pub fn planned(scenario: &Scenario) -> Option<usize> {
    match &scenario.faults {
        FaultSource::Plan(plan) => Some(plan.len()),
        FaultSource::Swarm(_) => None,
    }
}

/// What it comes to in the model.
pub fn in_the_model(scenario: &Scenario) -> Fate {
    Fate::of(&run(scenario, Text::Kept))
}

impl Stage {
    /// What it comes to there.
    ///
    /// # Errors
    /// The stage could not be set.
    pub fn fate(&self, scenario: &Scenario) -> Result<Fate, String> {
        self.run(scenario).map(|outcome| Fate::of(&outcome))
    }
}
