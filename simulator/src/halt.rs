//! How a simulation ends before its time: bounds, and errors that name what is stuck.

use std::time::Duration;

use trommel::core::time::Tick;

/// How far a simulation may go before it counts as stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Polls of tasks. The default, ten million, is some seconds of real time.
    pub steps_max: u64,
    /// Virtual time. The default is ten years: no promise of Trommel's takes longer.
    pub time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 10_000_000,
            time_max: Duration::from_hours(10 * 365 * 24),
        }
    }
}

/// Names of stuck tasks that an error lists; the rest is counted.
const NAMES_MAX: usize = 20;

/// Why a simulation could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Nothing is ready and no timer is set.
    #[error("deadlock at {:?}: nothing is ready and no timer is set; waiting for ever: {}", Duration::from_nanos(at.0), names(waiting))]
    Deadlock {
        /// When.
        at: Tick,
        /// The tasks, as `node/task`.
        waiting: Vec<String>,
    },
    /// More polls than allowed: something spins.
    #[error("no end after {steps} steps, at {:?}; alive: {}", Duration::from_nanos(at.0), names(alive))]
    TooManySteps {
        /// When.
        at: Tick,
        /// How many.
        steps: u64,
        /// The tasks, as `node/task`.
        alive: Vec<String>,
    },
    /// More virtual time than allowed: something waits again and again.
    #[error("no end before {:?} of virtual time; alive: {}", Duration::from_nanos(at.0), names(alive))]
    TooLong {
        /// The limit.
        at: Tick,
        /// The tasks, as `node/task`.
        alive: Vec<String>,
    },
}

fn names(tasks: &[String]) -> String {
    if tasks.is_empty() {
        return "only the caller".to_owned();
    }
    let listed = tasks[..tasks.len().min(NAMES_MAX)].join(", ");
    match tasks.len().saturating_sub(NAMES_MAX) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// A task that panicked. It ended; all others went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// When.
    pub at: Tick,
    /// Which, as `node/task`.
    pub task: String,
    /// What it said.
    pub message: String,
}
