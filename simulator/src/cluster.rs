//! The real shell on simulated nodes: one job, one run, shared services, and a handler whose calls are
//! watched in true time.
//!
//! A process does what `trommel run` does: it opens sessions and drives the run until it ends, or until
//! it is asked to stop. What is promised of all of it is checked by whoever owns the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::adapters::memory::MemoryObjects;
use trommel::core::class::{Class, Failure};
use trommel::core::id::{ItemId, RunId, SessionId};
use trommel::core::job::Job;
use trommel::core::lane::Lane;
use trommel::core::run::{BreachStops, Limits, RunStatus};
use trommel::core::time::Tick;
use trommel::ledger::{Ledger, NewRun, RunRow};
use trommel::ports::table::TableProfile;
use trommel::ports::{Executor, Queue};
use trommel::shell::{Env, OpenRun, OpenedRun, Session, SessionEnd, Settings, Stores};

use serde::{Deserialize, Serialize};

use crate::exec::lock;
use crate::node::Node;
use crate::point::{Kind, Operation};
use crate::services::{Injector, ObjectsLink, QueueModel, Source, TableLink, TableModel};
use crate::simulation::Simulation;

/// The run's name; there is one.
pub const RUN: &str = "run-1";

/// Before a process tries again what the ledger did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the handler does. Chances are of a million calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// A call takes at least this …
    pub shortest: Duration,
    /// … and at most this.
    pub longest: Duration,
    /// Fails with `Flaky`.
    pub flaky: u32,
    /// Fails with `Bad`.
    pub bad: u32,
    /// Fails with `Throttled`.
    pub throttled: u32,
    /// Panics.
    pub panics: u32,
    /// Takes ten times the longest.
    pub slow: u32,
}

impl Behaviour {
    /// Always succeeds, after a time between these two.
    pub const fn calm(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            flaky: 0,
            bad: 0,
            throttled: 0,
            panics: 0,
            slow: 0,
        }
    }
}

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
    /// Whether it failed with the class that the job's rule retries.
    pub flaky: bool,
}

/// All calls, and how many run right now.
#[derive(Default)]
struct Watch {
    seen: Vec<Seen>,
    /// By their place in `seen`: the session that began it.
    running: BTreeMap<usize, SessionId>,
    /// The most that ran at one time under valid leases.
    most: u32,
}

struct Inner {
    job: Arc<Job>,
    settings: Settings,
    stores: Stores,
    table: Arc<TableModel>,
    queues: BTreeMap<Lane, Arc<QueueModel>>,
    service: Node,
    behaviour: Mutex<Behaviour>,
    injector: Arc<Injector>,
    processes: Mutex<BTreeMap<String, Process>>,
    /// Crashed processes that are on their way back.
    coming_back: Mutex<u32>,
    watch: Mutex<Watch>,
}

