//! A node's way to a store of objects: the bytes are in memory, the way to them has faults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use trommel::core::item::{Object, Pin};
use trommel::ports::objects::{Listing, ObjectsProfile, Reader, Upload};
use trommel::ports::{Objects, ObjectsError};

use super::bill::Billed;
use super::injector::{Injector, PATIENCE_MAX, Ticket};
use crate::node::Node;
use crate::point::{Kind, Operation};
use crate::watch::Watch;

/// Some ten records of a simulated result file: enough for several pieces.
const PIECE_BYTES: usize = 1000;

/// How long a slow listing takes to answer: longer than a part stays open.
const LISTED_AFTER: Duration = Duration::from_millis(1_100);

/// One node's way to a store.
#[derive(Clone)]
pub struct ObjectsLink {
    base: Arc<dyn Objects>,
    node: Node,
    injector: Arc<Injector>,
    /// Told of the objects that the pipeline learns of.
    watch: Option<Arc<Watch>>,
    /// Whether objects can grow: files do, S3's do not.
    appends: bool,
}

impl ObjectsLink {
    /// The way of this node to this store.
    pub fn new(base: Arc<dyn Objects>, node: &Node, injector: Arc<Injector>) -> Self {
        Self {
            base,
            node: node.clone(),
            injector,
            watch: None,
            appends: true,
        }
    }

    /// The same, to a store like S3, whose objects do not grow.
    #[must_use]
    pub fn without_append(mut self) -> Self {
        self.appends = false;
        self
    }

    /// The same; what is listed there is told.
    #[must_use]
    pub fn told_to(mut self, watch: Arc<Watch>) -> Self {
        self.watch = Some(watch);
        self
    }

    async fn sleep(&self, duration: Duration) {
        self.node.sleep(duration).await;
    }

    async fn unanswered<T>(&self, ticket: &mut Ticket, why: &str) -> Result<T, ObjectsError> {
        self.sleep(ticket.up_to(PATIENCE_MAX)).await;
        Err(ObjectsError::Unavailable(why.to_owned()))
    }

    async fn call<T>(
        &self,
        operation: Operation,
        key: &[u8],
        done: impl Future<Output = Result<T, ObjectsError>>,
    ) -> Result<T, ObjectsError> {
        let about = String::from_utf8_lossy(key);
        let mut ticket = self.injector.ticket(operation, &self.node, &about);
        if ticket.is(Kind::CrashBefore) {
            return self.injector.crash(&self.node, &mut ticket).await;
        }
        self.sleep(ticket.there).await;
        if ticket.is(Kind::RequestLost) {
            return self.unanswered(&mut ticket, "the request was lost").await;
        }
        let result = done.await;
        if let Some(billed) = billed(operation) {
            self.injector.bill(&billed);
        }
        if ticket.is(Kind::CrashAfter) {
            return self.injector.crash(&self.node, &mut ticket).await;
        }
        if ticket.is(Kind::ReplyLost) {
            return self.unanswered(&mut ticket, "the reply was lost").await;
        }
        let back = if ticket.is(Kind::Slow) {
            ticket.up_to(self.injector.lengths().slow_max())
        } else {
            ticket.back
        };
        self.sleep(back).await;
        result
    }
}

/// Deletes are free; an append stands for the object that S3 would get instead.
fn billed(operation: Operation) -> Option<Billed> {
    match operation {
        Operation::ObjectsHead | Operation::ObjectsGet => Some(Billed::Got),
        Operation::ObjectsList
        | Operation::ObjectsPut
        | Operation::ObjectsPutIfAbsent
        | Operation::ObjectsUpload
        | Operation::ObjectsAppend => Some(Billed::Put),
        Operation::ObjectsDelete
        | Operation::TableGet
        | Operation::TableQuery
        | Operation::TableWrite
        | Operation::TableTransact
        | Operation::QueueReceive
        | Operation::QueueSend
        | Operation::QueueDelete
        | Operation::QueueChangeVisibility
        | Operation::QueueDepth
        | Operation::Call => None,
    }
}

#[async_trait]
impl Objects for ObjectsLink {
    fn profile(&self) -> ObjectsProfile {
        let base = self.base.profile();
        ObjectsProfile {
            // A real bucket takes no piece as small as the simulated ones.
            piece_bytes: if base.append {
                PIECE_BYTES
            } else {
                base.piece_bytes
            },
            append: base.append && self.appends,
            ..base
        }
    }

    async fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, ObjectsError> {
        let limit = match self.injector.listed_at_once() {
            0 => limit,
            few => {
                self.sleep(LISTED_AFTER).await;
                limit.min(few)
            }
        };
        let list = self.base.list(prefix, after, limit);
        let listing = self.call(Operation::ObjectsList, prefix, list).await?;
        if let Some(watch) = &self.watch {
            for object in &listing.objects {
                watch.listed(object);
            }
        }
        Ok(listing)
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        let head = self.base.head(key);
        let object = self.call(Operation::ObjectsHead, key, head).await?;
        if let Some(watch) = &self.watch {
            watch.looked_up(&object);
        }
        Ok(object)
    }

    async fn get(
        &self,
        key: &[u8],
        start: u64,
        end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let get = self.base.get(key, start, end, pin);
        self.call(Operation::ObjectsGet, key, get).await
    }

    async fn put(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let put = self.base.put(key, bytes);
        self.call(Operation::ObjectsPut, key, put).await
    }

    async fn put_if_absent(&self, key: &[u8], bytes: Bytes) -> Result<Pin, ObjectsError> {
        let put = self.base.put_if_absent(key, bytes);
        self.call(Operation::ObjectsPutIfAbsent, key, put).await
    }

    async fn upload(&self, key: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        let upload = self.base.upload(key);
        self.call(Operation::ObjectsUpload, key, upload).await
    }

    async fn append(&self, key: &[u8], bytes: Bytes) -> Result<u64, ObjectsError> {
        if !self.appends {
            let key = String::from_utf8_lossy(key);
            return Err(ObjectsError::Refused(format!("{key}: it cannot grow")));
        }
        let append = self.base.append(key, bytes);
        self.call(Operation::ObjectsAppend, key, append).await
    }

    async fn delete(&self, key: &[u8]) -> Result<(), ObjectsError> {
        self.call(Operation::ObjectsDelete, key, self.base.delete(key))
            .await
    }

    fn path(&self, key: &[u8]) -> Option<PathBuf> {
        self.base.path(key)
    }
}
