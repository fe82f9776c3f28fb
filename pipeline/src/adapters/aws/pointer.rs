//! Events that are too long to be sent: they go into the scratch place, and a pointer goes instead.
//!
//! What has been put stays until the scratch place is cleared, as frozen parts do: a call that nobody waits for any more
//! may still read it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::core::class::{Class, Failure};
use crate::ports::executor::{Call, CallItem};
use crate::ports::{Objects, ObjectsError};

/// A scratch place in S3, as one run uses it.
#[derive(Clone)]
pub struct Pointers {
    store: Arc<dyn Objects>,
    bucket: String,
    prefix: Vec<u8>,
}

impl Pointers {
    /// `store` is the bucket of that name; everything of the run lies under `prefix`.
    pub fn new(store: Arc<dyn Objects>, bucket: impl Into<String>, prefix: Vec<u8>) -> Self {
        Self {
            store,
            bucket: bucket.into(),
            prefix,
        }
    }

    /// Puts an event of these items there; answers what is sent instead. To put it again is harmless: the same calls have
    /// the same names and the same events.
    ///
    /// # Errors
    /// The store does not take it.
    pub(super) async fn put(
        &self,
        call: &Call,
        items: &[&CallItem],
        event: String,
    ) -> Result<String, Failure> {
        let mut key = self.prefix.clone();
        key.extend_from_slice(name(call, items).as_bytes());
        let bytes = event.len();
        let put = self.store.put(&key, Bytes::from(event)).await;
        put.map_err(|error| not_put(&error))?;
        let key = String::from_utf8_lossy(&key);
        let pointer = json!({ "bucket": self.bucket, "key": key, "bytes": bytes });
        Ok(json!({ "InputPointer": pointer }).to_string())
    }
}

/// The name of a call's event. A batch is halved within one attempt, so its length is part of the name; another lease may be
/// at the same attempt, so the epoch is.
fn name(call: &Call, items: &[&CallItem]) -> String {
    let Some(first) = items.first() else {
        return format!("events/{}.json", call.run);
    };
    let CallItem {
        id,
        attempt,
        epoch,
        generation,
        ..
    } = first;
    let count = items.len();
    format!("events/{id}-n{count}-g{generation}-a{attempt}-e{epoch}.json")
}

fn not_put(error: &ObjectsError) -> Failure {
    let cause = format!("its event is too long to be sent, and could not be put aside: {error}");
    Failure::new(Class::Unavailable, cause)
}

#[cfg(test)]
mod tests;
