//! `provision`: what a job needs on AWS, looked at or made, and the policy its processes need.

use std::fmt::Write as _;

use super::open::{current_dir, job_errors};
use super::run::read_job;
use crate::adapters::aws::{
    ApplyError, Arns, Blueprint, Clients, Endpoint, EventRule, Found, Ingest, SqsQueue, TaskEvents,
    permissions,
};
use crate::cli::args::{Global, ProvisionArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::text::escape;
use crate::cli::view::json_line;
use crate::core::duty::Duty;
use crate::core::job::{EventsSpec, InputSpec, Job, LedgerUri};
use crate::core::lane::Lane;
use crate::job_file::{Executors, Overrides};

/// `trommel provision JOB`.
pub(super) async fn provision(global: &Global, args: ProvisionArgs) -> Result<Exit, CliError> {
    let job = read(global, &args.job)?;
    let blueprint = blueprint(&job)?;
    let clients = Clients::open(Endpoint::from_env()).await;
    let found = if args.apply {
        blueprint.apply(&clients).await
    } else {
        blueprint.look(&clients).await
    };
    let found = found.map_err(unreachable)?;
    let arns = arns(&clients, &job).await;
    if global.json {
        let policies: serde_json::Map<_, _> = Duty::ALL
            .into_iter()
            .map(|duty| (duty.as_str().to_owned(), permissions(&job, &arns, duty)))
            .collect();
        let value = serde_json::json!({
            "job": job.name.as_str(), "applied": args.apply, "created": found.created,
            "changed": found.changed, "present": found.present, "policies": policies,
            "eventRules": rules(&clients, &job).await,
        });
        crate::cli::print(&json_line(&value))?;
        return Ok(Exit::Success);
    }
    crate::cli::print(&told(&found, args.apply.into()))?;
    for rule in rules(&clients, &job).await {
        crate::cli::print(&told_rule(&rule))?;
    }
    let policy = permissions(&job, &arns, args.role);
    let policy = serde_json::to_string_pretty(&policy).expect("plain data serialises");
    let role = args.role.as_str();
    crate::cli::print(&format!(
        "\nthe least that a process in the role `{role}` must be allowed to do:\n{policy}\n"
    ))?;
    Ok(Exit::Success)
}

/// A job of which AWS is asked something: its file read, its programs not looked for.
pub(super) fn read(global: &Global, file: &std::path::Path) -> Result<Job, CliError> {
    let overrides = Overrides {
        dir: current_dir()?,
        ledger: global.ledger().map(str::to_owned),
        ..Overrides::default()
    };
    let stored = read_job(file, overrides)?;
    stored.parse(Executors::Commands).map_err(job_errors)
}

/// What the job needs.
fn blueprint(job: &Job) -> Result<Blueprint, CliError> {
    let lanes: Vec<Lane> = Lane::ALL
        .into_iter()
        .filter(|lane| job.lane(*lane).is_some())
        .collect();
    let bad = |error: ApplyError| CliError::new(ErrorCode::BadArgument, error.to_string());
    let mut blueprint = match &job.ledger {
        LedgerUri::DynamoDb(table) => Blueprint::new(table)
            .and_then(|blueprint| blueprint.with_job(&job.name, &lanes))
            .map_err(bad)?,
        LedgerUri::Sqlite(_) => Blueprint::default(),
    };
    if let InputSpec::Events(events) = &job.input {
        let bucket = needed_bucket(job, events)?;
        let ingest = Ingest {
            queue: events.queue.clone(),
            bucket: bucket.to_owned(),
            prefix: events.prefix.clone(),
            job: job.name.clone(),
        };
        blueprint = blueprint.with_ingest(ingest).map_err(bad)?;
    }
    Ok(blueprint.with_task_events(TaskEvents::of(job)))
}

/// The rules that EventBridge needs for the job; who has leave for it makes them.
async fn rules(clients: &Clients, job: &Job) -> Vec<EventRule> {
    let mut rules = Vec::new();
    for events in TaskEvents::of(job) {
        let arn = SqsQueue::arn(clients, &events.queue).await;
        rules.push(events.rule(arn));
    }
    rules
}

fn told_rule(rule: &EventRule) -> String {
    let EventRule {
        name,
        event_pattern,
        target,
    } = rule;
    let event_pattern = quoted(&event_pattern.to_string());
    let Some(target) = target else {
        return "\nEventBridge needs a rule; it is shown once the queue is there: trommel provision --apply\n".to_owned();
    };
    format!(
        "\nthe rule that EventBridge needs, to be made once:\n\
         aws events put-rule --name {name} --event-pattern {event_pattern}\n\
         aws events put-targets --rule {name} --targets Id=queue,Arn={target}\n"
    )
}

/// As one word of a shell, whatever is in it: people paste what is shown.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The bucket that sends; a job need not name it to be served, but to be set up.
pub(super) fn needed_bucket<'a>(job: &Job, events: &'a EventsSpec) -> Result<&'a str, CliError> {
    events.bucket.as_deref().ok_or_else(|| {
        let problem = format!(
            "the job {} does not say which bucket sends its events",
            job.name
        );
        CliError::new(ErrorCode::BadArgument, problem).hinted(format!(
            "add it: input = {{ events = \"sqs:{}\", bucket = \"NAME\" }}",
            events.queue
        ))
    })
}

