//! Sources: lanes by size, objects that change or vanish, and every kind of input.

use serde_json::{Value, json};

use crate::support::{Item, Place};

#[test]
fn large_objects_go_alone_and_what_no_lane_takes_fails() {
    let place = Place::with_job(
        r#"
        name = "sizes"
        input = { objects = "in" }
        max_concurrency = 4
        tolerated_failure_count = 1
        results = "out"
        [function]
        command = ["./work", "function"]
        max_object = 1000
        max_items_per_batch = 10
        [container]
        command = ["./work", "container"]
        max_object = "10 kB"
        "#,
    );
    place.script(
        "work",
        r#"lane=$1; input=$(cat); note "$lane" $(echo "$input" | wc -l) $(echo "$input" | grep -o '"size":[0-9]*' | cut -d: -f2)"#,
    );
    for number in 0..25 {
        place.write(format!("in/small{number:02}"), "s".repeat(number * 40));
    }
    place.write("in/just-small", "s".repeat(1000));
    place.write("in/just-large", "l".repeat(1001));
    for number in 0..3 {
        place.write(format!("in/large{number}"), "l".repeat(9000));
    }
    place.write("in/huge", "h".repeat(10_001));
    place.trommel(&["run", "job.toml"]).exits(3);
    let log = place.log();
    let sizes = |word: &str| -> Vec<u64> {
        let lines = log.lines.iter().filter(|line| line[0] == word);
        let sizes = lines.flat_map(|line| {
            assert_eq!(line[1], (line.len() - 2).to_string(), "a size an item");
            line[2..].iter().map(|size| size.parse().expect("a number"))
        });
        sizes.collect()
    };
    let small = sizes("function");
    assert_eq!(small.len(), 26);
    assert!(small.iter().all(|size| *size <= 1000));
    assert!(log.count("function") <= 6, "small ones share calls");
    let mut large = sizes("container");
    large.sort_unstable();
    assert_eq!(large, [1001, 9000, 9000, 9000]);
    assert_eq!(log.count("container"), 4, "large ones go alone");
    let failed = place.items(&["--state", "failed"]);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].label, "huge");
    assert_eq!(failed[0].class.as_deref(), Some("TooLarge"));
    assert_eq!(place.status().item_counts.list(), [0, 0, 30, 1, 0, 0, 0]);
    place.audit();
}

fn by_label<'a>(items: &'a [Item], label: &str) -> &'a Item {
    let found = items.iter().find(|item| item.label == label);
    found.expect("the run has it")
}

#[test]
fn a_source_that_changed_or_vanished_is_said_so_and_refresh_takes_it_as_it_is() {
    let place = Place::with_job(
        r#"
        name = "moving"
        input = { objects = "in" }
        max_concurrency = 1
        tolerated_failure_count = 3
        results = "out"
        [function]
        command = ["./work", "{path}", "{key}"]
        "#,
    );
    place.script(
        "work",
        r#"note run "$2"
        if [ "$2" = a ] && [ ! -e moved ]; then
            touch moved; echo 'something else' > in/b; rm in/c
        fi
        if [ "$2" = d ] && [ ! -e touched ]; then touch touched; echo more >> in/d; fi
        cat "$1""#,
    );
    for name in ["a", "b", "c", "d", "e"] {
        place.write(format!("in/{name}"), format!("\"{name}\""));
    }
    place.trommel(&["run", "job.toml"]).exits(3);
    let items = place.items(&[]);
    let class = |label: &str| by_label(&items, label).class.clone();
    assert_eq!(class("a"), None);
    assert_eq!(class("b").as_deref(), Some("SourceChanged"));
    assert_eq!(class("c").as_deref(), Some("Gone"));
    assert_eq!(
        class("d").as_deref(),
        Some("SourceChanged"),
        "changed under the call"
    );
    assert_eq!(class("e"), None);
    assert_eq!(
        place.log().of("run"),
        ["a", "d", "e"],
        "what changed before is not run"
    );
    place.audit();

    // As it was listed it does not exist any more, however often one asks.
    place.trommel(&["redrive", "latest"]).exits(3);
    assert_eq!(place.log().count("run"), 3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 2, 3, 0, 0, 0]);
    place.trommel(&["redrive", "latest", "--refresh"]).exits(3);
    assert_eq!(place.status().item_counts.list(), [0, 0, 4, 1, 0, 0, 0]);
    let items = place.items(&["--state", "failed"]);
    assert_eq!(items[0].class.as_deref(), Some("Gone"));
    place.write("in/c", "\"back\"");
    place.trommel(&["redrive", "latest", "--refresh"]).exits(0);
    let mut outputs: Vec<Value> = place
        .results("SUCCEEDED")
        .into_iter()
        .map(|record| record["output"].clone())
        .collect();
    outputs.sort_by_key(ToString::to_string);
    let mut expected = [
        json!("a"),
        json!("something else"),
        json!("back"),
        json!("\"d\"more"),
        json!("e"),
    ];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(outputs, expected);
    place.audit();
}

