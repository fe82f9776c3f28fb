//! The ports in this process's memory: for lane hints of an embedded run, for tests, for the simulator.
//!
//! Deterministic: ordered maps, a clock that is handed in, no chance. Nothing survives the process; what
//! must is the business of the other adapters.

mod objects;
mod queue;
mod table;

pub use objects::MemoryObjects;
pub use queue::MemoryQueue;
pub use table::{EMBEDDED_PROFILE, MemoryTable, RowChange};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: no lock here is held over a step that leaves state half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
