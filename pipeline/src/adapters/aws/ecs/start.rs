//! Starts one task, and says what it means that it did not start.
//!
//! RunTask is repeated by the SDK where its answer is lost: with the same token ECS answers with the task that it started
//! ("Ensuring idempotency"), also to another process after a crash. That one holds another lease, so its variables differ,
//! which ECS tells as a conflict that names the task.

use std::collections::BTreeMap;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::SdkError;
use aws_sdk_ecs::operation::run_task::{RunTaskError, RunTaskOutput};
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, KeyValuePair,
    NetworkConfiguration, TaskOverride,
};

use super::super::classify::{Fault, Verdict};
use super::ended::is_capacity;
use crate::core::class::{Class, Failure};
use crate::core::job::EcsSpec;

/// A task to start.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    pub(super) spec: &'a EcsSpec,
    pub(super) token: String,
    pub(super) started_by: String,
    pub(super) variables: BTreeMap<String, String>,
}

/// Why there is no task, as far as one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotStarted {
    /// There certainly is none.
    Refused(Failure),
    /// There may be one, that nobody here waits for.
    Unclear(Failure),
}

const HELP_ACCESS: &str = "allow ecs:RunTask, and iam:PassRole for the roles of the task definition, as the policy that `trommel provision` prints does";
const HELP_CLUSTER: &str = "check the cluster's name, the region and the account";

/// Starts the task, or finds the one of the same token; answers its ARN.
pub(super) async fn run_task(client: &Client, order: &Order<'_>) -> Result<String, NotStarted> {
    let spec = order.spec;
    let request = client
        .run_task()
        .cluster(&spec.cluster)
        .task_definition(&spec.task_definition)
        .count(1)
        .client_token(&order.token)
        .started_by(&order.started_by)
        .set_capacity_provider_strategy(strategy(spec))
        .network_configuration(network(spec))
        .overrides(overrides(order));
    match request.send().await {
        Ok(output) => started(&output),
        Err(error) => match conflict(&error) {
            Some(arn) => Ok(arn),
            None => Err(NotStarted::by(&Fault::of(&error))),
        },
    }
}

fn strategy(spec: &EcsSpec) -> Option<Vec<CapacityProviderStrategyItem>> {
    let provider = spec.capacity_provider.as_ref()?;
    let item = CapacityProviderStrategyItem::builder().capacity_provider(provider);
    Some(vec![item.build().expect("its provider is set")])
}

fn network(spec: &EcsSpec) -> NetworkConfiguration {
    let groups = (!spec.security_groups.is_empty()).then(|| spec.security_groups.clone());
    let place = AwsVpcConfiguration::builder()
        .set_subnets(Some(spec.subnets.clone()))
        .set_security_groups(groups);
    let place = place.build().expect("its subnets are set");
    NetworkConfiguration::builder()
        .awsvpc_configuration(place)
        .build()
}

fn overrides(order: &Order<'_>) -> TaskOverride {
    let pairs = order
        .variables
        .iter()
        .map(|(name, value)| KeyValuePair::builder().name(name).value(value).build());
    let container = ContainerOverride::builder()
        .name(&order.spec.container)
        .set_environment(Some(pairs.collect()));
    TaskOverride::builder()
        .container_overrides(container.build())
        .build()
}

/// A success may hold no task but the reason why there is none ("RunTask", failures).
fn started(output: &RunTaskOutput) -> Result<String, NotStarted> {
    let task = output.tasks().first().and_then(|task| task.task_arn());
    if let Some(arn) = task {
        return Ok(arn.to_owned());
    }
    let reasons = output.failures().iter().map(|failure| {
        let (reason, detail) = (failure.reason(), failure.detail());
        let told: Vec<&str> = reason.into_iter().chain(detail).collect();
        told.join(": ")
    });
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    Err(NotStarted::without_task(&reasons))
}

/// The task of the same token and other variables.
fn conflict(error: &SdkError<RunTaskError, HttpResponse>) -> Option<String> {
    match error.as_service_error()? {
        RunTaskError::ConflictException(conflict) => conflict.resource_ids().first().cloned(),
        // The SDK's enum, and not closed.
        _ => None,
    }
}

