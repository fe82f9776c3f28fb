//! `Table`: checks a request's bounds, hands it to the thread that does it, waits for the answer.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::error::GONE;
use super::{reader, writer};
use crate::adapters::bounds::table as bounds;
use crate::adapters::memory::EMBEDDED_PROFILE;
use crate::ports::table::{
    Consistency, Key, Query, QueryPage, Row, Table, TableError, TableProfile, Write,
};

/// What is said where a ledger was opened for reading only.
pub(super) const READ_ONLY: &str = "this ledger was opened for reading";

/// The ledger's rows. Clones share the ledger's threads.
#[derive(Clone, Debug)]
pub struct SqliteTable {
    /// `None`: opened for reading.
    pub(super) writer: Option<mpsc::Sender<writer::Request>>,
    pub(super) points: mpsc::Sender<reader::Request>,
    pub(super) ranges: mpsc::Sender<reader::Request>,
}

/// A thread that ended while it had a write may have done it.
async fn answer<T>(reply: oneshot::Receiver<Result<T, TableError>>) -> Result<T, TableError> {
    match reply.await {
        Ok(result) => result,
        Err(_) => Err(TableError::Unclear(GONE.to_owned())),
    }
}

fn gone<T>(_: mpsc::error::SendError<T>) -> TableError {
    TableError::Refused(GONE.to_owned())
}

impl SqliteTable {
    fn writer(&self) -> Result<&mpsc::Sender<writer::Request>, TableError> {
        self.writer
            .as_ref()
            .ok_or_else(|| TableError::Refused(READ_ONLY.to_owned()))
    }
}

#[async_trait]
impl Table for SqliteTable {
    fn profile(&self) -> TableProfile {
        EMBEDDED_PROFILE
    }

    async fn get(&self, key: &Key, _: Consistency) -> Result<Option<Row>, TableError> {
        bounds::check_key(key)?;
        let (reply, received) = oneshot::channel();
        let request = reader::Request::Get(key.clone(), reply);
        self.points.send(request).await.map_err(gone)?;
        answer(received).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        bounds::check_write(&write)?;
        let (reply, received) = oneshot::channel();
        let request = writer::Request::Write(write, reply);
        self.writer()?.send(request).await.map_err(gone)?;
        answer(received).await
    }

    async fn transact(&self, _token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        bounds::check_transaction(EMBEDDED_PROFILE, &writes)?;
        let (reply, received) = oneshot::channel();
        let request = writer::Request::Transact(writes, reply);
        self.writer()?.send(request).await.map_err(gone)?;
        answer(received).await
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        bounds::check_query(&query)?;
        let (reply, received) = oneshot::channel();
        let request = reader::Request::Query(query, reply);
        self.ranges.send(request).await.map_err(gone)?;
        answer(received).await
    }
}
