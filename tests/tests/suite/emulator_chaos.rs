//! The pipeline behind the chaos proxy: requests lost, replies lost, late, refused and throttled, on every
//! operation; and the meter beside the proxy, which counts the same requests from the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use trommel::adapters::aws::{Blueprint, Clients, DynamoTable, Endpoint, S3Objects, SqsQueue};
use trommel::core::bill::Calls;
use trommel::core::id::JobName;
use trommel::core::lane::Lane;
use trommel::ports::queue::Outgoing;
use trommel::ports::table::Change;
use trommel::ports::{
    Consistency, Key, Objects as _, Query, Queue as _, Row, Table as _, Update, Write,
};
use trommel_localstack::Emulator;
use trommel_localstack::proxy::{Chaos, Counts, Fault, Forcing, Proxy, Rates};
use trommel_simulator::point::Kind as SimulatedFault;

use crate::emulator_arms::{emulator, fresh};
use crate::emulator_journey::Cloud;
use crate::support::{Done, figure, now};

/// Each fault strikes so many calls of a million: 5 %, so 30 % of all calls are struck.
const RATE: u32 = 50_000;

/// Objects of the job: two pages.
const FILES: usize = 150;

/// Enough that calls of all services come at once, on two cores.
const CONCURRENCY: usize = 16;

/// A run ends within this time, whatever strikes it.
const RUN_WITHIN: Duration = Duration::from_mins(4);

/// So many times as long as the calm run may the other take.
const SLOWER_MAX: u32 = 5;

/// Rounds of all operations after which every pair must have met: a fault is forced every fifth call.
const ROUNDS_MAX: usize = 60;

/// Names another seed, to look for what this one does not show.
const SEED_VARIABLE: &str = "TROMMEL_CHAOS_SEED";

fn seed() -> u64 {
    let named = std::env::var(SEED_VARIABLE).ok();
    named.map_or(1, |text| text.parse().expect("a seed is a number"))
}

fn chaos() -> Chaos {
    Chaos::each(seed(), RATE).expect("30 % is less than all")
}

fn proxy(emulator: &Emulator, chaos: Chaos) -> Proxy {
    Proxy::start(emulator.url(), chaos).expect("a free port of the loopback interface")
}

/// Clients whose requests go through the proxy.
async fn clients(emulator: &Emulator, proxy: &Proxy) -> Clients {
    let writes = emulator.profile().transact_writes_max;
    let endpoint = Endpoint::emulator(proxy.url()).with_transact_writes_max(writes);
    Clients::open(endpoint).await
}

/// A loaded emulator closes a connection now and then, which is one more lost reply; more often it is broken.
const ANSWERED_TIMES: u64 = 500;

/// The emulator left hardly anything unanswered: what failed, failed on purpose.
fn assert_sound(counts: &Counts) {
    let requests: u64 = counts.received.values().sum();
    assert!(
        counts.unanswered * ANSWERED_TIMES <= requests,
        "the emulator itself failed\n{}",
        counts.report()
    );
}

#[test]
fn each_fault_of_the_proxy_is_one_of_the_simulator_to_a_port() {
    for fault in Fault::ALL {
        let name = fault.at_port();
        let kind: SimulatedFault = serde_json::from_value(name.into())
            .unwrap_or_else(|error| panic!("{fault} looks like {name}: {error}"));
        assert_eq!(kind.as_str(), name);
    }
}

/// The files and their hashes, by key.
fn files() -> BTreeMap<String, (String, String)> {
    let file = |number: usize| {
        let text = format!("line of {number}\n").repeat(number);
        let hash = Sha256::digest(&text);
        let hash = hash
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        (
            format!("tree/{:02}/file {number:03}", number % 7),
            (text, hash),
        )
    };
    (0..FILES).map(file).collect()
}

/// What a run through the proxy came to.
struct Ran {
    took: Duration,
    counts: Counts,
    done: Done,
}

