//! The contract of [`Objects`].

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::AsyncReadExt as _;
use trommel::core::item::{Object, Pin};
use trommel::ports::objects::{Objects, ObjectsError, Reader};

/// The least of a piece that is not the last ("Multipart upload limits").
const PIECE_BYTES: usize = 5 * 1024 * 1024;

/// The longest key ("Creating object key names").
const KEY_BYTES_MAX: usize = 1024;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn put(objects: &dyn Objects, key: &str, text: &'static str) -> Pin {
    let pin = objects.put(key.as_bytes(), bytes(text)).await;
    pin.expect("put")
}

async fn read(mut reader: Reader) -> Vec<u8> {
    let mut content = Vec::new();
    reader.read_to_end(&mut content).await.expect("read");
    content
}

async fn content(objects: &dyn Objects, key: &str) -> Vec<u8> {
    let reader = objects.get(key.as_bytes(), 0, None, None).await;
    read(reader.expect("it is there")).await
}

async fn head(objects: &dyn Objects, key: &str) -> Result<Object, ObjectsError> {
    objects.head(key.as_bytes()).await
}

async fn assert_missing(objects: &dyn Objects, key: &str) {
    let found = head(objects, key).await;
    assert!(matches!(found, Err(ObjectsError::NotFound(_))), "{found:?}");
    let found = objects.get(key.as_bytes(), 0, None, None).await.err();
    assert!(
        matches!(found, Some(ObjectsError::NotFound(_))),
        "{found:?}"
    );
}

/// All objects of a prefix, page by page.
async fn all(objects: &dyn Objects, prefix: &str, limit: usize) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    loop {
        let after = found.last().map(|object| object.key.clone());
        let listing = objects
            .list(prefix.as_bytes(), after.as_deref(), limit)
            .await;
        let listing = listing.expect("listed");
        assert!(listing.objects.len() <= limit);
        assert!(!(listing.more && listing.objects.is_empty()), "no way on");
        found.extend(listing.objects);
        if !listing.more {
            return found;
        }
    }
}

fn names(objects: &[Object], prefix: &str) -> Vec<String> {
    let name = |object: &Object| {
        let key = String::from_utf8(object.key.to_vec()).expect("these keys are text");
        key.strip_prefix(prefix)
            .expect("it has the prefix")
            .to_owned()
    };
    objects.iter().map(name).collect()
}

/// Any bytes, none too.
pub async fn an_object_is_got_as_it_was_put(objects: &dyn Objects) {
    let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (key, body) in [
        ("contract-whole/bytes", every),
        ("contract-whole/empty", vec![]),
    ] {
        let put = objects.put(key.as_bytes(), Bytes::from(body.clone())).await;
        put.expect("put");
        assert!(content(objects, key).await == body);
    }
}

/// Missing objects are told apart from every other trouble.
pub async fn what_is_not_there_is_not_found(objects: &dyn Objects) {
    assert_missing(objects, "contract-missing/none").await;
    put(objects, "contract-missing/there", "x").await;
    assert_missing(objects, "contract-missing/the").await;
    assert_missing(objects, "contract-missing").await;
    assert_eq!(all(objects, "contract-missing/none", 10).await, []);
}

/// One state, one pin: from put, head and listing alike; and its size.
pub async fn head_and_list_tell_what_put_told(objects: &dyn Objects) {
    let key = "contract-head/object";
    let expected = Object {
        bucket: None,
        pin: put(objects, key, "twelve bytes").await,
        key: key.as_bytes().into(),
        size_bytes: 12,
    };
    assert_eq!(head(objects, key).await, Ok(expected.clone()));
    assert_eq!(all(objects, "contract-head/", 10).await, [expected]);
}

/// A put over an object replaces it whole.
pub async fn a_put_replaces_and_changes_the_pin(objects: &dyn Objects) {
    let key = "contract-replace/object";
    let first = put(objects, key, "a long first content").await;
    let second = put(objects, key, "second").await;
    assert_ne!(first, second);
    assert_eq!(content(objects, key).await, b"second");
    assert_eq!(
        head(objects, key).await.map(|object| object.size_bytes),
        Ok(6)
    );
}

/// From `start` up to, not including, `end`, cut at the object's end.
pub async fn a_stretch_is_what_it_says(objects: &dyn Objects) {
    let key = "contract-stretch/object";
    let pin = put(objects, key, "0123456789").await;
    for (start, end, expected) in [
        (0, None, "0123456789"),
        (3, None, "3456789"),
        (0, Some(4), "0123"),
        (3, Some(4), "3"),
        (8, Some(100), "89"),
        (0, Some(10), "0123456789"),
    ] {
        for pin in [None, Some(&pin)] {
            let reader = objects.get(key.as_bytes(), start, end, pin).await;
            let stretch = read(reader.expect("it is there")).await;
            assert_eq!(stretch, expected.as_bytes(), "{start} to {end:?}");
        }
    }
}

