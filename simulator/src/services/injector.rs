//! Decides what goes wrong at each call, and keeps a record of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use crate::entropy::Seed;
use crate::exec::lock;
use crate::node::Node;
use crate::point::{Dice, Kind, Operation, Point};

/// One way of a call: up to so long.
const WAY_MAX: Duration = Duration::from_millis(8);

/// The latest that a request or a message arrives.
pub const LATE_MAX: Duration = Duration::from_secs(90);

/// How long a hanging call gives no answer: longer than a session may be silent.
pub const HANG: Duration = Duration::from_mins(1);

/// The slowest answer that still comes.
pub const SLOW_MAX: Duration = Duration::from_secs(12);

/// How long a caller waits for an answer that does not come.
pub const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// A crashed process is back within this time.
pub const BACK_MAX: Duration = Duration::from_secs(50);

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
    source: Mutex<Source>,
    asked: Mutex<BTreeMap<(Operation, String), u32>>,
    fired: Mutex<Vec<(Point, Kind)>>,
    calls: Mutex<BTreeMap<Operation, u64>>,
    /// Crash before the so many-th call of all, if any: for exploring every await.
    crash_at: Mutex<Option<u64>>,
    on_crash: Mutex<Option<CrashHook>>,
}

/// A call on its way.
pub struct Ticket {
    /// Which call.
    pub point: Point,
    /// What goes wrong with it.
    pub fault: Option<Kind>,
    /// What else is by chance.
    pub dice: Dice,
}

impl Ticket {
    /// Of a call without a point of its own: nothing goes wrong, and it takes no time.
    pub fn calm(operation: Operation) -> Self {
        let point = Point {
            operation,
            entity: String::new(),
            nth: 0,
        };
        let dice = point.dice(Seed(0));
        Self {
            point,
            fault: None,
            dice,
        }
    }

    /// From nothing up to `longest`.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.dice.below(nanos.max(1)))
    }

    /// How long it is under way, one way.
    pub fn way(&mut self) -> Duration {
        self.up_to(WAY_MAX)
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
            source: Mutex::default(),
            asked: Mutex::default(),
            fired: Mutex::default(),
            calls: Mutex::default(),
            crash_at: Mutex::default(),
            on_crash: Mutex::default(),
        }
    }

    /// From now on faults come from there.
    pub fn set(&self, source: Source) {
        *lock(&self.source) = source;
    }

    /// The caller of the so many-th call from now on dies before it.
    pub fn crash_at(&self, call: Option<u64>) {
        *lock(&self.crash_at) = call.map(|call| self.calls() + call);
    }

    /// Tells of crashes that faults cause.
    pub fn on_crash(&self, hook: impl Fn(&Node, Duration) + Send + Sync + 'static) {
        *lock(&self.on_crash) = Some(Box::new(hook));
    }

    /// The faults that struck, in order.
    pub fn fired(&self) -> Vec<(Point, Kind)> {
        lock(&self.fired).clone()
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        lock(&self.calls).values().sum()
    }

    /// Calls so far, by operation.
    pub fn calls_by_operation(&self) -> BTreeMap<Operation, u64> {
        lock(&self.calls).clone()
    }

    /// Pairs of operation and fault that struck.
    pub fn pairs(&self) -> BTreeSet<(Operation, Kind)> {
        let fired = lock(&self.fired);
        fired.iter().map(|(p, kind)| (p.operation, *kind)).collect()
    }

    /// The next call of this operation about this entity.
    pub fn ticket(&self, operation: Operation, node: &Node, about: &str) -> Ticket {
        *lock(&self.calls).entry(operation).or_default() += 1;
        let entity = format!("{} {about}", node.name());
        let nth = {
            let mut asked = lock(&self.asked);
            let nth = asked.entry((operation, entity.clone())).or_default();
            *nth += 1;
            *nth
        };
        let point = Point {
            operation,
            entity,
            nth,
        };
        let mut dice = point.dice(self.seed);
        let fault = self.fault_at(&point, &mut dice);
        if let Some(kind) = fault {
            node.trace(&format_args!("FAULT {}: {point}", kind.as_str()));
            lock(&self.fired).push((point.clone(), kind));
        }
        Ticket { point, fault, dice }
    }

    fn fault_at(&self, point: &Point, dice: &mut Dice) -> Option<Kind> {
        if *lock(&self.crash_at) == Some(self.calls()) {
            return Some(Kind::CrashBefore);
        }
        // Drawn in any case: a fault of a plan meets the same dice as the swarm's.
        let mut draw = dice.below(1_000_000);
        match &*lock(&self.source) {
            Source::Calm => None,
            Source::Plan(plan) => plan.get(point).copied(),
            Source::Swarm(rates) => {
                for kind in point.operation.faults() {
                    let rate = u64::from(rates.get(kind).copied().unwrap_or(0));
                    match draw.checked_sub(rate) {
                        Some(rest) => draw = rest,
                        None => return Some(*kind),
                    }
                }
                None
            }
        }
    }

    /// The process dies here, and is back some time later. Never answers.
    pub async fn crash<T>(&self, node: &Node, ticket: &mut Ticket) -> T {
        let back = ticket.up_to(BACK_MAX);
        if node.is_alive() {
            node.crash();
            if let Some(hook) = &*lock(&self.on_crash) {
                hook(node, back);
            }
        }
        std::future::pending().await
    }
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
                injector.ticket(operation, &node, &format!("row {}", n % 7));
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
