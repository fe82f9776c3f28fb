//! Events of tasks: a cluster of our own, whose answers say little, beside a queue that tells what EventBridge would.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use trommel::adapters::aws::{EcsExecutor, SqsQueue};
use trommel::adapters::memory::MemoryQueue;
use trommel::adapters::tokio_runtime;
use trommel::core::class::Class;
use trommel::ports::executor::{CallReport, ItemReport, Stop};
use trommel::ports::queue::Outgoing;
use trommel::ports::{Executor as _, Queue};

use crate::emulator_arms::{emulator, fresh};
use crate::stub_ecs::{Ground, SUCCEEDED, Stopped, arn, call, exited, spec};
use crate::support::{figure, now};

/// What is told is heard within this time; the next look would come after a quarter of a minute.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// What happens by itself does within this time, however busy the machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A cluster whose DescribeTasks says that every task runs, for ever.
async fn silent() -> Ground {
    Ground::new(|_| Stopped::Not(SystemTime::now())).await
}

fn queue() -> Arc<dyn Queue> {
    Arc::new(MemoryQueue::new(tokio_runtime::runtime().clock))
}

/// A worker process of its own that hears this queue.
async fn worker(ground: &Ground, queue: &Arc<dyn Queue>) -> EcsExecutor {
    let cluster = ground.cluster().await.with_events(queue.clone());
    EcsExecutor::new(Arc::new(cluster), &spec(), None)
}

