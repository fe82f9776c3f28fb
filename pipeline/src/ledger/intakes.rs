//! Intakes: what a session takes out of the ingest queue becomes ready at once, or never.
//!
//! One transaction makes the part and its pages, counts what was taken on a shard's progress that is not sealed,
//! and says that the intake is ready. Who meets the mark of an intake that never came to that declares it void
//! first: the same row, so that of the two only one happens.

use serde::{Deserialize, Serialize};

use crate::core::id::{Generation, JobName, PageId, RunId, SHARDS};
use crate::core::mark::IntakeId;
use crate::core::packing::Packed;
use crate::core::page::Page;
use crate::core::part::{Part, Place};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::ports::{Condition, Key, Row, TableError, Update, Write};

use super::error::{LedgerError, damaged};
use super::parts::Progress;
use super::{Ledger, SCHEMA_VERSION, UNCLEAR_TRIES_MAX, keys, pages, parts, unclear};

/// Two sessions of the same slot may want the same part number; each round one of them gets it.
const RACES_MAX: u32 = 50;

/// Writes of a transaction beside the pages': progress, part, and the intake's own row.
const OTHER_WRITES: usize = 3;

/// The most pages that one intake makes: no rule of the ledger needs more than ten writes in a transaction.
pub const INTAKE_PAGES_MAX: usize = 10 - OTHER_WRITES;

/// What was met in the ingest queue, beside what was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntakeCounts {
    /// Items: the total, once the window is sealed.
    pub taken: u64,
    /// Events that were taken before.
    pub duplicates: u64,
    /// Events that came after a later one of the same key.
    pub superseded: u64,
    /// Removals.
    pub removed: u64,
    /// Events of other prefixes, and objects that are gone where that is to be skipped.
    pub ignored: u64,
    /// Messages that nobody can read.
    pub quarantined: u64,
}

impl IntakeCounts {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.taken += other.taken;
        self.duplicates += other.duplicates;
        self.superseded += other.superseded;
        self.removed += other.removed;
        self.ignored += other.ignored;
        self.quarantined += other.quarantined;
    }

    /// Whether it counts nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("taken", self.taken),
            ("duplicates", self.duplicates),
            ("superseded", self.superseded),
            ("removed", self.removed),
            ("ignored", self.ignored),
            ("quarantined", self.quarantined),
        ]
    }

    pub(super) fn updates(&self) -> Vec<Update> {
        let mut updates = vec![Update::Set("v".into(), SCHEMA_VERSION.into())];
        for (name, number) in self.named() {
            if number > 0 {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                updates.push(Update::Add(name.into(), number));
            }
        }
        updates
    }

    pub(super) fn of(row: &Row) -> Self {
        let number = |name: &str| {
            let number = row.num(name).and_then(|n| u64::try_from(n).ok());
            number.unwrap_or(0)
        };
        Self {
            taken: number("taken"),
            duplicates: number("duplicates"),
            superseded: number("superseded"),
            removed: number("removed"),
            ignored: number("ignored"),
            quarantined: number("quarantined"),
        }
    }
}

/// What became of an intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeState {
    /// Its items are this run's.
    Ready {
        /// The run.
        run: RunId,
        /// The part that they are.
        part: u32,
    },
    /// It will never be ready.
    Void,
}

/// What is to be made ready.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Its name.
    pub id: IntakeId,
    /// How many items it is.
    pub items: u32,
    /// Where they lie.
    pub place: Place,
    /// Its pages, at most [`INTAKE_PAGES_MAX`], of whatever part.
    pub pages: Vec<Packed>,
    /// What else was met.
    pub counts: IntakeCounts,
    /// When its row may go: no earlier than the marks that name it.
    pub expires: Timestamp,
}

/// How making ready ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyEnd {
    /// The items are the run's, in these pages.
    Ready(Vec<PageId>),
    /// The window is sealed: use the next one.
    Sealed,
    /// Somebody declared the intake void: begin again under another name.
    Void,
}

