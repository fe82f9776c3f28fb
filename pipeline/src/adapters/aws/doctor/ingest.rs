//! The way of events: the ingest queue, its dead letters, S3's leave to send, the bucket's notification.

use aws_sdk_sqs::types::QueueAttributeName as Name;

use super::{Check, PROVISION, refused, unlooked};
use crate::adapters::aws::blueprint::notification::{Reaches, reaches};
use crate::adapters::aws::blueprint::queue::{self, Attributes};
use crate::adapters::aws::blueprint::queue_policy::lets_send;
use crate::adapters::aws::blueprint::{DEAD_LETTERS_AFTER, bucket_arn, configured, dead_letters};
use crate::adapters::aws::config::Clients;
use crate::core::job::EventsSpec;

/// S3 sends up to so much, and does not send again what a queue refuses ("Amazon S3 event notifications").
const MESSAGE_BYTES_MIN: u64 = 64 * 1024;

/// The longest that SQS keeps a message ("Amazon SQS message quotas").
const RETENTION_MAX_SECONDS: u64 = 14 * 86_400;

/// AWS's own key, which S3 may not use ("Using AWS KMS keys with S3 event notifications").
const OWN_KEY: &str = "alias/aws/sqs";

pub(super) async fn examine(clients: &Clients, events: &EventsSpec) -> Vec<Check> {
    let name = queue::name_of(&events.queue);
    let what = format!("ingest queue {name}");
    let attributes = match queue::url(clients, &events.queue).await {
        Ok(Some(url)) => queue::attributes(clients, &events.queue, &url).await,
        Ok(None) => return vec![Check::fail(what, "is not there", PROVISION)],
        Err(error) => Err(error),
    };
    let attributes = match attributes {
        Ok(attributes) => attributes,
        Err(error) => return vec![unlooked(what, &error)],
    };
    let mut checks = vec![
        Check::ok(&what, queue::arn(&attributes)),
        size(name, &attributes),
    ];
    checks.extend(key(name, &attributes));
    checks.push(letters(clients, name, &attributes).await);
    let Some(bucket) = &events.bucket else {
        checks.push(Check::warn(
            "the events' bucket",
            "the job does not name it, so nothing can be said of its policy and notification",
            "add bucket = \"NAME\" to the input",
        ));
        return checks;
    };
    checks.push(leave(name, bucket, &attributes));
    checks.push(notification(clients, bucket, &events.prefix, queue::arn(&attributes)).await);
    checks
}

fn number(attributes: &Attributes, name: &Name) -> Option<u64> {
    attributes.get(name)?.parse().ok()
}

fn size(name: &str, attributes: &Attributes) -> Check {
    let what = format!("message size of {name}");
    match number(attributes, &Name::MaximumMessageSize) {
        Some(bytes) if bytes < MESSAGE_BYTES_MIN => Check::fail(
            what,
            format!("{bytes} bytes: S3 sends up to 65 536, and what is refused is lost"),
            PROVISION,
        ),
        Some(bytes) => Check::ok(what, format!("up to {bytes} bytes")),
        None => Check::warn(what, "the endpoint does not tell it", "look at it yourself"),
    }
}

/// Nothing to say of a queue that is not encrypted, or with SQS's own key: S3 needs no leave there.
fn key(name: &str, attributes: &Attributes) -> Option<Check> {
    let key = attributes.get(&Name::KmsMasterKeyId)?;
    let what = format!("key of {name}");
    let help = "the key's policy must let s3.amazonaws.com call kms:GenerateDataKey and kms:Decrypt, and the job's \
         processes kms:Decrypt";
    if key.is_empty() {
        return None;
    }
    if key.ends_with(OWN_KEY) {
        let found = "AWS's own key for SQS, which S3 may not use: no event arrives";
        return Some(Check::fail(
            what,
            found,
            format!("use a key of your own; {help}"),
        ));
    }
    Some(Check::warn(what, format!("encrypted with {key}"), help))
}

