//! The entry: a seed, nodes, and a way to run them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trommel::core::time::Tick;

use crate::entropy::{Seed, Stream};
use crate::exec::{Exec, Owner, lock};
use crate::halt::{Halt, Limits, Panicked};
use crate::node::{Node, Skew};
use crate::pace::Pace;
use crate::probe::{Probe, Probes};
use crate::schedule::Schedule;
use crate::trace::Trace;

/// Everything that nodes share.
pub(crate) struct World {
    pub(crate) exec: Arc<Exec>,
    seed: Seed,
    trace: Mutex<Trace>,
    nodes: Mutex<Nodes>,
    skews: Mutex<BTreeMap<String, Skew>>,
    probes: Mutex<Probes>,
}

/// The processes there were, the latest of each name.
#[derive(Default)]
struct Nodes {
    started: Owner,
    latest: BTreeMap<Arc<str>, Latest>,
}

struct Latest {
    owner: Owner,
    incarnation: u32,
    entropy: Arc<Stream>,
}

impl World {
    pub(crate) fn trace(&self, who: &str, what: &dyn fmt::Display) {
        let at = self.exec.now();
        lock(&self.trace).event(at, who, what);
    }

    pub(crate) fn sometimes(&self, probe: Probe) {
        *lock(&self.probes).entry(probe).or_default() += 1;
    }

    pub(crate) fn happened(&self, probe: Probe) -> bool {
        lock(&self.probes).contains_key(&probe)
    }

    /// The living process of this name; a new one, if there is none or it crashed.
    pub(crate) fn node(self: &Arc<Self>, name: &str) -> Node {
        let (node, is_new) = self.find_or_start(name);
        if is_new {
            node.trace(&format_args!("started as number {}", node.incarnation));
        }
        node
    }

    fn find_or_start(self: &Arc<Self>, name: &str) -> (Node, bool) {
        let skew = lock(&self.skews).get(name).copied().unwrap_or_default();
        let mut nodes = lock(&self.nodes);
        let former = nodes.latest.get(name);
        if let Some(latest) = former.filter(|latest| !self.exec.has_ended(latest.owner)) {
            let node = Node {
                world: Arc::clone(self),
                owner: latest.owner,
                name: name.into(),
                incarnation: latest.incarnation,
                entropy: Arc::clone(&latest.entropy),
                skew,
            };
            return (node, false);
        }
        let incarnation = former.map_or(1, |latest| latest.incarnation + 1);
        let owner = nodes.started;
        let stream = format!("node {name} {incarnation}");
        let entropy = Arc::new(self.seed.stream(&stream));
        nodes.started += 1;
        let latest = Latest {
            owner,
            incarnation,
            entropy: Arc::clone(&entropy),
        };
        nodes.latest.insert(name.into(), latest);
        let node = Node {
            world: Arc::clone(self),
            owner,
            name: name.into(),
            incarnation,
            entropy,
            skew,
        };
        (node, true)
    }
}

/// A simulated world. Everything in it follows from its seed and from the futures given to it.
pub struct Simulation {
    world: Arc<World>,
}

impl Simulation {
    /// A world at time zero, with the default [`Limits`].
    pub fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    /// A world at time zero.
    pub fn with_limits(seed: u64, limits: Limits) -> Self {
        Self::paced(seed, limits, None)
    }

    /// A world in which so many virtual seconds pass in a real one: for services that are elsewhere. Seed and
    /// futures do not decide all that happens there.
    pub fn in_step(seed: u64, limits: Limits, speed: u32) -> Self {
        Self::paced(seed, limits, Some(Pace::of(speed)))
    }

    fn paced(seed: u64, limits: Limits, pace: Option<Pace>) -> Self {
        let seed = Seed(seed);
        let world = World {
            exec: Arc::new(Exec::new(seed.stream("schedule"), limits, pace)),
            seed,
            trace: Mutex::default(),
            nodes: Mutex::default(),
            skews: Mutex::default(),
            probes: Mutex::default(),
        };
        Self {
            world: Arc::new(world),
        }
    }

    /// The seed; for streams of chance of one's own.
    pub fn seed(&self) -> Seed {
        self.world.seed
    }

    /// The living process of this name; a new one, if there is none or it crashed.
    pub fn node(&self, name: &str) -> Node {
        self.world.node(name)
    }

    /// Nodes of this name have a clock that is wrong, from their next start.
    pub fn skew(&self, name: &str, skew: Skew) {
        lock(&self.world.skews).insert(name.to_owned(), skew);
    }

    /// Notes that something happened which must happen sometimes.
    pub fn sometimes(&self, probe: Probe) {
        self.world.sometimes(probe);
    }

    /// Whether it did.
    pub fn happened(&self, probe: Probe) -> bool {
        self.world.happened(probe)
    }

    /// How often each did.
    pub fn probes(&self) -> Probes {
        lock(&self.world.probes).clone()
    }

    /// Tasks go in this order from now on.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.world.exec.set_schedule(schedule);
    }

    /// Runs everything until the future is done; it takes turns with the tasks, by the seed.
    ///
    /// # Errors
    /// [`Halt`], where it cannot be done any more.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Halt> {
        let tell = |panicked: &Panicked| self.tell(panicked);
        self.world.exec.block_on(future, &tell)
    }

    /// Runs everything until nothing is left to do up to and at this moment.
    ///
    /// # Errors
    /// [`Halt`], but no deadlock: where nothing can happen, the time comes all the same.
    pub fn run_until(&self, at: Tick) -> Result<(), Halt> {
        let tell = |panicked: &Panicked| self.tell(panicked);
        self.world.exec.run_until(at, &tell)
    }

    /// [`Simulation::run_until`] so long from now.
    ///
    /// # Errors
    /// As there.
    pub fn run_for(&self, duration: Duration) -> Result<(), Halt> {
        self.run_until(self.now() + duration)
    }

    fn tell(&self, panicked: &Panicked) {
        let Panicked { task, message, .. } = panicked;
        self.world.trace(task, &format_args!("panicked: {message}"));
    }

    /// Virtual time.
    pub fn now(&self) -> Tick {
        self.world.exec.now()
    }

    /// How many times a task was polled.
    pub fn steps(&self) -> u64 {
        self.world.exec.steps()
    }

    /// The tasks that panicked, in order.
    pub fn panics(&self) -> Vec<Panicked> {
        self.world.exec.panics()
    }

    /// Writes an event of the world itself into the trace.
    pub fn trace(&self, what: &dyn fmt::Display) {
        self.world.trace("sim", what);
    }

    /// Keeps the trace's hash and not its text: for many runs at full speed.
    pub fn forget_text(&self) {
        lock(&self.world.trace).forget_text();
    }

    /// The trace so far.
    pub fn trace_text(&self) -> String {
        lock(&self.world.trace).text().to_owned()
    }

    /// The hash of the trace so far.
    pub fn trace_hash(&self) -> u64 {
        lock(&self.world.trace).hash()
    }
}

impl Drop for Simulation {
    /// Tasks and nodes hold the world that holds them: they end here, and can start no others.
    fn drop(&mut self) {
        self.world.exec.end_all();
        let nodes = std::mem::take(&mut lock(&self.world.nodes).latest);
        drop(nodes);
    }
}

#[cfg(test)]
mod tests;