/// The checksums of objects in S3, results and scratch place there too, the ledger in `DynamoDB`: started,
/// waited for, and looked at. Where the proxy strikes, the looking is struck, too.
async fn run_checksums(emulator: &Emulator, proxy: &Proxy, name: &str) -> Ran {
    let cloud = Cloud::behind(emulator, proxy.url(), name).await;
    for (key, (text, _)) in files() {
        let put = cloud.bucket.put(key.as_bytes(), Bytes::from(text)).await;
        put.expect("it answers");
    }
    let place = &cloud.place;
    place.script(
        "work",
        r#"note start "$TROMMEL_ITEM"; sleep 0.5; sha256sum < "$1" | cut -c1-64"#,
    );
    place.write(
        "job.toml",
        format!(
            r#"
            name = "checksums"
            input = {{ objects = "{}" }}
            max_concurrency = {CONCURRENCY}
            results = "{}"
            ledger = "{}"
            [function]
            command = ["./work", "{{path}}"]
            "#,
            cloud.s3("tree/"),
            cloud.s3("out"),
            cloud.ledger,
        ),
    );
    let before = proxy.counts();
    let begun = now();
    let runner = place.start(&["run", "job.toml", "--json"]);
    let done = runner.wait_within(RUN_WITHIN).exits(0);
    let took = begun.elapsed();
    let counts = proxy.counts().since(&before);
    assert_sound(&counts);

    let status = place.status();
    assert_eq!(status.status, "SUCCEEDED", "{}", done.stderr);
    assert_eq!(status.item_counts.list(), [0, 0, FILES as u64, 0, 0, 0, 0]);
    let seen = place.trommel(&["status"]).exits(0).stderr;
    assert!(seen.contains("AWS calls: "), "{seen}");
    place.audit();
    let expected = files()
        .into_iter()
        .map(|(key, (_, hash))| (key, hash))
        .collect();
    assert_eq!(outputs(&cloud, &status.run).await, expected);
    let starts = place.log().count("start");
    assert!(starts >= FILES, "{starts} starts");
    Ran { took, counts, done }
}

/// What each object's call answered, by the result files.
async fn outputs(cloud: &Cloud, run: &str) -> BTreeMap<String, String> {
    let manifest = cloud.read(&format!("out/{run}/manifest.json")).await;
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
    let mut outputs = BTreeMap::new();
    for file in manifest["resultFiles"]["SUCCEEDED"]
        .as_array()
        .expect("a manifest has all kinds")
    {
        let text = cloud
            .read(file["key"].as_str().expect("a file has a name"))
            .await;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON lines");
            let key = record["input"]["key"].as_str().expect("an object has one");
            let output = record["output"].as_str().expect("it is text").trim();
            let former = outputs.insert(key.to_owned(), output.to_owned());
            assert_eq!(former, None, "each input once");
        }
    }
    outputs
}

/// The calls that the program says it made.
fn metered(done: &Done) -> Calls {
    let said: Value = done.json();
    let mut calls = Calls::new();
    for service in trommel::core::bill::Service::ALL {
        let operations = said["aws"]["calls"][service.as_str()].clone();
        let operations: BTreeMap<String, u64> =
            serde_json::from_value(operations).expect("numbers by name");
        if !operations.is_empty() {
            calls.insert(service, operations);
        }
    }
    calls
}

#[tokio::test]
async fn a_run_behind_a_bad_network_counts_exactly_and_its_meter_too() {
    let Some(emulator) = emulator("a run behind the chaos proxy").await else {
        return;
    };
    let proxy = proxy(emulator, Chaos::calm());
    let calm = run_checksums(emulator, &proxy, "calm").await;
    assert_eq!(calm.counts.fired, BTreeMap::new());
    assert_eq!(
        metered(&calm.done),
        calm.counts.calls(),
        "calm: the meter, then the proxy"
    );

    proxy.set(chaos());
    let begun = proxy.counts();
    let struck = run_checksums(emulator, &proxy, "chaos").await;
    assert_eq!(
        metered(&struck.done),
        struck.counts.calls(),
        "struck: the meter, then the proxy"
    );
    let fired: u64 = struck.counts.fired.values().sum();
    let requests: u64 = struck.counts.received.values().sum();
    assert!(
        fired > requests / 5,
        "{fired} faults in {requests} requests"
    );
    let said: Value = struck.done.json();
    figure(&format!(
        "{}: {FILES} objects calm in {:.1?} with {} requests; struck by {fired} faults in {:.1?} with {requests}: {}",
        emulator.kind().as_str(),
        calm.took,
        calm.counts.received.values().sum::<u64>(),
        struck.took,
        said["aws"],
    ));
    assert!(
        struck.took <= calm.took * SLOWER_MAX,
        "{:.1?} is more than {SLOWER_MAX} times {:.1?}",
        struck.took,
        calm.took
    );

    // What the run asked too seldom to meet every fault is asked on, until it has.
    let occurred: BTreeSet<_> = proxy.counts().since(&begun).received.into_keys().collect();
    let stage = Stage::new(emulator, &proxy).await;
    let occurred_missing = || {
        let missing = proxy.missing().into_iter();
        missing
            .filter(|(call, _)| occurred.contains(call))
            .collect::<Vec<_>>()
    };
    for _ in 0..ROUNDS_MAX {
        if occurred_missing().is_empty() {
            break;
        }
        stage.round().await;
    }
    let all = proxy.counts().since(&begun);
    figure(&format!("seed {}\n{}", seed(), all.report()));
    assert_sound(&all);
    assert_eq!(occurred_missing(), [], "these never met");
}

