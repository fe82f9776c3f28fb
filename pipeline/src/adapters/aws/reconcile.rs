//! A walk over a bucket for `reconcile`: what was written when, which the port's listing does not tell.
//!
//! In a bucket that has versions, the current one of each key is shown with its id, as its mark is the version's.

use std::sync::Arc;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{BucketVersioningStatus, EncodingType};

use super::classify::Fault;
use super::config::Clients;
use crate::core::event::{self, EventKind, ObjectEvent};
use crate::core::form::decoded;
use crate::core::time::Timestamp;
use crate::ports::ObjectsError;

/// Where the next page begins.
enum Next {
    /// At the beginning.
    Start,
    /// Behind this token of a listing of objects.
    Token(String),
    /// Behind this key and version.
    Version(Option<String>, Option<String>),
    /// There is none.
    End,
}

/// A walk, a page of up to 1,000 keys at a time.
pub struct Walk {
    clients: Clients,
    bucket: Arc<str>,
    prefix: String,
    has_versions: bool,
    next: Next,
    last_key: Arc<[u8]>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Walk {
    /// Asks whether the bucket has versions, and begins at its first key with this prefix.
    ///
    /// # Errors
    /// The bucket is not there, or cannot be asked.
    pub async fn open(clients: &Clients, bucket: &str, prefix: &str) -> Result<Self, ObjectsError> {
        let answer = clients
            .s3
            .get_bucket_versioning()
            .bucket(bucket)
            .send()
            .await;
        let answer = answer.map_err(|error| failed(bucket, Fault::of(&error)))?;
        Ok(Self {
            clients: clients.clone(),
            bucket: bucket.into(),
            prefix: prefix.to_owned(),
            // Where they are suspended, what is written now has none that events would name.
            has_versions: answer.status == Some(BucketVersioningStatus::Enabled),
            next: Next::Start,
            last_key: Arc::default(),
        })
    }

    /// The next page, each object as the event of its writing; none at the end.
    ///
    /// # Errors
    /// The bucket cannot be listed.
    pub async fn page(&mut self) -> Result<Option<Vec<ObjectEvent>>, ObjectsError> {
        if matches!(self.next, Next::End) {
            return Ok(None);
        }
        let objects = if self.has_versions {
            self.versions().await?
        } else {
            self.objects().await?
        };
        // A key is shown once, also where an endpoint begins a page with the marker it was given (MiniStack does).
        let is_first = |event: &ObjectEvent| event.key != self.last_key;
        let objects: Vec<ObjectEvent> = objects.into_iter().filter(is_first).collect();
        if let Some(last) = objects.last() {
            self.last_key = last.key.clone();
        }
        Ok(Some(objects))
    }

    fn encoding(&self) -> Option<EncodingType> {
        let encoded = self.clients.endpoint.encoded_listings;
        encoded.then_some(EncodingType::Url)
    }

    async fn objects(&mut self) -> Result<Vec<ObjectEvent>, ObjectsError> {
        let token = match &self.next {
            Next::Token(token) => Some(token.clone()),
            Next::Start | Next::Version(..) | Next::End => None,
        };
        let answer = self
            .clients
            .s3
            .list_objects_v2()
            .bucket(&*self.bucket)
            .prefix(&self.prefix)
            .set_continuation_token(token)
            .set_encoding_type(self.encoding())
            .send()
            .await
            .map_err(|error| failed(&self.bucket, Fault::of(&error)))?;
        let encoded = answer.encoding_type == Some(EncodingType::Url);
        self.next = match answer.next_continuation_token {
            Some(token) if answer.is_truncated == Some(true) => Next::Token(token),
            Some(_) | None => Next::End,
        };
        let objects = answer.contents.unwrap_or_default().into_iter();
        let event = |object: aws_sdk_s3::types::Object| {
            self.event(Listed {
                key: key(object.key, encoded),
                version: None,
                etag: object.e_tag,
                size: object.size,
                modified: object.last_modified,
            })
        };
        Ok(objects.map(event).collect())
    }

    async fn versions(&mut self) -> Result<Vec<ObjectEvent>, ObjectsError> {
        let (key_marker, version_marker) = match &self.next {
            Next::Version(key, version) => (key.clone(), version.clone()),
            Next::Start | Next::Token(_) | Next::End => (None, None),
        };
        let answer = self
            .clients
            .s3
            .list_object_versions()
            .bucket(&*self.bucket)
            .prefix(&self.prefix)
            .set_key_marker(key_marker)
            .set_version_id_marker(version_marker)
            .set_encoding_type(self.encoding())
            .send()
            .await
            .map_err(|error| failed(&self.bucket, Fault::of(&error)))?;
        let encoded = answer.encoding_type == Some(EncodingType::Url);
        let marker = answer
            .next_key_marker
            .map(|marker| key(Some(marker), encoded));
        // A marker is a key, and keys are text in S3.
        let marker = marker.map(|marker| String::from_utf8_lossy(&marker).into_owned());
        self.next = if answer.is_truncated == Some(true) && marker.is_some() {
            Next::Version(marker, answer.next_version_id_marker)
        } else {
            Next::End
        };
        let versions = answer.versions.unwrap_or_default().into_iter();
        let current = versions.filter(|version| version.is_latest == Some(true));
        let event = |version: aws_sdk_s3::types::ObjectVersion| {
            self.event(Listed {
                key: key(version.key, encoded),
                version: version.version_id,
                etag: version.e_tag,
                size: version.size,
                modified: version.last_modified,
            })
        };
        Ok(current.map(event).collect())
    }

    fn event(&self, listed: Listed) -> ObjectEvent {
        ObjectEvent {
            bucket: self.bucket.clone(),
            key: listed.key.into(),
            kind: EventKind::Listed,
            size_bytes: listed.size.and_then(|size| u64::try_from(size).ok()),
            etag: listed.etag.map(Into::into),
            version: listed
                .version
                .filter(|version| version != "null")
                .map(Into::into),
            sequencer: None,
            at: listed
                .modified
                .map_or(Timestamp(0), |at| end_of_second(&at)),
        }
    }
}

/// An object or a version, as listings have them.
struct Listed {
    key: Vec<u8>,
    version: Option<String>,
    etag: Option<String>,
    size: Option<i64>,
    modified: Option<DateTime>,
}

fn key(spelled: Option<String>, encoded: bool) -> Vec<u8> {
    let spelled = spelled.unwrap_or_default();
    if encoded {
        decoded(&spelled)
    } else {
        spelled.into_bytes()
    }
}

fn end_of_second(at: &DateTime) -> Timestamp {
    event::end_of_second(Timestamp(at.secs().saturating_mul(1000)))
}

fn failed(bucket: &str, fault: Fault) -> ObjectsError {
    fault.objects(format!("s3://{bucket}"), ObjectsError::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_stands_at_the_end_of_the_second_in_which_it_was_written() {
        let at = DateTime::from_secs(7);
        assert_eq!(end_of_second(&at), Timestamp(7_999));
    }
}
