//! The least that a process of a job must be allowed to do, as an IAM policy. Pure.
//!
//! It follows from the job alone: what a loop calls is listed here by hand, and the emulators enforce none of it.

use serde_json::{Value, json};

use super::{Blueprint, compute, queue};
use crate::core::duty::Duty;
use crate::core::job::{InputSpec, Job, LedgerUri, Location, tree};
use crate::core::lane::Lane;

/// Where the things are that a policy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arns {
    /// `aws`, but for some governments' regions.
    pub partition: String,
    /// The region; `*` where it is not known.
    pub region: String,
    /// The account's number; `*` where it is not known.
    pub account: String,
}

impl Arns {
    /// As the ARN of a thing of the same account says.
    pub fn like(arn: &str) -> Option<Self> {
        let fields: Vec<&str> = arn.split(':').collect();
        match fields[..] {
            ["arn", partition, _, region, account, ..] if !account.is_empty() => Some(Self {
                partition: partition.to_owned(),
                region: region.to_owned(),
                account: account.to_owned(),
            }),
            _ => None,
        }
    }

    pub(super) fn of(&self, service: &str, name: &str) -> String {
        let Self {
            partition,
            region,
            account,
        } = self;
        format!("arn:{partition}:{service}:{region}:{account}:{name}")
    }

    fn s3(&self, name: &str) -> String {
        format!("arn:{}:s3:::{name}", self.partition)
    }
}

