//! Frozen parts, the reader's cursor and the router's progress.

use serde::{Deserialize, Serialize};

use crate::core::id::{Generation, RunId, SHARDS};
use crate::core::part::{Cursor, Part, Place};
use crate::core::planted::{Bug, is_planted};
use crate::core::run::RunStatus;
use crate::ports::{Condition, Key, Query, Row, Update, Write};

use super::error::{LedgerError, damaged};
use super::intakes::IntakeCounts;
use super::{Ledger, SCHEMA_VERSION, keys};

/// How far a shard's pages have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Every page before this name is settled, but for the stragglers.
    pub low: String,
    /// The last part of this shard whose pages were made, plus one; 0: none yet.
    pub dispatched: u32,
    /// Pages below `low` that are not settled.
    pub stragglers: Vec<String>,
    /// The redrive that last went back to the beginning; 0: none.
    pub generation: u32,
    /// Event mode: what was taken in through this shard, and met beside it.
    pub intake: IntakeCounts,
    /// Event mode: nothing is taken in here any more.
    pub sealed: bool,
}

/// Where the reader stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// It goes on here.
    At(Cursor),
    /// The input is read: the total is final.
    Done,
}

impl Ledger {
    /// Records a frozen part and the cursor behind it, if nobody did before.
    ///
    /// # Errors
    /// [`LedgerError::Raced`] if another reader was faster, or the run is not RUNNING any more.
    pub async fn freeze(
        &self,
        run: &RunId,
        part: &Part,
        cursor: &Cursor,
    ) -> Result<(), LedgerError> {
        let cursor_text = serde_json::to_string(cursor).expect("a cursor serialises");
        let mut writes = vec![
            creation(run, part),
            Write::update(
                keys::run(run),
                vec![
                    Condition::Equals("parts".into(), i64::from(part.number).into()),
                    Condition::Equals("inputDone".into(), 0.into()),
                    // What arrives after the run's end must not add to a total that was told.
                    Condition::Equals("status".into(), RunStatus::Running.as_str().into()),
                ],
                vec![
                    Update::Set("parts".into(), i64::from(cursor.parts).into()),
                    Update::Set("cursor".into(), cursor_text.into()),
                    Update::Add("total".into(), i64::from(part.items)),
                ],
            ),
        ];
        if is_planted(Bug::FrozenTwice) {
            for write in &mut writes {
                write.when.clear();
            }
        }
        if is_planted(Bug::CursorBeforePart) {
            let part = writes.remove(0);
            self.write(writes.remove(0)).await?;
            return self.write(part).await.map(|_| ());
        }
        match self.transact(writes).await {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            // The reader that starts again at the cursor learns what became of it.
            result => result,
        }
    }

    /// Records that the input is read to its end: the total is final from here on.
    pub async fn finish_input(&self, run: &RunId, cursor: &Cursor) -> Result<(), LedgerError> {
        let cursor_text = serde_json::to_string(cursor).expect("a cursor serialises");
        let write = Write::update(
            keys::run(run),
            vec![Condition::Equals(
                "parts".into(),
                i64::from(cursor.parts).into(),
            )],
            vec![
                Update::Set("inputDone".into(), 1.into()),
                Update::Set("cursor".into(), cursor_text.into()),
            ],
        );
        match self.write(write).await {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            // Setting it twice is setting it once.
            result => result.map(|_| ()),
        }
    }

    /// A part, if it is frozen.
    pub async fn part(&self, run: &RunId, number: u32) -> Result<Option<Part>, LedgerError> {
        let key = keys::part(run, number);
        match self.get(&key).await? {
            Some(row) => decode(&key, number, &row).map(Some),
            None => Ok(None),
        }
    }

    /// Parts from `first` on, in order, at most `rows_max`.
    pub async fn parts_from(
        &self,
        run: &RunId,
        first: u32,
        rows_max: usize,
    ) -> Result<Vec<Part>, LedgerError> {
        let query = Query::all(keys::parts(run), rows_max)
            .between(format!("{first:08}"), Query::LAST.to_owned());
        let mut parts = Vec::new();
        for (sk, row) in self.query_all(query, rows_max).await? {
            let key = Key::new(keys::parts(run), &sk);
            let number = sk
                .parse()
                .map_err(|_| damaged(&key, "its name is no number"))?;
            parts.push(decode(&key, number, &row)?);
        }
        Ok(parts)
    }

    /// The progress of all shards, by their number.
    pub async fn progress(&self, run: &RunId) -> Result<Vec<Progress>, LedgerError> {
        let mut shards = vec![Progress::default(); SHARDS as usize];
        let query = Query::all(keys::all_progress(run), SHARDS as usize);
        for (sk, row) in self.query_all(query, usize::MAX).await? {
            let shard: Option<usize> = sk.parse().ok();
            match shard.and_then(|shard| shards.get_mut(shard)) {
                Some(progress) => *progress = progress_of(&row),
                None => {
                    let key = Key::new(keys::all_progress(run), &sk);
                    return Err(damaged(&key, "there is no such shard"));
                }
            }
        }
        Ok(shards)
    }

