//! Real processes on the Runtime API: every promise of the executor, against a runtime of a few lines of Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::*;
use crate::core::id::{Epoch, Generation, PageId, RunId};
use crate::core::item::Input;
use crate::ports::executor::Output;

/// Nothing here should take so long.
const PATIENCE: Duration = Duration::from_secs(30);

const MEMORY_BYTES: u64 = 100 << 20;

fn spec(start: &[(&str, &str)]) -> HandlerSpec {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/adapters/runtime_api/tests/runtime.py"
    );
    HandlerSpec {
        argv: ["python3", script].map(str::to_owned).to_vec(),
        cwd: PathBuf::from("/"),
        environment: start
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        memory_bytes: Some(MEMORY_BYTES),
    }
}

fn handler(start: &[(&str, &str)]) -> HandlerExecutor {
    HandlerExecutor::new(spec(start), Some(PATIENCE), OutputMode::Keep, None)
        .expect("python3 is there")
}

fn item(index: u8, event: &Value) -> CallItem {
    CallItem {
        id: PageId::new(0, 1).origin(index),
        attempt: 2,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(Input::Value(event.to_string().into())),
    }
}

fn call_of(items: Vec<CallItem>) -> Call {
    Call {
        run: RunId::new("run-1"),
        batch: items.len() > 1,
        items,
        grace: PATIENCE,
    }
}

async fn reports_of(executor: &HandlerExecutor, call: Call) -> Vec<ItemReport> {
    let called = executor.call(call, Stop::new());
    let report = tokio::time::timeout(PATIENCE, called).await;
    report.expect("no call hangs").items
}

