//! Why an item failed: a class to decide by, a cause to read, a fingerprint to group by.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A cause longer than this is cut: it is evidence for people, kept once per failed item.
pub const CAUSE_BYTES_MAX: usize = 4096;

/// A class a handler names itself is cut to this; Step Functions allows error names of 256
/// ("DescribeExecution", error).
pub const CLASS_BYTES_MAX: usize = 256;

/// What kind of failure it was. Retry, catch and redrive select by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The call ran longer than its lane's timeout.
    Timeout,
    /// The call was ended for its memory.
    OutOfMemory,
    /// The other side asked to slow down; charged to infrastructure, not to the item.
    Throttled,
    /// The call died without an answer: a signal, a panic.
    Crashed,
    /// The item was running alone at two deaths of its worker.
    WorkerDied,
    /// The handler said it failed and named no class.
    HandlerError,
    /// Larger than the largest lane takes.
    TooLarge,
    /// The source is no longer what was listed.
    SourceChanged,
    /// The source is no longer there.
    Gone,
    /// The item itself cannot be read.
    BadInput,
    /// The answer cannot be read, or is larger than its bound.
    BadOutput,
    /// A service or file the call needs could not be reached.
    Unavailable,
    /// A class of the handler's own: `NotAnImage`, or `Exit3` for a bare exit code.
    Named(String),
}

/// The classes Trommel itself gives, in the order of the documentation.
pub const BUILT_IN: [Class; 12] = [
    Class::Timeout,
    Class::OutOfMemory,
    Class::Throttled,
    Class::Crashed,
    Class::WorkerDied,
    Class::HandlerError,
    Class::TooLarge,
    Class::SourceChanged,
    Class::Gone,
    Class::BadInput,
    Class::BadOutput,
    Class::Unavailable,
];

impl Class {
    /// The class's name as users write it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Timeout => "Timeout",
            Self::OutOfMemory => "OutOfMemory",
            Self::Throttled => "Throttled",
            Self::Crashed => "Crashed",
            Self::WorkerDied => "WorkerDied",
            Self::HandlerError => "HandlerError",
            Self::TooLarge => "TooLarge",
            Self::SourceChanged => "SourceChanged",
            Self::Gone => "Gone",
            Self::BadInput => "BadInput",
            Self::BadOutput => "BadOutput",
            Self::Unavailable => "Unavailable",
            Self::Named(name) => name,
        }
    }

    /// A class of that very name, for ends that are not failures (`Aborted`).
    pub fn named(name: &str) -> Self {
        Self::Named(name.to_owned())
    }

    /// The class of that name; a name Trommel does not know is the handler's own.
    pub fn from_name(name: &str) -> Self {
        match BUILT_IN.iter().find(|class| class.as_str() == name) {
            Some(class) => class.clone(),
            None => Self::Named(cut(name, CLASS_BYTES_MAX).to_owned()),
        }
    }

    /// Whether one bad item among several may cause it, so that halving the call finds the item.
    /// A throttle, a refused access or a missing service concerns the call, whatever it carries.
    pub fn may_be_one_item(&self) -> bool {
        match self {
            Self::Timeout
            | Self::OutOfMemory
            | Self::Crashed
            | Self::HandlerError
            | Self::BadOutput
            | Self::BadInput
            | Self::Named(_) => true,
            Self::Throttled
            | Self::WorkerDied
            | Self::TooLarge
            | Self::SourceChanged
            | Self::Gone
            | Self::Unavailable => false,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Class {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::from_name(&name))
    }
}

/// One failure of one item or call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub class: Class,
    /// In words, at most [`CAUSE_BYTES_MAX`] bytes.
    pub cause: String,
}

impl Failure {
    /// A failure with its cause cut to the bound.
    pub fn new(class: Class, cause: impl AsRef<str>) -> Self {
        Self {
            class,
            cause: cut(cause.as_ref(), CAUSE_BYTES_MAX).to_owned(),
        }
    }

    /// What stays the same when only numbers, quoted names and paths differ: failures of one kind
    /// share it. `class: cause` with each run of digits as `#` and each quoted text as `'…'`.
    pub fn fingerprint(&self) -> String {
        /// Long enough to tell messages apart, short enough for a table.
        const CHARS_MAX: usize = 120;
        let mut print = format!("{}: ", self.class);
        let mut quote = None;
        let mut in_digits = false;
        for c in self
            .cause
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(CHARS_MAX)
        {
            match (quote, c) {
                (Some(open), _) if c == open => {
                    quote = None;
                    print.push(c);
                }
                (Some(_), _) => {}
                (None, '\'' | '"' | '`') => {
                    quote = Some(c);
                    print.push(c);
                    print.push('…');
                }
                (None, _) if c.is_ascii_digit() => {
                    if !in_digits {
                        print.push('#');
                    }
                    in_digits = true;
                    continue;
                }
                (None, _) => print.push(c),
            }
            in_digits = false;
        }
        print
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.cause)
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes and ends between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_forgets_numbers_and_quoted_names() {
        let one = Failure::new(
            Class::from_name("NotAnImage"),
            "row 17: \"a.png\" has no header",
        );
        let two = Failure::new(
            Class::from_name("NotAnImage"),
            "row 4711: \"b.png\" has no header",
        );
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint(), "NotAnImage: row #: \"…\" has no header");
    }

    #[test]
    fn every_built_in_class_reads_back_as_itself() {
        for class in BUILT_IN {
            assert_eq!(Class::from_name(class.as_str()), class);
        }
        assert_eq!(Class::from_name("Exit3"), Class::Named("Exit3".into()));
    }

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        let failure = Failure::new(Class::Crashed, "ä".repeat(CAUSE_BYTES_MAX));
        assert_eq!(failure.cause.len(), CAUSE_BYTES_MAX);
    }
}
