//! The real program on DynamoDB, SQS and S3: the same job as on SQLite comes to the same outputs, also
//! when a worker is killed in the middle of its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use trommel::adapters::aws::S3Objects;
use trommel::ports::Objects as _;
use trommel_localstack::Emulator;

use crate::emulator_arms::{emulator, fresh};
use crate::support::{Done, Place, Process, figure, now, wait_for, wait_until};

/// Two pages, so that one session cannot hold them all at once.
const FILES: usize = 150;

/// More calls than a page has items: a session that took the first page leaves permits for another.
const CONCURRENCY: usize = 120;

/// Children start within this time, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// A run ends within this time. What a killed worker held is taken over within two session durations,
/// a minute.
const RUN_WITHIN: Duration = Duration::from_mins(3);

/// `run`'s and `worker`'s words beyond which nothing but SQS keeps them waiting.
const WORKER_READY: &str = "working on the function lane";

/// A table, a bucket and a place whose commands go to the emulator.
pub(crate) struct Cloud {
    pub(crate) place: Place,
    pub(crate) ledger: String,
    bucket_name: String,
    pub(crate) bucket: S3Objects,
}

impl Cloud {
    pub(crate) async fn new(emulator: &Emulator, name: &str) -> Self {
        Self::behind(emulator, emulator.url(), name).await
    }

    /// One whose commands go to this URL, which leads to the emulator.
    pub(crate) async fn behind(emulator: &Emulator, url: &str, name: &str) -> Self {
        let clients = emulator.clients().await;
        let name = fresh(name);
        emulator
            .bucket(&clients, &name)
            .await
            .expect("a new bucket");
        let ledger = format!("dynamodb:{name}");
        let place = Place::elsewhere(
            &ledger,
            &[
                ("AWS_ENDPOINT_URL", url),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ],
        );
        Self {
            bucket: S3Objects::new(&clients, &name),
            place,
            ledger,
            bucket_name: name,
        }
    }

    /// A place in its bucket.
    pub(crate) fn s3(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket_name)
    }

    /// Writes `job.toml` of this name: one item, carried out by `./work`.
    pub(crate) fn write_one_item_job(&self, name: &str) {
        let (ledger, scratch) = (&self.ledger, self.s3("parts"));
        let job = format!(
            r#"
            name = "{name}"
            input = {{ inline = ["one"] }}
            ledger = "{ledger}"
            scratch = "{scratch}"
            [function]
            command = ["./work"]
            "#
        );
        self.place.write("job.toml", job);
    }

    pub(crate) async fn read(&self, key: &str) -> String {
        let reader = self.bucket.get(key.as_bytes(), 0, None, None).await;
        let mut reader = reader.unwrap_or_else(|error| panic!("{key}: {error}"));
        let mut text = String::new();
        reader.read_to_string(&mut text).await.expect("it is text");
        text
    }
}

fn contents() -> BTreeMap<String, String> {
    let file = |number: usize| {
        let name = format!("{:02}/file {number:03}", number % 7);
        (name, format!("line of {number}\n").repeat(number))
    };
    (0..FILES).map(file).collect()
}

/// The job, with what stands above its lane.
fn checksums(input: &str, places: &str) -> String {
    format!(
        r#"
        name = "checksums"
        input = {{ objects = "{input}" }}
        max_concurrency = {CONCURRENCY}
        {places}
        [function]
        command = ["./work", "{{path}}"]
        "#
    )
}

/// Notes who called it, and takes its time.
fn slow_checksum(place: &Place) {
    place.script(
        "work",
        r#"note start "$PPID" "$TROMMEL_ITEM"; sleep 1; sha256sum "$1" || exit 1
        note end "$PPID" "$TROMMEL_ITEM""#,
    );
}

/// What each input's call answered.
fn outputs(records: &[Value]) -> BTreeMap<String, String> {
    let pairs = records.iter().map(|record| {
        let key = record["input"]["key"].as_str().expect("an object has one");
        let output = record["output"].as_str().expect("it is text");
        (key.to_owned(), output.to_owned())
    });
    let outputs: BTreeMap<_, _> = pairs.collect();
    assert_eq!(outputs.len(), records.len(), "each input once");
    outputs
}

/// The same tree and the same job on SQLite.
fn on_sqlite() -> (Place, BTreeMap<String, String>) {
    let place = Place::new();
    for (name, text) in contents() {
        place.write(format!("tree/{name}"), text);
    }
    let places = r#"results = "out"
        ledger = "sqlite:.trommel/ledger.db""#;
    place.write("job.toml", checksums("tree", places));
    slow_checksum(&place);
    place.trommel(&["run", "job.toml"]).exits(0);
    place.audit();
    let outputs = outputs(&place.results("SUCCEEDED"));
    assert_eq!(outputs.len(), FILES);
    (place, outputs)
}

/// The hash of each key below `prefix`, without the path that stands behind it.
fn hashes(outputs: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let pairs = outputs.iter().map(|(key, output)| {
        let key = key.strip_prefix(prefix).expect("it lies in the tree");
        let (hash, _path) = output.split_once(' ').expect("a hash, then the path");
        (key.to_owned(), hash.to_owned())
    });
    pairs.collect()
}

