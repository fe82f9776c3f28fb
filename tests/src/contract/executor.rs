//! The contract of [`Executor`]. What is called understands one small language: each item is an object whose `do` says
//! `echo` (the output is `{"n": …}`), `fail` (as `NotGood`, because `as asked`), `die` or `sleep`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use trommel::core::class::Failure;
use trommel::core::id::{Epoch, Generation, PageId, RunId};
use trommel::core::item::Input;
use trommel::ports::Executor;
use trommel::ports::executor::{Call, CallItem, ItemReport, Output, Stop};
use trommel::ports::runtime::Clock;

/// What a stopped call gets to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// So much later than its grace a call may end: a container is killed, and its engine says so.
const SLACK: Duration = Duration::from_secs(20);

fn item(index: u8, event: &Value) -> CallItem {
    CallItem {
        id: PageId::new(0, 1).origin(index),
        attempt: 1,
        epoch: Epoch(1),
        generation: Generation(0),
        input: Arc::new(Input::Value(event.to_string().into())),
    }
}

/// A call of a run of its own: executors may know again what they did before.
fn call(events: &[Value], clock: &dyn Clock) -> Call {
    let mut items = Vec::new();
    for (index, event) in (0..).zip(events) {
        items.push(item(index, event));
    }
    Call {
        run: RunId::new(format!(
            "contract-{:x}",
            clock
                .now()
                .0
                .wrapping_mul(31)
                .wrapping_add(clock.tick().0 as i64)
        )),
        batch: items.len() > 1,
        items,
        grace: GRACE,
    }
}

fn echo(n: u64) -> Value {
    json!({"do": "echo", "n": n})
}

fn output(report: &ItemReport) -> Value {
    match report {
        ItemReport::Succeeded(Output::Json(json)) => {
            serde_json::from_str(json).expect("an output is JSON")
        }
        other => panic!("it came to {other:?}"),
    }
}

/// The output is what the handler said.
pub async fn an_item_is_answered_with_its_output(executor: &dyn Executor, clock: &dyn Clock) {
    let report = executor.call(call(&[echo(7)], clock), Stop::new()).await;
    assert_eq!(report.items.len(), 1);
    assert_eq!(output(&report.items[0]), json!({"n": 7}));
}

/// What an item that must fail comes to.
pub async fn failure_of_one_that_fails(executor: &dyn Executor, clock: &dyn Clock) -> Failure {
    let event = json!({"do": "fail", "n": 1});
    let mut report = executor.call(call(&[event], clock), Stop::new()).await;
    match report.items.pop() {
        Some(ItemReport::Failed(failure)) => failure,
        other => panic!("it came to {other:?}"),
    }
}

/// A failure that the handler names keeps its name and its cause.
pub async fn a_failure_has_its_name_and_its_cause(executor: &dyn Executor, clock: &dyn Clock) {
    let failure = failure_of_one_that_fails(executor, clock).await;
    assert_eq!(failure.class.as_str(), "NotGood");
    assert!(failure.cause.contains("as asked"), "{failure}");
}

/// A handler that dies fails its call, and the next one is carried out.
pub async fn a_death_is_no_success_and_the_next_call_goes_on(
    executor: &dyn Executor,
    clock: &dyn Clock,
) {
    let report = executor
        .call(call(&[json!({"do": "die", "n": 1})], clock), Stop::new())
        .await;
    assert!(
        !matches!(report.items[..], [ItemReport::Succeeded(_)]),
        "{report:?}"
    );
    assert_eq!(report.items.len(), 1);
    an_item_is_answered_with_its_output(executor, clock).await;
}

/// Of a batch each item has a report, in the order of the call.
pub async fn a_batch_has_a_report_for_each_item_in_their_order(
    executor: &dyn Executor,
    clock: &dyn Clock,
) {
    let events = [echo(3), json!({"do": "fail", "n": 4}), echo(5)];
    let report = executor.call(call(&events, clock), Stop::new()).await;
    assert_eq!(report.items.len(), 3);
    assert_eq!(output(&report.items[0]), json!({"n": 3}));
    let ItemReport::Failed(failure) = &report.items[1] else {
        panic!("it came to {report:?}");
    };
    assert_eq!(failure.class.as_str(), "NotGood");
    assert_eq!(output(&report.items[2]), json!({"n": 5}));
}

/// Calls at one time do not meet.
pub async fn calls_at_one_time_have_their_own_outputs(executor: &dyn Executor, clock: &dyn Clock) {
    let calls = (0..6).map(|n| async move {
        let mut call = call(&[echo(n)], clock);
        call.run = RunId::new(format!("{}-{n}", call.run));
        output(&executor.call(call, Stop::new()).await.items[0])
    });
    let outputs = join_all(calls).await;
    let wanted: Vec<Value> = (0..6).map(|n| json!({"n": n})).collect();
    assert_eq!(outputs, wanted);
}

/// After its stop a call ends within its grace, and says nothing that it does not know.
pub async fn a_stopped_call_ends_within_its_grace(executor: &dyn Executor, clock: &dyn Clock) {
    let stop = Stop::new();
    let called = executor.call(call(&[json!({"do": "sleep", "n": 1})], clock), stop.clone());
    let stopping = async {
        clock.sleep(Duration::from_secs(2)).await;
        stop.cancel();
        clock.tick()
    };
    let (report, stopped) = join(called, stopping).await;
    let took = clock.tick().since(stopped);
    assert!(took <= GRACE + SLACK, "{took:?}");
    assert!(
        matches!(report.items[..], [ItemReport::Undecided(_)]),
        "{report:?}"
    );
}
