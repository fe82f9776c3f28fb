//! Other processes beside a runner: they look, they pause, they stop, and they are kept from running too.

use std::time::Duration;

use crate::support::{Place, figure, now, wait_until};

const ITEMS: u64 = 60;

/// The children do something within this time, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// A wish is obeyed within this time.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

fn job() -> Place {
    let place = Place::with_job(&format!(
        r#"
        name = "controlled"
        input = {{ range = "0..{ITEMS}" }}
        max_concurrency = 4
        tolerated_failure_count = 1
        results = "out"
        [function]
        command = ["./work"]
        grace = "500ms"
        "#
    ));
    place.script(
        "work",
        r#"read value; note start "$value"; sleep 0.2; note end "$value""#,
    );
    place
}

fn some_items_end(place: &Place) {
    wait_until("some items end", PROGRESS_WITHIN, || {
        place.log().count("end") >= 6
    });
}

#[test]
fn pause_from_another_process_is_obeyed_and_resume_goes_on() {
    let place = job();
    let runner = place.start(&["run", "job.toml"]);
    some_items_end(&place);
    let asked = now();
    let said = place.trommel(&["pause", "latest"]).exits(0);
    let took = asked.elapsed();
    assert!(said.stdout.contains("PAUSED"), "{}", said.stdout);
    assert!(took < OBEYED_WITHIN, "{took:?}");
    runner.wait_within(OBEYED_WITHIN).exits(5);
    let status = place.status();
    assert_eq!(status.status, "PAUSED");
    assert_eq!(status.reason.as_deref(), Some("asked"));
    let log = place.log();
    assert_eq!(
        log.count("start"),
        log.count("end"),
        "what ran was finished"
    );
    assert_eq!(status.item_counts.succeeded, log.count("end") as u64);
    assert!(status.item_counts.pending > 0);
    place.trommel(&["pause", "latest"]).exits(2);
    place.audit();

    place.trommel(&["resume", "latest"]).exits(0);
    let ends = place.log().tally("end");
    assert_eq!(ends.len() as u64, ITEMS);
    assert!(ends.values().all(|times| *times == 1), "nothing ran twice");
    place.trommel(&["resume", "latest"]).exits(2);
    place.audit();
    figure(&format!("pause: obeyed in {took:.1?}"));
}

#[test]
fn stop_aborts_what_runs_and_redrive_finishes_everything() {
    let place = job();
    place.write("hang", "");
    place.script(
        "work",
        r#"read value; note start "$value"
        if [ "$value" -ge 8 ] && [ -e hang ]; then sleep 3600; fi
        note end "$value""#,
    );
    let runner = place.start(&["run", "job.toml"]);
    wait_until("some items end, some hang", PROGRESS_WITHIN, || {
        let log = place.log();
        log.count("end") == 8 && log.count("start") == 12
    });
    let asked = now();
    let said = place.trommel(&["stop", "latest"]).exits(0);
    let took = asked.elapsed();
    assert!(said.stdout.contains("ABORTED"), "{}", said.stdout);
    assert!(took < OBEYED_WITHIN, "{took:?}");
    runner.wait_within(OBEYED_WITHIN * 2).exits(1);
    let status = place.status();
    assert_eq!(status.status, "ABORTED");
    assert_eq!(status.item_counts.list(), [ITEMS - 12, 0, 8, 0, 0, 4, 0]);
    assert_eq!(place.results("PENDING").len() as u64, ITEMS - 12);
    assert_eq!(place.results("FAILED").len(), 4);
    place.trommel(&["stop", "latest"]).exits(2);
    place.trommel(&["resume", "latest"]).exits(2);
    place.audit();

    std::fs::remove_file(place.path("hang")).expect("it is there");
    place.trommel(&["redrive", "latest"]).exits(0);
    let status = place.status();
    assert_eq!(
        (status.status.as_str(), status.generation),
        ("SUCCEEDED", 1)
    );
    assert_eq!(status.item_counts.list(), [0, 0, ITEMS, 0, 0, 0, 0]);
    let ends = place.log().tally("end");
    assert!(
        ends.values().all(|times| *times == 1),
        "no success ran again"
    );
    assert_eq!(ends.len() as u64, ITEMS);
    assert_eq!(place.results("SUCCEEDED").len() as u64, ITEMS);
    assert_eq!(place.results("PENDING").len(), 0);
    place.audit();
    figure(&format!("stop: obeyed in {took:.1?}"));
}