impl Ledger {
    /// What became of an intake; none: it may become ready yet.
    pub async fn intake(
        &self,
        job: &JobName,
        id: &IntakeId,
    ) -> Result<Option<IntakeState>, LedgerError> {
        let key = keys::intake(job, id);
        match self.get(&key).await? {
            Some(row) => decode(&key, &row).map(Some),
            None => Ok(None),
        }
    }

    /// Declares an intake void, unless it is ready; answers what it is then.
    pub async fn void_intake(
        &self,
        job: &JobName,
        id: &IntakeId,
        expires: Timestamp,
    ) -> Result<IntakeState, LedgerError> {
        let key = keys::intake(job, id);
        let row = Row::new()
            .with("v", SCHEMA_VERSION)
            .with("state", "void")
            .with("expires", expires.0 / 1000);
        if is_planted(Bug::IntakesNotVoided) {
            return Ok(IntakeState::Void);
        }
        for _ in 0..UNCLEAR_TRIES_MAX {
            match self.write(Write::create(key.clone(), row.clone())).await {
                Ok(_) => return Ok(IntakeState::Void),
                Err(error) if error.is_condition() || error.is_unclear() => {}
                Err(error) => return Err(error),
            }
            if let Some(state) = self.intake(job, id).await? {
                return Ok(state);
            }
        }
        Err(unclear("an intake's end"))
    }

    /// Makes what was taken in ready, all of it at once. May be repeated.
    pub async fn make_ready(
        &self,
        job: &JobName,
        run: &RunId,
        intake: &Intake,
    ) -> Result<ReadyEnd, LedgerError> {
        let shard = self.slot() % SHARDS;
        for _ in 0..RACES_MAX {
            let progress = self.shard_progress(run, shard).await?;
            if progress.sealed && !is_planted(Bug::SealOverlooked) {
                return Ok(ReadyEnd::Sealed);
            }
            let part = progress.next_part(shard);
            let writes = writes(job, run, intake, (shard, part, &progress));
            match self.transact(writes).await {
                Ok(()) => return Ok(ReadyEnd::Ready(ids(intake, part))),
                Err(LedgerError::Table(
                    TableError::ConditionFailed { .. } | TableError::Unclear(_),
                )) => {}
                Err(error) => return Err(error),
            }
            match self.intake(job, &intake.id).await? {
                Some(IntakeState::Ready { part, .. }) => {
                    return Ok(ReadyEnd::Ready(ids(intake, part)));
                }
                Some(IntakeState::Void) => return Ok(ReadyEnd::Void),
                None => {}
            }
        }
        Err(LedgerError::Raced)
    }

    /// Counts what was met where nothing was taken. What is counted may be counted again after a lost reply:
    /// these numbers are for people.
    pub async fn count_met(&self, run: &RunId, counts: &IntakeCounts) -> Result<(), LedgerError> {
        debug_assert!(
            counts.taken == 0,
            "what is taken is counted as it becomes ready"
        );
        let key = keys::progress(run, self.slot() % SHARDS);
        let write = Write::update(key, Vec::new(), counts.updates());
        self.write(write).await.map(|_| ())
    }

    /// Keeps a message that nobody can read, and counts it, once.
    pub async fn quarantine(
        &self,
        job: &JobName,
        run: &RunId,
        message: &Quarantined,
    ) -> Result<(), LedgerError> {
        let counts = IntakeCounts {
            quarantined: 1,
            ..IntakeCounts::default()
        };
        let row = Row::new()
            .with("v", SCHEMA_VERSION)
            .with("body", message.body.as_str())
            .with("reason", message.reason.as_str())
            .with("run", run.as_str())
            .with("at", message.at.0);
        let writes = vec![
            Write::create(keys::quarantine(job, &message.id), row),
            Write::update(
                keys::progress(run, self.slot() % SHARDS),
                Vec::new(),
                counts.updates(),
            ),
        ];
        let mut last = Ok(());
        for _ in 0..UNCLEAR_TRIES_MAX {
            last = self.transact(writes.clone()).await;
            match &last {
                // It is there.
                Err(error) if error.is_condition() => return Ok(()),
                Err(error) if error.is_unclear() => {}
                Ok(()) | Err(_) => return last,
            }
        }
        last
    }

