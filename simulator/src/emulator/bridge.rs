//! Ports whose calls are polled by the simulator's executor and served by tokio: the SDK finds its timers and
//! sockets, and a call ends with the process that made it.
//!
//! Virtual time goes faster than the emulator's, so what a queue is asked to wait or to hide for is divided by the
//! same number; SQS rounds it up to whole seconds.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle as Tokio;
use tokio_util::context::TokioContext;
use trommel::core::item::{Object, Pin};
use trommel::ports::objects::{Listing, ObjectsProfile, Reader, Upload};
use trommel::ports::queue::{Depth, Handle, Outgoing, QueueProfile, Rejected};
use trommel::ports::table::{QueryPage, TableProfile};
use trommel::ports::{
    Consistency, Key, Message, Objects, ObjectsError, Query, Queue, QueueError, Row, Table,
    TableError, Write,
};

/// A port on the other side.
#[derive(Clone)]
pub(super) struct Bridge<T: ?Sized> {
    port: Arc<T>,
    tokio: Tokio,
    speed: u32,
}

impl<T: ?Sized> Bridge<T> {
    /// To this port, in a world that is so many times as fast.
    pub(super) fn new(port: Arc<T>, tokio: &Tokio, speed: u32) -> Self {
        Self {
            port,
            tokio: tokio.clone(),
            speed,
        }
    }

    async fn on_tokio<R>(&self, call: impl Future<Output = R> + Send) -> R {
        TokioContext::new(call, self.tokio.clone()).await
    }

    fn scaled(&self, duration: Duration) -> Duration {
        duration / self.speed
    }
}

#[async_trait]
impl Table for Bridge<dyn Table> {
    fn profile(&self) -> TableProfile {
        self.port.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        self.on_tokio(self.port.get(key, consistency)).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        self.on_tokio(self.port.write(write)).await
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        self.on_tokio(self.port.transact(token, writes)).await
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        self.on_tokio(self.port.query(query)).await
    }
}

#[async_trait]
impl Queue for Bridge<dyn Queue> {
    fn profile(&self) -> QueueProfile {
        self.port.profile()
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let (wait, visibility) = (self.scaled(wait), self.scaled(visibility));
        self.on_tokio(self.port.receive(max, wait, visibility))
            .await
    }

    async fn send(&self, mut batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        for message in &mut batch {
            message.delay = self.scaled(message.delay);
        }
        self.on_tokio(self.port.send(batch)).await
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        self.on_tokio(self.port.delete(handles)).await
    }

    async fn change_visibility(
        &self,
        mut entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        for (_, visibility) in &mut entries {
            *visibility = self.scaled(*visibility);
        }
        self.on_tokio(self.port.change_visibility(entries)).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.on_tokio(self.port.depth()).await
    }
}

#[async_trait]
impl Objects for Bridge<dyn Objects> {
    fn profile(&self) -> ObjectsProfile {
        self.port.profile()
    }

    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        self.on_tokio(self.port.list(prefix, after, limit)).await
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        self.on_tokio(self.port.head(key)).await
    }

    /// Whole, as a scenario's objects are small: its bytes come from a socket too.
    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let whole = async {
            let mut reader = self.port.get(key, start, end, pin).await?;
            let mut bytes = Vec::new();
            let read = reader.read_to_end(&mut bytes).await;
            read.map_err(|error| ObjectsError::Unavailable(error.to_string()))?;
            Ok(bytes)
        };
        let bytes = self.on_tokio(whole).await?;
        Ok(Box::pin(Cursor::new(bytes)))
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        self.on_tokio(self.port.put(key, bytes)).await
    }

    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        self.on_tokio(self.port.put_if_absent(key, bytes)).await
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        let upload = self.on_tokio(self.port.upload(key)).await?;
        Ok(Box::new(BridgedUpload {
            upload,
            tokio: self.tokio.clone(),
        }))
    }

    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError> {
        self.on_tokio(self.port.append(key, bytes)).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        self.on_tokio(self.port.delete(key)).await
    }

    fn path(&self, key: &[u8]) -> Option<PathBuf> {
        self.port.path(key)
    }
}

struct BridgedUpload {
    upload: Box<dyn Upload>,
    tokio: Tokio,
}

#[async_trait]
impl Upload for BridgedUpload {
    async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectsError> {
        let tokio = self.tokio.clone();
        TokioContext::new(self.upload.add(bytes), tokio).await
    }

    async fn complete(self: Box<Self>) -> Result<Pin, ObjectsError> {
        TokioContext::new(self.upload.complete(), self.tokio).await
    }

    async fn abort(self: Box<Self>) -> Result<(), ObjectsError> {
        TokioContext::new(self.upload.abort(), self.tokio).await
    }
}