#[test]
fn a_paused_run_can_be_stopped_and_a_dead_ones_too() {
    let place = job();
    let runner = place.start(&["run", "job.toml"]);
    some_items_end(&place);
    runner.kill();
    assert_eq!(
        place.status().status,
        "RUNNING",
        "nobody was there to say otherwise"
    );
    place.trommel(&["pause", "latest"]).exits(0);
    assert_eq!(place.status().status, "PAUSED");
    place.trommel(&["stop", "latest"]).exits(0);
    let status = place.status();
    assert_eq!(status.status, "ABORTED");
    assert!(status.item_counts.add_up());
    place.trommel(&["redrive", "latest"]).exits(0);
    assert_eq!(place.status().item_counts.list(), [0, 0, ITEMS, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn a_second_runner_is_refused_and_told_who_runs() {
    let place = job();
    let runner = place.start(&["run", "job.toml"]);
    some_items_end(&place);
    let pid = runner.id().to_string();
    let second = [
        &["run", "job.toml"][..],
        &["resume", "latest"],
        &["worker", "job.toml", "--lane", "function"],
    ];
    for args in second {
        let refused = place.trommel(args).exits(2);
        let words = refused.stderr.split(|c: char| !c.is_ascii_digit());
        assert!(
            words.into_iter().any(|word| word == pid),
            "{}",
            refused.stderr
        );
    }
    let runs: Vec<serde_json::Value> = place.trommel(&["runs", "--json"]).exits(0).json();
    assert_eq!(runs.len(), 1, "what is refused leaves no run behind");
    // A run that is being worked on is not redriven either.
    place.trommel(&["redrive", "latest"]).exits(2);
    runner.wait().exits(0);
    place.audit();
}

#[test]
fn everything_can_be_looked_at_while_a_run_goes_on() {
    let place = job();
    place.script(
        "work",
        r#"read value; note start "$value"; [ "$value" = 3 ] || sleep 0.5; note end "$value"
        if [ "$value" = 3 ]; then echo 'no threes' >&2; exit 7; fi; echo "$value""#,
    );
    let runner = place.start(&["run", "job.toml"]);
    wait_until("a failure is recorded", PROGRESS_WITHIN, || {
        place
            .maybe_status()
            .is_some_and(|status| status.item_counts.failed == 1)
    });
    let failed = place.items(&["--state", "failed"]);
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].label.as_str(), failed[0].class.as_deref()),
        ("3", Some("Exit7"))
    );
    let page: serde_json::Value = place
        .trommel(&["show", &failed[0].item, "--json"])
        .exits(0)
        .json();
    assert_eq!(page["cause"], "no threes");
    assert_eq!(page["input"], "3");
    let groups: Vec<serde_json::Value> = place
        .trommel(&["items", "latest", "--group", "--json"])
        .exits(0)
        .json();
    assert_eq!((groups.len(), groups[0]["count"].as_u64()), (1, Some(1)));
    for human in [
        &["status"][..],
        &["runs"],
        &["items"],
        &["items", "--group"],
        &["show", &failed[0].item],
    ] {
        let said = place.trommel(human).exits(0);
        assert!(!said.stdout.is_empty(), "{human:?}");
    }
    assert_eq!(place.status().status, "RUNNING", "it went on meanwhile");
    runner.wait().exits(3);
}

#[test]
fn status_watches_until_the_run_is_over_and_exits_as_it_does() {
    let place = job();
    let runner = place.start(&["run", "job.toml"]);
    some_items_end(&place);
    let watched = place.trommel(&["status", "--watch", "--json"]).exits(0);
    runner.wait().exits(0);
    let last = watched.stdout.lines().last().expect("it says something");
    let last: crate::support::Status = serde_json::from_str(last).expect("JSON lines");
    assert_eq!(last.status, "SUCCEEDED");
    assert_eq!(last.item_counts.list(), [0, 0, ITEMS, 0, 0, 0, 0]);
    assert!(
        watched.stdout.lines().count() >= 2,
        "it looked more than once"
    );
}
