//! The `lambda` executor against a server of our own: what is sent, and what becomes of answers that no emulator gives.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use trommel::adapters::aws::{Clients, Endpoint, LambdaExecutor};
use trommel::core::class::Class;
use trommel::core::id::{Epoch, Generation, ItemId, RunId};
use trommel::core::item::Input;
use trommel::core::job::{ExecutorSpec, LambdaSpec, LaneSpec, OutputMode};
use trommel::ports::Executor as _;
use trommel::ports::executor::{Call, CallItem, ItemReport, Output, Stop};

use crate::stub::{Reply, Stub};

async fn executor(stub: &Stub) -> (Clients, LambdaExecutor) {
    let clients = Clients::open(Endpoint::emulator(&stub.url)).await;
    let spec = LambdaSpec {
        function: "thumbnails:live".to_owned(),
    };
    let lane = LaneSpec {
        executor: ExecutorSpec::Lambda(spec.clone()),
        object_bytes_max: None,
        max_items_per_batch: 1,
        timeout: Some(Duration::from_secs(60)),
        grace: Duration::from_millis(50),
        output: OutputMode::Keep,
    };
    let executor = LambdaExecutor::new(&clients, &spec, &lane, None);
    (clients, executor)
}

fn call() -> Call {
    let item = CallItem {
        id: ItemId {
            part: 3,
            number: 17,
            index: 42,
        },
        attempt: 2,
        epoch: Epoch(5),
        generation: Generation(1),
        input: Arc::new(Input::Value(r#"{"a":1}"#.into())),
    };
    Call {
        run: RunId::new("brave-heron-4f2a"),
        items: vec![item],
        batch: false,
        grace: Duration::from_millis(50),
    }
}

#[tokio::test]
async fn a_function_is_asked_for_its_item_and_told_whose_it_is() {
    let log = "UkVQT1JUIFJlcXVlc3RJZDogMSBEdXJhdGlvbjogMS41MCBtcyBCaWxsZWQgRHVyYXRpb246IDIgbXMgTWVtb3J5IFNpemU6IDEyOCBNQgo=";
    let stub = Stub::start(move |_| Reply::Answer {
        status: 200,
        headers: vec![("x-amz-log-result", log.to_owned())],
        body: r#"{"b":2}"#.to_owned(),
    })
    .await;
    let (clients, executor) = executor(&stub).await;
    let report = executor.call(call(), Stop::new()).await;
    let output = Output::Json(r#"{"b":2}"#.into());
    assert_eq!(report.items, [ItemReport::Succeeded(output)]);

    let [asked] = &stub.asked()[..] else {
        panic!("it was asked once");
    };
    assert_eq!(
        asked.path,
        "/2015-03-31/functions/thumbnails%3Alive/invocations"
    );
    assert_eq!(asked.json(), json!({ "a": 1 }));
    assert_eq!(asked.header("x-amz-log-type"), Some("Tail"));
    let invocation = asked.header("x-amz-invocation-type");
    assert_eq!(invocation, Some("RequestResponse"));
    let context = asked.header("x-amz-client-context").expect("it is told");
    let context: serde_json::Value =
        serde_json::from_slice(&STANDARD.decode(context).expect("base64")).expect("JSON");
    let key = &context["custom"]["TROMMEL_IDEMPOTENCY_KEY"];
    assert_eq!(key, "brave-heron-4f2a/3-17-42");
    assert_eq!(context["custom"]["TROMMEL_ATTEMPT"], "2");

    let billed = clients.meter.snapshot().functions;
    assert_eq!((billed.invocations, billed.mb_millis), (1, 2 * 128));
}

#[tokio::test]
async fn a_lost_answer_leaves_its_item_undecided_and_is_never_asked_for_again() {
    let stub = Stub::start(|_| Reply::Lost).await;
    let (clients, executor) = executor(&stub).await;
    let report = executor.call(call(), Stop::new()).await;
    let [ItemReport::Undecided(failure)] = &report.items[..] else {
        panic!("nobody knows: {report:?}");
    };
    assert_eq!(failure.class, Class::Crashed);
    assert!(failure.cause.contains("may have run"), "{}", failure.cause);
    assert_eq!(stub.asked().len(), 1);
    assert_eq!(clients.meter.snapshot().functions.invocations, 1);
}

#[tokio::test]
async fn neither_errors_of_the_service_nor_throttles_are_tried_again_by_the_sdk() {
    for (status, code, reason) in [
        (500, "ServiceException", ""),
        (503, "ServiceUnavailable", ""),
        (
            429,
            "TooManyRequestsException",
            "FunctionInvocationRateLimitExceeded",
        ),
    ] {
        let stub = Stub::start(move |_| Reply::Answer {
            status,
            headers: vec![("x-amzn-errortype", code.to_owned())],
            body: json!({ "message": "Rate Exceeded.", "Reason": reason }).to_string(),
        })
        .await;
        let (_, executor) = executor(&stub).await;
        let report = executor.call(call(), Stop::new()).await;
        match &report.items[..] {
            [ItemReport::Failed(failure)] => {
                assert_eq!((status, &failure.class), (429, &Class::Throttled));
                assert!(failure.cause.contains(reason), "{}", failure.cause);
            }
            [ItemReport::Undecided(failure)] => {
                assert_eq!(failure.class, Class::Crashed, "{status}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stub.asked().len(), 1, "{status}");
    }
}
