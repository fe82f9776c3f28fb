//! Event mode on an emulator: a bucket's events go through SQS to items in windows, whatever comes twice, late, or as
//! junk, and whoever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use trommel::adapters::aws::{Clients, SqsQueue};
use trommel::core::event::Keys;
use trommel::ports::Queue;
use trommel::ports::queue::Outgoing;
use trommel_localstack::Emulator;
use trommel_localstack::proxy::{Chaos, Fault, Proxy};

use crate::emulator_arms::{emulator, fresh};
use crate::support::{Counts, Place, Process, figure, now, scaled, wait_until};

/// All of a journey's windows are done within this time; what a killed process held is taken over within two
/// session durations, a minute.
const DONE_WITHIN: Duration = Duration::from_mins(4);

/// A process says that it is at work within this time, however busy the machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Larger objects go to the container lane.
const SMALL_BYTES_MAX: usize = 4096;

/// A bucket, its ingest queue, a table and a job.
pub(crate) struct Inbox {
    pub(crate) place: Place,
    pub(crate) clients: Clients,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) bucket: String,
    keys: Keys,
}

/// How an inbox is set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    /// The bucket's own events.
    Bucket,
    /// The test's.
    Test,
}

impl Inbox {
    pub(crate) async fn new(emulator: &Emulator, name: &str, sends: Sends, job: &str) -> Self {
        Self::behind(emulator, emulator.url(), name, (sends, job)).await
    }

    /// One whose program reaches the emulator at this URL; the test goes there directly.
    async fn behind(
        emulator: &Emulator,
        url: &str,
        name: &str,
        (sends, job): (Sends, &str),
    ) -> Self {
        let clients = emulator.clients().await;
        let name = fresh(name);
        let queue_name = format!("{name}-in");
        emulator.bucket(&clients, &name).await.expect("a bucket");
        let scratch = format!("{name}-scratch");
        emulator.bucket(&clients, &scratch).await.expect("a bucket");
        emulator
            .queue(&clients, &queue_name)
            .await
            .expect("a queue");
        if sends == Sends::Bucket {
            let told = emulator.notify(&clients, &name, &queue_name).await;
            told.expect("the bucket sends");
        }
        let place = Place::elsewhere(
            &format!("dynamodb:{name}"),
            &[
                ("AWS_ENDPOINT_URL", url),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ],
        );
        let keys = match emulator.profile().event_keys {
            Keys::Aws => "aws",
            Keys::Form => "form",
            Keys::Plain => "plain",
        };
        place.write(
            "job.toml",
            format!(
                r#"
                name = "inbox"
                input = {{ events = "sqs:{queue_name}", bucket = "{name}", window = "15s", keys = "{keys}" }}
                ledger = "dynamodb:{name}"
                scratch = "s3://{scratch}/parts"
                results = "out"
                {job}
                [function]
                command = ["./work", "function", "{{path}}"]
                max_object = "{SMALL_BYTES_MAX}"
                [container]
                command = ["./work", "container", "{{path}}"]
                "#
            ),
        );
        let queue = SqsQueue::open(&clients, &queue_name)
            .await
            .expect("just made");
        Self {
            place,
            queue: Arc::new(queue),
            clients,
            bucket: name,
            keys: emulator.profile().event_keys,
        }
    }

