//! A table that fails by a plan, and a runtime without time: what a session's ledger runs on here.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::adapters::memory::{EMBEDDED_PROFILE, MemoryTable};
use crate::core::time::{Tick, Timestamp};
use crate::ports::runtime::BoxFuture;
use crate::ports::table::QueryPage;
use crate::ports::{
    Clock, Consistency, Entropy, Key, Query, Row, Runtime, Spawn, Table, TableError, TableProfile,
    Write,
};

/// The smallest bound of any endpoint: no rule of the ledger may need more.
pub(super) const WRITES_MAX: usize = 10;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Never carried out, and no answer.
    LostRequest,
    /// Carried out, and no answer.
    LostReply,
    Throttled,
    Conflict,
    /// This call and so many after it get no answer and are not carried out.
    Outage(u8),
}

/// What the endpoint does with the token of a transaction it has carried out; the port allows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tokens {
    /// As DynamoDB: success, and nothing is done again.
    Kept,
    /// As SQLite: the conditions decide.
    Ignored,
}

/// The store that all sessions share.
pub(super) struct Store {
    inner: MemoryTable,
    tokens: Tokens,
    done: Mutex<BTreeSet<String>>,
    version: AtomicU64,
}

impl Store {
    pub(super) fn new(tokens: Tokens) -> Arc<Self> {
        let profile = TableProfile {
            transact_writes_max: WRITES_MAX,
            ..EMBEDDED_PROFILE
        };
        Arc::new(Self {
            inner: MemoryTable::new(profile),
            tokens,
            done: Mutex::default(),
            version: AtomicU64::new(1),
        })
    }

    /// Grows with each write, so that an unchanged store need not be looked at twice.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}

/// One session's way to the store: each call waits to be polled twice, and fails by the plan.
pub(super) struct FaultyTable {
    store: Arc<Store>,
    plan: Mutex<VecDeque<Fault>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyTable {
    pub(super) fn new(store: Arc<Store>, plan: Vec<Fault>) -> Arc<Self> {
        Arc::new(Self {
            store,
            plan: Mutex::new(plan.into()),
        })
    }

    /// From now on nothing fails.
    pub(super) fn heal(&self) {
        lock(&self.plan).clear();
    }

    /// Fails the next calls so, then goes on as planned.
    pub(super) fn fail(&self, faults: &[Fault]) {
        let mut plan = lock(&self.plan);
        for fault in faults.iter().rev() {
            plan.push_front(*fault);
        }
    }

    /// The next fault; an outage counts down.
    fn next(&self) -> Fault {
        let mut plan = lock(&self.plan);
        match plan.pop_front().unwrap_or(Fault::None) {
            Fault::Outage(0) => Fault::LostRequest,
            Fault::Outage(left) => {
                plan.push_front(Fault::Outage(left - 1));
                Fault::LostRequest
            }
            fault @ (Fault::None
            | Fault::LostRequest
            | Fault::LostReply
            | Fault::Throttled
            | Fault::Conflict) => fault,
        }
    }

    async fn through<T>(
        &self,
        call: impl Future<Output = Result<T, TableError>> + Send,
    ) -> Result<T, TableError> {
        Turn::default().await;
        let unclear = |what: &str| TableError::Unclear(what.to_owned());
        match self.next() {
            Fault::None => {
                let answer = call.await;
                Turn::default().await;
                answer
            }
            Fault::LostReply => {
                // A lost reply loses a refusal too.
                drop(call.await);
                Turn::default().await;
                Err(unclear("the reply is lost"))
            }
            Fault::LostRequest | Fault::Outage(_) => Err(unclear("the request is lost")),
            Fault::Throttled => Err(TableError::Throttled("slow down".to_owned())),
            Fault::Conflict => Err(TableError::Conflict),
        }
    }
}

/// Lets others have a turn: pending once.
#[derive(Default)]
struct Turn {
    had: bool,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.had {
            return Poll::Ready(());
        }
        self.had = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[async_trait]
impl Table for FaultyTable {
    fn profile(&self) -> TableProfile {
        self.store.inner.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        self.through(self.store.inner.get(key, consistency)).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        let call = async {
            self.store.changed();
            self.store.inner.write(write).await
        };
        self.through(call).await
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        let call = async {
            if self.store.tokens == Tokens::Kept && lock(&self.store.done).contains(token) {
                return Ok(());
            }
            self.store.changed();
            self.store.inner.transact(token, writes).await?;
            lock(&self.store.done).insert(token.to_owned());
            Ok(())
        };
        self.through(call).await
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        self.through(self.store.inner.query(query)).await
    }
}

/// A clock that jumps to whatever is waited for.
#[derive(Default)]
struct Jumping(AtomicU64);

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        Timestamp((self.0.load(Ordering::Relaxed) / 1_000_000) as i64)
    }

    fn tick(&self) -> Tick {
        Tick(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        self.0.fetch_max(at.0, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.tick() + duration)
    }
}

struct Middle;

impl Entropy for Middle {
    fn next_u64(&self) -> u64 {
        u64::MAX / 2
    }
}

struct NoTasks;

impl Spawn for NoTasks {
    fn spawn(&self, name: &'static str, _: BoxFuture<'static, ()>) {
        panic!("the ledger starts no tasks, and started {name}");
    }
}

pub(super) fn runtime() -> Runtime {
    Runtime {
        clock: Arc::new(Jumping::default()),
        entropy: Arc::new(Middle),
        spawn: Arc::new(NoTasks),
    }
}

/// Polls once.
pub(super) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    let waker = futures_util::task::noop_waker();
    future.poll(&mut Context::from_waker(&waker))
}

/// Polls to the end: nothing here waits for anything but its turn.
pub(super) fn finish<F: Future>(future: F) -> F::Output {
    /// More turns than any operation takes: its calls, each tried a dozen times.
    const TURNS_MAX: u32 = 100_000;
    let mut future = Box::pin(future);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
    }
    panic!("it never ends");
}
