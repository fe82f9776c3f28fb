//! A bucket's notifications: ours put among those of others. Pure.
//!
//! S3 takes all of a bucket's notifications at once ("PutBucketNotificationConfiguration"), so what is not ours is
//! given back as it came.

use std::collections::BTreeSet;

use aws_sdk_s3::operation::get_bucket_notification_configuration::GetBucketNotificationConfigurationOutput as Configured;
use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter,
    QueueConfiguration, S3KeyFilter,
};

/// What intake takes in: what is written, what can be read again, and what is gone.
const EVENTS: [&str; 3] = [
    "s3:ObjectCreated:*",
    "s3:ObjectRemoved:*",
    "s3:ObjectRestore:Completed",
];

/// What is told to the queue.
pub(super) fn ours(id: &str, queue_arn: &str, prefix: &str) -> QueueConfiguration {
    let rule = |prefix: &str| {
        FilterRule::builder()
            .name(FilterRuleName::Prefix)
            .value(prefix)
            .build()
    };
    let filter = (!prefix.is_empty()).then(|| {
        let key = S3KeyFilter::builder().filter_rules(rule(prefix)).build();
        NotificationConfigurationFilter::builder().key(key).build()
    });
    QueueConfiguration::builder()
        .id(id)
        .queue_arn(queue_arn)
        .set_events(Some(EVENTS.map(Event::from).to_vec()))
        .set_filter(filter)
        .build()
        .expect("queue and events are set")
}

/// All of a bucket's notifications with ours among them; none if nothing is to be changed.
pub(super) fn merged(
    have: Configured,
    ours: QueueConfiguration,
) -> Option<NotificationConfiguration> {
    let wanted = Told::of(&ours);
    let queues = have.queue_configurations.unwrap_or_default();
    let (same, mut others): (Vec<_>, Vec<_>) =
        queues.into_iter().partition(|one| one.id == ours.id);
    let is_told = match same.first() {
        Some(one) => Told::of(one) == wanted,
        None => others.iter().any(|one| Told::of(one).covers(&wanted)),
    };
    if is_told {
        return None;
    }
    others.push(ours);
    let all = NotificationConfiguration::builder()
        .set_topic_configurations(have.topic_configurations)
        .set_lambda_function_configurations(have.lambda_function_configurations)
        .set_event_bridge_configuration(have.event_bridge_configuration)
        .set_queue_configurations(Some(others));
    Some(all.build())
}

/// How a bucket's events may reach a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::adapters::aws) enum Reaches {
    /// All that intake needs is sent to it.
    All,
    /// Some is: these kinds are not, or not for all keys.
    Some(Vec<String>),
    /// Nothing is sent to it straight, but something to SNS or EventBridge, which may pass it on.
    Perhaps,
    /// Nothing is.
    Nothing,
}

/// Whether the events of keys with this prefix reach the queue.
pub(in crate::adapters::aws) fn reaches(
    have: &Configured,
    queue_arn: &str,
    prefix: &str,
) -> Reaches {
    let wanted = Told::of(&ours("any", queue_arn, prefix));
    let all = have.queue_configurations().iter().map(Told::of);
    let here: Vec<Told> = all.filter(|told| told.queue == queue_arn).collect();
    if here.is_empty() {
        let passed_on =
            have.event_bridge_configuration.is_some() || !have.topic_configurations().is_empty();
        return if passed_on {
            Reaches::Perhaps
        } else {
            Reaches::Nothing
        };
    }
    let is_told = |event: &&String| {
        let only = Told {
            events: BTreeSet::from([(*event).clone()]),
            ..wanted.clone()
        };
        here.iter().any(|told| told.covers(&only))
    };
    let missing: Vec<String> = wanted
        .events
        .iter()
        .filter(|event| !is_told(event))
        .cloned()
        .collect();
    if missing.is_empty() {
        Reaches::All
    } else {
        Reaches::Some(missing)
    }
}

/// What a notification comes down to: services order and spell the same thing in their own ways.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    queue: String,
    events: BTreeSet<String>,
    prefix: String,
    suffix: String,
}

impl Told {
    fn of(one: &QueueConfiguration) -> Self {
        let rules = one
            .filter()
            .and_then(|filter| filter.key())
            .map_or(&[][..], S3KeyFilter::filter_rules);
        // AWS gives the name back as `Prefix`.
        let rule = |name: &str| {
            let found = rules.iter().find(|rule| {
                let is = rule.name().map(FilterRuleName::as_str);
                is.is_some_and(|is| is.eq_ignore_ascii_case(name))
            });
            found
                .and_then(|rule| rule.value())
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            queue: one.queue_arn().to_owned(),
            events: one
                .events()
                .iter()
                .map(|event| event.as_str().to_owned())
                .collect(),
            prefix: rule("prefix"),
            suffix: rule("suffix"),
        }
    }

