//! `Objects` on S3: one bucket.
//!
//! A listing names no version, so the pins it gives hold an eTag alone; those of `head`, `put` and an
//! upload hold the version too, where the bucket has versions. Both pin a read.

use std::path::PathBuf;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use bytes::Bytes;

use super::classify::Fault;
use super::config::Clients;
use super::upload::S3Upload;
use crate::core::form::decoded;
use crate::core::item::{Object, Pin};
use crate::ports::objects::{Listing, Reader, Upload};
use crate::ports::{Objects, ObjectsError, ObjectsProfile};

/// The most keys in one answer ("ListObjectsV2", MaxKeys).
const LIST_MAX: usize = 1000;

/// The longest key ("Naming Amazon S3 objects"): so many bytes of UTF-8.
const KEY_BYTES_MAX: usize = 1024;

/// An S3 bucket. Keys are whatever text of up to 1,024 bytes S3 takes: `a//b`, `..` and newlines too.
#[derive(Clone, Debug)]
pub struct S3Objects {
    client: Client,
    bucket: String,
    encoded_listings: bool,
}

impl S3Objects {
    /// The bucket of that name. Talks to nobody yet: a missing bucket shows with the first request.
    pub fn new(clients: &Clients, bucket: impl Into<String>) -> Self {
        Self {
            client: clients.s3.clone(),
            bucket: bucket.into(),
            encoded_listings: clients.endpoint.encoded_listings,
        }
    }

    fn place(&self, key: &[u8]) -> String {
        format!("s3://{}/{}", self.bucket, String::from_utf8_lossy(key))
    }

    /// The key as the SDK takes it.
    fn key(&self, key: &[u8]) -> Result<String, ObjectsError> {
        let problem = match std::str::from_utf8(key) {
            Ok("") => "an object's key has at least one byte",
            Ok(_) if key.len() > KEY_BYTES_MAX => "S3 takes keys of up to 1,024 bytes",
            Ok(text) => return Ok(text.to_owned()),
            Err(_) => "S3 takes keys of UTF-8 only",
        };
        Err(ObjectsError::Refused(format!(
            "{}: {problem}",
            self.place(key)
        )))
    }

    /// The object in the state a pin names, or as it is now.
    async fn look(&self, key: &[u8], pin: Option<&Pin>) -> Result<Object, ObjectsError> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.key(key)?)
            .set_if_match(pin.map(|pin| pin.etag.to_string()))
            .set_version_id(version(pin))
            .send()
            .await
            .map_err(|error| Fault::of(&error).objects(self.place(key), ObjectsError::Changed))?;
        Ok(Object {
            bucket: None,
            key: key.into(),
            size_bytes: size(answer.content_length),
            pin: pinned(answer.e_tag, answer.version_id),
        })
    }
}