/// The policy for a process with this duty.
pub fn permissions(job: &Job, arns: &Arns, duty: Duty) -> Value {
    let mut statements = Vec::new();
    if let LedgerUri::DynamoDb(table) = &job.ledger {
        statements.push(ledger(arns, table));
        statements.push(lanes(job, arns, table, duty));
    }
    if let (InputSpec::Events(events), true) = (&job.input, duty.routes()) {
        let name = queue::name_of(&events.queue);
        let actions = [
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ReceiveMessage",
        ];
        statements.push(allow("Ingest", &actions, &[arns.of("sqs", name)]));
    }
    statements.extend(buckets(job, arns, duty));
    if duty.works() {
        statements.extend(compute::statements(job, arns));
        statements.push(compute::protection(arns));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn ledger(arns: &Arns, table: &str) -> Value {
    // A transaction needs leave for each of its writes, and none of its own ("TransactWriteItems").
    let actions = [
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
    ];
    let table = arns.of("dynamodb", &format!("table/{table}"));
    allow("Ledger", &actions, &[table])
}

fn lanes(job: &Job, arns: &Arns, table: &str, duty: Duty) -> Value {
    let mut actions = vec![
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:SendMessage",
    ];
    if duty.works() {
        actions.extend([
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:ReceiveMessage",
        ]);
        actions.sort_unstable();
    }
    let lanes = Lane::ALL
        .into_iter()
        .filter(|lane| job.lane(*lane).is_some());
    let queue = |lane| arns.of("sqs", &Blueprint::queue_name(table, &job.name, lane));
    let queues: Vec<String> = lanes.map(queue).collect();
    allow("Lanes", &actions, &queues)
}

/// What is read, what lies in between, what is written.
fn buckets(job: &Job, arns: &Arns, duty: Duty) -> Vec<Value> {
    let mut statements = Vec::new();
    let mut named: Vec<String> = Vec::new();
    let mut under = |bucket: &str, what: String| {
        let bucket = arns.s3(bucket);
        if !named.contains(&bucket) {
            named.push(bucket);
        }
        arns.s3(&what)
    };
    let input = match &job.input {
        InputSpec::Objects(Location::S3 { bucket, key }) => {
            Some(under(bucket, format!("{bucket}/{}*", tree(key))))
        }
        InputSpec::Jsonl(Location::S3 { bucket, key })
        | InputSpec::Json(Location::S3 { bucket, key })
        | InputSpec::Csv {
            file: Location::S3 { bucket, key },
            ..
        } => Some(under(bucket, format!("{bucket}/{key}"))),
        InputSpec::Events(events) => {
            let bucket = events.bucket.as_deref().unwrap_or("*");
            Some(under(bucket, format!("{bucket}/{}*", events.prefix)))
        }
        InputSpec::Objects(Location::Path(_))
        | InputSpec::Jsonl(Location::Path(_))
        | InputSpec::Json(Location::Path(_))
        | InputSpec::Csv {
            file: Location::Path(_),
            ..
        }
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => None,
    };
    if let Some(input) = input {
        let actions = ["s3:GetObject", "s3:GetObjectVersion"];
        statements.push(allow("Input", &actions, &[input]));
    }
    if let Some((bucket, tree)) = job.scratch_in_s3() {
        let scratch = under(bucket, format!("{bucket}/{tree}*"));
        let actions = ["s3:GetObject", "s3:PutObject"];
        statements.push(allow("Scratch", &actions, &[scratch]));
    }
    if let (Some(Location::S3 { bucket, key }), true) = (&job.results, duty.routes()) {
        let results = under(bucket, format!("{bucket}/{}*", tree(key)));
        let actions = [
            "s3:AbortMultipartUpload",
            "s3:DeleteObject",
            "s3:GetObject",
            "s3:PutObject",
        ];
        statements.push(allow("Results", &actions, &[results]));
    }
    if !named.is_empty() {
        // Also so that an object that is gone is told as gone, and not as forbidden ("GetObject", permissions).
        statements.push(allow("Listing", &["s3:ListBucket"], &named));
    }
    statements
}

pub(super) fn allow(sid: &str, actions: &[&str], resources: &[String]) -> Value {
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::event::Keys;
    use crate::core::id::JobName;
    use crate::core::job::{
        Dedupe, EventsSpec, ExecutorSpec, LaneSpec, Missing, OnBreach, OutputMode,
    };
    use crate::core::tolerance::Tolerance;

    pub(in crate::adapters::aws::blueprint) fn job() -> Job {
        let lane = LaneSpec {
            executor: ExecutorSpec::InProcess,
            object_bytes_max: None,
            max_items_per_batch: 1,
            timeout: None,
            grace: std::time::Duration::from_secs(30),
            output: OutputMode::Keep,
        };
        let events = EventsSpec {
            queue: "photos-inbox".to_owned(),
            bucket: Some("photos".to_owned()),
            prefix: "in/".to_owned(),
            window: std::time::Duration::from_secs(3600),
            dedupe: Dedupe::On,
            sequencer: None,
            keys: Keys::Aws,
            missing: Missing::Fail,
            pending_max: 1,
        };
        Job {
            name: JobName::new("thumbs"),
            input: InputSpec::Events(events),
            max_concurrency: 8,
            tolerance: Tolerance {
                count: None,
                percent: None,
            },
            fail_fast: None,
            on_breach: OnBreach::Fail,
            results: Some(Location::S3 {
                bucket: "results".to_owned(),
                key: "thumbs/".to_owned(),
            }),
            ledger: LedgerUri::DynamoDb("trommel".to_owned()),
            scratch: None,
            function: lane,
            container: None,
            retry: Vec::new(),
            catch: Vec::new(),
        }
    }

    #[test]
    fn the_policies_are_reviewed_like_code() {
        let arns = Arns::like("arn:aws:sqs:eu-west-1:123456789012:photos-inbox").expect("an ARN");
        for duty in Duty::ALL {
            let policy = permissions(&job(), &arns, duty);
            let shown = serde_json::to_string_pretty(&policy).expect("JSON");
            insta::assert_snapshot!(format!("permissions_{}", duty.as_str()), shown);
        }
    }

    #[test]
    fn no_policy_allows_everything_or_anywhere_but_the_jobs_own() {
        let arns = Arns::like("arn:aws:sqs:eu-west-1:123456789012:photos-inbox").expect("an ARN");
        for duty in Duty::ALL {
            let policy = permissions(&job(), &arns, duty);
            let text = policy.to_string();
            assert!(!text.contains(r#""*""#) && !text.contains(":*\""), "{text}");
        }
        assert_eq!(Arns::like("nonsense"), None);
    }
}
