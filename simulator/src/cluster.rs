//! The real shell on simulated nodes: one job, one run, shared services, and a handler whose calls are
//! watched in true time.
//!
//! A process does what `trommel run` does: it opens sessions and drives the run until it ends, or until
//! it is asked to stop. What is promised of all of it is checked by whoever owns the cluster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt as _;
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::adapters::memory::MemoryObjects;
use trommel::core::class::{Class, Failure};
use trommel::core::id::{RunId, SessionId};
use trommel::core::item::{Input, Object};
use trommel::core::job::{InputSpec, Job, Location};
use trommel::core::lane::Lane;
use trommel::core::mark::Sequencer;
use trommel::core::run::{BreachStops, Limits, RunStatus};
use trommel::ledger::{Ledger, NewRun, RunRow};
use trommel::ports::table::TableProfile;
use trommel::ports::{Executor, Objects, ObjectsError, Queue};
use trommel::shell::finalizer::compile;
use trommel::shell::intake::{Ingest, IngestParts};
use trommel::shell::report::RunReader;
use trommel::shell::{Env, OpenRun, OpenedRun, Session, SessionEnd, Settings, Stores};

use serde::{Deserialize, Serialize};

use crate::exec::lock;
use crate::node::Node;
use crate::probe::Probe;
use crate::rules::KnownToken;
use crate::scenario::Role;
use crate::services::{
    ExecutorLink, Ground, Injector, ObjectsLink, QueueModel, Source, TableLink, TableModel,
};
use crate::simulation::Simulation;
use crate::told::{Journal, Told, ToldExecutor};
use crate::watch::{Seen, Watch, WatchedExecutor};

/// The run's name; there is one.
pub const RUN: &str = "run-1";

/// What the simulated handler fills its output up with.
pub const FILLING: &str = "~";

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
    /// Kills its process: items, not calls.
    #[serde(default)]
    pub killers: u32,
    /// `Bad` has so many names, `Bad0`, `Bad1`, …; none: it is `Bad`.
    #[serde(default)]
    pub kinds_of_bad: u32,
    /// Its output is as long as this, in bytes, if that is longer than its name.
    #[serde(default)]
    pub output_bytes: u32,
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
            killers: 0,
            kinds_of_bad: 0,
            output_bytes: 0,
        }
    }
}

/// Makes the executor that a node's calls go to.
pub type Executors = Arc<dyn Fn(&Cluster, &Node) -> Arc<dyn Executor> + Send + Sync>;

struct Inner {
    job: Arc<Job>,
    settings: Settings,
    stores: Stores,
    /// The input, where it is simulated.
    input: MemoryObjects,
    results: Arc<dyn Objects>,
    executors: Executors,
    table: Arc<TableModel>,
    queues: BTreeMap<Lane, Arc<QueueModel>>,
    /// Event mode: where notifications go.
    ingest: Arc<QueueModel>,
    service: Node,
    behaviour: Mutex<Behaviour>,
    injector: Arc<Injector>,
    processes: Mutex<BTreeMap<String, Process>>,
    /// Crashed processes that are on their way back.
    coming_back: Mutex<u32>,
    watch: Arc<Watch>,
    told: Arc<Journal>,
    opened: AtomicU64,
    watchers: AtomicU64,
    /// Whether objects of the scratch place can grow.
    appends: AtomicBool,
}

/// The key that the input is read from; of none, all of them.
fn input_key(input: &InputSpec) -> Vec<u8> {
    let location = match input {
        InputSpec::Objects(place) => Some(place),
        InputSpec::Jsonl(file) | InputSpec::Json(file) | InputSpec::Csv { file, .. } => Some(file),
        InputSpec::Inline(_) | InputSpec::Range { .. } | InputSpec::Events(_) => None,
    };
    match location {
        Some(Location::S3 { key, .. }) => key.clone().into_bytes(),
        Some(Location::Path(_)) | None => Vec::new(),
    }
}

