//! Reads what ECS tells of a task: a "Task state change event" out of a message. Pure.
//!
//! Its detail is what DescribeTasks would answer. Versions are not compared: what is read of it never changes back. A task
//! that has stopped stays so, and its start is told alike in every event.

use aws_sdk_ecs::types::{Container, Task, TaskStopCode};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Deserialize;

/// The fields of an event that say what it is ("Amazon ECS task state change events").
pub(in crate::adapters::aws) const SOURCE: &str = "aws.ecs";
/// See [`SOURCE`].
pub(in crate::adapters::aws) const DETAIL_TYPE: &str = "ECS Task State Change";

#[derive(Deserialize)]
struct Event {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    detail: Detail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    task_arn: String,
    last_status: String,
    started_at: Option<String>,
    stop_code: Option<String>,
    stopped_reason: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerDetail {
    name: Option<String>,
    exit_code: Option<i32>,
    reason: Option<String>,
}

/// The task of an event; none if the message is something else.
pub(super) fn task_of(body: &str) -> Option<Task> {
    let event: Event = serde_json::from_str(body).ok()?;
    if event.source != SOURCE || event.detail_type != DETAIL_TYPE {
        return None;
    }
    let detail = event.detail;
    let at = |text: String| DateTime::from_str(&text, Format::DateTimeWithOffset).ok();
    let container = |one: ContainerDetail| {
        Container::builder()
            .set_name(one.name)
            .set_exit_code(one.exit_code)
            .set_reason(one.reason)
            .build()
    };
    let containers = detail.containers.into_iter().map(container);
    let task = Task::builder()
        .task_arn(detail.task_arn)
        .last_status(detail.last_status)
        .set_started_at(detail.started_at.and_then(at))
        .set_stop_code(detail.stop_code.as_deref().map(TaskStopCode::from))
        .set_stopped_reason(detail.stopped_reason)
        .set_containers(Some(containers.collect()));
    Some(task.build())
}

/// Whether a task that has stopped says how: where its containers ended by themselves, by what each exited with.
pub(super) fn says_how(task: &Task) -> bool {
    match task.stop_code() {
        None | Some(TaskStopCode::EssentialContainerExited) => {
            let containers = task.containers();
            !containers.is_empty() && containers.iter().all(|one| one.exit_code().is_some())
        }
        // The SDK's enum, and not closed: the code is why, and nothing may ever have run.
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ended::Ended;
    use super::*;

    /// As AWS sends it, shortened.
    const STOPPED: &str = r#"{"version":"0","id":"9bcdac79-b31f-4d3d-9410-fbd727c29fab","detail-type":"ECS Task State Change",
        "source":"aws.ecs","account":"123456789012","time":"2026-11-06T16:41:06Z","region":"us-west-2",
        "resources":["arn:aws:ecs:us-west-2:123456789012:task/media/b99d40b3"],
        "detail":{"clusterArn":"arn:aws:ecs:us-west-2:123456789012:cluster/media","containers":[
        {"containerArn":"arn:aws:ecs:us-west-2:123456789012:container/cf159fd6","exitCode":3,"lastStatus":"STOPPED","name":"work","image":"i",
        "runtimeId":"757c","taskArn":"arn:aws:ecs:us-west-2:123456789012:task/media/b99d40b3","networkInterfaces":[],"cpu":"0"}],
        "createdAt":"2026-11-06T16:40:34.1Z","launchType":"FARGATE","cpu":"256","memory":"512","desiredStatus":"STOPPED",
        "group":"family:work","lastStatus":"STOPPED","overrides":{"containerOverrides":[{"name":"work"}]},"connectivity":"CONNECTED",
        "startedAt":"2026-11-06T16:40:52.641Z","startedBy":"trommel/brave-heron-4f2a/3-17-1","stoppedAt":"2026-11-06T16:41:06.2Z",
        "stopCode":"EssentialContainerExited","stoppedReason":"Essential container in task exited",
        "taskArn":"arn:aws:ecs:us-west-2:123456789012:task/media/b99d40b3","version":5}}"#;

    #[test]
    fn an_event_as_ecs_sends_it_says_what_describe_tasks_would() {
        let task = task_of(STOPPED).expect("an event");
        let arn = "arn:aws:ecs:us-west-2:123456789012:task/media/b99d40b3";
        assert_eq!(task.task_arn(), Some(arn));
        let at = task.started_at().expect("it was started");
        assert_eq!((at.secs(), at.subsec_nanos()), (1_793_983_252, 641_000_000));
        assert!(says_how(&task));
        let ended = Ended::of(&task, "work").expect("it has stopped");
        let expected = "Failed(Failure { class: Named(\"Exit3\")";
        assert!(format!("{:?}", ended.report()).starts_with(expected));
    }

    #[test]
    fn what_is_no_such_event_is_told_apart() {
        for body in [
            "",
            "nonsense",
            "{}",
            "[]",
            r#"{"Records":[]}"#,
            &STOPPED.replace("aws.ecs", "aws.ec2"),
            &STOPPED.replace(
                "ECS Task State Change",
                "ECS Container Instance State Change",
            ),
            &STOPPED.replace("\"taskArn\":", "\"task\":"),
        ] {
            assert_eq!(task_of(body), None, "{body}");
        }
    }

    #[test]
    fn an_end_by_itself_says_how_only_with_what_its_containers_exited_with() {
        let without = task_of(&STOPPED.replace(r#""exitCode":3,"#, "")).expect("an event");
        assert!(!says_how(&without));
        let code = |code: &str| {
            let body = STOPPED.replace(r#""exitCode":3,"#, "");
            task_of(&body.replace("EssentialContainerExited", code)).expect("an event")
        };
        for other in ["SpotInterruption", "TaskFailedToStart", "UserInitiated"] {
            assert!(says_how(&code(other)), "{other}");
        }
    }
}
