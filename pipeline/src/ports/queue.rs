//! `Queue`: what Trommel uses of SQS. At least once, in any order.

use std::time::Duration;

use async_trait::async_trait;

use crate::core::time::Timestamp;

/// Names one delivery of one message. A new delivery has a new handle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub String);

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names the message: the same in every delivery.
    pub id: String,
    /// What was sent.
    pub body: String,
    /// When, by the service's clock.
    pub sent: Timestamp,
    /// For delete and change of visibility.
    pub handle: Handle,
    /// How often it was delivered, this time included; approximate, never an attempt counter.
    pub receive_count: u32,
}

/// One message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its text, not empty.
    pub body: String,
    /// It is hidden for so long first; at most 15 minutes ("SendMessage", DelaySeconds).
    pub delay: Duration,
}

impl Outgoing {
    /// A message that can be received at once.
    pub fn now(body: impl Into<String>) -> Self {
        Self {
            body: body.into(),
            delay: Duration::ZERO,
        }
    }
}

/// One entry of a batch that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// About how many messages a queue holds; SQS's figures may be a minute old ("GetQueueAttributes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// That can be received now.
    pub ready: u64,
    /// Hidden: received and not deleted, or delayed.
    pub hidden: u64,
}

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueProfile {
    /// Most entries in a batch and most messages in a receive: 10 on SQS ("Message quotas").
    pub batch_max: usize,
    /// The longest wait of a receive: 20 s on SQS ("ReceiveMessage", WaitTimeSeconds).
    pub wait_max: Duration,
    /// The largest body; 1 MiB on SQS ("Message quotas").
    pub body_bytes_max: usize,
}

/// Why a call failed, by what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Too fast. Try again, later.
    #[error("throttled: {0}")]
    Throttled(String),
    /// It may or may not have happened. Sending again may double a message, which is allowed.
    #[error("no answer: {0}")]
    Unclear(String),
    /// It will not work by trying again: access, a missing queue, a bound.
    #[error("{0}")]
    Refused(String),
}

/// One queue. Implementations: SQLite, in process, SQS, the simulator's model.
#[async_trait]
pub trait Queue: Send + Sync {
    /// What this endpoint can do. Does not change.
    fn profile(&self) -> QueueProfile;

    /// Up to `max` messages, hidden from others for `visibility` (0 s to 12 h) from now. Waits up to
    /// `wait` for the first; an empty answer is no proof that the queue is empty. Dropping the future
    /// loses no message for longer than its visibility.
    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError>;

    /// Sends a batch; answers the entries that were not sent.
    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError>;

    /// Deletes the messages of these deliveries; answers the entries that were certainly not done. Success proves
    /// nothing: with the handle of a former delivery the message may stay ("DeleteMessage").
    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError>;

    /// Hides the messages of these deliveries for so long from now (zero: visible at once); answers the entries that were
    /// not done.
    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError>;

    /// About how many messages there are. Never a reason to believe that one is or is not there.
    async fn depth(&self) -> Result<Depth, QueueError>;
}