    /// The messages of a job that nobody could read, with the window each came into, in the order of their names.
    pub async fn quarantined(
        &self,
        job: &JobName,
        rows_max: usize,
    ) -> Result<Vec<(RunId, Quarantined)>, LedgerError> {
        let pk = keys::quarantines(job);
        let mut messages = Vec::new();
        let query = crate::ports::Query::all(&pk, rows_max);
        for (sk, row) in self.query_all(query, rows_max).await? {
            let text = |name: &str| row.text(name).unwrap_or_default().to_owned();
            let message = Quarantined {
                body: text("body"),
                reason: text("reason"),
                at: Timestamp(row.num("at").unwrap_or_default()),
                id: sk,
            };
            messages.push((RunId::new(text("run")), message));
        }
        Ok(messages)
    }
}

/// A message that nobody can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The queue's name for it.
    pub id: String,
    /// Its body, cut to [`QUARANTINED_BYTES_MAX`].
    pub body: String,
    /// Why it cannot be read.
    pub reason: String,
    /// When it was sent.
    pub at: Timestamp,
}

/// Notifications of S3 are up to 64 KB ("Amazon S3 event notifications"); what is no notification need not be kept
/// whole to be known again.
pub const QUARANTINED_BYTES_MAX: usize = 64 * 1024;

fn writes(
    job: &JobName,
    run: &RunId,
    intake: &Intake,
    (shard, number, seen): (u32, u32, &Progress),
) -> Vec<Write> {
    let mut counts = intake.counts;
    counts.taken = u64::from(intake.items);
    if is_planted(Bug::TakenUncounted) {
        counts.taken -= 1;
    }
    let mut when = vec![
        Condition::Missing("sealed".into()),
        match seen.dispatched {
            0 => Condition::Missing("dispatched".into()),
            dispatched => Condition::Equals("dispatched".into(), i64::from(dispatched).into()),
        },
    ];
    if is_planted(Bug::SealOverlooked) {
        when.remove(0);
    }
    let mut updates = counts.updates();
    updates.push(Update::Set(
        "dispatched".into(),
        i64::from(number + 1).into(),
    ));
    let part = Part {
        number,
        items: intake.items,
        place: intake.place.clone(),
    };
    let row = Row::new()
        .with("v", SCHEMA_VERSION)
        .with("state", "ready")
        .with("run", run.as_str())
        .with("part", i64::from(number))
        .with("expires", intake.expires.0 / 1000);
    let mut writes = vec![
        Write::update(keys::progress(run, shard), when, updates),
        parts::creation(run, &part),
        Write::create(keys::intake(job, &intake.id), row),
    ];
    for (id, packed) in ids(intake, number).into_iter().zip(&intake.pages) {
        let page = Page::new(id, packed.lane, packed.stretches.clone(), Generation(0));
        writes.push(pages::create(run, &page));
    }
    if is_planted(Bug::PartsUnnumbered) {
        writes[0].when.truncate(1);
        for write in &mut writes[1..] {
            write.when.clear();
        }
    }
    writes
}

fn ids(intake: &Intake, part: u32) -> Vec<PageId> {
    let id = |packed: &Packed| PageId { part, ..packed.id };
    intake.pages.iter().map(id).collect()
}

fn decode(key: &Key, row: &Row) -> Result<IntakeState, LedgerError> {
    let part = row
        .num("part")
        .and_then(|number| u32::try_from(number).ok());
    match (row.text("state"), row.text("run"), part) {
        (Some("void"), _, _) => Ok(IntakeState::Void),
        (Some("ready"), Some(run), Some(part)) => Ok(IntakeState::Ready {
            run: RunId::new(run),
            part,
        }),
        (Some(_) | None, _, _) => Err(damaged(key, "the intake's state cannot be read")),
    }
}
