//! The contracts of the ports on their AWS adapters, against the emulator of this test process.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use trommel::adapters::aws::{Blueprint, DynamoTable, S3Objects, SqsQueue};
use trommel::ports::queue::{Depth, Handle, Outgoing, Rejected};
use trommel::ports::{Message, Objects, Queue, QueueError, QueueProfile, Table};
use trommel_localstack::{Emulator, FormerHandles, Kind, NoEndpoint, Stage as Found};
use trommel_tests::contract::Stage;

/// Says what is left out, each thing once, and past the harness, which would keep the words of a test
/// that passes to itself.
pub(crate) fn left_out(what: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().expect("nobody panics holding it");
    if said.insert(what.to_owned()) {
        let line = format!("LEFT OUT: {what}\n");
        io::stderr()
            .write_all(line.as_bytes())
            .expect("the words must not get lost");
    }
}

/// The emulator of this test process; or, with `TROMMEL_TEST_ENDPOINT=none`, a loud word that `what`
/// is left out. No endpoint is a failure.
pub(crate) async fn emulator(what: &str) -> Option<&'static Emulator> {
    played_on(Found::find().await, what)
}

/// The same, on one that runs functions and tasks: a MiniStack beside, if the emulator does not.
pub(crate) async fn emulator_with_functions(what: &str) -> Option<&'static Emulator> {
    played_on(Found::find_with_functions().await, what)
}

fn played_on(found: Result<&'static Found, NoEndpoint>, what: &str) -> Option<&'static Emulator> {
    match found {
        Ok(Found::On(emulator)) => Some(emulator),
        Ok(Found::None) => {
            left_out(&format!("{what} (TROMMEL_TEST_ENDPOINT=none)"));
            None
        }
        Err(reason) => panic!("{reason}"),
    }
}

/// A name that nothing has in an emulator that others may have used before: valid for tables, queues and
/// buckets.
pub(crate) fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since
        .expect("no clock of ours is set to before 1970")
        .as_millis();
    let process = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{millis:x}-{process:x}-{number}")
}

mod dynamodb_table {
    use super::*;

    async fn stage() -> Option<Stage<dyn Table>> {
        let emulator = emulator("the table's contract on DynamoDB").await?;
        let name = fresh("contract");
        let blueprint = Blueprint::new(&name).expect("a plain name");
        let (clients, _) = emulator.apply(&blueprint).await.expect("a new table");
        Some(Stage::new(Arc::new(DynamoTable::new(&clients, name)), ()))
    }

    trommel_tests::table_contract!(stage());
}

mod sqs_queue {
    use super::*;

    async fn stage() -> Option<Stage<dyn Queue>> {
        let emulator = emulator("the queue's contract on SQS").await?;
        let clients = emulator.clients().await;
        let name = fresh("contract");
        emulator.queue(&clients, &name).await.expect("a new queue");
        let queue = SqsQueue::open(&clients, &name).await.expect("just made");
        let queue: Arc<dyn Queue> = match emulator.profile().former_handles {
            FormerHandles::Accepted => Arc::new(queue),
            FormerHandles::Refused => Arc::new(Forgiving::new(queue)),
        };
        Some(Stage::new(queue, ()))
    }

    trommel_tests::queue_contract!(stage());

    #[tokio::test]
    async fn a_former_handle_meets_what_the_profile_says() {
        let Some(emulator) = emulator("what a delete makes of a former handle").await else {
            return;
        };
        match emulator.kind() {
            Kind::LocalStack | Kind::MiniStack => {}
            // Its profile is a guess, with nothing to hold it to.
            Kind::Unknown => return left_out("nothing is known of this endpoint's handles"),
        }
        let clients = emulator.clients().await;
        let name = fresh("former");
        emulator.queue(&clients, &name).await.expect("a new queue");
        let queue = SqsQueue::open(&clients, &name).await.expect("just made");
        let sent = queue.send(vec![Outgoing::now("x")]).await;
        assert_eq!(sent, Ok(Vec::new()));
        let wait = queue.profile().wait_max;
        let received = queue.receive(1, wait, wait).await.expect("it answers");
        let handle = received[0].handle.clone();
        let delete = || queue.delete(vec![handle.clone()]);
        assert_eq!(delete().await, Ok(Vec::new()));
        let again = delete().await.expect("it answers");
        let found = if again.is_empty() {
            FormerHandles::Accepted
        } else {
            FormerHandles::Refused
        };
        assert_eq!(found, emulator.profile().former_handles);
    }
}

/// An SQS queue whose emulator refuses to delete by a handle that was good once, where AWS says yes: the
/// refusal of a handle that came from here is not told on. Of any other handle it is.
struct Forgiving {
    queue: SqsQueue,
    delivered: Mutex<BTreeSet<Handle>>,
}

impl Forgiving {
    fn new(queue: SqsQueue) -> Self {
        Self {
            queue,
            delivered: Mutex::default(),
        }
    }
}

#[async_trait]
impl Queue for Forgiving {
    fn profile(&self) -> QueueProfile {
        self.queue.profile()
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let messages = self.queue.receive(max, wait, visibility).await?;
        let mut delivered = self.delivered.lock().expect("nobody panics holding it");
        delivered.extend(messages.iter().map(|message| message.handle.clone()));
        Ok(messages)
    }

    async fn send(&self, batch: Vec<Outgoing>) -> Result<Vec<Rejected>, QueueError> {
        self.queue.send(batch).await
    }

    async fn delete(&self, handles: Vec<Handle>) -> Result<Vec<Rejected>, QueueError> {
        let mut rejected = self.queue.delete(handles.clone()).await?;
        let delivered = self.delivered.lock().expect("nobody panics holding it");
        rejected.retain(|entry| !delivered.contains(&handles[entry.index]));
        Ok(rejected)
    }

    async fn change_visibility(
        &self,
        entries: Vec<(Handle, Duration)>,
    ) -> Result<Vec<Rejected>, QueueError> {
        self.queue.change_visibility(entries).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.queue.depth().await
    }
}

mod s3_objects {
    use super::*;

    async fn stage() -> Option<Stage<dyn Objects>> {
        let emulator = emulator("the store's contract on S3").await?;
        let clients = emulator.clients().await;
        let name = fresh("contract");
        emulator
            .bucket(&clients, &name)
            .await
            .expect("a new bucket");
        Some(Stage::new(Arc::new(S3Objects::new(&clients, name)), ()))
    }

    trommel_tests::objects_contract!(stage());
}
