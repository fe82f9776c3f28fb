use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::core::id::{Epoch, Generation, ItemId, RunId};
use crate::core::item::Input;

fn call_of(inputs: &[&str]) -> Call {
    let item = |(index, input): (u8, &&str)| CallItem {
        id: ItemId {
            part: 3,
            number: 17,
            index,
        },
        attempt: 2,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(Input::Value((*input).into())),
    };
    Call {
        run: RunId::new("brave-heron-4f2a"),
        batch: inputs.len() > 1,
        items: (0..).zip(inputs).map(item).collect(),
        grace: Duration::from_secs(1),
    }
}

fn asked(call: &Call) -> Result<Invocation, Failure> {
    invocation(call, &call.items.iter().collect::<Vec<_>>())
}

fn answered(call: &Call, answer: &str) -> Vec<ItemReport> {
    let items: Vec<&CallItem> = call.items.iter().collect();
    read_answer(call, &items, answer.as_bytes(), OutputMode::Keep)
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn output(json: &str) -> ItemReport {
    ItemReport::Succeeded(Output::Json(json.into()))
}

const NOTHING: ItemReport = ItemReport::Succeeded(Output::None);

/// What became of each, in a word.
fn classes(reports: &[ItemReport]) -> Vec<String> {
    let class = |report: &ItemReport| match report {
        ItemReport::Succeeded(_) => "succeeded".to_owned(),
        ItemReport::Failed(failure) => failure.class.to_string(),
        ItemReport::Undecided(failure) => format!("undecided {}", failure.class),
    };
    reports.iter().map(class).collect()
}

#[test]
fn one_item_is_the_event_itself_and_the_context_says_who_it_is() {
    let asked = asked(&call_of(&[r#"{"a":1}"#])).expect("it fits");
    assert_eq!(asked.event, r#"{"a":1}"#);
    assert_eq!(
        read(&asked.context),
        json!({ "custom": {
            "TROMMEL_RUN": "brave-heron-4f2a",
            "TROMMEL_ITEM": "3-17-0",
            "TROMMEL_ATTEMPT": "2",
            "TROMMEL_EPOCH": "5",
            "TROMMEL_IDEMPOTENCY_KEY": "brave-heron-4f2a/3-17-0",
        }})
    );
}

#[test]
fn several_items_come_as_distributed_map_sends_them_with_their_names_beside() {
    let asked = asked(&call_of(&["1", r#""two""#])).expect("it fits");
    let event = read(&asked.event);
    assert_eq!(event["Items"], json!([1, "two"]));
    assert_eq!(event["BatchInput"]["run"], "brave-heron-4f2a");
    let second = json!({
        "item": "3-17-1",
        "attempt": 2,
        "epoch": "5",
        "idempotencyKey": "brave-heron-4f2a/3-17-1",
    });
    assert_eq!(event["BatchInput"]["items"][1], second);
    assert_eq!(
        read(&asked.context),
        json!({ "custom": { "TROMMEL_RUN": "brave-heron-4f2a" } })
    );
}

#[test]
fn a_batch_that_is_down_to_one_item_still_comes_as_a_batch() {
    let whole = call_of(&["1", "2"]);
    let half = invocation(&whole, &[&whole.items[1]]).expect("it fits");
    assert_eq!(read(&half.event)["Items"], json!([2]));
}

#[test]
fn an_event_beyond_the_bound_is_refused_unless_somebody_can_carry_it() {
    let long = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
    let call = call_of(&[&long]);
    let refused = asked(&call).expect_err("it is too long");
    assert_eq!(refused.class, Class::BadInput);
    let items: Vec<&CallItem> = call.items.iter().collect();
    let carried = unbounded_invocation(&call, &items).expect("it is JSON");
    assert_eq!(carried.event.len(), long.len());
    assert!(carried.excess().is_some());
}

#[test]
fn an_input_that_is_no_json_is_told_before_anything_is_sent() {
    let refused = asked(&call_of(&["1", "{"])).expect_err("it is no JSON");
    assert_eq!(refused.class, Class::BadInput);
    assert!(refused.cause.contains("3-17-1"), "{}", refused.cause);
}

#[test]
fn the_answer_to_one_item_is_its_output() {
    let call = call_of(&["1"]);
    assert_eq!(answered(&call, r#"{"b":2}"#), [output(r#"{"b":2}"#)]);
    assert_eq!(answered(&call, "null"), [NOTHING]);
    assert_eq!(answered(&call, ""), [NOTHING]);
    assert_eq!(classes(&answered(&call, "<html>")), ["BadOutput"]);
}

#[test]
fn the_failed_of_a_batch_are_named_and_the_others_succeeded() {
    let call = call_of(&["1", "2", "3"]);
    let answer = r#"{"batchItemFailures":[{"itemIdentifier":"3-17-1"},
        {"itemIdentifier":"3-17-2","errorType":"NotAnImage","errorMessage":"no header"}]}"#;
    let reports = answered(&call, answer);
    assert_eq!(
        classes(&reports),
        ["succeeded", "HandlerError", "NotAnImage"]
    );
    let ItemReport::Failed(failure) = &reports[2] else {
        panic!("it failed");
    };
    assert_eq!(failure.cause, "no header");
}

#[test]
fn a_batch_may_give_an_output_for_each_item_or_by_name() {
    let call = call_of(&["1", "2"]);
    assert_eq!(answered(&call, "[10,null]"), [output("10"), NOTHING]);
    let by_name = r#"{"outputs":{"3-17-1":20}}"#;
    assert_eq!(answered(&call, by_name), [NOTHING, output("20")]);
    for all_well in ["null", "", "true", r#"{"statusCode":200}"#] {
        assert_eq!(answered(&call, all_well), [NOTHING, NOTHING], "{all_well}");
    }
}

#[test]
fn what_a_batch_says_of_strangers_makes_the_rest_of_it_undecided() {
    let call = call_of(&["1", "2"]);
    for stranger in [
        r#"{"itemIdentifier":"9-9-9"}"#,
        r#"{"itemIdentifier":""}"#,
        "{}",
    ] {
        let answer =
            format!(r#"{{"batchItemFailures":[{{"itemIdentifier":"3-17-0"}},{stranger}]}}"#);
        let classes = classes(&answered(&call, &answer));
        assert_eq!(
            classes,
            ["HandlerError", "undecided BadOutput"],
            "{stranger}"
        );
    }
}

#[test]
fn an_answer_of_another_shape_says_nothing_of_a_batch() {
    let call = call_of(&["1", "2"]);
    for answer in ["[1]", "{", r#"{"batchItemFailures":7}"#] {
        let classes = classes(&answered(&call, answer));
        assert_eq!(
            classes,
            ["undecided BadOutput", "undecided BadOutput"],
            "{answer}"
        );
    }
}

#[test]
fn an_answer_beyond_the_bound_is_not_kept() {
    let call = call_of(&["1"]);
    let long = format!("\"{}\"", "x".repeat(OUTPUT_BYTES_MAX));
    assert_eq!(classes(&answered(&call, &long)), ["BadOutput"]);
}

#[test]
fn what_the_platform_reports_has_our_names_and_a_handlers_own_stay() {
    for (body, class) in [
        (
            r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 1 Error: Task timed out after 3.00 seconds"}"#,
            Class::Timeout,
        ),
        (
            r#"{"errorMessage":"2026-11-25T19:00:00.250Z 79b4f56e Task timed out after 3.00 seconds"}"#,
            Class::Timeout,
        ),
        (
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited with error: signal: killed"}"#,
            Class::OutOfMemory,
        ),
        (
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited with error: exit status 1"}"#,
            Class::Crashed,
        ),
        (
            r#"{"errorType":"Runtime.OutOfMemory","errorMessage":""}"#,
            Class::OutOfMemory,
        ),
        (
            r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":""}"#,
            Class::BadOutput,
        ),
        (
            r#"{"errorType":"KeyError","errorMessage":"Task timed out after 3.00 seconds, said a peer"}"#,
            Class::named("KeyError"),
        ),
        (r#"{"errorMessage":"nothing more"}"#, Class::HandlerError),
        ("no JSON at all", Class::HandlerError),
    ] {
        assert_eq!(
            read_error(body.as_bytes(), None, b"").class,
            class,
            "{body}"
        );
    }
    let log = b"REPORT RequestId: 1\tStatus: error\tError Type: Runtime.OutOfMemory\n";
    let exited =
        br#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited"}"#;
    assert_eq!(read_error(exited, None, log).class, Class::OutOfMemory);
    assert_eq!(
        read_error(b"", Some("Runtime.ExitError"), b"").class,
        Class::Crashed
    );
}

#[test]
fn a_cause_has_the_message_the_trace_and_the_end_of_the_log() {
    let body = br#"{"errorType":"ValueError","errorMessage":"no header","stackTrace":["  File \"app.py\", line 3\n"]}"#;
    let log = "START\n".repeat(CAUSE_BYTES_MAX) + "last words\n";
    let failure = read_error(body, None, log.as_bytes());
    assert!(
        failure
            .cause
            .starts_with("no header\n  File \"app.py\", line 3\nlog: ")
    );
    assert!(failure.cause.ends_with("START\nlast words"));
    assert!(failure.cause.len() <= CAUSE_BYTES_MAX);
}

#[test]
fn a_long_cause_leaves_room_for_the_log_and_is_cut_between_characters() {
    let told = with_log(
        &"é".repeat(CAUSE_BYTES_MAX),
        "ü".repeat(CAUSE_BYTES_MAX).as_bytes(),
    );
    assert!(told.len() <= CAUSE_BYTES_MAX);
    assert!(told.starts_with('é') && told.ends_with('ü'));
}
