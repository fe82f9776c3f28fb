//! What the loops ask of the world, as traits. Each method's doc is a contract, and one suite
//! (`tests/src/contract`) runs it against every implementation.
//!
//! Time, chance and spawning are ports too: production runs on tokio, the simulator on its own
//! runtime, with the same code.

pub mod executor;
pub mod objects;
pub mod queue;
pub mod runtime;
pub mod table;

pub use executor::{Call, CallItem, CallReport, Executor, ItemReport, Output, Stop};
pub use objects::{Objects, ObjectsError, ObjectsProfile};
pub use queue::{Message, Queue, QueueError, QueueProfile};
pub use runtime::{Clock, Entropy, Runtime, Spawn};
pub use table::{
    Condition, Consistency, Key, Query, Row, Table, TableError, TableProfile, Update, Value, Write,
};