async fn report_of(executor: &HandlerExecutor, event: &Value) -> ItemReport {
    let mut reports = reports_of(executor, call_of(vec![item(0, event)])).await;
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

/// The output of a call that must succeed.
async fn output_of(executor: &HandlerExecutor, event: &Value) -> Value {
    match report_of(executor, event).await {
        ItemReport::Succeeded(Output::Json(json)) => serde_json::from_str(&json).expect("JSON"),
        other => panic!("{event} came to {other:?}"),
    }
}

/// The class and cause of a call that must fail.
async fn failure_of_call(executor: &HandlerExecutor, event: &Value) -> (String, String) {
    match report_of(executor, event).await {
        ItemReport::Failed(failure) => (failure.class.to_string(), failure.cause),
        other => panic!("{event} came to {other:?}"),
    }
}

#[tokio::test]
async fn a_function_gets_the_item_as_its_event_and_who_it_is_as_its_context() {
    let executor = handler(&[]);
    let said = output_of(&executor, &json!({"name": "ä"})).await;
    assert_eq!(said["event"], json!({"name": "ä"}));
    let context = json!({
        "TROMMEL_RUN": "run-1",
        "TROMMEL_ITEM": PageId::new(0, 1).origin(0).to_string(),
        "TROMMEL_ATTEMPT": "2",
        "TROMMEL_EPOCH": "5",
        "TROMMEL_IDEMPOTENCY_KEY": format!("run-1/{}", PageId::new(0, 1).origin(0)),
    });
    assert_eq!(said["context"], context);
    let left = said["left"].as_u64().expect("a number");
    assert!(left.abs_diff(PATIENCE.as_secs()) <= 2, "{left} s were left");
}

#[tokio::test]
async fn a_process_is_started_once_and_asked_again() {
    let executor = handler(&[]);
    let first = output_of(&executor, &json!({})).await;
    let second = output_of(&executor, &json!({})).await;
    assert_eq!(
        (&second["pid"], &second["calls"]),
        (&first["pid"], &json!(2))
    );
    assert_eq!(executor.cold_starts().count, 1);
}

#[tokio::test]
async fn calls_at_one_time_have_a_process_each() {
    let executor = handler(&[]);
    let sleep = json!({"do": "sleep", "seconds": 0.5});
    let said = futures_util::future::join_all((0..4).map(|_| output_of(&executor, &sleep))).await;
    let processes: BTreeSet<u64> = said.iter().filter_map(|one| one["pid"].as_u64()).collect();
    assert_eq!(processes.len(), 4);
    assert_eq!(executor.cold_starts().count, 4);
    output_of(&executor, &json!({})).await;
    assert_eq!(executor.cold_starts().count, 4);
}

#[tokio::test]
async fn an_error_keeps_its_type_its_message_its_trace_and_its_log() {
    let executor = handler(&[]);
    let (class, cause) = failure_of_call(&executor, &json!({"do": "error"})).await;
    assert_eq!(class, "NotAnImage");
    assert_eq!(
        cause,
        "it has no header\n  File app.py, line 3\nlog: about to fail"
    );
    // It is asked again: an error is no crash.
    output_of(&executor, &json!({})).await;
    assert_eq!(executor.cold_starts().count, 1);
}

#[tokio::test]
async fn a_process_that_dies_fails_its_call_alone() {
    let executor = handler(&[]);
    let (class, cause) = failure_of_call(&executor, &json!({"do": "exit"})).await;
    assert_eq!(class, "Crashed");
    assert_eq!(
        cause,
        "it exited with status 3 without an answer\nlog: out of luck"
    );
    let (class, cause) = failure_of_call(&executor, &json!({"do": "kill"})).await;
    assert_eq!(class, "Crashed");
    assert!(cause.contains("signal 11"), "{cause}");
    output_of(&executor, &json!({})).await;
    assert_eq!(executor.cold_starts().count, 3);
}

#[tokio::test]
async fn too_much_memory_ends_the_process_wherever_it_is_held() {
    let executor = handler(&[]);
    for what in ["eat", "child-eats"] {
        let event = json!({"do": what, "bytes": 3 * MEMORY_BYTES});
        let (class, cause) = failure_of_call(&executor, &event).await;
        assert_eq!(class, "OutOfMemory", "{what}: {cause}");
        assert!(cause.contains("than the 104857600 it may"), "{cause}");
    }
}

#[test]
fn who_held_no_more_than_it_may_is_not_to_blame_for_want_of_memory() {
    let told = |why| {
        let failure = failure_of(&Death {
            why,
            log: Vec::new(),
            was_asked: true,
        });
        (failure.class, failure.cause)
    };
    let (class, cause) = told(process::Why::OverItsBound { bytes_max: 1024 });
    assert_eq!(class, Class::OutOfMemory);
    assert!(
        cause.contains("more bytes of memory than the 1024 it may"),
        "{cause}"
    );
    let (class, cause) = told(process::Why::NoneLeft);
    assert_eq!(class, Class::Crashed);
    assert!(cause.contains("no memory was left"), "{cause}");
}

#[tokio::test]
async fn what_is_no_json_or_too_long_is_a_bad_output() {
    let executor = handler(&[]);
    let (class, cause) = failure_of_call(&executor, &json!({"do": "junk"})).await;
    assert_eq!(
        (class.as_str(), cause.as_str()),
        ("BadOutput", "its answer is no JSON: this is no JSON")
    );
    let (class, _) = failure_of_call(&executor, &json!({"do": "long"})).await;
    assert_eq!(class, "BadOutput");
}

#[tokio::test]
async fn an_answer_may_be_streamed() {
    let said = output_of(&handler(&[]), &json!({"do": "stream"})).await;
    assert_eq!(said, json!({"half": 1}));
}

#[tokio::test]
async fn an_answer_to_another_request_is_refused() {
    let said = output_of(&handler(&[]), &json!({"do": "wrong-id"})).await;
    assert_eq!(said, json!({"status": 400}));
}

#[tokio::test]
async fn a_handler_that_does_not_start_is_unavailable_and_says_why() {
    let event = json!({});
    let (class, cause) = failure_of_call(&handler(&[("START", "error")]), &event).await;
    assert_eq!(class, "Unavailable");
    assert!(
        cause.ends_with("does not start: Runtime.ImportModuleError: no module named app"),
        "{cause}"
    );
    let (class, cause) = failure_of_call(&handler(&[("START", "exit")]), &event).await;
    assert_eq!(class, "Unavailable");
    let why = "does not start: it exited with status 7 before it asked for work\nlog: cannot find its model";
    assert!(cause.ends_with(why), "{cause}");
}

#[tokio::test]
async fn a_batch_comes_as_distributed_map_sends_it() {
    let executor = handler(&[]);
    let items = vec![item(0, &json!({"one": 1})), item(1, &json!({"two": 2}))];
    let batch = invocation::invocation(&call_of(items.clone()), &items.iter().collect::<Vec<_>>());
    let event: Value = serde_json::from_str(&batch.expect("short").event).expect("JSON");
    assert_eq!(event["Items"], json!([{"one": 1}, {"two": 2}]));
    // The runtime's answer is an object that names no item: all succeeded.
    let reports = reports_of(&executor, call_of(items)).await;
    assert_eq!(reports, vec![ItemReport::Succeeded(Output::None); 2]);
}

#[tokio::test]
async fn the_death_of_a_batch_leaves_its_items_undecided() {
    let exits = json!({"do": "exit"});
    let reports = reports_of(
        &handler(&[]),
        call_of(vec![item(0, &exits), item(1, &exits)]),
    )
    .await;
    let [ItemReport::Undecided(first), ItemReport::Undecided(second)] = &reports[..] else {
        panic!("it came to {reports:?}");
    };
    assert_eq!((first, first.class.as_str()), (second, "Crashed"));
}

/// A call whose handler sleeps for long, stopped after a moment; what it came to, and how long that took.
async fn stopped(
    executor: &HandlerExecutor,
    seconds: f64,
    grace: Duration,
) -> (ItemReport, Duration) {
    let stop = Stop::new();
    let mut call = call_of(vec![item(0, &json!({"do": "sleep", "seconds": seconds}))]);
    call.grace = grace;
    output_of(executor, &json!({})).await;
    let begun = Instant::now();
    let called = executor.call(call, stop.clone());
    let end = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(called, end);
    (report.items[0].clone(), begun.elapsed())
}

#[tokio::test]
async fn a_stopped_call_may_answer_within_its_grace() {
    let executor = handler(&[]);
    let (report, _) = stopped(&executor, 1.0, PATIENCE).await;
    assert!(matches!(report, ItemReport::Succeeded(_)), "{report:?}");
    assert_eq!(executor.cold_starts().count, 1);
}

#[tokio::test]
async fn a_stopped_call_ends_with_its_grace_and_its_process_too() {
    let executor = handler(&[]);
    let process = output_of(&executor, &json!({})).await["pid"]
        .as_i64()
        .expect("a number");
    let (report, took) = stopped(&executor, 1000.0, Duration::from_millis(300)).await;
    assert!(matches!(report, ItemReport::Undecided(_)), "{report:?}");
    assert!(took < PATIENCE / 2, "{took:?}");
    until_gone(process).await;
}

#[tokio::test]
async fn a_call_that_runs_too_long_is_ended_and_the_time_its_process_starts_is_no_part_of_it() {
    let timeout = Some(Duration::from_millis(300));
    let executor = handler(&[("START_SECONDS", "1")]).with(timeout, OutputMode::Keep);
    let said = output_of(&executor, &json!({})).await;
    let process = said["pid"].as_i64().expect("a number");
    assert!(executor.cold_starts().median > Duration::from_secs(1));
    let long = json!({"do": "sleep", "seconds": 1000});
    let (class, cause) = failure_of_call(&executor, &long).await;
    assert_eq!(
        (class.as_str(), cause.as_str()),
        ("Timeout", "ran longer than 300ms\nlog: goes to sleep")
    );
    until_gone(process).await;
}

#[tokio::test]
async fn nobody_is_left_when_the_executor_is_gone() {
    let executor = handler(&[]);
    let process = output_of(&executor, &json!({})).await["pid"]
        .as_i64()
        .expect("a number");
    drop(executor);
    until_gone(process).await;
}

#[tokio::test]
async fn a_process_that_died_while_it_was_idle_fails_nobody() {
    let executor = handler(&[]);
    let process = output_of(&executor, &json!({})).await["pid"]
        .as_i64()
        .expect("a number");
    kill(
        Pid::from_raw(process as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it is there");
    // The kernel takes its time with a signal; what dies with an event in its hands fails it.
    until_dead(process).await;
    output_of(&executor, &json!({})).await;
    assert_eq!(executor.cold_starts().count, 2);
}

#[tokio::test]
async fn a_handler_whose_processes_leave_before_they_take_anything_is_given_up() {
    let (class, cause) = failure_of_call(&handler(&[("START", "leave")]), &json!({})).await;
    // A process may have been handed the event on its way out.
    assert!(
        class == "Unavailable" || class == "Crashed",
        "{class}: {cause}"
    );
}

/// Returns when it has ended, whether or not anybody has taken its exit status.
async fn until_dead(process: i64) {
    let begun = Instant::now();
    let state = || std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state stands behind the name, which is in brackets (proc_pid_stat(5)).
    let is_dead = |stat: &str| {
        stat.rsplit(") ")
            .next()
            .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    };
    while !is_dead(&state()) {
        assert!(begun.elapsed() < PATIENCE, "process {process} lives");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_gone(process: i64) {
    let begun = Instant::now();
    while kill(Pid::from_raw(process as i32), None).is_ok() {
        assert!(
            begun.elapsed() < PATIENCE,
            "process {process} is still there"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_program_that_is_not_there_is_known_at_once() {
    let spec = HandlerSpec {
        argv: vec!["no-such-program-here".to_owned()],
        environment: BTreeMap::new(),
        ..spec(&[])
    };
    assert!(HandlerExecutor::new(spec, None, OutputMode::Keep, None).is_err());
}
