//! What comes after it was healed: everybody leaves in time, and what they leave keeps every promise.

use std::time::Duration;

use trommel::core::run::RunStatus;
use trommel::core::time::Tick;
use trommel::ledger::RunRow;

use super::Stage;
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::probe::Probe;
use crate::scenario::Role;

/// A run is resumed so often; one that pauses by breach again and again is left PAUSED.
const RESUMES_MAX: u32 = 3;

impl Stage<'_> {
    /// The run's row, as it is.
    pub(super) fn row(&self) -> Result<RunRow, Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        Ok(row.expect("the run has a row"))
    }

    pub(super) fn resume(&mut self) -> Result<(), Halt> {
        let row = self.row()?;
        if row.state.status != RunStatus::Paused {
            return Ok(());
        }
        let ledger = self.cluster.ledger();
        let resumed = self
            .sim
            .block_on(async { ledger.resume(&row, None).await })?;
        if resumed.is_ok() {
            self.sim.sometimes(Probe::Resumed);
            self.start_all();
        }
        Ok(())
    }

    pub(super) fn status(&self) -> Result<RunStatus, Halt> {
        if self.scenario.events.is_some() {
            return self.worst_of_windows();
        }
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.sim.block_on(async { ledger.run(&run).await })?;
        Ok(row.map_or(RunStatus::Running, |row| row.state.status))
    }

    pub(super) fn until_all_left(&mut self, latest: Tick) -> Result<(), Halt> {
        while !self.all_over() && self.sim.now() < latest {
            if self.cluster.is_undriven() {
                self.send_workers_home();
            } else if self.may_have_missed_a_resume() && self.status()? == RunStatus::Running {
                // A router alone would wait for ever for the worker that left.
                self.start_all();
            }
            self.look()?;
        }
        Ok(())
    }

    /// Those who left while it was PAUSED did not see that it was resumed meanwhile, and one that was drained may have
    /// left only now: their operator starts them again.
    pub(super) fn may_have_missed_a_resume(&self) -> bool {
        self.sim.happened(Probe::Resumed) || self.sim.happened(Probe::Drained)
    }

    /// A worker waits for more until its operator sees that there is none.
    pub(super) fn send_workers_home(&self) {
        for process in self.cluster.processes() {
            if process.role() == Role::Worker && !process.is_over() {
                process.drain();
            }
        }
    }

    /// Everybody leaves in time, and what they leave keeps every promise.
    pub(super) fn come_to_rest(&mut self, oracle: &mut Oracle<'_>) -> Result<(), Halt> {
        let latest = self.sim.now() + self.calm_max;
        self.resumed = 0;
        loop {
            self.until_all_left(latest)?;
            let status = self.status()?;
            if self.sim.now() >= latest || self.resumed >= RESUMES_MAX {
                break;
            }
            self.resumed += 1;
            match status {
                RunStatus::Paused => {
                    self.sim.sometimes(Probe::RestedPaused);
                    self.resume()?;
                }
                RunStatus::Running if self.may_have_missed_a_resume() => self.start_all(),
                RunStatus::Running
                | RunStatus::Succeeded
                | RunStatus::Failed
                | RunStatus::Aborted => break,
            }
        }
        let status = self.status()?;
        match status {
            RunStatus::Succeeded => self.sim.sometimes(Probe::Succeeded),
            RunStatus::Failed => self.sim.sometimes(Probe::Failed),
            RunStatus::Paused | RunStatus::Running | RunStatus::Aborted => {}
        }
        let late = (!self.all_over()).then(|| {
            let status = status.as_str();
            let calm = self.calm_max;
            format!("{calm:?} after it was healed the run is {status}, and processes work on it")
        });
        oracle.note("L2", late);
        oracle.at_any_time();
        let row = self.row()?;
        let (pages, places) = oracle.pages_at_rest(&row)?;
        // What a service elsewhere did to a call is not known here, nor how long it took.
        if self.own.is_some() || self.ground.is_some() {
            return Ok(());
        }
        self.evidence().check(oracle, &pages, &places)
    }

    /// L4: once a session lives that buries the dead, nothing is lent.
    pub(super) fn permits_come_back(&mut self, oracle: &mut Oracle<'_>) -> Result<(), Halt> {
        if self.scenario.is_calm() && self.cluster.injector().struck() == 0 {
            oracle.nobody_is_left()?;
        }
        if oracle.lent_or_live()?.is_none() {
            oracle.note("L4", None);
            return Ok(());
        }
        self.sim.sometimes(Probe::PermitsCameBack);
        let janitor = self.sim.node("janitor");
        self.cluster.watch_only(&janitor);
        let latest = self.sim.now() + Duration::from_secs(150);
        while oracle.lent_or_live()?.is_some() && self.sim.now() < latest {
            self.look()?;
        }
        let left = oracle.lent_or_live()?;
        oracle.note("L4", left);
        Ok(())
    }
}
