//! No process is always on: router, worker and sweeper are Lambda functions, run by the host of handlers and fed by the
//! emulator's queues, as Lambda's own mapping of events would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trommel::adapters::aws::SqsQueue;
use trommel::adapters::runtime_api::HandlerExecutor;
use trommel::core::id::{Epoch, Generation, PageId, RunId};
use trommel::core::item::Input;
use trommel::core::job::{HandlerSpec, OutputMode};
use trommel::ports::executor::{Call, CallItem, Executor as _, ItemReport, Output, Stop};
use trommel::ports::queue::Message;
use trommel::ports::{Queue, QueueError};

use crate::emulator_arms::emulator;
use crate::emulator_events::{Inbox, Sends, total};
use crate::support::{figure, wait_until};

/// As long as Lambda's usual functions have.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Six times the function's, as AWS has it ("Using Lambda with Amazon SQS"), would wait too long here.
const VISIBILITY: Duration = Duration::from_secs(70);

/// A function of ours, in one of its roles.
struct Function {
    host: HandlerExecutor,
    calls: AtomicU64,
}

impl Function {
    fn new(emulator: &str, role: &str, job: &str) -> Self {
        let variables = [
            ("TROMMEL_FUNCTION", role),
            ("TROMMEL_JOB", job),
            ("AWS_ENDPOINT_URL", emulator),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let spec = HandlerSpec {
            argv: vec![env!("CARGO_BIN_EXE_lambda-trommel").to_owned()],
            cwd: "/".into(),
            environment: variables.map(owned).into(),
            memory_bytes: None,
        };
        let host = HandlerExecutor::new(spec, Some(TIMEOUT), OutputMode::Keep, None);
        Self {
            host: host.expect("just built"),
            calls: AtomicU64::new(0),
        }
    }

    /// Invokes it; what it answers, or why not.
    async fn invoke(&self, event: &Value) -> Result<Value, String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let item = CallItem {
            id: PageId::new(0, 1).origin(0),
            attempt: 1,
            epoch: Epoch(1),
            generation: Generation(0),
            input: Arc::new(Input::Value(event.to_string().into())),
        };
        let call = Call {
            run: RunId::new("invocation"),
            items: vec![item],
            batch: false,
            grace: TIMEOUT,
        };
        match self.host.call(call, Stop::new()).await.items.remove(0) {
            ItemReport::Succeeded(Output::Json(json)) => {
                Ok(serde_json::from_str(&json).expect("JSON"))
            }
            ItemReport::Succeeded(Output::None) => Ok(Value::Null),
            ItemReport::Failed(failure) | ItemReport::Undecided(failure) => {
                Err(failure.to_string())
            }
        }
    }
}

fn event_of(messages: &[Message]) -> Value {
    let record = |message: &Message| {
        json!({
            "messageId": message.id,
            "receiptHandle": message.handle.0,
            "body": message.body,
            "attributes": {
                "SentTimestamp": message.sent.0.to_string(),
                "ApproximateReceiveCount": message.receive_count.to_string(),
            },
            "eventSource": "aws:sqs",
        })
    };
    json!({ "Records": messages.iter().map(record).collect::<Vec<_>>() })
}

/// What Lambda's mapping of events does: receives, invokes, deletes what did not fail.
async fn map_events(queue: &dyn Queue, function: &Function, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let messages = queue
            .receive(10, Duration::from_secs(1), VISIBILITY)
            .await
            .expect("it answers");
        if messages.is_empty() {
            continue;
        }
        let answer = match function.invoke(&event_of(&messages)).await {
            Ok(answer) => answer,
            Err(why) => {
                figure(&format!(
                    "an invocation failed, its messages come again: {why}"
                ));
                continue;
            }
        };
        let failed: Vec<&str> = answer["batchItemFailures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|failure| failure["itemIdentifier"].as_str())
            .collect();
        let spent = messages
            .iter()
            .filter(|message| !failed.contains(&message.id.as_str()));
        let spent: Vec<_> = spent.map(|message| message.handle.clone()).collect();
        if !spent.is_empty() {
            queue.delete(spent).await.expect("it answers");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_by_functions_alone() {
    const OBJECTS: u64 = 60;
    let Some(emulator) = emulator("functions").await else {
        return;
    };
    let inbox = Arc::new(Inbox::new(emulator, "functions", Sends::Bucket, "").await);
    let name = &inbox.bucket;
    let written = std::fs::read_to_string(inbox.place.path("job.toml")).expect("just written");
    let input = written
        .lines()
        .find(|line| line.contains("input ="))
        .expect("it has one");
    let out = inbox.place.path("out");
    let job = format!(
        "name = \"inbox\"\n{input}\nledger = \"dynamodb:{name}\"\nscratch = \"s3://{name}-scratch/parts\"\n\
         results = {out:?}\ntolerated_failure_count = 1\nmax_concurrency = 8\n"
    );
    let [router, worker, sweeper] =
        ["router", "function", "sweeper"].map(|role| Function::new(emulator.url(), role, &job));
    for number in 0..OBJECTS {
        // One of them makes the handler panic.
        let bytes = vec![
            b'x';
            if number == 17 {
                13
            } else {
                100 + number as usize
            }
        ];
        inbox.put(&format!("in/{number}"), &bytes).await;
    }
    let done = AtomicBool::new(false);
    let lane = format!("{name}-inbox-function");
    let work = async {
        let queue = loop {
            match SqsQueue::open(&inbox.clients, &lane).await {
                Ok(queue) => break queue,
                // The router makes it.
                Err(QueueError::Refused(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(error) => panic!("{error}"),
            }
        };
        map_events(&queue, &worker, &done).await;
    };
    let sweep = async {
        while !done.load(Ordering::Relaxed) {
            if let Err(why) = sweeper.invoke(&json!({"source": "aws.scheduler"})).await {
                figure(&format!("a sweep failed, the next will do: {why}"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let watch = async {
        let waiting = inbox.clone();
        let watch = move || {
            // The first function that is called makes the table.
            wait_until("there is a ledger", TIMEOUT, || {
                waiting.place.trommel(&["runs", "--json"]).code() == Some(0)
            });
            waiting.wait_until_done(OBJECTS)
        };
        let windows = tokio::task::spawn_blocking(watch).await;
        let windows = windows.expect("they are done in time");
        done.store(true, Ordering::Relaxed);
        windows
    };
    let take_in = map_events(&*inbox.queue, &router, &done);
    let (windows, (), (), ()) = tokio::join!(watch, take_in, work, sweep);
    assert_eq!(
        total(&windows, |window| window.item_counts.succeeded),
        OBJECTS - 1
    );
    assert_eq!(total(&windows, |window| window.item_counts.failed), 1);
    let sizes: BTreeMap<String, u64> = inbox
        .records(&windows, "SUCCEEDED")
        .iter()
        .map(|record| {
            let output = &record["output"];
            (
                output["key"].to_string(),
                output["size"].as_u64().expect("a size"),
            )
        })
        .collect();
    assert_eq!(sizes.len() as u64, OBJECTS - 1);
    inbox.audit(&windows);
    inbox.is_drained().await;
    let calls = |function: &Function| function.calls.load(Ordering::Relaxed);
    figure(&format!(
        "functions alone: {OBJECTS} objects, {} calls of the router, {} of the worker, {} of the sweeper",
        calls(&router),
        calls(&worker),
        calls(&sweeper)
    ));
}
