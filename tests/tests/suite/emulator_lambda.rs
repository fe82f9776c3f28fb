//! Functions on an emulator: what their answers, errors, limits and logs come to, in the real program.
//!
//! The functions are Python, and run on this machine as MiniStack's processes: they note their starts in the place's log.
//! What no emulator does (lost answers, the client context) is in `stub_lambda`.

use std::time::Duration;

use trommel::adapters::aws::Clients;
use trommel_localstack::Emulator;

use crate::emulator_arms::{emulator_with_functions, fresh};
use crate::support::{Done, Place};

/// The ledger stays here: only the calls go out.
const LEDGER: &str = "sqlite:.trommel/ledger.db";

/// A function is ended after so many seconds.
const FUNCTION_SECONDS: i32 = 20;

/// A place whose job calls a function.
struct Stand {
    emulator: &'static Emulator,
    clients: Clients,
    place: Place,
    function: String,
}

impl Stand {
    /// None, said loudly, if nothing is to be played on; a failure if nothing can be.
    async fn new(what: &str) -> Option<Self> {
        let emulator = emulator_with_functions(what).await?;
        let variables = [
            ("AWS_ENDPOINT_URL", emulator.url()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        Some(Self {
            emulator,
            clients: emulator.clients().await,
            place: Place::elsewhere(LEDGER, &variables),
            function: fresh("function"),
        })
    }

    /// Makes the function. `note(word, value)` adds a line to the place's log.
    async fn handles(&self, body: &str, timeout_seconds: i32) {
        let log = self.place.path("children.log");
        let source = format!(
            "import json, time\n\ndef note(*words):\n    with open({log:?}, 'a') as log:\n        log.write(' '.join(map(str, words)) + '\\n')\n\n{body}\n",
            log = log.display().to_string(),
        );
        let (clients, name) = (&self.clients, &self.function);
        let made = self
            .emulator
            .function(clients, name, &source, timeout_seconds);
        made.await.expect("a new function");
    }

    fn job(&self, above: &str, lane: &str) {
        let function = &self.function;
        let job = format!(
            r#"
            name = "function"
            ledger = "{LEDGER}"
            results = "out"
            {above}
            [function]
            lambda = "{function}"
            {lane}
            [[retry]]
            errors = ["NotAnImage", "HandlerError", "Timeout", "Unavailable"]
            max_attempts = 0
            "#
        );
        self.place.write("job.toml", job);
    }

    fn run(&self) -> Done {
        self.place.trommel(&["run", "job.toml", "--json"])
    }

    /// The class and cause of the one item that failed.
    fn failure(&self) -> (String, String) {
        let failed = self.place.items(&[]);
        let [item] = &failed[..] else {
            panic!("one item, not {failed:?}");
        };
        let (class, cause) = (item.class.clone(), item.cause.clone());
        (class.unwrap_or_default(), cause.unwrap_or_default())
    }
}

#[tokio::test]
async fn a_whole_job_counts_exactly_what_its_function_said_of_each_item() {
    let Some(stand) = Stand::new("partial failures of a function").await else {
        return;
    };
    stand
        .handles(
            r#"
def handle(event, context):
    failed = []
    outputs = {}
    for who, item in zip(event["BatchInput"]["items"], event["Items"]):
        note("start", item)
        if item % 10 == 3:
            failed.append({"itemIdentifier": who["item"], "errorType": "NotAnImage", "errorMessage": "no header"})
        else:
            outputs[who["item"]] = {"square": item * item}
    return {"batchItemFailures": failed, "outputs": outputs}
"#,
            FUNCTION_SECONDS,
        )
        .await;
    stand.job(
        r#"input = { range = "0..100" }
        max_concurrency = 4
        tolerated_failure_count = 10"#,
        "max_items_per_batch = 7",
    );
    let done = stand.run().exits(3);
    let said: serde_json::Value = done.json();
    let calls = said["aws"]["functions"]["invocations"].as_u64();
    // A page of 100 goes in 15 calls of up to 7.
    assert_eq!(calls, Some(15), "{said}");
    let status = stand.place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 90, 10, 0, 0, 0]);
    let starts = stand.place.log().tally("start");
    assert_eq!(starts.len(), 100);
    assert!(starts.values().all(|times| *times == 1), "{starts:?}");
    for record in stand.place.results("SUCCEEDED") {
        let value = record["input"].as_u64().expect("a number");
        assert_eq!(record["output"]["square"], value * value);
    }
    for item in stand.place.items(&["--state", "failed"]) {
        assert_eq!(item.class.as_deref(), Some("NotAnImage"));
        assert_eq!(item.cause.as_deref(), Some("no header"));
    }
    stand.place.audit();
}

