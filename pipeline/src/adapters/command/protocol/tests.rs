use std::sync::Arc;

use super::*;
use crate::core::id::{Epoch, Generation, PageId};
use crate::core::item::Input;

fn item(index: u8, value: &str) -> CallItem {
    CallItem {
        id: PageId::new(1, 2).origin(index),
        attempt: 3,
        epoch: Epoch(1),
        generation: Generation(0),
        input: Arc::new(Input::Value(value.into())),
    }
}

fn ended(exit: Exit, stdout: &str, stderr: &str) -> Ended {
    Ended {
        exit,
        stopped: false,
        stdout: stdout.into(),
        stderr: stderr.into(),
    }
}

fn single(exit: Exit, stdout: &str, stderr: &str) -> ItemReport {
    read_single(&ended(exit, stdout, stderr), OutputMode::Keep)
}

fn json(text: &str) -> ItemReport {
    ItemReport::Succeeded(Output::Json(text.into()))
}

fn failed(class: &str, cause: &str) -> ItemReport {
    ItemReport::Failed(Failure::new(Class::from_name(class), cause))
}

/// Three items; answers what became of each.
fn batch(exit: Exit, stdout: &str) -> Vec<ItemReport> {
    let items = [item(0, "0"), item(1, "1"), item(2, "2")];
    let items: Vec<&CallItem> = items.iter().collect();
    read_batch(&ended(exit, stdout, ""), &items, OutputMode::Keep)
}

fn class_of(report: &ItemReport) -> String {
    match report {
        ItemReport::Succeeded(_) => "Succeeded".to_owned(),
        ItemReport::Failed(failure) => format!("Failed {}", failure.class),
        ItemReport::Undecided(failure) => format!("Undecided {}", failure.class),
    }
}

fn classes(reports: &[ItemReport]) -> Vec<String> {
    reports.iter().map(class_of).collect()
}

#[test]
fn json_is_an_output_as_it_is_and_text_becomes_a_string() {
    let ok = Exit::Code(0);
    assert_eq!(single(ok, " {\"a\": 1}\n", ""), json("{\"a\": 1}"));
    assert_eq!(single(ok, "[1,\n2]\n", ""), json("[1, 2]"));
    assert_eq!(single(ok, "two words\n", ""), json("\"two words\""));
    assert_eq!(single(ok, "007", ""), json("\"007\""));
    assert_eq!(
        single(ok, "\n", "noise"),
        ItemReport::Succeeded(Output::None)
    );
    let discarded = read_single(&ended(ok, "text", ""), OutputMode::None);
    assert_eq!(discarded, ItemReport::Succeeded(Output::None));
}

#[test]
fn text_that_grows_beyond_the_bound_as_json_is_bad_output() {
    let quotes = "\"".repeat(OUTPUT_BYTES_MAX - 1);
    assert_eq!(
        class_of(&single(Exit::Code(0), &quotes, "")),
        "Failed BadOutput"
    );
}

#[test]
fn an_exit_code_is_a_class_and_the_end_of_stderr_its_cause() {
    assert_eq!(
        single(Exit::Code(3), "x", "one\ntwo\n"),
        failed("Exit3", "one\ntwo")
    );
    assert_eq!(
        single(Exit::Code(3), "", ""),
        failed("Exit3", "exit status 3, without a word on stderr")
    );
    let long = format!("{}the end", "ä".repeat(3_000));
    let ItemReport::Failed(failure) = single(Exit::Code(1), "", &long) else {
        panic!("it failed");
    };
    assert!(failure.cause.ends_with("the end") && failure.cause.len() >= CAUSE_BYTES_MAX - 1);
}

#[test]
fn the_last_line_of_stderr_may_name_class_and_cause() {
    let said = "warming up\n{\"error\":\"NotAnImage\",\"cause\":\"no header\"}\n";
    assert_eq!(
        single(Exit::Code(1), "", said),
        failed("NotAnImage", "no header")
    );
    let not_last = "{\"error\":\"NotAnImage\"}\nbye\n";
    assert_eq!(
        class_of(&single(Exit::Code(1), "", not_last)),
        "Failed Exit1"
    );
    assert_eq!(class_of(&single(Exit::Code(0), "", said)), "Succeeded");
}

