//! What a notification says of an object: that it came to be, or went.
//!
//! Decoding messages is `crate::wire::events`' job; whether an event is news is [`super::mark`]'s.

use std::sync::Arc;

use super::item::{Object, Pin};
use super::time::Timestamp;

/// How keys are spelled in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// As AWS does: as in forms in direct events, plain in EventBridge's.
    #[default]
    Aws,
    /// As in forms wherever they come from.
    Form,
    /// Plain wherever they come from.
    Plain,
}

/// What happened to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// It was written: put, post, copied, or completed from parts.
    Created,
    /// An archived object can be read again.
    Restored,
    /// It was removed, or hidden by a delete marker.
    Removed,
    /// A listing showed it, and nobody had taken it in: what `reconcile` sends.
    Listed,
}

impl EventKind {
    /// All, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Created, Self::Restored, Self::Removed, Self::Listed];

    /// As rows hold it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Restored => "restored",
            Self::Removed => "removed",
            Self::Listed => "listed",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One event of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Its bucket.
    pub bucket: Arc<str>,
    /// Its key, as it is: no longer encoded.
    pub key: Arc<[u8]>,
    /// What happened.
    pub kind: EventKind,
    /// Its size; absent on removals, and where a sender leaves it out.
    pub size_bytes: Option<u64>,
    /// Its eTag, in quotes as HTTP has it; absent as the size.
    pub etag: Option<Arc<str>>,
    /// Its version, in a versioned bucket.
    pub version: Option<Arc<str>>,
    /// S3's word on the order of events of one key; comparable within the key alone.
    pub sequencer: Option<Arc<str>>,
    /// When it happened, by S3's clock.
    pub at: Timestamp,
}

impl ObjectEvent {
    /// The object in the state that the event names; none if the event does not know its size or eTag.
    pub fn object(&self) -> Option<Object> {
        Some(Object {
            bucket: Some(self.bucket.clone()),
            key: self.key.clone(),
            size_bytes: self.size_bytes?,
            pin: Pin {
                etag: self.etag.clone()?,
                version: self.version.clone(),
            },
        })
    }

    /// Its key under which a store of several buckets knows it.
    pub fn store_key(&self) -> Vec<u8> {
        store_key(&self.bucket, &self.key)
    }
}

/// `bucket/key`: bucket names hold no slash ("Bucket naming rules"), so that no two objects share one.
pub fn store_key(bucket: &str, key: &[u8]) -> Vec<u8> {
    [bucket.as_bytes(), b"/", key].concat()
}

/// When a listed state counts as written. Listings have whole seconds, events milliseconds: at the end of its second
/// a state is later than all that was written before it, and its own event, should it come after all, is not news.
pub fn end_of_second(at: Timestamp) -> Timestamp {
    Timestamp(
        at.0.div_euclid(1000)
            .saturating_mul(1000)
            .saturating_add(999),
    )
}