/// A job with its services, and the processes that work on it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl Cluster {
    /// Services without faults, and nobody at work yet.
    pub fn new(sim: &Simulation, job: Job, settings: Settings, profile: TableProfile) -> Self {
        let simulated = |cluster: &Self, node: &Node| cluster.handler(node);
        Self::with_executors(sim, job, (settings, profile), Arc::new(simulated))
    }

    /// The same, for calls that go to executors of one's own.
    pub fn with_executors(
        sim: &Simulation,
        job: Job,
        (settings, profile): (Settings, TableProfile),
        executors: Executors,
    ) -> Self {
        Self::on(sim, job, (settings, profile), executors, None)
    }

    /// The same, on stores elsewhere; without any, on simulated ones.
    pub fn on(
        sim: &Simulation,
        job: Job,
        (settings, profile): (Settings, TableProfile),
        executors: Executors,
        ground: Option<Ground>,
    ) -> Self {
        let service = sim.node("services");
        let seed = sim.seed();
        let injector = Arc::new(Injector::new(seed));
        let away = |ground: &Ground| {
            TableModel::away(ground.table.clone(), service.clone(), injector.clone())
        };
        let here = || TableModel::new(profile, service.clone(), injector.clone());
        let table = ground.as_ref().map_or_else(here, away);
        // One day in four the table is like one that has no tokens.
        if seed.stream("tokens").chance(250_000) {
            table.set_known(KnownToken::DoneAgain);
        }
        let queue = |lane: Lane| match &ground {
            Some(ground) => {
                let queue = ground.queues[&lane].clone();
                QueueModel::away(lane.as_str(), queue, injector.clone())
            }
            None => QueueModel::new(lane.as_str(), &service, injector.clone()),
        };
        let ingest = match &ground {
            Some(ground) => QueueModel::away("ingest", ground.ingest.clone(), injector.clone()),
            None => QueueModel::new("ingest", &service, injector.clone()),
        };
        let queues = Lane::ALL.into_iter().map(|lane| (lane, queue(lane)));
        let queues = queues.collect();
        let store = |of: fn(&Ground) -> &Arc<dyn Objects>| -> Arc<dyn Objects> {
            match &ground {
                Some(ground) => of(ground).clone(),
                None => Arc::new(MemoryObjects::new()),
            }
        };
        let input = MemoryObjects::new();
        let stores = Stores {
            input: match &ground {
                Some(ground) => ground.input.clone(),
                None => Arc::new(input.clone()),
            },
            input_prefix: input_key(&job.input),
            scratch: store(|ground| &ground.scratch),
            scratch_prefix: b"scratch/".to_vec(),
        };
        let calm = Behaviour::calm(Duration::from_millis(100), Duration::from_millis(500));
        let watch = Arc::new(Watch::new(job.name.clone(), table.clone()));
        let inner = Inner {
            job: Arc::new(job),
            settings,
            stores,
            input,
            results: store(|ground| &ground.results),
            executors,
            table,
            ingest,
            queues,
            service,
            behaviour: Mutex::new(calm),
            injector,
            processes: Mutex::default(),
            coming_back: Mutex::default(),
            watch,
            told: Arc::default(),
            opened: AtomicU64::default(),
            watchers: AtomicU64::default(),
            appends: AtomicBool::new(true),
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
        let Some(former) = self.process(crashed.name()) else {
            return;
        };
        *lock(&self.inner.coming_back) += 1;
        let (cluster, crashed) = (self.clone(), crashed.clone());
        self.inner.service.spawn("restart", async move {
            let clock = cluster.inner.service.runtime().clock;
            clock.sleep(back_after).await;
            // Somebody may have started it meanwhile.
            let latest = cluster.process(crashed.name());
            let same = |latest: Process| latest.node.incarnation() == crashed.incarnation();
            if latest.is_some_and(same) {
                cluster.start(&crashed.successor(), former.role);
            }
            *lock(&cluster.inner.coming_back) -= 1;
        });
    }

    /// The latest process of each node.
    pub fn processes(&self) -> Vec<Process> {
        lock(&self.inner.processes).values().cloned().collect()
    }

    /// Forgets its processes, which hold the cluster that holds them.
    pub(crate) fn dismantle(&self) {
        let processes = std::mem::take(&mut *lock(&self.inner.processes));
        drop(processes);
    }

    /// The latest process of this node, if it has one.
    pub(crate) fn process(&self, name: &str) -> Option<Process> {
        lock(&self.inner.processes).get(name).cloned()
    }

    /// Whether nobody drives the run any more, and nobody who did is on his way back.
    pub fn is_undriven(&self) -> bool {
        self.is_all(|process| process.role == Role::Worker || process.is_over())
    }

    /// Whether every process has left, and none is on its way back.
    pub fn is_over(&self) -> bool {
        self.is_all(Process::is_over)
    }

    fn is_all(&self, check: impl Fn(&Process) -> bool) -> bool {
        *lock(&self.inner.coming_back) == 0 && lock(&self.inner.processes).values().all(check)
    }

    /// Whether no process holds a page.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_all(|process| process.is_over() || process.holds_nothing())
    }

    /// Whether somebody who drove the run left as it had ended.
    pub fn has_ended(&self) -> bool {
        let processes = lock(&self.inner.processes);
        processes.values().any(|process| match process.ended() {
            Some(RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted) => true,
            Some(RunStatus::Running | RunStatus::Paused) | None => false,
        })
    }

    /// What makes calls fail.
    pub fn injector(&self) -> &Arc<Injector> {
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

    /// The stores of one window: each has a scratch place of its own.
    pub fn stores_of(&self, run: &RunId) -> Stores {
        Stores {
            scratch_prefix: format!("scratch/{run}/").into_bytes(),
            ..self.inner.stores.clone()
        }
    }

    /// Event mode: where notifications go.
    pub fn ingest(&self) -> &Arc<QueueModel> {
        &self.inner.ingest
    }

    /// From now on the simulated input keeps versions.
    pub fn input_keeps_versions(&self) {
        self.inner.input.keep_versions();
    }

    /// From now on objects of the scratch place do not grow, as on S3.
    pub fn scratch_is_like_s3(&self) {
        self.inner.appends.store(false, Ordering::Relaxed);
    }

    /// Result files.
    pub fn results(&self) -> &Arc<dyn Objects> {
        &self.inner.results
    }

    /// How many sessions were opened.
    pub fn sessions_opened(&self) -> u64 {
        self.inner.opened.load(Ordering::Relaxed)
    }

    /// What was seen of calls.
    pub fn watch(&self) -> &Watch {
        &self.inner.watch
    }

    /// What the pipeline was told of calls.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.inner.told.all()
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
        // Its writes are named after it, and no two writes may have one name.
        let number = self.inner.watchers.fetch_add(1, Ordering::Relaxed);
        let watcher = SessionId::new(format!("watcher-{number}"));
        Ledger::new(self.inner.table.quiet(), runtime, watcher)
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Seen> {
        self.inner.watch.seen()
    }

    /// How many calls run right now.
    pub fn running(&self) -> u32 {
        self.inner.watch.running()
    }

    /// The most calls that ever ran at one time, over all nodes.
    pub fn running_most(&self) -> u32 {
        self.inner.watch.most()
    }

    /// Writes the run's row.
    ///
    /// # Panics
    /// The run is there already.
    pub async fn create_run(&self) {
        let created = self.ledger().create_run(&self.new_run()).await;
        created.expect("the table is empty, and its quiet way has no faults");
    }

    /// What a run starts with.
    fn new_run(&self) -> NewRun {
        NewRun {
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
        }
    }

    /// Starts a process on a node: it works on the run, in its role, until it has ended.
    pub fn start(&self, node: &Node, role: Role) -> Process {
        let process = Process::new(self, node, role);
        lock(&self.inner.processes).insert(node.name().to_owned(), process.clone());
        let main = process.clone();
        node.spawn("main", async move { main.work().await });
        process
    }

    /// Starts a session that works on nothing: it only buries those that died.
    pub fn watch_only(&self, node: &Node) {
        let process = Process::new(self, node, Role::Router);
        node.spawn("main", async move {
            let started = process.open().await;
            match started {
                Ok(session) => session.env().kill.cancelled().await,
                Err(problem) => process.node.trace(&problem),
            }
        });
    }

    /// The simulated handler, as it runs on one node.
    pub(crate) fn handler(&self, node: &Node) -> Arc<dyn Executor> {
        let (cluster, node) = (self.clone(), node.clone());
        let handle = move |item: HandlerItem| cluster.clone().handle(node.clone(), item);
        Arc::new(handler(handle))
    }

    /// This node's way to its executor, watched at its end.
    fn executor(&self, node: &Node, lane: Lane) -> Arc<dyn Executor> {
        let base = (self.inner.executors)(self, node);
        let process = self.process(node.name());
        let session = move || process.as_ref().and_then(Process::session);
        let watch = self.inner.watch.clone();
        let watched = WatchedExecutor::new(base, watch, node, Box::new(session));
        let injector = self.inner.injector.clone();
        Arc::new(ToldExecutor {
            base: Arc::new(ExecutorLink::new(Arc::new(watched), node, injector)),
            lane,
            node: node.clone(),
            journal: self.inner.told.clone(),
        })
    }

    async fn handle(self, node: Node, item: HandlerItem) -> Result<String, Failure> {
        let behaviour = *lock(&self.inner.behaviour);
        let mut dice = self.inner.injector.dice(&item.id);
        let spread = behaviour.longest.saturating_sub(behaviour.shortest);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut takes = behaviour.shortest + Duration::from_nanos(dice.below(spread));
        if dice.chance(behaviour.slow) {
            takes = behaviour.longest * 10;
        }
        node.sleep(takes).await;
        let killers = behaviour.killers;
        self.inner.injector.kill_if(killers, &node, &item.id).await;
        let cause = format!("attempt {} on \"{}\" failed", item.attempt, item.id);
        let failure = |class: &str| Err(Failure::new(Class::named(class), &cause));
        if dice.chance(behaviour.flaky) {
            return failure("Flaky");
        }
        if dice.chance(behaviour.bad) {
            return match behaviour.kinds_of_bad {
                0 => failure("Bad"),
                kinds => failure(&format!("Bad{}", dice.below(u64::from(kinds)))),
            };
        }
        if dice.chance(behaviour.throttled) {
            return Err(Failure::new(Class::Throttled, cause));
        }
        assert!(!dice.chance(behaviour.panics), "simulated");
        if let Input::Object(object) = item.input() {
            self.read(&node, &item, object).await?;
        }
        let mut output = item.idempotency_key();
        let bytes = output.len().max(behaviour.output_bytes as usize);
        output.push_str(&FILLING.repeat(bytes - output.len()));
        Ok(output)
    }

    /// Reads the object as it was listed, as every executor of objects does.
    async fn read(&self, node: &Node, item: &HandlerItem, object: &Object) -> Result<(), Failure> {
        let input = self.inner.stores.input.clone();
        let link = ObjectsLink::new(input, node, self.inner.injector.clone());
        let failed = |error: ObjectsError| {
            let class = match &error {
                ObjectsError::NotFound(_) => Class::Gone,
                ObjectsError::Changed(_) => Class::SourceChanged,
                ObjectsError::Exists(_)
                | ObjectsError::Unavailable(_)
                | ObjectsError::Refused(_) => Class::Unavailable,
            };
            Failure::new(class, error.to_string())
        };
        let pin = Some(&object.pin);
        let reader = link.get(&object.store_key(), 0, None, pin).await;
        let mut bytes = Vec::new();
        let mut reader = reader.map_err(failed)?;
        let read = reader.read_to_end(&mut bytes).await;
        read.expect("memory is read to its end");
        self.inner.watch.read(item.id, item.generation, object);
        Ok(())
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
        let link = |store: &Arc<dyn Objects>| {
            let injector = inner.injector.clone();
            ObjectsLink::new(store.clone(), &self.node, injector)
        };
        let input = link(&inner.stores.input).told_to(inner.watch.clone());
        let mut scratch = link(&inner.stores.scratch);
        if !inner.appends.load(Ordering::Relaxed) {
            scratch = scratch.without_append();
        }
        Stores {
            input: Arc::new(input),
            scratch: Arc::new(scratch),
            ..inner.stores.clone()
        }
    }
}

