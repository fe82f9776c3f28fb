use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::*;

fn store() -> (TempDir, Directory) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Directory::new(directory.path());
    (directory, store)
}

/// Makes the directory's last change old enough to be told from the next.
fn settle(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let directory = fs::File::open(path).expect("it is there");
    directory.set_modified(long_ago).expect("it is ours");
}

fn place(store: &Directory, key: &[u8]) -> PathBuf {
    store.path(key).expect("a plain key")
}

fn write(store: &Directory, key: &[u8]) {
    let path = place(store, key);
    fs::create_dir_all(path.parent().expect("below the root")).expect("made");
    fs::write(path, key).expect("written");
}

fn list_all(store: &Directory, prefix: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let after = keys.last().cloned();
        let listing = store
            .list_now(prefix, after.as_deref(), limit)
            .expect("listed");
        assert!(listing.objects.len() <= limit);
        keys.extend(listing.objects.iter().map(|object| object.key.to_vec()));
        if !listing.more {
            return keys;
        }
    }
}

async fn text(mut reader: Reader) -> std::io::Result<String> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await.map(|_| text)
}

fn segment() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![
            Just(b'a'),
            Just(b'.'),
            Just(b'0'),
            Just(0xff),
            Just(b'\n'),
            Just(b'!')
        ],
        1..3,
    )
    .prop_filter("no key", |name| name != b"." && name != b"..")
}

proptest! {
    // Each case makes files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_listing_is_the_sorted_keys_however_it_is_paged(
        keys in proptest::collection::vec(proptest::collection::vec(segment(), 1..4), 0..24),
        prefix in proptest::collection::vec(segment(), 0..3),
        cut in any::<bool>(),
        limit in 1_usize..5,
    ) {
        let (_directory, store) = store();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for key in keys {
            let key = key.join(&b'/');
            let path = place(&store, &key);
            // Where a file and a directory would have one name, the first comes to stand.
            let made = fs::create_dir_all(path.parent().expect("below the root"))
                .and_then(|()| fs::write(&path, b""));
            if made.is_ok() {
                expected.push(key);
            }
        }
        let mut prefix = prefix.join(&b'/');
        if cut {
            prefix.pop();
        }
        expected.retain(|key| key.starts_with(&prefix));
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(list_all(&store, &prefix, limit), expected);
    }
}

#[test]
fn a_remembered_walk_goes_on_and_a_changed_directory_is_read_again() {
    let (directory, store) = store();
    for key in ["a", "c", "d/x", "e"] {
        write(&store, key.as_bytes());
    }
    settle(directory.path());
    let first = store.list_now(b"", None, 1).expect("listed");
    assert!(first.more);
    assert_eq!(store.walks.lock().expect("not poisoned").len(), 1);
    write(&store, b"b");
    let second = store.list_now(b"", Some(b"a"), 1).expect("listed");
    assert_eq!(
        &*second.objects[0].key, b"b",
        "it was put before this listing"
    );
    assert_eq!(list_all(&store, b"", 2).len(), 5);
}

#[test]
fn links_to_files_are_read_and_nothing_else_that_is_no_file() {
    let (directory, store) = store();
    write(&store, b"dir/file");
    let root = directory.path();
    symlink("dir/file", root.join("to-file")).expect("linked");
    symlink("dir", root.join("to-dir")).expect("linked");
    symlink(".", root.join("dir/loop")).expect("linked");
    symlink("nowhere", root.join("broken")).expect("linked");
    symlink("circle", root.join("circle")).expect("linked");
    let _socket = UnixListener::bind(root.join("socket")).expect("bound");
    let made = std::process::Command::new("mkfifo")
        .arg(root.join("pipe"))
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    fs::write(root.join(".trommel-tmp-1-1"), "half").expect("written");
    assert_eq!(
        list_all(&store, b"", 10),
        [b"dir/file".to_vec(), b"to-file".to_vec()]
    );
}