#[test]
fn a_death_by_signal_is_a_crash() {
    let cause = "killed by signal 11 (SIGSEGV): last words";
    assert_eq!(
        single(Exit::Signal(11), "", "last words\n"),
        failed("Crashed", cause)
    );
    let cause = "killed by signal 9 (out of memory?)";
    assert_eq!(single(Exit::Signal(9), "", ""), failed("Crashed", cause));
}

#[test]
fn what_a_stopped_call_finished_counts_and_the_rest_is_undecided() {
    let mut stop = ended(Exit::Signal(15), "", "");
    stop.stopped = true;
    assert_eq!(
        read_single(&stop, OutputMode::Keep),
        ItemReport::Undecided(stopped())
    );
    stop.exit = Exit::Code(0);
    assert_eq!(class_of(&read_single(&stop, OutputMode::Keep)), "Succeeded");
    stop.exit = Exit::Code(143);
    stop.stdout = b"{\"item\":\"1-2-0\"}\n{\"item\":\"1-".to_vec();
    let items = [item(0, "0"), item(1, "1")];
    let reports = read_batch(&stop, &[&items[0], &items[1]], OutputMode::Keep);
    assert_eq!(classes(&reports), ["Succeeded", "Undecided Crashed"]);
}

#[test]
fn a_batch_goes_in_as_a_line_an_item() {
    let items = [item(0, "{\n\"a\":\r\n1}"), item(1, "\"x\"")];
    let (run, items) = (RunId::new("r"), [&items[0], &items[1]]);
    let lines: String = batch_input(&run, &items).expect("both are JSON").collect();
    let expected = concat!(
        r#"{"item":"1-2-0","attempt":3,"idempotencyKey":"r/1-2-0","input":{ "a":  1}}"#,
        "\n",
        r#"{"item":"1-2-1","attempt":3,"idempotencyKey":"r/1-2-1","input":"x"}"#,
        "\n"
    );
    assert_eq!(lines, expected);
}

#[test]
fn a_batch_answers_a_line_an_item_in_any_order() {
    let said = concat!(
        "{\"item\":\"1-2-2\",\"error\":\"NotAnImage\",\"cause\":\"no header\"}\n",
        "\n",
        "{\"item\":\"1-2-0\",\"output\":{\"b\":[1]}}",
    );
    let reports = batch(Exit::Code(0), said);
    assert_eq!(reports[0], json("{\"b\":[1]}"));
    assert_eq!(reports[1], ItemReport::Succeeded(Output::None));
    assert_eq!(reports[2], failed("NotAnImage", "no header"));
}

#[test]
fn a_failed_batch_leaves_the_unanswered_undecided() {
    let said = "{\"item\":\"1-2-1\"}\n{\"item\":\"1-2";
    assert_eq!(
        classes(&batch(Exit::Code(4), said)),
        ["Undecided Exit4", "Succeeded", "Undecided Exit4"]
    );
    assert_eq!(
        classes(&batch(Exit::Signal(6), said)),
        ["Undecided Crashed", "Succeeded", "Undecided Crashed"]
    );
}

#[test]
fn junk_unknown_items_and_second_answers_make_silence_mean_nothing() {
    let answered = "{\"item\":\"1-2-1\",\"output\":1}\n";
    let second = "{\"item\":\"1-2-1\",\"output\":2}\n";
    let unknown = "{\"item\":\"9-9-9\"}\n";
    for junk in ["hello\n", "{}\n", "[1]\n", unknown, second] {
        let reports = batch(Exit::Code(0), &format!("{answered}{junk}"));
        assert_eq!(
            classes(&reports),
            ["Undecided BadOutput", "Succeeded", "Undecided BadOutput"],
            "{junk}"
        );
        assert_eq!(reports[1], json("1"));
    }
}

#[test]
fn the_failure_of_a_batch_of_one_is_known_of_its_item() {
    let item = item(0, "0");
    let reports = read_batch(&ended(Exit::Code(2), "", "no"), &[&item], OutputMode::Keep);
    assert_eq!(reports, [failed("Exit2", "no")]);
}

#[test]
fn too_little_memory_is_told_with_the_last_words() {
    let expected = failed(
        "OutOfMemory",
        "it needed more memory than it may have, and was ended: loading",
    );
    assert_eq!(single(Exit::OutOfMemory, "half", "loading\n"), expected);
    assert_eq!(
        classes(&batch(Exit::OutOfMemory, "")),
        ["Undecided OutOfMemory"; 3]
    );
}