impl NotStarted {
    fn without_task(reasons: &str) -> Self {
        // "API failure reasons": those of capacity go by, the others are there until somebody mends them.
        if is_capacity(reasons) {
            return Self::refused(Class::Throttled, format!("ECS has no room: {reasons}"));
        }
        let cause = format!("ECS started no task: {reasons}");
        Self::refused(Class::Unavailable, cause)
    }

    fn by(fault: &Fault) -> Self {
        let text = &fault.text;
        if is_capacity(text) {
            return Self::refused(Class::Throttled, format!("ECS has no room: {text}"));
        }
        let unavailable =
            |help: &str| Self::refused(Class::Unavailable, format!("ECS: {text}; {help}"));
        match fault.code.as_str() {
            "ClusterNotFoundException" => return unavailable(HELP_CLUSTER),
            "AccessDeniedException" => return unavailable(HELP_ACCESS),
            "ServerException" => return Self::unclear(text),
            // What all services have in common says the rest.
            _ => {}
        }
        match fault.verdict() {
            Verdict::Throttled => Self::refused(Class::Throttled, format!("ECS: {text}")),
            Verdict::Unreachable => unavailable("check AWS_ENDPOINT_URL and the network"),
            Verdict::NotFound => unavailable(HELP_CLUSTER),
            Verdict::Refused(help) => unavailable(help),
            Verdict::Unclear | Verdict::Condition | Verdict::Conflict => Self::unclear(text),
        }
    }

    fn refused(class: Class, cause: String) -> Self {
        Self::Refused(Failure::new(class, cause))
    }

    fn unclear(text: &str) -> Self {
        let cause = format!("no answer, and a task may have been started: {text}");
        Self::Unclear(Failure::new(Class::Crashed, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::classify::Reach;
    use super::*;
    use aws_sdk_ecs::types::{Failure as EcsFailure, Task};

    /// The class, and whether a task may be there all the same.
    fn told(not_started: &NotStarted) -> String {
        match not_started {
            NotStarted::Refused(failure) => failure.class.to_string(),
            NotStarted::Unclear(failure) => format!("unclear {}", failure.class),
        }
    }

    #[test]
    fn every_refusal_has_its_class() {
        let limit = "You've reached the limit on the number of tasks you can run concurrently";
        for (code, status, text, expected) in [
            ("ThrottlingException", 400, "Rate exceeded", "Throttled"),
            ("ClientException", 400, limit, "Throttled"),
            (
                "ClientException",
                400,
                "TaskDefinition is inactive",
                "Unavailable",
            ),
            ("InvalidParameterException", 400, "subnet", "Unavailable"),
            ("ClusterNotFoundException", 400, "", "Unavailable"),
            ("AccessDeniedException", 400, "", "Unavailable"),
            ("ServerException", 500, "", "unclear Crashed"),
            ("", 504, "", "unclear Crashed"),
        ] {
            let fault = Fault {
                reach: Reach::Answered(status),
                code: code.to_owned(),
                text: text.to_owned(),
            };
            assert_eq!(told(&NotStarted::by(&fault)), expected, "{code} {text}");
        }
    }

    #[test]
    fn a_success_without_a_task_says_why() {
        let failure = |reason: &str| EcsFailure::builder().reason(reason).build();
        for (reason, expected) in [
            ("RESOURCE:MEMORY", "Throttled"),
            ("AGENT", "Throttled"),
            ("Capacity is unavailable at this time.", "Throttled"),
            ("INACTIVE", "Unavailable"),
            ("MISSING", "Unavailable"),
        ] {
            let output = RunTaskOutput::builder().failures(failure(reason)).build();
            let refused = started(&output).expect_err("there is no task");
            assert_eq!(told(&refused), expected, "{reason}");
        }
        let task = Task::builder().task_arn("arn:aws:ecs:::task/1").build();
        let output = RunTaskOutput::builder().tasks(task).build();
        assert_eq!(started(&output), Ok("arn:aws:ecs:::task/1".to_owned()));
    }
}