#[tokio::test]
async fn what_is_no_file_cannot_be_read_and_holds_nobody() {
    let (directory, store) = store();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|status| status.success()));
    fs::create_dir(directory.path().join("dir")).expect("made");
    for key in [&b"pipe"[..], b"dir", b"none", b"pipe/below"] {
        let found = store.get(key, 0, None, None).await.err();
        assert!(
            matches!(found, Some(ObjectsError::NotFound(_))),
            "{found:?}"
        );
        let found = store.head(key).await.err();
        assert!(
            matches!(found, Some(ObjectsError::NotFound(_))),
            "{found:?}"
        );
        if key != b"pipe" && key != b"dir" {
            store.delete(key).await.expect("not there already");
        }
    }
}

#[test]
fn what_goes_away_while_it_is_listed_is_left_out() {
    let (directory, store) = store();
    for key in ["a", "b", "c/d", "e"] {
        write(&store, key.as_bytes());
    }
    settle(directory.path());
    let mut walk = Walk::begin(&store.root, b"", None).expect("begun");
    walk.next().expect("walked").expect("a");
    fs::remove_file(place(&store, b"b")).expect("removed");
    fs::remove_dir_all(directory.path().join("c")).expect("removed");
    let next = walk.next().expect("walked").expect("e");
    assert_eq!(&*next.key, b"e");
    assert!(walk.next().expect("walked").is_none());
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let (directory, _) = store();
    let store = Directory::new(directory.path().join("none"));
    let refusal = store.list_now(b"", None, 1).expect_err("nothing to list");
    assert!(matches!(&refusal, ObjectsError::NotFound(path) if path.ends_with("none")));
}

#[tokio::test]
async fn a_key_with_two_spellings_or_outside_is_refused() {
    let (directory, store) = store();
    let keys: [&[u8]; 11] = [
        b"",
        b"/a",
        b"a//b",
        b"a/",
        b"../a",
        b"a/../b",
        b"./a",
        b"a/.",
        b"a\0b",
        b".trommel-tmp-x",
        b"..",
    ];
    for key in keys {
        let refusal = store.put(key, Bytes::from_static(b"x")).await;
        assert!(matches!(refusal, Err(ObjectsError::Refused(_))), "{key:?}");
        assert!(store.path(key).is_none());
    }
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
}

#[tokio::test]
async fn a_file_written_while_it_is_read_fails_at_its_end() {
    let (_directory, store) = store();
    let key = b"file";
    let pin = store
        .put(key, Bytes::from_static(b"old"))
        .await
        .expect("put");
    let whole = store.get(key, 0, None, Some(&pin)).await.expect("opened");
    assert_eq!(text(whole).await.expect("read"), "old");
    let reader = store.get(key, 0, None, Some(&pin)).await.expect("opened");
    store
        .append(key, Bytes::from_static(b"er"))
        .await
        .expect("appended");
    let failure = text(reader).await.expect_err("it was changed");
    assert!(failure.to_string().contains("was changed"), "{failure}");
    let late = store.get(key, 0, None, Some(&pin)).await.err();
    assert!(matches!(late, Some(ObjectsError::Changed(_))));
}

#[tokio::test]
async fn nothing_temporary_is_left_behind() {
    let (directory, store) = store();
    let piece = || Bytes::from_static(b"piece");
    store.put(b"a", piece()).await.expect("put");
    store
        .put_if_absent(b"a", piece())
        .await
        .expect_err("it is there");
    store.put_if_absent(b"b", piece()).await.expect("put");
    let mut upload = store.upload(b"c").await.expect("begun");
    upload.add(piece()).await.expect("added");
    upload.abort().await.expect("aborted");
    let mut upload = store.upload(b"d").await.expect("begun");
    upload.add(piece()).await.expect("added");
    drop(upload);
    let mut names: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for entry in fs::read_dir(directory.path()).expect("listed") {
        let entry = entry.expect("listed");
        let bytes = entry.metadata().expect("there").len();
        names.insert(entry.file_name().as_bytes().to_vec(), bytes);
    }
    assert_eq!(
        names,
        BTreeMap::from([(b"a".to_vec(), 5), (b"b".to_vec(), 5)])
    );
}
