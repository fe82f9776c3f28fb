//! `Queue` in memory: carries the lane hints of an embedded run, so it must cost next to nothing.
//!
//! Messages that were never delayed or hidden come out in the order they went in. Its bounds are
//! SQS's, except that batches may be larger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::lock;
use crate::adapters::bounds::queue as bounds;
use crate::core::time::{Tick, Timestamp};
use crate::ports::queue::{
    Depth, Handle, Message, Outgoing, Queue, QueueError, QueueProfile, Rejected,
};
use crate::ports::runtime::Clock;

/// A queue in memory. A message costs its body and about 200 bytes, until it is deleted.
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// One permit for "something may be ready"; all waiters for "something is due earlier".
    arrived: Notify,
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("MemoryQueue")
            .field("messages", &state.messages.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// The number of the next message; never used twice, so that an old handle stays dead.
    next: u64,
    messages: BTreeMap<u64, Stored>,
    /// What can be received, in order. May name deleted messages: they are passed over.
    ready: VecDeque<u64>,
    /// What becomes ready later, and when.
    hidden: BTreeSet<(Tick, u64)>,
}

struct Stored {
    body: String,
    sent: Timestamp,
    receives: u32,
    /// `None` while it is in `ready`.
    due: Option<Tick>,
}

impl State {
    /// Hides a message until `due`, or makes it ready if that is no later than `now`.
    fn place(&mut self, id: u64, due: Tick, now: Tick) {
        let Some(stored) = self.messages.get_mut(&id) else {
            return;
        };
        let hide = due > now;
        match stored.due {
            Some(former) => {
                self.hidden.remove(&(former, id));
            }
            // It stands in `ready` already, and may stay there.
            None if !hide => return,
            None => self.ready.retain(|ready| *ready != id),
        }
        if hide {
            stored.due = Some(due);
            self.hidden.insert((due, id));
        } else {
            stored.due = None;
            self.ready.push_back(id);
        }
    }

    fn ripen(&mut self, now: Tick) {
        while let Some((due, id)) = self.hidden.first().copied() {
            if due > now {
                return;
            }
            self.place(id, due, now);
        }
    }

    fn take(&mut self, max: usize, hidden_until: Tick, now: Tick) -> Vec<Message> {
        self.ripen(now);
        let mut taken = Vec::with_capacity(max.min(self.ready.len()));
        while taken.len() < max {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(stored) = self.messages.get_mut(&id) else {
                continue;
            };
            stored.receives += 1;
            taken.push(Message {
                id: id.to_string(),
                body: stored.body.clone(),
                sent: stored.sent,
                handle: Handle(format!("{id}-{}", stored.receives)),
                receive_count: stored.receives,
            });
            stored.due = Some(hidden_until);
            self.hidden.insert((hidden_until, id));
        }
        taken
    }

    /// The message of a handle, if it names the latest delivery of a message that is still there.
    fn current(&self, handle: &Handle) -> Result<Option<u64>, String> {
        let (id, receives) = bounds::parse_handle(handle)?;
        let stored = self.messages.get(&id);
        Ok(stored.filter(|s| s.receives == receives).map(|_| id))
    }

    fn delete(&mut self, id: u64) {
        let due = self.messages.remove(&id).and_then(|stored| stored.due);
        if let Some(due) = due {
            self.hidden.remove(&(due, id));
        }
    }

    fn earliest(&self) -> Option<Tick> {
        self.hidden.first().map(|(due, _)| *due)
    }
}

impl MemoryQueue {
    /// An empty queue; `clock` measures delays, visibility and waits.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Takes what is ready; else says when something will be.
    fn try_receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, Option<Tick>> {
        let now = self.clock.tick();
        let mut state = lock(&self.state);
        let before = state.earliest();
        let taken = state.take(max, now + visibility, now);
        if taken.is_empty() {
            return Err(state.earliest());
        }
        let sooner = is_sooner(state.earliest(), before);
        let more = !state.ready.is_empty();
        drop(state);
        self.tell(sooner, more);
        Ok(taken)
    }

    /// Waiters sleep until the earliest message they knew of; one that is due sooner, or ready, must
    /// wake them.
    fn tell(&self, sooner: bool, ready: bool) {
        if sooner {
            self.arrived.notify_waiters();
        }
        if ready {
            self.arrived.notify_one();
        }
    }
}

fn is_sooner(now: Option<Tick>, before: Option<Tick>) -> bool {
    match (now, before) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(now), Some(before)) => now < before,
    }
}

