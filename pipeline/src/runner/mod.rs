//! Puts it together: a ledger's backend, the stores a job names, executors, and a session around a run.
//!
//! The command line and programs that embed Trommel use the same few calls. Nothing is decided here.

mod at_work;
#[cfg(feature = "aws")]
mod aws;
mod backend;
mod embed;
mod foreground;
pub mod function;
mod opener;
mod protection;
mod serve;

pub use at_work::AtWork;
pub use backend::{Backend, BackendError, Purpose, tree};
pub use embed::{EmbedError, Embedded};
pub use foreground::{Ended, Foreground, Role, RunnerError};
pub use opener::{JobOpener, StoredJob};
pub use protection::Protection;
pub use serve::{Served, own_places};
