//! Tallies: counts that only grow.
//!
//! Every settle adds to one of a run's tally rows in the same transaction that records the outcomes, so
//! an outcome is counted exactly when it is recorded. A redrive never subtracts: it adds what it
//! reopened, by former outcome. An outcome's count is settled − reopened over all generations.

use std::collections::BTreeMap;

use super::outcome::Settled;

/// A session names at most this many classes in its tallies; what is beyond it counts under `Other`.
pub const CLASSES_MAX: usize = 32;

/// What one write adds, or what several rows hold together, for one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Items settled in this generation.
    pub settled: Settled,
    /// Items reopened by this generation's redrive, by their former outcome.
    pub reopened: Settled,
    /// Items this generation's redrive took in all: reopened ones and those that were still pending.
    pub opened: u64,
    /// Pages finished in this generation.
    pub pages: u64,
    /// Failures settled in this generation, by class.
    pub classes: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.settled += other.settled;
        self.reopened += other.reopened;
        self.opened += other.opened;
        self.pages += other.pages;
        for (class, items) in &other.classes {
            *self.classes.entry(class.clone()).or_default() += items;
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// All tallies of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// One sum a generation.
    pub by_generation: BTreeMap<u32, Tally>,
}

impl Tallies {
    /// Items with an outcome now, over all generations.
    pub fn settled(&self) -> Settled {
        let mut settled = Settled::default();
        let mut reopened = Settled::default();
        for tally in self.by_generation.values() {
            settled += tally.settled;
            reopened += tally.reopened;
        }
        settled - reopened
    }

    /// One generation's sum.
    pub fn generation(&self, generation: u32) -> Tally {
        self.by_generation
            .get(&generation)
            .cloned()
            .unwrap_or_default()
    }
}
