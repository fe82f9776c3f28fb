//! Receives the events of tasks from a queue that all workers of a cluster share, and passes on what is another's.
//!
//! As with looks, whoever waits takes the turn: where nobody waits nobody receives. An event is a hint that spares time: one
//! that is lost, doubled, late or another's is made good by the next look, so a message need not be kept for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::OwnedMutexGuard;

use super::looks::RECONCILED_WITHIN;
use super::told::task_of;
use super::watch::Watch;
use crate::core::time::Timestamp;
use crate::ports::queue::{Handle, Message};
use crate::ports::{Queue, QueueError};

/// The longest poll of SQS: an event ends it, and an empty one costs a request in 20 s.
const WAIT: Duration = Duration::from_secs(20);

/// A process that dies with an event in its hands has hidden it from the others for so long.
const VISIBILITY: Duration = Duration::from_secs(10);

/// Messages in one answer ("ReceiveMessage", MaxNumberOfMessages).
const MESSAGES_MAX: usize = 10;

/// So many receives find it visible to the next at once, so many more after a second, and so on: of a few workers the right
/// one has it within milliseconds, and one that nobody waits for any more is not passed on in circles.
const RECEIVES_A_SECOND_LATER: u32 = 8;

/// An event that so many receives gave to the wrong process is left to the looks: it took 48 s then.
const RECEIVES_MAX: u32 = 32;

/// Whoever waits for a task has looked at it since an event of this age: nobody needs it any more. By SQS's clock and ours.
const AGE_MAX: Duration = Duration::from_secs(RECONCILED_WITHIN.as_secs() * 2);

/// After a receive that failed; looks go on meanwhile.
const PAUSE: Duration = Duration::from_secs(15);

/// The queue that EventBridge sends to.
pub(super) struct Events {
    queue: Arc<dyn Queue>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Messages that were no events of tasks.
    others: AtomicU64,
}

/// What an event was for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It told of a task that is or was waited for here.
    Ours,
    /// One that stopped, and it does not say how: it is to be looked at.
    Unsaid,
    /// It told of a task that nobody here knows.
    Another,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Deleted,
    /// Others see it after this time.
    PassedOn(Duration),
}

impl Events {
    pub(super) fn new(queue: Arc<dyn Queue>) -> Self {
        Self {
            queue,
            turn: Arc::default(),
            others: AtomicU64::new(0),
        }
    }

    fn note_other(&self, message: &Message) {
        let id = &message.id;
        if self.others.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                message = id,
                "the queue of task events gets others too; they are deleted: give it to the rule that `trommel provision` shows alone"
            );
        } else {
            tracing::debug!(message = id, "no event of a task was deleted");
        }
    }
}

/// Receives once and acts on it; never completes where there is no queue. Dropped, it goes on to its end by itself: what was
/// received would else stay hidden from everybody.
pub(super) async fn listen(watch: &Arc<Watch>) {
    let Some(events) = watch.events() else {
        return std::future::pending().await;
    };
    let turn = events.turn.clone().lock_owned().await;
    let hearing = tokio::spawn(hear(watch.clone(), events.clone(), turn));
    if let Err(error) = hearing.await {
        tracing::warn!(%error, "events of tasks were not heard");
    }
}

async fn hear(watch: Arc<Watch>, events: Arc<Events>, turn: OwnedMutexGuard<()>) {
    if let Err(error) = hear_once(&watch, &events).await {
        watch.note_missed();
        tracing::warn!(%error, "events of tasks cannot be received; the tasks are looked at instead");
        tokio::time::sleep(PAUSE).await;
    }
    drop(turn);
}

async fn hear_once(watch: &Watch, events: &Events) -> Result<(), QueueError> {
    let queue = &events.queue;
    let messages = queue.receive(MESSAGES_MAX, WAIT, VISIBILITY).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = Timestamp(i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX));
    let mut spent: Vec<Handle> = Vec::new();
    let mut passed: Vec<(Handle, Duration)> = Vec::new();
    for message in messages {
        let fate = if let Some(task) = task_of(&message.body) {
            fate(watch.hear(&task), &message, now)
        } else {
            events.note_other(&message);
            Fate::Deleted
        };
        match fate {
            Fate::Deleted => spent.push(message.handle),
            Fate::PassedOn(after) => passed.push((message.handle, after)),
        }
    }
    // An entry that is refused comes again, as any message may.
    if !passed.is_empty() {
        queue.change_visibility(passed).await?;
    }
    if !spent.is_empty() {
        queue.delete(spent).await?;
    }
    Ok(())
}

fn fate(heard: Heard, message: &Message, now: Timestamp) -> Fate {
    match heard {
        Heard::Ours | Heard::Unsaid => Fate::Deleted,
        Heard::Another => {
            let age_ms = now.0.saturating_sub(message.sent.0);
            let is_old = u128::try_from(age_ms).unwrap_or(0) > AGE_MAX.as_millis();
            if is_old || message.receive_count >= RECEIVES_MAX {
                return Fate::Deleted;
            }
            let seconds = message.receive_count / RECEIVES_A_SECOND_LATER;
            Fate::PassedOn(Duration::from_secs(seconds.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(receive_count: u32) -> Message {
        Message {
            id: "m".to_owned(),
            body: String::new(),
            sent: Timestamp(1_000_000),
            handle: Handle("h".to_owned()),
            receive_count,
        }
    }

    #[test]
    fn what_is_anothers_is_passed_on_at_once_then_ever_later_and_then_no_more() {
        let now = Timestamp(1_001_000);
        let after: Vec<Option<u64>> = (1..=RECEIVES_MAX)
            .map(|count| match fate(Heard::Another, &message(count), now) {
                Fate::PassedOn(after) => Some(after.as_secs()),
                Fate::Deleted => None,
            })
            .collect();
        assert_eq!(after[..7], [Some(0); 7]);
        assert_eq!(after[7..15], [Some(1); 8]);
        assert_eq!(after[30..], [Some(3), None]);
        let waited: u64 = after.iter().flatten().sum();
        assert_eq!(waited, 48);
    }

    #[test]
    fn what_is_ours_is_done_with_and_what_is_old_is_nobodys() {
        let now = Timestamp(1_001_000);
        assert_eq!(fate(Heard::Ours, &message(1), now), Fate::Deleted);
        assert_eq!(fate(Heard::Unsaid, &message(1), now), Fate::Deleted);
        let later = Timestamp(1_000_001 + i64::try_from(AGE_MAX.as_millis()).expect("minutes"));
        assert_eq!(fate(Heard::Another, &message(1), later), Fate::Deleted);
        // A clock that is behind SQS's makes nothing old.
        let earlier = Timestamp(0);
        let passed = Fate::PassedOn(Duration::ZERO);
        assert_eq!(fate(Heard::Another, &message(1), earlier), passed);
    }
}
