//! No process is always on: router, worker and sweeper are Lambda functions, run by the host of handlers and fed by the
//! emulator's queues, as Lambda's own mapping of events would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trommel::adapters::aws::{Clients, SqsQueue};
use trommel::adapters::runtime_api::HandlerExecutor;
use trommel::core::id::{Epoch, Generation, PageId, RunId};
use trommel::core::item::Input;
use trommel::core::job::{HandlerSpec, OutputMode};
use trommel::ports::executor::{Call, CallItem, Executor as _, ItemReport, Output, Stop};
use trommel::ports::queue::Message;
use trommel::ports::{Queue, QueueError};

use crate::emulator_arms::emulator;
use crate::emulator_events::{Inbox, Sends, Window, total};
use crate::support::{figure, wait_until};

/// As long as Lambda's usual functions have.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Six times the function's, as AWS has it ("Using Lambda with Amazon SQS"), would wait too long here.
const VISIBILITY: Duration = Duration::from_secs(70);

/// A function of ours, in one of its roles.
pub(crate) struct Function {
    host: HandlerExecutor,
    timeout: Duration,
    calls: AtomicU64,
}

impl Function {
    pub(crate) fn new(emulator: &str, role: &str, job: &str) -> Self {
        Self::with(emulator, role, job, (TIMEOUT, &[]))
    }

    /// One that has so much time, and sees these variables too.
    pub(crate) fn with(
        emulator: &str,
        role: &str,
        job: &str,
        (timeout, more): (Duration, &[(&str, &str)]),
    ) -> Self {
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
            environment: variables.iter().chain(more).copied().map(owned).collect(),
            memory_bytes: None,
        };
        let host = HandlerExecutor::new(spec, Some(timeout), OutputMode::Keep, None);
        Self {
            host: host.expect("just built"),
            timeout,
            calls: AtomicU64::new(0),
        }
    }

    /// How often it was invoked.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
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
            grace: self.timeout,
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
pub(crate) async fn map_events(queue: &dyn Queue, function: &Function, done: &AtomicBool) {
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

/// The same for a lane's queue, which the router makes.
pub(crate) async fn map_hints(
    clients: &Clients,
    lane: &str,
    function: &Function,
    done: &AtomicBool,
) {
    let queue = loop {
        match SqsQueue::open(clients, lane).await {
            Ok(queue) => break queue,
            Err(QueueError::Refused(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => panic!("{error}"),
        }
    };
    map_events(&queue, function, done).await;
}

/// What a schedule does, only more often.
pub(crate) async fn sweep_on(sweeper: &Function, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if let Err(why) = sweeper.invoke(&json!({"source": "aws.scheduler"})).await {
            figure(&format!("a sweep failed, the next will do: {why}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The job of an inbox as functions carry it out: the handler is theirs.
pub(crate) fn job_of(inbox: &Inbox) -> String {
    let name = &inbox.bucket;
    let written = std::fs::read_to_string(inbox.place.path("job.toml")).expect("just written");
    let input = written
        .lines()
        .find(|line| line.contains("input ="))
        .expect("it has one");
    let out = inbox.place.path("out");
    let out = out.display();
    format!(
        "name = \"inbox\"\n{input}\nledger = \"dynamodb:{name}\"\nscratch = \"s3://{name}-scratch/parts\"\n\
         results = \"{out}\"\ntolerated_failure_count = 1\nmax_concurrency = 8\n"
    )
}

/// The windows, once so many objects are done with.
pub(crate) async fn windows_of(inbox: &Arc<Inbox>, objects: u64) -> Vec<Window> {
    let inbox = inbox.clone();
    let watch = move || {
        // The first function that is called makes the table.
        wait_until("there is a ledger", TIMEOUT, || {
            inbox.place.trommel(&["runs", "--json"]).code() == Some(0)
        });
        inbox.wait_until_done(objects)
    };
    let windows = tokio::task::spawn_blocking(watch).await;
    windows.expect("they are done in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_by_functions_alone() {
    const OBJECTS: u64 = 60;
    let Some(emulator) = emulator("functions").await else {
        return;
    };
    let inbox = Arc::new(Inbox::new(emulator, "functions", Sends::Bucket, "").await);
    let name = &inbox.bucket;
    let job = job_of(&inbox);
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
    let watch = async {
        let windows = windows_of(&inbox, OBJECTS).await;
        done.store(true, Ordering::Relaxed);
        windows
    };
    let work = map_hints(&inbox.clients, &lane, &worker, &done);
    let sweep = sweep_on(&sweeper, &done);
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
    figure(&format!(
        "functions alone: {OBJECTS} objects, {} calls of the router, {} of the worker, {} of the sweeper",
        router.calls(),
        worker.calls(),
        sweeper.calls()
    ));
}
