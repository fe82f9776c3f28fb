//! What an item is: an object in a store, or a value from a file, a list, a range.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::event::store_key;

/// One item may be at most this long as JSON; Distributed Map reads items of up to 8 MB
/// ("ItemReader", quotas).
pub const ITEM_BYTES_MAX: usize = 8 << 20;

/// What ties a reading to one state of an object: for S3 its eTag and, in a versioned bucket, the
/// version; for a file its time of change and size, in the same form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pin {
    /// Opaque; equal exactly when the content is taken for unchanged.
    pub etag: Arc<str>,
    /// Only in a versioned bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
}

/// An object named by a listing. Its key is opaque bytes, never a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bucket, where the store holds several: event mode's does.
    pub bucket: Option<Arc<str>>,
    /// The key, relative to the store (a bucket, or the directory that was named as input).
    pub key: Arc<[u8]>,
    /// Its size when it was listed.
    pub size_bytes: u64,
    /// Its state when it was listed.
    pub pin: Pin,
}

/// What a call gets to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An object; the handler reads it.
    Object(Object),
    /// A value, as JSON text.
    Value(Arc<str>),
}

impl Input {
    /// The size that routes it: an object's size; a value always goes to the function lane.
    pub fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::Object(object) => Some(object.size_bytes),
            Self::Value(_) => None,
        }
    }

    /// How many bytes it takes to carry it in a call.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Object(object) => object.key.len() + OBJECT_FIELDS_BYTES,
            Self::Value(json) => json.len(),
        }
    }

    /// As a handler gets it. A key that is not UTF-8 comes as `keyBase64` beside a lossy `key`.
    pub fn to_json(&self) -> String {
        match self {
            Self::Object(object) => object.to_json(),
            Self::Value(json) => json.to_string(),
        }
    }

    /// Short, for people: the key, or the start of the value.
    pub fn label(&self) -> String {
        /// Fits a table's column.
        const CHARS_MAX: usize = 80;
        let text = match self {
            Self::Object(object) => String::from_utf8_lossy(&object.key).into_owned(),
            Self::Value(json) => json.to_string(),
        };
        match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// What an object's JSON form takes beside its key, roughly.
const OBJECT_FIELDS_BYTES: usize = 100;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ObjectJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<Arc<str>>,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    size: u64,
    etag: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version_id: Option<Arc<str>>,
}

impl Object {
    /// Its key in the store that it is read from: `bucket/key` where that holds several buckets.
    pub fn store_key(&self) -> Cow<'_, [u8]> {
        match &self.bucket {
            Some(bucket) => Cow::Owned(store_key(bucket, &self.key)),
            None => Cow::Borrowed(&self.key),
        }
    }

    /// The JSON form that handlers get and frozen parts keep.
    pub fn to_json(&self) -> String {
        let (key, key_base64) = match std::str::from_utf8(&self.key) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (
                String::from_utf8_lossy(&self.key).into_owned(),
                Some(base64::engine::general_purpose::STANDARD.encode(&self.key)),
            ),
        };
        let json = ObjectJson {
            bucket: self.bucket.clone(),
            key,
            key_base64,
            size: self.size_bytes,
            etag: self.pin.etag.clone(),
            version_id: self.pin.version.clone(),
        };
        serde_json::to_string(&json).expect("strings and numbers always serialise")
    }

    /// Reads [`Object::to_json`] back.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json: ObjectJson = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let key = match json.key_base64 {
            Some(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(|e| format!("keyBase64: {e}"))?,
            None => json.key.into_bytes(),
        };
        Ok(Self {
            bucket: json.bucket,
            key: key.into(),
            size_bytes: json.size,
            pin: Pin {
                etag: json.etag,
                version: json.version_id,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_object_of_any_key_reads_back(key in proptest::collection::vec(any::<u8>(), 0..64), size: u64) {
            let pin = Pin { etag: "\"abc\"".into(), version: None };
            let object = Object { bucket: None, key: key.into(), size_bytes: size, pin };
            prop_assert_eq!(Object::from_json(&object.to_json()), Ok(object));
        }
    }

    #[test]
    fn a_label_is_cut_to_a_column() {
        let input = Input::Value(format!("\"{}\"", "é".repeat(200)).into());
        assert_eq!(input.label().chars().count(), 81);
    }
}
