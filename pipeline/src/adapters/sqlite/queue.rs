//! `Queue` in the ledger's file: outlives the process, and is shared with others that open the file.
//!
//! A send in this process wakes its receivers at once; one from another process, or a message whose
//! time has come, is noticed by looking again.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot};

use super::error::GONE;
use super::messages::{Asked, Take};
use super::table::READ_ONLY;
use super::writer::Request;
use crate::adapters::bounds::queue as bounds;
use crate::ports::queue::{
    Depth, Handle, Message, Outgoing, Queue, QueueError, QueueProfile, Rejected,
};
use crate::ports::runtime::Clock;

/// How often a waiting receive looks again: ten empty looks a second cost next to nothing, and a
/// message from another process is late by no more than a person notices.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One queue of the ledger.
#[derive(Clone)]
pub struct SqliteQueue {
    pub(super) name: String,
    /// `None`: opened for reading.
    pub(super) writer: Option<mpsc::Sender<Request>>,
    pub(super) clock: Arc<dyn Clock>,
    /// Shared by all that receive from this queue in this process.
    pub(super) arrived: Arc<Notify>,
}

impl fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteQueue")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl SqliteQueue {
    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, QueueError>>) -> Request,
    ) -> Result<T, QueueError> {
        let Some(writer) = &self.writer else {
            return Err(QueueError::Refused(READ_ONLY.to_owned()));
        };
        let (reply, received) = oneshot::channel();
        if writer.send(request(reply)).await.is_err() {
            return Err(QueueError::Refused(GONE.to_owned()));
        }
        match received.await {
            Ok(result) => result,
            Err(_) => Err(QueueError::Unclear(GONE.to_owned())),
        }
    }

    async fn take(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        let now = self.clock.now();
        let take = Take {
            max,
            now,
            until: now.after(visibility),
        };
        self.request(|reply| Request::Take(self.name.clone(), take, reply))
            .await
    }

    async fn ask(&self, asked: Asked) -> Result<Vec<Rejected>, QueueError> {
        self.request(|reply| Request::Ask(self.name.clone(), asked, reply))
            .await
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    fn profile(&self) -> QueueProfile {
        bounds::PROFILE
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        bounds::check_receive(max, wait, visibility)?;
        let deadline = self.clock.tick() + wait;
        loop {
            // Enlisted before looking, or a send in between would go unheard.
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let messages = self.take(max, visibility).await?;
            let now = self.clock.tick();
            if !messages.is_empty() || now >= deadline {
                return Ok(messages);
            }
            tokio::select! {
                biased;
                () = arrived => {}
                () = self.clock.sleep_until(deadline.min(now + LOOK_EVERY)) => {}
            }
        }
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(batch.len())?;
        let now = self.clock.now();
        let mut rejected = Vec::new();
        let mut entries = Vec::with_capacity(batch.len());
        for (index, outgoing) in batch.into_iter().enumerate() {
            match bounds::problem(&outgoing) {
                Some(reason) => rejected.push(Rejected { index, reason }),
                None => entries.push((outgoing.body, now.after(outgoing.delay))),
            }
        }
        if !entries.is_empty() {
            self.ask(Asked::Send(entries, now)).await?;
            self.arrived.notify_waiters();
        }
        Ok(rejected)
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(handles.len())?;
        self.ask(Asked::Delete(handles)).await
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(entries.len())?;
        let now = self.clock.now();
        let mut rejected = Vec::new();
        let mut changes = Vec::with_capacity(entries.len());
        for (index, (handle, visibility)) in entries.into_iter().enumerate() {
            match bounds::check_visibility(visibility) {
                Ok(()) => changes.push((index, handle, now.after(visibility))),
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        rejected.extend(self.ask(Asked::Change(changes)).await?);
        rejected.sort_unstable_by_key(|entry| entry.index);
        self.arrived.notify_waiters();
        Ok(rejected)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let now = self.clock.now();
        self.request(|reply| Request::Depth(self.name.clone(), now, reply))
            .await
    }
}