/// Shows what differs, not all there is.
fn assert_same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let only = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
        let pairs = one
            .iter()
            .filter(|(key, text)| other.get(*key) != Some(text));
        pairs
            .map(|(key, text)| format!("{key}: {text}"))
            .collect::<Vec<_>>()
    };
    let diff = (only(found, expected), only(expected, found));
    assert_eq!(diff, (Vec::new(), Vec::new()));
}

fn worker(place: &Place) -> Process {
    let worker = place.start(&["worker", "job.toml", "--lane", "function"]);
    wait_until("a worker is ready", PROGRESS_WITHIN, || {
        worker.said().contains(WORKER_READY)
    });
    worker
}

/// The items whose calls this process started, by the children's word.
fn started_by(place: &Place, process: &str) -> BTreeSet<String> {
    started_times(place, process).into_keys().collect()
}

/// The same, each with how often.
fn started_times(place: &Place, process: &str) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for line in &place.log().lines {
        if line[0] == "start" && line[1] == process {
            *times.entry(line[2].clone()).or_default() += 1;
        }
    }
    times
}

/// Kills the first of the workers that has calls running; answers its number and those that are left.
fn kill_one_at_work(place: &Place, mut workers: Vec<Process>) -> (String, Vec<Process>) {
    let at = wait_for("a worker has calls running", PROGRESS_WITHIN, || {
        let is_at_work = |worker: &Process| !started_by(place, &worker.id().to_string()).is_empty();
        workers.iter().position(is_at_work)
    });
    let victim = workers.remove(at);
    let number = victim.id().to_string();
    victim.kill();
    (number, workers)
}

fn drain(worker: Process) -> Done {
    worker.signal(Signal::SIGTERM);
    worker.wait_within(PROGRESS_WITHIN).exits(143)
}

#[tokio::test]
async fn an_emulator_and_a_killed_worker_change_nothing_in_the_outputs() {
    let Some(emulator) = emulator("the checksums job on DynamoDB").await else {
        return;
    };
    let (local, expected) = on_sqlite();
    let cloud = Cloud::new(emulator, "journey").await;
    let (ledger, scratch) = (&cloud.ledger, cloud.s3("scratch"));
    let places = format!("results = \"out\"\nledger = \"{ledger}\"\nscratch = \"{scratch}\"");
    let tree = local.path("tree");
    let tree = tree.to_str().expect("a plain path");
    let place = &cloud.place;
    place.write("job.toml", checksums(tree, &places));
    slow_checksum(place);

    let workers = vec![worker(place), worker(place)];
    let begun = now();
    // The calls are the workers', whoever is quicker.
    let router = place.start(&["run", "job.toml", "--role", "router"]);
    let router_number = router.id().to_string();
    let (victim, workers) = kill_one_at_work(place, workers);
    let survivors: Vec<String> = workers
        .iter()
        .map(|process| process.id().to_string())
        .collect();
    let killed_after = begun.elapsed();
    let done = router.wait_within(RUN_WITHIN).exits(0);
    let took = begun.elapsed();
    assert!(
        started_by(place, &router_number).is_empty(),
        "a router carries out no call"
    );
    for worker in workers {
        drain(worker);
    }

    let status = place.status();
    assert_eq!(status.status, "SUCCEEDED", "{}", done.stderr);
    let all = FILES as u64;
    assert_eq!(status.item_counts.list(), [0, 0, all, 0, 0, 0, 0]);
    place.audit();
    assert_same(&outputs(&place.results("SUCCEEDED")), &expected);

    // Only what the killed one had begun was called twice: those that lived began nothing again. (A child
    // that it left behind may have no parent any more to note, so we look at the others.)
    for process in &survivors {
        let begun = started_times(place, process);
        let twice: Vec<_> = begun.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{process} began {twice:?}");
    }
    let by_survivors = survivors
        .iter()
        .flat_map(|process| started_by(place, process));
    let mut seen = BTreeSet::new();
    let by_two: Vec<String> = by_survivors
        .filter(|item| !seen.insert(item.clone()))
        .collect();
    assert!(by_two.is_empty(), "two that lived both began {by_two:?}");
    let starts = place.log().count("start");
    let again = starts - FILES;
    assert!(
        again <= CONCURRENCY,
        "{again} of {starts} starts were not the first"
    );
    figure(&format!(
        "{}: {FILES} files in {took:.1?}, a worker killed after {killed_after:.1?} with {} calls begun, \
         {again} called again",
        emulator.kind().as_str(),
        started_by(place, &victim).len(),
    ));
}

