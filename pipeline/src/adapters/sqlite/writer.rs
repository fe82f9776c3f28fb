//! The one thread that writes. It takes what is waiting, does it all in one transaction, commits
//! once, and then answers everybody: an fsync is shared by hundreds of writes, and a lone write waits
//! for no one.
//!
//! A request whose condition fails leaves no trace, because all its conditions are judged before any
//! of its changes is made. Requests of one group see each other's changes, in their order.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::Fault;
use super::messages::{self, Asked, Take};
use super::rows::{Rows, Stop};
use crate::adapters::bounds::table as bounds;
use crate::core::time::Timestamp;
use crate::ports::queue::{Depth, Message, QueueError, Rejected};
use crate::ports::table::{Change, Row, TableError, TableProfile, Write};

/// How many requests may wait for the thread; more wait in their callers.
pub(super) const WAITING_MAX: usize = 4096;

/// The most requests of one commit: enough to hide an fsync behind the work, and a group still takes
/// only about 10 ms, which is what the last of them waits longer.
const GROUP_REQUESTS_MAX: usize = 1024;

/// Where an answer goes.
pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// One request to the writer.
#[derive(Debug)]
pub(super) enum Request {
    Write(Write, Reply<Option<Row>, TableError>),
    Transact(Vec<Write>, Reply<(), TableError>),
    Take(String, Take, Reply<Vec<Message>, QueueError>),
    Ask(String, Asked, Reply<Vec<Rejected>, QueueError>),
    Depth(String, Timestamp, Reply<Depth, QueueError>),
}

/// What a request came to, told once the commit has succeeded.
enum Answer {
    Write(
        Result<Option<Row>, TableError>,
        Reply<Option<Row>, TableError>,
    ),
    Transact(Result<(), TableError>, Reply<(), TableError>),
    Messages(Vec<Message>, Reply<Vec<Message>, QueueError>),
    Rejected(Vec<Rejected>, Reply<Vec<Rejected>, QueueError>),
    Depth(Depth, Reply<Depth, QueueError>),
}

impl Answer {
    /// Whoever no longer waits need not be told.
    fn tell(self) {
        match self {
            Self::Write(result, reply) => drop(reply.send(result)),
            Self::Transact(result, reply) => drop(reply.send(result)),
            Self::Messages(messages, reply) => drop(reply.send(Ok(messages))),
            Self::Rejected(rejected, reply) => drop(reply.send(Ok(rejected))),
            Self::Depth(depth, reply) => drop(reply.send(Ok(depth))),
        }
    }