/// A job with its services, and the processes that work on it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl Cluster {
    /// Services without faults, and nobody at work yet.
    pub fn new(sim: &Simulation, job: Job, settings: Settings, profile: TableProfile) -> Self {
        let service = sim.node("services");
        let seed = sim.seed();
        let injector = Arc::new(Injector::new(seed));
        let table = TableModel::new(profile, service.clone(), injector.clone());
        let queue = |lane: Lane| QueueModel::new(lane.as_str(), &service, injector.clone());
        let queues = Lane::ALL.into_iter().map(|lane| (lane, queue(lane)));
        let queues = queues.collect();
        let stores = Stores {
            input: Arc::new(MemoryObjects::new()),
            input_prefix: Vec::new(),
            scratch: Arc::new(MemoryObjects::new()),
            scratch_prefix: b"scratch/".to_vec(),
        };
        let calm = Behaviour::calm(Duration::from_millis(100), Duration::from_millis(500));
        let inner = Inner {
            job: Arc::new(job),
            settings,
            stores,
            table,
            queues,
            service,
            behaviour: Mutex::new(calm),
            injector,
            processes: Mutex::default(),
            coming_back: Mutex::default(),
            watch: Mutex::default(),
        };
        let inner = Arc::new(inner);
        let cluster = Arc::downgrade(&inner);
        inner.injector.on_crash(move |node, back_after| {
            if let Some(inner) = cluster.upgrade() {
                Self { inner }.restart(node, back_after);
            }
        });
        Self { inner }
    }

    /// A crashed process comes back, as its operator or its platform sees to it.
    fn restart(&self, crashed: &Node, back_after: Duration) {
        let former = lock(&self.inner.processes).get(crashed.name()).cloned();
        let Some(former) = former else { return };
        *lock(&self.inner.coming_back) += 1;
        let (cluster, crashed) = (self.clone(), crashed.clone());
        self.inner.service.spawn("restart", async move {
            let clock = cluster.inner.service.runtime().clock;
            clock.sleep(back_after).await;
            let node = crashed.successor();
            if node.incarnation() == crashed.incarnation() + 1 {
                cluster.start(&node, former.lanes);
            }
            *lock(&cluster.inner.coming_back) -= 1;
        });
    }

    /// The latest process of each node.
    pub fn processes(&self) -> Vec<Process> {
        lock(&self.inner.processes).values().cloned().collect()
    }

    /// Whether every process has left, and none is on its way back.
    pub fn is_over(&self) -> bool {
        *lock(&self.inner.coming_back) == 0 && self.processes().iter().all(Process::is_over)
    }

    /// What makes calls fail.
    pub fn injector(&self) -> &Injector {
        &self.inner.injector
    }

    /// The job.
    pub fn job(&self) -> &Arc<Job> {
        &self.inner.job
    }

    /// Input and scratch.
    pub fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    /// The ledger's table.
    pub fn table(&self) -> &Arc<TableModel> {
        &self.inner.table
    }

    /// A node that never crashes, to watch from.
    pub fn service(&self) -> &Node {
        &self.inner.service
    }

    /// The run.
    pub fn run(&self) -> RunId {
        RunId::new(RUN)
    }

    /// From now on the handler does this.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.inner.behaviour) = behaviour;
    }

    /// From now on faults come from there.
    pub fn set_faults(&self, source: Source) {
        self.inner.injector.set(source);
    }

    /// The ledger for those who watch: without faults, without delay.
    pub fn ledger(&self) -> Ledger {
        let runtime = self.inner.service.runtime();
        Ledger::new(self.inner.table.quiet(), runtime, SessionId::new("watcher"))
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Seen> {
        lock(&self.inner.watch).seen.clone()
    }

    /// How many calls run right now.
    pub fn running(&self) -> u32 {
        lock(&self.inner.watch).running.len() as u32
    }

    /// The most calls that ever ran at one time, over all nodes.
    pub fn running_most(&self) -> u32 {
        lock(&self.inner.watch).most
    }

    /// Writes the run's row.
    ///
    /// # Panics
    /// The run is there already.
    pub async fn create_run(&self) {
        let new = NewRun {
            id: self.run(),
            job: self.inner.job.name.clone(),
            job_text: String::new(),
            job_file: "simulated".to_owned(),
            base: String::new(),
            options: String::new(),
            limits: Limits {
                tolerance: self.inner.job.tolerance,
                breach_stops: BreachStops::AtOnce,
            },
            created: self.inner.service.runtime().clock.now(),
        };
        let created = self.ledger().create_run(&new).await;
        created.expect("the table is empty, and its quiet way has no faults");
    }

    /// Starts a process on a node: it works on the run, on these lanes, until it has ended.
    pub fn start(&self, node: &Node, lanes: &'static [Lane]) -> Process {
        let process = Process::new(self, node, lanes);
        lock(&self.inner.processes).insert(node.name().to_owned(), process.clone());
        let main = process.clone();
        node.spawn("main", async move { main.work().await });
        process
    }

    /// Starts a session that works on nothing: it only buries those that died.
    pub fn watch_only(&self, node: &Node) {
        let process = Process::new(self, node, &[]);
        node.spawn("main", async move {
            let started = process.open().await;
            match started {
                Ok(session) => session.env().kill.cancelled().await,
                Err(problem) => process.node.trace(&problem),
            }
        });
    }

    /// The watched handler, as it runs on one node.
    fn handler(&self, node: &Node) -> Arc<dyn Executor> {
        let (cluster, node) = (self.clone(), node.clone());
        let handle = move |item: HandlerItem| cluster.clone().handle(node.clone(), item);
        Arc::new(handler(handle))
    }

    async fn handle(self, node: Node, item: HandlerItem) -> Result<String, Failure> {
        let behaviour = *lock(&self.inner.behaviour);
        let injector = &self.inner.injector;
        let mut ticket = injector.ticket(Operation::Call, &node, &item.id);
        let call = Watched::begin(&self.inner, &node, &item);
        if ticket.is(Kind::CrashBefore) {
            return injector.crash(&node, &mut ticket).await;
        }
        let spread = behaviour.longest.saturating_sub(behaviour.shortest);
        let mut takes = behaviour.shortest + ticket.up_to(spread);
        let slow = ticket.dice.chance(behaviour.slow);
        if slow || ticket.is(Kind::Slow) {
            takes = behaviour.longest * 10;
        }
        node.sleep(takes).await;
        let failure = |class: &str| Err(Failure::new(Class::named(class), "simulated"));
        let flaky = ticket.dice.chance(behaviour.flaky);
        let result = if flaky {
            failure("Flaky")
        } else if ticket.dice.chance(behaviour.bad) {
            failure("Bad")
        } else if ticket.dice.chance(behaviour.throttled) || ticket.is(Kind::Throttled) {
            Err(Failure::new(Class::Throttled, "simulated"))
        } else {
            Ok(item.idempotency_key())
        };
        let dies = ticket.dice.chance(behaviour.panics) || ticket.is(Kind::Dies);
        let said = match &result {
            _ if dies => "Crashed",
            Ok(_) => "success",
            Err(failure) => failure.class.as_str(),
        };
        node.trace(&format_args!("ends {}: {said}", item.id));
        call.end(result.is_ok() && !dies, flaky && !dies);
        if ticket.is(Kind::CrashAfter) {
            return injector.crash(&node, &mut ticket).await;
        }
        assert!(!dies, "simulated");
        result
    }
}

