//! All buckets as one store, whose keys are `bucket/key`: what event mode reads from, as each event names its bucket.

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use super::config::Clients;
use super::objects::S3Objects;
use crate::core::item::{Object, Pin};
use crate::ports::objects::{Listing, Reader, Upload};
use crate::ports::{Objects, ObjectsError, ObjectsProfile};

/// Every bucket that may be reached.
#[derive(Clone, Debug)]
pub struct Buckets {
    clients: Clients,
}

impl Buckets {
    /// The buckets of these clients' endpoint.
    pub fn new(clients: Clients) -> Self {
        Self { clients }
    }

    /// The bucket that a key names, and the key in it.
    fn find<'k>(&self, key: &'k [u8]) -> Result<(S3Objects, &'k [u8]), ObjectsError> {
        let at = key.iter().position(|byte| *byte == b'/');
        let named = at.and_then(|at| Some((std::str::from_utf8(&key[..at]).ok()?, &key[at + 1..])));
        match named {
            Some((bucket, key)) if !bucket.is_empty() => {
                Ok((S3Objects::new(&self.clients, bucket), key))
            }
            Some(_) | None => {
                let key = String::from_utf8_lossy(key);
                Err(ObjectsError::Refused(format!("{key:?} names no bucket")))
            }
        }
    }
}

#[async_trait]
impl Objects for Buckets {
    fn profile(&self) -> ObjectsProfile {
        S3Objects::new(&self.clients, "any").profile()
    }

    /// The prefix names the bucket; so do `after` and the answer's keys.
    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        let (bucket, prefix) = self.find(prefix)?;
        let after = match after {
            Some(after) => Some(self.find(after)?.1),
            None => None,
        };
        let mut listing = bucket.list(prefix, after, limit).await?;
        for object in &mut listing.objects {
            *object = qualified(&bucket, object.clone());
        }
        Ok(listing)
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        Ok(qualified(&bucket, bucket.head(key).await?))
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.get(key, start, end, pin).await
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.put(key, bytes).await
    }

    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.put_if_absent(key, bytes).await
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.upload(key).await
    }

    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.append(key, bytes).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        let (bucket, key) = self.find(key)?;
        bucket.delete(key).await
    }

    fn path(&self, _key: &[u8]) -> Option<PathBuf> {
        None
    }
}

/// The object under the key of the store of all buckets.
fn qualified(bucket: &S3Objects, object: Object) -> Object {
    let key = crate::core::event::store_key(bucket.bucket(), &object.key);
    Object {
        key: key.into(),
        ..object
    }
}