    /// The progress of one shard.
    pub(super) async fn shard_progress(
        &self,
        run: &RunId,
        shard: u32,
    ) -> Result<Progress, LedgerError> {
        let row = self.get(&keys::progress(run, shard)).await?;
        Ok(row.as_ref().map(progress_of).unwrap_or_default())
    }

    /// The next part whose pages are to be made.
    pub async fn next_part_to_route(&self, run: &RunId) -> Result<u32, LedgerError> {
        let mut next = u32::MAX;
        for (shard, progress) in (0..SHARDS).zip(self.progress(run).await?) {
            next = next.min(progress.next_part(shard));
        }
        Ok(next)
    }

    /// Records that the pages of `part` are made. It never goes back: what a slower router records
    /// later must not hide the pages of later parts from the sweeper.
    pub async fn dispatched(&self, run: &RunId, part: u32) -> Result<(), LedgerError> {
        let key = keys::progress(run, part % SHARDS);
        let next = i64::from(part + 1);
        let updates = vec![
            Update::Set("v".into(), SCHEMA_VERSION.into()),
            Update::Set("dispatched".into(), next.into()),
        ];
        // A part finds the smaller number of an earlier one; the shard's first finds none.
        let later = Condition::AtMost("dispatched".into(), next);
        let first = Condition::Missing("dispatched".into());
        for when in [later, first] {
            let write = Write::update(key.clone(), vec![when], updates.clone());
            match self.write(write).await {
                Err(error) if error.is_condition() => {}
                result => return result.map(|_| ()),
            }
        }
        Ok(())
    }

    /// Records how far a shard is settled, unless a redrive went back to the beginning since `seen`.
    ///
    /// # Errors
    /// One did, or the ledger does not answer.
    pub async fn advance_low(
        &self,
        run: &RunId,
        shard: u32,
        seen: &Progress,
        low: &str,
        stragglers: &[String],
    ) -> Result<(), LedgerError> {
        let generation = i64::from(seen.generation);
        let when = match generation {
            0 => Condition::Missing("gen".into()),
            _ => Condition::Equals("gen".into(), generation.into()),
        };
        let updates = vec![
            Update::Set("v".into(), SCHEMA_VERSION.into()),
            Update::Set("low".into(), low.into()),
            Update::Set("stragglers".into(), stragglers.join(" ").into()),
        ];
        let write = Write::update(keys::progress(run, shard), vec![when], updates);
        self.write(write).await.map(|_| ())
    }

    /// A redrive begins: pages below the low water are about to be unsettled again.
    pub async fn reset_low(
        &self,
        run: &RunId,
        shard: u32,
        generation: Generation,
    ) -> Result<(), LedgerError> {
        let updates = vec![
            Update::Set("v".into(), SCHEMA_VERSION.into()),
            Update::Set("gen".into(), i64::from(generation.0).into()),
            Update::Remove("low".into()),
            Update::Remove("stragglers".into()),
        ];
        let write = Write::update(keys::progress(run, shard), Vec::new(), updates);
        self.write(write).await.map(|_| ())
    }
}

/// The write that makes a part.
pub(super) fn creation(run: &RunId, part: &Part) -> Write {
    let place = serde_json::to_string(&part.place).expect("a place serialises");
    let row = Row::new()
        .with("v", SCHEMA_VERSION)
        .with("items", i64::from(part.items))
        .with("place", place);
    Write::create(keys::part(run, part.number), row)
}

fn progress_of(row: &Row) -> Progress {
    let number = |name: &str| row.num(name).and_then(|n| u32::try_from(n).ok());
    let stragglers = row.text("stragglers").unwrap_or("");
    Progress {
        low: row.text("low").unwrap_or("").to_owned(),
        dispatched: number("dispatched").unwrap_or(0),
        stragglers: stragglers.split_whitespace().map(str::to_owned).collect(),
        generation: number("gen").unwrap_or(0),
        intake: IntakeCounts::of(row),
        sealed: row.num("sealed").is_some(),
    }
}

fn decode(key: &Key, number: u32, row: &Row) -> Result<Part, LedgerError> {
    let items = row.num("items").and_then(|n| u32::try_from(n).ok());
    let place: Option<Place> = row
        .text("place")
        .and_then(|text| serde_json::from_str(text).ok());
    match (items, place) {
        (Some(items), Some(place)) => Ok(Part {
            number,
            items,
            place,
        }),
        (None, _) => Err(damaged(key, "items cannot be read")),
        (_, None) => Err(damaged(key, "place cannot be read")),
    }
}

impl Progress {
    /// The first part of this shard whose pages are not made.
    pub fn next_part(&self, shard: u32) -> u32 {
        match self.dispatched {
            0 => shard,
            dispatched => dispatched - 1 + SHARDS,
        }
    }

    /// The names between which this shard's unsettled pages lie, but for the stragglers.
    pub fn range(&self) -> (String, String) {
        let from = if self.low.is_empty() {
            " ".to_owned()
        } else {
            self.low.clone()
        };
        (from, format!("{:08}-~", self.dispatched.saturating_sub(1)))
    }
}
