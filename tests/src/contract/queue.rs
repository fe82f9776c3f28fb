//! The contract of [`Queue`]. Times are whole seconds, as SQS has them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
use trommel::ports::queue::{Handle, Message, Outgoing, Queue, QueueError};
use trommel::ports::runtime::Clock;

/// How long a check waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// So much earlier than asked a queue may show a message: services round to their own clocks.
const SLACK: Duration = Duration::from_millis(250);

/// A visibility that no check outlasts.
const LONG: Duration = Duration::from_mins(2);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn send(queue: &dyn Queue, bodies: &[String]) {
    for batch in bodies.chunks(queue.profile().batch_max) {
        let batch = batch.iter().map(Outgoing::now).collect();
        let rejected = queue.send(batch).await.expect("sent");
        assert_eq!(rejected, []);
    }
}

async fn send_one(queue: &dyn Queue, body: &str) {
    send(queue, &[body.to_owned()]).await;
}

/// The next message, for which this waits.
async fn next(queue: &dyn Queue, clock: &dyn Clock, visibility: Duration) -> Message {
    let deadline = clock.tick() + PATIENCE;
    let wait = seconds(5).min(queue.profile().wait_max);
    while clock.tick() < deadline {
        let mut messages = queue.receive(1, wait, visibility).await.expect("received");
        assert!(messages.len() <= 1);
        if let Some(message) = messages.pop() {
            return message;
        }
    }
    panic!("no message in {PATIENCE:?}");
}

async fn assert_silent(queue: &dyn Queue, wait: Duration) {
    let messages = queue.receive(1, wait, LONG).await.expect("received");
    assert_eq!(messages, []);
}

async fn delete(queue: &dyn Queue, handle: Handle) {
    let rejected = queue.delete(vec![handle]).await.expect("answered");
    assert_eq!(rejected, []);
}

/// Every body, as it was, with the count of its first delivery.
pub async fn what_is_sent_is_received(queue: &dyn Queue, clock: &dyn Clock) {
    let mut bodies: BTreeSet<String> = (0..25).map(|n| format!("message {n}")).collect();
    bodies.insert("{\"json\": \"é 漢 🥁 \\u0000 <&>\"}\n\ttab".to_owned());
    send(queue, &bodies.iter().cloned().collect::<Vec<_>>()).await;
    while !bodies.is_empty() {
        let message = next(queue, clock, LONG).await;
        assert!(message.receive_count >= 1);
        // A second delivery of one that was seen is allowed; one of a stranger is not.
        let seen = message.receive_count > 1;
        assert!(bodies.remove(&message.body) || seen, "{message:?}");
        delete(queue, message.handle).await;
    }
}

/// The profile's bound on a body is a promise.
pub async fn the_largest_body_arrives(queue: &dyn Queue, clock: &dyn Clock) {
    let body = "x".repeat(queue.profile().body_bytes_max);
    send_one(queue, &body).await;
    assert!(next(queue, clock, LONG).await.body == body);
}

/// Hidden for its visibility, then delivered again with a new handle and a greater count.
pub async fn a_received_message_is_hidden_and_comes_again(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "again").await;
    let first = next(queue, clock, seconds(2)).await;
    let received = clock.tick();
    assert_silent(queue, Duration::ZERO).await;
    let second = next(queue, clock, LONG).await;
    let hidden = clock.tick().since(received);
    assert!(hidden + SLACK >= seconds(2), "hidden for {hidden:?}");
    assert_eq!(second.body, first.body);
    assert_ne!(second.handle, first.handle);
    assert!(second.receive_count > first.receive_count);
}

