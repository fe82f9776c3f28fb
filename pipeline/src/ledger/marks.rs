//! Marks in the ledger: one conditional write an event, so that of two intakes that meet the same event one takes it.
//!
//! A mark alone takes nothing in: what it points to may never become ready. That is [`super::intakes`]' word.

use crate::core::event::EventKind;
use crate::core::mark::{Claim, Compared, Mark, MarkOf, Sequencer, Taken};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::ports::table::Change;
use crate::ports::{Condition, Key, Row, Write};

use super::error::{LedgerError, damaged};
use super::{Ledger, SCHEMA_VERSION, UNCLEAR_TRIES_MAX, keys, unclear};

/// Another intake may write a mark between the look and the writing; each round somebody's write went through.
const RACES_MAX: u32 = 20;

/// What became of an event at its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It is this intake's.
    Won,
    /// This one took it before: a duplicate, if that intake became ready.
    Held(Claim),
    /// Something later was taken.
    Late,
}

/// A mark as it was last seen, with the name of the write that made it so.
struct Seen {
    mark: Mark,
    write: String,
}

/// What a conditional write of a mark came to.
enum Tried {
    /// It is there.
    Written,
    /// Somebody else's is.
    Found(Option<Seen>),
}

impl Ledger {
    /// Marks an event of this kind for the intake it names, or says why not.
    ///
    /// # Errors
    /// If the store does not answer it may be marked: repeat it, and it finds its own mark.
    pub async fn mark(
        &self,
        at: &MarkOf,
        (kind, event): (EventKind, Taken),
        sequencer: Sequencer,
        expires: Timestamp,
    ) -> Result<Marked, LedgerError> {
        let mut seen = None;
        for _ in 0..RACES_MAX {
            let next = match next_mark(at, (kind, &event), seen.as_ref(), sequencer) {
                Ok(next) => next,
                Err(done) => return Ok(done),
            };
            match self.try_mark(at, seen.as_ref(), &next, expires).await? {
                Tried::Written => return Ok(Marked::Won),
                Tried::Found(found) => seen = found,
            }
        }
        Err(LedgerError::Raced)
    }

    /// Gives what an intake that will never be ready had marked to another. False if it is not so any more.
    pub async fn pass_mark(
        &self,
        at: &MarkOf,
        from: &Claim,
        to: &Claim,
        expires: Timestamp,
    ) -> Result<bool, LedgerError> {
        let Some(seen) = self.seen_mark(at).await? else {
            return Ok(false);
        };
        let next = seen.mark.given(from, to);
        if next == seen.mark {
            return Ok(false);
        }
        match self.try_mark(at, Some(&seen), &next, expires).await? {
            Tried::Written => Ok(true),
            Tried::Found(_) => Ok(false),
        }
    }

    /// The mark of an object, if there is one.
    pub async fn mark_of(&self, at: &MarkOf) -> Result<Option<Mark>, LedgerError> {
        Ok(self.seen_mark(at).await?.map(|seen| seen.mark))
    }

    async fn seen_mark(&self, at: &MarkOf) -> Result<Option<Seen>, LedgerError> {
        let key = keys::mark(at);
        match self.get(&key).await? {
            Some(row) => decode(&key, &row).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the mark on the condition that it is as it was seen.
    async fn try_mark(
        &self,
        at: &MarkOf,
        seen: Option<&Seen>,
        mark: &Mark,
        expires: Timestamp,
    ) -> Result<Tried, LedgerError> {
        let name = self.next_write();
        let when = match seen {
            _ if is_planted(Bug::MarksUnconditional) => Vec::new(),
            Some(seen) => vec![Condition::Equals("write".into(), seen.write.clone().into())],
            None => vec![Condition::Absent],
        };
        let write = Write {
            key: keys::mark(at),
            when,
            change: Change::Put(encode(mark, name.as_str(), expires)),
        };
        for _ in 0..UNCLEAR_TRIES_MAX {
            let error = match self.write(write.clone()).await {
                Ok(_) => return Ok(Tried::Written),
                Err(error) if error.is_condition() || error.is_unclear() => error,
                Err(error) => return Err(error),
            };
            let found = self.seen_mark(at).await?;
            if found
                .as_ref()
                .is_some_and(|found| found.write == name.as_str())
            {
                return Ok(Tried::Written);
            }
            if error.is_condition() {
                return Ok(Tried::Found(found));
            }
        }
        Err(unclear("a mark"))
    }
}

/// The mark to write, or what there is to say without writing one.
fn next_mark(
    at: &MarkOf,
    (kind, event): (EventKind, &Taken),
    seen: Option<&Seen>,
    sequencer: Sequencer,
) -> Result<Mark, Marked> {
    let Some(seen) = seen else {
        return Ok(Mark::first(event.clone()));
    };
    let compared = match (&at.version, kind) {
        (Some(_), _) => seen.mark.compare_version(),
        (None, EventKind::Listed) => seen.mark.compare_listed(event.clone()),
        (None, EventKind::Created | EventKind::Restored | EventKind::Removed) => {
            seen.mark.compare(event.clone(), sequencer)
        }
    };
    match compared {
        Compared::News(next) => Ok(next),
        Compared::Same(held) if held == event.by => Err(Marked::Won),
        Compared::Same(held) => Err(Marked::Held(held)),
        Compared::Late if is_planted(Bug::LateTaken) => Err(Marked::Won),
        Compared::Late => Err(Marked::Late),
    }
}

fn encode(mark: &Mark, write: &str, expires: Timestamp) -> Row {
    Row::new()
        .with("v", SCHEMA_VERSION)
        .with(
            "mark",
            serde_json::to_string(mark).expect("a mark serialises"),
        )
        .with("write", write)
        // In seconds: what DynamoDB's time to live counts in ("Using time to live").
        .with("expires", expires.0 / 1000)
}

fn decode(key: &Key, row: &Row) -> Result<Seen, LedgerError> {
    let mark = row
        .text("mark")
        .and_then(|text| serde_json::from_str(text).ok());
    match (mark, row.text("write")) {
        (Some(mark), Some(write)) => Ok(Seen {
            mark,
            write: write.to_owned(),
        }),
        (Some(_) | None, _) => Err(damaged(key, "the mark cannot be read")),
    }
}