#[async_trait]
impl OpenRun for Opener {
    async fn open(&self, row: &RunRow) -> Result<OpenedRun, String> {
        let job = self.cluster.inner.job.clone();
        let has_lane = |lane: &Lane| job.lane(*lane).is_some();
        let lanes = Lane::ALL.into_iter().filter(has_lane);
        let mut stores = self.stores();
        if row.window.is_some() {
            stores.scratch_prefix = self.cluster.stores_of(&row.id).scratch_prefix;
        }
        Ok(OpenedRun {
            executors: lanes
                .map(|lane| (lane, self.cluster.executor(&self.node, lane)))
                .collect(),
            stores,
            job,
        })
    }
}

/// One process at work.
#[derive(Clone)]
pub struct Process {
    cluster: Cluster,
    node: Node,
    role: Role,
    /// Its ways to the services; one each, however many sessions it opens.
    table: Arc<TableLink>,
    queues: BTreeMap<Lane, Arc<dyn Queue>>,
    state: Arc<Mutex<ProcessState>>,
}

#[derive(Default)]
struct ProcessState {
    asked: bool,
    /// Held by its tasks; what they call holds this.
    env: Weak<Env>,
    ended: Option<RunStatus>,
}

impl Process {
    fn new(cluster: &Cluster, node: &Node, role: Role) -> Self {
        let mut queues: BTreeMap<Lane, Arc<dyn Queue>> = BTreeMap::new();
        for (lane, queue) in &cluster.inner.queues {
            queues.insert(*lane, Arc::new(queue.link(node)));
        }
        Self {
            cluster: cluster.clone(),
            node: node.clone(),
            role,
            table: Arc::new(cluster.inner.table.link(node)),
            queues,
            state: Arc::default(),
        }
    }

