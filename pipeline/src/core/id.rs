//! Names of things: runs, sessions, parts, pages, items.
//!
//! Every identifier has one text form, used alike in keys of the ledger, in output and in log lines.
//! An item's identity is (run, page, index) where it first stood, for ever: retries, escalation and
//! redrive change its state, never its name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many shards a run's pages are spread over, so that no partition of DynamoDB takes them all
/// (1,000 write units a partition and second, "DynamoDB burst and adaptive capacity").
pub const SHARDS: u32 = 16;

/// How many tally rows a run has: one hot counter would cap a run at about 500 settles a second
/// (transactions cost two of a partition's 1,000 write units).
pub const TALLY_SLOTS: u32 = 16;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub std::sync::Arc<str>);

        impl $name {
            /// Wraps the text form.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(text.as_ref().into())
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// One start of a job; memorable, such as `brave-heron-4f2a`.
    RunId
}
text_id! {
    /// A job's name: `[a-z0-9-]`, at most [`JobName::CHARS_MAX`] characters; it names queues and tables' rows.
    JobName
}
text_id! {
    /// One worker or router process, from its start to its end or its death.
    SessionId
}
text_id! {
    /// Names one write to a page, so that its writer can recognise it after a lost reply.
    WriteId
}

impl JobName {
    /// SQS queue names have at most 80 characters ("Amazon SQS message quotas"); a lane queue is
    /// `<TABLE>-<job>-<lane>`, so half of that is the job's.
    pub const CHARS_MAX: usize = 40;

    /// Why a text cannot name a job, or nothing if it can.
    pub fn problem(text: &str) -> Option<&'static str> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() {
            return Some("is empty");
        }
        if text.len() > Self::CHARS_MAX {
            return Some("is longer than 40 characters");
        }
        if !text.chars().all(plain) {
            return Some("may hold only a-z, 0-9 and '-'");
        }
        None
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter! {
    /// Grows at each change of a page's hands and fences the former holder.
    Epoch
}
counter! {
    /// 0, then one more for each redrive of the run.
    Generation
}

/// A page's name within its run: part, number within the part, and for a page made by escalation
/// the index of the item in the page it came from.
///
/// Names follow from the input alone, so two routers that make the same page make the same row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The frozen part its items come from.
    pub part: u32,
    /// Its number among the part's pages.
    pub number: u32,
    /// Set on a container page made by escalation: the item's index in the page of the same
    /// part and number.
    pub escalated: Option<u8>,
}

impl PageId {
    /// The page `number` of `part`, as the router makes it.
    #[must_use]
    pub fn new(part: u32, number: u32) -> Self {
        Self {
            part,
            number,
            escalated: None,
        }
    }

    /// The page that an item of this page moves to when it escalates.
    #[must_use]
    pub fn escalation_of(self, index: u8) -> Self {
        Self {
            escalated: Some(index),
            ..self
        }
    }

    /// Where the item of this page first stood.
    #[must_use]
    pub fn origin(self, index: u8) -> ItemId {
        let index = self.escalated.unwrap_or(index);
        ItemId {
            part: self.part,
            number: self.number,
            index,
        }
    }

    /// The shard that its row lies in.
    #[must_use]
    pub fn shard(self) -> u32 {
        self.part % SHARDS
    }
}

impl fmt::Display for PageId {
    /// Fixed width, so that rows sort as the input did; an escalation sorts right after its origin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{:05}", self.part, self.number)?;
        match self.escalated {
            Some(index) => write!(f, "e{index:02}"),
            None => Ok(()),
        }
    }
}

/// A text that names no page or item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no page or item")]
pub struct BadId(pub String);

impl FromStr for PageId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned());
        let (part, rest) = text.split_once('-').ok_or_else(bad)?;
        let (number, escalated) = match rest.split_once('e') {
            Some((number, index)) => (number, Some(index.parse().map_err(|_| bad())?)),
            None => (rest, None),
        };
        let part = part.parse().map_err(|_| bad())?;
        let number = number.parse().map_err(|_| bad())?;
        Ok(Self {
            part,
            number,
            escalated,
        })
    }
}

/// An item's name within its run, short enough to type: `3-17-42` is item 42 of page 17 of part 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// The frozen part it was read into.
    pub part: u32,
    /// The page it first stood in.
    pub number: u32,
    /// Its index in that page.
    pub index: u8,
}

impl ItemId {
    /// The page it first stood in.
    #[must_use]
    pub fn page(self) -> PageId {
        PageId::new(self.part, self.number)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.part, self.number, self.index)
    }
}

impl FromStr for ItemId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned());
        let mut fields = text.split('-');
        let mut next = || fields.next().ok_or_else(bad);
        let (part, number, index) = (next()?, next()?, next()?);
        let id = Self {
            part: part.parse().map_err(|_| bad())?,
            number: number.parse().map_err(|_| bad())?,
            index: index.parse().map_err(|_| bad())?,
        };
        if fields.next().is_some() {
            return Err(bad());
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_sort_as_the_input_and_read_back() {
        let pages = [
            PageId::new(0, 0),
            PageId::new(0, 2),
            PageId::new(0, 2).escalation_of(7),
            PageId::new(0, 10),
            PageId::new(12, 0),
        ];
        let texts: Vec<String> = pages.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        for (page, text) in pages.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*page));
        }
    }

    #[test]
    fn an_escalated_item_keeps_the_name_it_was_born_with() {
        let born = PageId::new(3, 17).origin(42);
        let moved = PageId::new(3, 17).escalation_of(42).origin(0);
        assert_eq!(born, moved);
        assert_eq!("3-17-42".parse(), Ok(born));
        assert!("3-17".parse::<ItemId>().is_err());
        assert!("3-17-1-1".parse::<ItemId>().is_err());
    }
}
