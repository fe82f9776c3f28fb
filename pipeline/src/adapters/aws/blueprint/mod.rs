//! What a job needs in an account: the ledger's table, a queue a lane, and for events the way from bucket to queue.
//!
//! The command line and the tests apply the same blueprint, and what it finds is never guessed: each thing is looked
//! at, and made or changed only if it is not as it should be. Buckets are the user's own, and are not made here.
//!
//! Reading order: this file, `table`, `queue`, `ingest`, `task_events`, `notification`, `queue_policy`, `permissions`, `compute`.

mod compute;
mod ingest;
pub(super) mod notification;
mod permissions;
pub(super) mod queue;
pub(super) mod queue_policy;
pub(super) mod table;
mod task_events;

use std::fmt;

use serde::Serialize;

use super::classify::Fault;
use super::config::Clients;
use crate::core::id::JobName;
use crate::core::lane::Lane;

pub use ingest::{DEAD_LETTERS_AFTER, Ingest};
pub(super) use ingest::{bucket_arn, configured, dead_letters};
pub use permissions::{Arns, permissions};
pub use task_events::{EventRule, TaskEvents};

/// "Amazon SQS message quotas": a queue's name.
const QUEUE_NAME_CHARS_MAX: usize = 80;

/// "Naming rules" of DynamoDB: 3 to 255 characters; but the lanes' queues carry the table's name too.
const TABLE_NAME_CHARS_MIN: usize = 3;

/// Names and settings of what is to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blueprint {
    table: Option<String>,
    queues: Vec<String>,
    ingest: Option<Ingest>,
    task_events: Vec<TaskEvents>,
}

/// What a blueprint found, made and changed, by name; or would, where it only looked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// There already, and as it should be.
    pub present: Vec<String>,
    /// Made now.
    pub created: Vec<String>,
    /// There already, and changed: each with what was changed.
    pub changed: Vec<String>,
}

impl Found {
    /// Whether nothing was to be made or changed.
    pub fn is_complete(&self) -> bool {
        self.created.is_empty() && self.changed.is_empty()
    }

    /// Notes a thing that was there: changed if there is something to tell, else present.
    fn met(&mut self, what: String, changes: &[String]) {
        if changes.is_empty() {
            self.present.push(what);
        } else {
            self.changed.push(format!("{what}: {}", changes.join(", ")));
        }
    }
}

/// Whether what is missing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It is only told.
    Look,
    /// It is made.
    Make,
}

/// Why something could not be looked at or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ApplyError {
    /// Which table, queue or bucket.
    pub what: String,
    /// What happened and what to do.
    pub why: String,
}

impl ApplyError {
    pub(super) fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

impl Blueprint {
    /// The ledger's table alone.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn new(table: &str) -> Result<Self, ApplyError> {
        if let Some(problem) = table_problem(table) {
            return Err(ApplyError::new(format!("table `{table}`"), problem));
        }
        Ok(Self {
            table: Some(table.to_owned()),
            ..Self::default()
        })
    }

    /// With the queues of a job's lanes.
    ///
    /// # Errors
    /// Says which queue's name is too long.
    pub fn with_job(mut self, job: &JobName, lanes: &[Lane]) -> Result<Self, ApplyError> {
        let table = self.table.as_deref().unwrap_or_default();
        for lane in lanes {
            let queue = Self::queue_name(table, job, *lane);
            if queue.len() > QUEUE_NAME_CHARS_MAX {
                let why = "is longer than the 80 characters SQS takes: shorten the table's or the job's name";
                return Err(ApplyError::new(format!("queue `{queue}`"), why));
            }
            self.queues.push(queue);
        }
        Ok(self)
    }

    /// With the way of a bucket's events into the job's ingest queue.
    ///
    /// # Errors
    /// Says which queue's name is too long.
    pub fn with_ingest(mut self, ingest: Ingest) -> Result<Self, ApplyError> {
        let name = ingest.dead_letters();
        if name.len() > QUEUE_NAME_CHARS_MAX {
            let why = "is longer than the 80 characters SQS takes: shorten the ingest queue's name";
            return Err(ApplyError::new(format!("queue `{name}`"), why));
        }
        self.ingest = Some(ingest);
        Ok(self)
    }

