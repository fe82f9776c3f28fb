//! One bad item among many: it is found, and it alone fails.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Place, figure};

/// The bad one.
const POISON: &str = "37";

#[test]
fn a_batch_that_dies_of_one_item_fails_only_that_item() {
    let place = Place::with_job(
        r#"
        name = "batch"
        input = { range = "0..100" }
        max_concurrency = 2
        tolerated_failure_count = 1
        results = "out"
        [function]
        command = ["./work"]
        max_items_per_batch = 100
        "#,
    );
    // It dies like a program does, without a word about whose fault it is.
    place.script(
        "work",
        &format!(
            r#"input=$(cat); note call "$(echo "$input" | wc -l)"
            case $input in *'"input":{POISON}}}'*) kill -9 $$;; esac"#
        ),
    );
    place.trommel(&["run", "job.toml"]).exits(3);
    let status = place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 99, 1, 0, 0, 0]);
    let calls = place.log().of("call");
    assert_eq!(calls[0], "100", "the first call carries all");
    assert!(calls.len() <= 16, "{calls:?}");
    let failed = place.items(&["--state", "failed"]);
    assert_eq!(failed[0].label, POISON);
    assert_eq!(failed[0].class.as_deref(), Some("Crashed"));
    assert_eq!(
        failed[0].attempts, 1,
        "being in a batch that dies is no attempt"
    );
    place.audit();
    figure(&format!(
        "batch: 99 succeeded, 1 failed, {} calls",
        calls.len()
    ));
}

#[test]
fn an_item_that_kills_its_worker_is_the_only_one_that_fails() {
    const ITEMS: u64 = 300;
    const RESTARTS_MAX: usize = 12;
    let place = Place::with_job(&format!(
        r#"
        name = "killer"
        input = {{ range = "0..{ITEMS}" }}
        max_concurrency = 8
        tolerated_failure_count = 1
        [function]
        command = ["./work"]
        "#
    ));
    place.script(
        "work",
        &format!(
            r#"read value; note start "$value" "$PPID"
            if [ "$value" = {POISON} ]; then note kills "$PPID"; kill -9 $PPID; sleep 60; fi
            sleep 0.01; note end "$value""#
        ),
    );
    let mut worker = place.start(&["run", "job.toml"]);
    let mut restarts = 0;
    let code = loop {
        let id = worker.id().to_string();
        let done = worker.wait();
        if let Some(code) = done.code() {
            break code;
        }
        assert_eq!(done.signal(), Some(Signal::SIGKILL as i32));
        let killed = place.log().of("kills").pop();
        assert_eq!(killed, Some(id), "the parent of a call is the worker");
        restarts += 1;
        assert!(restarts <= RESTARTS_MAX, "still dying");
        worker = place.start(&["resume", "latest"]);
    };
    assert_eq!(code, 3);
    let status = place.status();
    assert_eq!(status.item_counts.list(), [0, 0, ITEMS - 1, 1, 0, 0, 0]);
    let failed = place.items(&["--state", "failed"]);
    assert_eq!(failed[0].label, POISON);
    assert_eq!(failed[0].class.as_deref(), Some("WorkerDied"));
    place.audit();
    let again = place.log().started_again();
    figure(&format!(
        "worker killer: found after {restarts} deaths, {again} completed items started again"
    ));
}

#[test]
fn a_batch_answers_line_by_line_and_what_it_leaves_out_is_tried_again() {
    let place = Place::with_job(
        r#"
        name = "answers"
        input = { range = "0..10" }
        max_concurrency = 1
        tolerated_failure_count = 10
        results = "out"
        [function]
        command = ["./work"]
        max_items_per_batch = 10
        [[retry]]
        errors = ["Odd"]
        max_attempts = 1
        interval = "10ms"
        "#,
    );
    place.script(
        "work",
        r#"while read -r line; do
            id=${line#*'"item":"'}; id=${id%%'"'*}
            value=${line##*'"input":'}; value=${value%'}'}
            note asked "$value"
            case $value in
                *[13579]) echo "{\"item\":\"$id\",\"error\":\"Odd\",\"cause\":\"$value is odd\"}";;
                *) echo "{\"item\":\"$id\",\"output\":$((value * value))}";;
            esac
        done"#,
    );
    place.trommel(&["run", "job.toml"]).exits(3);
    let asked = place.log().tally("asked");
    for value in 0..10 {
        let times = if value % 2 == 1 { 2 } else { 1 };
        assert_eq!(asked[&value.to_string()], times, "{value}: {asked:?}");
    }
    let mut squares: Vec<u64> = place
        .results("SUCCEEDED")
        .iter()
        .map(|record| record["output"].as_u64().expect("a number"))
        .collect();
    squares.sort_unstable();
    assert_eq!(squares, [0, 4, 16, 36, 64]);
    let failed = place.items(&["--state", "failed"]);
    assert_eq!(failed.len(), 5);
    for item in failed {
        assert_eq!(item.class.as_deref(), Some("Odd"));
        assert_eq!(item.attempts, 2);
        assert_eq!(item.cause, Some(format!("{} is odd", item.label)));
    }
    place.audit();
}

#[test]
fn a_batch_that_runs_out_of_time_is_halved_until_the_slow_item_stands_alone() {
    let place = Place::with_job(
        r#"
        name = "slow-batch"
        input = { range = "0..16" }
        max_concurrency = 2
        tolerated_failure_count = 1
        [function]
        command = ["./work"]
        max_items_per_batch = 16
        timeout = "1s"
        grace = "100ms"
        "#,
    );
    place.script(
        "work",
        &format!(
            r#"input=$(cat); note call "$(echo "$input" | wc -l)"
            case $input in *'"input":{POISON}}}'*) exec sleep 60;; esac"#,
            POISON = 5
        ),
    );
    let done = place.trommel(&["run", "job.toml"]).exits(3);
    assert!(done.waited < Duration::from_secs(60));
    assert_eq!(place.status().item_counts.list(), [0, 0, 15, 0, 1, 0, 0]);
    let calls = place.log().count("call");
    assert!(calls < 2 * 16, "{calls} calls");
    place.audit();
}