/// A message has one name in all its deliveries, and says when it was sent.
pub async fn a_message_keeps_its_name_and_time(queue: &dyn Queue, clock: &dyn Clock) {
    let sent_after = clock.now();
    send_one(queue, "named").await;
    let first = next(queue, clock, seconds(1)).await;
    let second = next(queue, clock, LONG).await;
    assert!(!first.id.is_empty());
    assert_eq!(
        (&first.id, &first.body, first.sent),
        (&second.id, &second.body, second.sent)
    );
    // A service's clock is its own; a minute is more than any is off.
    let age = first.sent.since(sent_after) + sent_after.since(first.sent);
    assert!(age < Duration::from_mins(1), "sent at {}", first.sent);
    delete(queue, second.handle).await;
    send_one(queue, "other").await;
    let other = next(queue, clock, LONG).await;
    assert_ne!(other.id, first.id);
}

/// A depth follows what is sent, received and deleted; services may be late with it.
pub async fn a_depth_is_told(queue: &dyn Queue, clock: &dyn Clock) {
    let told = async |ready: u64, hidden: u64| {
        let deadline = clock.tick() + PATIENCE;
        loop {
            let depth = queue.depth().await.expect("answered");
            if (depth.ready, depth.hidden) == (ready, hidden) {
                return;
            }
            assert!(
                clock.tick() < deadline,
                "{depth:?}, not {ready} and {hidden}"
            );
            clock.sleep(SLACK).await;
        }
    };
    told(0, 0).await;
    send(queue, &["one".to_owned(), "two".to_owned()]).await;
    told(2, 0).await;
    let message = next(queue, clock, LONG).await;
    told(1, 1).await;
    delete(queue, message.handle).await;
    told(1, 0).await;
}

/// A delete by the handle of the only delivery.
pub async fn a_deleted_message_stays_away(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "gone").await;
    let message = next(queue, clock, seconds(1)).await;
    delete(queue, message.handle.clone()).await;
    assert_silent(queue, seconds(3)).await;
    delete(queue, message.handle).await;
}

/// With the handle of a former delivery a delete succeeds and proves nothing.
pub async fn a_former_handle_may_be_deleted_to_no_effect(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "twice").await;
    let first = next(queue, clock, Duration::ZERO).await;
    let second = next(queue, clock, LONG).await;
    assert_ne!(first.handle, second.handle);
    delete(queue, first.handle).await;
    delete(queue, second.handle).await;
}

/// Delay: hidden first, then as any other.
pub async fn a_delayed_message_comes_late(queue: &dyn Queue, clock: &dyn Clock) {
    let sent = clock.tick();
    let outgoing = Outgoing {
        body: "late".to_owned(),
        delay: seconds(2),
    };
    assert_eq!(queue.send(vec![outgoing]).await.expect("sent"), []);
    assert_silent(queue, Duration::ZERO).await;
    let message = next(queue, clock, LONG).await;
    let waited = clock.tick().since(sent);
    assert!(waited + SLACK >= seconds(2), "came after {waited:?}");
    assert_eq!(message.body, "late");
}

/// A receive that waits ends with the first message, not with its time.
pub async fn a_waiting_receive_hears_of_a_send(queue: &dyn Queue, clock: &dyn Clock) {
    let wait = queue.profile().wait_max;
    let begun = clock.tick();
    let sending = async {
        clock.sleep(seconds(1)).await;
        send_one(queue, "wake up").await;
    };
    let (received, ()) = join(queue.receive(1, wait, LONG), sending).await;
    assert_eq!(received.expect("received").len(), 1);
    let waited = clock.tick().since(begun);
    assert!(waited < wait, "waited {waited:?}");
}

/// Two wait for one message: the second has it when the first has hidden it for long enough.
pub async fn a_waiting_receive_sees_a_message_whose_time_has_come(
    queue: &dyn Queue,
    clock: &dyn Clock,
) {
    let wait = queue.profile().wait_max;
    let begun = clock.tick();
    let sending = async {
        clock.sleep(seconds(1)).await;
        send_one(queue, "shared").await;
    };
    let receive = || queue.receive(1, wait, seconds(3));
    let (received, ()) = join(join(receive(), receive()), sending).await;
    for messages in [received.0, received.1] {
        assert_eq!(messages.expect("received").len(), 1);
    }
    let waited = clock.tick().since(begun);
    assert!(waited < wait, "waited {waited:?}");
    assert!(waited + SLACK >= seconds(4), "waited {waited:?}");
}

