//! The commands that set up, check and mend what a job needs on AWS, as people give them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use serde_json::Value;
use trommel::adapters::aws::{Clients, S3Objects, SqsQueue, Walk};
use trommel::core::event::Keys;
use trommel::ports::{Objects as _, Queue as _};
use trommel::wire::events::{Notification, decode};
use trommel_localstack::Emulator;

use crate::emulator_arms::{emulator, fresh};
use crate::support::{Place, Process, figure, now, wait_for};

/// What is sent arrives, and what is taken in is counted, within this time.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// A job that takes in the events of a bucket of its own; nothing of it is there yet but the bucket.
struct Inbox {
    clients: Clients,
    place: Place,
    name: String,
    bucket: S3Objects,
}

impl Inbox {
    async fn new(emulator: &Emulator, name: &str) -> Self {
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
                ("AWS_ENDPOINT_URL", emulator.url()),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ],
        );
        place.write(
            "job.toml",
            format!(
                r#"
                name = "inbox"
                input = {{ events = "sqs:{name}-events", bucket = "{name}", prefix = "in/", window = "31days" }}
                results = "s3://{name}/out"
                ledger = "{ledger}"
                [function]
                command = ["true"]
                "#
            ),
        );
        Self {
            bucket: S3Objects::new(&clients, &name),
            clients,
            place,
            name,
        }
    }

    fn queue_name(&self) -> String {
        format!("{}-events", self.name)
    }

    async fn queue(&self) -> SqsQueue {
        let queue = SqsQueue::open(&self.clients, &self.queue_name()).await;
        queue.expect("it was provisioned")
    }

    async fn url(&self) -> String {
        let asked = self.clients.sqs.get_queue_url();
        let answer = asked.queue_name(self.queue_name()).send().await;
        let answer = answer.expect("it was provisioned");
        answer.queue_url.expect("a queue has a URL")
    }

    async fn put(&self, key: &str, text: &str) {
        let bytes = Bytes::from(text.to_owned());
        let put = self.bucket.put(key.as_bytes(), bytes).await;
        put.expect("it answers");
    }

    /// Loses what the queue has, until these objects' events are among it.
    async fn lose_events(&self, of: &BTreeSet<String>) {
        let queue = self.queue().await;
        let mut lost = BTreeSet::new();
        let begun = now();
        while !lost.is_superset(of) {
            let wait = Duration::from_secs(1);
            let messages = queue.receive(10, wait, ARRIVES_WITHIN).await;
            let messages = messages.expect("it answers");
            lost.extend(messages.iter().flat_map(|message| events_of(&message.body)));
            let handles = messages.into_iter().map(|message| message.handle);
            let handles: Vec<_> = handles.collect();
            if !handles.is_empty() {
                queue.delete(handles).await.expect("it answers");
            }
            assert!(
                begun.elapsed() < ARRIVES_WITHIN,
                "only these came: {lost:?}"
            );
        }
    }

    fn reconcile(&self, options: &[&str]) -> Value {
        let always = ["reconcile", "job.toml", "--since", "1h", "--leave", "0s"];
        let args: Vec<&str> = always.iter().chain(options).copied().collect();
        let args: Vec<&str> = args.into_iter().chain(["--json"]).collect();
        self.place.trommel(&args).exits(0).json()
    }

    /// Reconciles until this many objects are old enough, and so many of them are missing.
    fn reconciled(&self, looked_at: u64, missing: u64) -> Value {
        wait_for(
            &format!("{missing} of {looked_at} are missing"),
            ARRIVES_WITHIN,
            || {
                let found = self.reconcile(&[]);
                let is_so = found["lookedAt"] == looked_at && found["missing"] == missing;
                is_so.then_some(found)
            },
        )
    }

    fn serve(&self) -> Process {
        self.place.start(&["serve", "job.toml"])
    }
}

/// The keys that a message tells of.
fn events_of(body: &str) -> Vec<String> {
    match decode(body, Keys::Aws) {
        Ok(Notification::Events(events)) => events
            .into_iter()
            .map(|event| String::from_utf8_lossy(&event.key).into_owned())
            .collect(),
        Ok(Notification::Test) => Vec::new(),
        Err(why) => panic!("{why}: {body}"),
    }
}

