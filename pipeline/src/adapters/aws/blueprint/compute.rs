//! What a worker must be allowed for calls that AWS carries out, functions and tasks, and as a task itself. Pure.

use serde_json::{Value, json};

use super::permissions::{Arns, allow};
use super::queue;
use crate::core::job::{EcsSpec, ExecutorSpec, Job, LambdaSpec};
use crate::core::lane::Lane;

/// The statements for the job's lanes; none where calls are carried out here.
pub(super) fn statements(job: &Job, arns: &Arns) -> Vec<Value> {
    let mut statements: Vec<Value> = Vec::new();
    for lane in Lane::ALL {
        let Some(spec) = job.lane(lane) else { continue };
        let sid = match lane {
            Lane::Function => "Function",
            Lane::Container => "Container",
        };
        match &spec.executor {
            ExecutorSpec::Lambda(lambda) => statements.push(lambda_of(sid, lambda, arns)),
            ExecutorSpec::Ecs(ecs) => statements.extend(ecs_of(sid, ecs, arns)),
            ExecutorSpec::Command { .. }
            | ExecutorSpec::Handler(_)
            | ExecutorSpec::Docker(_)
            | ExecutorSpec::InProcess => {}
        }
    }
    statements
}

/// The function by the name that the job has for it, with version or alias: leave for the bare function does not do for
/// those ("Fine-tuning the Resources and Conditions sections of policies").
fn lambda_of(lane: &str, lambda: &LambdaSpec, arns: &Arns) -> Value {
    let name = &lambda.function;
    let resource = match name.split_once(":function:") {
        _ if name.starts_with("arn:") => name.clone(),
        // A partial ARN: `123456789012:function:name`.
        Some((account, name)) => {
            let elsewhere = Arns {
                account: account.to_owned(),
                ..arns.clone()
            };
            elsewhere.of("lambda", &format!("function:{name}"))
        }
        None => arns.of("lambda", &format!("function:{name}")),
    };
    let sid = format!("{lane}Invoke");
    allow(&sid, &["lambda:InvokeFunction"], &[resource])
}

/// Tasks of this definition in this cluster, and no others. The roles that they get are the task definition's and not known
/// here: any of the account may be handed on, but to tasks only.
fn ecs_of(lane: &str, ecs: &EcsSpec, arns: &Arns) -> Vec<Value> {
    let cluster = last(&ecs.cluster);
    let definition = last(&ecs.task_definition);
    // A family means its newest revision, whichever that is ("RunTask", taskDefinition).
    let revision = if definition.contains(':') { "" } else { ":*" };
    let in_cluster =
        json!({ "ArnEquals": { "ecs:cluster": arns.of("ecs", &format!("cluster/{cluster}")) } });
    let to_tasks = json!({ "StringEquals": { "iam:PassedToService": "ecs-tasks.amazonaws.com" } });
    let definition = arns.of("ecs", &format!("task-definition/{definition}{revision}"));
    let tasks = arns.of("ecs", &format!("task/{cluster}/*"));
    let roles = Arns {
        region: String::new(),
        ..arns.clone()
    }
    .of("iam", "role/*");
    let named = |what: &str| format!("{lane}{what}");
    let mut statements = vec![
        on_condition(
            allow(&named("Start"), &["ecs:RunTask"], &[definition]),
            in_cluster,
        ),
        allow(
            &named("Tasks"),
            &["ecs:DescribeTasks", "ecs:StopTask"],
            &[tasks],
        ),
        on_condition(
            allow(&named("Roles"), &["iam:PassRole"], &[roles]),
            to_tasks,
        ),
    ];
    if let Some(events) = &ecs.events_queue {
        let actions = [
            "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage",
            "sqs:GetQueueUrl",
            "sqs:ReceiveMessage",
        ];
        let queue = arns.of("sqs", queue::name_of(events));
        statements.push(allow(&named("Events"), &actions, &[queue]));
    }
    statements
}

/// What a process asks of the agent on its machine, which does it in the name of the task's role ("Amazon ECS task scale-in
/// protection"). In which cluster that is the job does not say. Where the process is no task of a service, nobody uses it.
pub(super) fn protection(arns: &Arns) -> Value {
    let actions = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"];
    allow("TaskProtection", &actions, &[arns.of("ecs", "task/*")])
}

/// The name at the end of an ARN, or the name itself.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn on_condition(mut statement: Value, condition: Value) -> Value {
    statement["Condition"] = condition;
    statement
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::permissions;
    use super::super::permissions::tests::job;
    use super::*;
    use crate::core::duty::Duty;

    fn arns() -> Arns {
        Arns::like("arn:aws:sqs:eu-west-1:123456789012:photos-inbox").expect("an ARN")
    }

    fn lambda(function: &str) -> ExecutorSpec {
        ExecutorSpec::Lambda(LambdaSpec {
            function: function.to_owned(),
        })
    }

    fn branching() -> Job {
        let mut job = job();
        let mut container = job.function.clone();
        job.function.executor = lambda("thumbnails:live");
        container.executor = ExecutorSpec::Ecs(EcsSpec {
            cluster: "media".to_owned(),
            task_definition: "thumbnails".to_owned(),
            container: "work".to_owned(),
            subnets: vec!["subnet-1".to_owned()],
            security_groups: Vec::new(),
            capacity_provider: None,
            events_queue: Some("media-tasks".to_owned()),
            environment: BTreeMap::new(),
        });
        job.container = Some(container);
        job
    }

    #[test]
    fn the_statements_are_reviewed_like_code() {
        let shown = serde_json::to_string_pretty(&statements(&branching(), &arns()));
        insta::assert_snapshot!("permissions_compute", shown.expect("JSON"));
    }

    #[test]
    fn who_only_routes_may_start_nothing() {
        let policy = permissions(&branching(), &arns(), Duty::Router).to_string();
        for action in ["lambda:", "ecs:", "iam:"] {
            assert!(!policy.contains(action), "{policy}");
        }
        let policy = permissions(&branching(), &arns(), Duty::Worker).to_string();
        for action in ["lambda:InvokeFunction", "ecs:RunTask", "iam:PassRole"] {
            assert!(policy.contains(action), "{policy}");
        }
    }

    #[test]
    fn a_function_and_a_task_definition_may_be_named_by_their_arns() {
        for (function, resource) in [
            ("f", "arn:aws:lambda:eu-west-1:123456789012:function:f"),
            (
                "999999999999:function:f:2",
                "arn:aws:lambda:eu-west-1:999999999999:function:f:2",
            ),
            (
                "arn:aws:lambda:eu-west-2:1:function:f",
                "arn:aws:lambda:eu-west-2:1:function:f",
            ),
        ] {
            let mut job = job();
            job.function.executor = lambda(function);
            assert_eq!(statements(&job, &arns())[0]["Resource"][0], resource);
        }
        assert_eq!(last("arn:aws:ecs:eu-west-1:1:task-definition/t:7"), "t:7");
    }
}
