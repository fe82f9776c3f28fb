//! The processes of the cluster together: who is there, who comes back, and whether there is anything left to do.

use std::time::Duration;

use trommel::core::run::RunStatus;

use super::{Cluster, Process};
use crate::exec::lock;
use crate::node::Node;

/// Crashed processes that are on their way back.
#[derive(Default)]
pub(super) struct ComingBack {
    count: u32,
    /// How often they were called off.
    round: u32,
}

impl ComingBack {
    /// One more; answers what it says when it is back.
    fn begin(&mut self) -> u32 {
        self.count += 1;
        self.round
    }

    /// Whether one that set off in this round is still to come; it is back now.
    fn arrives(&mut self, round: u32) -> bool {
        let is_expected = self.round == round;
        self.count -= u32::from(is_expected);
        is_expected
    }

    fn call_off(&mut self) {
        self.count = 0;
        self.round += 1;
    }
}

impl Cluster {
    /// A crashed process comes back, as its operator or its platform sees to it.
    pub(super) fn restart(&self, crashed: &Node, back_after: Duration) {
        let Some(former) = self.process(crashed.name()) else {
            return;
        };
        let round = lock(&self.inner.coming_back).begin();
        let (cluster, crashed) = (self.clone(), crashed.clone());
        self.inner.service.spawn("restart", async move {
            let clock = cluster.inner.service.runtime().clock;
            clock.sleep(back_after).await;
            if !lock(&cluster.inner.coming_back).arrives(round) {
                return;
            }
            // Somebody may have started it meanwhile.
            let latest = cluster.process(crashed.name());
            let same = |latest: Process| latest.node().incarnation() == crashed.incarnation();
            if latest.is_some_and(same) {
                cluster.start(&crashed.successor(), former.role());
            }
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
        self.is_nobody_coming() && self.are_all(Process::drives_nothing)
    }

    /// Whether every process has left, and none is on its way back.
    pub fn is_over(&self) -> bool {
        self.is_nobody_coming() && self.are_all(Process::is_over)
    }

    /// Whether the run has ended, those who drove it left or crashed, and nobody holds a page of it: who comes back
    /// meets nothing that is left to do.
    pub(crate) fn is_past(&self) -> bool {
        let is_free = |process: &Process| process.is_over() || process.holds_nothing();
        self.has_ended() && self.are_all(Process::drives_nothing) && self.are_all(is_free)
    }

    fn is_nobody_coming(&self) -> bool {
        lock(&self.inner.coming_back).count == 0
    }

    fn are_all(&self, check: impl Fn(&Process) -> bool) -> bool {
        lock(&self.inner.processes).values().all(check)
    }

    /// Those who crashed and were to come back do not.
    pub(crate) fn call_off_returns(&self) {
        lock(&self.inner.coming_back).call_off();
    }

    /// Whether somebody who drove the run left as it had ended.
    pub fn has_ended(&self) -> bool {
        let processes = lock(&self.inner.processes);
        let mut statuses = processes.values().filter_map(Process::ended);
        statuses.any(RunStatus::is_ended)
    }
}