/// With a pin exactly that state, or `Changed`.
pub async fn a_pin_holds_a_reading_to_one_state(objects: &dyn Objects) {
    let key = "contract-pin/object";
    let old = put(objects, key, "old").await;
    let new = put(objects, key, "new").await;
    let pinned = |pin| objects.get(key.as_bytes(), 0, None, Some(pin));
    let changed = pinned(&old).await.err();
    assert!(
        matches!(changed, Some(ObjectsError::Changed(_))),
        "{changed:?}"
    );
    assert_eq!(read(pinned(&new).await.expect("as pinned")).await, b"new");
    objects.delete(key.as_bytes()).await.expect("deleted");
    let gone = pinned(&new).await.err();
    assert!(matches!(gone, Some(ObjectsError::NotFound(_))), "{gone:?}");
}

/// `Exists` if there is one; of many at once, one writes it.
pub async fn a_put_if_absent_happens_once(objects: &dyn Objects) {
    let key = b"contract-absent/object";
    let rivals = (0..20).map(|n: usize| async move {
        let body = Bytes::from(n.to_string());
        (n, objects.put_if_absent(key, body).await)
    });
    let mut winner = None;
    for (n, result) in join_all(rivals).await {
        match result {
            Ok(_) => assert_eq!(winner.replace(n), None, "two have won"),
            // S3 answers a conflict to those that come while the first is written.
            Err(ObjectsError::Exists(_) | ObjectsError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let winner = winner.expect("one has won").to_string();
    assert_eq!(
        content(objects, "contract-absent/object").await,
        winner.as_bytes()
    );
    let late = objects.put_if_absent(key, bytes("late")).await;
    assert!(matches!(late, Err(ObjectsError::Exists(_))), "{late:?}");
    objects.delete(key).await.expect("deleted");
    objects
        .put_if_absent(key, bytes("new"))
        .await
        .expect("there is none");
}

/// No error if it was not there.
pub async fn a_delete_may_be_repeated(objects: &dyn Objects) {
    let key = "contract-delete/object";
    put(objects, key, "x").await;
    for _ in 0..2 {
        objects.delete(key.as_bytes()).await.expect("deleted");
        assert_missing(objects, key).await;
        assert_eq!(all(objects, "contract-delete/", 10).await, []);
    }
}

/// The bytes of whole keys decide; each object once, whatever the limit.
pub async fn a_listing_is_in_byte_order_however_it_is_paged(objects: &dyn Objects) {
    let prefix = "contract-order/";
    let sorted = [
        "A", "a b", "a!/x", "a-b", "a.txt", "a/b", "a/b.c/d", "a/b0", "a/c", "a0", "b\nc", "z~",
        "é/é",
    ];
    for name in sorted.iter().rev() {
        put(objects, &format!("{prefix}{name}"), "x").await;
    }
    put(objects, "contract-orderly", "beside it").await;
    for limit in [1, 2, 3, 5, 12, 13, 14, 1000] {
        let found = all(objects, prefix, limit).await;
        assert_eq!(names(&found, prefix), sorted, "limit {limit}");
    }
    let below = all(objects, "contract-order/a/b", 2).await;
    assert_eq!(names(&below, prefix), ["a/b", "a/b.c/d", "a/b0"]);
}

/// `after` need not be a key, nor have the prefix; what lies before it is left out.
pub async fn a_listing_begins_after_any_key(objects: &dyn Objects) {
    let prefix = "contract-after/";
    for name in ["a", "b/c", "d"] {
        put(objects, &format!("{prefix}{name}"), "x").await;
    }
    for (after, expected) in [
        ("contract-after/a", vec!["b/c", "d"]),
        ("contract-after/aa", vec!["b/c", "d"]),
        ("contract-after/b/", vec!["b/c", "d"]),
        ("contract-after/b/c", vec!["d"]),
        ("contract-after/b/c/d", vec!["d"]),
        ("contract-after/b0", vec!["d"]),
        ("contract-after/d", vec![]),
        ("contract-afte", vec!["a", "b/c", "d"]),
    ] {
        let listing = objects
            .list(prefix.as_bytes(), Some(after.as_bytes()), 10)
            .await;
        let listing = listing.expect("listed");
        assert_eq!(names(&listing.objects, prefix), expected, "after {after}");
        assert!(!listing.more);
    }
}

/// Put before it began and not deleted: in it exactly once, whatever comes and goes meanwhile.
pub async fn a_listing_under_change_has_what_stays(objects: &dyn Objects) {
    let prefix = "contract-change/";
    let stays: Vec<String> = (0..20).map(|n| format!("{n:02}/stays")).collect();
    for n in 0..20 {
        put(objects, &format!("{prefix}{n:02}/stays"), "x").await;
        put(objects, &format!("{prefix}{n:02}/goes"), "x").await;
    }
    let mut found: Vec<Object> = Vec::new();
    for n in 0.. {
        let after = found.last().map(|object| object.key.clone());
        let listing = objects.list(prefix.as_bytes(), after.as_deref(), 3).await;
        let listing = listing.expect("listed");
        found.extend(listing.objects);
        if !listing.more {
            break;
        }
        let at = n * 7 % 20;
        let goes = format!("{prefix}{at:02}/goes");
        objects.delete(goes.as_bytes()).await.expect("deleted");
        put(objects, &format!("{prefix}{at:02}/comes{n}"), "x").await;
        put(objects, &format!("{prefix}new{n}/comes"), "x").await;
    }
    let mut found = names(&found, prefix);
    assert!(found.is_sorted(), "{found:?}");
    found.retain(|name| name.ends_with("/stays"));
    assert_eq!(found, stays);
}

/// Where the profile says so, any text is a key; else what is no plain path is refused.
pub async fn odd_keys_are_keys_or_refused(objects: &dyn Objects) {
    let long = "k".repeat(KEY_BYTES_MAX - "contract-odd/".len());
    for name in ["a//b", "../up", "x/../y", "./here", "slash/", "//", &long] {
        let key = format!("contract-odd/{name}");
        let put = objects.put(key.as_bytes(), bytes("odd")).await;
        if !objects.profile().any_key {
            assert!(
                matches!(put, Err(ObjectsError::Refused(_))),
                "{key}: {put:?}"
            );
            continue;
        }
        put.expect("any text is a key");
        assert_eq!(content(objects, &key).await, b"odd", "{key}");
        let found = all(objects, &key, 1).await;
        assert_eq!(names(&found[..1], "contract-odd/"), [name]);
    }
    for name in [
        "space and +plus",
        "new\nline",
        "per%20cent",
        "é漢🥁",
        "quote\"'<&>",
        "...",
    ] {
        let key = format!("contract-odd/{name}");
        put(objects, &key, "odd").await;
        assert_eq!(content(objects, &key).await, b"odd", "{key}");
        assert_eq!(all(objects, &key, 1).await.len(), 1, "{key}");
    }
}

/// It appears at `complete`, in its order, replacing a former one.
pub async fn an_upload_appears_whole(objects: &dyn Objects) {
    let key = "contract-upload/object";
    let mut upload = objects.upload(key.as_bytes()).await.expect("begun");
    upload
        .add(Bytes::from(vec![1; PIECE_BYTES]))
        .await
        .expect("added");
    assert_missing(objects, key).await;
    upload.add(bytes("the end")).await.expect("added");
    let pin = upload.complete().await.expect("completed");
    let whole = content(objects, key).await;
    assert_eq!(whole.len(), PIECE_BYTES + 7);
    assert!(whole.ends_with(b"\x01the end"));
    assert_eq!(head(objects, key).await.map(|object| object.pin), Ok(pin));

    let mut upload = objects.upload(key.as_bytes()).await.expect("begun");
    upload.add(bytes("short")).await.expect("added");
    assert_eq!(content(objects, key).await, whole, "not yet");
    upload.complete().await.expect("completed");
    assert_eq!(content(objects, key).await, b"short");
}

/// Nothing is left behind, and nothing that was there is gone.
pub async fn an_aborted_upload_leaves_what_was_there(objects: &dyn Objects) {
    put(objects, "contract-abort/old", "old").await;
    for key in ["contract-abort/old", "contract-abort/new"] {
        let mut upload = objects.upload(key.as_bytes()).await.expect("begun");
        upload.add(bytes("half")).await.expect("added");
        upload.abort().await.expect("aborted");
    }
    assert_eq!(content(objects, "contract-abort/old").await, b"old");
    assert_missing(objects, "contract-abort/new").await;
    let left = all(objects, "contract-abort/", 10).await;
    assert_eq!(names(&left, "contract-abort/"), ["old"]);
}

/// At the end, answering where; a new pin each time. Or refused, as the profile says.
pub async fn an_append_adds_or_is_refused(objects: &dyn Objects) {
    let key = "contract-append/object";
    if !objects.profile().append {
        let refused = objects.append(key.as_bytes(), bytes("x")).await;
        assert!(
            matches!(refused, Err(ObjectsError::Refused(_))),
            "{refused:?}"
        );
        return assert_missing(objects, key).await;
    }
    let mut pins = Vec::new();
    for (text, offset) in [("one", 0), ("two", 3), ("three", 6)] {
        let begins = objects.append(key.as_bytes(), bytes(text)).await;
        assert_eq!(begins, Ok(offset));
        pins.push(head(objects, key).await.expect("it is there").pin);
    }
    pins.dedup();
    assert_eq!(pins.len(), 3);
    assert_eq!(content(objects, key).await, b"onetwothree");
    let reader = objects
        .get(key.as_bytes(), 2, Some(7), Some(&pins[2]))
        .await;
    assert_eq!(read(reader.expect("as pinned")).await, b"etwot");
}

/// Where the store is a directory, the file.
pub async fn a_path_leads_to_the_bytes(objects: &dyn Objects) {
    let key = "contract-path/deep/object";
    put(objects, key, "bytes").await;
    if let Some(path) = objects.path(key.as_bytes()) {
        assert_eq!(std::fs::read(path).expect("a file"), b"bytes");
    }
}
