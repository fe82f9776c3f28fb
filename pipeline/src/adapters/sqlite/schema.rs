//! The file's layout, and how a file is told apart from anything else of that name.
//!
//! Rows are readable: `data` is a JSON object of the attributes, so that a person with the `sqlite3`
//! shell sees something. What the attributes mean is the ledger's business, not ours.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::error::OpenError;

/// Marks the file as ours in its header: "Trml".
const APPLICATION_ID: i64 = 0x5472_6d6c;

/// The layout this program writes; a greater number is a newer program's.
const LAYOUT: i64 = 2;

/// Rows of about 1 KB stay on their page: without a rowid, SQLite spills a row that is longer than a
/// quarter of a page ("Database File Format", 1.6), which would double the writes of a settle.
const PAGE_BYTES: u32 = 8192;

/// The log is copied into the file once it has so many pages (16 MB): rarely enough that hot rows are
/// copied once for hundreds of writes, often enough that the log stays small on disk.
const CHECKPOINT_PAGES: u32 = 2048;

/// After a burst the log file is cut back to this.
const LOG_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// How long a statement waits for another process; the others write a wish now and then.
pub(super) const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// What each connection keeps of the file in memory, in KiB.
const PAGE_CACHE_KIB: u32 = 1024;

/// Everything a new file gets. Views for people belong at the end.
const LAYOUT_SQL: &str = "
    CREATE TABLE rows (
        pk TEXT NOT NULL,
        sk TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (pk, sk)
    ) WITHOUT ROWID;

    -- AUTOINCREMENT: a number is never used again, so the handle of a deleted message stays dead.
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        visible_at_ms INTEGER NOT NULL,
        receives INTEGER NOT NULL,
        body TEXT NOT NULL,
        sent_at_ms INTEGER NOT NULL DEFAULT 0
    );

    CREATE INDEX messages_by_visibility ON messages (queue, visible_at_ms, id);
";

/// What brings a file of layout 1 to this one.
const FROM_1_SQL: &str = "ALTER TABLE messages ADD COLUMN sent_at_ms INTEGER NOT NULL DEFAULT 0;";

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// No table yet.
    Empty,
    /// Of layout 1, whose rows are the same.
    First,
    Ours,
    Foreign,
    Newer(i64),
}

fn layout(connection: &Connection) -> rusqlite::Result<Layout> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    Ok(match (application, version, tables) {
        (0, 0, 0) => Layout::Empty,
        (APPLICATION_ID, LAYOUT, _) => Layout::Ours,
        (APPLICATION_ID, 1, _) => Layout::First,
        (APPLICATION_ID, newer, _) if newer > LAYOUT => Layout::Newer(newer),
        _ => Layout::Foreign,
    })
}

/// Settings of every connection; they live no longer than it does.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "cache_size", -i64::from(PAGE_CACHE_KIB))
}

/// Makes the writer's file ready: checks whose it is, lays it out if it is new, has it logged ahead
/// and synced at each commit.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, &error);
    configure(connection).map_err(failed)?;
    // Only a file without content takes it; on any other the statement does nothing.
    connection
        .pragma_update(None, "page_size", PAGE_BYTES)
        .map_err(failed)?;
    check(connection, path)?;
    if connection.is_readonly("main").map_err(failed)? {
        return Err(OpenError::ReadOnly(path.to_owned()));
    }
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    connection
        .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        .map_err(failed)?;
    connection
        .pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)
        .map_err(failed)?;
    create(connection, path)
}

fn create(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, &error);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    // Under the lock: of two programs that open a new file, one finds it laid out.
    let missing = match layout(&transaction).map_err(failed)? {
        Layout::Empty => Some(LAYOUT_SQL),
        Layout::First => Some(FROM_1_SQL),
        Layout::Ours | Layout::Foreign | Layout::Newer(_) => None,
    };
    if let Some(sql) = missing {
        transaction.execute_batch(sql).map_err(failed)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", LAYOUT)
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// Refuses a file that is not a ledger, or one of a newer program. An empty one passes.
fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, &error);
    // In one snapshot: another program may be laying the file out.
    let snapshot = connection.unchecked_transaction().map_err(failed)?;
    let layout = layout(&snapshot).map_err(failed)?;
    snapshot.finish().map_err(failed)?;
    match layout {
        Layout::Empty | Layout::First | Layout::Ours => Ok(()),
        Layout::Foreign => Err(OpenError::NotALedger(path.to_owned())),
        Layout::Newer(found) => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: LAYOUT,
        }),
    }
}

/// As [`prepare`], for a connection that only reads: the file must be a ledger already.
pub(super) fn prepare_reader(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(path, &error);
    configure(connection).map_err(failed)?;
    check(connection, path)?;
    if layout(connection).map_err(failed)? == Layout::Empty {
        return Err(OpenError::NotALedger(path.to_owned()));
    }
    connection
        .pragma_update(None, "query_only", true)
        .map_err(failed)
}
