//! Queues: found by name or URL, made, and their attributes set where they differ.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::Value;

use super::{ApplyError, Deed, Found, is_code};
use crate::adapters::aws::classify::Fault;
use crate::adapters::aws::config::Clients;

/// A queue's attributes, by name.
pub(in crate::adapters::aws) type Attributes = HashMap<QueueAttributeName, String>;

/// A lane's message is a hint that costs one read, so it need not stay hidden long after it was lost; whoever
/// receives says how long it needs.
pub(super) const VISIBILITY: Duration = Duration::from_secs(30);

/// The longest that SQS allows ("SetQueueAttributes", MessageRetentionPeriod).
pub(super) const RETENTION: Duration = Duration::from_hours(14 * 24);

/// Long polls for whoever does not ask for them.
const WAIT: Duration = Duration::from_secs(20);

/// What every queue has.
pub(super) fn lane_attributes() -> Vec<(QueueAttributeName, String)> {
    let seconds = |duration: Duration| duration.as_secs().to_string();
    vec![
        (QueueAttributeName::VisibilityTimeout, seconds(VISIBILITY)),
        (
            QueueAttributeName::MessageRetentionPeriod,
            seconds(RETENTION),
        ),
        (
            QueueAttributeName::ReceiveMessageWaitTimeSeconds,
            seconds(WAIT),
        ),
    ]
}

/// Brings a queue into being, with these attributes. Its URL, if it is there in the end.
pub(super) async fn go(
    clients: &Clients,
    place: &str,
    wanted: Vec<(QueueAttributeName, String)>,
    deed: Deed,
    found: &mut Found,
) -> Result<Option<String>, ApplyError> {
    let what = format!("queue `{}`", name_of(place));
    let Some(url) = url(clients, place).await? else {
        let url = match deed {
            Deed::Look => None,
            Deed::Make => Some(create(clients, place, wanted).await?),
        };
        found.created.push(what);
        return Ok(url);
    };
    let have = attributes(clients, place, &url).await?;
    let changes = differing(&have, wanted);
    let told: Vec<String> = changes
        .iter()
        .map(|(name, value)| told(&have, name, value))
        .collect();
    if deed == Deed::Make && !changes.is_empty() {
        set(clients, place, &url, changes).await?;
    }
    found.met(what, &told);
    Ok(Some(url))
}

/// A queue's name, also where it is named by its URL.
pub(in crate::adapters::aws) fn name_of(place: &str) -> &str {
    if is_url(place) {
        place.rsplit('/').next().unwrap_or(place)
    } else {
        place
    }
}

fn is_url(place: &str) -> bool {
    place.starts_with("https://") || place.starts_with("http://")
}

/// The queue's URL; none if there is no such queue.
pub(in crate::adapters::aws) async fn url(
    clients: &Clients,
    place: &str,
) -> Result<Option<String>, ApplyError> {
    if is_url(place) {
        return Ok(Some(place.to_owned()));
    }
    match clients.sqs.get_queue_url().queue_name(place).send().await {
        Ok(answer) => Ok(answer.queue_url),
        Err(error) if is_code(&error, &["QueueDoesNotExist", "NonExistentQueue"]) => Ok(None),
        Err(error) => Err(failed(place, Fault::of(&error))),
    }
}

/// All attributes of a queue.
pub(in crate::adapters::aws) async fn attributes(
    clients: &Clients,
    place: &str,
    url: &str,
) -> Result<Attributes, ApplyError> {
    let answer = clients
        .sqs
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await
        .map_err(|error| failed(place, Fault::of(&error)))?;
    Ok(answer.attributes.unwrap_or_default())
}

/// The queue's ARN.
pub(in crate::adapters::aws) fn arn(attributes: &Attributes) -> &str {
    let arn = attributes.get(&QueueAttributeName::QueueArn);
    arn.map_or("", String::as_str)
}

async fn create(
    clients: &Clients,
    place: &str,
    wanted: Vec<(QueueAttributeName, String)>,
) -> Result<String, ApplyError> {
    let answer = clients
        .sqs
        .create_queue()
        .queue_name(place)
        .set_attributes(Some(wanted.into_iter().collect()))
        .send()
        .await
        .map_err(|error| failed(place, Fault::of(&error)))?;
    Ok(answer.queue_url.unwrap_or_default())
}

pub(super) async fn set(
    clients: &Clients,
    place: &str,
    url: &str,
    attributes: Vec<(QueueAttributeName, String)>,
) -> Result<(), ApplyError> {
    clients
        .sqs
        .set_queue_attributes()
        .queue_url(url)
        .set_attributes(Some(attributes.into_iter().collect()))
        .send()
        .await
        .map_err(|error| failed(place, Fault::of(&error)))?;
    Ok(())
}

fn failed(place: &str, fault: Fault) -> ApplyError {
    ApplyError::new(format!("queue `{}`", name_of(place)), fault.queue())
}

/// The wanted attributes that the queue does not have so.
fn differing(
    have: &Attributes,
    wanted: Vec<(QueueAttributeName, String)>,
) -> Vec<(QueueAttributeName, String)> {
    let differs = |(name, value): &(QueueAttributeName, String)| {
        have.get(name).is_none_or(|is| !is_same(is, value))
    };
    wanted.into_iter().filter(differs).collect()
}

/// Some attributes are JSON, which services write in forms of their own: a number as text, other spaces.
fn is_same(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok().map(plain);
    match (parsed(one), parsed(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(_) | None, _) => false,
    }
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(fields.map(|(name, value)| (name, plain(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(plain).collect()),
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

fn told(have: &Attributes, name: &QueueAttributeName, value: &str) -> String {
    let is_document = value.starts_with('{');
    match have.get(name) {
        _ if is_document => name.to_string(),
        Some(before) => format!("{name} {before} → {value}"),
        None => format!("{name} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_set_and_documents_are_compared_by_what_they_say() {
        let have = Attributes::from([
            (QueueAttributeName::VisibilityTimeout, "30".to_owned()),
            (QueueAttributeName::MaximumMessageSize, "4096".to_owned()),
            (
                QueueAttributeName::RedrivePolicy,
                r#"{"maxReceiveCount":"50","deadLetterTargetArn":"a"}"#.to_owned(),
            ),
        ]);
        let wanted = vec![
            (QueueAttributeName::VisibilityTimeout, "30".to_owned()),
            (QueueAttributeName::MaximumMessageSize, "1048576".to_owned()),
            (
                QueueAttributeName::RedrivePolicy,
                r#"{"deadLetterTargetArn": "a", "maxReceiveCount": 50}"#.to_owned(),
            ),
        ];
        let changes = differing(&have, wanted);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(
            told(&have, &changes[0].0, &changes[0].1),
            "MaximumMessageSize 4096 → 1048576"
        );
    }

    #[test]
    fn a_queue_that_is_named_by_its_url_has_a_name() {
        assert_eq!(
            name_of("https://sqs.eu-west-1.amazonaws.com/1/inbox"),
            "inbox"
        );
        assert_eq!(name_of("inbox"), "inbox");
    }
}
