//! Redrive: what did not succeed runs again, all of it or what is selected, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Item, Place};

/// Eight objects; those of `a/` fail with status 3, those of `b/` with 4, as long as the file `broken`
/// is there. `c/` is fine.
fn broken() -> Place {
    let place = Place::with_job(
        r#"
        name = "broken"
        input = { objects = "in" }
        max_concurrency = 2
        on_breach = "fail"
        tolerated_failure_percentage = 100
        results = "out"
        [function]
        command = ["./work", "{key}"]
        "#,
    );
    place.write("broken", "");
    place.script(
        "work",
        r#"note run "$1"
        [ -e broken ] || exit 0
        case $1 in
            a/*) echo "cannot read $1" >&2; exit 3;;
            b/*) echo "line 17 of $1 is bad" >&2; exit 4;;
        esac"#,
    );
    for number in 1..=3_usize {
        for directory in ["a", "b", "c"] {
            place.write(
                format!("in/{directory}/{number}"),
                "x".repeat(number * 1000),
            );
        }
    }
    place.trommel(&["run", "job.toml"]).exits(3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 3, 6, 0, 0, 0]);
    place
}

fn mended() -> Place {
    let place = broken();
    std::fs::remove_file(place.path("broken")).expect("it is there");
    place
}

/// The keys that ran since so many had.
fn ran_since(place: &Place, before: usize) -> BTreeSet<String> {
    let keys = place.log().of("run").split_off(before);
    let set: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(set.len(), keys.len(), "each once: {keys:?}");
    set
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn plan(place: &Place, options: &[&str]) -> u64 {
    let args = [&["redrive", "latest", "--dry-run", "--json"], options].concat();
    let plan: Value = place.trommel(&args).exits(0).json();
    assert_eq!(plan["dryRun"], true);
    plan["reopened"].as_u64().expect("a number")
}

fn item<'a>(items: &'a [Item], key: &str) -> &'a str {
    let found = items.iter().find(|item| item.label == key);
    &found.expect("the run has it").item
}

#[test]
fn a_dry_run_says_how_many_and_changes_nothing() {
    let place = broken();
    let groups: Vec<Value> = place
        .trommel(&["items", "--group", "--json"])
        .exits(0)
        .json();
    assert_eq!(groups.len(), 2, "{groups:?}");
    let fingerprint = |class: &str| {
        let group = groups.iter().find(|group| group["class"] == class);
        let group = group.expect("a group a class");
        assert_eq!(group["count"], 3);
        group["fingerprint"].as_str().expect("a text").to_owned()
    };
    let items = place.items(&[]);
    let two = format!("{},{}", item(&items, "a/1"), item(&items, "b/2"));
    let cases: [(&[&str], u64); 12] = [
        (&[], 6),
        (&["--class", "Exit3"], 3),
        (&["--class", "Exit3", "--class", "Exit4"], 6),
        (&["--class", "Nobody"], 0),
        (&["--fingerprint", &fingerprint("Exit4")], 3),
        (&["--key", "b/*"], 3),
        (&["--key", "?/2"], 2),
        (&["--larger", "1500 B"], 4),
        (&["--smaller", "1500 B"], 2),
        (
            &[
                "--class",
                "Exit3",
                "--larger",
                "1500 B",
                "--smaller",
                "2500 B",
            ],
            1,
        ),
        (&["--items", &two], 2),
        (&["--state", "timedOut"], 0),
    ];
    for (options, reopened) in cases {
        assert_eq!(plan(&place, options), reopened, "{options:?}");
    }
    assert_eq!(place.status().generation, 0);
    assert_eq!(place.log().count("run"), 9, "nothing ran");
    place
        .trommel(&["redrive", "latest", "--class", "Nobody"])
        .exits(2);
    place
        .trommel(&["redrive", "latest", "--state", "succeeded"])
        .exits(2);
    assert_eq!(place.status().generation, 0);
    place.audit();
}

#[test]
fn a_redrive_by_class_then_by_fingerprint_takes_these_and_ends_with_all() {
    let place = mended();
    place
        .trommel(&["redrive", "latest", "--class", "Exit3"])
        .exits(3);
    assert_eq!(ran_since(&place, 9), keys(&["a/1", "a/2", "a/3"]));
    assert_eq!(place.status().item_counts.list(), [0, 0, 6, 3, 0, 0, 0]);
    place.audit();
    let groups: Vec<Value> = place
        .trommel(&["items", "--group", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        groups.len(),
        1,
        "what succeeded since is no failure: {groups:?}"
    );
    let fingerprint = groups[0]["fingerprint"].as_str().expect("a text");
    place
        .trommel(&["redrive", "latest", "--fingerprint", fingerprint])
        .exits(0);
    assert_eq!(ran_since(&place, 12), keys(&["b/1", "b/2", "b/3"]));
    let status = place.status();
    assert_eq!(
        (status.status.as_str(), status.generation),
        ("SUCCEEDED", 2)
    );
    assert_eq!(place.results("SUCCEEDED").len(), 9, "all, each once");
    place.audit();
}

#[test]
fn a_redrive_by_key_size_and_list_takes_these() {
    let place = mended();
    let items = place.items(&[]);
    place
        .trommel(&["redrive", "latest", "--key", "a/*", "--smaller", "1500"])
        .exits(3);
    assert_eq!(ran_since(&place, 9), keys(&["a/1"]));
    place
        .trommel(&["redrive", "latest", "--items", item(&items, "b/3")])
        .exits(3);
    assert_eq!(ran_since(&place, 10), keys(&["b/3"]));
    place.write(
        "list",
        format!(
            "# two\n{}\n\n{}\n",
            item(&items, "a/2"),
            item(&items, "a/3")
        ),
    );
    place
        .trommel(&["redrive", "latest", "--items", "list"])
        .exits(3);
    assert_eq!(ran_since(&place, 11), keys(&["a/2", "a/3"]));
    let line = format!("{}\n", item(&items, "b/1"));
    place
        .trommel_reading(&["redrive", "latest", "--items", "-"], &line)
        .exits(3);
    assert_eq!(ran_since(&place, 13), keys(&["b/1"]));
    // One that has succeeded is not taken again, even when it is named.
    place
        .trommel(&["redrive", "latest", "--items", item(&items, "c/1")])
        .exits(2);
    assert_eq!(place.status().item_counts.list(), [0, 0, 8, 1, 0, 0, 0]);
    place.trommel(&["redrive", "latest"]).exits(0);
    assert_eq!(ran_since(&place, 14), keys(&["b/2"]));
    place.audit();
}

#[test]
fn another_job_file_is_compared_with_the_stored_one_and_judges_from_then_on() {
    let place = broken();
    let job = std::fs::read_to_string(place.path("job.toml")).expect("it is there");
    let lenient = "tolerated_failure_percentage = 100";
    let strict = "tolerated_failure_percentage = 40";
    place.write("strict.toml", job.replace(lenient, strict));
    let done = place
        .trommel(&[
            "redrive",
            "latest",
            "--class",
            "Exit3",
            "--job",
            "strict.toml",
        ])
        .exits(1);
    assert!(
        done.stderr.contains(&format!("+         {strict}")),
        "{}",
        done.stderr
    );
    let status = place.status();
    assert_eq!((status.status.as_str(), status.generation), ("FAILED", 1));
    assert_eq!(status.item_counts.total, 9);
    assert!(status.item_counts.add_up());
    place.audit();

    // What was failing is mended: the failures left are more than 40 % of nine no longer.
    std::fs::remove_file(place.path("broken")).expect("it is there");
    place
        .trommel(&["redrive", "latest", "--class", "Exit3"])
        .exits(3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 6, 3, 0, 0, 0]);
    place.audit();
}

#[test]
fn a_paused_run_resumes_with_the_larger_budget_of_another_job_file() {
    let place = Place::with_job(
        r#"
        name = "budget"
        input = { range = "0..40" }
        max_concurrency = 1
        tolerated_failure_count = 2
        on_breach = "pause"
        [function]
        command = ["sh", "-c", "read v; sleep 0.02; exit $((v % 4 == 0))"]
        "#,
    );
    place.trommel(&["run", "job.toml"]).exits(5);
    let job = std::fs::read_to_string(place.path("job.toml")).expect("it is there");
    place.write("larger.toml", job.replace("count = 2", "count = 20"));
    place
        .trommel(&["resume", "latest", "--job", "job.toml"])
        .exits(2);
    place
        .trommel(&["resume", "latest", "--job", "larger.toml"])
        .exits(3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 30, 10, 0, 0, 0]);
    place.audit();
}

#[test]
fn a_selective_redrive_takes_what_was_pending_in_the_same_page_and_leaves_the_rest() {
    let place = Place::with_job(
        r#"
        name = "breached"
        input = { range = "0..300" }
        max_concurrency = 1
        results = "out"
        [function]
        command = ["./work"]
        "#,
    );
    place.write("broken", "");
    place.script(
        "work",
        r#"read value; note run "$value"; sleep 0.01
        [ "$value" != 3 ] || [ ! -e broken ]"#,
    );
    place.trommel(&["run", "job.toml"]).exits(1);
    let status = place.status();
    assert_eq!(status.status, "FAILED");
    let before = status.item_counts;
    assert!(before.add_up());
    assert_eq!(before.failed, 1);
    assert!(before.pending > 0, "{before:?}");
    assert_eq!(place.results("PENDING").len() as u64, before.pending);
    let ran = place.log().count("run");

    std::fs::remove_file(place.path("broken")).expect("it is there");
    // What failed, and what was pending in its page, as a page has one generation; the other two pages
    // stay pending, and so the run is paused, not judged.
    place
        .trommel(&[
            "redrive", "latest", "--state", "failed", "--state", "aborted",
        ])
        .exits(5);
    assert!(ran_since(&place, ran).contains("3"));
    let status = place.status();
    assert_eq!(status.status, "PAUSED");
    assert_eq!(status.item_counts.pending, 200);
    // All the rest.
    place.trommel(&["resume", "latest"]).exits(0);
    assert_eq!(place.status().item_counts.list(), [0, 0, 300, 0, 0, 0, 0]);
    // Item 3 failed once, and the one that ran beside the verdict was stopped.
    for (value, times) in place.log().tally("run") {
        assert!(times <= 2, "{value} ran {times} times");
    }
    place.audit();
}

#[test]
fn a_redrive_may_be_killed_and_resumed() {
    let place = Place::with_job(
        r#"
        name = "killed-redrive"
        input = { range = "0..400" }
        max_concurrency = 4
        tolerated_failure_percentage = 100
        [function]
        command = ["./work"]
        "#,
    );
    place.write("broken", "");
    place.script(
        "work",
        r#"read value; [ -e broken ] && exit 1; note run "$value"; sleep 0.01"#,
    );
    place.trommel(&["run", "job.toml"]).exits(3);
    std::fs::remove_file(place.path("broken")).expect("it is there");
    let runner = place.start(&["redrive", "latest"]);
    crate::support::wait_until("it runs", std::time::Duration::from_secs(60), || {
        place.log().count("run") >= 100
    });
    runner.kill();
    place.trommel(&["resume", "latest"]).exits(0);
    let status = place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 400, 0, 0, 0, 0]);
    assert_eq!(
        (status.status.as_str(), status.generation),
        ("SUCCEEDED", 1)
    );
    assert_eq!(place.log().tally("run").len(), 400);
    place.audit();
}