/// A call under way; it is over when this is dropped, by a crash too.
struct Watched<'a> {
    inner: &'a Inner,
    node: &'a Node,
    index: usize,
}

impl<'a> Watched<'a> {
    fn begin(inner: &'a Inner, node: &'a Node, item: &HandlerItem) -> Self {
        let process = lock(&inner.processes).get(node.name()).cloned();
        let session = process.and_then(|process| process.session());
        let session = session.unwrap_or_else(|| SessionId::new("of no process"));
        let mut watch = lock(&inner.watch);
        let index = watch.seen.len();
        watch.seen.push(Seen {
            item: item.id,
            node: node.name().to_owned(),
            generation: item.generation.0,
            began: node.tick(),
            succeeded: None,
            flaky: false,
        });
        watch.running.insert(index, session);
        let job = inner.job.name.as_str();
        // Calls of a session that was marked dead, of a frozen process say, run under no lease.
        let lives = |session: &&SessionId| inner.table.is_live(job, session.as_str());
        let running = watch.running.values().filter(lives).count() as u32;
        watch.most = watch.most.max(running);
        let lent = inner.table.lent(job);
        if i64::from(running) > lent {
            let broken = format!("S10: {running} calls run, and {lent} permits are lent");
            inner.table.report(broken);
        }
        drop(watch);
        node.trace(&format_args!("calls {} attempt {}", item.id, item.attempt));
        Self { inner, node, index }
    }

    fn end(&self, succeeded: bool, flaky: bool) {
        let mut watch = lock(&self.inner.watch);
        let seen = &mut watch.seen[self.index];
        (seen.succeeded, seen.flaky) = (Some(succeeded), flaky);
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut watch = lock(&self.inner.watch);
        watch.running.remove(&self.index);
        let seen = &watch.seen[self.index];
        // A crash says so itself.
        if seen.succeeded.is_none() && self.node.is_alive() {
            self.node.trace(&format_args!("drops {}", seen.item));
        }
    }
}

/// Hands out the watched handler.
struct Opener {
    cluster: Cluster,
    node: Node,
}

impl Opener {
    /// The same stores, on this node's way to them.
    fn stores(&self) -> Stores {
        let inner = &self.cluster.inner;
        let link = |store: &Arc<dyn trommel::ports::Objects>| {
            let injector = inner.injector.clone();
            Arc::new(ObjectsLink::new(store.clone(), &self.node, injector))
        };
        Stores {
            input: link(&inner.stores.input),
            scratch: link(&inner.stores.scratch),
            ..inner.stores.clone()
        }
    }
}

