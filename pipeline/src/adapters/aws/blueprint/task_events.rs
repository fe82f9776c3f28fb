//! The way of a cluster's task events: the queue, leave for one rule of EventBridge to send, and that rule. The rule is shown
//! and not made: nothing else here speaks to EventBridge.

use aws_sdk_sqs::types::QueueAttributeName;
use serde::Serialize;
use serde_json::{Value, json};

use super::queue::{self, Attributes};
use super::{ApplyError, Deed, Found, queue_policy};
use crate::adapters::aws::config::Clients;
use crate::adapters::aws::ecs::told::{DETAIL_TYPE, SOURCE};
use crate::core::class::cut;
use crate::core::id::JobName;
use crate::core::job::{EcsSpec, ExecutorSpec, Job};
use crate::core::lane::Lane;

/// Who sends what a rule says.
const EVENTBRIDGE: &str = "events.amazonaws.com";

/// Nobody needs an event that is older: a stopped task is told by DescribeTasks for about an hour, and workers look
/// themselves within minutes.
const RETENTION_SECONDS: u32 = 3600;

/// The longest name of a rule ("PutRule").
const RULE_NAME_CHARS_MAX: usize = 64;

/// Where the events of the tasks in a cluster go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvents {
    /// The queue's name, or its URL.
    pub queue: String,
    /// The cluster's name or ARN.
    pub cluster: String,
    /// Whose they are: names the rule, and what is added to the queue's policy.
    pub job: JobName,
    /// The lane whose tasks they are; the first, where both share cluster and queue.
    pub lane: Lane,
}

/// What EventBridge is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRule {
    /// The rule's name.
    pub name: String,
    /// Which events it is for.
    pub event_pattern: Value,
    /// The ARN of the queue that they go to; none: it is not there yet.
    pub target: Option<String>,
}

impl TaskEvents {
    /// Those of a job's lanes: a queue that both name is one.
    pub fn of(job: &Job) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for lane in Lane::ALL {
            let Some(ExecutorSpec::Ecs(EcsSpec {
                cluster,
                events_queue: Some(queue),
                ..
            })) = job.lane(lane).map(|spec| &spec.executor)
            else {
                continue;
            };
            let one = Self {
                queue: queue.clone(),
                cluster: cluster.clone(),
                job: job.name.clone(),
                lane,
            };
            let place = |one: &Self| (one.queue.clone(), one.cluster.clone());
            if !all.iter().map(place).any(|there| there == place(&one)) {
                all.push(one);
            }
        }
        all
    }

    /// The rule, for a queue of this ARN.
    pub fn rule(&self, target: Option<String>) -> EventRule {
        let cluster = if self.cluster.starts_with("arn:") {
            json!(self.cluster)
        } else {
            json!({ "suffix": format!(":cluster/{}", self.cluster) })
        };
        EventRule {
            name: self.rule_name(),
            event_pattern: json!({
                "source": [SOURCE],
                "detail-type": [DETAIL_TYPE],
                "detail": {
                    "clusterArn": [cluster],
                    "lastStatus": ["RUNNING", "STOPPED"],
                    "startedBy": [{ "prefix": "trommel/" }],
                },
            }),
            target,
        }
    }

    fn rule_name(&self) -> String {
        let name = format!("trommel-{}-{}", self.job, self.lane);
        cut(&name, RULE_NAME_CHARS_MAX).to_owned()
    }

    /// The rule's ARN, beside a queue.
    fn rule_arn(&self, queue_arn: &str) -> String {
        let fields: Vec<&str> = queue_arn.split(':').collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        let name = self.rule_name();
        format!(
            "arn:{}:events:{}:{}:rule/{name}",
            field(1),
            field(3),
            field(4)
        )
    }

    pub(super) async fn go(
        &self,
        clients: &Clients,
        deed: Deed,
        found: &mut Found,
    ) -> Result<(), ApplyError> {
        let retention = QueueAttributeName::MessageRetentionPeriod;
        let mut wanted = queue::lane_attributes();
        wanted.retain(|(name, _)| *name != retention);
        wanted.push((retention, RETENTION_SECONDS.to_string()));
        let url = queue::go(clients, &self.queue, wanted, deed, found).await?;
        let told = format!(
            "leave for rule `{}` to send to queue `{}`",
            self.rule_name(),
            queue::name_of(&self.queue)
        );
        let Some(url) = url else {
            found.created.push(told);
            return Ok(());
        };
        let attributes = queue::attributes(clients, &self.queue, &url).await?;
        let Some(policy) = self.policy(&attributes)? else {
            found.present.push(told);
            return Ok(());
        };
        if deed == Deed::Make {
            let policy = vec![(QueueAttributeName::Policy, policy)];
            queue::set(clients, &self.queue, &url, policy).await?;
        }
        found.created.push(told);
        Ok(())
    }

    /// Whether the queue's policy lets the rule send.
    pub(in crate::adapters::aws) fn is_let_in(
        &self,
        attributes: &Attributes,
    ) -> Result<bool, ApplyError> {
        Ok(self.policy(attributes)?.is_none())
    }

    /// The queue's policy with our statement in it; none if it is there.
    fn policy(&self, attributes: &Attributes) -> Result<Option<String>, ApplyError> {
        let arn = queue::arn(attributes);
        let statement = queue_policy::statement(
            &self.rule_name(),
            EVENTBRIDGE,
            arn,
            &self.rule_arn(arn),
            None,
        );
        let former = attributes.get(&QueueAttributeName::Policy);
        let merged = queue_policy::merged(former.map(String::as_str), &statement);
        merged.map_err(|why| ApplyError::new(format!("queue `{}`", self.queue), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(cluster: &str) -> TaskEvents {
        TaskEvents {
            queue: "media-tasks".to_owned(),
            cluster: cluster.to_owned(),
            job: JobName::new("thumbs"),
            lane: Lane::Container,
        }
    }

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:media-tasks";

    #[test]
    fn the_rule_and_the_leave_that_it_needs_are_reviewed_like_code() {
        let attributes = Attributes::from([(QueueAttributeName::QueueArn, QUEUE.to_owned())]);
        let policy = events("media").policy(&attributes).expect("no policy yet");
        let policy: Value = serde_json::from_str(&policy.expect("it is new")).expect("JSON");
        let both =
            json!({ "rule": events("media").rule(Some(QUEUE.to_owned())), "policy": policy });
        let shown = serde_json::to_string_pretty(&both).expect("JSON");
        insta::assert_snapshot!("task_events", shown);
    }

    #[test]
    fn a_cluster_that_is_named_by_its_arn_is_that_one_alone() {
        let arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/media";
        let rule = events(arn).rule(None);
        assert_eq!(rule.event_pattern["detail"]["clusterArn"], json!([arn]));
    }
}
