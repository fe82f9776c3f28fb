//! One process of the cluster: it opens sessions and drives the run, or serves as a worker, until it is asked to stop.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use trommel::core::id::SessionId;
use trommel::core::job::InputSpec;
use trommel::core::lane::Lane;
use trommel::core::mark::Sequencer;
use trommel::core::run::RunStatus;
use trommel::ledger::{Ledger, RunRow};
use trommel::ports::{Objects, Queue};
use trommel::shell::finalizer::compile;
use trommel::shell::intake::{Ingest, IngestParts};
use trommel::shell::report::RunReader;
use trommel::shell::{Env, OpenRun, OpenedRun, Session, SessionEnd, Stores};

use super::Cluster;
use crate::exec::lock;
use crate::node::Node;
use crate::probe::Probe;
use crate::scenario::Role;
use crate::services::{ObjectsLink, TableLink};

/// Before a process tries again what the ledger did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    pub(super) fn new(cluster: &Cluster, node: &Node, role: Role) -> Self {
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
    pub(super) fn session(&self) -> Option<SessionId> {
        let state = lock(&self.state);
        let env = state.env.upgrade()?;
        Some(env.ledger.session().clone())
    }

    pub(super) fn holds_nothing(&self) -> bool {
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

    /// Whether it leaves the driving to others, or is over.
    pub(super) fn drives_nothing(&self) -> bool {
        self.role == Role::Worker || self.is_over()
    }

    /// Whether it will do nothing more.
    pub fn is_over(&self) -> bool {
        self.ended().is_some() || !self.node.is_alive()
    }

    pub(super) async fn work(&self) {
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

    pub(super) async fn open(&self) -> Result<Session, String> {
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