fn texts(value: &Value) -> BTreeSet<String> {
    let all = value.as_array().expect("a list");
    all.iter()
        .map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

#[tokio::test]
async fn what_is_provisioned_once_is_there_and_lets_events_arrive() {
    let Some(emulator) = emulator("provision").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "provision").await;
    let place = &inbox.place;

    // A notification of the user's own, to a queue of the user's own.
    let theirs = format!("{}-theirs", inbox.name);
    emulator
        .queue(&inbox.clients, &theirs)
        .await
        .expect("a new queue");
    let arn = SqsQueue::arn(&inbox.clients, &theirs).await;
    let other = aws_sdk_s3::types::QueueConfiguration::builder()
        .id("theirs")
        .queue_arn(arn.expect("it was just made"))
        .events("s3:ObjectTagging:Put".into())
        .build()
        .expect("queue and events are set");
    let configuration = aws_sdk_s3::types::NotificationConfiguration::builder()
        .queue_configurations(other)
        .build();
    let s3 = &inbox.clients.s3;
    s3.put_bucket_notification_configuration()
        .bucket(&inbox.name)
        .notification_configuration(configuration)
        .send()
        .await
        .expect("it answers");

    let dry: Value = place
        .trommel(&["provision", "job.toml", "--json"])
        .exits(0)
        .json();
    assert_eq!(dry["applied"], false);
    assert_eq!(texts(&dry["created"]).len(), 6, "{dry}");
    let looked = place.trommel(&["provision", "job.toml"]).exits(0).stdout;
    assert!(looked.contains("would make    table `"), "{looked}");
    assert!(looked.contains("--apply does it"), "{looked}");
    assert!(looked.contains("dynamodb:ConditionCheckItem"), "{looked}");

    let begun = now();
    let made: Value = place
        .trommel(&["provision", "job.toml", "--apply", "--json"])
        .exits(0)
        .json();
    figure(&format!(
        "{}: {} things provisioned in {:.1?}",
        emulator.kind().as_str(),
        texts(&made["created"]).len(),
        begun.elapsed()
    ));
    assert_eq!(
        texts(&made["created"]),
        texts(&dry["created"]),
        "as it said"
    );
    let again: Value = place
        .trommel(&["provision", "job.toml", "--apply", "--json"])
        .exits(0)
        .json();
    assert_eq!(texts(&again["created"]), BTreeSet::new(), "{again}");
    assert_eq!(texts(&again["changed"]), BTreeSet::new(), "{again}");
    assert_eq!(texts(&again["present"]), texts(&made["created"]));
    let said = place.trommel(&["provision", "job.toml", "--apply"]);
    let said = said.exits(0).stdout;
    assert!(said.contains("nothing was made or changed"), "{said}");
    let policies = &again["policies"];
    for role in ["all", "router", "worker"] {
        let text = policies[role].to_string();
        assert!(text.contains(&format!("table/{}", inbox.name)), "{text}");
    }

    let kept = s3.get_bucket_notification_configuration();
    let kept = kept.bucket(&inbox.name).send().await.expect("it answers");
    let ids: BTreeSet<&str> = kept
        .queue_configurations()
        .iter()
        .filter_map(|one| one.id())
        .collect();
    assert_eq!(ids, BTreeSet::from(["theirs", "trommel-inbox"]));

    inbox.put("in/a b+c.txt", "one").await;
    inbox.put("elsewhere/d.txt", "not told of").await;
    let queue = inbox.queue().await;
    let begun = now();
    let mut keys = Vec::new();
    while keys.is_empty() {
        let received = queue.receive(10, Duration::from_secs(5), ARRIVES_WITHIN);
        for message in received.await.expect("it answers") {
            keys.extend(events_of(&message.body));
        }
        assert!(begun.elapsed() < ARRIVES_WITHIN, "the event never came");
    }
    assert_eq!(keys, ["in/a b+c.txt"]);
}

