//! A lane's queue: one in memory, and a link to it for each node.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trommel::adapters::memory::MemoryQueue;
use trommel::ports::queue::{Handle, Outgoing, QueueProfile, Rejected};
use trommel::ports::{Message, Queue, QueueError};

use super::faults::{self, Faults, LATE_MAX, MessageFate};
use crate::entropy::{Seed, Stream};
use crate::exec::lock;
use crate::node::Node;

/// Most entries of a batch, as on SQS ("Message quotas").
const BATCH_MAX: usize = 10;

/// A queue that nodes share.
pub struct QueueModel {
    base: MemoryQueue,
    name: &'static str,
    seed: Seed,
    faults: Mutex<Faults>,
}

impl QueueModel {
    /// An empty queue. `service` is a node that never crashes.
    pub fn new(name: &'static str, service: &Node, seed: Seed) -> Arc<Self> {
        Arc::new(Self {
            base: MemoryQueue::new(service.runtime().clock),
            name,
            seed,
            faults: Mutex::default(),
        })
    }

    /// The way of one node to it.
    pub fn link(self: &Arc<Self>, node: &Node) -> QueueLink {
        let stream = format!(
            "queue {} of {} {}",
            self.name,
            node.name(),
            node.incarnation()
        );
        QueueLink {
            model: Arc::clone(self),
            node: node.clone(),
            chance: self.seed.stream(&stream),
        }
    }

    /// From now on these faults happen, on all links.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }
}

/// One node's way to the queue.
pub struct QueueLink {
    model: Arc<QueueModel>,
    node: Node,
    chance: Stream,
}

impl QueueLink {
    async fn go(&self) {
        let way = faults::way(&self.chance);
        self.node.runtime().clock.sleep(way).await;
    }

    fn faults(&self) -> Faults {
        *lock(&self.model.faults)
    }

    fn is_lost(&self, of_million: u32) -> Result<(), QueueError> {
        if self.chance.chance(of_million) {
            return Err(QueueError::Unclear("the reply was lost".to_owned()));
        }
        Ok(())
    }

    /// What arrives of a batch.
    fn arriving(&self, batch: Vec<Outgoing>) -> Vec<Outgoing> {
        let mut arriving = Vec::new();
        for message in batch {
            let fate = self.faults().of_message(&self.chance);
            if fate != MessageFate::Sent {
                self.node
                    .trace(&format_args!("hint {}: {fate:?}", message.body));
            }
            match fate {
                MessageFate::Lost => {}
                MessageFate::Sent => arriving.push(message),
                MessageFate::Doubled => arriving.extend([message.clone(), message]),
                MessageFate::Late => arriving.push(Outgoing {
                    delay: message.delay + faults::up_to(LATE_MAX, &self.chance),
                    ..message
                }),
            }
        }
        arriving
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
        self.go().await;
        let messages = self.model.base.receive(max, wait, visibility).await?;
        self.go().await;
        self.is_lost(self.faults().read_lost)?;
        for message in &messages {
            self.node.trace(&format_args!("received {}", message.body));
        }
        Ok(messages)
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        self.go().await;
        let arriving = self.arriving(batch);
        if !arriving.is_empty() {
            self.model.base.send(arriving).await?;
        }
        self.go().await;
        self.is_lost(self.faults().reply_lost)?;
        Ok(Vec::new())
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        self.go().await;
        self.is_lost(self.faults().request_lost)?;
        self.model.base.delete(handles).await
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        self.go().await;
        self.is_lost(self.faults().request_lost)?;
        self.model.base.change_visibility(entries).await
    }
}
