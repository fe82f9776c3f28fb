//! What the AWS adapters promise beyond the ports' contracts: the blueprint, the profile, S3's keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use trommel::adapters::aws::{Blueprint, Clients, DynamoTable, Endpoint, S3Objects, SqsQueue};
use trommel::core::id::JobName;
use trommel::core::lane::Lane;
use trommel::ports::queue::Outgoing;
use trommel::ports::{
    Consistency, Key, Objects, ObjectsError, Queue, QueueError, Row, Table, TableError, Update,
    Write,
};

use trommel_localstack::{EncodedListings, Kind};

use crate::emulator_arms::{emulator, fresh, left_out};

/// A queue must show a message that was sent within this time.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_blueprint_may_be_applied_again_and_by_several_at_once() {
    let Some(emulator) = emulator("applying a blueprint").await else {
        return;
    };
    let name = fresh("blueprint-twice");
    let blueprint = Blueprint::new(&name)
        .and_then(|blueprint| blueprint.with_job(&JobName::new("job"), &Lane::ALL))
        .expect("plain names");
    let (one, two) = tokio::join!(emulator.apply(&blueprint), emulator.apply(&blueprint));
    one.expect("the first");
    two.expect("another beside it");
    let (clients, found) = emulator.apply(&blueprint).await.expect("once more");
    assert_eq!(found.created, Vec::<String>::new());
    assert_eq!(found.present.len(), 3);

    let queue = SqsQueue::open(&clients, &format!("{name}-job-function")).await;
    let queue = queue.expect("the blueprint made it");
    let rejected = queue.send(vec![Outgoing::now("hint")]).await;
    assert_eq!(rejected, Ok(Vec::new()));
}

#[tokio::test]
async fn what_does_not_exist_is_refused_with_a_way_out() {
    let Some(emulator) = emulator("errors about what is missing").await else {
        return;
    };
    let clients = emulator.clients().await;
    let table = DynamoTable::new(&clients, "nobody-made-this");
    let error = table.get(&Key::new("a", "b"), Consistency::Strong).await;
    let Err(TableError::Refused(text)) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("trommel provision"), "{text}");

    let error = SqsQueue::open(&clients, "nobody-made-this").await;
    let Err(QueueError::Refused(text)) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("nobody-made-this"), "{text}");
    assert!(text.contains("trommel provision"), "{text}");

    let bucket = S3Objects::new(&clients, "nobody-made-this");
    let error = bucket.list(b"", None, 10).await;
    assert!(matches!(error, Err(ObjectsError::Refused(_))), "{error:?}");
}

#[tokio::test]
async fn nobody_listening_is_known_not_to_have_written() {
    // Port 9 (discard) is nobody's on a loopback interface; no emulator is needed for this.
    let clients = Clients::open(Endpoint::emulator("http://127.0.0.1:9")).await;
    let table = DynamoTable::new(&clients, "any");
    let error = table
        .write(Write::create(Key::new("a", "b"), Row::new()))
        .await;
    assert!(matches!(error, Err(TableError::Throttled(_))), "{error:?}");
}