#[tokio::test]
async fn a_function_that_raises_fails_its_item_with_the_end_of_its_log_as_evidence() {
    let Some(stand) = Stand::new("errors of a function").await else {
        return;
    };
    stand
        .handles(
            "def handle(event, context):\n    print('reading the header of', event)\n    raise ValueError('no header')",
            FUNCTION_SECONDS,
        )
        .await;
    stand.job(r#"input = { inline = ["one"] }"#, "");
    stand.run().exits(1);
    let (_, cause) = stand.failure();
    assert!(cause.starts_with("no header"), "{cause}");
    assert!(cause.contains("reading the header of one"), "{cause}");
}

#[tokio::test]
async fn a_batch_that_raises_is_halved_until_the_poison_item_stands_alone() {
    let Some(stand) = Stand::new("a poison item of a function").await else {
        return;
    };
    stand
        .handles(
            r#"
def handle(event, context):
    if 5 in event["Items"]:
        raise ValueError("five")
    for item in event["Items"]:
        note("end", item)
"#,
            FUNCTION_SECONDS,
        )
        .await;
    stand.job(
        r#"input = { range = "0..8" }
        tolerated_failure_count = 1"#,
        "max_items_per_batch = 8",
    );
    stand.run().exits(3);
    let status = stand.place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 7, 1, 0, 0, 0]);
    let ends = stand.place.log().tally("end");
    assert_eq!(ends.len(), 7);
    assert!(ends.values().all(|times| *times == 1), "{ends:?}");
}

#[tokio::test]
async fn a_function_that_its_own_timeout_ended_timed_out() {
    let Some(stand) = Stand::new("the timeout of a function").await else {
        return;
    };
    stand
        .handles("def handle(event, context):\n    time.sleep(60)", 1)
        .await;
    stand.job(r#"input = { inline = ["one"] }"#, "");
    stand.run().exits(1);
    let (class, cause) = stand.failure();
    assert_eq!(class, "Timeout", "{cause}");
    assert!(
        cause.contains("Task timed out after 1.00 seconds"),
        "{cause}"
    );
}

#[tokio::test]
async fn throttled_calls_are_charged_to_nobody_and_all_get_through() {
    let Some(stand) = Stand::new("reserved concurrency of a function").await else {
        return;
    };
    stand
        .handles(
            r#"
def handle(event, context):
    who = event["BatchInput"]["items"]
    note("start", who[0]["item"])
    for one in who:
        note("item", one["item"], one["attempt"])
    time.sleep(0.2)
    note("end", who[0]["item"])
"#,
            FUNCTION_SECONDS,
        )
        .await;
    let reserved = stand.clients.lambda.put_function_concurrency();
    let reserved = reserved
        .function_name(&stand.function)
        .reserved_concurrent_executions(1);
    reserved.send().await.expect("it answers");
    stand.job(
        r#"input = { range = "0..12" }
        max_concurrency = 3"#,
        "max_items_per_batch = 2",
    );
    stand.run().exits(0);
    let status = stand.place.status();
    assert_eq!(status.item_counts.list(), [0, 0, 12, 0, 0, 0, 0]);
    let log = stand.place.log();
    let items = log.tally("item");
    assert_eq!(items.len(), 12);
    assert!(
        items.values().all(|times| *times == 1),
        "a throttled call ran: {items:?}"
    );
    assert_eq!(log.at_once(), 1);
    let mut lines = log.lines.iter();
    let throttled = lines.any(|line| line[0] == "item" && line[2] != "1");
    assert!(throttled, "nothing was throttled");
    stand.place.audit();
}

#[tokio::test]
async fn a_function_that_is_not_there_is_unavailable_and_says_what_to_check() {
    let Some(stand) = Stand::new("a missing function").await else {
        return;
    };
    stand.job(r#"input = { inline = ["one"] }"#, "");
    stand.run().exits(1);
    let (class, cause) = stand.failure();
    assert_eq!(class, "Unavailable");
    assert!(cause.contains("check the function's name"), "{cause}");
}

#[tokio::test]
async fn a_call_that_is_stopped_for_its_time_is_waited_for_no_longer() {
    let Some(stand) = Stand::new("a lane's timeout over a function").await else {
        return;
    };
    stand
        .handles(
            "def handle(event, context):\n    time.sleep(8)",
            FUNCTION_SECONDS,
        )
        .await;
    stand.job(
        r#"input = { inline = ["one"] }"#,
        "timeout = \"1s\"\ngrace = \"1s\"",
    );
    let begun = crate::support::now();
    stand.run().exits(1);
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "it was waited for"
    );
    assert_eq!(stand.failure().0, "Timeout");
}
