//! What Trommel needs in an account: the ledger's table and a queue for each lane of a job.
//!
//! The command line and the tests apply the same blueprint. Ingest queues and buckets are the
//! user's own, and are not made here.
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for AWS to make a table happens before any port is there"
)]

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
};
use aws_sdk_sqs::types::QueueAttributeName;

use super::classify::Fault;
use super::config::Clients;
use super::expression::{PK, SK};
use crate::core::id::JobName;
use crate::core::lane::Lane;

/// "Amazon SQS message quotas": a queue's name.
const QUEUE_NAME_CHARS_MAX: usize = 80;

/// "Naming rules" of DynamoDB: 3 to 255 characters; but the lanes' queues carry the table's name too.
const TABLE_NAME_CHARS_MIN: usize = 3;

/// A lane's message is a hint that costs one read, so it need not stay hidden long after it was lost.
const VISIBILITY: Duration = Duration::from_secs(30);

/// The longest that SQS allows ("SetQueueAttributes", MessageRetentionPeriod). A lost hint is found by
/// the sweeper, but only after a while.
const RETENTION: Duration = Duration::from_hours(14 * 24);

/// Long polls for whoever does not ask for them.
const WAIT: Duration = Duration::from_secs(20);

/// A new table is ready within seconds on AWS; an emulator may have to start its database first.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Between two looks at a table that is being made.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Names and settings of what is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    table: String,
    queues: Vec<String>,
}

/// What [`Blueprint::apply`] found or made, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// There already; queues had their settings set again.
    pub present: Vec<String>,
    /// Made now.
    pub created: Vec<String>,
}

/// Why something could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct ApplyError {
    /// Which table or queue.
    pub what: String,
    /// What happened and what to do.
    pub why: String,
}