/// A table, a queue and a bucket behind the proxy, to ask everything of.
struct Stage {
    clients: Clients,
    blueprint: Blueprint,
    queue_name: String,
    bucket: S3Objects,
    bucket_name: String,
    table: DynamoTable,
}

/// One key of the table.
fn key() -> Key {
    Key::new("chaos", "row")
}

impl Stage {
    async fn new(emulator: &Emulator, proxy: &Proxy) -> Self {
        let name = fresh("chaos-stage");
        let job = JobName::new("job");
        let blueprint = Blueprint::new(&name)
            .and_then(|blueprint| blueprint.with_job(&job, &[Lane::Function]))
            .expect("plain names");
        // Made past the proxy; asked through it.
        let (direct, _) = emulator.apply(&blueprint).await.expect("a new table");
        emulator.bucket(&direct, &name).await.expect("a new bucket");
        let clients = clients(emulator, proxy).await;
        Self {
            queue_name: Blueprint::queue_name(&name, &job, Lane::Function),
            bucket: S3Objects::new(&clients, &name),
            bucket_name: name.clone(),
            table: DynamoTable::new(&clients, name),
            blueprint,
            clients,
        }
    }

    /// Asks for each operation once. What comes of it is others' business: here it is counted.
    async fn round(&self) {
        let asked = (
            Box::pin(self.provision()),
            Box::pin(self.ask_table()),
            Box::pin(self.ask_queue()),
            Box::pin(self.ask_bucket()),
        );
        tokio::join!(asked.0, asked.1, asked.2, asked.3);
    }

    async fn provision(&self) {
        // Asked by the blueprint of a new table only; how they are answered is others' business.
        let (dynamodb, table) = (&self.clients.dynamodb, self.blueprint.table());
        let table = || table.map(str::to_owned);
        let create = dynamodb.create_table().set_table_name(table());
        create.send().await.ok();
        let expiry = dynamodb.update_time_to_live().set_table_name(table());
        expiry.send().await.ok();
        let queue = self.clients.sqs.create_queue();
        queue.queue_name(&self.queue_name).send().await.ok();
        self.blueprint.apply(&self.clients).await.ok();
    }

    async fn ask_table(&self) {
        let table = &self.table;
        let row = || Row::new().with("n", 1_i64);
        let write = |change| Write {
            key: key(),
            when: Vec::new(),
            change,
        };
        table.get(&key(), Consistency::Strong).await.ok();
        table.write(write(Change::Put(row()))).await.ok();
        let add = Change::Update(vec![Update::Add("n".into(), 1)]);
        table.write(write(add.clone())).await.ok();
        table.transact(&fresh("token"), vec![write(add)]).await.ok();
        table.query(Query::all("chaos", 10)).await.ok();
        table.write(write(Change::Delete)).await.ok();
    }

