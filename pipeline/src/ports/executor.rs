//! `Executor`: carries out calls. One call carries one item or a batch; the answer is an outcome per
//! item, with evidence.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::core::class::Failure;
use crate::core::id::{Epoch, Generation, ItemId, RunId};
use crate::core::item::Input;
pub use crate::core::work::{ItemReport, Output};

/// An output longer than this is kept as an object of its own, with a pointer in its place; the
/// payload bound of Step Functions ("Quotas: maximum input or result size").
pub const OUTPUT_INLINE_BYTES_MAX: usize = 256 * 1024;

/// The longest output of one item; more fails as `BadOutput`, and the call is ended.
pub const OUTPUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Told to a call that should end: first politely, then (after the lane's grace) by force. Whoever
/// stops a call knows why, and says so in its record; the executor only ends it.
pub type Stop = CancellationToken;

/// One execution of a handler.
#[derive(Clone, Debug)]
pub struct Call {
    /// The run it belongs to.
    pub run: RunId,
    /// What it carries: one item, or more with `max_items_per_batch`; never none.
    pub items: Vec<CallItem>,
    /// Whether it goes by the batch protocol, whatever the number of items.
    pub batch: bool,
    /// How long it has from being stopped until it is killed.
    pub grace: Duration,
}

impl Call {
    /// Whether it goes by the batch protocol.
    pub fn is_batch(&self) -> bool {
        self.batch || self.items.len() > 1
    }
}

/// One item of a call.
#[derive(Clone, Debug)]
pub struct CallItem {
    /// Its name within the run.
    pub id: ItemId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The epoch of the lease it runs under.
    pub epoch: Epoch,
    /// The generation it runs in.
    pub generation: Generation,
    /// What to work on.
    pub input: Arc<Input>,
}

impl CallItem {
    /// Stable over attempts, generations and escalation: what an effect outside should be keyed by.
    pub fn idempotency_key(&self, run: &RunId) -> String {
        format!("{run}/{}", self.id)
    }
}

/// What became of a call: one report for each item, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// The reports.
    pub items: Vec<ItemReport>,
}

impl CallReport {
    /// The same failure for all, none decided.
    pub fn undecided(items: usize, failure: &Failure) -> Self {
        Self {
            items: vec![ItemReport::Undecided(failure.clone()); items],
        }
    }
}

/// Carries out calls. Implementations: commands, Lambda handlers run here, containers, AWS Lambda and ECS, in-process handlers.
#[async_trait]
pub trait Executor: Send + Sync {
    /// How long a call may take until its handler starts, beyond the lane's timeout, at most. An executor that answers more
    /// than nothing ends calls that ran longer than the timeout itself, as `Timeout`; who calls stops them later.
    fn start_wait_max(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether a call whose future is dropped goes on, and is found by whoever calls the same attempt of the same item next.
    fn is_found_again(&self) -> bool {
        false
    }

    /// Carries out one call. Answers exactly one report an item. After `stop` it ends within the call's
    /// grace and answers what is known by then. Dropping the future ends the call too, by force, unless it is found again. A single
    /// item's failure is `Failed`; `Undecided` is for a call that ended without saying.
    async fn call(&self, call: Call, stop: Stop) -> CallReport;
}