impl ApplyError {
    fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
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
            table: table.to_owned(),
            queues: Vec::new(),
        })
    }

    /// With the queues of a job's lanes.
    ///
    /// # Errors
    /// Says which queue's name is too long.
    pub fn with_job(mut self, job: &JobName, lanes: &[Lane]) -> Result<Self, ApplyError> {
        for lane in lanes {
            let queue = Self::queue_name(&self.table, job, *lane);
            if queue.len() > QUEUE_NAME_CHARS_MAX {
                let why = "is longer than the 80 characters SQS takes: shorten the table's or the job's name";
                return Err(ApplyError::new(format!("queue `{queue}`"), why));
            }
            self.queues.push(queue);
        }
        Ok(self)
    }

    /// The queue of a job's lane.
    pub fn queue_name(table: &str, job: &JobName, lane: Lane) -> String {
        format!("{table}-{job}-{lane}")
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The queues' names.
    pub fn queues(&self) -> &[String] {
        &self.queues
    }

    /// Makes what is not there, and waits until it can be used. May be repeated, also by several at once.
    ///
    /// # Errors
    /// Names what could not be made, and why.
    pub async fn apply(&self, clients: &Clients) -> Result<Found, ApplyError> {
        let mut found = Found::default();
        self.apply_table(clients, &mut found).await?;
        for queue in &self.queues {
            apply_queue(clients, queue, &mut found).await?;
        }
        Ok(found)
    }

    async fn apply_table(&self, clients: &Clients, found: &mut Found) -> Result<(), ApplyError> {
        let what = format!("table `{}`", self.table);
        if self.table_state(clients).await? == TableState::Ready {
            found.present.push(self.table.clone());
            return Ok(());
        }
        if self.create_table(clients).await? {
            found.created.push(self.table.clone());
        } else {
            found.present.push(self.table.clone());
        }
        let ready = async {
            while self.table_state(clients).await? != TableState::Ready {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        match tokio::time::timeout(READY_WITHIN, ready).await {
            Ok(done) => done,
            Err(_) => Err(ApplyError::new(
                what,
                "was not ready within two minutes: look at it and try again",
            )),
        }
    }

    async fn table_state(&self, clients: &Clients) -> Result<TableState, ApplyError> {
        let what = format!("table `{}`", self.table);
        let answer = clients
            .dynamodb
            .describe_table()
            .table_name(&self.table)
            .send()
            .await;
        let table = match answer {
            Ok(answer) => answer.table,
            Err(error) if is_code(&error, &["ResourceNotFoundException"]) => {
                return Ok(TableState::Missing);
            }
            Err(error) => return Err(ApplyError::new(what, Fault::of(&error).table())),
        };
        let Some(table) = table else {
            return Ok(TableState::Missing);
        };
        let keys: Vec<(&str, &KeyType)> = table
            .key_schema()
            .iter()
            .map(|key| (key.attribute_name(), key.key_type()))
            .collect();
        if keys != [(PK, &KeyType::Hash), (SK, &KeyType::Range)] {
            let why = "is there, but its keys are not `pk` and `sk`: it is somebody else's; choose another name";
            return Err(ApplyError::new(what, why));
        }
        if table.table_status() == Some(&TableStatus::Active) {
            Ok(TableState::Ready)
        } else {
            Ok(TableState::Pending)
        }
    }

    /// Whether it was us who made it.
    async fn create_table(&self, clients: &Clients) -> Result<bool, ApplyError> {
        let answer = clients
            .dynamodb
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(text_attribute(PK))
            .attribute_definitions(text_attribute(SK))
            .key_schema(key(PK, KeyType::Hash))
            .key_schema(key(SK, KeyType::Range))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &["ResourceInUseException"]) => Ok(false),
            Err(error) => {
                let what = format!("table `{}`", self.table);
                Err(ApplyError::new(what, Fault::of(&error).table()))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableState {
    Missing,
    Pending,
    Ready,
}

/// Makes a queue, or sets the settings of one that is there.
async fn apply_queue(clients: &Clients, name: &str, found: &mut Found) -> Result<(), ApplyError> {
    let failed = |why: String| ApplyError::new(format!("queue `{name}`"), why);
    let asked = clients.sqs.get_queue_url().queue_name(name).send().await;
    let url = match asked {
        Ok(answer) => answer.queue_url.unwrap_or_default(),
        Err(error) if is_code(&error, &["QueueDoesNotExist", "NonExistentQueue"]) => {
            let made = clients
                .sqs
                .create_queue()
                .queue_name(name)
                .set_attributes(Some(queue_attributes()))
                .send()
                .await;
            made.map_err(|error| failed(Fault::of(&error).queue().to_string()))?;
            found.created.push(name.to_owned());
            return Ok(());
        }
        Err(error) => return Err(failed(Fault::of(&error).queue().to_string())),
    };
    clients
        .sqs
        .set_queue_attributes()
        .queue_url(url)
        .set_attributes(Some(queue_attributes()))
        .send()
        .await
        .map_err(|error| failed(Fault::of(&error).queue().to_string()))?;
    found.present.push(name.to_owned());
    Ok(())
}

fn queue_attributes() -> HashMap<QueueAttributeName, String> {
    let seconds = |duration: Duration| duration.as_secs().to_string();
    HashMap::from([
        (QueueAttributeName::VisibilityTimeout, seconds(VISIBILITY)),
        (
            QueueAttributeName::MessageRetentionPeriod,
            seconds(RETENTION),
        ),
        (
            QueueAttributeName::ReceiveMessageWaitTimeSeconds,
            seconds(WAIT),
        ),
    ])
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

fn text_attribute(name: &str) -> AttributeDefinition {
    AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .expect("name and type are set")
}

fn key(name: &str, key_type: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder()
        .attribute_name(name)
        .key_type(key_type)
        .build()
        .expect("name and type are set")
}

/// Whether the service answered with one of these codes (SQS's old names carry a prefix).
fn is_code<E>(
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
        assert!(long.with_job(&job, &[Lane::Function]).is_err());
    }
}
