//! What went wrong, in words for people, and by what the caller should do.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::ports::queue::QueueError;
use crate::ports::table::TableError;

/// Why a ledger file cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing there to read.
    #[error("there is no ledger at {}", .0.display())]
    Missing(PathBuf),
    /// Its directory is not there and cannot be made.
    #[error("cannot make the directory {} for the ledger: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Some other file.
    #[error(
        "{} is not a ledger: it belongs to another program, or is damaged; name another file, or move this one away",
        .0.display()
    )]
    NotALedger(PathBuf),
    /// A newer program's file.
    #[error(
        "{} was made by a newer trommel (its layout is {found}, this one knows {known}): use that one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The newest layout known here.
        known: i64,
    },
    /// It may not be written.
    #[error("{} may only be read: give yourself the right to write it and its directory", .0.display())]
    ReadOnly(PathBuf),
    /// Another process keeps it locked.
    #[error("{} is held by another process for too long: see what it does, then try again", .0.display())]
    Busy(PathBuf),
    /// Anything else.
    #[error("cannot open the ledger {}: {reason}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotALedger(path),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly(path),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(path),
            Some(_) | None => Self::Failed {
                path,
                reason: error.to_string(),
            },
        }
    }
}

/// Why a commit or a read failed; the same for all whom it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Trying again does not help.
    Refused(String),
    /// Nothing happened; later it may.
    Busy(String),
    /// It may have happened.
    Unclear(String),
}

/// The store's thread is gone: only after a panic in it.
pub(super) const GONE: &str = "the ledger's thread has ended; start the program again";

impl Fault {
    /// What a failed statement means, before its transaction is committed: nothing was written.
    pub(super) fn of_statement(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(format!(
                "another process has held the ledger for too long ({error})"
            )),
            Some(ErrorCode::DiskFull) => Self::Refused(format!(
                "the disk of the ledger is full ({error}): make room, then resume"
            )),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Refused(format!("the ledger may only be read ({error})"))
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Refused(format!(
                "the ledger is damaged ({error}): restore it from a copy"
            )),
            Some(_) | None => Self::Refused(format!("the ledger cannot be used: {error}")),
        }
    }

    /// What a failed commit means: if the disk failed while syncing, nobody knows what it holds.
    pub(super) fn of_commit(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => {
                Self::Unclear(format!("the disk of the ledger failed ({error})"))
            }
            Some(_) | None => Self::of_statement(error),
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::of_statement(&error)
    }
}

impl From<Fault> for TableError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(why) => Self::Refused(why),
            Fault::Busy(why) => Self::Throttled(why),
            Fault::Unclear(why) => Self::Unclear(why),
        }
    }
}

impl From<Fault> for QueueError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(why) => Self::Refused(why),
            Fault::Busy(why) => Self::Throttled(why),
            Fault::Unclear(why) => Self::Unclear(why),
        }
    }
}
