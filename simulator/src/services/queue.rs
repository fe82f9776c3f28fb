//! A lane's queue: one in memory or elsewhere, and a link to it for each node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use trommel::adapters::memory::MemoryQueue;
use trommel::ports::queue::{Depth, Handle, Outgoing, QueueProfile, Rejected};
use trommel::ports::{Message, Queue, QueueError};

use super::bill::Billed;
use super::injector::{Injector, PATIENCE_MAX, Ticket};
use crate::node::Node;
use crate::point::{Kind, Operation};

/// Most entries of a batch, as on SQS ("Message quotas").
const BATCH_MAX: usize = 10;

/// A queue that nodes share.
pub struct QueueModel {
    base: Arc<dyn Queue>,
    name: &'static str,
    injector: Arc<Injector>,
}

impl QueueModel {
    /// An empty queue. `service` is a node that never crashes.
    pub fn new(name: &'static str, service: &Node, injector: Arc<Injector>) -> Arc<Self> {
        let base = Arc::new(MemoryQueue::new(service.runtime().clock));
        Self::away(name, base, injector)
    }

    /// A queue elsewhere.
    pub fn away(name: &'static str, base: Arc<dyn Queue>, injector: Arc<Injector>) -> Arc<Self> {
        Arc::new(Self {
            base,
            name,
            injector,
        })
    }

    /// Puts a message in from outside, without faults.
    ///
    /// # Errors
    /// It is longer than a message may be.
    pub async fn deliver(&self, message: Outgoing) -> Result<(), QueueError> {
        self.base.send(vec![message]).await.map(|_| ())
    }

    /// How many messages there are, as they are.
    ///
    /// # Errors
    /// None: it is in memory.
    pub async fn depth_now(&self) -> Result<Depth, QueueError> {
        self.base.depth().await
    }

    /// The way of one node to it.
    pub fn link(self: &Arc<Self>, node: &Node) -> QueueLink {
        QueueLink {
            model: Arc::clone(self),
            node: node.clone(),
        }
    }
}

/// Notifications are long; what they tell shows at their marks.
fn brief(body: &str) -> &str {
    const CHARS: usize = 80;
    body.char_indices()
        .nth(CHARS)
        .map_or(body, |(end, _)| &body[..end])
}

/// One node's way to the queue.
pub struct QueueLink {
    model: Arc<QueueModel>,
    node: Node,
}

impl QueueLink {
    async fn sleep(&self, duration: Duration) {
        self.node.sleep(duration).await;
    }

    fn ticket(&self, operation: Operation, about: &dyn std::fmt::Display) -> Ticket {
        self.model.injector.ticket(operation, &self.node, about)
    }

    /// The way there: lost, or the end of this process.
    async fn go(&self, ticket: &mut Ticket) -> Result<(), QueueError> {
        if ticket.is(Kind::CrashBefore) {
            return self.model.injector.crash(&self.node, ticket).await;
        }
        self.sleep(ticket.there).await;
        if ticket.is(Kind::RequestLost) {
            self.sleep(ticket.up_to(PATIENCE_MAX)).await;
            return Err(QueueError::Unclear("the request was lost".to_owned()));
        }
        self.model.injector.bill(&Billed::Queued);
        Ok(())
    }

    async fn come_back(&self, ticket: &mut Ticket) -> Result<(), QueueError> {
        if ticket.is(Kind::CrashAfter) {
            return self.model.injector.crash(&self.node, ticket).await;
        }
        let way = if ticket.is(Kind::Slow) {
            ticket.up_to(self.model.injector.lengths().slow_max())
        } else {
            ticket.back
        };
        self.sleep(way).await;
        if ticket.is(Kind::ReplyLost) {
            self.sleep(ticket.up_to(PATIENCE_MAX)).await;
            return Err(QueueError::Unclear("the reply was lost".to_owned()));
        }
        Ok(())
    }

    /// What arrives of one message.
    fn arriving(&self, ticket: &mut Ticket, message: Outgoing) -> Vec<Outgoing> {
        match ticket.fault {
            Some(Kind::Lost) => Vec::new(),
            Some(Kind::Doubled) => vec![message.clone(), message],
            Some(Kind::Late) => vec![Outgoing {
                delay: message.delay + ticket.up_to(self.model.injector.lengths().late_max()),
                ..message
            }],
            Some(
                Kind::RequestLost
                | Kind::ReplyLost
                | Kind::Hangs
                | Kind::Throttled
                | Kind::Conflict
                | Kind::Slow
                | Kind::Ghost
                | Kind::Rejected
                | Kind::NoCapacity
                | Kind::Partial
                | Kind::NoResult
                | Kind::OutOfMemory
                | Kind::Dies
                | Kind::CrashBefore
                | Kind::CrashAfter,
            )
            | None => vec![message],
        }
    }
}