    async fn ask_queue(&self) {
        let Ok(queue) = SqsQueue::open(&self.clients, &self.queue_name).await else {
            return;
        };
        queue.send(vec![Outgoing::now("hint")]).await.ok();
        queue.depth().await.ok();
        let received = queue
            .receive(10, Duration::ZERO, Duration::from_secs(1))
            .await;
        for message in received.unwrap_or_default() {
            queue
                .change_visibility(vec![(message.handle.clone(), Duration::ZERO)])
                .await
                .ok();
            queue.delete(vec![message.handle]).await.ok();
        }
    }

    async fn ask_bucket(&self) {
        let bucket = &self.bucket;
        bucket.put(b"k", Bytes::from_static(b"text")).await.ok();
        bucket.head(b"k").await.ok();
        if let Ok(mut reader) = bucket.get(b"k", 0, None, None).await {
            let mut text = String::new();
            reader.read_to_string(&mut text).await.ok();
        }
        bucket.list(b"", None, 10).await.ok();
        bucket.delete(b"k").await.ok();
        // Parts of a few bytes: the last of an upload may be short, and may be the only one.
        let begin = || {
            self.clients
                .s3
                .create_multipart_upload()
                .bucket(&self.bucket_name)
                .key("m")
        };
        let Ok(begun) = begin().send().await else {
            return;
        };
        let part = self
            .clients
            .s3
            .upload_part()
            .bucket(&self.bucket_name)
            .key("m");
        let part = part.set_upload_id(begun.upload_id.clone()).part_number(1);
        part.body(Bytes::from_static(b"text").into())
            .send()
            .await
            .ok();
        let end = self
            .clients
            .s3
            .complete_multipart_upload()
            .bucket(&self.bucket_name)
            .key("m");
        end.set_upload_id(begun.upload_id).send().await.ok();
        if let Ok(begun) = begin().send().await {
            let abort = self
                .clients
                .s3
                .abort_multipart_upload()
                .bucket(&self.bucket_name)
                .key("m");
            abort.set_upload_id(begun.upload_id).send().await.ok();
        }
    }
}

#[tokio::test]
async fn the_meter_counts_what_the_proxy_counts_and_every_fault_meets_every_operation() {
    let Some(emulator) = emulator("the meter beside the proxy").await else {
        return;
    };
    let proxy = proxy(emulator, Chaos::calm());
    let stage = Stage::new(emulator, &proxy).await;
    for _ in 0..3 {
        stage.round().await;
    }
    let calm = proxy.counts();
    assert_sound(&calm);
    assert_eq!(
        stage.clients.meter.snapshot().calls,
        calm.calls(),
        "the meter, then the proxy"
    );
    assert_eq!(calm.received, calm.forwarded);

    // Each call alone is asked for, whatever becomes of it: twice the faults in half the rounds.
    let chaos = Chaos::each(seed(), 2 * RATE).expect("60 % is less than all");
    proxy.set(chaos);
    let mut rounds = 0;
    while rounds == 0 || (rounds < ROUNDS_MAX && !proxy.missing().is_empty()) {
        stage.round().await;
        rounds += 1;
    }
    let bill = stage.clients.meter.snapshot();
    let counts = proxy.counts();
    assert_sound(&counts);
    assert_eq!(bill.calls, counts.calls(), "the meter, then the proxy");
    assert_eq!(proxy.missing(), [], "these never met, in {rounds} rounds");
    figure(&format!(
        "{}: {} requests by the meter, as many by the proxy; all pairs met in {rounds} rounds\n{}",
        emulator.kind().as_str(),
        bill.requests(),
        counts.since(&calm).report()
    ));
}

#[tokio::test]
async fn the_meter_reads_units_as_dynamodb_bills_them() {
    let Some(emulator) = emulator("the units of the meter").await else {
        return;
    };
    let proxy = proxy(emulator, Chaos::calm());
    let stage = Stage::new(emulator, &proxy).await;
    let units = || {
        let usage = stage.clients.meter.snapshot().usage;
        (usage.write_units, usage.read_half_units)
    };
    let write = |sk: &str, text: String| Write {
        key: Key::new("units", sk),
        when: Vec::new(),
        change: Change::Put(Row::new().with("t", text)),
    };
    assert_eq!(units(), (0, 0));
    stage
        .table
        .write(write("small", "x".repeat(900)))
        .await
        .expect("it answers");
    assert_eq!(units(), (1, 0));
    stage
        .table
        .write(write("large", "x".repeat(1100)))
        .await
        .expect("it answers");
    assert_eq!(units(), (3, 0));
    let two = ["small", "other"].map(|sk| write(sk, "x".to_owned()));
    stage
        .table
        .transact("token", two.to_vec())
        .await
        .expect("it answers");
    assert_eq!(units(), (7, 0), "two writes, twice each");
    let get = stage
        .table
        .get(&Key::new("units", "large"), Consistency::Strong)
        .await;
    get.expect("it answers");
    assert_eq!(units(), (7, 2));
    let get = stage
        .table
        .get(&Key::new("units", "large"), Consistency::Eventual)
        .await;
    get.expect("it answers");
    assert_eq!(units(), (7, 3));
}

