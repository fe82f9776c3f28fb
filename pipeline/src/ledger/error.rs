//! Why the ledger could not do what was asked.

use crate::core::invariant::Violation;
use crate::core::page::Refusal;
use crate::core::run::RunRefusal;
use crate::ports::{Key, Row, TableError};

use super::SCHEMA_VERSION;

/// An error of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store said no, or did not answer.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The row is not there.
    #[error("the ledger has no {0}")]
    NotFound(String),
    /// Somebody else was faster: read again and decide anew.
    #[error("the row was changed in the meantime")]
    Raced,
    /// The row was written by a later version.
    #[error(
        "row {key} has schema version {version}, and this program knows {SCHEMA_VERSION}: use the newer trommel"
    )]
    Newer {
        /// The row.
        key: String,
        /// Its version.
        version: i64,
    },
    /// The row cannot be read.
    #[error("row {key} is damaged: {problem}")]
    Damaged {
        /// The row.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The page's machine refused.
    #[error(transparent)]
    Page(#[from] Refusal),
    /// The run's machine refused.
    #[error(transparent)]
    Run(#[from] RunRefusal),
    /// A promise would have been broken.
    #[error("{0}")]
    Broken(String),
}

impl From<Violation> for LedgerError {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation.to_string())
    }
}

impl LedgerError {
    /// Whether a condition did not hold.
    pub(super) fn is_condition(&self) -> bool {
        matches!(self, Self::Table(TableError::ConditionFailed { .. }))
    }

    /// Whether it is unknown whether the write happened.
    pub(super) fn is_unclear(&self) -> bool {
        matches!(self, Self::Table(TableError::Unclear(_)))
    }
}

/// The row, if this program knows its schema version.
pub(super) fn readable(row: Row, key: impl FnOnce() -> Key) -> Result<Row, LedgerError> {
    match row.num("v") {
        Some(version) if version <= SCHEMA_VERSION => Ok(row),
        Some(version) => Err(LedgerError::Newer {
            key: key().to_string(),
            version,
        }),
        None => Err(LedgerError::Damaged {
            key: key().to_string(),
            problem: "it has no schema version".to_owned(),
        }),
    }
}

/// A damaged row.
pub(super) fn damaged(key: &Key, problem: impl Into<String>) -> LedgerError {
    LedgerError::Damaged {
        key: key.to_string(),
        problem: problem.into(),
    }
}
