use std::sync::Arc;

use super::testing::{call_of, value};
use super::*;
use crate::adapters::aws::Endpoint;
use crate::adapters::invocation::EVENT_BYTES_MAX;
use crate::adapters::memory::MemoryObjects;
use crate::core::job::ExecutorSpec;
use crate::ports::executor::ItemReport;

/// Nobody listens there: what is not sent is told apart from what is.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn executor(timeout: Duration, pointers: Option<Pointers>) -> LambdaExecutor {
    let clients = Clients::open(Endpoint::emulator(NOWHERE)).await;
    let spec = LambdaSpec {
        function: "thumbnails".to_owned(),
    };
    let lane = LaneSpec {
        executor: ExecutorSpec::Lambda(spec.clone()),
        object_bytes_max: None,
        max_items_per_batch: 1,
        timeout: Some(timeout),
        grace: Duration::from_secs(1),
        output: OutputMode::Keep,
    };
    LambdaExecutor::new(&clients, &spec, &lane, pointers)
}

fn failure(report: &CallReport) -> &Failure {
    match &report.items[..] {
        [ItemReport::Failed(failure) | ItemReport::Undecided(failure)] => failure,
        other => panic!("one failure, not {other:?}"),
    }
}

#[tokio::test]
async fn an_event_too_long_to_be_sent_fails_with_a_way_out_where_there_is_no_scratch_in_s3() {
    let executor = executor(Duration::from_secs(60), None).await;
    let long = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
    let report = executor
        .call(call_of(vec![value(&long)]), Stop::new())
        .await;
    let failure = failure(&report);
    assert_eq!(failure.class, Class::BadInput);
    assert!(failure.cause.contains("scratch = "), "{}", failure.cause);
}

#[tokio::test]
async fn an_event_too_long_to_be_sent_goes_by_pointer_where_there_is_scratch_in_s3() {
    let pointers = Pointers::new(Arc::new(MemoryObjects::new()), "results", Vec::new());
    let executor = executor(Duration::from_secs(60), Some(pointers)).await;
    let call = call_of(vec![value(&format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX)))]);
    let items: Vec<&CallItem> = call.items.iter().collect();
    let sent = executor.invocation(&call, &items).await.expect("it is put");
    assert!(
        sent.event.starts_with(r#"{"InputPointer":"#),
        "{}",
        sent.event
    );
    assert!(sent.context.contains("TROMMEL_ITEM"), "{}", sent.context);
}

#[tokio::test]
async fn a_function_that_cannot_be_reached_is_unavailable_and_not_billed() {
    let executor = executor(Duration::from_secs(60), None).await;
    let report = executor.call(call_of(vec![value("1")]), Stop::new()).await;
    assert_eq!(failure(&report).class, Class::Unavailable);
    assert_eq!(executor.meter.snapshot().functions, Functions::default());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_ramp_ends_when_it_is_stopped_and_goes_back_before_its_time_is_over()
 {
    let executor = executor(Duration::from_secs(60), None).await;
    for _ in 0..ramp::STEP {
        assert_eq!(executor.begin(), Ok(()));
    }
    let stop = Stop::new();
    stop.cancel();
    let stopped = executor.call(call_of(vec![value("1")]), stop).await;
    assert!(matches!(stopped.items[..], [ItemReport::Undecided(_)]));

    let place = executor.place(&Stop::new()).await;
    assert!(place.is_ok(), "the next window has room");

    // Half of the timeout is less than the rest of a window.
    let hasty = self::executor(Duration::from_secs(10), None).await;
    for _ in 0..ramp::STEP {
        assert_eq!(hasty.begin(), Ok(()));
    }
    let report = hasty.call(call_of(vec![value("1")]), Stop::new()).await;
    assert_eq!(failure(&report).class, Class::Throttled);
}
