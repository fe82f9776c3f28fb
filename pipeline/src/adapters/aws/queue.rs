//! `Queue` on SQS: batches of ten with their indexes as entry ids, long polls.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};

use super::blueprint;
use super::classify::Fault;
use super::config::{Clients, long_poll_timeouts};
use crate::adapters::bounds::queue as bounds;
use crate::core::time::Timestamp;
use crate::ports::queue::{Depth, Handle, Outgoing, Rejected};
use crate::ports::{Message, Queue, QueueError, QueueProfile};

/// "Amazon SQS message quotas".
const PROFILE: QueueProfile = QueueProfile {
    batch_max: 10,
    wait_max: Duration::from_secs(20),
    body_bytes_max: 1024 * 1024,
};

/// One SQS queue, a standard one.
///
/// The SDK tries each request several times: a send may therefore double a message, as the contract
/// allows; the other requests may be repeated at will.
#[derive(Clone, Debug)]
pub struct SqsQueue {
    client: Client,
    receiving: Client,
    url: String,
}

impl SqsQueue {
    /// Finds the queue of that name.
    ///
    /// # Errors
    /// [`QueueError::Refused`] where there is no such queue, or it may not be asked for.
    pub async fn open(clients: &Clients, name: &str) -> Result<Self, QueueError> {
        let answer = clients.sqs.get_queue_url().queue_name(name).send().await;
        let url = match answer {
            Ok(found) => found.queue_url.unwrap_or_default(),
            Err(error) => return Err(named(name, Fault::of(&error).queue())),
        };
        Ok(Self::at(clients, url))
    }

    /// The ARN of a queue by its name or URL; none where there is none, or it does not tell.
    pub async fn arn(clients: &Clients, place: &str) -> Option<String> {
        let url = blueprint::queue::url(clients, place).await.ok()??;
        let attributes = blueprint::queue::attributes(clients, place, &url).await;
        Some(blueprint::queue::arn(&attributes.ok()?).to_owned())
    }

    /// The queue of that URL. Talks to nobody yet.
    pub fn at(clients: &Clients, url: impl Into<String>) -> Self {
        let patient = clients
            .sqs
            .config()
            .to_builder()
            .timeout_config(long_poll_timeouts(PROFILE.wait_max))
            .build();
        Self {
            client: clients.sqs.clone(),
            receiving: Client::from_conf(patient),
            url: url.into(),
        }
    }
}

#[async_trait]
impl Queue for SqsQueue {
    fn profile(&self) -> QueueProfile {
        PROFILE
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        check_batch(max)?;
        bounds::check_receive(max, wait, visibility)?;
        let answer = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(max as i32)
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(|error| Fault::of(&error).queue())?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages.into_iter().map(message).collect())
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        check_batch(batch.len())?;
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        let mut refused = Vec::new();
        for (index, outgoing) in batch.into_iter().enumerate() {
            // SQS would refuse the whole batch for one bad entry.
            if let Some(reason) = bounds::problem(&outgoing) {
                refused.push(Rejected { index, reason });
                continue;
            }
            let entry = SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(outgoing.body)
                .delay_seconds(seconds(outgoing.delay))
                .build()
                .expect("id and body are set");
            request = request.entries(entry);
        }
        if request.get_entries().is_none() {
            return Ok(refused);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| Fault::of(&error).queue())?;
        Ok(rejected(refused, &answer.failed, &Distinct::none()))
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        check_batch(handles.len())?;
        let distinct = Distinct::of(handles.iter());
        let mut request = self.client.delete_message_batch().queue_url(&self.url);
        for (index, handle) in handles.into_iter().enumerate() {
            if !distinct.stands_for_itself(index) {
                continue;
            }
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle.0)
                .build()
                .expect("id and handle are set");
            request = request.entries(entry);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| Fault::of(&error).queue())?;
        Ok(rejected(Vec::new(), &answer.failed, &distinct))
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        check_batch(entries.len())?;
        let mut request = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url);
        let mut refused = Vec::new();
        for (index, (handle, visibility)) in entries.into_iter().enumerate() {
            if let Err(reason) = bounds::check_visibility(visibility) {
                refused.push(Rejected { index, reason });
                continue;
            }
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle.0)
                .visibility_timeout(seconds(visibility))
                .build()
                .expect("id and handle are set");
            request = request.entries(entry);
        }
        if request.get_entries().is_none() {
            return Ok(refused);
        }
        let answer = request.send().await;
        let answer = answer.map_err(|error| Fault::of(&error).queue())?;
        Ok(rejected(refused, &answer.failed, &Distinct::none()))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = request.set_attribute_names(Some(names.to_vec())).send();
        let answer = answer.await.map_err(|error| Fault::of(&error).queue())?;
        let all = answer.attributes.unwrap_or_default();
        let number = |name: &QueueAttributeName| {
            let text = all.get(name).map_or("0", String::as_str);
            text.parse().unwrap_or(0)
        };
        let [ready, in_flight, delayed] = names.each_ref().map(number);
        Ok(Depth {
            ready,
            hidden: in_flight + delayed,
        })
    }
}