#[async_trait]
impl Queue for QueueLink {
    fn profile(&self) -> QueueProfile {
        QueueProfile {
            batch_max: BATCH_MAX,
            ..self.model.base.profile()
        }
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let mut ticket = self.ticket(Operation::QueueReceive, &self.model.name);
        self.go(&mut ticket).await?;
        let messages = self.model.base.receive(max, wait, visibility).await?;
        self.come_back(&mut ticket).await?;
        for message in &messages {
            self.node
                .trace(&format_args!("received {}", brief(&message.body)));
        }
        Ok(messages)
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        let mut arriving = Vec::new();
        let mut rejected = Vec::new();
        let mut unclear = None;
        // A fault of the whole call is one of its first message's point.
        for (index, message) in batch.into_iter().enumerate() {
            // No fault makes a service take what it never takes.
            if message.body.is_empty() {
                arriving.push((index, message));
                continue;
            }
            let mut ticket = self.ticket(Operation::QueueSend, &message.body);
            match ticket.fault {
                Some(
                    Kind::CrashBefore | Kind::CrashAfter | Kind::RequestLost | Kind::ReplyLost,
                ) => {
                    unclear.get_or_insert(ticket);
                    arriving.push((index, message));
                }
                Some(Kind::Rejected) => rejected.push(Rejected {
                    index,
                    reason: "simulated".to_owned(),
                }),
                Some(
                    Kind::Late
                    | Kind::Hangs
                    | Kind::Throttled
                    | Kind::Conflict
                    | Kind::Slow
                    | Kind::Lost
                    | Kind::Doubled
                    | Kind::Ghost
                    | Kind::NoCapacity
                    | Kind::Partial
                    | Kind::NoResult
                    | Kind::OutOfMemory
                    | Kind::Dies,
                )
                | None => {
                    let copies = self.arriving(&mut ticket, message).into_iter();
                    arriving.extend(copies.map(|message| (index, message)));
                }
            }
        }
        let mut ticket = unclear.unwrap_or_else(Ticket::calm);
        self.go(&mut ticket).await?;
        for (_, message) in &arriving {
            self.node.trace(&format_args!("sent {}", message.body));
        }
        if !arriving.is_empty() {
            let (places, arriving): (Vec<usize>, Vec<Outgoing>) = arriving.into_iter().unzip();
            let refused = self.model.base.send(arriving).await?;
            rejected.extend(refused.into_iter().map(|entry| Rejected {
                index: places[entry.index],
                ..entry
            }));
        }
        self.come_back(&mut ticket).await?;
        Ok(rejected)
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        let mut ticket = self.ticket(Operation::QueueDelete, &self.model.name);
        self.go(&mut ticket).await?;
        let rejected = match ticket.fault {
            Some(Kind::Rejected) => (0..handles.len())
                .map(|index| Rejected {
                    index,
                    reason: "simulated".to_owned(),
                })
                .collect(),
            // "You may receive it again": a copy was on a server that did not answer.
            Some(Kind::Ghost) => Vec::new(),
            _ => self.model.base.delete(handles).await?,
        };
        self.come_back(&mut ticket).await?;
        Ok(rejected)
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        let mut ticket = self.ticket(Operation::QueueChangeVisibility, &self.model.name);
        self.go(&mut ticket).await?;
        let rejected = if ticket.is(Kind::Rejected) {
            let reason = || "simulated".to_owned();
            let reject = |index| Rejected {
                index,
                reason: reason(),
            };
            (0..entries.len()).map(reject).collect()
        } else {
            self.model.base.change_visibility(entries).await?
        };
        self.come_back(&mut ticket).await?;
        Ok(rejected)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut ticket = self.ticket(Operation::QueueDepth, &self.model.name);
        self.go(&mut ticket).await?;
        let depth = self.model.base.depth().await?;
        self.come_back(&mut ticket).await?;
        Ok(depth)
    }
}