/// A service that could not be asked.
pub(super) fn unreachable(error: impl std::fmt::Display) -> CliError {
    CliError::new(ErrorCode::Unreachable, "AWS cannot be asked")
        .because(error)
        .hinted("check AWS_ENDPOINT_URL, region and credentials, and that they may do it")
}

/// Region and account: as the ARN of a queue of the job says, else as far as is known.
async fn arns(clients: &Clients, job: &Job) -> Arns {
    let ingest = match &job.input {
        InputSpec::Events(events) => Some(events.queue.clone()),
        InputSpec::Objects(_)
        | InputSpec::Jsonl(_)
        | InputSpec::Csv { .. }
        | InputSpec::Json(_)
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => None,
    };
    let lane = match &job.ledger {
        LedgerUri::DynamoDb(table) => Some(Blueprint::queue_name(table, &job.name, Lane::Function)),
        LedgerUri::Sqlite(_) => None,
    };
    for queue in [ingest, lane].into_iter().flatten() {
        let arn = SqsQueue::arn(clients, &queue).await;
        if let Some(arns) = arn.as_deref().and_then(Arns::like) {
            return arns;
        }
    }
    let region = clients.sqs.config().region();
    Arns {
        partition: "aws".to_owned(),
        region: region.map_or_else(|| "*".to_owned(), ToString::to_string),
        account: "*".to_owned(),
    }
}

/// Whether it was made, or only would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tense {
    Would,
    Did,
}

impl From<bool> for Tense {
    fn from(applied: bool) -> Self {
        if applied { Self::Did } else { Self::Would }
    }
}

fn told(found: &Found, tense: Tense) -> String {
    let (made, changed) = match tense {
        Tense::Would => ("would make", "would change"),
        Tense::Did => ("made", "changed"),
    };
    let mut out = String::new();
    for (word, things) in [
        (made, &found.created),
        (changed, &found.changed),
        ("there", &found.present),
    ] {
        for thing in things {
            let thing = escape(thing);
            writeln!(out, "{word:<13} {thing}").expect("a String takes everything");
        }
    }
    if found.is_complete() {
        out.push_str(match (tense, found.present.is_empty()) {
            (_, true) => "nothing is needed on AWS: the ledger is embedded\n",
            (Tense::Would, false) => "nothing to be made or changed\n",
            (Tense::Did, false) => "nothing was made or changed\n",
        });
    } else if tense == Tense::Would {
        out.push_str("nothing was done: --apply does it\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_told_as_commands_to_paste() {
        let events = TaskEvents {
            queue: "media-tasks".to_owned(),
            cluster: "media".to_owned(),
            job: crate::core::id::JobName::new("thumbs"),
            lane: Lane::Container,
        };
        let queue = "arn:aws:sqs:eu-west-1:1:media-tasks";
        let told = told_rule(&events.rule(Some(queue.to_owned())));
        insta::assert_snapshot!(told.trim_start(), @r#"
        the rule that EventBridge needs, to be made once:
        aws events put-rule --name trommel-thumbs-container --event-pattern '{"detail":{"clusterArn":[{"suffix":":cluster/media"}],"lastStatus":["RUNNING","STOPPED"],"startedBy":[{"prefix":"trommel/"}]},"detail-type":["ECS Task State Change"],"source":["aws.ecs"]}'
        aws events put-targets --rule trommel-thumbs-container --targets Id=queue,Arn=arn:aws:sqs:eu-west-1:1:media-tasks
        "#);
    }

    #[test]
    fn a_rule_without_its_queue_is_no_command_yet_and_nothing_that_is_pasted_ends_its_word() {
        let events = TaskEvents {
            queue: "media-tasks".to_owned(),
            cluster: "it's; media".to_owned(),
            job: crate::core::id::JobName::new("thumbs"),
            lane: Lane::Container,
        };
        let told = told_rule(&events.rule(None));
        assert!(!told.contains("put-targets"), "{told}");
        let told = told_rule(&events.rule(Some("arn".to_owned())));
        assert!(told.contains(r":cluster/it'\''s; media"), "{told}");
    }

    #[test]
    fn what_would_be_done_and_what_was_are_told_apart() {
        let found = Found {
            present: vec!["table `t`".to_owned()],
            created: vec!["queue `q`".to_owned()],
            changed: vec!["queue `p`: VisibilityTimeout 5 → 30".to_owned()],
        };
        insta::assert_snapshot!(told(&found, Tense::Would), @r"
        would make    queue `q`
        would change  queue `p`: VisibilityTimeout 5 → 30
        there         table `t`
        nothing was done: --apply does it
        ");
        let complete = Found {
            present: found.present,
            ..Found::default()
        };
        insta::assert_snapshot!(told(&complete, Tense::Did), @r"
        there         table `t`
        nothing was made or changed
        ");
    }
}
