//! The messages of one Lambda event, as a queue: each is received once, and what was deleted by the end has succeeded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::queue::{Depth, Handle, Message, Outgoing, QueueProfile, Rejected};
use crate::ports::{Queue, QueueError};

/// Who waits longer than this wants messages that do not exist yet: none will come.
const SHORT_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    /// Messages that nobody deleted or gave back.
    open: BTreeSet<Handle>,
    given_back: BTreeSet<Handle>,
}

/// See the module. What is sent goes to the queue that the event came from.
pub(super) struct EventQueue {
    state: Mutex<State>,
    behind: Arc<dyn Queue>,
}

impl EventQueue {
    pub(super) fn new(messages: Vec<Message>, behind: Arc<dyn Queue>) -> Arc<Self> {
        let open = messages
            .iter()
            .map(|message| message.handle.clone())
            .collect();
        let state = State {
            waiting: messages.into(),
            open,
            given_back: BTreeSet::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            behind,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every message was deleted or given back.
    pub(super) fn is_decided(&self) -> bool {
        self.state().open.is_empty()
    }

    /// Whether every message was received.
    pub(super) fn is_taken(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// Messages that were not deleted: they must come again.
    pub(super) fn failed(&self) -> BTreeSet<Handle> {
        let state = self.state();
        state.open.union(&state.given_back).cloned().collect()
    }
}

#[async_trait]
impl Queue for EventQueue {
    fn profile(&self) -> QueueProfile {
        self.behind.profile()
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        _visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let messages: Vec<Message> = {
            let mut state = self.state();
            let count = max.min(state.waiting.len());
            state.waiting.drain(..count).collect()
        };
        if messages.is_empty() && wait > SHORT_WAIT {
            return std::future::pending().await;
        }
        Ok(messages)
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        self.behind.send(batch).await
    }

    /// The event's source deletes what did not fail, once the function has answered ("Using Lambda with Amazon SQS").
    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        let mut state = self.state();
        for handle in handles {
            state.open.remove(&handle);
        }
        Ok(Vec::new())
    }

    /// A source keeps its messages hidden by itself; one that is to be seen again soon is given back.
    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        let mut state = self.state();
        for (handle, hidden) in entries {
            if hidden <= super::BACK_WITHIN && state.open.remove(&handle) {
                state.given_back.insert(handle);
            }
        }
        Ok(Vec::new())
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.behind.depth().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::MemoryQueue;
    use crate::adapters::tokio_runtime;
    use crate::core::time::Timestamp;

    fn message(name: &str) -> Message {
        Message {
            id: name.to_owned(),
            body: name.to_owned(),
            sent: Timestamp(0),
            handle: Handle(name.to_owned()),
            receive_count: 1,
        }
    }

    fn of(names: &[&str]) -> Arc<EventQueue> {
        let behind = MemoryQueue::new(tokio_runtime::runtime().clock);
        EventQueue::new(
            names.iter().map(|name| message(name)).collect(),
            Arc::new(behind),
        )
    }

    #[tokio::test]
    async fn each_message_is_received_once_and_what_is_not_deleted_has_failed() {
        let queue = of(&["a", "b", "c"]);
        let hour = Duration::from_secs(3600);
        assert_eq!(
            queue.receive(2, hour, hour).await.map(|got| got.len()),
            Ok(2)
        );
        assert!(!queue.is_taken());
        assert_eq!(
            queue.receive(9, hour, hour).await.map(|got| got.len()),
            Ok(1)
        );
        assert_eq!(queue.receive(9, Duration::ZERO, hour).await, Ok(Vec::new()));
        queue
            .delete(vec![Handle("a".into())])
            .await
            .expect("it takes all");
        queue
            .change_visibility(vec![(Handle("b".into()), hour)])
            .await
            .expect("it takes all");
        assert!(!queue.is_decided());
        queue
            .delete(vec![Handle("b".into())])
            .await
            .expect("it takes all");
        queue
            .change_visibility(vec![(Handle("c".into()), Duration::ZERO)])
            .await
            .expect("it takes all");
        assert!(queue.is_decided() && queue.is_taken());
        assert_eq!(queue.failed(), [Handle("c".into())].into());
    }
}
