//! Tolerance from outside: exit codes, pauses at a breach, and what a redrive takes then.

use std::fs;
use std::time::Duration;

use crate::support::{Place, figure, now, scaled};

/// Of a thousand items these fail.
const BAD: [&str; 5] = ["500", "501", "502", "503", "504"];

/// The judge obeys within so long, and calls that started in between are counted.
const JUDGED_WITHIN: Duration = Duration::from_secs(1);

fn call_takes() -> Duration {
    scaled(Duration::from_millis(5), Duration::from_millis(20))
}

/// A thousand items, one at a time; the 500th to the 504th fail as long as the file `broken` is there.
fn thousand(percentage: &str) -> Place {
    let place = Place::with_job(&format!(
        r#"
        name = "thousand"
        input = {{ range = "1..1001" }}
        max_concurrency = 1
        tolerated_failure_percentage = {percentage}
        on_breach = "pause"
        results = "out"
        [function]
        command = ["./work"]
        "#
    ));
    place.write("broken", "");
    let seconds = call_takes().as_secs_f64();
    place.script(
        "work",
        &format!(
            r#"read value; note start "$value"; sleep {seconds}; note end "$value"
            case $value in 50[0-4]) [ ! -e broken ];; esac"#
        ),
    );
    place
}

/// The cause is mended, and what failed is redriven: exactly that.
fn redrive_five(place: &Place) {
    fs::remove_file(place.path("broken")).expect("it is there");
    place.trommel(&["redrive", "latest"]).exits(0);
    assert_eq!(place.log().of("start").split_off(1000), BAD);
    let status = place.status();
    assert_eq!(
        (status.status.as_str(), status.generation),
        ("SUCCEEDED", 1)
    );
    assert_eq!(status.item_counts.list(), [0, 0, 1000, 0, 0, 0, 0]);
    assert_eq!(place.results("SUCCEEDED").len(), 1000, "all, each once");
    assert_eq!(place.results("FAILED").len(), 0);
    // Now there is nothing left to take.
    place.trommel(&["redrive", "latest"]).exits(2);
    place.audit();
}

fn in_order(upto: usize) -> Vec<String> {
    (1..=upto).map(|value| value.to_string()).collect()
}

#[test]
fn five_failures_of_a_thousand_are_tolerated_at_half_a_percent_and_redriven_alone() {
    let place = thousand("0.5");
    let begun = now();
    place.trommel(&["run", "job.toml"]).exits(3);
    let took = begun.elapsed();
    let status = place.status();
    assert_eq!(status.status, "SUCCEEDED");
    assert_eq!(status.item_counts.list(), [0, 0, 995, 5, 0, 0, 0]);
    assert_eq!(place.log().of("start"), in_order(1000), "in input order");
    assert_eq!(place.log().at_once(), 1);
    let mut failed: Vec<String> = place
        .items(&["--state", "failed"])
        .into_iter()
        .map(|item| item.label)
        .collect();
    failed.sort();
    assert_eq!(failed, BAD);

    redrive_five(&place);
    figure(&format!(
        "tolerance: 1,000 items one at a time in {took:.1?}, 5 tolerated, exactly 5 redriven"
    ));
}

