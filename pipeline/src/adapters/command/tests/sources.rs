//! Items that are objects: their files, copies and pins.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;

use super::*;
use crate::core::item::{Object, Pin};
use crate::ports::objects::{Listing, ObjectsError, ObjectsProfile, Reader, Upload};

/// A directory as a store; or, without paths, as if it were a bucket.
struct Store {
    root: PathBuf,
    kind: Kind,
}

enum Kind {
    Directory,
    Bucket,
}

impl Store {
    fn object(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        let gone = |_| ObjectsError::NotFound(String::from_utf8_lossy(key).into_owned());
        let meta = fs::metadata(self.file(key)).map_err(gone)?;
        let etag = format!("{}.{}-{}", meta.mtime(), meta.mtime_nsec(), meta.len());
        Ok(Object {
            bucket: None,
            key: key.into(),
            size_bytes: meta.len(),
            pin: Pin {
                etag: etag.into(),
                version: None,
            },
        })
    }

    fn file(&self, key: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(key))
    }
}

fn refused<T>() -> Result<T, ObjectsError> {
    Err(ObjectsError::Refused("these tests only read".to_owned()))
}

#[async_trait]
impl Objects for Store {
    fn profile(&self) -> ObjectsProfile {
        ObjectsProfile {
            append: false,
            any_key: false,
            piece_bytes: crate::ports::objects::PIECE_BYTES,
        }
    }

    async fn list(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Listing, ObjectsError> {
        refused()
    }

    async fn head(&self, key: &[u8]) -> Result<Object, ObjectsError> {
        self.object(key)
    }

    async fn get(
        &self,
        key: &[u8],
        _start: u64,
        _end: Option<u64>,
        pin: Option<&Pin>,
    ) -> Result<Reader, ObjectsError> {
        let now = self.object(key)?;
        if pin.is_some_and(|pin| *pin != now.pin) {
            return Err(ObjectsError::Changed(
                String::from_utf8_lossy(key).into_owned(),
            ));
        }
        let bytes = fs::read(self.file(key)).expect("it was there just now");
        Ok(Box::pin(io::Cursor::new(bytes)))
    }

    async fn put(&self, _: &[u8], _: Bytes) -> Result<Pin, ObjectsError> {
        refused()
    }

    async fn put_if_absent(&self, _: &[u8], _: Bytes) -> Result<Pin, ObjectsError> {
        refused()
    }

    async fn upload(&self, _: &[u8]) -> Result<Box<dyn Upload>, ObjectsError> {
        refused()
    }

    async fn append(&self, _: &[u8], _: Bytes) -> Result<u64, ObjectsError> {
        refused()
    }

    async fn delete(&self, _: &[u8]) -> Result<(), ObjectsError> {
        refused()
    }

    fn path(&self, key: &[u8]) -> Option<PathBuf> {
        match self.kind {
            Kind::Directory => Some(self.file(key)),
            Kind::Bucket => None,
        }
    }
}

/// A store of files `a b.txt` and `\xff.txt`, and an executor over it.
struct World {
    root: TempDir,
    store: Arc<Store>,
    executor: CommandExecutor,
}

const KEYS: [&[u8]; 2] = [b"a b.txt", b"\xff.txt"];

fn world(kind: Kind, argv: &[&str]) -> World {
    let root = TempDir::new().expect("a temporary directory");
    let store = Arc::new(Store {
        root: root.path().to_owned(),
        kind,
    });
    for key in KEYS {
        fs::write(store.file(key), "content").expect("a writable directory");
    }
    let input = Arc::clone(&store) as Arc<dyn Objects>;
    let executor = CommandExecutor::new(&spec(argv), Some(input), None).expect("it is there");
    World {
        root,
        store,
        executor,
    }
}

impl World {
    fn item(&self, index: u8) -> CallItem {
        let key = KEYS[usize::from(index)];
        item(
            index,
            Input::Object(self.store.object(key).expect("it was written")),
        )
    }

    async fn report(&self, index: u8) -> String {
        report_of(&self.executor, call_of(vec![self.item(index)])).await
    }
}

#[tokio::test]
async fn objects_of_a_directory_are_named_by_their_files() {
    let argv = [
        "sh",
        "-c",
        "cat \"$1\"; echo \" $2 $3\"",
        "sh",
        "{path}",
        "{key}",
        "{size}",
    ];
    let world = world(Kind::Directory, &argv);
    assert_eq!(world.report(0).await, "\"content a b.txt 7\"");
    assert_eq!(world.report(1).await, "\"content \u{fffd}.txt 7\"");
}

#[tokio::test]
async fn objects_elsewhere_are_copied_and_the_copy_is_removed() {
    let argv = ["sh", "-c", "cat \"$1\"; echo; echo \"$1\"", "sh", "{path}"];
    let world = world(Kind::Bucket, &argv);
    let report: String = serde_json::from_str(&world.report(0).await).expect("text");
    let (content, path) = report.split_once('\n').expect("two lines");
    assert_eq!(content, "content");
    assert!(path.ends_with("/a b.txt") && !Path::new(path).exists());
    assert!(
        !Path::new(path)
            .parent()
            .expect("a directory of its own")
            .exists()
    );

    let item = world.item(0);
    fs::write(world.store.file(KEYS[0]), "other content").expect("our own file");
    let report = report_of(&world.executor, call_of(vec![item])).await;
    assert!(report.starts_with("failed SourceChanged"), "{report}");
}

#[tokio::test]
async fn a_source_that_is_gone_or_changed_is_not_processed() {
    let world = world(Kind::Directory, &["sh", "-c", "echo processed"]);
    let items = [world.item(0), world.item(1)];
    fs::write(world.store.file(KEYS[0]), "other content").expect("our own file");
    fs::remove_file(world.store.file(KEYS[1])).expect("our own file");
    let [changed, gone] = items.clone();
    let changed = report_of(&world.executor, call_of(vec![changed])).await;
    assert!(
        changed.starts_with("failed SourceChanged: it was listed with 7 bytes"),
        "{changed}"
    );
    let gone = report_of(&world.executor, call_of(vec![gone])).await;
    assert!(gone.starts_with("failed Gone"), "{gone}");
    // In a batch, only the others go in; here none, and so no process.
    let both = reports_of(&world.executor, call_of(items.to_vec())).await;
    assert!(both[0].starts_with("failed SourceChanged") && both[1].starts_with("failed Gone"));
}

#[tokio::test]
async fn a_source_that_changes_during_the_call_fails_and_one_that_goes_does_not() {
    let touching = world(
        Kind::Directory,
        &["sh", "-c", "echo more >> \"$1\"", "sh", "{path}"],
    );
    let report = touching.report(0).await;
    assert!(report.starts_with("failed SourceChanged"), "{report}");
    let moving = world(Kind::Directory, &["rm", "{path}"]);
    assert_eq!(moving.report(0).await, "nothing");
    assert!(!moving.root.path().join("a b.txt").exists());
}

#[tokio::test]
async fn holes_need_an_object_of_their_own() {
    let world = world(Kind::Directory, &["echo", "{path}"]);
    let report = report_of(&world.executor, value("1")).await;
    assert!(
        report.starts_with("failed BadInput") && report.contains("value"),
        "{report}"
    );
    let both = vec![world.item(0), world.item(1)];
    let reports = reports_of(&world.executor, call_of(both)).await;
    assert!(
        reports
            .iter()
            .all(|report| report.contains("max_items_per_batch")),
        "{reports:?}"
    );
}