#[tokio::test]
async fn the_queue_of_task_events_is_made_once_and_lets_one_rule_send() {
    let Some(emulator) = emulator("provision for events of tasks").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "tasks").await;
    let (place, name) = (&inbox.place, &inbox.name);
    place.write(
        "job.toml",
        format!(
            r#"
            name = "inbox"
            input = {{ range = "0..9" }}
            results = "s3://{name}/out"
            ledger = "dynamodb:{name}"
            [function.ecs]
            cluster = "media"
            task_definition = "work"
            container = "work"
            subnets = ["subnet-1"]
            events_queue = "sqs:{name}-events"
            "#
        ),
    );
    let missing = place.trommel(&["worker", "job.toml", "--lane", "function"]);
    let missing = missing.exits(2).stderr;
    assert!(missing.contains("provision --apply"), "{missing}");
    let apply = ["provision", "job.toml", "--apply", "--json"];
    let made: Value = place.trommel(&apply).exits(0).json();
    let leave = format!("leave for rule `trommel-inbox-function` to send to queue `{name}-events`");
    let wanted = [format!("queue `{name}-events`"), leave];
    assert!(
        texts(&made["created"]).is_superset(&wanted.into()),
        "{made}"
    );
    let again: Value = place.trommel(&apply).exits(0).json();
    assert_eq!(texts(&again["created"]), BTreeSet::new(), "{again}");
    assert_eq!(texts(&again["changed"]), BTreeSet::new(), "{again}");
    let rule = &again["eventRules"][0];
    assert_eq!(rule["name"], "trommel-inbox-function");
    let target = rule["target"].as_str().expect("an ARN");
    assert!(target.starts_with("arn:aws:sqs:us-east-1:"), "{target}");
    let worker = again["policies"]["worker"].to_string();
    assert!(worker.contains(target), "{worker}");
    let router = again["policies"]["router"].to_string();
    assert!(!router.contains(target), "{router}");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_told_before_anything_is_made() {
    let Some(emulator) = emulator("provision without a bucket").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "bucketless").await;
    let job = std::fs::read_to_string(inbox.place.path("job.toml")).expect("just written");
    let bucket = format!("bucket = \"{}\"", inbox.name);
    let job = job.replace(&bucket, "bucket = \"nobody-made-this\"");
    inbox.place.write("job.toml", job);
    let refused = inbox.place.trommel(&["provision", "job.toml", "--apply"]);
    let refused = refused.exits(4).stderr;
    assert!(refused.contains("nobody-made-this"), "{refused}");
    assert!(refused.contains("make it first"), "{refused}");
    let table = inbox.clients.dynamodb.describe_table();
    let table = table.table_name(&inbox.name).send().await;
    assert!(table.is_err(), "nothing was made: {table:?}");
}

#[tokio::test]
async fn a_setting_that_differs_is_told_and_set_back() {
    let Some(emulator) = emulator("provision over other settings").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "resettled").await;
    let place = &inbox.place;
    place
        .trommel(&["provision", "job.toml", "--apply"])
        .exits(0);
    inbox
        .clients
        .sqs
        .set_queue_attributes()
        .queue_url(inbox.url().await)
        .attributes("MaximumMessageSize".into(), "4096")
        .send()
        .await
        .expect("it answers");
    let sick = place.trommel(&["doctor", "job.toml"]).exits(4).stdout;
    assert!(sick.contains("4096 bytes"), "{sick}");
    let told: Value = place
        .trommel(&["provision", "job.toml", "--apply", "--json"])
        .exits(0)
        .json();
    let expected = format!(
        "queue `{}`: MaximumMessageSize 4096 → 1048576",
        inbox.queue_name()
    );
    assert_eq!(texts(&told["changed"]), BTreeSet::from([expected]));
    assert_eq!(texts(&told["created"]), BTreeSet::new(), "{told}");
    place.trommel(&["doctor", "job.toml"]).exits(0);
}

#[tokio::test]
async fn a_doctor_passes_what_was_provisioned_and_finds_what_was_taken_away() {
    let Some(emulator) = emulator("doctor").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "doctor").await;
    let place = &inbox.place;
    let before = place.trommel(&["doctor", "job.toml"]).exits(4).stdout;
    assert!(before.contains("is not there"), "{before}");
    assert!(
        before.contains("trommel provision job.toml --apply"),
        "{before}"
    );
    place
        .trommel(&["provision", "job.toml", "--apply"])
        .exits(0);
    let well: Value = place
        .trommel(&["doctor", "job.toml", "--json"])
        .exits(0)
        .json();
    assert_eq!(well["health"], "ok", "{well}");
    let checks = well["checks"].as_array().expect("a list");
    assert!(checks.len() >= 10, "{well}");

    let url = inbox.url().await;
    inbox
        .clients
        .sqs
        .set_queue_attributes()
        .queue_url(&url)
        .attributes(
            "Policy".into(),
            r#"{"Version":"2012-10-17","Statement":[]}"#,
        )
        .send()
        .await
        .expect("it answers");
    let sick = place.trommel(&["doctor", "job.toml"]).exits(4).stdout;
    let failed: Vec<&str> = sick
        .lines()
        .filter(|line| line.starts_with("fail"))
        .collect();
    assert_eq!(failed.len(), 1, "{sick}");
    assert!(failed[0].contains("does not let S3 send"), "{sick}");
    assert!(
        failed[0].contains("trommel provision job.toml --apply"),
        "{sick}"
    );
    place
        .trommel(&["provision", "job.toml", "--apply"])
        .exits(0);
    place.trommel(&["doctor", "job.toml"]).exits(0);
}