/// Runs `cat` over an input and answers what it got, sorted as text.
fn echoed(input: &str, files: &[(&str, &str)]) -> Vec<Value> {
    let place = Place::with_job(&format!(
        r#"
        name = "echo"
        input = {input}
        max_concurrency = 2
        results = "out"
        [function]
        command = ["cat"]
        "#
    ));
    for (name, text) in files {
        place.write(name, text);
    }
    place.trommel(&["run", "job.toml"]).exits(0);
    place.audit();
    let records = place.results("SUCCEEDED");
    for record in &records {
        assert_eq!(
            record["input"], record["output"],
            "an item goes in as it comes out"
        );
    }
    records
        .into_iter()
        .map(|mut record| record["output"].take())
        .collect()
}

#[test]
fn every_kind_of_input_reaches_the_command_as_json() {
    let rows = [
        json!({"id": "1", "name": "Ann, A."}),
        json!({"id": "2", "name": "line\nbreak"}),
    ];
    let csv = "id,name\n1,\"Ann, A.\"\n2,\"line\nbreak\"\n";
    assert_eq!(echoed(r#"{ csv = "in.csv" }"#, &[("in.csv", csv)]), rows);
    let csv = "1;\"Ann, A.\"\n2;\"line\nbreak\"\n";
    let given = r#"{ csv = "in.csv", headers = ["id", "name"], delimiter = ";" }"#;
    assert_eq!(echoed(given, &[("in.csv", csv)]), rows);
    let values = [json!({"a": [1, null]}), json!("té\nxt"), json!(-2.5)];
    let lines = values.iter().map(|value| format!("{value}\n"));
    let lines: String = lines.collect();
    assert_eq!(
        echoed(r#"{ jsonl = "in.jsonl" }"#, &[("in.jsonl", &lines)]),
        values
    );
    let list = Value::from(values.to_vec()).to_string();
    assert_eq!(
        echoed(r#"{ json = "in.json" }"#, &[("in.json", &list)]),
        values
    );
    let inline = r#"{ inline = [1, "two", { three = 3 }, true] }"#;
    let expected = [json!(1), json!("two"), json!({"three": 3}), json!(true)];
    assert_eq!(echoed(inline, &[]), expected);
    let numbers: Vec<Value> = (5..250).map(Value::from).collect();
    assert_eq!(echoed(r#"{ range = "5..250" }"#, &[]), numbers);
}

#[test]
fn an_input_with_nothing_in_it_is_a_success() {
    let place = Place::with_job(
        r#"
        name = "empty"
        input = { objects = "in" }
        results = "out"
        [function]
        command = ["false"]
        "#,
    );
    std::fs::create_dir(place.path("in")).expect("a directory of ours");
    place.trommel(&["run", "job.toml"]).exits(0);
    let status = place.status();
    assert_eq!(
        (status.status.as_str(), status.item_counts.total),
        ("SUCCEEDED", 0)
    );
    assert!(status.total_is_final);
    assert_eq!(place.results("SUCCEEDED").len(), 0);
    place.audit();
}

#[test]
fn an_input_that_breaks_in_the_middle_fails_the_run_and_says_where() {
    let place = Place::with_job(
        r#"
        name = "torn"
        input = { jsonl = "in.jsonl" }
        [function]
        command = ["true"]
        "#,
    );
    place.write("in.jsonl", "1\n2\n{\"three\":\n4\n");
    place.trommel(&["run", "job.toml"]).exits(1);
    let status = place.status();
    assert_eq!(status.status, "FAILED");
    let reason = status.reason.expect("a verdict has a reason");
    assert!(reason.contains("line 3"), "{reason}");
    assert!(status.item_counts.add_up());
    place.audit();
}

#[test]
fn what_cannot_start_is_refused_before_a_run_is_made() {
    let cases = [
        ("objects = \"nowhere\"", "[\"true\"]", "nowhere"),
        (
            "range = \"0..3\"",
            "[\"./no-such-program\"]",
            "no-such-program",
        ),
        (
            "range = \"0..3\"",
            "[\"no-such-program-anywhere\"]",
            "no-such-program-anywhere",
        ),
    ];
    for (input, command, named) in cases {
        let place = Place::with_job(&format!(
            "input = {{ {input} }}\n[function]\ncommand = {command}\n"
        ));
        let refused = place.trommel(&["run", "job.toml"]).exits(2);
        assert!(refused.stderr.contains(named), "{}", refused.stderr);
        let runs = place.trommel(&["runs", "--json"]);
        assert!(matches!(runs.code(), Some(0 | 2)), "{}", runs.stderr);
        assert!(!runs.stdout.contains("\"run\""), "{}", runs.stdout);
    }
}
