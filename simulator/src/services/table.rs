//! The ledger's table: one in memory, and a link to it for each node.
//!
//! As DynamoDB does, it knows the tokens of transactions for ten minutes, and does not do one again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use trommel::adapters::memory::MemoryTable;
use trommel::core::time::Tick;
use trommel::ports::table::{QueryPage, TableProfile};
use trommel::ports::{Consistency, Key, Query, Row, Table, TableError, Write};

use super::faults::{self, Fate, Faults, HANG, LATE_MAX};
use super::promises;
use crate::entropy::{Seed, Stream};
use crate::exec::lock;
use crate::node::Node;
use crate::trace::{FNV_START, fnv1a};

/// How long DynamoDB knows a transaction's token ("TransactWriteItems", ClientRequestToken).
const TOKENS_LAST: Duration = Duration::from_mins(10);

/// How long a node whose link is cut waits for an answer before it gives up.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// More sessions than a simulated job ever has.
const SESSIONS_MAX: usize = 100_000;

/// A table that nodes share.
pub struct TableModel {
    base: MemoryTable,
    /// A node that never crashes: late requests arrive by its tasks.
    service: Node,
    seed: Seed,
    faults: Mutex<Faults>,
    tokens: Mutex<BTreeMap<String, Tick>>,
    /// Links that carry nothing until then, by the node's name.
    cut: Mutex<BTreeMap<String, Tick>>,
    /// Writes to pages are refused as too fast until then.
    hot: Mutex<Tick>,
    broken: Mutex<Vec<String>>,
    injected: AtomicU64,
    calls: AtomicU64,
}

/// One request that changes something.
#[derive(Clone)]
enum Request {
    Write(Write),
    Transact { token: String, writes: Vec<Write> },
}

impl Request {
    fn writes(&self) -> &[Write] {
        match self {
            Self::Write(write) => std::slice::from_ref(write),
            Self::Transact { writes, .. } => writes,
        }
    }
}

impl TableModel {
    /// An empty table. `service` is a node that never crashes.
    pub fn new(profile: TableProfile, service: Node, seed: Seed) -> Arc<Self> {
        Arc::new(Self {
            base: MemoryTable::new(profile),
            service,
            seed,
            faults: Mutex::default(),
            tokens: Mutex::default(),
            cut: Mutex::default(),
            hot: Mutex::default(),
            broken: Mutex::default(),
            injected: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        })
    }

    /// The way of one node to it.
    pub fn link(self: &Arc<Self>, node: &Node) -> TableLink {
        let stream = format!("table of {} {}", node.name(), node.incarnation());
        TableLink {
            model: Arc::clone(self),
            node: node.clone(),
            chance: self.seed.stream(&stream),
        }
    }

    /// A way to it without faults and without delay, for those who only watch.
    pub fn quiet(self: &Arc<Self>) -> Arc<dyn Table> {
        Arc::new(Quiet(Arc::clone(self)))
    }

    /// From now on these faults happen, on all links.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// Nothing of this node arrives until then.
    pub fn cut(&self, node: &str, until: Tick) {
        lock(&self.cut).insert(node.to_owned(), until);
    }

    /// The partitions of pages are hot: their writes are throttled until then.
    pub fn heat(&self, until: Tick) {
        *lock(&self.hot) = until;
    }

    fn is_hot(&self, request: &Request) -> bool {
        let until = *lock(&self.hot);
        let of_page = |write: &Write| write.key.pk.starts_with("page#");
        self.service.runtime().clock.tick() < until && request.writes().iter().any(of_page)
    }

    /// Permits that a job's pool has lent, at this moment.
    pub fn lent(&self, job: &str) -> i64 {
        let key = Key::new(format!("permit#{job}"), "pool");
        let row = self.base.get(&key, Consistency::Strong).now_or_never();
        let row = row.expect("nothing in memory waits");
        row.ok()
            .flatten()
            .and_then(|row| row.num("lent"))
            .unwrap_or(0)
    }

    /// Notes a promise that somebody saw broken.
    pub fn report(&self, broken: String) {
        self.note(Some(broken));
    }

    /// Promises that were broken, in order.
    pub fn broken(&self) -> Vec<String> {
        lock(&self.broken).clone()
    }

