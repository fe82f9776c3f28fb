//! Items that are objects: the file that `{path}` stands for.

use bytes::Bytes;

use super::*;
use crate::adapters::directory::Directory;
use crate::adapters::memory::MemoryObjects;

/// A call for one object of a store, and an executor that reads it.
async fn object_in(store: Arc<dyn Objects>, key: &[u8], argv: &[&str]) -> (DockerExecutor, Call) {
    store
        .put(key, Bytes::from_static(b"hello"))
        .await
        .expect("a new object");
    let object = store.head(key).await.expect("just put");
    let executor = DockerExecutor::adopting_within(Duration::MAX, spec(argv), Some(store));
    (executor, call_of(vec![item(0, ItemInput::Object(object))]))
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_file_of_this_machine_is_read_where_it_lies() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(Directory::new(directory.path()));
    let argv = [
        "sh",
        "-c",
        "echo $0 $1 $2 $(cat \"$0\")",
        "{path}",
        "{key}",
        "{size}",
    ];
    let (executor, call) = object_in(store, b"in/a b.txt", &argv).await;
    let report = report_of(&executor, call).await;
    assert_eq!(report, "\"/trommel/a b.txt in/a b.txt 5 hello\"");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn an_object_elsewhere_is_read_from_a_copy() {
    let store = Arc::new(MemoryObjects::new());
    let (executor, call) = object_in(store, b"in/a.txt", &["cat", "{path}"]).await;
    assert_eq!(report_of(&executor, call).await, "\"hello\"");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_file_cannot_be_written_from_inside() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(Directory::new(directory.path()));
    let argv = ["sh", "-c", "echo more >> \"$0\"", "{path}"];
    let (executor, call) = object_in(store, b"a.txt", &argv).await;
    let report = report_of(&executor, call).await;
    assert!(report.contains("Read-only file system"), "{report}");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_file_that_changes_while_it_is_worked_on_fails_its_item() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(Directory::new(directory.path()));
    let (executor, call) = object_in(store, b"a.txt", &["sh", "-c", "cat {path}; sleep 2"]).await;
    let run = call.run.clone();
    let changing = async {
        until_running(&run).await;
        fs::write(directory.path().join("a.txt"), "changed").expect("our own file");
    };
    let (report, ()) = tokio::join!(report_of(&executor, call), changing);
    assert!(report.starts_with("failed SourceChanged"), "{report}");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn holes_that_mean_an_object_are_bad_input_for_values_and_batches() {
    let executor = executor(spec(&["cat", "{path}"]));
    let report = report_of(&executor, value("1")).await;
    assert!(report.starts_with("failed BadInput"), "{report}");
    let reports = reports_of(&executor, batch(2)).await;
    assert!(
        reports[0].starts_with("undecided BadInput"),
        "{}",
        reports[0]
    );
}
