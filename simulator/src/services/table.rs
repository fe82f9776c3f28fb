//! The ledger's table: one that plays by [`crate::rules`], or one elsewhere, and a link to it for each node.
//!
//! As DynamoDB does, it knows the tokens of transactions for ten minutes, and does not do one again.

mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trommel::adapters::memory::RowChange;
use trommel::core::time::Tick;
use trommel::ports::table::{QueryPage, TableProfile};
use trommel::ports::{Condition, Consistency, Key, Query, Row, Table, TableError, Write};

use super::batching::{Batching, Settle};
use super::bill::Billed;
use super::injector::{Injector, PATIENCE_MAX, Ticket};
use super::patience::{Patience, Ran, Refused};
use crate::exec::lock;
use crate::node::Node;
use crate::point::{Kind, Operation};
use crate::probe::Probe;
use crate::rules::{Done, KnownToken, Request, TableRules};
use crate::trace::Quick;

/// A table that nodes share.
pub struct TableModel {
    store: Store,
    /// A node that never crashes: late requests arrive by its tasks.
    service: Node,
    injector: Arc<Injector>,
    /// Links that carry nothing until then, by the node's name.
    cut: Mutex<BTreeMap<String, Tick>>,
    /// Writes to pages are refused as too fast until then.
    hot: Mutex<Tick>,
    /// Sessions that were marked dead: what they opened or beat late brings none of them back.
    dead: Mutex<BTreeSet<String>>,
    /// Generation and slot of the tally that was counted in last.
    slot: Mutex<Option<(String, String)>>,
    patience: Mutex<Patience>,
    batching: Mutex<Batching>,
    broken: Mutex<Vec<String>>,
    compared: Mutex<Compared>,
    known: Mutex<KnownToken>,
}

/// How many writes of rows were compared with their former state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Of pages.
    pub pages: u64,
    /// Of runs.
    pub runs: u64,
}

/// Where the rows are.
enum Store {
    /// Here: each write is seen together with the row before and after it.
    Here(TableRules),
    /// In a service: what becomes of a write is what it answers.
    Away(Arc<dyn Table>),
}

impl Store {
    fn profile(&self) -> TableProfile {
        match self {
            Self::Here(rules) => rules.profile(),
            Self::Away(table) => table.profile(),
        }
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        match self {
            Self::Here(rules) => rules.get(key),
            Self::Away(table) => table.get(key, consistency).await,
        }
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        match self {
            Self::Here(rules) => rules.query(&query),
            Self::Away(table) => table.query(query).await,
        }
    }
}

impl Request {
    /// Names what nobody else asks for: a page's write has a name of its own, as have most transactions.
    fn fingerprint(&self) -> Option<u64> {
        let mut hash = Quick::default();
        match self {
            Self::Write(write) if changes_page(write) => write.hash(&mut hash),
            Self::Transact { token, writes } if !writes.iter().any(is_of_many) => {
                token.hash(&mut hash);
            }
            Self::Write(_) | Self::Transact { .. } => return None,
        }
        Some(hash.finish())
    }
}

impl TableModel {
    /// An empty table. `service` is a node that never crashes.
    pub fn new(profile: TableProfile, service: Node, injector: Arc<Injector>) -> Arc<Self> {
        let store = Store::Here(TableRules::new(profile));
        Self::of(store, service, injector)
    }

    /// A table elsewhere. What shows in single writes is not looked at there.
    pub fn away(table: Arc<dyn Table>, service: Node, injector: Arc<Injector>) -> Arc<Self> {
        Self::of(Store::Away(table), service, injector)
    }

    fn of(store: Store, service: Node, injector: Arc<Injector>) -> Arc<Self> {
        Arc::new(Self {
            store,
            service,
            injector,
            cut: Mutex::default(),
            hot: Mutex::default(),
            dead: Mutex::default(),
            slot: Mutex::default(),
            patience: Mutex::default(),
            batching: Mutex::default(),
            broken: Mutex::default(),
            compared: Mutex::default(),
            known: Mutex::new(KnownToken::Answered),
        })
    }

    /// What it makes from now on of a transaction whose token it knows. DynamoDB says that it is done; a table without
    /// tokens does it again.
    pub fn set_known(&self, known: KnownToken) {
        *lock(&self.known) = known;
    }

