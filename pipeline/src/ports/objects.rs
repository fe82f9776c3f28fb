//! `Objects`: a store of bytes under opaque keys: a bucket, or a directory.

use std::path::PathBuf;
use std::pin::Pin as StdPin;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::core::item::{Object, Pin};

/// The bytes of an object, as they arrive.
pub type Reader = StdPin<Box<dyn AsyncRead + Send>>;

/// A stretch of a listing, in the byte order of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Object>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectsProfile {
    /// Whether [`Objects::append`] works; not on S3, where an object is written once.
    pub append: bool,
    /// Whether any bytes may be a key. A directory has no key that is empty, absolute or `..`.
    pub any_key: bool,
    /// How many bytes should be gathered before they are added to an [`Upload`]. S3 takes no piece below 5 MiB but the
    /// last ("Multipart upload limits"), and bills each.
    pub piece_bytes: usize,
}

/// Fewer requests than with the smallest pieces that S3 takes, and little enough memory for several uploads.
pub const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// Why a call failed, by what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object (any more).
    #[error("{0} is not there")]
    NotFound(String),
    /// It is there, but not in the state that was asked for.
    #[error("{0} is not what it was")]
    Changed(String),
    /// It is there already, and should not have been.
    #[error("{0} is there already")]
    Exists(String),
    /// Too fast, or no answer. Try again, later; every operation may be repeated.
    #[error("no answer: {0}")]
    Unavailable(String),
    /// It will not work by trying again: access, a key this store cannot hold, a full disk.
    #[error("{0}")]
    Refused(String),
}

/// A large object being written piece by piece; it appears whole, at [`Upload::complete`], or never.
#[async_trait]
pub trait Upload: Send {
    /// Adds bytes. All pieces but the last should be of 5 MiB or more ("Multipart upload limits").
    async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectsError>;

    /// Ends it; the object is there, replacing a former one.
    async fn complete(self: Box<Self>) -> Result<Pin, ObjectsError>;

    /// Gives it up; nothing is left behind.
    async fn abort(self: Box<Self>) -> Result<(), ObjectsError>;
}

/// A store. Implementations: directory, in process, S3, the simulator's model.
#[async_trait]
pub trait Objects: Send + Sync {
    /// What this store can do. Does not change.
    fn profile(&self) -> ObjectsProfile;

    /// Up to `limit` objects whose keys begin with `prefix`, after the key `after`, in byte order.
    /// An object put before the listing began and not deleted is in it exactly once, however it is
    /// paged.
    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError>;

    /// The object as it is now.
    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError>;

    /// Its bytes from `start` up to (not including) `end`, or to its end. With a pin exactly that state, or `Changed`.
    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError>;

    /// Writes the object whole, replacing a former one; durable once answered.
    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError>;

    /// Writes the object if there is none, else `Exists`.
    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError>;

    /// Begins a large object.
    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError>;

    /// Adds bytes at the end of an object (made if it is not there) that only this caller writes; durable once answered.
    /// Answers the offset at which they begin. `Refused` where the profile says so.
    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError>;

    /// Deletes the object; no error if it was not there.
    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError>;

    /// The file that holds the object, where the store is a directory.
    fn path(&self, key: &[u8]) -> Option<PathBuf>;
}
