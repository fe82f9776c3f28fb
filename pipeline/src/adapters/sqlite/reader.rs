//! Threads that read. Each takes what is waiting and answers it from one snapshot, begun after the
//! last of these requests arrived: so every write that was answered before is in it.
//!
//! Single rows and ranges have a thread each, so that nobody waits for a long range to get one row.

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::error::Fault;
use super::row;
use super::rows::{self, Stop};
use crate::ports::table::{Key, Query, QueryPage, Row, TableError};

/// How many requests may wait for a thread; more wait in their callers.
pub(super) const WAITING_MAX: usize = 4096;

/// The most requests answered from one snapshot: the log cannot be cut while one is open.
const SNAPSHOT_REQUESTS_MAX: usize = 256;

/// A page of results ends here, as DynamoDB's does ("Query": 1 MB), so that no answer grows large.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, TableError>>;

/// One request to a reader.
#[derive(Debug)]
pub(super) enum Request {
    Get(Key, Reply<Option<Row>>),
    Query(Query, Reply<QueryPage>),
}

impl Request {
    fn answer(self, connection: &Connection) {
        match self {
            Self::Get(key, reply) => {
                let found = rows::select(connection, &key).map_err(TableError::from);
                drop(reply.send(found));
            }
            Self::Query(query, reply) => {
                let found = range(connection, &query).map_err(TableError::from);
                drop(reply.send(found));
            }
        }
    }

    fn fail(self, fault: Fault) {
        match self {
            Self::Get(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Query(_, reply) => drop(reply.send(Err(fault.into()))),
        }
    }
}

/// Serves until every sender is gone.
pub(super) fn run(connection: &Connection, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(SNAPSHOT_REQUESTS_MAX);
    while requests.blocking_recv_many(&mut group, SNAPSHOT_REQUESTS_MAX) > 0 {
        serve(connection, &mut group);
    }
}

fn serve(connection: &Connection, group: &mut Vec<Request>) {
    let begun = execute(connection, "BEGIN");
    for request in group.drain(..) {
        match &begun {
            Ok(()) => request.answer(connection),
            Err(error) => request.fail(Fault::of_statement(error)),
        }
    }
    if connection.is_autocommit() {
        return;
    }
    if let Err(error) = execute(connection, "COMMIT") {
        tracing::error!(%error, "a reading of the ledger could not be ended");
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

const AFTER: &str = "SELECT sk, data FROM rows
    WHERE pk = ?1 AND sk > ?2 AND sk <= ?3 ORDER BY sk LIMIT ?4";
const FROM: &str = "SELECT sk, data FROM rows
    WHERE pk = ?1 AND sk >= ?2 AND sk <= ?3 ORDER BY sk LIMIT ?4";

fn range(connection: &Connection, query: &Query) -> Result<QueryPage, Stop> {
    let (sql, start) = match &query.after {
        Some(after) if *after >= query.from => (AFTER, after),
        Some(_) | None => (FROM, &query.from),
    };
    // One more than asked for tells whether there is a next page.
    let limit = i64::try_from(query.limit)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![query.pk, start, query.to, limit])?;
    let mut page = QueryPage::default();
    let mut bytes = 0;
    while let Some(one) = found.next()? {
        let full = page.rows.len() >= query.limit || bytes >= PAGE_BYTES_MAX;
        if full {
            page.next = page.rows.last().map(|(sk, _)| sk.clone());
            break;
        }
        let sk: String = one.get(0)?;
        let text = one.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        bytes += text.len();
        let row = row::decode(text).map_err(|what| rows::unreadable(&query.pk, &sk, &what))?;
        page.rows.push((sk, row));
    }
    Ok(page)
}