    /// The commit failed. So did this, even a refusal: it was judged on changes that are gone.
    fn fail(self, fault: Fault) {
        match self {
            Self::Write(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Transact(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Messages(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Rejected(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Depth(_, reply) => drop(reply.send(Err(fault.into()))),
        }
    }
}

impl Request {
    fn fail(self, fault: Fault) {
        match self {
            Self::Write(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Transact(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Take(_, _, reply) => drop(reply.send(Err(fault.into()))),
            Self::Ask(_, _, reply) => drop(reply.send(Err(fault.into()))),
            Self::Depth(_, _, reply) => drop(reply.send(Err(fault.into()))),
        }
    }
}

/// The thread's state.
pub(super) struct Writer {
    connection: Connection,
    profile: TableProfile,
    rows: Rows,
    /// SQLite's count of other connections' commits, as last seen.
    seen: i64,
}

impl Writer {
    pub(super) fn new(connection: Connection, profile: TableProfile) -> Self {
        Self {
            connection,
            profile,
            rows: Rows::default(),
            seen: 0,
        }
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        // Both are kept from group to group: they are large, and the allocator tidies up at each.
        let mut group = Vec::with_capacity(GROUP_REQUESTS_MAX);
        let mut answers = Vec::with_capacity(GROUP_REQUESTS_MAX);
        while requests.blocking_recv_many(&mut group, GROUP_REQUESTS_MAX) > 0 {
            self.serve(&mut group, &mut answers);
            self.rows.age();
        }
    }

    /// Does a group of requests in one transaction.
    fn serve(&mut self, group: &mut Vec<Request>, answers: &mut Vec<Answer>) {
        let mut left = group.drain(..);
        let done = self.commit(&mut left, answers);
        let Err(fault) = done else {
            answers.drain(..).for_each(Answer::tell);
            return;
        };
        self.roll_back();
        for answer in answers.drain(..) {
            answer.fail(fault.clone());
        }
        for request in left {
            request.fail(fault.clone());
        }
    }

    fn commit(
        &mut self,
        requests: &mut impl Iterator<Item = Request>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Fault> {
        self.connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute([])?;
        self.notice_others()?;
        for request in requests {
            let (answer, fault) = self.carry_out(request);
            answers.push(answer);
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
        self.rows.flush(&self.connection)?;
        let commit = self.connection.prepare_cached("COMMIT")?.execute([]);
        match commit {
            Ok(_) => Ok(()),
            Err(error) => Err(Fault::of_commit(&error)),
        }
    }

    /// Another process may have written what we hold a copy of.
    fn notice_others(&mut self) -> rusqlite::Result<()> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if version != self.seen {
            self.seen = version;
            self.rows.clear();
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        self.rows.clear();
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "the ledger's transaction could not be rolled back");
        }
    }

    /// With a fault, the whole group cannot go on; the answer's result does not count then.
    fn carry_out(&mut self, request: Request) -> (Answer, Option<Fault>) {
        match request {
            Request::Write(write, reply) => {
                let (result, fault) = part(self.write(write));
                (Answer::Write(result, reply), fault)
            }
            Request::Transact(writes, reply) => {
                let (result, fault) = part(self.transact(writes));
                (Answer::Transact(result, reply), fault)
            }
            Request::Take(queue, take, reply) => {
                let (messages, fault) = or_none(messages::take(&self.connection, &queue, take));
                (Answer::Messages(messages, reply), fault)
            }
            Request::Ask(queue, asked, reply) => {
                let done = messages::carry_out(&self.connection, &queue, asked);
                let (rejected, fault) = or_none(done);
                (Answer::Rejected(rejected, reply), fault)
            }
            Request::Depth(queue, now, reply) => {
                let (depth, fault) = or_none(messages::depth(&self.connection, &queue, now));
                (Answer::Depth(depth, reply), fault)
            }
        }
    }

    fn write(&mut self, write: Write) -> Result<Option<Row>, Stop> {
        self.rows.load(&self.connection, &write.key)?;
        let before = self.rows.get(&write.key);
        if !Row::meets(before, &write.when) {
            return Err(TableError::ConditionFailed { failed: vec![0] }.into());
        }
        bounds::check_change(self.profile, before, &write)?;
        let row = self.rows.change(write.key);
        bounds::apply(row, write.change);
        Ok(row.clone())
    }

    fn transact(&mut self, writes: Vec<Write>) -> Result<(), Stop> {
        let mut failed = Vec::new();
        for (index, write) in writes.iter().enumerate() {
            self.rows.load(&self.connection, &write.key)?;
            if !Row::meets(self.rows.get(&write.key), &write.when) {
                failed.push(index);
            }
        }
        if !failed.is_empty() {
            return Err(TableError::ConditionFailed { failed }.into());
        }
        for write in &writes {
            bounds::check_change(self.profile, self.rows.get(&write.key), write)?;
        }
        for write in writes {
            match write.change {
                Change::Check => {}
                Change::Put(_) | Change::Update(_) | Change::Delete => {
                    bounds::apply(self.rows.change(write.key), write.change);
                }
            }
        }
        Ok(())
    }
}

/// Parts what concerns one request from what ends its group.
fn part<T>(result: Result<T, Stop>) -> (Result<T, TableError>, Option<Fault>) {
    match result {
        Ok(done) => (Ok(done), None),
        Err(Stop::Refused(error)) => (Err(error), None),
        Err(Stop::Fault(fault)) => (Err(fault.clone().into()), Some(fault)),
    }
}

fn or_none<T: Default>(result: rusqlite::Result<T>) -> (T, Option<Fault>) {
    match result {
        Ok(done) => (done, None),
        Err(error) => (T::default(), Some(error.into())),
    }
}
