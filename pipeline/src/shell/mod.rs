//! The loops: reader, router, worker, keeper, sweeper, judge, redriver, finalizer. Each is one task, any
//! number may run in any number of processes, and each thing they do is one conditional write of the
//! ledger.
//!
//! They speak to the world through [`crate::ports`] only, so the simulator runs the same code.

pub mod env;
pub mod finalizer;
mod hints;
pub mod intake;
mod judge;
mod keeper;
mod outputs;
mod part_cache;
pub mod permits;
mod reader;
pub mod reconcile;
mod redriver;
pub mod report;
mod router;
pub mod session;
pub mod source;
mod sweeper;
mod windows;
mod worker;

pub use env::{Env, Mode, OpenError, OpenRun, OpenedRun, Others, RunHandle, Seen, Settings};
pub use redriver::{Plan, plan};
pub use session::{Session, SessionEnd};
pub use source::{SourceError, Stores};
