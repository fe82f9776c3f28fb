//! Messages opened: which events each tells of, and what is to be done about them.

use crate::core::event::ObjectEvent;
use crate::core::time::Timestamp;
use crate::ledger::{IntakeCounts, QUARANTINED_BYTES_MAX, Quarantined};
use crate::ports::Message;
use crate::wire::events::{Notification, decode};

use super::Ingest;

/// Some messages, opened. Fates are those of messages, by their index.
pub(super) struct Letters {
    /// How many messages there are.
    pub(super) messages: usize,
    /// Events that may be work, or mark a removal, each with its message's index.
    pub(super) events: Vec<(usize, ObjectEvent)>,
    /// What nobody can read.
    pub(super) junk: Vec<(usize, Quarantined)>,
    /// What was met and needs nothing more.
    pub(super) counts: IntakeCounts,
}

impl Letters {
    pub(super) fn open(messages: &[Message], ingest: &Ingest) -> Self {
        let mut letters = Self {
            messages: messages.len(),
            events: Vec::new(),
            junk: Vec::new(),
            counts: IntakeCounts::default(),
        };
        for (index, message) in messages.iter().enumerate() {
            match decode(&message.body, ingest.events.keys) {
                Ok(Notification::Test) => tracing::info!("S3 tried the notification: it arrives"),
                Ok(Notification::Events(events)) => {
                    for event in events {
                        letters.sort(index, event, ingest);
                    }
                }
                Err(reason) => letters.junk.push((index, quarantined(message, reason))),
            }
        }
        letters
    }

    fn sort(&mut self, index: usize, event: ObjectEvent, ingest: &Ingest) {
        let store_key = event.store_key();
        let is_own = ingest
            .own_places
            .iter()
            .any(|place| store_key.starts_with(place));
        // What a console shows as a folder.
        let is_folder = event.size_bytes == Some(0) && event.key.ends_with(b"/");
        let is_work =
            event.key.starts_with(ingest.events.prefix.as_bytes()) && !is_own && !is_folder;
        if is_work {
            self.events.push((index, event));
        } else {
            self.counts.ignored += 1;
        }
    }
}

fn quarantined(message: &Message, reason: String) -> Quarantined {
    let mut end = message.body.len().min(QUARANTINED_BYTES_MAX);
    while !message.body.is_char_boundary(end) {
        end -= 1;
    }
    Quarantined {
        id: message.id.clone(),
        body: message.body[..end].to_owned(),
        reason,
        at: Timestamp(message.sent.0),
    }
}