#[tokio::test]
async fn a_request_to_the_table_goes_once_and_a_lost_reply_is_unclear() {
    // A service that reads every request and hangs up instead of answering; no emulator is needed.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let heard = Arc::new(AtomicUsize::new(0));
    let hearing = heard.clone();
    let service = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let read = connection.read(&mut request).await;
            if read.is_ok_and(|bytes| bytes > 0) {
                hearing.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let clients = Clients::open(Endpoint::emulator(url)).await;
    let table = DynamoTable::new(&clients, "any");
    let key = Key::new("a", "b");
    let add = || Write::update(key.clone(), Vec::new(), vec![Update::Add("n".into(), 1)]);

    let error = table.write(add()).await;
    assert!(matches!(error, Err(TableError::Unclear(_))), "{error:?}");
    let error = table.transact("token", vec![add()]).await;
    assert!(matches!(error, Err(TableError::Unclear(_))), "{error:?}");
    assert_eq!(heard.load(Ordering::Relaxed), 2, "each went once");

    let error = table.get(&key, Consistency::Strong).await;
    assert!(matches!(error, Err(TableError::Unclear(_))), "{error:?}");
    let all = heard.load(Ordering::Relaxed);
    assert_eq!(all, 3, "a read goes once, too: the ledger tries again");
    service.abort();
}

#[tokio::test]
async fn a_transaction_takes_as_many_writes_as_the_profile_says() {
    let Some(emulator) = emulator("the bound of a transaction").await else {
        return;
    };
    let name = fresh("transact-bound");
    let blueprint = Blueprint::new(&name).expect("a plain name");
    let (clients, _) = emulator.apply(&blueprint).await.expect("it answers");
    let table = DynamoTable::new(&clients, &name);
    let most = table.profile().transact_writes_max;
    assert_eq!(most, emulator.profile().transact_writes_max);
    let writes = |count: usize| {
        let keys = (0..count).map(|n| Key::new("p", format!("{n:03}")));
        keys.map(|key| Write::update(key, Vec::new(), vec![Update::Add("n".into(), 1)]))
            .collect::<Vec<_>>()
    };
    assert_eq!(table.transact("full", writes(most)).await, Ok(()));
    let over = table.transact("over", writes(most + 1)).await;
    assert!(matches!(over, Err(TableError::Refused(_))), "{over:?}");

    // The profile is the emulator's own bound, not a guess below it: one more is refused there too.
    let bold = Clients::open(emulator.endpoint().with_transact_writes_max(most + 1)).await;
    if most < 100 {
        let over = DynamoTable::new(&bold, &name)
            .transact("bold", writes(most + 1))
            .await;
        assert!(matches!(over, Err(TableError::Refused(_))), "{over:?}");
    }
}

#[tokio::test]
async fn a_transaction_with_a_token_that_was_done_adds_nothing() {
    let Some(emulator) = emulator("repeated transactions").await else {
        return;
    };
    let name = fresh("transact-token");
    let blueprint = Blueprint::new(&name).expect("a plain name");
    let (clients, _) = emulator.apply(&blueprint).await.expect("it answers");
    let table = DynamoTable::new(&clients, &name);
    let key = Key::new("p", "s");
    let add = || {
        let update = vec![Update::Add("n".into(), 1)];
        vec![Write::update(key.clone(), Vec::new(), update)]
    };
    assert_eq!(table.transact("one", add()).await, Ok(()));
    assert_eq!(table.transact("one", add()).await, Ok(()));
    assert_eq!(table.transact("two", add()).await, Ok(()));
    let row = table
        .get(&key, Consistency::Strong)
        .await
        .expect("it answers");
    assert_eq!(row.and_then(|row| row.num("n")), Some(2));
}

/// Keys that break software which takes them for paths, URLs or XML.
const ODD_KEYS: [&str; 14] = [
    "plain.txt",
    "a b+c.txt",
    "a%2Bb%20c",
    "100%",
    "a//b",
    "/leading",
    "trailing/",
    "up/../down",
    "..",
    "line\nbreak\ttab",
    "amp&lt<gt>\"quote'",
    "é-漢-😀",
    "query?x=1&y=2#z",
    "back\\slash:;,=@$~!*()[]{}|^`",
];

#[tokio::test]
async fn any_key_that_s3_takes_comes_through_whole() {
    let Some(emulator) = emulator("odd keys in S3").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("odd-keys");
    emulator.bucket(&clients, &name).await.expect("it answers");
    let bucket = S3Objects::new(&clients, &name);
    let long = "k".repeat(1024);
    let keys: BTreeSet<&str> = ODD_KEYS.into_iter().chain([long.as_str()]).collect();
    for key in &keys {
        let put = bucket
            .put(key.as_bytes(), Bytes::from((*key).to_owned()))
            .await;
        put.unwrap_or_else(|e| panic!("{key:?}: {e}"));
    }
    let expected: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(list_all(&bucket, 4).await, expected);
    for key in &keys {
        let object = bucket.head(key.as_bytes()).await;
        let object = object.unwrap_or_else(|e| panic!("{key:?}: {e}"));
        assert_eq!(object.size_bytes, key.len() as u64, "{key:?}");
        let reader = bucket.get(key.as_bytes(), 0, None, Some(&object.pin)).await;
        let mut reader = reader.unwrap_or_else(|e| panic!("{key:?}: {e}"));
        let mut text = String::new();
        reader.read_to_string(&mut text).await.expect("it is text");
        assert_eq!(text, **key);
    }
    for refused in [&b""[..], b"\xff", &[b'k'; 1025]] {
        let put = bucket.put(refused, Bytes::new()).await;
        assert!(matches!(put, Err(ObjectsError::Refused(_))), "{put:?}");
    }
}

/// The keys of a bucket whose keys are text, so many at a time.
async fn list_all(bucket: &S3Objects, limit: usize) -> Vec<String> {
    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().map(String::as_bytes);
        let page = bucket.list(b"", after, limit).await.expect("it answers");
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("these keys are text");
        listed.extend(page.objects.iter().map(|one| text(&one.key)));
        if !page.more {
            return listed;
        }
    }
}

