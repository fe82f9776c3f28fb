//! The real shell on simulated nodes: one job, one run, shared services, and a handler whose calls are
//! watched in true time.
//!
//! A process does what `trommel run` does: it opens sessions and drives the run until it ends, or until
//! it is asked to stop. What is promised of all of it is checked by whoever owns the cluster.

mod fleet;
mod handling;
mod process;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trommel::adapters::memory::MemoryObjects;
use trommel::core::id::{RunId, SessionId};
use trommel::core::job::{InputSpec, Job, Location};
use trommel::core::lane::Lane;
use trommel::core::run::{BreachStops, Limits};
use trommel::ledger::{Ledger, NewRun};
use trommel::ports::table::TableProfile;
use trommel::ports::{Executor, Objects};
use trommel::shell::{Settings, Stores};

use crate::exec::lock;
use crate::node::Node;
use crate::rules::KnownToken;
use crate::scenario::Role;
use crate::services::{ExecutorLink, Ground, Injector, QueueModel, Source, TableModel};
use crate::simulation::Simulation;
use crate::told::{Journal, Told, ToldExecutor};
use crate::watch::{Seen, Watch, WatchedExecutor};

use fleet::ComingBack;
pub use handling::{Behaviour, FILLING};
pub use process::Process;

/// The run's name; there is one.
pub const RUN: &str = "run-1";

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
    coming_back: Mutex<ComingBack>,
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
                Err(problem) => process.node().trace(&problem),
            }
        });
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
}
