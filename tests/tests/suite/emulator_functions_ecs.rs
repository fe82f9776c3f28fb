//! No process is always on, and large items are tasks on ECS that outlast the functions which wait for them.
//!
//! Queues, table and buckets are an emulator's; the cluster is the one of `stub_ecs`, as no emulator finds a task again by its
//! token: LocalStack has no ECS, and MiniStack's starts another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::emulator_arms::emulator;
use crate::emulator_events::{Inbox, Sends, total};
use crate::emulator_functions::{Function, job_of, map_events, map_hints, sweep_on, windows_of};
use crate::stub_ecs::{Ground, Stopped, exited};
use crate::support::{figure, now};

/// So long may one call of the function that waits for tasks last.
const WAITS_FOR: Duration = Duration::from_secs(12);

/// The tasks end when so many calls of it have waited for them.
const CALLS: u64 = 4;

/// These come about within this time, though each call lasts.
const OUTLASTED_WITHIN: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn large_items_are_tasks_that_outlast_the_functions_which_wait_for_them() {
    const SMALL: usize = 12;
    const LARGE: usize = 3;
    let Some(emulator) = emulator("tasks that outlast functions").await else {
        return;
    };
    let ground = Ground::new(|_| Stopped::Not(SystemTime::now())).await;
    let inbox = Arc::new(Inbox::new(emulator, "outlasted", Sends::Bucket, "").await);
    let job = format!(
        r#"
        {}
        [function]
        max_object = "4 KiB"
        [container.ecs]
        cluster = "media"
        task_definition = "work"
        container = "work"
        subnets = ["subnet-1"]
        "#,
        job_of(&inbox)
    );
    let [router, worker, sweeper] =
        ["router", "function", "sweeper"].map(|role| Function::new(emulator.url(), role, &job));
    let cluster = [("AWS_ENDPOINT_URL_ECS", ground.stub.url.as_str())];
    let waiter = Function::with(emulator.url(), "container", &job, (WAITS_FOR, &cluster));
    for number in 0..SMALL + LARGE {
        let bytes = if number < SMALL { 100 } else { 8_000 };
        inbox.put(&format!("in/{number}"), &vec![b'x'; bytes]).await;
    }
    let done = AtomicBool::new(false);
    let lane = |lane: &str| format!("{}-inbox-{lane}", inbox.bucket);
    let (function_lane, container_lane) = (lane("function"), lane("container"));
    let watch = async {
        let windows = windows_of(&inbox, (SMALL + LARGE) as u64).await;
        done.store(true, Ordering::Relaxed);
        windows
    };
    let end_tasks = async {
        let begun = now();
        while ground.tasks().stopped.len() < LARGE || waiter.calls() < CALLS {
            assert!(begun.elapsed() < OUTLASTED_WITHIN, "they did not outlast");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (number, task) in ground.tasks().stopped.iter_mut().enumerate() {
            // One of them fails.
            *task = exited(if number == 0 { 3 } else { 0 });
        }
        now()
    };
    let (windows, ended, (), (), (), ()) = tokio::join!(
        watch,
        end_tasks,
        map_events(&*inbox.queue, &router, &done),
        map_hints(&inbox.clients, &function_lane, &worker, &done),
        map_hints(&inbox.clients, &container_lane, &waiter, &done),
        sweep_on(&sweeper, &done),
    );
    let succeeded = total(&windows, |window| window.item_counts.succeeded);
    assert_eq!(succeeded, (SMALL + LARGE - 1) as u64);
    assert_eq!(total(&windows, |window| window.item_counts.failed), 1);
    inbox.audit(&windows);
    let starts = ground.asked("RunTask");
    let tokens: BTreeSet<&str> = starts
        .iter()
        .filter_map(|start| start["clientToken"].as_str())
        .collect();
    assert_eq!(
        ground.tasks().stopped.len(),
        LARGE,
        "none was started again"
    );
    assert_eq!(tokens.len(), LARGE, "each item has one");
    assert!(starts.len() > LARGE, "nobody took one over");
    assert_eq!(ground.asked("StopTask"), Vec::<Value>::new());
    figure(&format!(
        "{}: {LARGE} tasks outlasted {} calls of a function that may last {WAITS_FOR:?}, {} take-overs, all told {:.1?} after their end",
        emulator.kind().as_str(),
        waiter.calls(),
        starts.len() - LARGE,
        ended.elapsed(),
    ));
}
