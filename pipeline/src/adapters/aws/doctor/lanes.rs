//! What the lanes call on AWS: functions, clusters, task definitions, and the queue of the tasks' events. Trommel makes none of
//! them but the queue.

use std::time::Duration;

use aws_sdk_ecs::types::{ContainerDefinition, TaskDefinitionStatus};
use aws_sdk_lambda::types::State;
use futures_util::future::{join, join_all};

use super::{Check, PROVISION, refused, unlooked};
use crate::adapters::aws::blueprint::{TaskEvents, queue};
use crate::adapters::aws::classify::Fault;
use crate::adapters::aws::config::Clients;
use crate::core::job::{EcsSpec, ExecutorSpec, Job, LaneSpec};
use crate::core::lane::Lane;

/// A cluster that takes tasks ("Cluster", status).
const ACTIVE: &str = "ACTIVE";

/// The error of a function that is not there ("GetFunctionConfiguration").
const NO_FUNCTION: &str = "ResourceNotFoundException";

/// That of a task definition, among other things ("DescribeTaskDefinition").
const NO_DEFINITION: &str = "ClientException";

const NAMED_SO: &str = "make it, or check its name in the job, AWS_REGION and the account";

pub(super) async fn examine(clients: &Clients, job: &Job) -> Vec<Check> {
    let specs = Lane::ALL.into_iter().filter_map(|lane| job.lane(lane));
    let lanes = join_all(specs.map(|spec| lane(clients, spec)));
    let events = TaskEvents::of(job);
    let queues = join_all(events.iter().map(|events| task_events(clients, events)));
    let (lanes, queues) = join(lanes, queues).await;
    lanes.into_iter().flatten().chain(queues).collect()
}

async fn lane(clients: &Clients, spec: &LaneSpec) -> Vec<Check> {
    match &spec.executor {
        ExecutorSpec::Lambda(lambda) => vec![function(clients, &lambda.function, spec).await],
        ExecutorSpec::Ecs(ecs) => {
            let place = cluster(clients, &ecs.cluster);
            let (place, definition) = join(place, definition(clients, ecs)).await;
            vec![place, definition]
        }
        ExecutorSpec::Command { .. }
        | ExecutorSpec::Handler(_)
        | ExecutorSpec::Docker(_)
        | ExecutorSpec::InProcess => Vec::new(),
    }
}

async fn function(clients: &Clients, name: &str, lane: &LaneSpec) -> Check {
    let what = format!("function {name}");
    let asked = clients.lambda.get_function_configuration();
    let found = match asked.function_name(name).send().await {
        Ok(found) => found,
        Err(error) => return missing_or_refused(what, &Fault::of(&error), NO_FUNCTION),
    };
    if found.state() == Some(&State::Failed) {
        let why = found.state_reason().unwrap_or("it does not say why");
        return Check::fail(what, format!("cannot run: {why}"), "repair and deploy it");
    }
    if found.state() == Some(&State::Pending) {
        return Check::warn(what, "is being made", "look again in a minute");
    }
    let seconds = u64::try_from(found.timeout().unwrap_or_default()).unwrap_or_default();
    timeouts(what, Duration::from_secs(seconds), lane.timeout)
}

/// A function's own timeout ends its calls before the lane's does, if it is the shorter one.
fn timeouts(what: String, own: Duration, lanes: Option<Duration>) -> Check {
    match lanes {
        Some(lanes) if own < lanes => Check::warn(
            what,
            format!("ends its calls after {own:?}, and the lane waits for {lanes:?}"),
            "give the function as long (at most 15 min), or the lane's timeout no more",
        ),
        Some(_) | None => Check::ok(what, format!("there, and ends its calls after {own:?}")),
    }
}

async fn cluster(clients: &Clients, name: &str) -> Check {
    let what = format!("cluster {name}");
    let found = match clients.ecs.describe_clusters().clusters(name).send().await {
        Ok(found) => found,
        Err(error) => return refused(what, &Fault::of(&error)),
    };
    match found.clusters().first().and_then(|found| found.status()) {
        Some(ACTIVE) => Check::ok(what, "there, and takes tasks"),
        Some(status) => Check::fail(what, format!("is {status}"), NAMED_SO),
        None => Check::fail(what, "is not there", NAMED_SO),
    }
}

async fn definition(clients: &Clients, spec: &EcsSpec) -> Check {
    let what = format!("task definition {}", spec.task_definition);
    let asked = clients.ecs.describe_task_definition();
    let found = match asked.task_definition(&spec.task_definition).send().await {
        Ok(found) => found.task_definition,
        Err(error) => {
            return missing_or_refused(what, &Fault::of(&error), NO_DEFINITION);
        }
    };
    let Some(found) = found else {
        return Check::fail(what, "is not there", NAMED_SO);
    };
    if found.status() == Some(&TaskDefinitionStatus::Inactive) {
        return Check::fail(what, "was given up: no new task starts", NAMED_SO);
    }
    let mut names = found
        .container_definitions()
        .iter()
        .filter_map(ContainerDefinition::name);
    if names.any(|name| name == spec.container) {
        return Check::ok(what, format!("there, with container {}", spec.container));
    }
    let found = format!("has no container {}", spec.container);
    Check::fail(what, found, "name one of its containers in the job")
}

/// The queue and its leave. Whether EventBridge has the rule is not looked at; without it tasks are seen late, not lost.
async fn task_events(clients: &Clients, events: &TaskEvents) -> Check {
    let what = format!("queue {} of task events", queue::name_of(&events.queue));
    let attributes = match queue::url(clients, &events.queue).await {
        Ok(Some(url)) => queue::attributes(clients, &events.queue, &url).await,
        Ok(None) => return Check::fail(what, "is not there", PROVISION),
        Err(error) => Err(error),
    };
    match attributes.and_then(|attributes| events.is_let_in(&attributes)) {
        Ok(true) => Check::ok(what, "there, and lets the rule of EventBridge send")
            .helped("whether there is that rule is not looked at: trommel provision JOB shows it"),
        Ok(false) => Check::fail(what, "does not let the rule of EventBridge send", PROVISION),
        Err(error) => unlooked(what, &error),
    }
}

fn missing_or_refused(what: String, fault: &Fault, missing: &str) -> Check {
    if fault.code == missing {
        return Check::fail(what, "is not there", NAMED_SO);
    }
    refused(what, fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::aws::Health;

    #[test]
    fn a_function_that_ends_its_calls_before_the_lane_does_is_worth_a_word() {
        let second = Duration::from_secs(1);
        let health = |own: u32, lane: Option<u32>| {
            let lane = lane.map(|seconds| second * seconds);
            timeouts("function f".to_owned(), second * own, lane).health
        };
        assert_eq!(health(3, Some(60)), Health::Warn);
        assert_eq!(health(60, Some(60)), Health::Ok);
        assert_eq!(health(3, None), Health::Ok);
    }
}
