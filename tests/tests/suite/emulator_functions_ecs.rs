//! No process is always on, and large items are tasks on ECS that outlast the functions which wait for them.
//!
//! Queues, table and buckets are an emulator's. Where a task is to be found again by its token the cluster is the one of
//! `stub_ecs`: LocalStack has no ECS, and MiniStack starts another task. Where it need not be, containers really run, on
//! MiniStack and Docker's engine alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use trommel_localstack::Emulator;

use crate::docker_ecs::{ENDED_WITHIN, Stand};
use crate::emulator_arms::{emulator, emulator_with_functions};
use crate::emulator_events::{Inbox, Sends, total};
use crate::emulator_functions::{Function, job_of, map_events, map_hints, sweep_on, windows_of};
use crate::stub_ecs::{Ground, Stopped, exited};
use crate::support::{figure, now, wait_until};

/// So long may one call of the function that waits for tasks last.
const WAITS_FOR: Duration = Duration::from_secs(12);

/// Each task is waited for by two calls, one after the other, within this time.
const OUTLASTED_WITHIN: Duration = Duration::from_mins(3);

/// A container starts and ends within one call.
const WAITS_FOR_CONTAINERS: Duration = Duration::from_secs(60);

const SMALL: u64 = 12;
const LARGE: u64 = 3;

/// An object so small goes to the function lane.
const SMALL_BYTES: usize = 100;
const LARGE_BYTES: usize = 8_000;

/// The job: its large objects are tasks of this definition in this cluster.
fn job(inbox: &Inbox, name: &str) -> String {
    format!(
        r#"
        {}
        [function]
        max_object = "4 KiB"
        [container.ecs]
        cluster = "{name}"
        task_definition = "{name}"
        container = "work"
        subnets = ["subnet-1"]
        environment = {{ LOG_LEVEL = "info" }}
        "#,
        job_of(inbox)
    )
}

/// Puts the objects: `large` names what the tasks of the large ones do.
async fn put(inbox: &Inbox, large: [&str; LARGE as usize]) {
    for number in 0..SMALL {
        let bytes = vec![b'x'; SMALL_BYTES];
        inbox.put(&format!("in/{number}"), &bytes).await;
    }
    for (number, what) in large.into_iter().enumerate() {
        let bytes = vec![b'x'; LARGE_BYTES];
        inbox.put(&format!("in/{what}-{number}"), &bytes).await;
    }
}

/// Has functions do the job, and `waiter` the large items of it, until all is done with; and something else meanwhile. One
/// large item fails.
async fn by_functions<T>(
    emulator: &Emulator,
    inbox: &Arc<Inbox>,
    (job, waiter): (&str, &Function),
    meanwhile: impl Future<Output = T>,
) -> T {
    let [router, worker, sweeper] =
        ["router", "function", "sweeper"].map(|role| Function::new(emulator.url(), role, job));
    let done = AtomicBool::new(false);
    let lane = |lane: &str| format!("{}-inbox-{lane}", inbox.bucket);
    let (function_lane, container_lane) = (lane("function"), lane("container"));
    let watch = async {
        let windows = windows_of(inbox, SMALL + LARGE).await;
        done.store(true, Ordering::Relaxed);
        windows
    };
    let (windows, met, (), (), (), ()) = tokio::join!(
        watch,
        meanwhile,
        map_events(&*inbox.queue, &router, &done),
        map_hints(&inbox.clients, &function_lane, &worker, &done),
        map_hints(&inbox.clients, &container_lane, waiter, &done),
        sweep_on(&sweeper, &done),
    );
    let succeeded = total(&windows, |window| window.item_counts.succeeded);
    assert_eq!(succeeded, SMALL + LARGE - 1);
    assert_eq!(total(&windows, |window| window.item_counts.failed), 1);
    inbox.audit(&windows);
    met
}

/// Whether each large item has a task, which was asked for by more than one call.
fn is_taken_over(ground: &Ground) -> bool {
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    for start in ground.asked("RunTask") {
        let token = start["clientToken"].as_str().expect("a task has a token");
        *asked.entry(token.to_owned()).or_default() += 1;
    }
    asked.len() as u64 == LARGE && asked.values().all(|times| *times > 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_items_are_tasks_that_outlast_the_functions_which_wait_for_them() {
    let Some(emulator) = emulator("tasks that outlast functions").await else {
        return;
    };
    let ground = Ground::new(|_| Stopped::Not(SystemTime::now())).await;
    let inbox = Arc::new(Inbox::new(emulator, "outlasted", Sends::Bucket, "").await);
    let job = job(&inbox, "media");
    let cluster = [("AWS_ENDPOINT_URL_ECS", ground.stub.url.as_str())];
    let waiter = Function::with(emulator.url(), "container", &job, (WAITS_FOR, &cluster));
    put(&inbox, ["one", "two", "three"]).await;
    let end_tasks = async {
        let begun = now();
        while !is_taken_over(&ground) {
            assert!(begun.elapsed() < OUTLASTED_WITHIN, "they did not outlast");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (number, task) in ground.tasks().stopped.iter_mut().enumerate() {
            *task = exited(if number == 0 { 3 } else { 0 });
        }
        now()
    };
    let ended = by_functions(emulator, &inbox, (&job, &waiter), end_tasks).await;
    let took = ended.elapsed();
    let starts = ground.asked("RunTask");
    let tasks = ground.tasks().stopped.len() as u64;
    assert_eq!(tasks, LARGE, "none was started again");
    let taken_over = starts.len() as u64 - LARGE;
    assert_eq!(ground.asked("StopTask"), Vec::<Value>::new());
    figure(&format!(
        "{}: {LARGE} tasks outlasted {} calls of a function that may last {WAITS_FOR:?}, {taken_over} take-overs, done with {took:.1?} after their end",
        emulator.kind().as_str(),
        waiter.calls(),
    ));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn docker_large_items_of_functions_alone_are_containers() {
    let what = "containers of functions alone";
    let (Some(emulator), Some(stand)) =
        (emulator_with_functions(what).await, Stand::new(what).await)
    else {
        return;
    };
    let inbox = Arc::new(Inbox::new(emulator, "contained", Sends::Bucket, "").await);
    let job = job(&inbox, &stand.family);
    let time = (WAITS_FOR_CONTAINERS, &[][..]);
    let waiter = Function::with(emulator.url(), "container", &job, time);
    let begun = now();
    put(&inbox, ["well", "well", "exit"]).await;
    by_functions(emulator, &inbox, (&job, &waiter), async {}).await;
    let took = begun.elapsed();
    assert_eq!(stand.containers("-aq").len() as u64, LARGE, "one for each");
    wait_until("none runs", ENDED_WITHIN, || {
        stand.containers("-q").is_empty()
    });
    figure(&format!(
        "{}: {LARGE} large items of a job of functions alone as containers, {} calls that waited for them: {took:.1?}",
        emulator.kind().as_str(),
        waiter.calls(),
    ));
}
