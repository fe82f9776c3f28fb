//! `Objects` over a directory: keys are paths below it, as bytes.
//!
//! An object appears whole: it is written beside its place and renamed. Keys that would leave the
//! directory, or that have two spellings, are refused, never bent. Symlinks to files are read;
//! symlinks to directories are not followed, so there are no loops.
#![expect(
    clippy::disallowed_methods,
    reason = "an adapter touches the real clock and real threads"
)]

mod files;
mod key;
mod reader;
mod temporary;
mod walk;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::core::item::{Object, Pin};
use crate::ports::objects::{Listing, Objects, ObjectsError, ObjectsProfile, Reader, Upload};

use temporary::FileUpload;
use walk::Walk;

/// How many unfinished listings are remembered: one a reader of a job, and a few for people.
const WALKS_KEPT: usize = 4;

/// The most objects of one listing, whatever was asked for.
const LIST_MAX: usize = 10_000;

/// A directory as a store. Clones share what they remember of listings.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<Path>,
    /// Unfinished listings, the oldest first: the next page goes on from them instead of reading
    /// the directory again.
    walks: Arc<Mutex<Vec<Walk>>>,
}

impl Directory {
    /// The store at `root`. It is made by the first write, if it is not there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into().into(),
            walks: Arc::default(),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn file(&self, key: &[u8]) -> Result<PathBuf, ObjectsError> {
        key::file(&self.root, key)
    }

    /// The walk that stands right after this key, if one is remembered.
    fn remembered(&self, prefix: &[u8], after: Option<&[u8]>) -> Option<Walk> {
        let after = after?;
        let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |walk: &Walk| walk.prefix() == prefix && walk.last() == Some(after);
        let index = walks.iter().position(fits)?;
        Some(walks.remove(index))
    }

    fn remember(&self, walk: Walk) {
        let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
        if walks.len() >= WALKS_KEPT {
            walks.remove(0);
        }
        walks.push(walk);
    }

    fn list_now(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        let remembered = self.remembered(prefix, after);
        let mut walk = match remembered.filter(Walk::is_current) {
            Some(walk) => walk,
            None => Walk::begin(&self.root, prefix, after)?,
        };
        let limit = limit.min(LIST_MAX);
        let mut listing = Listing::default();
        while listing.objects.len() < limit {
            let Some(object) = walk.next()? else {
                return Ok(listing);
            };
            listing.objects.push(object);
        }
        listing.more = walk.has_more()?;
        if listing.more {
            self.remember(walk);
        }
        Ok(listing)
    }
}

/// Runs file operations where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ObjectsError> + Send + 'static,
) -> Result<T, ObjectsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ObjectsError::Unavailable(error.to_string())),
    }
}

#[async_trait]
impl Objects for Directory {
    fn profile(&self) -> ObjectsProfile {
        ObjectsProfile {
            append: true,
            any_key: false,
            piece_bytes: crate::ports::objects::PIECE_BYTES,
        }
    }

    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        let (this, prefix, after) = (self.clone(), prefix.to_vec(), after.map(<[u8]>::to_vec));
        blocking(move || this.list_now(&prefix, after.as_deref(), limit)).await
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        let (path, key) = (self.file(key)?, Arc::from(key));
        blocking(move || files::head(&path, key)).await
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let (path, pin) = (self.file(key)?, pin.cloned());
        blocking(move || reader::open(&path, start, end, pin)).await
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let path = self.file(key)?;
        blocking(move || files::put(&path, &bytes)).await
    }

    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let path = self.file(key)?;
        blocking(move || files::put_if_absent(&path, &bytes)).await
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        let path = self.file(key)?;
        let upload = blocking(move || FileUpload::begin(path)).await?;
        Ok(Box::new(upload))
    }

    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError> {
        let path = self.file(key)?;
        blocking(move || files::append(&path, &bytes)).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        let path = self.file(key)?;
        blocking(move || files::delete(&path)).await
    }

    fn path(&self, key: &[u8]) -> Option<PathBuf> {
        self.file(key).ok()
    }
}