#[async_trait]
impl Objects for S3Objects {
    fn profile(&self) -> ObjectsProfile {
        ObjectsProfile {
            append: false,
            any_key: true,
            piece_bytes: crate::ports::objects::PIECE_BYTES,
        }
    }

    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        let prefix_key = match prefix {
            b"" => None,
            prefix => Some(self.key(prefix)?),
        };
        let after = match after {
            None | Some(b"") => None,
            Some(after) => Some(self.key(after)?),
        };
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .set_prefix(prefix_key)
            .set_start_after(after)
            .max_keys(limit.clamp(1, LIST_MAX) as i32)
            .set_encoding_type(self.encoded_listings.then_some(EncodingType::Url))
            .send()
            .await
            .map_err(|error| {
                Fault::of(&error).objects(self.place(prefix), ObjectsError::Changed)
            })?;
        let encoded = answer.encoding_type == Some(EncodingType::Url);
        let objects = answer.contents.unwrap_or_default();
        Ok(Listing {
            more: answer.is_truncated.unwrap_or(false),
            objects: objects
                .into_iter()
                .map(|one| listed(one, encoded))
                .collect(),
        })
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        self.look(key, None).await
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        if end.is_some_and(|end| end <= start) {
            // No range says "nothing"; whether the object is what it was is asked all the same.
            self.look(key, pin).await?;
            return Ok(Box::pin(tokio::io::empty()));
        }
        let answer = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.key(key)?)
            .set_range(range(start, end))
            .set_if_match(pin.map(|pin| pin.etag.to_string()))
            .set_version_id(version(pin))
            .send()
            .await;
        match answer {
            Ok(found) => Ok(Box::pin(found.body.into_async_read())),
            Err(error) => {
                let fault = Fault::of(&error);
                if fault.is_beyond_end() {
                    self.look(key, pin).await?;
                    return Ok(Box::pin(tokio::io::empty()));
                }
                Err(fault.objects(self.place(key), ObjectsError::Changed))
            }
        }
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key)?)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| Fault::of(&error).objects(self.place(key), ObjectsError::Changed))?;
        Ok(pinned(answer.e_tag, answer.version_id))
    }

    /// Where a first try's reply was lost, the SDK's second finds the object there: `Exists` may speak
    /// of one's own write, as after any lost reply.
    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let answer = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key)?)
            .if_none_match("*")
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| Fault::of(&error).objects(self.place(key), ObjectsError::Exists))?;
        Ok(pinned(answer.e_tag, answer.version_id))
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        let text = self.key(key)?;
        Ok(Box::new(S3Upload::new(self.clone(), text)))
    }

    async fn append(&self, key: &[u8], _bytes: Bytes) -> Result<u64, ObjectsError> {
        Err(ObjectsError::Refused(format!(
            "{}: an object in S3 is written once and cannot grow",
            self.place(key)
        )))
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        self.client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.key(key)?)
            .send()
            .await
            .map_err(|error| Fault::of(&error).objects(self.place(key), ObjectsError::Changed))?;
        Ok(())
    }

    fn path(&self, _key: &[u8]) -> Option<PathBuf> {
        None
    }
}

impl S3Objects {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }
}

/// A Range header; none for the whole object, since an empty one has no range that S3 takes.
fn range(start: u64, end: Option<u64>) -> Option<String> {
    match (start, end) {
        (0, None) => None,
        (start, None) => Some(format!("bytes={start}-")),
        // HTTP's ranges name their last byte; the caller saw to it that there is one.
        (start, Some(end)) => Some(format!("bytes={start}-{}", end - 1)),
    }
}

fn version(pin: Option<&Pin>) -> Option<String> {
    pin?.version.as_deref().map(str::to_owned)
}

fn size(length: Option<i64>) -> u64 {
    length
        .and_then(|length| u64::try_from(length).ok())
        .unwrap_or(0)
}

/// The state an answer names.
pub(super) fn pinned(etag: Option<String>, version: Option<String>) -> Pin {
    Pin {
        etag: etag.unwrap_or_default().into(),
        version: version.map(Into::into),
    }
}

fn listed(found: aws_sdk_s3::types::Object, encoded: bool) -> Object {
    let spelled = found.key.unwrap_or_default();
    let key = if encoded {
        decoded(&spelled)
    } else {
        spelled.into_bytes()
    };
    Object {
        bucket: None,
        key: key.into(),
        size_bytes: size(found.size),
        pin: pinned(found.e_tag, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_its_last_byte_and_the_whole_object_none() {
        assert_eq!(range(0, None), None);
        assert_eq!(range(5, None).as_deref(), Some("bytes=5-"));
        assert_eq!(range(0, Some(1)).as_deref(), Some("bytes=0-0"));
        assert_eq!(range(5, Some(10)).as_deref(), Some("bytes=5-9"));
    }

    #[test]
    fn a_key_in_a_listing_is_decoded_only_where_it_was_encoded() {
        let found = |key: &str| {
            aws_sdk_s3::types::Object::builder()
                .key(key)
                .size(7)
                .build()
        };
        assert_eq!(&*listed(found("a%2Bb+c"), true).key, b"a+b c");
        assert_eq!(&*listed(found("a%2Bb+c"), false).key, b"a%2Bb+c");
    }
}
