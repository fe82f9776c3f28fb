//! What the nodes of a simulation share: a table and queues, reached over links that lose, double and
//! delay.
//!
//! The stores are the in-memory ports of `trommel`, or others that a [`Ground`] brings; here stand the ways to them. Each node has links of
//! its own, so that its outage is nobody else's. Promises that show in single writes are checked where
//! the writes land, by [`promises`].

mod batching;
mod bill;
mod executor;
mod ground;
pub mod injector;
mod objects;
mod patience;
mod promises;
mod queue;
mod table;

pub use bill::Bill;
pub use executor::ExecutorLink;
pub use ground::Ground;
pub use injector::{Injector, Rates, Source};
pub use objects::ObjectsLink;
pub use queue::{QueueLink, QueueModel};
pub use table::{TableLink, TableModel};
