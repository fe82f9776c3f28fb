//! What must always hold, by name, so that a broken promise says which one it was.
//!
//! The ids are those of `pipeline/design.md`. They are asserted before writing to the ledger and after
//! reading from it, in production too: a wrong ledger is worse than a stopped worker.

use std::fmt;

/// A safety promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InvariantId {
    /// At most one terminal outcome per item and generation; epochs only grow.
    S1,
    /// An outcome is counted once, whatever replies are lost.
    S2,
    /// Counts add up and equal a recount.
    S3,
    /// States move only along the declared graph.
    S4,
    /// FAILED only by tolerance, fail_fast or an input that cannot be read; never SUCCEEDED if the
    /// tolerance was exceeded.
    S6,
    /// Redrive reopens only what did not succeed.
    S7,
    /// The lane matches the size rule, or the item was escalated.
    S9,
    /// For each rule, retries charged are at most its attempts.
    S11,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub id: InvariantId,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {:?} does not hold: {}", self.id, self.seen)
    }
}

impl std::error::Error for Violation {}

/// `Ok` if the promise holds, else a [`Violation`] that says what was seen.
///
/// # Errors
/// The violation.
pub fn check(holds: bool, id: InvariantId, seen: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation { id, seen: seen() })
    }
}
