//! `Objects` in memory: any key, appends, and a pin that changes with every write.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::lock;
use crate::core::item::{Object, Pin};
use crate::ports::objects::{Listing, Objects, ObjectsError, ObjectsProfile, Reader, Upload};

#[derive(Clone, Default)]
struct Stored {
    /// As they were written; an append adds one.
    chunks: Vec<Bytes>,
    size_bytes: u64,
    /// The number of the write that left it so.
    write: u64,
}

/// By key and write.
type Versions = BTreeMap<(Arc<[u8]>, u64), Stored>;

#[derive(Default)]
struct State {
    objects: BTreeMap<Arc<[u8]>, Stored>,
    /// What was replaced or deleted; none where no versions are kept.
    versions: Option<Versions>,
    /// How many writes there were.
    writes: u64,
}

/// A store in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryObjects {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemoryObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryObjects")
            .field("objects", &lock(&self.state).objects.len())
            .finish_non_exhaustive()
    }
}

fn etag(write: u64) -> Arc<str> {
    format!("\"w{write}\"").into()
}

fn version(write: u64) -> Arc<str> {
    format!("v{write}").into()
}

fn named(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

impl Stored {
    fn range(&self, start: u64, end: Option<u64>) -> Bytes {
        let clip = |at: u64| usize::try_from(at.min(self.size_bytes)).unwrap_or(usize::MAX);
        let end = clip(end.unwrap_or(u64::MAX));
        let start = clip(start).min(end);
        if let [whole] = self.chunks.as_slice() {
            return whole.slice(start..end);
        }
        let mut bytes = BytesMut::with_capacity(end - start);
        let mut chunk_start = 0;
        for chunk in &self.chunks {
            let from = start.saturating_sub(chunk_start).min(chunk.len());
            let to = end.saturating_sub(chunk_start).min(chunk.len());
            bytes.extend_from_slice(&chunk[from..to]);
            chunk_start += chunk.len();
        }
        bytes.freeze()
    }
}

impl State {
    fn put(&mut self, key: &[u8], chunks: Vec<Bytes>) -> Pin {
        self.writes += 1;
        let stored = Stored {
            size_bytes: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            chunks,
            write: self.writes,
        };
        let replaced = self.objects.insert(key.into(), stored);
        self.keep(key, replaced);
        self.pin(self.writes)
    }

    /// Keeps what was replaced or deleted, where versions are kept.
    fn keep(&mut self, key: &[u8], former: Option<Stored>) {
        if let (Some(versions), Some(former)) = (&mut self.versions, former) {
            versions.insert((key.into(), former.write), former);
        }
    }

    fn pin(&self, write: u64) -> Pin {
        Pin {
            etag: etag(write),
            version: self.versions.is_some().then(|| version(write)),
        }
    }

    fn object(&self, key: &Arc<[u8]>, stored: &Stored) -> Object {
        Object {
            bucket: None,
            key: key.clone(),
            size_bytes: stored.size_bytes,
            pin: self.pin(stored.write),
        }
    }

    /// A version that was replaced or deleted.
    fn former(&self, key: &[u8], pin: &Pin) -> Option<&Stored> {
        let wanted = pin.version.as_ref()?;
        let kept = self.versions.as_ref()?.range((key.into(), 0)..);
        let mut of_key = kept.take_while(|((of, _), _)| **of == *key);
        let (_, stored) = of_key.find(|((_, write), _)| version(*write) == *wanted)?;
        Some(stored)
    }
}

impl MemoryObjects {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on each object's versions are kept, and each is read by the pin that names it, as in a bucket with
    /// versioning.
    pub fn keep_versions(&self) {
        lock(&self.state).versions.get_or_insert_default();
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    fn profile(&self) -> ObjectsProfile {
        ObjectsProfile {
            append: true,
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
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let state = lock(&self.state);
        let mut found = state
            .objects
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let objects = found
            .by_ref()
            .take(limit)
            .map(|(key, stored)| state.object(key, stored))
            .collect();
        Ok(Listing {
            objects,
            more: found.next().is_some(),
        })
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        let state = lock(&self.state);
        let found = state.objects.get_key_value(key);
        found
            .map(|(key, stored)| state.object(key, stored))
            .ok_or_else(|| ObjectsError::NotFound(named(key)))
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let state = lock(&self.state);
        let current = state.objects.get(key);
        let is_it = |stored: &&Stored| pin.is_none_or(|pin| *pin == state.pin(stored.write));
        let former = || state.former(key, pin?);
        let Some(stored) = current.filter(is_it).or_else(former) else {
            return Err(match current {
                Some(_) => ObjectsError::Changed(named(key)),
                None => ObjectsError::NotFound(named(key)),
            });
        };
        Ok(Box::pin(Cursor::new(stored.range(start, end))))
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        Ok(lock(&self.state).put(key, vec![bytes]))
    }

    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let mut state = lock(&self.state);
        if state.objects.contains_key(key) {
            return Err(ObjectsError::Exists(named(key)));
        }
        Ok(state.put(key, vec![bytes]))
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        Ok(Box::new(MemoryUpload {
            state: self.state.clone(),
            key: key.to_vec(),
            chunks: Vec::new(),
        }))
    }

    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError> {
        let mut state = lock(&self.state);
        state.writes += 1;
        let write = state.writes;
        let stored = state.objects.entry(key.into()).or_default();
        let offset = stored.size_bytes;
        stored.size_bytes += bytes.len() as u64;
        stored.chunks.push(bytes);
        stored.write = write;
        Ok(offset)
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        let mut state = lock(&self.state);
        let deleted = state.objects.remove(key);
        state.keep(key, deleted);
        Ok(())
    }

    fn path(&self, _: &[u8]) -> Option<PathBuf> {
        None
    }
}

struct MemoryUpload {
    state: Arc<Mutex<State>>,
    key: Vec<u8>,
    chunks: Vec<Bytes>,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectsError> {
        self.chunks.push(bytes);
        Ok(())
    }

    async fn complete(self: Box<Self>) -> Result<Pin, ObjectsError> {
        Ok(lock(&self.state).put(&self.key, self.chunks))
    }

    async fn abort(self: Box<Self>) -> Result<(), ObjectsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_is_read_by_its_pin_whatever_came_after_it() {
        let store = MemoryObjects::new();
        store.keep_versions();
        let first = store.put(b"k", "one".into()).await.expect("it takes all");
        let second = store.put(b"k", "three".into()).await.expect("it takes all");
        store.delete(b"k").await.expect("it deletes all");
        for (pin, text) in [(first, "one"), (second, "three")] {
            let mut read = String::new();
            let reader = store.get(b"k", 0, None, Some(&pin)).await;
            let mut reader = reader.expect("the version is there");
            tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut read)
                .await
                .expect("memory is read");
            assert_eq!(read, text);
        }
        let gone = store.get(b"k", 0, None, None).await;
        assert!(matches!(gone, Err(ObjectsError::NotFound(_))));
    }
}