    /// With the queues that the events of tasks come into.
    #[must_use]
    pub fn with_task_events(mut self, all: Vec<TaskEvents>) -> Self {
        self.task_events = all;
        self
    }

    /// The queue of a job's lane.
    pub fn queue_name(table: &str, job: &JobName, lane: Lane) -> String {
        format!("{table}-{job}-{lane}")
    }

    /// The table's name, if the ledger is one.
    pub fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// The lane queues' names.
    pub fn queues(&self) -> &[String] {
        &self.queues
    }

    /// What is there and what is not; nothing is made.
    ///
    /// # Errors
    /// Names what could not be looked at, and why.
    pub async fn look(&self, clients: &Clients) -> Result<Found, ApplyError> {
        Box::pin(self.go(clients, Deed::Look)).await
    }

    /// Makes what is not there, and waits until it can be used. May be repeated, also by several at once.
    ///
    /// # Errors
    /// Names what could not be made, and why.
    pub async fn apply(&self, clients: &Clients) -> Result<Found, ApplyError> {
        Box::pin(self.go(clients, Deed::Make)).await
    }

    async fn go(&self, clients: &Clients, deed: Deed) -> Result<Found, ApplyError> {
        if let Some(ingest) = &self.ingest {
            ingest.find_bucket(clients).await?;
        }
        let mut found = Found::default();
        if let Some(table) = &self.table {
            table::go(clients, table, deed, &mut found).await?;
        }
        for name in &self.queues {
            queue::go(clients, name, queue::lane_attributes(), deed, &mut found).await?;
        }
        if let Some(ingest) = &self.ingest {
            ingest.go(clients, deed, &mut found).await?;
        }
        for events in &self.task_events {
            events.go(clients, deed, &mut found).await?;
        }
        Ok(found)
    }
}

/// Why a text cannot name the table. Its name is part of its queues' names, so what SQS does not take
/// (the dot) is refused here too.
fn table_problem(table: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if table.len() < TABLE_NAME_CHARS_MIN {
        return Some("is shorter than the 3 characters DynamoDB asks for");
    }
    if table.len() > QUEUE_NAME_CHARS_MAX {
        return Some("is longer than 80 characters, and its queues' names begin with it");
    }
    if !table.chars().all(plain) {
        return Some(
            "may hold only letters, digits, '-' and '_', as its queues' names begin with it",
        );
    }
    None
}

/// Whether the service answered with one of these codes (SQS's old names carry a prefix).
pub(super) fn is_code<E>(
    error: &aws_sdk_dynamodb::error::SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>,
    codes: &[&str],
) -> bool
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    let fault = Fault::of(error);
    codes.iter().any(|code| fault.code.ends_with(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_queues_are_named_after_table_job_and_lane() {
        let job = JobName::new("thumbnails");
        let blueprint = Blueprint::new("trommel-prod")
            .and_then(|blueprint| blueprint.with_job(&job, &Lane::ALL))
            .expect("the names are plain and short");
        assert_eq!(
            blueprint.queues(),
            [
                "trommel-prod-thumbnails-function",
                "trommel-prod-thumbnails-container"
            ]
        );
    }

    #[test]
    fn a_name_that_a_service_would_refuse_is_refused_before_it_is_asked() {
        for table in ["ab", "a.b", "a/b", &"x".repeat(81)] {
            assert!(Blueprint::new(table).is_err(), "{table}");
        }
        let long = Blueprint::new(&"x".repeat(60)).expect("80 would do");
        let job = JobName::new("a-job-of-some-length");
        assert!(long.clone().with_job(&job, &[Lane::Function]).is_err());
        let ingest = Ingest {
            queue: "q".repeat(70),
            bucket: "photos".to_owned(),
            prefix: String::new(),
            job,
        };
        assert!(long.with_ingest(ingest).is_err());
    }
}