#[tokio::test]
async fn a_large_object_is_whole_though_replies_are_lost() {
    let Some(emulator) = emulator("multipart uploads behind the chaos proxy").await else {
        return;
    };
    let lossy = Chaos {
        rates: Rates::default()
            .with(Fault::ReplyLost, 400_000)
            .expect("40 %"),
        forcing: Forcing::None,
        ..chaos()
    };
    let proxy = proxy(emulator, lossy);
    let stage = Stage::new(emulator, &proxy).await;
    let piece = Bytes::from(vec![7; 5 * 1024 * 1024]);
    for number in 0..6 {
        let name = format!("whole-{number}");
        let mut upload = stage
            .bucket
            .upload(name.as_bytes())
            .await
            .expect("it begins");
        for _ in 0..2 {
            upload.add(piece.clone()).await.expect("it is tried again");
        }
        let pin = upload
            .complete()
            .await
            .expect("it is there, whichever try put it");
        let object = stage
            .bucket
            .head(name.as_bytes())
            .await
            .expect("it is there");
        assert_eq!((object.size_bytes, object.pin), (10 * 1024 * 1024, pin));

        let mut upload = stage.bucket.upload(b"never").await.expect("it begins");
        for _ in 0..2 {
            upload.add(piece.clone()).await.expect("it is tried again");
        }
        upload
            .abort()
            .await
            .expect("it is gone, whichever try took it");
    }
    let counts = proxy.counts();
    assert_sound(&counts);
    for operation in [
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "UploadPart",
    ] {
        let lost = counts
            .fired
            .iter()
            .filter(|((call, _), _)| call.operation == operation);
        assert!(
            lost.count() > 0,
            "no reply to {operation} was lost\n{}",
            counts.report()
        );
    }
}

#[tokio::test]
async fn the_proxy_carries_large_bodies_and_what_is_no_service_of_ours() {
    let Some(emulator) = emulator("large bodies through the proxy").await else {
        return;
    };
    let proxy = proxy(emulator, Chaos::calm());
    let stage = Stage::new(emulator, &proxy).await;
    let large = Bytes::from(vec![b'x'; 30 * 1024 * 1024]);
    stage
        .bucket
        .put(b"large", large.clone())
        .await
        .expect("it answers");
    let mut reader = stage
        .bucket
        .get(b"large", 0, None, None)
        .await
        .expect("it is there");
    let mut read = Vec::new();
    reader
        .read_to_end(&mut read)
        .await
        .expect("all of it comes");
    assert!(read == large, "{} bytes of {}", read.len(), large.len());

    // A key with everything in it comes through the path as it was sent.
    let odd = "a b+c%2F/é//query?x=1&y=2#z".as_bytes();
    stage
        .bucket
        .put(odd, Bytes::from_static(b"odd"))
        .await
        .expect("it answers");
    let listed = stage
        .bucket
        .list(b"a b", None, 10)
        .await
        .expect("it answers");
    assert_eq!(&*listed.objects[0].key, odd);
    assert_sound(&proxy.counts());
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_gone_at_once() {
    let Some(emulator) = emulator("the end of a proxy").await else {
        return;
    };
    let proxy = proxy(emulator, Chaos::calm());
    let stage = Stage::new(emulator, &proxy).await;
    stage.bucket.list(b"", None, 10).await.expect("it answers");
    let url = proxy
        .url()
        .strip_prefix("http://")
        .expect("a plain URL")
        .to_owned();
    drop(proxy);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(&url).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it still listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
