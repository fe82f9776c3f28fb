//! Decides what goes wrong at each call, and keeps a record of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::bill::{Bill, Billed};
use crate::entropy::Seed;
use crate::exec::lock;
use crate::node::Node;
use crate::point::{Dice, Kind, Operation, Point};
use crate::trace::{FNV_START, Fnv};
use trommel::core::price::Usage;

/// How long one way of a call takes: of a hundred, so many take at most so many milliseconds. Most are
/// short, few are long, as with every service over a network.
const WAYS_MS: [(u64, u64, u64); 3] = [(85, 1, 5), (13, 5, 25), (2, 25, 250)];

/// The longest that a handler takes which takes too long: more than a simulated lane's timeout.
pub const OVERLONG_MAX: Duration = Duration::from_secs(40);

/// How long a caller waits for an answer that does not come.
pub const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// How long troubles last, by how long a session may be silent: what matters is which is longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The duration of a session.
    pub session: Duration,
}

impl Lengths {
    /// The latest that a request or a message arrives: sessions that were silent then are long dead.
    pub fn late_max(self) -> Duration {
        self.session * 3
    }

    /// How long a hanging call gives no answer: longer than a session may be silent.
    pub fn hang(self) -> Duration {
        self.session * 2
    }

    /// The slowest answer that still comes: half of it, and the session is nearly lost.
    pub fn slow_max(self) -> Duration {
        self.session * 2 / 5
    }

    /// A crashed process is back within this time: before or after it is known to be dead.
    pub fn back_max(self) -> Duration {
        self.session * 5 / 3
    }
}

/// What sessions of production last.
const SESSION: Duration = Duration::from_secs(30);

/// Chances of each kind of fault, of a million calls it may strike. Kinds that are not named never strike.
pub type Rates = BTreeMap<Kind, u32>;

/// Where faults come from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// Nowhere: the services are calm.
    #[default]
    Calm,
    /// From the seed, by these rates.
    Swarm(Rates),
    /// From a list.
    Plan(BTreeMap<Point, Kind>),
}

/// What is told of a crash: the node, and how long until it is back.
type CrashHook = Box<dyn Fn(&Node, Duration) + Send + Sync>;

/// The one place that makes calls fail.
pub struct Injector {
    seed: Seed,
    lengths: Mutex<Lengths>,
    listed_at_once: AtomicU32,
    rows_at_once: AtomicU32,
    state: Mutex<State>,
    on_crash: Mutex<Option<CrashHook>>,
}

/// A point by the hash of its entity: names are written out for faults only, as most calls have none.
type Spot = (Operation, u64, u32);

#[derive(Default)]
struct State {
    faults: Faults,
    /// Never gone through: its order would be nobody's.
    asked: HashMap<(Operation, u64), u32, BuildHasherDefault<Mixed>>,
    fired: Vec<(Point, Kind)>,
    calls: [u64; Operation::ALL.len()],
    calls_made: u64,
    /// Processes that handlers killed.
    killed: usize,
    usage: Usage,
    bill: Bill,
    /// Crash at the so many-th call of all, if any: for exploring every await.
    crash_at: Option<(u64, Kind)>,
}

/// Hashes what is a hash already.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = self.0.rotate_left(29) ^ number;
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
enum Faults {
    #[default]
    None,
    /// What strikes each operation, and below which draw.
    ByChance(Vec<Vec<(u64, Kind)>>),
    At(BTreeMap<Spot, Kind>),
}

/// A call on its way.
pub struct Ticket {
    /// What goes wrong with it.
    pub fault: Option<Kind>,
    /// What else is by chance.
    pub dice: Dice,
    /// How long the request is under way …
    pub there: Duration,
    /// … and its answer.
    pub back: Duration,
}

/// One of both ways often takes no time: others may come in between before the service does it, or after; seldom
/// does it matter that they may do so twice.
fn ways(dice: &mut Dice) -> (Duration, Duration) {
    let way = way(dice);
    match dice.below(8) {
        0..4 => (way, Duration::ZERO),
        4..7 => (Duration::ZERO, way),
        _ => (way, self::way(dice)),
    }
}

fn way(dice: &mut Dice) -> Duration {
    let mut draw = dice.below(100);
    for (share, shortest, longest) in WAYS_MS {
        if draw < share {
            let spread = Duration::from_millis(longest - shortest);
            let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
            return Duration::from_millis(shortest)
                + Duration::from_nanos(dice.below(nanos.max(1)));
        }
        draw -= share;
    }
    Duration::ZERO
}

impl Ticket {
    /// Of a call without a point of its own: nothing goes wrong, and it takes no time.
    pub fn calm() -> Self {
        Self {
            fault: None,
            dice: Dice::at(Seed(0), Operation::Call, 0, 0),
            there: Duration::ZERO,
            back: Duration::ZERO,
        }
    }

