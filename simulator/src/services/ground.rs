//! What nodes stand on: the stores behind all links. Whatever they are, faults come from the links.

use std::collections::BTreeMap;
use std::sync::Arc;

use trommel::core::lane::Lane;
use trommel::ports::{Objects, Queue, Table};

/// Stores that are elsewhere, in real services.
#[derive(Clone)]
pub struct Ground {
    /// The ledger's table.
    pub table: Arc<dyn Table>,
    /// The lanes' queues.
    pub queues: BTreeMap<Lane, Arc<dyn Queue>>,
    /// Where events arrive.
    pub ingest: Arc<dyn Queue>,
    /// What the job reads.
    pub input: Arc<dyn Objects>,
    /// Frozen parts and outputs.
    pub scratch: Arc<dyn Objects>,
    /// Result files.
    pub results: Arc<dyn Objects>,
    /// So many virtual seconds pass in a real one.
    pub speed: u32,
}