#[tokio::test]
async fn an_emulator_holds_input_scratch_and_results() {
    let Some(emulator) = emulator("a job from S3 to S3").await else {
        return;
    };
    let (_local, expected) = on_sqlite();
    let cloud = Cloud::new(emulator, "journey-s3").await;
    for (name, text) in contents() {
        let key = format!("tree/{name}");
        let put = cloud.bucket.put(key.as_bytes(), Bytes::from(text)).await;
        put.expect("it answers");
    }
    // The scratch place is beside the results if nothing else is said.
    let (ledger, results) = (&cloud.ledger, cloud.s3("out"));
    let places = format!("results = \"{results}\"\nledger = \"{ledger}\"");
    let place = &cloud.place;
    place.write("job.toml", checksums(&cloud.s3("tree/"), &places));
    slow_checksum(place);
    let runner = place.start(&["run", "job.toml"]);
    let took = runner.wait_within(RUN_WITHIN).exits(0).waited;
    place.audit();

    let run = place.status().run;
    let manifest = cloud.read(&format!("out/{run}/manifest.json")).await;
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
    let mut records: Vec<Value> = Vec::new();
    let files = manifest["resultFiles"]["SUCCEEDED"].as_array();
    for file in files.expect("a manifest has all kinds") {
        let key = file["key"].as_str().expect("a file has a name");
        let text = cloud.read(key).await;
        let lines = text.lines().map(serde_json::from_str);
        records.extend(lines.map(|line: Result<Value, _>| line.expect("JSON lines")));
    }
    // An object's key is whole; a file's is what stands below the tree.
    let found = hashes(&outputs(&records), "tree/");
    assert_same(&found, &hashes(&expected, ""));
    figure(&format!(
        "{}: {FILES} objects of S3 to S3 in {took:.1?}",
        emulator.kind().as_str()
    ));
}

/// Items of the run that is paused, tolerated and redriven; two of them fail as long as `broken` is there.
const NUMBERS: u64 = 40;

#[tokio::test]
async fn an_emulator_keeps_a_run_that_is_paused_resumed_and_redriven() {
    let Some(emulator) = emulator("pause, resume and redrive on DynamoDB").await else {
        return;
    };
    let cloud = Cloud::new(emulator, "journey-control").await;
    let (ledger, scratch) = (&cloud.ledger, cloud.s3("scratch"));
    let place = &cloud.place;
    place.write(
        "job.toml",
        format!(
            r#"
            name = "controlled"
            input = {{ range = "0..{NUMBERS}" }}
            max_concurrency = 4
            tolerated_failure_count = 2
            results = "out"
            ledger = "{ledger}"
            scratch = "{scratch}"
            [function]
            command = ["./work"]
            "#
        ),
    );
    place.script(
        "work",
        r#"read value; note start "$value"
        [ -e slow ] && sleep 0.5
        case $value in 5|35) [ -e broken ] && { echo "no $value today" >&2; exit 3; };; esac
        note end "$value""#,
    );
    place.write("slow", "");
    place.write("broken", "");
    let runner = place.start(&["run", "job.toml"]);
    wait_until("some items end", PROGRESS_WITHIN, || {
        place.log().count("end") >= 6
    });
    let asked = now();
    let said = place.trommel(&["pause", "latest"]).exits(0);
    let obeyed = asked.elapsed();
    assert!(said.stdout.contains("PAUSED"), "{}", said.stdout);
    runner.wait_within(PROGRESS_WITHIN).exits(5);
    let paused = place.status();
    assert_eq!(paused.status, "PAUSED");
    assert!(paused.item_counts.add_up(), "{paused:?}");
    assert!(paused.item_counts.pending > 0, "{paused:?}");
    assert_eq!(paused.item_counts.running, 0, "{paused:?}");
    place.audit();

    std::fs::remove_file(place.path("slow")).expect("it is there");
    place.trommel(&["resume", "latest"]).exits(3);
    let tolerated = place.status();
    assert_eq!(
        (tolerated.status.as_str(), tolerated.failures),
        ("SUCCEEDED", 2)
    );
    assert_eq!(
        tolerated.item_counts.list(),
        [0, 0, NUMBERS - 2, 2, 0, 0, 0]
    );
    let failed = place.items(&["--state", "failed"]);
    let labels: BTreeSet<&str> = failed.iter().map(|item| item.label.as_str()).collect();
    assert_eq!(labels, BTreeSet::from(["5", "35"]));
    assert!(
        failed.iter().all(|item| item
            .cause
            .as_deref()
            .is_some_and(|cause| cause.contains("today"))),
        "{failed:?}"
    );
    place.audit();

    std::fs::remove_file(place.path("broken")).expect("it is there");
    let took = place.trommel(&["redrive", "latest"]).exits(0).waited;
    let redriven = place.status();
    assert_eq!(
        (redriven.status.as_str(), redriven.generation),
        ("SUCCEEDED", 1)
    );
    assert_eq!(redriven.item_counts.list(), [0, 0, NUMBERS, 0, 0, 0, 0]);
    assert_eq!(place.results("SUCCEEDED").len() as u64, NUMBERS);
    let ends = place.log().tally("end");
    assert_eq!(ends.len() as u64, NUMBERS);
    assert!(
        ends.values().all(|times| *times == 1),
        "no success ran twice"
    );
    place.audit();
    figure(&format!(
        "{}: a pause obeyed in {obeyed:.1?}, two items redriven in {took:.1?}",
        emulator.kind().as_str()
    ));
}