    /// From nothing up to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.dice.below(nanos.max(1)))
    }

    /// So many things by chance, but one at least.
    pub fn some_of(&mut self, all: usize) -> usize {
        1 + self.dice.below(all.max(1) as u64) as usize
    }

    /// Whether this goes wrong.
    pub fn is(&self, kind: Kind) -> bool {
        self.fault == Some(kind)
    }
}

impl Injector {
    /// Calm.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            lengths: Mutex::new(Lengths { session: SESSION }),
            listed_at_once: AtomicU32::default(),
            rows_at_once: AtomicU32::new(u32::MAX),
            state: Mutex::default(),
            on_crash: Mutex::default(),
        }
    }

    /// Sessions last so long here.
    pub fn set_session(&self, session: Duration) {
        *lock(&self.lengths) = Lengths { session };
    }

    /// A listing answers with so many objects, slowly; 0: with all there are.
    pub fn set_listed_at_once(&self, objects: u32) {
        self.listed_at_once.store(objects, Ordering::Relaxed);
    }

    /// How many that are.
    pub(super) fn listed_at_once(&self) -> usize {
        self.listed_at_once.load(Ordering::Relaxed) as usize
    }

    /// A query answers with so many rows at most, and says whether there are more.
    pub fn set_rows_at_once(&self, rows: u32) {
        self.rows_at_once.store(rows, Ordering::Relaxed);
    }

    /// How many that are.
    pub(super) fn rows_at_once(&self) -> usize {
        self.rows_at_once.load(Ordering::Relaxed) as usize
    }

    /// How long troubles last.
    pub fn lengths(&self) -> Lengths {
        *lock(&self.lengths)
    }

    /// From now on faults come from there.
    pub fn set(&self, source: Source) {
        lock(&self.state).faults = match source {
            Source::Calm => Faults::None,
            Source::Swarm(rates) => {
                Faults::ByChance(Operation::ALL.map(|of| draws(of, &rates)).into())
            }
            Source::Plan(plan) => {
                let at = |(point, kind): (Point, Kind)| {
                    let entity = hash_of(&point.entity);
                    ((point.operation, entity, point.nth), kind)
                };
                Faults::At(plan.into_iter().map(at).collect())
            }
        };
    }

    /// The caller of the so many-th call from now on dies before or after it.
    pub fn crash_at(&self, crash: Option<(u64, Kind)>) {
        let mut state = lock(&self.state);
        state.crash_at = crash.map(|(call, kind)| (state.calls_made + call, kind));
    }

    /// Tells of crashes that faults cause.
    pub fn on_crash(&self, hook: impl Fn(&Node, Duration) + Send + Sync + 'static) {
        *lock(&self.on_crash) = Some(Box::new(hook));
    }

    /// The faults that struck, in order.
    pub fn fired(&self) -> Vec<(Point, Kind)> {
        lock(&self.state).fired.clone()
    }

    /// How many faults struck, and processes were killed by what their handlers did.
    pub fn struck(&self) -> usize {
        let state = lock(&self.state);
        state.fired.len() + state.killed
    }

    /// The handler of this item kills its process: every time, or never.
    pub async fn kill_if(&self, of_million: u32, node: &Node, about: &(dyn fmt::Display + Sync)) {
        let hash = hash_of(&format_args!("deadly {about}"));
        let mut dice = Dice::at(self.seed, Operation::Call, hash, 0);
        if !dice.chance(of_million) {
            return;
        }
        lock(&self.state).killed += 1;
        let mut ticket = Ticket {
            dice: self.dice(about),
            ..Ticket::calm()
        };
        self.crash::<()>(node, &mut ticket).await;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        lock(&self.state).calls_made
    }

    /// Calls so far, by operation.
    pub fn calls_by_operation(&self) -> BTreeMap<Operation, u64> {
        let state = lock(&self.state);
        let calls = Operation::ALL.into_iter().zip(state.calls);
        calls.filter(|(_, times)| *times > 0).collect()
    }

    /// Notes what the service bills for a call that it got.
    pub(super) fn bill(&self, billed: &Billed) {
        let mut state = lock(&self.state);
        state.usage += billed.usage();
        state.bill.add(billed);
    }

    /// What was billed so far.
    pub fn usage(&self) -> Usage {
        lock(&self.state).usage
    }

    /// The same, counted by other arithmetic than the pipeline's.
    pub fn counted_again(&self) -> Bill {
        lock(&self.state).bill
    }

    /// Pairs of operation and fault that struck.
    pub fn pairs(&self) -> BTreeSet<(Operation, Kind)> {
        let state = lock(&self.state);
        let fired = state.fired.iter();
        fired.map(|(p, kind)| (p.operation, *kind)).collect()
    }

    /// Chance for something that is no call of a service: it follows from the seed, what it is about, and how
    /// often that was asked before.
    pub fn dice(&self, about: &dyn fmt::Display) -> Dice {
        let hash = hash_of(&format_args!("chance of {about}"));
        let mut state = lock(&self.state);
        let asked = state.asked.entry((Operation::Call, hash)).or_default();
        *asked += 1;
        Dice::at(self.seed, Operation::Call, hash, *asked)
    }

    /// The next call of this operation about this entity.
    pub fn ticket(&self, operation: Operation, node: &Node, about: &dyn fmt::Display) -> Ticket {
        let entity = Entity { node, about };
        let hash = hash_of(&entity);
        let mut state = lock(&self.state);
        state.calls[operation as usize] += 1;
        state.calls_made += 1;
        let asked = state.asked.entry((operation, hash)).or_default();
        *asked += 1;
        let nth = *asked;
        let mut dice = Dice::at(self.seed, operation, hash, nth);
        let fault = state.fault_at((operation, hash, nth), &mut dice);
        if let Some(kind) = fault {
            let point = Point {
                operation,
                entity: entity.to_string(),
                nth,
            };
            node.trace(&format_args!("FAULT {}: {point}", kind.as_str()));
            state.fired.push((point, kind));
        }
        let (there, back) = ways(&mut dice);
        Ticket {
            fault,
            dice,
            there,
            back,
        }
    }

    /// The process dies here, and is back some time later. Never answers.
    pub async fn crash<T>(&self, node: &Node, ticket: &mut Ticket) -> T {
        let back = ticket.up_to(self.lengths().back_max());
        if node.is_alive() {
            node.crash();
            if let Some(hook) = &*lock(&self.on_crash) {
                hook(node, back);
            }
        }
        std::future::pending().await
    }
}