    /// The way of one node to it.
    pub fn link(self: &Arc<Self>, node: &Node) -> TableLink {
        TableLink {
            model: Arc::clone(self),
            node: node.clone(),
        }
    }

    /// A way to it without faults and without delay, for those who only watch.
    pub fn quiet(self: &Arc<Self>) -> Arc<dyn Table> {
        Arc::new(Quiet(Arc::clone(self)))
    }

    /// Nothing of this node arrives until then.
    pub fn cut(&self, node: &str, until: Tick) {
        lock(&self.cut).insert(node.to_owned(), until);
    }

    /// The partitions of pages are hot: their writes are throttled until then.
    pub fn heat(&self, until: Tick) {
        *lock(&self.hot) = until;
    }

    fn is_here(&self) -> bool {
        matches!(self.store, Store::Here(_))
    }

    fn is_hot(&self, request: &Request) -> bool {
        let until = *lock(&self.hot);
        let of_page = |write: &Write| write.key.pk.starts_with("page#");
        self.service.tick() < until && request.writes().iter().any(of_page)
    }

    /// Whether this session's row says that it lives, and never said that it is dead.
    pub fn is_live(&self, job: &str, session: &str) -> bool {
        if lock(&self.dead).contains(session) {
            return false;
        }
        let Store::Here(rules) = &self.store else {
            return true;
        };
        let key = Key::new(format!("session#{job}"), session);
        let row = rules.get(&key).ok().flatten();
        row.is_some_and(|row| row.text("status") == Some("live"))
    }

    /// Permits that a job's pool has lent, at this moment; none: that cannot be seen from here.
    pub fn lent(&self, job: &str) -> Option<i64> {
        let Store::Here(rules) = &self.store else {
            return None;
        };
        let key = Key::new(format!("permit#{job}"), "pool");
        let row = rules.get(&key).ok().flatten();
        Some(row.and_then(|row| row.num("lent")).unwrap_or(0))
    }

    /// Notes a promise that somebody saw broken.
    pub fn report(&self, broken: String) {
        self.note(Some(broken));
    }

    /// Promises that were broken, in order.
    pub fn broken(&self) -> Vec<String> {
        lock(&self.broken).clone()
    }

    /// How many rows were compared with their former state.
    pub fn compared(&self) -> Compared {
        *lock(&self.compared)
    }

    fn bill_read(&self, bytes: usize) {
        self.injector.bill(&Billed::Read(bytes));
    }

    /// A write is billed by the larger of the row before and after it, also where its condition does not hold.
    fn bill_write(&self, request: &Request, changes: &[RowChange]) {
        let together = matches!(request, Request::Transact { .. });
        let bytes = |row: &Option<Row>| row.as_ref().map_or(0, Row::bytes);
        let billed = |(write, changed): (&Write, &RowChange)| {
            let largest = bytes(&changed.before).max(bytes(&changed.after));
            largest + write.key.pk.len() + write.key.sk.len()
        };
        let rows = request.writes().iter().zip(changes).map(billed).collect();
        self.injector.bill(&Billed::Written { rows, together });
    }

    async fn apply(&self, who: &Node, request: &Request) -> Result<Option<Row>, TableError> {
        match &self.store {
            Store::Here(rules) => self.apply_here(rules, who, request),
            Store::Away(table) => {
                let result = match request.clone() {
                    Request::Write(write) => table.write(write).await,
                    Request::Transact { token, writes } => {
                        table.transact(&token, writes).await.map(|()| None)
                    }
                };
                Self::tell(who, request, result.as_ref().err());
                if result.is_ok() {
                    self.note_deaths(request);
                }
                result
            }
        }
    }

    /// Does it, in one step.
    fn apply_here(
        &self,
        rules: &TableRules,
        who: &Node,
        request: &Request,
    ) -> Result<Option<Row>, TableError> {
        let known = *lock(&self.known);
        match rules.change(request, self.service.tick(), known) {
            Ok(Done::Before) => {
                who.sometimes(Probe::TokenKnown);
                if let Request::Transact { token, .. } = request {
                    who.trace(&format_args!("a transaction of before: {token}"));
                }
                Ok(None)
            }
            Ok(Done::Now(changes)) => {
                self.bill_write(request, &changes);
                Self::tell(who, request, None);
                self.note_deaths(request);
                self.check(rules, who, request, &changes)?;
                Ok(match request {
                    Request::Write(_) => changes.into_iter().next().and_then(|row| row.after),
                    Request::Transact { .. } => None,
                })
            }
            Err(error) => {
                let rows = request.writes().iter().map(|write| rules.get(&write.key));
                let unchanged = |row: Option<Row>| RowChange {
                    before: row.clone(),
                    after: row,
                };
                let rows: Result<Vec<_>, _> = rows.map(|row| row.map(unchanged)).collect();
                self.bill_write(request, &rows?);
                Self::tell(who, request, Some(&error));
                Err(error)
            }
        }
    }

