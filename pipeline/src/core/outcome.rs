//! What became of items, and how many of each.

use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A terminal outcome of an item in one generation. Pending and running are not outcomes: an item
/// without one is pending, and runs while a session counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The handler succeeded.
    Succeeded,
    /// It failed, retries used up.
    Failed,
    /// Its last call ran out of time.
    TimedOut,
    /// Its call was stopped with the run.
    Aborted,
    /// Left out by policy: neither success nor failure.
    Skipped,
}

impl Outcome {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Aborted,
        Self::Skipped,
    ];

    /// The name, as in DescribeMapRun's counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timedOut",
            Self::Aborted => "aborted",
            Self::Skipped => "skipped",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
    }

    /// Whether tolerance counts it as a failure: failed or timed out ("Setting failure thresholds
    /// for Distributed Map states").
    pub fn is_failure(self) -> bool {
        match self {
            Self::Failed | Self::TimedOut => true,
            Self::Succeeded | Self::Aborted | Self::Skipped => false,
        }
    }
}

/// One number for each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settled {
    /// Items that succeeded.
    pub succeeded: u64,
    /// Items that failed.
    pub failed: u64,
    /// Items that timed out.
    pub timed_out: u64,
    /// Items stopped with the run.
    pub aborted: u64,
    /// Items left out by policy.
    pub skipped: u64,
}

impl Settled {
    /// The number for one outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Succeeded => self.succeeded,
            Outcome::Failed => self.failed,
            Outcome::TimedOut => self.timed_out,
            Outcome::Aborted => self.aborted,
            Outcome::Skipped => self.skipped,
        }
    }

    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome, items: u64) {
        let number = match outcome {
            Outcome::Succeeded => &mut self.succeeded,
            Outcome::Failed => &mut self.failed,
            Outcome::TimedOut => &mut self.timed_out,
            Outcome::Aborted => &mut self.aborted,
            Outcome::Skipped => &mut self.skipped,
        };
        *number += items;
    }

    /// All together.
    pub fn total(&self) -> u64 {
        Outcome::ALL.iter().map(|outcome| self.of(*outcome)).sum()
    }

    /// Failures as tolerance counts them.
    pub fn failures(&self) -> u64 {
        self.failed + self.timed_out
    }
}

impl AddAssign for Settled {
    fn add_assign(&mut self, other: Self) {
        for outcome in Outcome::ALL {
            self.add(outcome, other.of(outcome));
        }
    }
}

impl Sub for Settled {
    type Output = Self;

    /// Saturates: a reader that catches the two sides at different moments never sees less than none.
    fn sub(self, other: Self) -> Self {
        let mut rest = Self::default();
        for outcome in Outcome::ALL {
            rest.add(outcome, self.of(outcome).saturating_sub(other.of(outcome)));
        }
        rest
    }
}

/// Counts of a run at one moment. They add up by construction: pending is what remains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemCounts {
    /// Not settled and not running.
    pub pending: u64,
    /// In a call right now, as the sessions last said; never more than what is not settled.
    pub running: u64,
    /// Items that succeeded.
    pub succeeded: u64,
    /// Items that failed.
    pub failed: u64,
    /// Items that timed out.
    pub timed_out: u64,
    /// Items stopped with the run.
    pub aborted: u64,
    /// Items left out by policy.
    pub skipped: u64,
    /// All items found so far; final once the input is read.
    pub total: u64,
}

impl ItemCounts {
    /// Puts the counts together. `total` must have been read after `settled`, so that it is never
    /// too small.
    pub fn new(total: u64, settled: Settled, running: u64) -> Self {
        let unsettled = total.saturating_sub(settled.total());
        let running = running.min(unsettled);
        Self {
            pending: unsettled - running,
            running,
            succeeded: settled.succeeded,
            failed: settled.failed,
            timed_out: settled.timed_out,
            aborted: settled.aborted,
            skipped: settled.skipped,
            total,
        }
    }

    /// The terminal outcomes among them.
    pub fn settled(&self) -> Settled {
        Settled {
            succeeded: self.succeeded,
            failed: self.failed,
            timed_out: self.timed_out,
            aborted: self.aborted,
            skipped: self.skipped,
        }
    }
}