#[tokio::test]
async fn objects_whose_events_were_lost_are_found_and_taken_in() {
    let Some(emulator) = emulator("reconcile").await else {
        return;
    };
    let inbox = Inbox::new(emulator, "reconcile").await;
    inbox
        .place
        .trommel(&["provision", "job.toml", "--apply"])
        .exits(0);
    for number in 0..5 {
        inbox.put(&format!("in/{number}"), "told of").await;
    }
    inbox.put("in/folder/", "").await;
    let process = inbox.serve();
    inbox.reconciled(5, 0);
    process.signal(Signal::SIGTERM);
    process.wait().exits(143);

    // Lost: seven new ones of all spellings, and an overwrite.
    let mut lost: BTreeSet<String> = ["a b", "a+b", "50%", "ä", "=x", "d/e", "plain"]
        .iter()
        .map(|name| format!("in/lost {name}"))
        .collect();
    for key in &lost {
        inbox.put(key, "never told of").await;
    }
    inbox.put("in/3", "overwritten").await;
    inbox.put("out/result", "of Trommel's own").await;
    lost.insert("in/3".to_owned());
    inbox.lose_events(&lost).await;

    let begun = now();
    let found = inbox.reconciled(12, lost.len() as u64);
    assert_eq!(texts(&found["examples"]), lost);
    assert_eq!(found["sent"], 0);
    assert!(
        found["estimatedUsd"].as_f64().is_some_and(|usd| usd > 0.0),
        "{found}"
    );
    let applied = inbox.reconcile(&["--apply"]);
    assert_eq!(applied["sent"], lost.len(), "{applied}");
    figure(&format!(
        "{}: {} of 12 objects found missing and sent in {:.1?}",
        emulator.kind().as_str(),
        lost.len(),
        begun.elapsed()
    ));
    let depth = inbox.queue().await.depth().await.expect("it answers");
    assert_eq!(depth.ready + depth.hidden, lost.len() as u64, "{depth:?}");

    let process = inbox.serve();
    inbox.reconciled(12, 0);
    process.signal(Signal::SIGTERM);
    process.wait().exits(143);
    let status = inbox.place.status();
    assert_eq!(status.item_counts.total, 5 + lost.len() as u64, "each once");
}

/// All that a walk shows: keys, with their versions where there are any; and how many pages it took.
async fn walked(clients: &Clients, bucket: &str, prefix: &str) -> (Vec<(String, bool)>, usize) {
    let mut walk = Walk::open(clients, bucket, prefix)
        .await
        .expect("it is there");
    let (mut seen, mut pages) = (Vec::new(), 0);
    while let Some(page) = walk.page().await.expect("it answers") {
        pages += 1;
        for event in page {
            assert!(event.etag.is_some() && event.at.0 > 0, "{event:?}");
            let key = String::from_utf8_lossy(&event.key).into_owned();
            seen.push((key, event.version.is_some()));
        }
    }
    (seen, pages)
}