    fn note(&self, broken: Option<String>) {
        if let Some(broken) = broken {
            self.service.trace(&format_args!("BROKEN: {broken}"));
            lock(&self.broken).push(broken);
        }
    }
}

/// Whether others ask for the same, or one does again: what is told again is quarantined by the same words, intakes
/// open the same window, sweeps of several windows bury the same session, who leaves asks again once his permits are
/// back, and a part is refused while its run is paused.
fn is_of_many(write: &Write) -> bool {
    let of_many = ["quarantine#", "window#", "session#", "part#"];
    of_many.iter().any(|kind| write.key.pk.starts_with(kind))
}

/// Whether it changes a page that is there: each such write has a name.
fn changes_page(write: &Write) -> bool {
    write.key.pk.starts_with("page#") && !write.when.contains(&Condition::Absent)
}

/// One node's way to the table.
pub struct TableLink {
    model: Arc<TableModel>,
    node: Node,
}

impl TableLink {
    async fn sleep(&self, duration: Duration) {
        self.node.sleep(duration).await;
    }

    fn ticket(&self, operation: Operation, about: &(dyn fmt::Display + Sync)) -> Ticket {
        self.model.injector.ticket(operation, &self.node, about)
    }

    async fn crash<T>(&self, ticket: &mut Ticket) -> T {
        self.model.injector.crash(&self.node, ticket).await
    }

    /// The way there; no answer while the link is cut.
    async fn go(&self, ticket: &mut Ticket) -> Result<(), TableError> {
        if ticket.is(Kind::CrashBefore) {
            return self.crash(ticket).await;
        }
        self.sleep(ticket.there).await;
        let until = lock(&self.model.cut).get(self.node.name()).copied();
        if until.is_some_and(|until| self.node.tick() < until) {
            self.node.sometimes(Probe::WasCut);
            self.sleep(PATIENCE_MAX).await;
            return Err(unclear("the link is cut"));
        }
        Ok(())
    }

    /// The way back.
    async fn come_back(&self, ticket: &mut Ticket) {
        if ticket.is(Kind::CrashAfter) {
            return self.crash(ticket).await;
        }
        let way = if ticket.is(Kind::Slow) {
            ticket.up_to(self.model.injector.lengths().slow_max())
        } else {
            ticket.back
        };
        self.sleep(way).await;
    }

    async fn no_answer(&self, ticket: &mut Ticket, why: &str) -> TableError {
        self.sleep(ticket.up_to(PATIENCE_MAX)).await;
        unclear(why)
    }

    async fn read<T>(
        &self,
        operation: Operation,
        about: &(dyn fmt::Display + Sync),
        read: impl Future<Output = Result<T, TableError>>,
    ) -> Result<T, TableError> {
        let mut ticket = self.ticket(operation, about);
        self.go(&mut ticket).await?;
        if ticket.is(Kind::RequestLost) {
            return Err(self.no_answer(&mut ticket, "a read was lost").await);
        }
        let result = read.await;
        self.come_back(&mut ticket).await;
        result
    }

    /// Makes a request, and follows how patiently it is made again if it is refused.
    async fn change(
        &self,
        operation: Operation,
        request: Request,
    ) -> Result<Option<Row>, TableError> {
        let (node, patience) = (&self.node, &self.model.patience);
        // What a service elsewhere refuses, it refuses in real time.
        let followed = request.fingerprint().filter(|_| self.model.is_here());
        let Some(fingerprint) = followed else {
            return self.try_change(operation, request).await;
        };
        let who = (node.name(), node.incarnation());
        if !lock(patience).is_empty() {
            let ran = match node.happened(Probe::Frozen) {
                true => Ran::OffAndOn,
                false => Ran::Always,
            };
            let asked = lock(patience).asks(who, fingerprint, node.tick(), ran);
            self.model.note(asked);
        }
        let result = self.try_change(operation, request).await;
        let refused = match &result {
            Err(TableError::Throttled(_) | TableError::Conflict) => Some(Refused::TooFast),
            Err(TableError::ConditionFailed { .. }) => Some(Refused::NeverMore),
            Err(TableError::Unclear(_) | TableError::Refused(_)) | Ok(_) => None,
        };
        lock(patience).hears(who, fingerprint, node.tick(), refused);
        result
    }

