//! Leases in true time: an item that runs for longer than any session may be silent, and a worker that is frozen until
//! its leases are somebody else's.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::emulator_arms::emulator;
use crate::emulator_journey::Cloud;
use crate::support::{Process, figure, now, wait_until};

/// What production has: a session that is silent for so long is dead.
const SESSION: Duration = Duration::from_secs(30);

/// Children start within this time, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// A run ends within this time.
const RUN_WITHIN: Duration = Duration::from_mins(4);

fn job(cloud: &Cloud, items: u32) {
    let (ledger, scratch) = (&cloud.ledger, cloud.s3("scratch"));
    cloud.place.write(
        "job.toml",
        format!(
            r#"
            name = "leases"
            input = {{ range = "0..{items}" }}
            max_concurrency = 4
            ledger = "{ledger}"
            scratch = "{scratch}"
            results = "out"
            [function]
            command = ["./work"]
            "#
        ),
    );
}

#[tokio::test]
async fn an_item_that_runs_for_three_session_durations_runs_once() {
    let Some(emulator) = emulator("an item longer than a session").await else {
        return;
    };
    let cloud = Cloud::new(emulator, "long").await;
    job(&cloud, 1);
    let length = SESSION * 3;
    cloud.place.script(
        "work",
        &format!(
            "note start \"$TROMMEL_ITEM\"; sleep {}; echo done; note end \"$TROMMEL_ITEM\"",
            length.as_secs()
        ),
    );
    let begun = now();
    cloud
        .place
        .start(&["run", "job.toml"])
        .wait_within(RUN_WITHIN)
        .exits(0);
    let took = begun.elapsed();
    assert!(took >= length, "{took:?}");
    assert_eq!(cloud.place.log().count("start"), 1);
    assert_eq!(cloud.place.status().item_counts.succeeded, 1);
    cloud.place.audit();
    figure(&format!(
        "{}: one item of {length:?}, started once, {took:.1?}",
        emulator.kind().as_str()
    ));
}

fn worker(cloud: &Cloud) -> Process {
    let worker = cloud
        .place
        .start(&["worker", "job.toml", "--lane", "function"]);
    wait_until("a worker is ready", PROGRESS_WITHIN, || {
        worker.said().contains("working on")
    });
    worker
}

#[tokio::test]
async fn a_worker_without_a_beat_loses_its_leases_and_its_late_result_is_refused() {
    let Some(emulator) = emulator("a frozen worker").await else {
        return;
    };
    let cloud = Cloud::new(emulator, "frozen").await;
    job(&cloud, 2);
    // Who did it is the result: that of the frozen one must not be there.
    cloud.place.script(
        "work",
        "note start \"$PPID\"; sleep 5; echo \"by $TROMMEL_EPOCH\"; note end \"$PPID\"",
    );
    let frozen = worker(&cloud);
    let router = cloud.place.start(&["run", "job.toml", "--role", "router"]);
    wait_until("the worker has calls", PROGRESS_WITHIN, || {
        cloud.place.log().count("start") > 0
    });
    frozen.signal(Signal::SIGSTOP);
    let begun = now();
    let other = worker(&cloud);
    let other_number = other.id().to_string();
    wait_until("another takes over", RUN_WITHIN, || {
        cloud.place.log().of("start").contains(&other_number)
    });
    let taken_after = begun.elapsed();
    // Its calls ended long ago; it wakes up and has two results to tell.
    frozen.signal(Signal::SIGCONT);
    router.wait_within(RUN_WITHIN).exits(0);
    wait_until("it knows that its leases are lost", PROGRESS_WITHIN, || {
        frozen.said().contains("leases are lost")
    });
    for process in [frozen, other] {
        process.signal(Signal::SIGTERM);
        process.wait_within(PROGRESS_WITHIN);
    }
    let status = cloud.place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 2, 0, 0, 0, 0]);
    cloud.place.audit();
    let results = cloud.place.results("SUCCEEDED");
    let outputs: Vec<&str> = results
        .iter()
        .filter_map(|record| record["output"].as_str())
        .collect();
    assert_eq!(
        outputs,
        ["by 3", "by 3"],
        "a take-over and a lease raise the epoch of 1 twice"
    );
    figure(&format!(
        "{}: a frozen worker's items were taken over after {taken_after:.1?}, its late results refused",
        emulator.kind().as_str()
    ));
}
