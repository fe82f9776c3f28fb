//! Which batches, bodies and times a queue takes, and what its handles look like.

use std::time::Duration;

use crate::ports::queue::{Handle, Outgoing, QueueError, QueueProfile};

/// What the in-process queues can do: batches ten times those of SQS, else its bounds ("Message
/// quotas", "ReceiveMessage").
pub(crate) const PROFILE: QueueProfile = QueueProfile {
    batch_max: 100,
    wait_max: Duration::from_secs(20),
    body_bytes_max: 1024 * 1024,
};

/// The longest delay of a message ("SendMessage", DelaySeconds).
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest visibility timeout ("ChangeMessageVisibility").
pub(crate) const VISIBILITY_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Message number and count of deliveries, as `12-1`.
pub(crate) fn parse_handle(handle: &Handle) -> Result<(u64, u32), String> {
    let fields = handle.0.split_once('-');
    fields
        .and_then(|(id, receives)| Some((id.parse().ok()?, receives.parse().ok()?)))
        .ok_or_else(|| format!("{:?} is no handle of this queue", handle.0))
}

/// Why an entry cannot be sent, or nothing if it can.
pub(crate) fn problem(outgoing: &Outgoing) -> Option<String> {
    if outgoing.body.is_empty() {
        return Some("a message may not be empty".to_owned());
    }
    if outgoing.body.len() > PROFILE.body_bytes_max {
        return Some(format!(
            "a message has at most {} bytes, this one {}",
            PROFILE.body_bytes_max,
            outgoing.body.len()
        ));
    }
    if outgoing.delay > DELAY_MAX {
        return Some("a message is delayed by at most 15 minutes".to_owned());
    }
    None
}

/// Refuses a batch that is empty or too large.
pub(crate) fn check_batch(entries: usize) -> Result<(), QueueError> {
    if entries == 0 || entries > PROFILE.batch_max {
        return Err(QueueError::Refused(format!(
            "a batch has 1 to {} entries, this one {entries}",
            PROFILE.batch_max
        )));
    }
    Ok(())
}

/// Refuses a receive outside the bounds.
pub(crate) fn check_receive(
    max: usize,
    wait: Duration,
    visibility: Duration,
) -> Result<(), QueueError> {
    check_batch(max)?;
    if wait > PROFILE.wait_max {
        return Err(QueueError::Refused(
            "a receive waits at most 20 seconds".to_owned(),
        ));
    }
    check_visibility(visibility).map_err(QueueError::Refused)
}

/// Says what is wrong with a visibility timeout.
pub(crate) fn check_visibility(visibility: Duration) -> Result<(), String> {
    if visibility > VISIBILITY_MAX {
        return Err("a message is hidden for at most 12 hours".to_owned());
    }
    Ok(())
}