#[async_trait]
impl OpenRun for Opener {
    async fn open(&self, _: &RunRow) -> Result<OpenedRun, String> {
        let job = self.cluster.inner.job.clone();
        let handler = self.cluster.handler(&self.node);
        let has_lane = |lane: &Lane| job.lane(*lane).is_some();
        let lanes = Lane::ALL.into_iter().filter(has_lane);
        Ok(OpenedRun {
            executors: lanes.map(|lane| (lane, handler.clone())).collect(),
            stores: self.stores(),
            job,
        })
    }
}

/// One process at work.
#[derive(Clone)]
pub struct Process {
    cluster: Cluster,
    node: Node,
    lanes: &'static [Lane],
    /// Its ways to the services; one each, however many sessions it opens.
    table: Arc<TableLink>,
    queues: BTreeMap<Lane, Arc<dyn Queue>>,
    state: Arc<Mutex<ProcessState>>,
}

#[derive(Default)]
struct ProcessState {
    asked: bool,
    env: Option<Arc<Env>>,
    ended: Option<RunStatus>,
}

impl Process {
    fn new(cluster: &Cluster, node: &Node, lanes: &'static [Lane]) -> Self {
        let mut queues: BTreeMap<Lane, Arc<dyn Queue>> = BTreeMap::new();
        for (lane, queue) in &cluster.inner.queues {
            queues.insert(*lane, Arc::new(queue.link(node)));
        }
        Self {
            cluster: cluster.clone(),
            node: node.clone(),
            lanes,
            table: Arc::new(cluster.inner.table.link(node)),
            queues,
            state: Arc::default(),
        }
    }

    /// The session it opened last.
    fn session(&self) -> Option<SessionId> {
        let state = lock(&self.state);
        let env = state.env.as_ref()?;
        Some(env.ledger.session().clone())
    }

    /// Where it runs.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Asks it to stop softly.
    pub fn drain(&self) {
        self.node.trace(&"asked to drain");
        let mut state = lock(&self.state);
        state.asked = true;
        if let Some(env) = &state.env {
            env.drain.cancel();
        }
    }

    /// Where the run stood when it left; none: it is at work, or crashed.
    pub fn ended(&self) -> Option<RunStatus> {
        lock(&self.state).ended
    }

    /// Whether it will do nothing more.
    pub fn is_over(&self) -> bool {
        self.ended().is_some() || !self.node.is_alive()
    }

    async fn work(&self) {
        let mut status = RunStatus::Running;
        while status == RunStatus::Running && !lock(&self.state).asked {
            status = match self.one_session().await {
                Ok(status) => status,
                Err(problem) => {
                    self.node.trace(&format_args!("again, as {problem}"));
                    self.node.runtime().clock.sleep(AGAIN_AFTER).await;
                    RunStatus::Running
                }
            };
        }
        self.node
            .trace(&format_args!("leaves: the run is {}", status.as_str()));
        lock(&self.state).ended = Some(status);
    }

    async fn open(&self) -> Result<Session, String> {
        let inner = &self.cluster.inner;
        let runtime = self.node.runtime();
        let session = SessionId::new(format!("{:016x}", runtime.entropy.next_u64()));
        let ledger = Ledger::new(self.table.clone(), runtime.clone(), session.clone());
        let job = &inner.job;
        let pool = ledger.set_pool(&job.name, job.max_concurrency).await;
        pool.map_err(|error| error.to_string())?;
        let opener = Arc::new(Opener {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
        });
        let env = Env::new(
            ledger,
            runtime,
            job.name.clone(),
            self.queues.clone(),
            opener,
            inner.settings,
        );
        lock(&self.state).env = Some(env.clone());
        self.node.trace(&format_args!("session {session}"));
        let started = Session::start(env, self.lanes, self.node.name()).await;
        started.map_err(|error| error.to_string())
    }

    async fn one_session(&self) -> Result<RunStatus, String> {
        let session = self.open().await?;
        if lock(&self.state).asked {
            session.env().drain.cancel();
        }
        let driven = session.drive(&self.cluster.run()).await;
        match session.close().await {
            SessionEnd::Closed => self.node.trace(&"its session is closed"),
            SessionEnd::Lost => self.node.trace(&"its session was lost"),
        }
        driven.map_err(|error| error.to_string())
    }
}
