//! What happens to an item that does not succeed at once: retries, timeouts, catches, escalation, the brake.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Place, wait_until};

#[test]
fn a_command_that_fails_twice_succeeds_at_the_third_attempt() {
    let place = Place::with_job(
        r#"
        name = "third-time"
        input = { range = "0..20" }
        max_concurrency = 4
        results = "out"
        [function]
        command = ["./work"]
        [[retry]]
        errors = ["ALL"]
        max_attempts = 2
        interval = "10ms"
        "#,
    );
    place.script(
        "work",
        r#"read value; note try "$value" "$TROMMEL_ATTEMPT" "$TROMMEL_IDEMPOTENCY_KEY" "$TROMMEL_RUN" "$TROMMEL_ITEM"
        [ "$TROMMEL_ATTEMPT" -ge 3 ] || exit 1
        echo "{\"attempt\":$TROMMEL_ATTEMPT}""#,
    );
    place.trommel(&["run", "job.toml"]).exits(0);
    let log = place.log();
    let status = place.status();
    for value in 0..20 {
        let value = value.to_string();
        let tries: Vec<&Vec<String>> = log.lines.iter().filter(|line| line[1] == value).collect();
        let attempts: Vec<&str> = tries.iter().map(|line| line[2].as_str()).collect();
        assert_eq!(attempts, ["1", "2", "3"]);
        for line in &tries {
            assert_eq!(
                line[3], tries[0][3],
                "the idempotency key is that of the item"
            );
            assert_eq!((&line[4], &line[5]), (&status.run, &tries[0][5]));
        }
    }
    for record in place.results("SUCCEEDED") {
        assert_eq!(record["output"]["attempt"], 3);
    }
    assert_eq!(status.item_counts.list(), [0, 0, 20, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn retries_are_used_up_by_class_and_a_handlers_words_name_the_class() {
    let place = Place::with_job(
        r#"
        name = "classes"
        input = { inline = ["flaky", "hopeless", "plain", "odd"] }
        max_concurrency = 1
        tolerated_failure_count = 4
        results = "out"
        [function]
        command = ["./work"]
        [[retry]]
        errors = ["Flaky"]
        max_attempts = 2
        interval = "10ms"
        [[retry]]
        errors = ["Hopeless"]
        max_attempts = 0
        "#,
    );
    place.script(
        "work",
        r#"read value; note try "$value"
        case $value in
            '"flaky"') echo "talk" >&2; echo '{"error":"Flaky","cause":"once more"}' >&2; exit 1;;
            '"hopeless"') echo '{"error":"Hopeless","cause":"never"}' >&2; exit 1;;
            '"plain"') echo "first line" >&2; echo "last line" >&2; exit 9;;
            '"odd"') kill -TERM $$;;
        esac"#,
    );
    place.trommel(&["run", "job.toml"]).exits(3);
    let tries = place.log().tally("try");
    assert_eq!(tries["\"flaky\""], 3);
    assert_eq!(tries["\"hopeless\""], 1);
    assert_eq!(tries["\"plain\""], 1, "no rule, no retry");
    let mut failed: Vec<(String, String, String, u64)> = place
        .results("FAILED")
        .iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().expect("a text").to_owned();
            let attempts = record["attempts"].as_u64().expect("a number");
            (text("input"), text("error"), text("cause"), attempts)
        })
        .collect();
    failed.sort();
    let expected = [
        ("flaky", "Flaky", "once more", 3),
        ("hopeless", "Hopeless", "never", 1),
        ("odd", "Crashed", "killed by signal 15 (SIGTERM)", 1),
        ("plain", "Exit9", "first line\nlast line", 1),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(input, class, cause, attempts)| {
            (
                (*input).to_owned(),
                (*class).to_owned(),
                (*cause).to_owned(),
                *attempts,
            )
        })
        .collect();
    assert_eq!(failed, expected);
    place.audit();
}

