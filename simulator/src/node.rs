//! One simulated process: its own clock, chance and tasks, which end together when it crashes.

use std::fmt;
use std::sync::Arc;

use trommel::core::time::{Tick, Timestamp};
use trommel::ports::runtime::BoxFuture;
use trommel::ports::{Clock, Runtime, Spawn};

use crate::entropy::Stream;
use crate::exec::{Owner, Sleep, TaskName};
use crate::probe::Probe;
use crate::simulation::World;

/// Wall-clock time at the start of every simulation: 2026-01-01 00:00 UTC.
pub const START: Timestamp = Timestamp(1_767_225_600_000);

/// A process, from its start to its crash. Cheap to clone; all clones are the same process.
#[derive(Clone)]
pub struct Node {
    pub(crate) world: Arc<World>,
    pub(crate) owner: Owner,
    pub(crate) name: Arc<str>,
    pub(crate) incarnation: u32,
    pub(crate) entropy: Arc<Stream>,
    pub(crate) skew: Skew,
}

/// How a node's clock goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// Its wall clock is ahead by so much, in milliseconds.
    pub offset_ms: i64,
    /// Its clocks gain so much, in millionths.
    pub drift_ppm: i64,
}

impl Skew {
    /// What its clock shows at a true moment.
    fn local(self, at: Tick) -> Tick {
        if self.drift_ppm == 0 {
            return at;
        }
        let gained = i128::from(at.0) * i128::from(self.drift_ppm) / 1_000_000;
        let local = i128::from(at.0) + gained;
        Tick(u64::try_from(local).expect("a drift is far below 1"))
    }

    /// The first true moment at which its clock shows this.
    fn truth(self, local: Tick) -> Tick {
        if self.drift_ppm == 0 {
            return local;
        }
        let rate = u128::from((1_000_000 + self.drift_ppm).unsigned_abs());
        let at = (u128::from(local.0) * 1_000_000).div_ceil(rate);
        let at = Tick(u64::try_from(at).expect("ten years are a small part of what a tick holds"));
        if self.local(at) < local {
            Tick(at.0 + 1)
        } else {
            at
        }
    }
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which process of this name it is, from 1.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Whether it has not crashed.
    pub fn is_alive(&self) -> bool {
        !self.world.exec.has_ended(self.owner)
    }

    /// What its code runs on.
    pub fn runtime(&self) -> Runtime {
        let ports = Arc::new(Ports { node: self.clone() });
        Runtime {
            clock: Arc::clone(&ports) as Arc<dyn Clock>,
            entropy: Arc::clone(&self.entropy) as Arc<dyn trommel::ports::Entropy>,
            spawn: ports,
        }
    }

    /// Waits so long on its clock.
    pub async fn sleep(&self, duration: std::time::Duration) {
        if duration.is_zero() {
            return;
        }
        let at = self.world.exec.now() + duration;
        Sleep::new(Arc::clone(&self.world.exec), self.owner, at).await;
    }

    /// What its own clock shows.
    pub fn now(&self) -> Timestamp {
        let shown = START.after(self.skew.local(self.tick()).since(Tick::default()));
        Timestamp(shown.0 + self.skew.offset_ms)
    }

    /// True virtual time, whatever its own clock shows.
    pub fn tick(&self) -> Tick {
        self.world.exec.now()
    }

    /// Starts a task on it; nothing, if it has crashed.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.start(name, Box::pin(future));
    }

    /// Kills it: none of its tasks is polled again (one that is being polled ends at its next await),
    /// its timers are gone, and what it spawns from now on never starts. Futures are dropped, so their
    /// destructors do run; a real `kill -9` would not run them.
    pub fn crash(&self) {
        if self.is_alive() {
            self.trace(&"crashed");
            self.world.exec.end(self.owner);
        }
    }

    /// The process that lives under its name now; a new one, if that one crashed.
    #[must_use]
    pub fn successor(&self) -> Self {
        self.world.node(&self.name)
    }

    /// Stops it without killing it, as a machine that swaps or is moved: nothing of it runs for so long,
    /// then everything goes on as if no time had passed. The world's clock goes on meanwhile.
    pub fn freeze(&self, duration: std::time::Duration) {
        self.trace(&format_args!("frozen for {duration:?}"));
        self.world.exec.freeze(self.owner, duration);
    }

    /// Notes that something happened which must happen sometimes.
    pub fn sometimes(&self, probe: Probe) {
        self.world.sometimes(probe);
    }

    /// Whether it did, anywhere.
    pub(crate) fn happened(&self, probe: Probe) -> bool {
        self.world.happened(probe)
    }

    /// Writes an event of this node into the trace.
    pub fn trace(&self, what: &dyn fmt::Display) {
        self.world.trace(&self.name, what);
    }

    fn start(&self, task: &'static str, future: BoxFuture<'static, ()>) {
        let node = Arc::clone(&self.name);
        let name = TaskName { node, task };
        self.world.exec.spawn(self.owner, name, future);
    }
}

/// Its clock and its way to start tasks.
struct Ports {
    node: Node,
}

impl Clock for Ports {
    fn now(&self) -> Timestamp {
        self.node.now()
    }

    fn tick(&self) -> Tick {
        self.node.skew.local(self.node.tick())
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        let exec = Arc::clone(&self.node.world.exec);
        let at = self.node.skew.truth(at);
        Box::pin(Sleep::new(exec, self.node.owner, at))
    }
}

impl Spawn for Ports {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        self.node.start(name, future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_never_wakes_its_node_too_early() {
        for drift_ppm in [-10_000, -1, 0, 1, 5_000, 10_000] {
            let skew = Skew {
                offset_ms: 0,
                drift_ppm,
            };
            for local in [0, 1, 999, 1_000_000_007, 60_000_000_000_123] {
                let at = skew.truth(Tick(local));
                assert!(skew.local(at) >= Tick(local), "{drift_ppm} {local}");
                let before = Tick(at.0.saturating_sub(2));
                assert!(skew.local(before) < Tick(local) || at.0 < 2);
            }
        }
    }
}