#[test]
fn five_failures_of_a_thousand_pause_the_run_at_four_tenths_of_a_percent() {
    let place = thousand("0.4");
    let done = place.trommel(&["run", "job.toml"]).exits(5);
    assert!(done.stderr.contains("trommel resume"), "{}", done.stderr);
    let status = place.status();
    assert_eq!(status.status, "PAUSED");
    let counts = status.item_counts;
    assert!(counts.add_up(), "{counts:?}");
    assert_eq!((counts.total, counts.failed, counts.running), (1000, 5, 0));
    assert_eq!(status.failures, 5);
    // 496 items come after the fifth failure.
    let slack = JUDGED_WITHIN.as_millis() / call_takes().as_millis();
    let least = 496_u64.saturating_sub(slack as u64).max(scaled(0, 440));
    assert!(counts.pending >= least, "{counts:?}");
    assert_eq!(counts.succeeded + 5 + counts.pending, 1000);
    let started = place.log().of("start");
    assert_eq!(started, in_order(started.len()));
    assert_eq!(
        started.len() as u64 + counts.pending,
        1000,
        "nothing ran in vain"
    );
    place.audit();

    // As it was it would pause again at once: a larger budget, or none of it.
    let refused = place.trommel(&["resume", "latest"]).exits(2);
    assert!(
        refused.stderr.contains("--to-the-end"),
        "{}",
        refused.stderr
    );
    place
        .trommel(&["resume", "latest", "--tolerated-failure-percentage", "1"])
        .exits(3);
    let after = place.status();
    assert_eq!(after.status, "SUCCEEDED");
    assert_eq!(after.item_counts.list(), [0, 0, 995, 5, 0, 0, 0]);
    assert_eq!(
        place.log().of("start"),
        in_order(1000),
        "each once, in input order"
    );
    redrive_five(&place);
    figure(&format!(
        "tolerance: paused at the fifth failure with {} pending",
        counts.pending
    ));
}

#[test]
fn a_run_that_goes_to_the_end_after_a_breach_fails_with_everything_done() {
    let place = Place::with_job(
        r#"
        name = "to-the-end"
        input = { range = "0..60" }
        max_concurrency = 1
        tolerated_failure_count = 2
        on_breach = "pause"
        [function]
        command = ["sh", "-c", "read v; sleep 0.03; exit $((v % 4 == 0))"]
        "#,
    );
    place.trommel(&["run", "job.toml"]).exits(5);
    assert!(place.status().item_counts.pending > 0);
    place
        .trommel(&["resume", "latest", "--to-the-end"])
        .exits(1);
    let status = place.status();
    assert_eq!(status.status, "FAILED");
    assert_eq!(status.item_counts.list(), [0, 0, 45, 15, 0, 0, 0]);
    place.audit();
}

/// What a run of ten items is allowed, how many of them fail, and the exit code.
const TABLE: [(&str, u32, i32); 17] = [
    ("", 0, 0),
    ("", 1, 1),
    ("tolerated_failure_count = 0", 0, 0),
    ("tolerated_failure_count = 0", 1, 1),
    ("tolerated_failure_count = 2", 2, 3),
    ("tolerated_failure_count = 2", 3, 1),
    ("tolerated_failure_percentage = 0", 0, 0),
    ("tolerated_failure_percentage = 0", 1, 1),
    ("tolerated_failure_percentage = 20", 2, 3),
    ("tolerated_failure_percentage = 20", 3, 1),
    ("tolerated_failure_percentage = 19.999999", 2, 1),
    ("tolerated_failure_percentage = 100", 10, 3),
    ("tolerated_failure_count = 10", 10, 3),
    (
        "tolerated_failure_count = 3\ntolerated_failure_percentage = 20",
        3,
        1,
    ),
    (
        "tolerated_failure_count = 1\ntolerated_failure_percentage = 90",
        2,
        1,
    ),
    (
        "tolerated_failure_count = 2\ntolerated_failure_percentage = 20",
        2,
        3,
    ),
    (
        "tolerated_failure_count = 0\ntolerated_failure_percentage = 100",
        1,
        1,
    ),
];

#[test]
fn a_run_fails_when_failures_exceed_the_tolerance_and_not_when_they_equal_it() {
    for (limits, fail, code) in TABLE {
        let place = Place::with_job(&format!(
            r#"
            name = "table"
            input = {{ range = "0..10" }}
            {limits}
            [function]
            command = ["sh", "-c", "read v; exit $((v < {fail}))"]
            "#
        ));
        let done = place.trommel(&["run", "job.toml", "--json"]);
        let case = format!("{limits:?} and {fail} failures: {}", done.stderr);
        assert_eq!(done.code(), Some(code), "{case}");
        let status = place.status();
        let verdict = if code == 1 { "FAILED" } else { "SUCCEEDED" };
        assert_eq!(status.status, verdict, "{case}");
        assert!(status.item_counts.add_up(), "{case}");
        assert_eq!(status.item_counts.total, 10, "{case}");
        place.audit();
    }
}
