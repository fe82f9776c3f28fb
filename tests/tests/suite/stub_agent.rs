//! The protection of an ECS task against an agent of our own: the real program, told by `ECS_AGENT_URI` that it is a task,
//! asks for it while calls run.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::emulator_arms::emulator;
use crate::emulator_journey::Cloud;
use crate::stub::{Reply, Stub};
use crate::support::{Place, figure, now, wait_until};

/// A process starts, a call begins, a run ends within this time, however busy the machine.
const WITHIN: Duration = Duration::from_secs(60);

/// An item that runs until it is let go.
const WAITS: &str =
    r#"read value; note start "$value"; while [ ! -e go ]; do sleep 0.05; done; note end "$value""#;

/// What the agent was asked for, in its order.
fn asked(agent: &Stub) -> Vec<Value> {
    let asked = agent.asked();
    let of = asked.iter().map(|request| {
        assert_eq!(request.method, "PUT");
        assert_eq!(request.path, "/api/task-1/task-protection/v1/state");
        request.json()
    });
    of.collect()
}

fn on() -> Value {
    json!({ "ProtectionEnabled": true, "ExpiresInMinutes": 30 })
}

fn off() -> Value {
    json!({ "ProtectionEnabled": false })
}

/// Does what it is asked, and says so as ECS's does.
async fn agent() -> Stub {
    Stub::start(|request| {
        let enabled = request.json()["ProtectionEnabled"].clone();
        let protection = json!({ "ProtectionEnabled": enabled, "TaskArn": "arn:aws:ecs:::task/1" });
        Reply::json(200, &json!({ "protection": protection }))
    })
    .await
}

fn place() -> Place {
    let place = Place::with_job(
        r#"
        name = "protected"
        input = { inline = ["one"] }
        [function]
        command = ["./work"]
        "#,
    );
    place.script("work", WAITS);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_protected_while_an_item_runs_and_not_when_it_has_ended() {
    let agent = agent().await;
    let mut place = place();
    place.set("ECS_AGENT_URI", &format!("{}/api/task-1", agent.url));
    let run = place.start(&["run", "job.toml"]);
    wait_until("it asks", WITHIN, || !asked(&agent).is_empty());
    assert_eq!(place.log().count("start"), 1, "not before a call runs");
    assert_eq!(asked(&agent), [on()]);
    place.write("go", "");
    run.wait_within(WITHIN).exits(0);
    assert_eq!(asked(&agent), [on(), off()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_protected_while_an_item_runs_and_not_a_while_after_it() {
    let Some(emulator) = emulator("the protection of a worker").await else {
        return;
    };
    let agent = agent().await;
    let mut cloud = Cloud::new(emulator, "protected").await;
    let agent_uri = format!("{}/api/task-1", agent.url);
    cloud.place.set("ECS_AGENT_URI", &agent_uri);
    let place = &cloud.place;
    cloud.write_one_item_job("protected");
    place.script("work", WAITS);
    let mut worker = place.start(&["worker", "job.toml", "--lane", "function"]);
    let router = place.start(&["run", "job.toml", "--role", "router"]);
    wait_until("the item runs", WITHIN, || place.log().count("start") > 0);
    let began = now();
    wait_until("it is protected", WITHIN, || asked(&agent) == [on()]);
    let protected_after = began.elapsed();
    place.write("go", "");
    router.wait_within(WITHIN).exits(0);
    let ended = now();
    wait_until("it is given up", WITHIN, || asked(&agent) == [on(), off()]);
    let released_after = ended.elapsed();
    assert!(worker.is_running(), "while the worker goes on");
    worker.signal(Signal::SIGTERM);
    worker.wait_within(WITHIN).exits(143);
    assert_eq!(asked(&agent), [on(), off()]);
    figure(&format!(
        "a worker as a task: protected {protected_after:.1?} after its item began, released {released_after:.1?} after the run"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_with_the_protection_given_up() {
    let agent = agent().await;
    let mut place = place();
    place.set("ECS_AGENT_URI", &format!("{}/api/task-1", agent.url));
    let run = place.start(&["run", "job.toml"]);
    wait_until("it asks", WITHIN, || !asked(&agent).is_empty());
    run.signal(Signal::SIGTERM);
    wait_until("it drains", WITHIN, || {
        run.said().contains("finishing what runs")
    });
    assert_eq!(
        asked(&agent),
        [on()],
        "what runs is protected to its own end"
    );
    place.write("go", "");
    run.wait_within(WITHIN);
    assert_eq!(place.log().count("end"), 1);
    assert_eq!(asked(&agent), [on(), off()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_or_goes_away_stops_no_work_and_is_told_of_once() {
    let refusal =
        json!({ "failure": { "Arn": "arn", "Detail": null, "Reason": "TASK_NOT_VALID" } });
    for (reply, told) in [
        (Reply::json(200, &refusal), "TASK_NOT_VALID"),
        (Reply::Lost, "the agent of ECS"),
    ] {
        let agent = Stub::start(move |_| reply.clone()).await;
        let mut place = place();
        place.set("ECS_AGENT_URI", &format!("{}/api/task-1", agent.url));
        let run = place.start(&["run", "job.toml"]);
        // The second request comes some seconds later, as nothing has changed.
        wait_until("it asks again", WITHIN, || asked(&agent).len() > 1);
        place.write("go", "");
        let run = run.wait_within(WITHIN).exits(0);
        let lines = run.stderr.lines().filter(|line| line.contains(told));
        assert_eq!(lines.count(), 1, "{}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_machine_is_not_believed() {
    let mut place = place();
    place.set("ECS_AGENT_URI", "http://192.0.2.1/api/task-1");
    place.write("go", "");
    let run = place.start(&["run", "job.toml"]);
    let run = run.wait_within(WITHIN).exits(0);
    let mut lines = run.stderr.lines();
    let told = lines.find(|line| line.contains("is not believed"));
    let told = told.expect("it is told");
    assert!(told.contains("192.0.2.1"), "{told}");
}