/// Objects are deleted seldom, and hardly ever while faults come: so many times as often one strikes there, that each
/// does in some thousands of seeds.
const SELDOM_TIMES: u64 = 5;

/// Crashes are a twentieth of all faults elsewhere, and would be drowned there by the others.
const SELDOM_CRASHES_TIMES: u64 = 60;

/// How many times as often as elsewhere this strikes.
fn times(operation: Operation, kind: Kind) -> u64 {
    if operation != Operation::ObjectsDelete {
        return 1;
    }
    match kind.is_crash() {
        true => SELDOM_CRASHES_TIMES,
        false => SELDOM_TIMES,
    }
}

impl State {
    fn fault_at(&self, spot: Spot, dice: &mut Dice) -> Option<Kind> {
        if let Some((call, kind)) = self.crash_at
            && call == self.calls_made
        {
            return Some(kind);
        }
        // Drawn in any case: a fault of a plan meets the same dice as the swarm's.
        let draw = dice.below(1_000_000);
        match &self.faults {
            Faults::None => None,
            Faults::At(plan) => plan.get(&spot).copied(),
            Faults::ByChance(draws) => {
                let mut draws = draws[spot.0 as usize].iter();
                let (_, kind) = draws.find(|(below, _)| draw < *below)?;
                Some(*kind)
            }
        }
    }
}

/// What strikes this operation, each below another draw of a million.
fn draws(operation: Operation, rates: &Rates) -> Vec<(u64, Kind)> {
    let mut below = 0;
    let struck = operation.faults().iter().filter_map(|kind| {
        let rate = u64::from(*rates.get(kind)?) * times(operation, *kind);
        below += rate;
        (rate > 0).then_some((below, *kind))
    });
    struck.collect()
}

/// Who asks, and about what.
struct Entity<'a> {
    node: &'a Node,
    about: &'a dyn fmt::Display,
}

impl fmt::Display for Entity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node.name())?;
        f.write_str(" ")?;
        self.about.fmt(f)
    }
}

/// The hash of what this would be written as.
fn hash_of(entity: &dyn fmt::Display) -> u64 {
    let mut hash = Fnv(FNV_START);
    write!(hash, "{entity}").expect("a hash takes all text");
    hash.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Simulation;

    #[test]
    fn a_plan_of_what_the_swarm_did_does_the_same() {
        let sim = Simulation::new(7);
        let node = sim.node("a");
        let rates: Rates = Kind::ALL.into_iter().map(|kind| (kind, 30_000)).collect();
        let ask = |source: Source| {
            let injector = Injector::new(sim.seed());
            injector.set(source);
            for n in 0..500 {
                let operation = Operation::ALL[n % Operation::ALL.len()];
                injector.ticket(operation, &node, &format_args!("row {}", n % 7));
            }
            injector.fired()
        };
        let swarm = ask(Source::Swarm(rates));
        assert!(swarm.len() > 20, "{}", swarm.len());
        assert_eq!(ask(Source::Plan(swarm.iter().cloned().collect())), swarm);
        let fewer: BTreeMap<Point, Kind> = swarm.iter().skip(5).cloned().collect();
        assert_eq!(ask(Source::Plan(fewer)), swarm[5..]);
    }
}
