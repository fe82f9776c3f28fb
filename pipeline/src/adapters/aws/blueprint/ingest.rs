//! The way of a bucket's events: dead-letter queue, ingest queue, leave to send, notification.
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for AWS to learn of a policy happens before any port is there"
)]

use std::time::Duration;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput as Configured;
use aws_sdk_s3::types::NotificationConfiguration;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};

use super::queue::{self, Attributes};
use super::{ApplyError, Deed, Found, notification, queue_policy};
use crate::adapters::aws::classify::{Fault, Verdict};
use crate::adapters::aws::config::Clients;
use crate::core::id::JobName;

/// A message that was received so often goes to the dead letters. Many, for a receive count is no count of attempts:
/// a process that stops, a take-over, a queue that is full all add to it. What cannot be read is kept in the ledger
/// after its first receive and never gets here; this is for messages that nobody gets done with.
pub const DEAD_LETTERS_AFTER: u32 = 50;

/// The most that SQS takes. S3's notifications have up to 64 KB, and a queue that takes less loses them; what comes
/// through SNS or EventBridge is wrapped ("Amazon SQS message quotas"; "Amazon S3 event notifications").
const MESSAGE_BYTES_MAX: u32 = 1024 * 1024;

/// S3 tries the queue before it takes a notification, and a queue's policy is known everywhere within a minute
/// ("SetQueueAttributes").
const POLICY_KNOWN_WITHIN: Duration = Duration::from_secs(75);

/// Between two tries.
const TRY_EVERY: Duration = Duration::from_secs(3);

/// Where a bucket's events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// The ingest queue's name, or its URL.
    pub queue: String,
    /// The bucket.
    pub bucket: String,
    /// Only keys that begin so are told of.
    pub prefix: String,
    /// Whose they are: names what is added to things of the user's.
    pub job: JobName,
}

impl Ingest {
    /// The name of the dead-letter queue.
    pub fn dead_letters(&self) -> String {
        format!("{}-dead-letters", queue::name_of(&self.queue))
    }

    /// How our statement in the queue's policy, and our notification, are named.
    pub(super) fn id(&self) -> String {
        format!("trommel-{}", self.job)
    }