    /// Whether whatever `other` tells of is told here too.
    fn covers(&self, other: &Self) -> bool {
        let covers_event = |event: &String| {
            let kind = event
                .rsplit_once(':')
                .map(|(kind, _)| format!("{kind}:*"))
                .unwrap_or_default();
            self.events.contains(event) || self.events.contains(&kind)
        };
        self.queue == other.queue
            && self.suffix.is_empty()
            && other.prefix.starts_with(&self.prefix)
            && other.events.iter().all(covers_event)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{EventBridgeConfiguration, LambdaFunctionConfiguration};

    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:1:inbox";

    fn users() -> Configured {
        let lambda = LambdaFunctionConfiguration::builder()
            .id("thumbs")
            .lambda_function_arn("arn:aws:lambda:eu-west-1:1:function:thumbs")
            .events(Event::from("s3:ObjectTagging:*"))
            .build()
            .expect("all is set");
        let other = QueueConfiguration::builder()
            .id("audit")
            .queue_arn("arn:aws:sqs:eu-west-1:1:audit")
            .events(Event::from("s3:ObjectCreated:*"))
            .build()
            .expect("all is set");
        Configured::builder()
            .lambda_function_configurations(lambda)
            .queue_configurations(other)
            .event_bridge_configuration(EventBridgeConfiguration::builder().build())
            .build()
    }

    fn given_back(merged: NotificationConfiguration) -> Configured {
        Configured::builder()
            .set_queue_configurations(merged.queue_configurations)
            .set_topic_configurations(merged.topic_configurations)
            .set_lambda_function_configurations(merged.lambda_function_configurations)
            .set_event_bridge_configuration(merged.event_bridge_configuration)
            .build()
    }

    #[test]
    fn ours_goes_among_those_of_others_and_a_second_time_changes_nothing() {
        let merged_once =
            merged(users(), ours("trommel-thumbs", QUEUE, "in/")).expect("it was not there");
        let ids: Vec<_> = merged_once
            .queue_configurations()
            .iter()
            .filter_map(QueueConfiguration::id)
            .collect();
        assert_eq!(ids, ["audit", "trommel-thumbs"]);
        assert_eq!(merged_once.lambda_function_configurations().len(), 1);
        assert!(merged_once.event_bridge_configuration().is_some());
        let have = given_back(merged_once);
        assert_eq!(reaches(&have, QUEUE, "in/"), Reaches::All);
        assert_eq!(merged(have, ours("trommel-thumbs", QUEUE, "in/")), None);
    }

    #[test]
    fn ours_with_another_prefix_is_replaced_alone() {
        let once = merged(users(), ours("trommel-thumbs", QUEUE, "in/")).expect("it was not there");
        let again = merged(given_back(once), ours("trommel-thumbs", QUEUE, "new/"));
        let again = again.expect("the prefix is another one");
        assert_eq!(again.queue_configurations().len(), 2);
        assert_eq!(
            reaches(&given_back(again), QUEUE, "in/"),
            Reaches::Some(
                EVENTS
                    .map(str::to_owned)
                    .to_vec()
                    .into_iter()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            )
        );
    }

    #[test]
    fn a_notification_that_somebody_else_made_is_enough() {
        let wide = QueueConfiguration::builder()
            .id("by hand")
            .queue_arn(QUEUE)
            .events(Event::from("s3:ObjectCreated:*"))
            .events(Event::from("s3:ObjectRemoved:*"))
            .events(Event::from("s3:ObjectRestore:*"))
            .build()
            .expect("all is set");
        let have = || {
            Configured::builder()
                .queue_configurations(wide.clone())
                .build()
        };
        assert_eq!(merged(have(), ours("trommel-thumbs", QUEUE, "in/")), None);
        assert_eq!(reaches(&have(), QUEUE, "in/"), Reaches::All);
        assert_eq!(reaches(&have(), "another", "in/"), Reaches::Nothing);
        assert_eq!(reaches(&users(), QUEUE, ""), Reaches::Perhaps);
    }

    #[test]
    fn a_filter_that_is_spelled_as_aws_does_is_the_same() {
        let mut theirs = ours("trommel-thumbs", QUEUE, "in/");
        let rule = FilterRule::builder()
            .name(FilterRuleName::from("Prefix"))
            .value("in/")
            .build();
        let key = S3KeyFilter::builder().filter_rules(rule).build();
        theirs.filter = Some(NotificationConfigurationFilter::builder().key(key).build());
        let have = Configured::builder().queue_configurations(theirs).build();
        assert_eq!(merged(have, ours("trommel-thumbs", QUEUE, "in/")), None);
    }
}
