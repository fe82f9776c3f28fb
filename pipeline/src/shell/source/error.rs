//! Why an input cannot be read (on), in words for users.

use crate::ports::objects::ObjectsError;
use crate::wire::record::InputError;

/// Why an input cannot be read (on).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The input, or a frozen part, is not there.
    #[error("{what} is not there; check its name, or put it back and redrive the run")]
    NotFound {
        /// Its name.
        what: String,
    },
    /// The file is not what it was when its reading began.
    #[error(
        "{file} has changed since this run began to read it; put the former content back and \
         redrive the run, or start a new one"
    )]
    Changed {
        /// Its name.
        file: String,
    },
    /// Its content cannot be read.
    #[error("{file}: {error}")]
    Bad {
        /// Its name.
        file: String,
        /// Where and why.
        error: InputError,
    },
    /// No answer: try again, later.
    #[error("{what} cannot be read or written just now: {why}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// What came instead.
        why: String,
    },
    /// It will not work by trying again.
    #[error(
        "{what} cannot be read or written: {why}; check access and space, then redrive the run"
    )]
    Refused {
        /// What was asked for.
        what: String,
        /// Why it was refused.
        why: String,
    },
}

impl SourceError {
    /// Whether trying again, at the last cursor, may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::NotFound { .. }
            | Self::Changed { .. }
            | Self::Bad { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// An error of the input's store.
    pub(super) fn of_input(what: &str, error: ObjectsError) -> Self {
        let what = what.to_owned();
        match error {
            ObjectsError::NotFound(_) => Self::NotFound { what },
            ObjectsError::Changed(_) => Self::Changed { file: what },
            ObjectsError::Unavailable(why) => Self::Unavailable { what, why },
            ObjectsError::Refused(why) | ObjectsError::Exists(why) => Self::Refused { what, why },
        }
    }

    /// An error of the scratch place.
    pub(super) fn of_scratch(name: &str, error: ObjectsError) -> Self {
        Self::of_input(&format!("the frozen part {name}"), error)
    }
}

/// An input's key or prefix, as people read it.
pub(super) fn label(key: &[u8]) -> String {
    if key.is_empty() {
        return "the input".to_owned();
    }
    String::from_utf8_lossy(key).into_owned()
}