#[async_trait]
impl Queue for MemoryQueue {
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
            let due = match self.try_receive(max, visibility) {
                Ok(taken) => return Ok(taken),
                Err(due) => due,
            };
            if self.clock.tick() >= deadline {
                return Ok(Vec::new());
            }
            let until = due.map_or(deadline, |due| due.min(deadline));
            tokio::select! {
                biased;
                () = arrived => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(batch.len())?;
        let (now, sent) = (self.clock.tick(), self.clock.now());
        let mut rejected = Vec::new();
        let mut state = lock(&self.state);
        let before = state.earliest();
        for (index, outgoing) in batch.into_iter().enumerate() {
            if let Some(reason) = bounds::problem(&outgoing) {
                rejected.push(Rejected { index, reason });
                continue;
            }
            let id = state.next;
            state.next += 1;
            let due = (!outgoing.delay.is_zero()).then_some(now + outgoing.delay);
            state.messages.insert(
                id,
                Stored {
                    body: outgoing.body,
                    sent,
                    receives: 0,
                    due,
                },
            );
            match due {
                Some(due) => {
                    state.hidden.insert((due, id));
                }
                None => state.ready.push_back(id),
            }
        }
        let sooner = is_sooner(state.earliest(), before);
        let ready = !state.ready.is_empty();
        drop(state);
        self.tell(sooner, ready);
        Ok(rejected)
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(handles.len())?;
        let mut rejected = Vec::new();
        let mut state = lock(&self.state);
        for (index, handle) in handles.iter().enumerate() {
            match state.current(handle) {
                Ok(Some(id)) => state.delete(id),
                Ok(None) => {}
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        Ok(rejected)
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        bounds::check_batch(entries.len())?;
        let now = self.clock.tick();
        let mut rejected = Vec::new();
        let mut state = lock(&self.state);
        let before = state.earliest();
        for (index, (handle, visibility)) in entries.into_iter().enumerate() {
            let found = bounds::check_visibility(visibility).and_then(|()| state.current(&handle));
            match found {
                Ok(Some(id)) => state.place(id, now + visibility, now),
                Ok(None) => rejected.push(Rejected {
                    index,
                    reason: "the message is gone, or was delivered again".to_owned(),
                }),
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        let sooner = is_sooner(state.earliest(), before);
        let ready = !state.ready.is_empty();
        drop(state);
        self.tell(sooner, ready);
        Ok(rejected)
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut state = lock(&self.state);
        state.ripen(self.clock.tick());
        let hidden = state.hidden.len() as u64;
        Ok(Depth {
            ready: state.messages.len() as u64 - hidden,
            hidden,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::core::time::Timestamp;
    use crate::ports::runtime::BoxFuture;

    /// Moved by hand; nobody sleeps.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }

        fn tick(&self) -> Tick {
            Tick(self.0.load(Ordering::Relaxed))
        }

        fn sleep_until(&self, _: Tick) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    async fn bodies(queue: &MemoryQueue, visibility: Duration) -> Vec<String> {
        let received = queue.receive(100, Duration::ZERO, visibility).await;
        let messages = received.expect("received").into_iter();
        messages.map(|message| message.body).collect()
    }

    #[tokio::test]
    async fn what_was_never_hidden_comes_in_the_order_it_went() {
        let clock = Arc::new(Hand::default());
        let queue = MemoryQueue::new(clock.clone());
        let delayed = |body: &str, seconds| Outgoing {
            body: body.to_owned(),
            delay: Duration::from_secs(seconds),
        };
        let batch = vec![
            delayed("a", 0),
            delayed("z", 2),
            delayed("y", 1),
            delayed("b", 0),
        ];
        assert_eq!(queue.send(batch).await, Ok(Vec::new()));
        assert_eq!(bodies(&queue, Duration::from_secs(9)).await, ["a", "b"]);
        clock.0.store(3_000_000_000, Ordering::Relaxed);
        assert_eq!(bodies(&queue, Duration::from_secs(9)).await, ["y", "z"]);
    }

    #[tokio::test]
    async fn an_old_handle_deletes_nothing_and_nothing_is_left_of_the_deleted() {
        let queue = MemoryQueue::new(Arc::new(Hand::default()));
        queue.send(vec![Outgoing::now("m")]).await.expect("sent");
        let receive = || queue.receive(1, Duration::ZERO, Duration::ZERO);
        let first = receive().await.expect("received").remove(0);
        let second = receive().await.expect("received").remove(0);
        assert_eq!(queue.delete(vec![first.handle]).await, Ok(Vec::new()));
        assert_eq!(lock(&queue.state).messages.len(), 1);
        assert_eq!(queue.delete(vec![second.handle]).await, Ok(Vec::new()));
        assert_eq!(receive().await, Ok(Vec::new()));
        let state = lock(&queue.state);
        assert!(state.messages.is_empty() && state.hidden.is_empty() && state.ready.is_empty());
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_sent_is_answered_and_the_others_are() {
        let queue = MemoryQueue::new(Arc::new(Hand::default()));
        let batch = vec![Outgoing::now(""), Outgoing::now("fine")];
        let rejected = queue.send(batch).await.expect("sent");
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].index, 0);
        assert_eq!(bodies(&queue, Duration::ZERO).await, ["fine"]);
    }
}
