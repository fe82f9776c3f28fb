//! Watches calls in true time, where they begin and end: how many run at one time, under whose lease, what
//! each came to and which state of an object it read. Oracles judge by it; the pipeline knows nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use trommel::core::id::{Generation, ItemId, JobName, SessionId};
use trommel::core::item::Object;
use trommel::core::time::Tick;
use trommel::ports::Executor;
use trommel::ports::executor::{Call, CallReport, ItemReport, Stop};

use crate::exec::lock;
use crate::node::Node;
use crate::probe::Probe;
use crate::services::TableModel;

/// One call of one item, as the handler saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The item.
    pub item: ItemId,
    /// Where it ran.
    pub node: String,
    /// The generation it ran in.
    pub generation: u32,
    /// When it began.
    pub began: Tick,
    /// Whether it succeeded; none: it never came to its end.
    pub succeeded: Option<bool>,
    /// The class it failed of, as the handler named it.
    pub class: Option<String>,
}

/// All calls, and how many run right now.
pub struct Watch {
    job: JobName,
    table: Arc<TableModel>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    /// By number: the session that began it.
    running: BTreeMap<u64, SessionId>,
    calls: u64,
    /// The most that ran at one time under valid leases.
    most: u32,
    /// Which state of its object each item read, by generation.
    read: BTreeSet<(ItemId, Generation, String)>,
    /// Which states of objects listings named.
    listed: BTreeSet<String>,
    /// Which states of objects were looked up by name.
    looked_up: BTreeSet<String>,
}

impl Watch {
    /// Nothing seen yet.
    pub fn new(job: JobName, table: Arc<TableModel>) -> Self {
        Self {
            job,
            table,
            state: Mutex::default(),
        }
    }

    /// All calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// How many items were called, each as often as generations called it.
    pub fn items_run(&self) -> u64 {
        let state = lock(&self.state);
        let seen = state.seen.iter();
        let items: BTreeSet<_> = seen.map(|seen| (seen.item, seen.generation)).collect();
        items.len() as u64
    }

    /// How many calls run right now.
    pub fn running(&self) -> u32 {
        lock(&self.state).running.len() as u32
    }

    /// The most calls that ever ran at one time, over all nodes.
    pub fn most(&self) -> u32 {
        lock(&self.state).most
    }

    /// An item's handler read its object in this state.
    pub fn read(&self, item: ItemId, generation: Generation, object: &Object) {
        let pin = object.pin.etag.to_string();
        lock(&self.state).read.insert((item, generation, pin));
    }

    /// The pipeline looked an object up, and was told this state.
    pub fn looked_up(&self, object: &Object) {
        let state = object.pin.etag.to_string();
        lock(&self.state).looked_up.insert(state);
    }

    /// Which states of objects it was told so.
    pub fn states_looked_up(&self) -> BTreeSet<String> {
        lock(&self.state).looked_up.clone()
    }

    /// A listing named an object in this state.
    pub fn listed(&self, object: &Object) {
        let mut state = lock(&self.state);
        if !state.listed.contains(&*object.pin.etag) {
            state.listed.insert(object.pin.etag.to_string());
        }
    }

    /// Which states of objects listings named.
    pub fn states_listed(&self) -> BTreeSet<String> {
        lock(&self.state).listed.clone()
    }

    /// Which states of objects were read.
    pub fn states_read(&self) -> BTreeSet<(ItemId, Generation, String)> {
        lock(&self.state).read.clone()
    }
}

/// A call under way; it is over when this is dropped, by a crash too.
pub(crate) struct Watched<'a> {
    watch: &'a Watch,
    node: &'a Node,
    number: u64,
    /// The place of its first item in what was seen.
    first: usize,
    items: usize,
}

impl<'a> Watched<'a> {
    fn begin(watch: &'a Watch, node: &'a Node, session: SessionId, call: &Call) -> Self {
        let mut state = lock(&watch.state);
        let first = state.seen.len();
        state.calls += 1;
        let number = state.calls;
        if call.items.len() > 1 {
            node.sometimes(Probe::Batch);
        }
        for item in &call.items {
            if item.attempt > 1 {
                node.sometimes(Probe::CalledAgain);
            }
            state.seen.push(Seen {
                item: item.id,
                node: node.name().to_owned(),
                generation: item.generation.0,
                began: node.tick(),
                succeeded: None,
                class: None,
            });
            let (id, attempt) = (item.id, item.attempt);
            node.trace(&format_args!("calls {id} attempt {attempt}"));
        }
        state.running.insert(number, session);
        let job = watch.job.as_str();
        // Calls of a session that was marked dead, of a frozen process say, run under no lease.
        let lives = |session: &&SessionId| watch.table.is_live(job, session.as_str());
        let running = state.running.values().filter(lives).count() as u32;
        state.most = state.most.max(running);
        drop(state);
        let lent = watch.table.lent(job);
        if let Some(lent) = lent.filter(|lent| i64::from(running) > *lent) {
            let broken = format!("S10: {running} calls run, and {lent} permits are lent");
            watch.table.report(broken);
        }
        Self {
            watch,
            node,
            number,
            first,
            items: call.items.len(),
        }
    }

    fn end(&self, report: &CallReport) {
        let mut state = lock(&self.watch.state);
        for (seen, report) in state.seen[self.first..].iter_mut().zip(&report.items) {
            let (succeeded, class) = match report {
                ItemReport::Succeeded(_) => (true, None),
                ItemReport::Failed(failure) | ItemReport::Undecided(failure) => {
                    (false, Some(failure.class.to_string()))
                }
            };
            let said = class.as_deref().unwrap_or("success");
            self.node.trace(&format_args!("ends {}: {said}", seen.item));
            (seen.succeeded, seen.class) = (Some(succeeded), class);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.watch.state);
        state.running.remove(&self.number);
        // A crash says so itself.
        if !self.node.is_alive() {
            return;
        }
        for seen in &state.seen[self.first..self.first + self.items] {
            if seen.succeeded.is_none() {
                self.node.sometimes(Probe::Dropped);
                self.node.trace(&format_args!("drops {}", seen.item));
            }
        }
    }
}

/// Says which session a node's calls belong to.
type SessionOf = Box<dyn Fn() -> Option<SessionId> + Send + Sync>;

/// An executor that is watched.
pub(crate) struct WatchedExecutor {
    base: Arc<dyn Executor>,
    watch: Arc<Watch>,
    node: Node,
    session: SessionOf,
}

impl WatchedExecutor {
    pub(crate) fn new(
        base: Arc<dyn Executor>,
        watch: Arc<Watch>,
        node: &Node,
        session: SessionOf,
    ) -> Self {
        Self {
            base,
            watch,
            node: node.clone(),
            session,
        }
    }
}

#[async_trait]
impl Executor for WatchedExecutor {
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let session = (self.session)().unwrap_or_else(|| SessionId::new("of no process"));
        let watched = Watched::begin(&self.watch, &self.node, session, &call);
        let report = self.base.call(call, stop).await;
        watched.end(&report);
        report
    }
}
