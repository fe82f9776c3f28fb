//! What commands show, as plain data: tables and JSON are made from the same structs.
//!
//! Names in JSON are those of DescribeMapRun where it has one.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::core::class::Class;
use crate::core::id::{ItemId, JobName, RunId};
use crate::core::lane::Lane;
use crate::core::outcome::{ItemCounts, Outcome};
pub use crate::core::run::RunStatus;
use crate::core::time::Timestamp;
use crate::core::tolerance::Tolerance;
use crate::ledger::IntakeCounts;

use super::text;

/// A run at one moment: the page of `status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Its status.
    pub status: RunStatus,
    /// Why it is so, in words: the verdict, or why it pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Redrives so far.
    pub generation: u32,
    /// How long it has been running, pauses included.
    #[serde(rename = "elapsedSeconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Its items.
    pub item_counts: ItemCounts,
    /// Whether the input is read to its end.
    pub total_is_final: bool,
    /// Messages that could not be parsed (event mode).
    pub quarantined: u64,
    /// What was met in the ingest queue (event mode).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake: Option<IntakeCounts>,
    /// How old the oldest message may be that waits in the ingest queue; none: it was empty (event mode).
    #[serde(
        rename = "oldestMessageSeconds",
        serialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub oldest_message: Option<Duration>,
    /// What it may have.
    #[serde(flatten, serialize_with = "tolerance")]
    pub tolerance: Tolerance,
    /// Failures that count against it in this generation.
    pub failures: u64,
    /// The most there may be, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_max: Option<u64>,
    /// Items settled a second, lately.
    pub rate_per_second: f64,
    /// How long it will take at this rate; none while the total may still grow.
    #[serde(
        rename = "etaSeconds",
        serialize_with = "maybe_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub eta: Option<Duration>,
    /// Failures by class, the most frequent first.
    #[serde(serialize_with = "class_counts")]
    pub classes: Vec<(String, u64)>,
    /// Calls at one time.
    pub max_concurrency: u32,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn maybe_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_secs_f64())
        .serialize(serializer)
}

fn tolerance<S: Serializer>(tolerance: &Tolerance, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        #[serde(skip_serializing_if = "Option::is_none")]
        tolerated_failure_count: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tolerated_failure_percentage: Option<f64>,
    }
    let percent = tolerance.percent.map(|percent| percent.to_string());
    Named {
        tolerated_failure_count: tolerance.count,
        tolerated_failure_percentage: percent
            .map(|text| text.parse().expect("a percentage prints as a number")),
    }
    .serialize(serializer)
}

fn class_counts<S: Serializer>(counts: &[(String, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Named<'a> {
        class: &'a str,
        count: u64,
    }
    let named = counts.iter().map(|(class, count)| Named {
        class,
        count: *count,
    });
    serializer.collect_seq(named)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the shape that serde asks for"
)]
fn moment<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text::moment(*at))
}

fn text_form<S: Serializer>(item: &ItemId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(item)
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A line of `runs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobName,
    /// Its status.
    pub status: RunStatus,
    /// Redrives so far.
    pub generation: u32,
    /// When it began.
    #[serde(serialize_with = "moment")]
    pub started_at: Timestamp,
    /// From its beginning to its end, or to now.
    #[serde(rename = "elapsedSeconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Its items.
    pub item_counts: ItemCounts,
}

/// Where an item stands: settled with an outcome, or on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemState {
    /// Not settled and not running.
    Pending,
    /// In a call right now.
    Running,
    /// Settled.
    Settled(Outcome),
}

impl ItemState {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Settled(Outcome::Succeeded),
        Self::Settled(Outcome::Failed),
        Self::Settled(Outcome::TimedOut),
        Self::Settled(Outcome::Aborted),
        Self::Settled(Outcome::Skipped),
    ];

    /// The name, as in DescribeMapRun's counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Settled(outcome) => outcome.as_str(),
        }
    }
}

impl Serialize for ItemState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A line of `items`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemRow {
    /// The item.
    #[serde(serialize_with = "text_form")]
    pub item: ItemId,
    /// Where it stands.
    pub state: ItemState,
    /// The lane it is on.
    pub lane: Lane,
    /// Calls so far.
    pub attempts: u32,
    /// Its size, if it is an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its key, or the start of its value.
    pub label: String,
    /// What kind of failure, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A line of `items --group`: failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRow {
    /// How many items.
    pub count: u64,
    /// Their class.
    pub class: Class,
    /// What their causes have in common.
    pub fingerprint: String,
    /// One of them …
    #[serde(serialize_with = "text_form")]
    pub example: ItemId,
    /// … its key or value …
    pub label: String,
    /// … and its cause.
    pub cause: String,
}

/// All about one item: the page of `show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemPage {
    /// Its run.
    pub run: RunId,
    /// The item, as it stands now.
    #[serde(flatten)]
    pub row: ItemRow,
    /// What the handler gets, as JSON text.
    pub input: String,
    /// What the handler answered, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What is known of its past, the oldest first.
    pub history: Vec<HistoryRow>,
}

/// One thing that happened to an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRow {
    /// When.
    #[serde(serialize_with = "moment")]
    pub at: Timestamp,
    /// In which generation.
    pub generation: u32,
    /// What: `failed`, `retried`, `moved`, `succeeded`.
    pub event: String,
    /// How long the call took, if it was one.
    #[serde(
        rename = "tookMilliseconds",
        serialize_with = "maybe_milliseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub took: Option<Duration>,
    /// More of it: class and cause, or where it went.
    pub detail: String,
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn maybe_milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => milliseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// One JSON text for `--json`: an object or a list, on one line, with a newline at its end.
pub fn json_line<T: Serialize + ?Sized>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("views hold only texts and numbers");
    line.push('\n');
    line
}
