//! Jobs whose calls are tasks on ECS, carried out by MiniStack as containers. They need Docker's engine, as in `docker_calls`.
//!
//! What MiniStack does otherwise than AWS is proven in `stub_ecs`: it does not read RunTask's token (`_run_task` in its
//! `ecs.py`, so a repeated start starts again), it answers DescribeTasks with STOPPED and exit code 0 as soon as StopTask is
//! asked, before the container has ended (`_stop_task`), and it always has room (`failures` of `_run_task` stays empty). The
//! containers of tasks that ended by themselves stay until it sweeps, minutes later (`_maybe_mark_stopped`, which hands its
//! clean-up no client); so the tests here remove them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_ecs::types::{Compatibility, ContainerDefinition, NetworkMode};
use serde_json::{Value, json};
use trommel::adapters::aws::Clients;

use crate::docker_calls::{classes, docker, image};
use crate::emulator_arms::{emulator_with_functions, fresh};
use crate::stub::{Reply, Request, Stub};
use crate::support::{Done, Place, figure, wait_until};

/// The ledger stays here: only the calls go out.
const LEDGER: &str = "sqlite:.trommel/ledger.db";

/// A dozen containers on a busy machine, one of which is waited for.
const RUN_WITHIN: Duration = Duration::from_mins(3);

/// MiniStack gives a container 5 s between SIGTERM and SIGKILL.
pub(crate) const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// What a task does, by its item. A shell that is process 1 ends by SIGTERM only if it says so.
const SCRIPT: &str = r#"
case "$TROMMEL_INPUT" in
  *exit*) exit 3;;
  *sleep*) trap 'exit 143' TERM; sleep 600 & wait;;
  *well*) test "$LOG_LEVEL" = info;;
  *) exit 4;;
esac"#;

/// Makes a task definition of one container.
pub(crate) async fn register(clients: &Clients, family: &str, container: ContainerDefinition) {
    let registered = clients
        .ecs
        .register_task_definition()
        .family(family)
        .requires_compatibilities(Compatibility::Fargate)
        .network_mode(NetworkMode::Awsvpc)
        .cpu("256")
        .memory("512")
        .container_definitions(container)
        .send();
    registered.await.expect("a new task definition");
}

/// A task definition on MiniStack.
pub(crate) struct Stand {
    url: String,
    pub(crate) family: String,
}

impl Stand {
    /// None, said loudly, if nothing is to be played on; a failure if nothing can be.
    pub(crate) async fn new(what: &str) -> Option<Self> {
        let emulator = emulator_with_functions(what).await?;
        let stand = Self {
            url: emulator.url().to_owned(),
            family: fresh("work"),
        };
        let container = ContainerDefinition::builder()
            .name("work")
            .image(image())
            .set_command(Some(["sh", "-c", SCRIPT].map(str::to_owned).into()))
            .build();
        register(&emulator.clients().await, &stand.family, container).await;
        Some(stand)
    }

    /// A place whose job runs a task for each of these, and asks there for them.
    fn place(&self, url: &str, items: &[&str]) -> Place {
        let variables = [
            ("AWS_ENDPOINT_URL", url),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        let place = Place::elsewhere(LEDGER, &variables);
        let family = &self.family;
        let job = format!(
            r#"
            name = "tasks"
            ledger = "{LEDGER}"
            input = {{ jsonl = "in.jsonl" }}
            max_concurrency = 4
            tolerated_failure_count = 4
            results = "out"
            [function]
            timeout = "4s"
            [function.ecs]
            cluster = "{family}"
            task_definition = "{family}"
            container = "work"
            subnets = ["subnet-1"]
            environment = {{ LOG_LEVEL = "info" }}
            [[retry]]
            errors = ["Exit3", "Timeout", "Throttled"]
            max_attempts = 0
            "#
        );
        place.write("job.toml", job);
        let lines = items.iter().enumerate();
        let lines = lines.map(|(n, what)| format!("{{\"n\":{n},\"do\":\"{what}\"}}\n"));
        place.write("in.jsonl", lines.collect::<String>());
        place
    }

    /// The containers of its tasks: those that run, or all that are still there.
    pub(crate) fn containers(&self, which: &str) -> Vec<String> {
        let label = format!(
            "label=com.amazonaws.ecs.task-definition-family={}",
            self.family
        );
        let listed = docker(&["ps", which, "--no-trunc", "--filter", &label]);
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for container in self.containers("-aq") {
            docker(&["rm", "--force", "--volumes", &container]);
        }
    }
}

fn run(place: &Place) -> Done {
    place
        .start(&["run", "job.toml", "--json"])
        .wait_within(RUN_WITHIN)
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn docker_tasks_on_ecs_count_as_their_containers_end_and_none_goes_on() {
    let Some(stand) = Stand::new("tasks on ECS").await else {
        return;
    };
    let mut items = vec!["well"; 8];
    items.extend(["sleep", "exit", "exit", "exit"]);
    let place = stand.place(&stand.url, &items);
    let begun = crate::support::now();
    run(&place).exits(3);
    let took = begun.elapsed();
    let counts = place.status().item_counts;
    assert_eq!(
        (counts.succeeded, counts.failed, counts.timed_out),
        (8, 3, 1)
    );
    let wanted = [("Exit3", 3), ("Timeout", 1)];
    let wanted = wanted.map(|(class, count)| (class.to_owned(), count));
    assert_eq!(classes(&place), wanted.into());
    let [late] = &place.items(&["--state", "timed-out"])[..] else {
        panic!("one sleeps");
    };
    let cause = late.cause.as_deref().unwrap_or_default();
    assert!(cause.ends_with("ran longer than 4s"), "{cause}");
    wait_until("none runs", ENDED_WITHIN, || {
        stand.containers("-q").is_empty()
    });
    place.audit();
    figure(&format!(
        "12 tasks on MiniStack's ECS, four at once: {took:.1?}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn docker_tasks_on_ecs_that_find_no_room_run_when_there_is_some() {
    const NO_ROOM: &str = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    let Some(stand) = Stand::new("no room on ECS").await else {
        return;
    };
    let server = stand.url.trim_start_matches("http://").to_owned();
    let is_full = AtomicBool::new(true);
    let stub = Stub::start(move |request| {
        if is_start(request) && is_full.swap(false, Ordering::SeqCst) {
            let failure = json!({ "arn": "arn:aws:ecs:::task", "reason": NO_ROOM });
            return Reply::json(200, &json!({ "tasks": [], "failures": [failure] }));
        }
        Reply::Of(server.clone())
    })
    .await;
    let place = stand.place(&stub.url, &["well"]);
    run(&place).exits(0);
    assert_eq!(place.status().item_counts.succeeded, 1);
    let asked = stub.asked();
    let starts: Vec<Value> = asked
        .iter()
        .filter(|one| is_start(one))
        .map(Request::json)
        .collect();
    let [refused, started] = &starts[..] else {
        panic!("asked twice, not {starts:?}");
    };
    // The job allows no retry: the second start is charged to infrastructure. A token that was refused is not used again.
    assert_ne!(refused["clientToken"], started["clientToken"]);
    assert_eq!(stand.containers("-aq").len(), 1);
    wait_until("none runs", ENDED_WITHIN, || {
        stand.containers("-q").is_empty()
    });
    place.audit();
}

fn is_start(request: &Request) -> bool {
    let target = request.header("x-amz-target");
    target.is_some_and(|target| target.ends_with(".RunTask"))
}
