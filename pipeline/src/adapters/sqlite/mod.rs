//! The embedded ledger: one SQLite file with the rows and the queues, durable at each answer.
//!
//! One thread writes and commits in groups (`writer`), two read (`reader`); the ports' methods
//! hand them requests over bounded channels. The file is readable with the `sqlite3` shell. Which
//! process may *run* the ledger is a matter of [`RunnerLock`]; any may read it or write a wish.
#![expect(
    clippy::disallowed_methods,
    reason = "an adapter touches the real clock and real threads"
)]

mod error;
mod lock;
mod messages;
mod queue;
mod reader;
mod row;
mod rows;
mod schema;
mod table;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Notify, mpsc};

pub use error::OpenError;
pub use lock::{LockError, RunnerLock};
pub use queue::SqliteQueue;
pub use table::SqliteTable;

use crate::adapters::memory::EMBEDDED_PROFILE;
use crate::ports::runtime::Clock;

/// How many prepared statements a connection keeps: all of ours.
const STATEMENTS_KEPT: usize = 32;

/// How long apart a file that is locked is tried, for as long as a statement would wait. SQLite itself
/// does not wait where a file is first logged ahead, or was just closed by its last user: both take
/// milliseconds.
const OPENINGS_APART: Duration = Duration::from_millis(10);

/// What an opened ledger is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only, beside whoever writes. The file must be there; it is not changed, and writes
    /// are refused.
    Read,
    /// Reading and writing; the file and its directory are made if they are not there. Several
    /// processes may, one at a time at each commit.
    Write,
}

/// An open ledger. Its threads end when it and all that came from it are dropped; nothing that was
/// answered is lost if the process dies instead.
pub struct SqliteLedger {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    table: SqliteTable,
    arrivals: Mutex<BTreeMap<String, Arc<Notify>>>,
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens the ledger at `path`; blocks for a few file operations. `clock` times the queues:
    /// wall-clock time in the file, ticks while waiting.
    ///
    /// # Errors
    /// [`OpenError`], in words for the user.
    pub fn open(path: &Path, access: Access, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let writer = match access {
            Access::Read => None,
            Access::Write => {
                let connection = patiently(|| open_for_writing(path))?;
                let writer = writer::Writer::new(connection, EMBEDDED_PROFILE);
                let (sender, requests) = mpsc::channel(writer::WAITING_MAX);
                start(path, "ledger-write", move || writer.run(requests))?;
                Some(sender)
            }
        };
        let table = SqliteTable {
            writer,
            points: start_reader(path, "ledger-get")?,
            ranges: start_reader(path, "ledger-query")?,
        };
        Ok(Self {
            path: path.to_owned(),
            clock,
            table,
            arrivals: Mutex::default(),
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its rows.
    pub fn table(&self) -> SqliteTable {
        self.table.clone()
    }

    /// The queue of this name; it is there once something was sent to it.
    pub fn queue(&self, name: &str) -> SqliteQueue {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = arrivals.entry(name.to_owned()).or_default().clone();
        SqliteQueue {
            name: name.to_owned(),
            writer: self.table.writer.clone(),
            clock: self.clock.clone(),
            arrived,
        }
    }
}

fn start(path: &Path, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    match builder.spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError::Failed {
            path: path.to_owned(),
            reason: format!("no thread for it: {error}"),
        }),
    }
}

fn start_reader(path: &Path, name: &str) -> Result<mpsc::Sender<reader::Request>, OpenError> {
    let connection = patiently(|| open_for_reading(path))?;
    let (sender, requests) = mpsc::channel(reader::WAITING_MAX);
    start(path, name, move || reader::run(&connection, requests))?;
    Ok(sender)
}

fn patiently(open: impl Fn() -> Result<Connection, OpenError>) -> Result<Connection, OpenError> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(OpenError::Busy(_)) if begun.elapsed() < schema::BUSY_TIMEOUT => {
                std::thread::sleep(OPENINGS_APART);
            }
            result => return result,
        }
    }
}

fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(directory) = directory
        && let Err(error) = std::fs::create_dir_all(directory)
    {
        return Err(OpenError::Directory {
            path: directory.to_owned(),
            reason: error.to_string(),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| OpenError::of(path, &error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    schema::prepare(&mut connection, path)?;
    Ok(connection)
}

fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing(path.to_owned()));
    }
    let plain = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open_as(path, path.as_os_str(), plain) {
        // To read a file that was closed whole, SQLite makes an index of its log beside it. Where it cannot, as on a
        // file system that may only be read, and there is no log, the file is read as one that nobody changes.
        Err(OpenError::Failed { .. }) if !has_log(path) => {
            open_as(path, &unchanging(path), plain | OpenFlags::SQLITE_OPEN_URI)
        }
        result => result,
    }
}

/// Opens the file for reading, by this name.
fn open_as(path: &Path, name: &OsStr, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connection =
        Connection::open_with_flags(name, flags).map_err(|error| OpenError::of(path, &error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    schema::prepare_reader(&connection, path)?;
    Ok(connection)
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Path::new(&log).exists()
}

/// The name of a file that nobody changes ("Uniform Resource Identifiers", immutable).
fn unchanging(path: &Path) -> OsString {
    use std::fmt::Write as _;
    let mut name = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => name.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
            byte => write!(name, "%{byte:02x}").expect("a String takes everything"),
        }
    }
    name.push_str("?immutable=1");
    name.into()
}