    async fn try_change(
        &self,
        operation: Operation,
        request: Request,
    ) -> Result<Option<Row>, TableError> {
        let first = request.writes().first();
        let first = first.ok_or_else(|| TableError::Refused("nothing to write".to_owned()))?;
        let ticket = &mut self.ticket(operation, &first.key);
        self.go(ticket).await?;
        if self.model.is_hot(&request) {
            self.node.sometimes(Probe::WasHot);
            return Err(TableError::Throttled("a hot partition".to_owned()));
        }
        match ticket.fault {
            Some(Kind::RequestLost) => Err(self.no_answer(ticket, "the request was lost").await),
            Some(Kind::ReplyLost) => {
                let _ = self.model.apply(&self.node, &request).await;
                Err(self.no_answer(ticket, "the reply was lost").await)
            }
            Some(Kind::Late) => {
                self.arrive_late(
                    request,
                    ticket.up_to(self.model.injector.lengths().late_max()),
                );
                Err(self.no_answer(ticket, "no reply in time").await)
            }
            Some(Kind::Hangs) => {
                self.sleep(self.model.injector.lengths().hang()).await;
                Err(unclear("no reply for long"))
            }
            Some(Kind::Throttled) => Err(TableError::Throttled("simulated".to_owned())),
            Some(Kind::Conflict) => Err(TableError::Conflict),
            Some(
                Kind::Slow
                | Kind::Lost
                | Kind::Doubled
                | Kind::Ghost
                | Kind::Rejected
                | Kind::NoCapacity
                | Kind::Partial
                | Kind::NoResult
                | Kind::OutOfMemory
                | Kind::Dies
                | Kind::CrashBefore
                | Kind::CrashAfter,
            )
            | None => {
                let result = self.model.apply(&self.node, &request).await;
                self.come_back(ticket).await;
                result
            }
        }
    }

    fn arrive_late(&self, request: Request, after: Duration) {
        let model = Arc::clone(&self.model);
        let service = model.service.clone();
        let arrive = async move {
            model.service.sleep(after).await;
            model.service.sometimes(Probe::ArrivedLate);
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
        self.model.store.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        let get = async {
            let row = self.model.store.get(key, consistency).await?;
            self.model.bill_read(row.as_ref().map_or(0, Row::bytes));
            Ok(row)
        };
        self.read(Operation::TableGet, key, get).await
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        self.change(Operation::TableWrite, Request::Write(write))
            .await
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        let token = token.to_owned();
        let settle = Settle::of(&writes).filter(|_| self.model.is_here());
        let who = (self.node.name(), self.node.incarnation());
        let batching = &self.model.batching;
        let mut apart = 0;
        if let Some(settle) = &settle {
            let writes_max = self.profile().transact_writes_max;
            match lock(batching).begins(who, settle, self.node.tick(), writes_max) {
                Ok(so_far) => apart = so_far,
                Err(broken) => self.model.note(Some(broken)),
            }
        }
        let request = Request::Transact { token, writes };
        let done = self.change(Operation::TableTransact, request).await;
        if let Some(settle) = settle.filter(|_| done.is_ok()) {
            lock(batching).ends(who, settle, self.node.tick(), apart);
        }
        done.map(|_| ())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        let about = query.pk.clone();
        let query = Query {
            limit: query.limit.min(self.model.injector.rows_at_once()),
            ..query
        };
        let rows = async {
            let page = self.model.store.query(query).await?;
            let bytes = page.rows.iter().map(|(sk, row)| sk.len() + row.bytes());
            self.model.bill_read(bytes.sum());
            Ok(page)
        };
        self.read(Operation::TableQuery, &about, rows).await
    }
}

/// A way without faults.
struct Quiet(Arc<TableModel>);

#[async_trait]
impl Table for Quiet {
    fn profile(&self) -> TableProfile {
        self.0.store.profile()
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        self.0.store.get(key, consistency).await
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
        self.0.store.query(query).await
    }
}
