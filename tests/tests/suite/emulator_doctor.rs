//! What `doctor` says of lanes that call AWS: functions, clusters, task definitions, the queue of tasks' events. On MiniStack, as
//! LocalStack's open edition knows no ECS.

use std::time::Duration;

use aws_sdk_ecs::types::ContainerDefinition;
use serde_json::Value;

use crate::docker_ecs::register;
use crate::emulator_arms::{emulator_with_functions, fresh};
use crate::support::{Place, wait_until};

/// The ledger stays here: only the lanes are looked at.
const LEDGER: &str = "sqlite:.trommel/ledger.db";

const FUNCTION_SECONDS: i32 = 20;

fn job(name: &str, container: &str, timeout_seconds: i32) -> String {
    format!(
        r#"
        name = "{name}"
        ledger = "{LEDGER}"
        input = {{ range = "0..10" }}
        [function]
        lambda = "{name}"
        timeout = "{timeout_seconds}s"
        [container]
        ecs = {{ cluster = "{name}", task_definition = "{name}", container = "{container}", subnets = ["subnet-1"], events_queue = "sqs:{name}-tasks" }}
        "#
    )
}

/// The checks that are not well, by what they are of.
fn unwell(place: &Place, exit: i32) -> Vec<String> {
    let told: Value = place
        .trommel(&["doctor", "job.toml", "--json"])
        .exits(exit)
        .json();
    let checks = told["checks"].as_array().expect("a list");
    let word = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    checks
        .iter()
        .filter(|check| check["health"] != "ok")
        .map(|check| format!("{}: {}", word(check, "what"), word(check, "found")))
        .collect()
}

#[tokio::test]
async fn a_doctor_looks_at_what_the_lanes_call() {
    let Some(emulator) = emulator_with_functions("doctor of lanes").await else {
        return;
    };
    let variables = [
        ("AWS_ENDPOINT_URL", emulator.url()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let place = Place::elsewhere(LEDGER, &variables);
    let name = fresh("lanes");
    place.write("job.toml", job(&name, "work", FUNCTION_SECONDS));
    let missing = [
        format!("function {name}: is not there"),
        format!("cluster {name}: is not there"),
        format!("task definition {name}: is not there"),
        format!("queue {name}-tasks of task events: is not there"),
    ];
    assert_eq!(unwell(&place, 4), missing);

    let clients = emulator.clients().await;
    let source = "def handle(event, context):\n    return event\n";
    let made = emulator.function(&clients, &name, source, FUNCTION_SECONDS);
    made.await.expect("a new function");
    let made = clients.ecs.create_cluster().cluster_name(&name).send();
    made.await.expect("a new cluster");
    let container = ContainerDefinition::builder()
        .name("work")
        .image("nothing-that-runs")
        .build();
    register(&clients, &name, container).await;
    place
        .trommel(&["provision", "job.toml", "--apply"])
        .exits(0);
    // A function is being made for a moment.
    wait_until("all is well", Duration::from_mins(1), || {
        unwell(&place, 0).is_empty()
    });

    place.write("job.toml", job(&name, "another", 3 * FUNCTION_SECONDS));
    let wrong = [
        format!("function {name}: ends its calls after 20s, and the lane waits for 60s"),
        format!("task definition {name}: has no container another"),
    ];
    assert_eq!(unwell(&place, 4), wrong);
}