/// Which entries of a batch repeat an earlier one: the same message may have been received twice, and
/// SQS refuses a whole batch in which a handle stands twice.
struct Distinct {
    /// For each index, the first one with the same handle.
    first: Vec<usize>,
}

impl Distinct {
    /// For requests in which nothing is left out.
    fn none() -> Self {
        Self { first: Vec::new() }
    }

    fn of<'a>(handles: impl Iterator<Item = &'a Handle>) -> Self {
        let mut seen = HashMap::new();
        let first = handles
            .enumerate()
            .map(|(index, handle)| *seen.entry(handle).or_insert(index))
            .collect();
        Self { first }
    }

    fn stands_for_itself(&self, index: usize) -> bool {
        self.first.get(index).is_none_or(|first| *first == index)
    }

    /// All entries that this one stood for.
    fn behind(&self, index: usize) -> Vec<usize> {
        if self.first.is_empty() {
            return vec![index];
        }
        let all = 0..self.first.len();
        all.filter(|other| self.first[*other] == index).collect()
    }
}

/// The failed entries by their index, ascending; `rejected` already holds those that were not sent.
fn rejected(
    mut rejected: Vec<Rejected>,
    failed: &[BatchResultErrorEntry],
    distinct: &Distinct,
) -> Vec<Rejected> {
    for entry in failed {
        // An id that is not ours would be the service's mistake; nothing can be said about it.
        let Ok(index) = entry.id.parse() else {
            continue;
        };
        let message = entry.message().unwrap_or("no further word");
        let reason = format!("{}: {message}", entry.code);
        for index in distinct.behind(index) {
            let reason = reason.clone();
            rejected.push(Rejected { index, reason });
        }
    }
    rejected.sort_by_key(|one| one.index);
    rejected
}

fn message(received: aws_sdk_sqs::types::Message) -> Message {
    let attribute = |name: &MessageSystemAttributeName| {
        let all = received.attributes()?;
        all.get(name)?.parse::<i64>().ok()
    };
    let count = attribute(&MessageSystemAttributeName::ApproximateReceiveCount);
    let sent = attribute(&MessageSystemAttributeName::SentTimestamp);
    Message {
        receive_count: count.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        sent: Timestamp(sent.unwrap_or(0)),
        id: received.message_id.unwrap_or_default(),
        body: received.body.unwrap_or_default(),
        handle: Handle(received.receipt_handle.unwrap_or_default()),
    }
}

/// SQS counts whole seconds: rounded up, so that a short wait never becomes a busy loop and nothing
/// shows earlier than asked. Bounds are checked before.
fn seconds(duration: Duration) -> i32 {
    duration.as_millis().div_ceil(1000) as i32
}

/// Refuses a batch that is empty or too large.
fn check_batch(entries: usize) -> Result<(), QueueError> {
    if entries == 0 || entries > PROFILE.batch_max {
        let most = PROFILE.batch_max;
        return Err(QueueError::Refused(format!(
            "a batch has 1 to {most} entries in SQS, this one {entries}"
        )));
    }
    Ok(())
}

fn named(name: &str, error: QueueError) -> QueueError {
    match error {
        QueueError::Throttled(text) => QueueError::Throttled(format!("queue `{name}`: {text}")),
        QueueError::Unclear(text) => QueueError::Unclear(format!("queue `{name}`: {text}")),
        QueueError::Refused(text) => QueueError::Refused(format!("queue `{name}`: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: &str) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .code("ReceiptHandleIsInvalid")
            .sender_fault(true)
            .build()
            .expect("the required fields are set")
    }

    #[test]
    fn a_handle_that_stands_twice_is_sent_once_and_its_failure_told_twice() {
        let handles = ["a", "b", "a", "c"].map(|text| Handle(text.to_owned()));
        let distinct = Distinct::of(handles.iter());
        let sent: Vec<usize> = (0..4)
            .filter(|index| distinct.stands_for_itself(*index))
            .collect();
        assert_eq!(sent, [0, 1, 3]);
        let told = rejected(Vec::new(), &[failed("3"), failed("0")], &distinct);
        let indexes: Vec<usize> = told.iter().map(|one| one.index).collect();
        assert_eq!(indexes, [0, 2, 3]);
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
    }

    #[test]
    fn a_batch_is_of_one_to_ten() {
        assert!(matches!(check_batch(0), Err(QueueError::Refused(_))));
        assert_eq!(check_batch(10), Ok(()));
        assert!(matches!(check_batch(11), Err(QueueError::Refused(_))));
    }
}
