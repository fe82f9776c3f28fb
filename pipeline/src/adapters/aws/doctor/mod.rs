//! Looks whether a job's things in an account are there, are as they should be, and can be reached. Changes nothing.
//!
//! Each file looks at one kind of thing and says what it found, and what to do about it.

mod buckets;
mod clock;
mod ingest;
mod lanes;
mod ledger;

use serde::Serialize;

use super::blueprint::ApplyError;
use super::classify::Fault;
use super::config::Clients;
use crate::core::job::{InputSpec, Job, Location};
use crate::ports::Clock;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works, or may work, and wants a look.
    Warn,
    /// It cannot work like this.
    Fail,
}

impl Health {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The thing.
    pub what: String,
    /// How it stands.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Check {
    fn new(health: Health, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            health,
            found: found.into(),
            help: None,
        }
    }

    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Health::Ok, what, found)
    }

    fn warn(what: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Health::Warn, what, found).helped(help)
    }

    fn fail(what: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(Health::Fail, what, found).helped(help)
    }

    fn helped(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What most of what is missing wants.
const PROVISION: &str = "trommel provision JOB --apply makes it so";

/// Looks at all that the job needs, at one time: an endpoint that nobody answers is waited for once.
pub async fn examine(clients: &Clients, job: &Job, wall: &dyn Clock) -> Vec<Check> {
    let ingest = async {
        match &job.input {
            InputSpec::Events(events) => ingest::examine(clients, events).await,
            InputSpec::Objects(_)
            | InputSpec::Jsonl(_)
            | InputSpec::Json(_)
            | InputSpec::Csv { .. }
            | InputSpec::Inline(_)
            | InputSpec::Range { .. } => Vec::new(),
        }
    };
    let places = places(job);
    let buckets = places
        .iter()
        .map(|(what, place)| buckets::examine(clients, what, place));
    let (ledger, ingest, lanes, buckets, clock) = futures_util::join!(
        ledger::examine(clients, job),
        ingest,
        lanes::examine(clients, job),
        futures_util::future::join_all(buckets),
        clock::examine(clients, wall),
    );
    let groups = [ledger, ingest, lanes, buckets, vec![clock]];
    groups.into_iter().flatten().collect()
}

/// What is read and written in buckets, beside the events' own.
fn places(job: &Job) -> Vec<(&'static str, Location)> {
    let input = match &job.input {
        InputSpec::Objects(place)
        | InputSpec::Jsonl(place)
        | InputSpec::Json(place)
        | InputSpec::Csv { file: place, .. } => Some(place),
        InputSpec::Inline(_) | InputSpec::Range { .. } | InputSpec::Events(_) => None,
    };
    let named = [
        ("input", input),
        ("results", job.results.as_ref()),
        ("scratch", job.scratch.as_ref()),
    ];
    let placed = named
        .into_iter()
        .filter_map(|(what, place)| Some((what, place?.clone())));
    placed.collect()
}

/// A thing that could not be looked at: what happened says what to do.
fn unlooked(what: impl Into<String>, error: &ApplyError) -> Check {
    Check::new(Health::Fail, what, error.why.clone())
}

/// A request that failed, as a check.
fn refused(what: impl Into<String>, fault: &Fault) -> Check {
    Check::new(Health::Fail, what, fault.told())
}