#[tokio::test]
async fn a_walk_goes_over_pages_and_shows_of_versions_the_current_ones() {
    let Some(emulator) = emulator("walks over buckets").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("walk");
    emulator
        .bucket(&clients, &name)
        .await
        .expect("a new bucket");
    let bucket = S3Objects::new(&clients, &name);
    // A page holds a thousand.
    let keys: Vec<String> = (0..1005).map(|n| format!("in/a b+{n:04}")).collect();
    for some in keys.chunks(50) {
        let puts = some
            .iter()
            .map(|key| bucket.put(key.as_bytes(), Bytes::from_static(b"x")));
        for put in futures_util::future::join_all(puts).await {
            put.expect("it answers");
        }
    }
    let (seen, pages) = walked(&clients, &name, "in/").await;
    let plain: Vec<(String, bool)> = keys.into_iter().map(|key| (key, false)).collect();
    assert_eq!((seen, pages), (plain, 2));

    let enabled = aws_sdk_s3::types::VersioningConfiguration::builder()
        .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
        .build();
    let set = clients.s3.put_bucket_versioning().bucket(&name);
    set.versioning_configuration(enabled)
        .send()
        .await
        .expect("it answers");
    for key in ["new/gone", "new/kept", "new/kept"] {
        let put = bucket.put(key.as_bytes(), Bytes::from_static(b"y")).await;
        put.expect("it answers");
    }
    bucket.delete(b"new/gone").await.expect("it answers");
    let (seen, _) = walked(&clients, &name, "new/").await;
    assert_eq!(seen, [("new/kept".to_owned(), true)]);
    // What was written before it had versions has none.
    let (seen, pages) = walked(&clients, &name, "in/").await;
    assert_eq!((seen.len(), pages), (1005, 2));
    assert!(seen.iter().all(|(_, has_version)| !has_version));
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_with_a_way_out() {
    // No emulator is needed for these.
    let place = Place::new();
    place.write(
        "job.toml",
        r#"
        input = { events = "sqs:inbox" }
        ledger = "dynamodb:table"
        scratch = "s3://bucket/scratch"
        [function]
        command = ["true"]
        "#,
    );
    for command in [
        vec!["provision", "job.toml"],
        vec!["reconcile", "job.toml", "--since", "2h"],
    ] {
        let refused = place.trommel(&command).exits(2).stderr;
        assert!(refused.contains("E0205"), "{refused}");
        assert!(refused.contains("bucket = \"NAME\""), "{refused}");
    }
    place.trommel(&["reconcile", "job.toml"]).exits(2);

    place.write(
        "rows.toml",
        "input = { jsonl = \"rows.jsonl\" }\n[function]\ncommand = [\"true\"]",
    );
    let refused = place.trommel(&["estimate", "rows.toml"]).exits(2).stderr;
    assert!(refused.contains("--items 1000000"), "{refused}");
    place
        .trommel(&["estimate", "rows.toml", "--items", "10"])
        .exits(0);
    let estimated: Value = place
        .trommel(&["estimate", "job.toml", "--items", "1000000", "--json"])
        .exits(0)
        .json();
    assert_eq!(estimated["itemsKnownBy"], "given");
    let requests = estimated["requests"].as_f64().expect("a number");
    assert!(requests / 1e6 <= 1.4, "{estimated}");
    let usd = estimated["usd"]["total"].as_f64().expect("a number");
    assert!(usd > 0.625 && usd <= 1.30, "{estimated}");
}

#[test]
fn an_estimate_counts_what_it_can_and_takes_other_prices() {
    /// What every job has.
    const TAIL: &str = "scratch = \"s3://bucket/scratch\"\n[function]\ncommand = [\"true\"]";
    // Files and an embedded ledger: AWS is asked next to nothing.
    let place = Place::new();
    let job = |input: &str, ledger: &str| format!("input = {input}\nledger = \"{ledger}\"\n{TAIL}");
    let estimate = |options: &[&str]| -> Value {
        let args = ["estimate", "job.toml", "--json"];
        let args: Vec<&str> = args.iter().chain(options).copied().collect();
        place.trommel(&args).exits(0).json()
    };
    place.write("job.toml", job("{ range = \"0..25000\" }", "sqlite:l.db"));
    let embedded = estimate(&[]);
    assert_eq!(embedded["items"], 25_000);
    assert_eq!(embedded["itemsKnownBy"], "job");
    assert_eq!(embedded["usage"]["dynamodbRequests"], 0, "{embedded}");
    assert_eq!(embedded["usage"]["sqsRequests"], 0, "{embedded}");

    for name in ["a", "b", "c"] {
        place.write(format!("in/{name}"), "some bytes");
    }
    place.write("job.toml", job("{ objects = \"in\" }", "dynamodb:table"));
    let listed = estimate(&[]);
    assert_eq!((&listed["items"], &listed["pages"]), (&3.into(), &1.into()));
    assert_eq!(listed["itemsKnownBy"], "listed");
    assert_eq!(
        listed["objectsRead"]["s3Gets"], 0,
        "what lies in directories: {listed}"
    );

    let usd = |estimated: &Value| estimated["usd"]["dynamodb"].as_f64().expect("a number");
    let list = usd(&estimate(&["--items", "1000000"]));
    place.write(
        "prices.toml",
        "write_unit_million_usd = 1.25\nread_unit_million_usd = 0.25\n",
    );
    let double = usd(&estimate(&[
        "--items",
        "1000000",
        "--prices",
        "prices.toml",
    ]));
    assert!((double - 2.0 * list).abs() < 1e-9, "{list}, {double}");
    let free = [
        "--write-unit-million-usd",
        "0",
        "--read-unit-million-usd",
        "0",
    ];
    let args: Vec<&str> = ["--items", "1000000", "--prices", "prices.toml"]
        .into_iter()
        .chain(free)
        .collect();
    assert!(
        usd(&estimate(&args)).abs() < 1e-9,
        "options go before the file"
    );
    place.write("prices.toml", "write_units = 1");
    let refused = place.trommel(&["estimate", "job.toml", "--prices", "prices.toml"]);
    let refused = refused.exits(2).stderr;
    assert!(refused.contains("unknown field"), "{refused}");
}