/// What EventBridge sends of a task: its status, its version, and of its end what DescribeTasks would say.
fn event(task: usize, status: &str, version: u32, end: &Value) -> String {
    let mut detail = end.clone();
    detail["taskArn"] = json!(arn(task));
    detail["lastStatus"] = json!(status);
    detail["startedAt"] = json!("2026-11-06T16:40:52.641Z");
    detail["startedBy"] = json!("trommel/brave-heron-4f2a/3-17-1");
    detail["version"] = json!(version);
    json!({ "version": "0", "source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail }).to_string()
}

fn stopped(task: usize, code: i32) -> String {
    let Stopped::With(end) = exited(code) else {
        panic!("it is an end");
    };
    event(task, "STOPPED", 5, &end)
}

async fn send(queue: &Arc<dyn Queue>, bodies: &[String]) {
    let outgoing = |body: &String| Outgoing {
        body: body.clone(),
        delay: Duration::ZERO,
    };
    for bodies in bodies.chunks(10) {
        let refused = queue.send(bodies.iter().map(outgoing).collect()).await;
        assert_eq!(refused.expect("it answers"), []);
    }
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = now();
    while !is_so().await {
        assert!(begun.elapsed() < WITHIN, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// So many tasks were started and looked at so often that the next look is seconds away.
async fn are_quiet(ground: &Ground, tasks: usize) {
    until("the tasks run", async || {
        ground.tasks().stopped.len() == tasks && ground.asked("DescribeTasks").len() >= 4
    })
    .await;
}

async fn is_empty(queue: &Arc<dyn Queue>) -> bool {
    let depth = queue.depth().await.expect("it answers");
    depth.ready + depth.hidden == 0
}

fn class(report: &CallReport) -> String {
    match &report.items[..] {
        [ItemReport::Succeeded(_)] => "succeeded".to_owned(),
        [ItemReport::Failed(failure)] => failure.class.to_string(),
        [ItemReport::Undecided(failure)] => format!("undecided {}", failure.class),
        others => panic!("one item: {others:?}"),
    }
}

#[tokio::test]
async fn an_end_that_looks_would_not_see_for_long_is_heard_at_once() {
    let (ground, queue) = (silent().await, queue());
    let worker = worker(&ground, &queue).await;
    let telling = async {
        are_quiet(&ground, 1).await;
        send(&queue, &[stopped(0, 3)]).await;
        now()
    };
    let (report, told) = tokio::join!(worker.call(call(1), Stop::new()), telling);
    let took = told.elapsed();
    assert_eq!(class(&report), "Exit3");
    assert!(took < HEARD_WITHIN, "{took:?}");
    until("its message is gone", async || is_empty(&queue).await).await;
    assert_eq!(ground.asked("StopTask"), Vec::<Value>::new());
    figure(&format!(
        "an event of a task's end is heard within {took:.1?}"
    ));
}

#[tokio::test]
async fn doubles_older_versions_and_garbage_change_no_report() {
    let (ground, queue) = (silent().await, queue());
    let worker = worker(&ground, &queue).await;
    let telling = async {
        are_quiet(&ground, 2).await;
        let nothing = json!({ "containers": [{ "name": "work" }] });
        let told = [
            "not JSON".to_owned(),
            json!({ "Records": [] }).to_string(),
            stopped(0, 0),
            stopped(0, 0),
            event(0, "RUNNING", 2, &nothing),
            // It has stopped and does not say how: a look has the word, and finds that it runs.
            event(1, "STOPPED", 4, &nothing),
            event(1, "RUNNING", 3, &nothing),
            stopped(0, 7),
        ];
        send(&queue, &told).await;
        until("the messages are gone", async || is_empty(&queue).await).await;
        let looks = ground.asked("DescribeTasks").len();
        until("it is looked at", async || {
            ground.asked("DescribeTasks").len() > looks
        })
        .await;
        send(&queue, &[stopped(1, 5), stopped(1, 5)]).await;
    };
    let calls = [call(1), call(2)].map(|call| worker.call(call, Stop::new()));
    let (reports, ()) = tokio::join!(futures_util::future::join_all(calls), telling);
    let reports: Vec<String> = reports.iter().map(class).collect();
    // Which of them has number 0 is not known.
    let mut sorted = reports.clone();
    sorted.sort();
    assert_eq!(sorted, ["Exit5", "succeeded"]);
    assert_eq!(ground.tasks().stopped.len(), 2, "none was started again");
}

#[tokio::test]
async fn without_any_event_a_look_finds_the_end_as_it_does_without_a_queue() {
    let (ground, queue) = (silent().await, queue());
    let worker = worker(&ground, &queue).await;
    let ending = async {
        are_quiet(&ground, 1).await;
        ground.tasks().stopped[0] = exited(0);
        now()
    };
    let (report, ended) = tokio::join!(worker.call(call(1), Stop::new()), ending);
    let took = ended.elapsed();
    assert_eq!(report.items, [SUCCEEDED]);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn a_spot_machine_that_is_taken_away_is_no_attempt_of_the_item() {
    let (ground, queue) = (silent().await, queue());
    let worker = worker(&ground, &queue).await;
    let telling = async {
        are_quiet(&ground, 1).await;
        let end = json!({
            "stopCode": "SpotInterruption",
            "stoppedReason": "Your Spot Task was interrupted.",
            "containers": [{ "name": "work" }],
        });
        send(&queue, &[event(0, "STOPPED", 6, &end)]).await;
    };
    let (report, ()) = tokio::join!(worker.call(call(1), Stop::new()), telling);
    assert_eq!(class(&report), format!("undecided {}", Class::Throttled));
}

/// Three workers with five tasks each share the queue; the events of all come at once, among those of tasks that nobody knows.
/// How long it took until the last was heard.
async fn each_hears_its_own(queue: &Arc<dyn Queue>) -> Duration {
    const WORKERS: u8 = 3;
    const TASKS: u8 = 5;
    let ground = silent().await;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(worker(&ground, queue).await);
    }
    let telling = async {
        are_quiet(&ground, usize::from(WORKERS * TASKS)).await;
        let all = usize::from(WORKERS * TASKS);
        let told: Vec<String> = (0..all + 3).map(|task| stopped(task, 0)).collect();
        send(queue, &told).await;
        now()
    };
    let calls = (0..WORKERS * TASKS).map(|index| {
        let worker = &workers[usize::from(index % WORKERS)];
        worker.call(call(index), Stop::new())
    });
    let (reports, told) = tokio::join!(futures_util::future::join_all(calls), telling);
    for report in &reports {
        assert_eq!(report.items, [SUCCEEDED]);
    }
    told.elapsed()
}

#[tokio::test]
async fn workers_that_share_a_queue_each_hear_of_their_own_tasks() {
    let took = each_hears_its_own(&queue()).await;
    assert!(took < HEARD_WITHIN, "{took:?}");
}

#[tokio::test]
async fn workers_that_share_a_queue_of_an_emulator_each_hear_of_their_own_tasks() {
    let Some(emulator) = emulator("events of tasks").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("task-events");
    emulator.queue(&clients, &name).await.expect("a queue");
    let queue = SqsQueue::open(&clients, &name).await.expect("it is there");
    let queue: Arc<dyn Queue> = Arc::new(queue);
    let took = each_hears_its_own(&queue).await;
    assert!(took < Duration::from_secs(12), "{took:?}");
    figure(&format!(
        "{}: three workers share a queue of events, each heard of its five tasks within {took:.1?}",
        emulator.kind().as_str()
    ));
}
