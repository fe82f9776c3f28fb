//! What every parser of files gives: records with their place in the file, or an error with its place.

use std::fmt;
use std::sync::Arc;

/// One item as it stands in a file.
///
/// Parsing exactly the bytes from the `start` of one record to the `end` of a later one gives these
/// records and all between them again, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value, as JSON text on one line, at most [`ITEM_BYTES_MAX`](crate::core::item::ITEM_BYTES_MAX).
    pub json: Arc<str>,
    /// Its first byte, counted from the start of the (decompressed) file.
    pub start: u64,
    /// One past its last byte, line end included where the format has one.
    pub end: u64,
    /// The line that `start` lies in, from 1.
    pub line: u64,
    /// The line that `end` lies in.
    pub end_line: u64,
}

/// A place in a file, between two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// The line it lies in, from 1.
    pub line: u64,
}

impl Position {
    /// The start of a file.
    pub const START: Self = Self { offset: 0, line: 1 };
}

/// Input that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InputError {
    /// The line, from 1; 0 where the fault is not in the file but in how the job describes it.
    pub line: u64,
    /// The byte in the line, from 1, if it is known (not after going on in the middle of a line).
    pub column: Option<u64>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => {}
            (line, None) => write!(f, "line {line}: ")?,
            (line, Some(column)) => write!(f, "line {line}, column {column}: ")?,
        }
        write!(f, "{}; {}", self.problem, self.help)
    }
}

impl InputError {
    /// An error of the job's description of the file.
    pub(super) fn of_job(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: None,
            problem: problem.into(),
            help: help.into(),
        }
    }

    /// A record that is longer than an item may be.
    pub(super) fn too_long(line: u64, what: &str) -> Self {
        Self {
            line,
            column: None,
            problem: format!("the {what} is longer than 8 MiB"),
            help: "store the large content as an object and list its key".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_as_far_as_it_knows() {
        let at = |line, column| InputError {
            line,
            column,
            problem: "broken".into(),
            help: "mend it".into(),
        };
        assert_eq!(
            at(17, Some(3)).to_string(),
            "line 17, column 3: broken; mend it"
        );
        assert_eq!(at(17, None).to_string(), "line 17: broken; mend it");
        assert_eq!(at(0, None).to_string(), "broken; mend it");
    }
}