#[test]
fn a_hanging_command_times_out_and_can_be_redriven() {
    let place = Place::with_job(
        r#"
        name = "hanging"
        input = { range = "0..6" }
        max_concurrency = 6
        tolerated_failure_count = 2
        [function]
        command = ["./work"]
        timeout = "500ms"
        grace = "200ms"
        "#,
    );
    place.write("hang", "");
    place.script(
        "work",
        r#"read value; note start "$value" $$
        case $value in [25]) if [ -e hang ]; then trap '' TERM; while :; do sleep 1; done; fi;; esac"#,
    );
    let done = place.trommel(&["run", "job.toml"]).exits(3);
    assert!(done.waited < Duration::from_secs(60));
    assert_eq!(place.status().item_counts.list(), [0, 0, 4, 0, 2, 0, 0]);
    for item in place.items(&["--state", "timedOut"]) {
        assert_eq!(item.class.as_deref(), Some("Timeout"));
        assert_eq!(item.cause.as_deref(), Some("ran longer than 500ms"));
    }
    for line in &place.log().lines {
        assert!(!crate::support::is_alive(&line[2]), "{line:?} survived");
    }
    std::fs::remove_file(place.path("hang")).expect("it is there");
    place
        .trommel(&["redrive", "latest", "--class", "Timeout"])
        .exits(0);
    assert_eq!(place.log().count("start"), 8);
    assert_eq!(place.status().item_counts.list(), [0, 0, 6, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn what_is_caught_and_skipped_is_neither_success_nor_failure() {
    let place = Place::with_job(
        r#"
        name = "caught"
        input = { range = "0..10" }
        max_concurrency = 2
        results = "out"
        [function]
        command = ["./work"]
        [[retry]]
        errors = ["Exit4"]
        max_attempts = 1
        interval = "10ms"
        [[catch]]
        errors = ["Exit4"]
        then = "skip"
        "#,
    );
    place.script(
        "work",
        r#"read value; note try "$value"; case $value in [369]) exit 4;; esac"#,
    );
    place.trommel(&["run", "job.toml"]).exits(0);
    assert_eq!(place.status().item_counts.list(), [0, 0, 7, 0, 0, 0, 3]);
    assert_eq!(place.log().tally("try")["3"], 2, "caught after its retries");
    assert_eq!(place.results("SKIPPED").len(), 3);
    // What was left out on purpose is taken again only on purpose.
    place.trommel(&["redrive", "latest"]).exits(2);
    place.script("work", r#"read value; note again "$value""#);
    place
        .trommel(&["redrive", "latest", "--state", "skipped"])
        .exits(0);
    let again = place.log().tally("again");
    assert_eq!(again.keys().collect::<Vec<_>>(), ["3", "6", "9"]);
    assert_eq!(place.status().item_counts.list(), [0, 0, 10, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn an_item_that_runs_out_of_time_moves_to_the_container_lane() {
    let place = Place::with_job(
        r#"
        name = "escalated"
        input = { objects = "in" }
        max_concurrency = 4
        results = "out"
        [function]
        command = ["./work", "function", "{key}"]
        max_object = "1 KiB"
        timeout = "500ms"
        grace = "100ms"
        [container]
        command = ["./work", "container", "{key}"]
        "#,
    );
    place.script(
        "work",
        r#"note "$1" "$2" "$TROMMEL_ITEM" "$TROMMEL_IDEMPOTENCY_KEY"
        case $1-$2 in function-slow*) exec sleep 60;; esac
        echo "\"by $1\"""#,
    );
    for name in ["quick1", "quick2", "slow1", "slow2"] {
        place.write(format!("in/{name}"), "small");
    }
    place.trommel(&["run", "job.toml"]).exits(0);
    let log = place.log();
    let mut there = log.of("container");
    there.sort();
    assert_eq!(there, ["slow1", "slow2"]);
    for name in there {
        let calls: Vec<_> = log.lines.iter().filter(|line| line[1] == name).collect();
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[0][2..], calls[1][2..], "it stays the same item");
    }
    let items = place.items(&[]);
    assert_eq!(
        items.len(),
        4,
        "an item that moved is listed once: {items:?}"
    );
    for item in &items {
        let lane = if item.label.starts_with("slow") {
            "container"
        } else {
            "function"
        };
        assert_eq!(
            (item.lane.as_str(), item.state.as_str()),
            (lane, "succeeded"),
            "{item:?}"
        );
        let page: Value = place
            .trommel(&["show", &item.item, "--json"])
            .exits(0)
            .json();
        assert_eq!(page["output"], format!("\"by {lane}\""));
    }
    assert_eq!(place.results("SUCCEEDED").len(), 4);
    assert_eq!(place.status().item_counts.list(), [0, 0, 4, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn a_catch_sends_a_class_to_the_container_lane() {
    let place = Place::with_job(
        r#"
        name = "sent-on"
        input = { objects = "in" }
        max_concurrency = 2
        tolerated_failure_count = 1
        [function]
        command = ["sh", "-c", "exit 5"]
        max_object = "1 KiB"
        [container]
        command = ["./work", "{key}"]
        [[catch]]
        errors = ["Exit5"]
        then = "container"
        "#,
    );
    place.script("work", r#"note container "$1"; [ "$1" != bad ]"#);
    for name in ["bad", "good1", "good2"] {
        place.write(format!("in/{name}"), "small");
    }
    place.trommel(&["run", "job.toml"]).exits(3);
    assert_eq!(place.log().count("container"), 3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 2, 1, 0, 0, 0]);
    place.audit();

    place.script("work", r#"note again "$1""#);
    place.trommel(&["redrive", "latest"]).exits(0);
    assert_eq!(
        place.log().of("again"),
        ["bad"],
        "it is tried where it failed"
    );
    assert_eq!(place.status().item_counts.list(), [0, 0, 3, 0, 0, 0, 0]);
    place.audit();
}

#[test]
fn the_brake_stops_a_run_that_only_fails_long_before_its_tolerance() {
    let place = Place::with_job(
        r#"
        name = "brake"
        input = { range = "0..2000" }
        max_concurrency = 2
        tolerated_failure_percentage = 100
        fail_fast = "50 % of last 20"
        [function]
        command = ["sh", "-c", "sleep 0.02; exit 1"]
        "#,
    );
    place.trommel(&["run", "job.toml"]).exits(1);
    let status = place.status();
    assert_eq!(status.status, "FAILED");
    let counts = status.item_counts;
    assert!(counts.add_up(), "{counts:?}");
    assert!(counts.failed >= 20 && counts.pending >= 1000, "{counts:?}");
    let reason = status.reason.expect("a verdict has a reason");
    assert!(reason.contains("last"), "{reason}");
    place.audit();
}

#[test]
fn a_wait_between_attempts_holds_no_place_for_others() {
    let place = Place::with_job(
        r#"
        name = "patience"
        input = { range = "0..10" }
        max_concurrency = 1
        [function]
        command = ["./work"]
        [[retry]]
        errors = ["ALL"]
        max_attempts = 1
        interval = "3s"
        jitter = "none"
        "#,
    );
    place.script(
        "work",
        r#"read value; note try "$value"
        [ "$value" != 0 ] || [ "$TROMMEL_ATTEMPT" = 2 ]"#,
    );
    let runner = place.start(&["run", "job.toml"]);
    wait_until("the others go on", Duration::from_secs(60), || {
        place.log().count("try") == 10
    });
    let tries = place.log().tally("try");
    assert_eq!(tries.get("0"), Some(&1), "it still waits");
    runner.wait().exits(0);
    assert_eq!(place.log().of("try").last().map(String::as_str), Some("0"));
    place.audit();
}
