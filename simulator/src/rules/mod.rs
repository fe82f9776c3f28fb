//! What the services may answer, in one place: the rules that the simulated services play by, and that an
//! emulator's answers are held to.
//!
//! A table's answers follow from its history, but for one choice: [`TableRules`] carries out both, and
//! [`TableWorlds`] keeps the histories that fit what was seen. A queue's answers do not follow from its
//! history: of many that are allowed the simulated one picks, [`QueueRules`] judges what was picked. They know
//! nothing of links, faults and nodes: those stand in [`crate::services`].

mod queue;
mod table;

pub use queue::{Liberty, QueueRules, Span};
pub use table::{Done, KnownToken, Request, TableRules, TableWorlds};

/// An answer that no rule allows, with what would have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Illegal(pub String);