#[tokio::test]
async fn an_encoded_listing_goes_as_the_profile_says() {
    let Some(emulator) = emulator("encoded listings").await else {
        return;
    };
    match emulator.kind() {
        Kind::LocalStack | Kind::MiniStack => {}
        // Its profile is a guess, with nothing to hold it to.
        Kind::Unknown => return left_out("nothing is known of this endpoint's encoded listings"),
    }
    // As AWS is asked: here the adapter's decoding meets a service.
    let mut endpoint = emulator.endpoint();
    endpoint.encoded_listings = true;
    let clients = Clients::open(endpoint).await;
    let name = fresh("encoded");
    let made = emulator.bucket(&clients, &name).await;
    made.expect("it answers");
    let bucket = S3Objects::new(&clients, name);
    let keys: BTreeSet<&str> = ODD_KEYS.into_iter().collect();
    for key in &keys {
        let put = bucket.put(key.as_bytes(), Bytes::new()).await;
        put.expect("it answers");
    }
    let expected: Vec<&str> = keys.into_iter().collect();
    let found = if list_all(&bucket, 1).await == expected {
        EncodedListings::ByKey
    } else {
        EncodedListings::BySpelling
    };
    assert_eq!(found, emulator.profile().encoded_listings);
}

#[tokio::test]
async fn a_large_object_appears_whole_or_never() {
    let Some(emulator) = emulator("multipart uploads").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("uploads");
    emulator.bucket(&clients, &name).await.expect("it answers");
    let bucket = S3Objects::new(&clients, &name);
    let piece = Bytes::from(vec![7; 3 * 1024 * 1024]);

    let mut upload = bucket.upload(b"whole").await.expect("it answers");
    for _ in 0..7 {
        upload.add(piece.clone()).await.expect("it answers");
    }
    assert!(matches!(
        bucket.head(b"whole").await,
        Err(ObjectsError::NotFound(_))
    ));
    let pin = upload.complete().await.expect("it answers");
    let object = bucket.head(b"whole").await.expect("it is there");
    assert_eq!(object.size_bytes, 21 * 1024 * 1024);
    assert_eq!(object.pin, pin);

    let mut upload = bucket.upload(b"never").await.expect("it answers");
    for _ in 0..4 {
        upload.add(piece.clone()).await.expect("it answers");
    }
    upload.abort().await.expect("it answers");
    assert!(matches!(
        bucket.head(b"never").await,
        Err(ObjectsError::NotFound(_))
    ));
    let left = clients
        .s3
        .list_multipart_uploads()
        .bucket(&name)
        .send()
        .await;
    let left = left.expect("it answers");
    assert_eq!(left.uploads().len(), 0, "{left:?}");

    let upload = bucket.upload(b"empty").await.expect("it answers");
    upload.complete().await.expect("it answers");
    let object = bucket.head(b"empty").await.expect("it is there");
    assert_eq!(object.size_bytes, 0);
}

#[tokio::test]
async fn a_pin_to_a_version_still_reads_what_was_overwritten() {
    let Some(emulator) = emulator("versioned buckets").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("versions");
    emulator.bucket(&clients, &name).await.expect("it answers");
    let enabled = aws_sdk_s3::types::VersioningConfiguration::builder()
        .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
        .build();
    let set = clients.s3.put_bucket_versioning().bucket(&name);
    set.versioning_configuration(enabled)
        .send()
        .await
        .expect("it answers");
    let bucket = S3Objects::new(&clients, &name);
    let first = bucket
        .put(b"k", Bytes::from_static(b"first"))
        .await
        .expect("it answers");
    let second = bucket
        .put(b"k", Bytes::from_static(b"second"))
        .await
        .expect("it answers");
    assert_ne!(first.version, second.version);
    assert_eq!(bucket.head(b"k").await.expect("it is there").pin, second);
    for (pin, expected) in [(&first, "first"), (&second, "second")] {
        let mut text = String::new();
        let mut reader = bucket
            .get(b"k", 0, None, Some(pin))
            .await
            .expect("it is there");
        reader.read_to_string(&mut text).await.expect("it is text");
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn the_same_delivery_twice_in_a_batch_is_one_delete() {
    let Some(emulator) = emulator("batches with doubles").await else {
        return;
    };
    let clients = emulator.clients().await;
    let name = fresh("doubles");
    emulator.queue(&clients, &name).await.expect("it answers");
    let queue = SqsQueue::open(&clients, &name).await.expect("just made");
    assert_eq!(queue.send(vec![Outgoing::now("x")]).await, Ok(Vec::new()));
    let wait = Duration::from_secs(5);
    let begun = std::time::Instant::now();
    let message = loop {
        let received = queue.receive(10, wait, Duration::from_mins(1)).await;
        if let Some(message) = received.expect("it answers").pop() {
            break message;
        }
        assert!(begun.elapsed() < DEADLINE, "the message never came");
    };
    assert_eq!(message.receive_count, 1);
    let twice = vec![message.handle.clone(), message.handle];
    assert_eq!(queue.delete(twice).await, Ok(Vec::new()));
}