async fn letters(clients: &Clients, name: &str, attributes: &Attributes) -> Check {
    let what = format!("dead letters of {name}");
    let policy = attributes.get(&Name::RedrivePolicy);
    let Some((target, count)) = policy.and_then(|text| dead_letters(text)) else {
        let found = "there is no dead-letter queue: a message that nobody gets done with is lost in the end";
        return Check::fail(what, found, PROVISION);
    };
    let letters = target.rsplit(':').next().unwrap_or(&target);
    let theirs = match queue::url(clients, letters).await {
        Ok(Some(url)) => queue::attributes(clients, letters, &url).await,
        Ok(None) => {
            let found = format!("they go to {letters}, which is not there");
            return Check::fail(what, found, PROVISION);
        }
        Err(error) => return unlooked(what, &error),
    };
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(error) => return unlooked(what, &error),
    };
    let kept = |attributes| number(attributes, &Name::MessageRetentionPeriod).unwrap_or(0);
    letters_found(what, letters, count, (kept(attributes), kept(&theirs)))
}

fn letters_found(what: String, letters: &str, count: u32, (kept, theirs): (u64, u64)) -> Check {
    // The age of a message counts on from its first sending ("Using dead-letter queues").
    if theirs <= kept && theirs < RETENTION_MAX_SECONDS {
        let found = format!(
            "{letters} keeps them {} h, counted from the first sending, and the queue {} h: they may be gone before \
             anybody looks",
            theirs / 3600,
            kept / 3600
        );
        return Check::fail(what, found, PROVISION);
    }
    if count < DEAD_LETTERS_AFTER {
        let found =
            format!("to {letters} after {count} receives; stops and take-overs count as such, too");
        return Check::warn(what, found, PROVISION);
    }
    Check::ok(what, format!("to {letters}, after {count} receives"))
}

fn leave(name: &str, bucket: &str, attributes: &Attributes) -> Check {
    let what = format!("policy of {name}");
    let policy = attributes.get(&Name::Policy).map(String::as_str);
    let arn = queue::arn(attributes);
    if lets_send(policy, arn, &bucket_arn(arn, bucket)) {
        return Check::ok(what, format!("lets S3 send for bucket {bucket}"));
    }
    let found = format!("does not let S3 send for bucket {bucket}: no event arrives");
    Check::fail(what, found, PROVISION)
}

async fn notification(clients: &Clients, bucket: &str, prefix: &str, arn: &str) -> Check {
    let what = format!("notification of bucket {bucket}");
    let have = match configured(clients, bucket).await {
        Ok(have) => have,
        Err(fault) => return refused(what, &fault),
    };
    match reaches(&have, arn, prefix) {
        Reaches::All => Check::ok(what, "tells the queue of what is written and removed"),
        Reaches::Some(missing) => {
            let found = format!("does not tell the queue of {}", missing.join(", "));
            Check::warn(what, found, PROVISION)
        }
        Reaches::Perhaps => Check::warn(
            what,
            "goes to SNS or EventBridge, not straight to the queue",
            "look whether these pass it on to the queue; else trommel provision JOB --apply",
        ),
        Reaches::Nothing => Check::fail(what, "tells the queue of nothing", PROVISION),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    fn with(name: Name, value: &str) -> Attributes {
        Attributes::from([(name, value.to_owned())])
    }

    #[test]
    fn a_queue_that_refuses_large_notifications_fails() {
        let size = |bytes: &str| size("inbox", &with(Name::MaximumMessageSize, bytes)).health;
        assert_eq!(size("65535"), Health::Fail);
        assert_eq!(size("65536"), Health::Ok);
    }

    #[test]
    fn dead_letters_must_be_kept_longer_than_the_queue_keeps_its_messages() {
        let kept = |count, hours: (u64, u64)| {
            let seconds = (hours.0 * 3600, hours.1 * 3600);
            letters_found("what".to_owned(), "letters", count, seconds).health
        };
        assert_eq!(kept(50, (96, 96)), Health::Fail);
        assert_eq!(kept(50, (96, 97)), Health::Ok);
        assert_eq!(kept(50, (336, 336)), Health::Ok);
        assert_eq!(kept(5, (96, 336)), Health::Warn);
    }

    #[test]
    fn a_key_wants_a_look_and_awss_own_cannot_work() {
        let health = |id: &str| {
            let check = key("inbox", &with(Name::KmsMasterKeyId, id));
            check.map(|check| check.health)
        };
        assert_eq!(health("alias/aws/sqs"), Some(Health::Fail));
        assert_eq!(health("alias/mine"), Some(Health::Warn));
        assert_eq!(health(""), None);
    }
}