    /// Notes who called it, and says its lane and what it read.
    fn work(&self, takes: &str) {
        self.place.script(
            "work",
            &format!(
                r#"note start "$TROMMEL_RUN/$TROMMEL_ITEM"; {takes}
                sum=$(sha256sum < "$2") || exit 1
                echo "$1 ${{sum%% *}}"
                note end "$TROMMEL_RUN/$TROMMEL_ITEM""#
            ),
        );
    }

    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) -> Put {
        let put = self.clients.s3.put_object().bucket(&self.bucket).key(key);
        let put = put.body(ByteStream::from(bytes.to_vec())).send().await;
        let put = put.expect("it answers");
        Put {
            key: key.to_owned(),
            size: bytes.len(),
            etag: put
                .e_tag
                .expect("an object has one")
                .trim_matches('"')
                .to_owned(),
            version: put.version_id.filter(|version| version != "null"),
        }
    }

    /// An event as S3 would send it, so many milliseconds after a fixed time.
    fn event(&self, name: &str, put: &Put, at_ms: u32) -> Value {
        let key = match self.keys {
            Keys::Plain => put.key.clone(),
            Keys::Aws | Keys::Form => put
                .key
                .replace('%', "%25")
                .replace('+', "%2B")
                .replace(' ', "+"),
        };
        let mut object = json!({ "key": key, "sequencer": "0055AED6DCD90281E5" });
        if name.starts_with("ObjectCreated") {
            object["size"] = json!(put.size);
            object["eTag"] = json!(put.etag);
        }
        if let Some(version) = &put.version {
            object["versionId"] = json!(version);
        }
        let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
        json!({
            "eventVersion": "2.3",
            "eventSource": "aws:s3",
            "eventTime": format!("2026-01-01T00:{:02}:{:02}.{millis:03}Z", seconds / 60, seconds % 60),
            "eventName": name,
            "s3": { "bucket": { "name": self.bucket }, "object": object },
        })
    }

    async fn send(&self, bodies: &[String]) {
        for batch in bodies.chunks(10) {
            let batch = batch.iter().map(Outgoing::now).collect();
            let rejected = self.queue.send(batch).await.expect("it answers");
            assert_eq!(rejected, [], "the queue takes all");
        }
    }

    fn serve(&self, args: &[&str]) -> Process {
        let all: Vec<&str> = ["serve", "job.toml"].iter().chain(args).copied().collect();
        let process = self.place.start(&all);
        wait_until("a process serves", READY_WITHIN, || {
            process.said().contains("taking in")
        });
        process
    }

    /// The windows so far, oldest first.
    fn windows(&self) -> Vec<Window> {
        let runs: Vec<Run> = self
            .place
            .trommel(&["runs", "--json", "--limit", "100"])
            .exits(0)
            .json();
        let window = |run: &Run| {
            self.place
                .trommel(&["status", &run.run, "--json"])
                .exits(0)
                .json()
        };
        let mut windows: Vec<Window> = runs.iter().map(window).collect();
        windows.reverse();
        windows
    }

    /// Waits until so much was taken in, and every window has its verdict and its result files.
    pub(crate) fn wait_until_done(&self, taken: u64) -> Vec<Window> {
        let begun = now();
        loop {
            let windows = self.windows();
            let sum: u64 = windows.iter().map(|window| window.intake.taken).sum();
            let done = |window: &Window| {
                let manifest = self
                    .place
                    .path("out")
                    .join(&window.run)
                    .join("manifest.json");
                window.total_is_final && window.status == "SUCCEEDED" && manifest.exists()
            };
            if sum >= taken && windows.iter().all(done) {
                return windows;
            }
            assert!(
                begun.elapsed() < DONE_WITHIN,
                "waited in vain for {taken} items: {windows:?}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// All records of the result files of one kind, over all windows.
    pub(crate) fn records(&self, windows: &[Window], kind: &str) -> Vec<Value> {
        let mut records = Vec::new();
        for window in windows {
            let dir = self.place.path("out");
            let manifest = std::fs::read_to_string(dir.join(&window.run).join("manifest.json"));
            let manifest: Value =
                serde_json::from_str(&manifest.expect("it is there")).expect("JSON");
            for file in manifest["resultFiles"][kind]
                .as_array()
                .expect("all kinds are there")
            {
                let text = std::fs::read_to_string(dir.join(file["key"].as_str().expect("a name")));
                let text = text.expect("it is there");
                records.extend(
                    text.lines()
                        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
                );
            }
        }
        records
    }

    pub(crate) fn audit(&self, windows: &[Window]) {
        for window in windows {
            self.place.trommel(&["audit", &window.run]).exits(0);
        }
    }

    /// Nothing is left in the ingest queue, hidden or not.
    pub(crate) async fn is_drained(&self) {
        let begun = now();
        loop {
            let depth = self.queue.depth().await.expect("it answers");
            if depth.ready + depth.hidden == 0 {
                return;
            }
            assert!(
                begun.elapsed() < DONE_WITHIN,
                "messages are left: {depth:?}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A state that an object was given.
pub(crate) struct Put {
    key: String,
    size: usize,
    etag: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct Run {
    run: String,
}

/// What `status --json` says of a window.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Window {
    run: String,
    status: String,
    total_is_final: bool,
    pub(crate) item_counts: Counts,
    quarantined: u64,
    intake: Intake,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Intake {
    taken: u64,
    duplicates: u64,
    superseded: u64,
    removed: u64,
}

pub(crate) fn total(windows: &[Window], of: impl Fn(&Window) -> u64) -> u64 {
    windows.iter().map(of).sum()
}

fn sum(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// Lane and digest by key, of the items that succeeded; each state of an object once.
fn answers(records: &[Value]) -> BTreeMap<(String, String), String> {
    let mut answers = BTreeMap::new();
    for record in records {
        let input = &record["input"];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let name = (
            text(&input["key"]),
            text(&input["etag"]).trim_matches('"').to_owned(),
        );
        let before = answers.insert(name.clone(), text(&record["output"]).trim().to_owned());
        assert_eq!(before, None, "{name:?} is there twice");
    }
    answers
}

fn drain(process: Process) {
    process.signal(Signal::SIGTERM);
    process.wait_within(READY_WITHIN).exits(143);
}

/// Keys that hurt.
fn key(number: usize) -> String {
    match number % 9 {
        0 => format!("plain-{number}"),
        1 => format!("with space {number}"),
        2 => format!("a+b+{number}"),
        3 => format!("100%-{number}"),
        4 => format!("50%25-{number}"),
        5 => format!("k=v&w={number}"),
        6 => format!("ünïcödé-文-{number}"),
        7 => format!("in//deep/{number}/.."),
        _ => format!("{}-{number}", "long".repeat(220)),
    }
}

fn content(number: usize, version: u32) -> Vec<u8> {
    let size = [0, 1, 900, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 20_000][number % 6];
    let mut bytes = vec![b'x'; size];
    if let Some(first) = bytes.first_mut() {
        *first = b'0' + version as u8;
    }
    bytes
}

#[tokio::test]
async fn each_uploaded_object_is_processed_once_in_its_lane_and_overwritten_ones_in_their_last_state()
 {
    let Some(emulator) = emulator("event mode, from upload to results").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "inbox", Sends::Bucket, "max_concurrency = 8").await;
    inbox.work("");
    let server = inbox.serve(&[]);
    let objects = scaled(90, 500);
    let begun = now();
    let mut last: BTreeMap<String, (String, Vec<u8>)> = BTreeMap::new();
    for number in 0..objects {
        let (key, bytes) = (key(number), content(number, 1));
        let put = inbox.put(&key, &bytes).await;
        last.insert(key, (put.etag, bytes));
        if number % 10 == 9 {
            // Of an object that has a content to change.
            let again = number - number % 6 + 2;
            let (key, bytes) = (self::key(again), content(again, 2));
            let put = inbox.put(&key, &bytes).await;
            last.insert(key, (put.etag, bytes));
        }
    }
    let windows = inbox.wait_until_done(last.len() as u64);
    let took = begun.elapsed();
    inbox.is_drained().await;
    drain(server);

    let answers = answers(&inbox.records(&windows, "SUCCEEDED"));
    let mut wrong = Vec::new();
    for (key, (etag, bytes)) in &last {
        let lane = if bytes.len() <= SMALL_BYTES_MAX {
            "function"
        } else {
            "container"
        };
        let expected = format!("{lane} {}", sum(bytes));
        let found = answers.get(&(key.clone(), etag.clone()));
        if found != Some(&expected) {
            wrong.push(format!("{key}: {found:?}, not {expected}"));
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
    // What is beside the last states was overwritten after it was processed.
    let taken = total(&windows, |window| window.intake.taken);
    let skipped = total(&windows, |window| window.item_counts.skipped);
    assert_eq!(answers.len() as u64 + skipped, taken);
    assert_eq!(total(&windows, |window| window.item_counts.failed), 0);
    inbox.audit(&windows);
    figure(&format!(
        "{}: {objects} objects uploaded, {taken} states taken in, {skipped} skipped as superseded, {} superseded before, \
         {} windows, {took:.1?}",
        emulator.kind().as_str(),
        total(&windows, |window| window.intake.superseded),
        windows.len(),
    ));
}

#[tokio::test]
async fn messages_that_come_three_times_shuffled_among_junk_change_no_outcome() {
    let Some(emulator) = emulator("duplicates and junk in the ingest queue").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "twice", Sends::Test, "max_concurrency = 8").await;
    inbox.work("");
    let good = scaled(200, 1000);
    let junk = good / 10;
    let mut bodies = Vec::new();
    for number in 0..good {
        let put = inbox.put(&format!("object {number}"), b"small").await;
        let record = inbox.event("ObjectCreated:Put", &put, number as u32);
        let body = json!({ "Records": [record] }).to_string();
        bodies.extend([body.clone(), body.clone(), body]);
    }
    for number in 0..junk {
        bodies.push(match number % 4 {
            0 => format!("not JSON, number {number}"),
            1 => format!("{{\"number\": {number}}}"),
            2 => json!({ "Records": [{ "eventName": number }] }).to_string(),
            _ => json!({ "Message": format!("junk {number}") }).to_string(),
        });
    }
    shuffle(&mut bodies);
    inbox.send(&bodies).await;
    let begun = now();
    let server = inbox.serve(&[]);
    inbox.is_drained().await;
    let windows = inbox.wait_until_done(good as u64);
    let took = begun.elapsed();
    drain(server);

    assert_eq!(
        total(&windows, |window| window.item_counts.succeeded),
        good as u64
    );
    assert_eq!(total(&windows, |window| window.intake.taken), good as u64);
    assert!(total(&windows, |window| window.intake.duplicates) >= 2 * good as u64);
    assert_eq!(total(&windows, |window| window.quarantined), junk as u64);
    let starts = inbox.place.log().tally("start");
    assert_eq!(starts.len(), good);
    assert!(
        starts.values().all(|times| *times == 1),
        "nothing ran twice"
    );
    inbox.audit(&windows);
    // They are there to be read, with their bodies.
    let kept: Vec<Value> = inbox
        .place
        .trommel(&["quarantine", "inbox", "--json"])
        .exits(0)
        .json();
    let mut found: Vec<&str> = kept
        .iter()
        .filter_map(|message| message["body"].as_str())
        .collect();
    let mut sent: Vec<&str> = bodies
        .iter()
        .map(String::as_str)
        .filter(|body| !body.contains("ObjectCreated"))
        .collect();
    found.sort_unstable();
    sent.sort_unstable();
    assert_eq!(found, sent);
    figure(&format!(
        "{}: {good} events three times among {junk} junk in {took:.1?}",
        emulator.kind().as_str()
    ));
}

/// The same order every time, unlike any that was sent.
fn shuffle(bodies: &mut [String]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..bodies.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bodies.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

#[tokio::test]
async fn late_events_are_superseded_removals_leave_a_mark_and_versions_are_all_work() {
    let Some(emulator) = emulator("the rules of marks").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "marks", Sends::Test, "max_concurrency = 1").await;
    inbox.work("");
    // Without versions: the later event comes first.
    let older = inbox.put("overwritten", b"older").await;
    let newer = inbox.put("overwritten", b"newer").await;
    let gone = inbox.put("gone", b"gone").await;
    let gone_delete = inbox
        .clients
        .s3
        .delete_object()
        .bucket(&inbox.bucket)
        .key("gone");
    gone_delete.send().await.expect("it answers");
    let back = inbox.put("back", b"first").await;
    let back_again = inbox.put("back", b"again").await;
    let direct = |record: Value| json!({ "Records": [record] }).to_string();
    let created = "ObjectCreated:Put";
    let removed = "ObjectRemoved:Delete";
    let server = inbox.serve(&[]);
    let steps = [
        // One at a time, so that their order is known.
        direct(inbox.event(created, &newer, 2000)),
        direct(inbox.event(created, &older, 1000)),
        direct(inbox.event(removed, &gone, 2000)),
        direct(inbox.event(created, &gone, 1000)),
        direct(inbox.event(removed, &back, 2000)),
        direct(inbox.event(created, &back, 1000)),
        direct(inbox.event(created, &back_again, 3000)),
    ];
    for step in steps {
        inbox.send(&[step]).await;
        inbox.is_drained().await;
    }
    let windows = inbox.wait_until_done(2);
    let met = |of: fn(&Intake) -> u64| total(&windows, |window| of(&window.intake));
    assert_eq!(met(|intake| intake.taken), 2);
    assert_eq!(met(|intake| intake.superseded), 3);
    assert_eq!(met(|intake| intake.removed), 2);
    let found: BTreeSet<String> = answers(&inbox.records(&windows, "SUCCEEDED"))
        .into_values()
        .collect();
    let expected = [b"newer", b"again"].map(|bytes| format!("function {}", sum(bytes)));
    assert_eq!(found, BTreeSet::from(expected));

    // With versions: each is work, whatever came after it, and comes twice in vain.
    let versions = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    let turned_on = inbox
        .clients
        .s3
        .put_bucket_versioning()
        .bucket(&inbox.bucket);
    turned_on
        .versioning_configuration(versions)
        .send()
        .await
        .expect("it answers");
    let first = inbox.put("versions", b"version one").await;
    let second = inbox.put("versions", b"version two").await;
    assert!(first.version.is_some() && first.version != second.version);
    let bodies = [
        direct(inbox.event(created, &second, 5000)),
        direct(inbox.event(created, &first, 4000)),
        direct(inbox.event(created, &second, 5000)),
    ];
    inbox.send(&bodies).await;
    inbox.is_drained().await;
    let windows = inbox.wait_until_done(4);
    drain(server);
    let found: BTreeSet<String> = answers(&inbox.records(&windows, "SUCCEEDED"))
        .into_values()
        .collect();
    for bytes in [b"version one", b"version two"] {
        assert!(
            found.contains(&format!("function {}", sum(bytes))),
            "{found:?}"
        );
    }
    assert_eq!(total(&windows, |window| window.intake.duplicates), 1);
    assert_eq!(
        total(&windows, |window| window.item_counts.failed
            + window.item_counts.skipped),
        0
    );
    inbox.audit(&windows);
    figure(&format!(
        "{}: marks, with and without versions",
        emulator.kind().as_str()
    ));
}

/// Calls at one time, over all processes.
const CONCURRENCY: usize = 50;

#[tokio::test]
async fn two_routers_and_three_workers_lose_nothing_when_one_of_each_is_killed() {
    let Some(emulator) = emulator("event mode with killed processes").await else {
        return;
    };
    let job = format!("max_concurrency = {CONCURRENCY}");
    let inbox = Inbox::new(emulator, "killed", Sends::Test, &job).await;
    inbox.work("sleep 0.3");
    let items = scaled(300, 2000);
    let mut bodies = Vec::new();
    for number in 0..items {
        let put = inbox
            .put(&format!("object-{number}"), format!("{number}").as_bytes())
            .await;
        let record = inbox.event("ObjectCreated:Put", &put, number as u32);
        bodies.push(json!({ "Records": [record] }).to_string());
    }
    let routers = [
        inbox.serve(&["--role", "router"]),
        inbox.serve(&["--role", "router"]),
    ];
    let worker = || {
        let worker = inbox
            .place
            .start(&["worker", "job.toml", "--lane", "function"]);
        wait_until("a worker is ready", READY_WITHIN, || {
            worker.said().contains("working on")
        });
        worker
    };
    let workers = [worker(), worker(), worker()];
    let begun = now();
    inbox.send(&bodies[..items / 2]).await;
    wait_until("some items end", READY_WITHIN, || {
        inbox.place.log().count("end") > 20
    });
    let [router, victim] = routers;
    victim.kill();
    let [one, two, dead] = workers;
    dead.kill();
    let killed_at = inbox.place.log().lines.len();
    inbox.send(&bodies[items / 2..]).await;
    let windows = inbox.wait_until_done(items as u64);
    let took = begun.elapsed();
    inbox.is_drained().await;
    drain(one);
    drain(two);
    drain(router);

    assert_eq!(
        total(&windows, |window| window.item_counts.succeeded),
        items as u64
    );
    assert_eq!(total(&windows, |window| window.intake.taken), items as u64);
    inbox.audit(&windows);
    let log = inbox.place.log();
    assert_eq!(log.tally("end").len(), items, "each item ended");
    // What the killed worker ran died with it and noted no end.
    let before = crate::support::Log {
        lines: log.lines[..killed_at].to_vec(),
    };
    assert!(
        before.at_once() <= CONCURRENCY,
        "{} at once",
        before.at_once()
    );
    figure(&format!(
        "{}: {items} items, a router and a worker killed, {} starts, at most {} at once, {took:.1?}",
        emulator.kind().as_str(),
        log.count("start"),
        before.at_once(),
    ));
}

/// Each fault strikes so many calls of a million: 5 %, so 30 % of all calls are struck.
const RATE: u32 = 50_000;

/// So many times as long as on a calm day may a bad one take.
const SLOWER_MAX: u32 = 5;

async fn served_behind(emulator: &Emulator, chaos: Chaos, events: usize) -> (Duration, u64) {
    let proxy = Proxy::start(emulator.url(), chaos).expect("a free port of the loopback interface");
    let job = "max_concurrency = 8";
    let inbox = Inbox::behind(emulator, proxy.url(), "network", (Sends::Test, job)).await;
    inbox.work("sleep 0.2");
    let mut bodies = Vec::new();
    for number in 0..events {
        let put = inbox
            .put(&format!("object {number}"), &content(number, 1))
            .await;
        let record = inbox.event("ObjectCreated:Put", &put, number as u32);
        let body = json!({ "Records": [record] }).to_string();
        bodies.extend([body.clone(), body]);
    }
    shuffle(&mut bodies);
    inbox.send(&bodies).await;
    let server = inbox.serve(&[]);
    let begun = now();
    inbox.is_drained().await;
    let windows = inbox.wait_until_done(events as u64);
    let took = begun.elapsed();
    server.signal(Signal::SIGTERM);
    server.wait_within(READY_WITHIN);
    assert_eq!(total(&windows, |window| window.intake.taken), events as u64);
    assert_eq!(
        total(&windows, |window| window.item_counts.succeeded),
        events as u64
    );
    let found = answers(&inbox.records(&windows, "SUCCEEDED"));
    assert_eq!(found.len(), events);
    inbox.audit(&windows);
    let counts = proxy.counts();
    let faults = Fault::ALL
        .into_iter()
        .map(|fault| counts.fired_times(fault));
    (took, faults.sum())
}

#[tokio::test]
async fn events_that_come_over_a_bad_network_are_counted_exactly() {
    let Some(emulator) = emulator("event mode behind the chaos proxy").await else {
        return;
    };
    let events = scaled(60, 300);
    let (calm, none) = served_behind(emulator, Chaos::calm(), events).await;
    let chaos = Chaos::each(1, RATE).expect("30 % is less than all");
    let (struck, faults) = served_behind(emulator, chaos, events).await;
    assert_eq!(none, 0);
    assert!(faults > 20, "{faults} faults are no bad network");
    let times = struck.as_secs_f64() / calm.as_secs_f64();
    assert!(
        struck <= calm * SLOWER_MAX,
        "{struck:?} is {times:.1} times {calm:?}"
    );
    figure(&format!(
        "{}: {events} events twice, calm {calm:.1?}, with {faults} faults {struck:.1?} ({times:.1} ×)",
        emulator.kind().as_str()
    ));
}
