//! A node's way to a handler: a function that may be throttled or lose its answer, a container that may find
//! no room, run out of memory, or end without saying anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use trommel::core::class::{Class, Failure};
use trommel::ports::Executor;
use trommel::ports::executor::{Call, CallReport, ItemReport, Stop};

use super::injector::{Injector, OVERLONG_MAX, PATIENCE_MAX};
use crate::node::Node;
use crate::point::{Kind, Operation};

/// One node's way to an executor.
pub struct ExecutorLink {
    base: Arc<dyn Executor>,
    node: Node,
    injector: Arc<Injector>,
}

impl ExecutorLink {
    /// The way of this node to this executor.
    pub fn new(base: Arc<dyn Executor>, node: &Node, injector: Arc<Injector>) -> Self {
        Self {
            base,
            node: node.clone(),
            injector,
        }
    }
}

fn undecided(items: usize, class: Class) -> CallReport {
    CallReport::undecided(items, &Failure::new(class, "simulated"))
}

#[async_trait]
impl Executor for ExecutorLink {
    fn start_wait_max(&self) -> Duration {
        self.base.start_wait_max()
    }

    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let items = call.items.len();
        let first = call.items.first().expect("a call carries an item").id;
        let mut ticket = self.injector.ticket(Operation::Call, &self.node, &first);
        match ticket.fault {
            Some(Kind::CrashBefore) => return self.injector.crash(&self.node, &mut ticket).await,
            Some(Kind::Throttled) => return undecided(items, Class::Throttled),
            // As long as a cold start or a full cluster may take, then nothing.
            Some(Kind::NoCapacity) => {
                self.node.sleep(ticket.up_to(PATIENCE_MAX)).await;
                return undecided(items, Class::Unavailable);
            }
            Some(Kind::Slow) => self.node.sleep(ticket.up_to(OVERLONG_MAX)).await,
            Some(_) | None => {}
        }
        self.node.sleep(ticket.there).await;
        let mut report = self.base.call(call, stop).await;
        match ticket.fault {
            Some(Kind::CrashAfter) => self.injector.crash(&self.node, &mut ticket).await,
            // What it did is done; only the answer is missing.
            Some(Kind::ReplyLost) => undecided(items, Class::Unavailable),
            Some(Kind::NoResult) => undecided(items, Class::BadOutput),
            Some(Kind::OutOfMemory) => undecided(items, Class::OutOfMemory),
            Some(Kind::Dies) => undecided(items, Class::Crashed),
            Some(Kind::Partial) => {
                let silent = ticket.some_of(items);
                for item in report.items.iter_mut().rev().take(silent) {
                    let failure = Failure::new(Class::Crashed, "simulated: no word of this item");
                    *item = ItemReport::Undecided(failure);
                }
                report
            }
            Some(_) | None => report,
        }
    }
}
