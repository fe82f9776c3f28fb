//! What Lambda hands to a function that an SQS queue triggers, and what that answers ("Using Lambda with Amazon SQS").

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::core::time::Timestamp;
use crate::ports::queue::{Handle, Message};

/// The event.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SqsEvent {
    /// Its messages.
    #[serde(rename = "Records", default)]
    pub records: Vec<SqsMessage>,
}

/// One message of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsMessage {
    /// Names the message, in every delivery.
    pub message_id: String,
    /// Names this delivery.
    pub receipt_handle: String,
    /// What was sent.
    pub body: String,
    /// What SQS says of it.
    #[serde(default)]
    pub attributes: SqsAttributes,
}

/// What SQS says of a message; numbers are texts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SqsAttributes {
    /// When it was sent, in milliseconds since 1970.
    #[serde(default)]
    pub sent_timestamp: String,
    /// How often it was delivered.
    #[serde(default)]
    pub approximate_receive_count: String,
}

/// The answer: messages that must come again. The mapping needs `ReportBatchItemFailures`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsBatchResponse {
    /// None: all were taken.
    pub batch_item_failures: Vec<SqsBatchItemFailure>,
}

/// One that must come again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsBatchItemFailure {
    /// Its [`SqsMessage::message_id`].
    pub item_identifier: String,
}

impl SqsEvent {
    pub(super) fn messages(&self) -> Vec<Message> {
        let message = |one: &SqsMessage| Message {
            id: one.message_id.clone(),
            body: one.body.clone(),
            sent: Timestamp(one.attributes.sent_timestamp.parse().unwrap_or(0)),
            handle: Handle(one.receipt_handle.clone()),
            receive_count: one
                .attributes
                .approximate_receive_count
                .parse()
                .unwrap_or(1),
        };
        self.records.iter().map(message).collect()
    }

    pub(super) fn answer(&self, failed: &BTreeSet<Handle>) -> SqsBatchResponse {
        let failed = self
            .records
            .iter()
            .filter(|one| failed.contains(&Handle(one.receipt_handle.clone())));
        SqsBatchResponse {
            batch_item_failures: failed
                .map(|one| SqsBatchItemFailure {
                    item_identifier: one.message_id.clone(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_as_lambda_sends_it_is_read_and_answered() {
        let text = r#"{"Records":[{"messageId":"m-1","receiptHandle":"h-1","body":"{}","attributes":{
            "ApproximateReceiveCount":"2","SentTimestamp":"1545082649183","SenderId":"AIDA","ApproximateFirstReceiveTimestamp":"1545082649185"},
            "messageAttributes":{},"md5OfBody":"e4","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:eu-west-1:123456789012:q","awsRegion":"eu-west-1"}]}"#;
        let event: SqsEvent = serde_json::from_str(text).expect("Lambda's own example, shortened");
        let messages = event.messages();
        assert_eq!(
            (messages[0].sent, messages[0].receive_count),
            (Timestamp(1_545_082_649_183), 2)
        );
        let answer = event.answer(&[Handle("h-1".into())].into());
        let answer = serde_json::to_string(&answer).expect("it serialises");
        assert_eq!(
            answer,
            r#"{"batchItemFailures":[{"itemIdentifier":"m-1"}]}"#
        );
    }
}