/// An empty queue gives an empty answer, in about the time that was asked for at most.
pub async fn an_empty_receive_ends(queue: &dyn Queue, clock: &dyn Clock) {
    for wait in [Duration::ZERO, seconds(1)] {
        let begun = clock.tick();
        assert_silent(queue, wait).await;
        let waited = clock.tick().since(begun);
        assert!(waited < wait + seconds(5), "waited {waited:?}");
    }
}

/// Zero shows a message at once; more hides it for so long from now.
pub async fn visibility_is_ended_and_prolonged(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "visible").await;
    let message = next(queue, clock, LONG).await;
    let given_back = vec![(message.handle, Duration::ZERO)];
    assert_eq!(queue.change_visibility(given_back).await, Ok(vec![]));
    let message = next(queue, clock, seconds(2)).await;
    let kept = vec![(message.handle, LONG)];
    assert_eq!(queue.change_visibility(kept).await, Ok(vec![]));
    assert_silent(queue, seconds(4)).await;
}

/// The entries of a batch that were not done are answered by index; the others are done.
pub async fn what_was_not_done_is_answered(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "one").await;
    let message = next(queue, clock, seconds(2)).await;
    let junk = || Handle("no handle of any queue".to_owned());
    let changes = vec![(junk(), seconds(60)), (message.handle.clone(), seconds(2))];
    let rejected = queue.change_visibility(changes).await.expect("answered");
    let indexes: Vec<usize> = rejected.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [0]);
    let deletes = vec![message.handle, junk()];
    let rejected = queue.delete(deletes).await.expect("answered");
    let indexes: Vec<usize> = rejected.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [1]);
    assert_silent(queue, seconds(3)).await;
}

/// The profile's bound on a batch.
pub async fn a_batch_is_bounded(queue: &dyn Queue, _: &dyn Clock) {
    let too_many = queue.profile().batch_max + 1;
    let batch = vec![Outgoing::now("many"); too_many];
    let refused = queue.send(batch).await;
    assert!(
        matches!(refused, Err(QueueError::Refused(_))),
        "{refused:?}"
    );
    let refused = queue.receive(too_many, Duration::ZERO, LONG).await;
    assert!(
        matches!(refused, Err(QueueError::Refused(_))),
        "{refused:?}"
    );
    assert_silent(queue, Duration::ZERO).await;
}

/// Four at one queue: together they get all there is.
pub async fn competing_receivers_get_everything(queue: &dyn Queue, clock: &dyn Clock) {
    let mut bodies: BTreeSet<String> = (0..60).map(|n| format!("message {n}")).collect();
    send(queue, &bodies.iter().cloned().collect::<Vec<_>>()).await;
    let deadline = clock.tick() + PATIENCE;
    while !bodies.is_empty() {
        assert!(clock.tick() < deadline, "missing: {bodies:?}");
        let receives = (0..4).map(|_| queue.receive(10, seconds(1), LONG));
        for received in join_all(receives).await {
            for message in received.expect("received") {
                bodies.remove(&message.body);
                delete(queue, message.handle).await;
            }
        }
    }
}

/// Whatever a dropped receive had taken shows again after its visibility.
pub async fn a_receive_that_is_dropped_loses_nothing(queue: &dyn Queue, clock: &dyn Clock) {
    send_one(queue, "kept").await;
    for patience in [
        Duration::ZERO,
        Duration::from_millis(1),
        Duration::from_millis(5),
    ] {
        let receive = Box::pin(queue.receive(1, seconds(1), seconds(1)));
        match select(receive, clock.sleep(patience)).await {
            Either::Left((received, _)) => drop(received.expect("received")),
            Either::Right(((), unfinished)) => drop(unfinished),
        }
    }
    assert_eq!(next(queue, clock, LONG).await.body, "kept");
}