    /// Faults injected so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// Calls so far, over all links.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn knows(&self, token: &str) -> bool {
        let now = self.service.runtime().clock.tick();
        let done = lock(&self.tokens).get(token).copied();
        done.is_some_and(|at| now.since(at) < TOKENS_LAST)
    }

    /// Does it, in one step: nothing in it waits.
    async fn apply(&self, who: &Node, request: &Request) -> Result<Option<Row>, TableError> {
        let mut before = Vec::new();
        for write in request.writes() {
            before.push(self.base.get(&write.key, Consistency::Strong).await?);
        }
        let result = match request {
            Request::Write(write) => self.base.write(write.clone()).await,
            Request::Transact { token, .. } if self.knows(token) => {
                who.trace(&format_args!("a transaction of before: {token}"));
                return Ok(None);
            }
            Request::Transact { token, writes } => {
                let done = self.base.transact(token, writes.clone()).await;
                if done.is_ok() {
                    let now = self.service.runtime().clock.tick();
                    lock(&self.tokens).insert(token.clone(), now);
                }
                done.map(|()| None)
            }
        };
        for write in request.writes() {
            let text = format!("{:?}", write.change);
            let hash = fnv1a(FNV_START, text.bytes());
            match &result {
                Ok(_) => who.trace(&format_args!("wrote {} {hash:016x}", write.key)),
                Err(error) => who.trace(&format_args!("{} {hash:016x}: {error}", write.key)),
            }
        }
        if result.is_ok() {
            self.check(request, before).await?;
        }
        result
    }

    fn note(&self, broken: Option<String>) {
        if let Some(broken) = broken {
            self.service.trace(&format_args!("BROKEN: {broken}"));
            lock(&self.broken).push(broken);
        }
    }

    async fn check(&self, request: &Request, before: Vec<Option<Row>>) -> Result<(), TableError> {
        for (write, before) in request.writes().iter().zip(before) {
            let key = &write.key;
            let after = self.base.get(key, Consistency::Strong).await?;
            if key.pk.starts_with("page#") {
                let name = key.to_string();
                self.note(promises::of_page(&name, before.as_ref(), after.as_ref()));
            }
            if let Some(job) = key.pk.strip_prefix("permit#")
                && let Some(pool) = after
            {
                let sessions = Query::all(format!("session#{job}"), SESSIONS_MAX);
                let rows = self.base.query(sessions).await?.rows;
                let held = rows.iter().filter_map(|(_, row)| row.num("permits")).sum();
                self.note(promises::of_permits(&pool, held));
            }
        }
        Ok(())
    }
}

/// One node's way to the table.
pub struct TableLink {
    model: Arc<TableModel>,
    node: Node,
    chance: Stream,
}

impl TableLink {
    async fn sleep(&self, duration: Duration) {
        self.node.runtime().clock.sleep(duration).await;
    }

    /// The way there; no answer while the link is cut.
    async fn go(&self) -> Result<(), TableError> {
        self.model.calls.fetch_add(1, Ordering::Relaxed);
        self.sleep(faults::way(&self.chance)).await;
        let until = lock(&self.model.cut).get(self.node.name()).copied();
        if until.is_some_and(|until| self.node.runtime().clock.tick() < until) {
            self.model.injected.fetch_add(1, Ordering::Relaxed);
            self.sleep(CUT_PATIENCE).await;
            return Err(unclear("the link is cut"));
        }
        Ok(())
    }

    fn injects(&self, fate: Fate) {
        self.model.injected.fetch_add(1, Ordering::Relaxed);
        self.node.trace(&format_args!("fault: {fate:?}"));
    }

    async fn read(&self) -> Result<(), TableError> {
        self.go().await?;
        let faults = *lock(&self.model.faults);
        if self.chance.chance(faults.read_lost) {
            self.model.injected.fetch_add(1, Ordering::Relaxed);
            return Err(unclear("a read was lost"));
        }
        Ok(())
    }

    async fn change(&self, request: Request) -> Result<Option<Row>, TableError> {
        let fate = lock(&self.model.faults).of_write(&self.chance);
        if fate != Fate::Done {
            self.injects(fate);
        }
        self.go().await?;
        if self.model.is_hot(&request) {
            self.model.injected.fetch_add(1, Ordering::Relaxed);
            return Err(TableError::Throttled("a hot partition".to_owned()));
        }
        match fate {
            Fate::Done => {
                let result = self.model.apply(&self.node, &request).await;
                self.sleep(faults::way(&self.chance)).await;
                result
            }
            Fate::RequestLost => {
                self.sleep(faults::up_to(CUT_PATIENCE, &self.chance)).await;
                Err(unclear("the request was lost"))
            }
            Fate::ReplyLost => {
                let _ = self.model.apply(&self.node, &request).await;
                self.sleep(faults::up_to(CUT_PATIENCE, &self.chance)).await;
                Err(unclear("the reply was lost"))
            }
            Fate::Late => {
                self.arrive_late(request);
                self.sleep(faults::up_to(CUT_PATIENCE, &self.chance)).await;
                Err(unclear("no reply in time"))
            }
            Fate::Hangs => {
                self.sleep(HANG).await;
                Err(unclear("no reply for long"))
            }
            Fate::Throttled => Err(TableError::Throttled("simulated".to_owned())),
            Fate::Conflict => Err(TableError::Conflict),
        }
    }

    fn arrive_late(&self, request: Request) {
        let after = faults::up_to(LATE_MAX, &self.chance);
        let model = Arc::clone(&self.model);
        let service = model.service.clone();
        let arrive = async move {
            model.service.runtime().clock.sleep(after).await;
            model.service.trace(&"a late request arrives");
            let _ = model.apply(&model.service, &request).await;
        };
        service.spawn("late request", arrive);
    }
}

fn unclear(why: &str) -> TableError {
    TableError::Unclear(why.to_owned())
}

#[async_trait]
impl Table for TableLink {
    fn profile(&self) -> TableProfile {
        self.model.base.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        self.read().await?;
        self.model.base.get(key, consistency).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        self.change(Request::Write(write)).await
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        let token = token.to_owned();
        let done = self.change(Request::Transact { token, writes }).await;
        done.map(|_| ())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        self.read().await?;
        self.model.base.query(query).await
    }
}

/// A way without faults.
struct Quiet(Arc<TableModel>);

#[async_trait]
impl Table for Quiet {
    fn profile(&self) -> TableProfile {
        self.0.base.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        self.0.base.get(key, consistency).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        self.0.apply(&self.0.service, &Request::Write(write)).await
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        let token = token.to_owned();
        let request = Request::Transact { token, writes };
        self.0.apply(&self.0.service, &request).await.map(|_| ())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        self.0.base.query(query).await
    }
}