    /// The session it opened last.
    fn session(&self) -> Option<SessionId> {
        let state = lock(&self.state);
        let env = state.env.upgrade()?;
        Some(env.ledger.session().clone())
    }

    fn holds_nothing(&self) -> bool {
        let env = lock(&self.state).env.upgrade();
        env.is_none_or(|env| env.runs_held().is_empty())
    }

    /// What it does.
    pub fn role(&self) -> Role {
        self.role
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
        if let Some(env) = state.env.upgrade() {
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
        lock(&self.state).env = Arc::downgrade(&env);
        inner.opened.fetch_add(1, Ordering::Relaxed);
        self.node.trace(&format_args!("session {session}"));
        let lanes = match self.role {
            Role::All | Role::Worker => &Lane::ALL[..],
            Role::Router => &[],
        };
        let started = match self.ingest() {
            Some(ingest) if self.role != Role::Worker => {
                Session::serve(env, lanes, self.node.name(), ingest).await
            }
            Some(_) | None => Session::start(env, lanes, self.node.name()).await,
        };
        started.map_err(|error| error.to_string())
    }

    /// What event mode needs, where it is.
    fn ingest(&self) -> Option<Arc<Ingest>> {
        let inner = &self.cluster.inner;
        let InputSpec::Events(events) = &inner.job.input else {
            return None;
        };
        let injector = inner.injector.clone();
        let results = ObjectsLink::new(inner.results.clone(), &self.node, injector);
        let results: Arc<dyn Objects> = Arc::new(results);
        Some(Ingest::new(IngestParts {
            job: inner.job.clone(),
            events: events.clone(),
            template: self.cluster.new_run(),
            queue: Arc::new(inner.ingest.link(&self.node)),
            sequencer: events.sequencer.unwrap_or(Sequencer::Ignored),
            results: inner.job.results.is_some().then_some((results, Vec::new())),
            own_places: Vec::new(),
        }))
    }

    /// Whether it works until it is told to stop: a worker, and whoever serves.
    fn is_endless(&self) -> bool {
        let serves = matches!(self.cluster.inner.job.input, InputSpec::Events(_));
        serves || self.role == Role::Worker
    }

    async fn one_session(&self) -> Result<RunStatus, String> {
        let session = self.open().await?;
        if lock(&self.state).asked {
            session.env().drain.cancel();
        }
        let env = session.env().clone();
        let driven = if self.is_endless() {
            tokio::select! {
                biased;
                () = env.kill.cancelled() => {}
                () = env.drain.cancelled() => {}
            }
            Ok(RunStatus::Running)
        } else {
            session.drive(&self.cluster.run()).await
        };
        match session.close().await {
            SessionEnd::Closed => self.node.trace(&"its session is closed"),
            SessionEnd::Lost => self.node.trace(&"its session was lost"),
        }
        driven.map_err(|error| error.to_string())?;
        if self.is_endless() {
            return Ok(RunStatus::Running);
        }
        let row = env.ledger.run(&self.cluster.run()).await;
        let status = row.map_err(|error| error.to_string())?.state.status;
        match status {
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
                self.compile().await?;
            }
            RunStatus::Running | RunStatus::Paused => {}
        }
        Ok(status)
    }