    /// The bucket is the user's to make: told before anything else is made.
    pub(super) async fn find_bucket(&self, clients: &Clients) -> Result<(), ApplyError> {
        let what = format!("bucket `{}`", self.bucket);
        match clients.s3.head_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let fault = Fault::of(&error);
                if fault.verdict() == Verdict::NotFound {
                    let why = "is not there: make it first, it is yours; or check its name";
                    return Err(ApplyError::new(what, why));
                }
                Err(self.bucket_error(&fault))
            }
        }
    }

    pub(super) async fn go(
        &self,
        clients: &Clients,
        deed: Deed,
        found: &mut Found,
    ) -> Result<(), ApplyError> {
        let before = self.attributes(clients).await?;
        let redrive = self.redrive(clients, &before, deed, found).await?;
        let mut wanted = queue::lane_attributes();
        wanted.push((
            QueueAttributeName::MaximumMessageSize,
            MESSAGE_BYTES_MAX.to_string(),
        ));
        wanted.extend(redrive.map(|policy| (QueueAttributeName::RedrivePolicy, policy)));
        let url = queue::go(clients, &self.queue, wanted, deed, found).await?;
        let Some(url) = url else {
            // Nothing can point to a queue that is not there.
            let (bucket, id) = (&self.bucket, self.id());
            found
                .created
                .push(format!("leave for bucket `{bucket}` to send"));
            found
                .created
                .push(format!("notification `{id}` of bucket `{bucket}`"));
            return Ok(());
        };
        let attributes = queue::attributes(clients, &self.queue, &url).await?;
        let arn = queue::arn(&attributes).to_owned();
        self.let_send(clients, (&url, &arn), &attributes, (deed, found))
            .await?;
        self.notify(clients, &arn, deed, found).await
    }

    async fn attributes(&self, clients: &Clients) -> Result<Attributes, ApplyError> {
        match queue::url(clients, &self.queue).await? {
            Some(url) => queue::attributes(clients, &self.queue, &url).await,
            None => Ok(Attributes::new()),
        }
    }

    /// What the ingest queue is to say of dead letters. A queue of the user's own that they go to already stays so.
    async fn redrive(
        &self,
        clients: &Clients,
        before: &Attributes,
        deed: Deed,
        found: &mut Found,
    ) -> Result<Option<String>, ApplyError> {
        let former = before.get(&QueueAttributeName::RedrivePolicy);
        let name = self.dead_letters();
        if let Some((target, count)) = former.and_then(|text| dead_letters(text))
            && !target.ends_with(&format!(":{name}"))
        {
            let count = count.max(DEAD_LETTERS_AFTER);
            return Ok(Some(redrive_policy(&target, count)));
        }
        let url = queue::go(clients, &name, queue::lane_attributes(), deed, found).await?;
        let Some(url) = url else { return Ok(None) };
        let attributes = queue::attributes(clients, &name, &url).await?;
        Ok(Some(redrive_policy(
            queue::arn(&attributes),
            DEAD_LETTERS_AFTER,
        )))
    }

    /// Lets S3 send what happens in the bucket, and nobody anything else.
    async fn let_send(
        &self,
        clients: &Clients,
        (url, arn): (&str, &str),
        attributes: &Attributes,
        (deed, found): (Deed, &mut Found),
    ) -> Result<(), ApplyError> {
        let (bucket, what) = (&self.bucket, format!("queue `{}`", self.queue));
        let account = self.owner(clients, arn).await?;
        let statement = queue_policy::statement(
            &self.id(),
            queue_policy::S3,
            arn,
            &bucket_arn(arn, bucket),
            account.as_deref(),
        );
        let former = attributes
            .get(&QueueAttributeName::Policy)
            .map(String::as_str);
        let merged = queue_policy::merged(former, &statement);
        let merged = merged.map_err(|why| ApplyError::new(&what, why))?;
        let told = format!("leave for bucket `{bucket}` to send");
        let Some(policy) = merged else {
            found.present.push(told);
            return Ok(());
        };
        if deed == Deed::Make {
            let policy = vec![(QueueAttributeName::Policy, policy)];
            queue::set(clients, &self.queue, url, policy).await?;
        }
        found.created.push(told);
        Ok(())
    }

    /// The account of the bucket, if it is the queue's: then a bucket of that name in another one may not send.
    async fn owner(&self, clients: &Clients, arn: &str) -> Result<Option<String>, ApplyError> {
        let Some(account) = arn.split(':').nth(4).filter(|account| !account.is_empty()) else {
            return Ok(None);
        };
        let ask = || clients.s3.head_bucket().bucket(&self.bucket);
        if ask().expected_bucket_owner(account).send().await.is_ok() {
            return Ok(Some(account.to_owned()));
        }
        match ask().send().await {
            Ok(_) => Ok(None),
            Err(error) => Err(self.bucket_error(&Fault::of(&error))),
        }
    }

    /// Has the bucket tell of what happens in it. Its other notifications stay as they are.
    async fn notify(
        &self,
        clients: &Clients,
        arn: &str,
        deed: Deed,
        found: &mut Found,
    ) -> Result<(), ApplyError> {
        let what = format!("notification `{}` of bucket `{}`", self.id(), self.bucket);
        let ours = notification::ours(&self.id(), arn, &self.prefix);
        let have = configured(clients, &self.bucket).await;
        let have = have.map_err(|fault| self.bucket_error(&fault))?;
        let had = have.queue_configurations().iter();
        let is_new = !had.map(|one| one.id()).any(|id| id == ours.id());
        let Some(merged) = notification::merged(have, ours) else {
            found.present.push(what);
            return Ok(());
        };
        if deed == Deed::Make {
            self.put(clients, merged).await?;
        }
        if is_new {
            found.created.push(what);
        } else {
            found.met(what, &["queue, events or prefix".to_owned()]);
        }
        Ok(())
    }

    async fn put(
        &self,
        clients: &Clients,
        configuration: NotificationConfiguration,
    ) -> Result<(), ApplyError> {
        let begun = tokio::time::Instant::now();
        loop {
            let answer = clients
                .s3
                .put_bucket_notification_configuration()
                .bucket(&self.bucket)
                .notification_configuration(configuration.clone())
                .send()
                .await;
            let fault = match answer {
                Ok(_) => return Ok(()),
                Err(error) => Fault::of(&error),
            };
            let not_yet = fault.text.contains("validate the following destination");
            if !not_yet || begun.elapsed() >= POLICY_KNOWN_WITHIN {
                return Err(self.bucket_error(&fault));
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn bucket_error(&self, fault: &Fault) -> ApplyError {
        let overlaps = fault.text.contains("overlap") || fault.text.contains("ambiguous");
        let help = if overlaps {
            "; another notification of this bucket tells of the same keys, and S3 takes one only: remove it, or have \
             it send to SNS or EventBridge and those to the queue"
        } else {
            ""
        };
        let why = format!("{}{help}", fault.told());
        ApplyError::new(format!("bucket `{}`", self.bucket), why)
    }
}

/// What a bucket tells whom.
pub(in crate::adapters::aws) async fn configured(
    clients: &Clients,
    bucket: &str,
) -> Result<Configured, Fault> {
    let ask = clients.s3.get_bucket_notification_configuration();
    let answer = ask.bucket(bucket).send().await;
    answer.map_err(|error| Fault::of(&error))
}

/// The ARN of a bucket, in the partition of another one.
pub(in crate::adapters::aws) fn bucket_arn(near: &str, bucket: &str) -> String {
    let partition = near.split(':').nth(1).filter(|part| !part.is_empty());
    format!("arn:{}:s3:::{bucket}", partition.unwrap_or("aws"))
}

/// The dead-letter queue's ARN, and after how many receives.
pub(in crate::adapters::aws) fn dead_letters(redrive_policy: &str) -> Option<(String, u32)> {
    let policy: Value = serde_json::from_str(redrive_policy).ok()?;
    let target = policy.get("deadLetterTargetArn")?.as_str()?;
    // SQS gives the number back as it was sent, as text or not.
    let count = policy.get("maxReceiveCount")?;
    let number = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((target.to_owned(), u32::try_from(number).unwrap_or(u32::MAX)))
}

fn redrive_policy(target: &str, count: u32) -> String {
    json!({ "deadLetterTargetArn": target, "maxReceiveCount": count.to_string() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_reads_back_in_both_spellings() {
        let ours = redrive_policy("arn:aws:sqs:eu-west-1:1:inbox-dead-letters", 50);
        let read = dead_letters(&ours).expect("it is one");
        assert_eq!(
            read,
            ("arn:aws:sqs:eu-west-1:1:inbox-dead-letters".to_owned(), 50)
        );
        let number = r#"{"deadLetterTargetArn":"a","maxReceiveCount":5}"#;
        assert_eq!(dead_letters(number), Some(("a".to_owned(), 5)));
        assert_eq!(dead_letters("{}"), None);
    }

    #[test]
    fn a_bucket_is_in_the_partition_of_its_queue() {
        assert_eq!(
            bucket_arn("arn:aws-cn:sqs:cn-north-1:1:q", "photos"),
            "arn:aws-cn:s3:::photos"
        );
        assert_eq!(bucket_arn("", "photos"), "arn:aws:s3:::photos");
    }
}
