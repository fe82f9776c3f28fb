//! A store, a clock and the rest of the world, as the tests of sources want them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use crate::core::item::{Object, Pin};
use crate::core::time::{Tick, Timestamp};
use crate::ports::objects::{Listing, Objects, ObjectsError, ObjectsProfile, Reader, Upload};
use crate::ports::runtime::{BoxFuture, Clock, Entropy, Runtime, Spawn};

/// A store in memory, with what can go wrong.
pub(super) struct Memory {
    objects: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    /// Each page of a listing takes one.
    pub(super) pages: Semaphore,
    /// Bytes that a read gives before it ends, as if it were done.
    cut: Mutex<Option<usize>>,
    /// Pages of listings that were asked for.
    pub(super) asked: watch::Sender<usize>,
}

impl Memory {
    pub(super) fn of<const N: usize>(objects: [(&[u8], &[u8]); N]) -> Arc<Self> {
        let entry = |(key, bytes): (&[u8], &[u8])| (key.to_vec(), Bytes::copy_from_slice(bytes));
        Arc::new(Self {
            objects: Mutex::new(objects.into_iter().map(entry).collect()),
            pages: Semaphore::new(Semaphore::MAX_PERMITS),
            cut: Mutex::new(None),
            asked: watch::Sender::new(0),
        })
    }

    pub(super) fn insert(&self, key: &[u8], bytes: Bytes) {
        let mut objects = self.objects.lock().expect("no test panics inside");
        objects.insert(key.to_vec(), bytes);
    }

    pub(super) fn cut_reads(&self, bytes: Option<usize>) {
        *self.cut.lock().expect("no test panics inside") = bytes;
    }

    fn find(&self, key: &[u8]) -> Result<(Object, Bytes), ObjectsError> {
        let objects = self.objects.lock().expect("no test panics inside");
        let name = || String::from_utf8_lossy(key).into_owned();
        let bytes = objects
            .get(key)
            .ok_or_else(|| ObjectsError::NotFound(name()))?;
        Ok((object(key, bytes), bytes.clone()))
    }
}

fn object(key: &[u8], bytes: &[u8]) -> Object {
    let sum = bytes
        .iter()
        .fold(0_u64, |sum, &b| sum.wrapping_mul(31) + u64::from(b));
    Object {
        bucket: None,
        key: key.into(),
        size_bytes: bytes.len() as u64,
        pin: Pin {
            etag: format!("{sum:x}-{}", bytes.len()).into(),
            version: None,
        },
    }
}

#[async_trait]
impl Objects for Memory {
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
        self.asked.send_modify(|asked| *asked += 1);
        self.pages
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        let objects = self.objects.lock().expect("no test panics inside");
        let mut found = objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after))
            .map(|(key, bytes)| object(key, bytes));
        let page = found.by_ref().take(limit).collect();
        Ok(Listing {
            objects: page,
            more: found.next().is_some(),
        })
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        Ok(self.find(key)?.0)
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let (object, bytes) = self.find(key)?;
        if pin.is_some_and(|pin| *pin != object.pin) {
            return Err(ObjectsError::Changed("it".into()));
        }
        let end = end.map_or(bytes.len(), |end| end as usize);
        if start as usize >= end {
            return Err(ObjectsError::Refused("the range is empty".into()));
        }
        let mut bytes = bytes.slice(start as usize..end);
        if let Some(cut) = *self.cut.lock().expect("no test panics inside") {
            bytes.truncate(cut);
        }
        Ok(Box::pin(std::io::Cursor::new(bytes)))
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        self.insert(key, bytes);
        Ok(self.find(key)?.0.pin)
    }

    async fn put_if_absent(&self, _: &[u8], _: Bytes) -> Result<Pin, ObjectsError> {
        Err(ObjectsError::Refused("a source has no use for it".into()))
    }

    async fn upload(&self, _: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        Err(ObjectsError::Refused("a source has no use for it".into()))
    }

    async fn append(&self, _: &[u8], _: Bytes) -> Result<u64, ObjectsError> {
        Err(ObjectsError::Refused("a source has no use for it".into()))
    }

    async fn delete(&self, _: &[u8]) -> Result<(), ObjectsError> {
        Err(ObjectsError::Refused("a source has no use for it".into()))
    }

    fn path(&self, _: &[u8]) -> Option<PathBuf> {
        None
    }
}

/// A clock that moves when the test says so.
pub(super) struct Hand(pub(super) watch::Sender<Tick>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn tick(&self) -> Tick {
        *self.0.borrow()
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        let mut ticks = self.0.subscribe();
        Box::pin(async move {
            let gone = ticks.wait_for(|tick| *tick >= at).await.is_err();
            if gone {
                std::future::pending::<()>().await;
            }
        })
    }
}

struct Unused;

/// The same draw always: chance names frozen parts, and decides nothing.
struct Same(u64);

impl Entropy for Same {
    fn next_u64(&self) -> u64 {
        self.0
    }
}

impl Spawn for Unused {
    fn spawn(&self, name: &'static str, _: BoxFuture<'static, ()>) {
        unreachable!("a source starts no {name}")
    }
}

pub(super) fn runtime() -> (Arc<Hand>, Runtime) {
    runtime_drawing(0)
}

pub(super) fn runtime_drawing(draw: u64) -> (Arc<Hand>, Runtime) {
    let clock = Arc::new(Hand(watch::Sender::new(Tick(0))));
    let runtime = Runtime {
        clock: clock.clone(),
        entropy: Arc::new(Same(draw)),
        spawn: Arc::new(Unused),
    };
    (clock, runtime)
}