    /// Compiles the result files, if the job wants some and nobody has yet.
    async fn compile(&self) -> Result<(), String> {
        let inner = &self.cluster.inner;
        // As the foreground does: the session of before may have been lost, and others must find it dead.
        let runtime = self.node.runtime();
        let session = SessionId::new(format!("{:016x}", runtime.entropy.next_u64()));
        let ledger = Ledger::new(self.table.clone(), runtime, session);
        if inner.job.results.is_none() {
            return Ok(());
        }
        let row = ledger.run(&self.cluster.run()).await;
        let row = row.map_err(|error| error.to_string())?;
        let injector = inner.injector.clone();
        let results = ObjectsLink::new(inner.results.clone(), &self.node, injector);
        let opener = Opener {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
        };
        let reader = RunReader {
            ledger,
            row,
            job: inner.job.clone(),
            stores: opener.stores(),
        };
        let compiled = compile(&reader, &results, b"", &self.node.runtime()).await;
        let Some(manifest) = compiled.map_err(|error| error.to_string())? else {
            self.node.trace(&"it was redriven meanwhile");
            return Ok(());
        };
        let generation = manifest.generation;
        self.node.sometimes(Probe::Compiled);
        self.node
            .trace(&format_args!("compiled generation {generation}"));
        Ok(())
    }
}
