//! Event mode's play: processes serve until the bucket is quiet, all windows are done with, and everybody is sent home.

use std::time::Duration;

use trommel::core::id::RunId;
use trommel::core::redrive::Selection;
use trommel::core::run::{BreachStops, Limits, RunEvent, RunStatus, Wish};
use trommel::ledger::Redrive;

use super::Stage;
use crate::cluster::Behaviour;
use crate::events::{Bucket, EventMode, at_rest, open_runs};
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::point::Kind;
use crate::probe::Probe;

impl Stage<'_> {
    pub(super) fn play_events(
        &mut self,
        oracle: &mut Oracle<'_>,
        mode: EventMode,
        crash_at: Option<(u64, Kind)>,
    ) -> Result<(), Halt> {
        self.set_clocks();
        if mode.versions {
            self.sim.sometimes(Probe::Versions);
            self.cluster.input_keeps_versions();
        }
        self.cluster.set_behaviour(self.scenario.handler);
        let bucket = Bucket::new(self.cluster, self.scenario, mode);
        self.cluster.injector().crash_at(crash_at);
        self.cluster.set_faults(self.scenario.faults.source());
        self.start_all();
        let workload = self.scenario.workload;
        bucket.open(self.sim, workload.small + workload.large);
        self.chaos()?;
        self.heal();
        if !self.windows_close(oracle, &bucket)? {
            return Ok(());
        }
        if !self.reconcile(oracle, mode, &bucket)? {
            return Ok(());
        }
        if self.scenario.redrives > 0 {
            self.redrive_windows()?;
            if !self.windows_close(oracle, &bucket)? {
                return Ok(());
            }
        }
        self.leave()?;
        oracle.at_any_time();
        at_rest(oracle, self.sim, &bucket)?;
        self.permits_come_back(oracle)
    }

    /// L2 and L3: all that was told is taken in, and each window gets its verdict.
    fn windows_close(&mut self, oracle: &mut Oracle<'_>, bucket: &Bucket) -> Result<bool, Halt> {
        let calm = self.calm_max;
        let latest = self.sim.now() + calm;
        loop {
            // Processes that were asked to leave are sent back by their operator.
            self.start_all();
            self.resume_windows()?;
            let left = self.sim.block_on(async { open_runs(self.cluster).await })?;
            let depth = self
                .sim
                .block_on(async { self.cluster.ingest().depth_now().await })?;
            let depth = depth.expect("it is in memory");
            let told = depth.ready + depth.hidden;
            if bucket.is_done() && told == 0 && left.is_empty() {
                oracle.note("L2", None);
                oracle.note("L3", None);
                return Ok(true);
            }
            if self.sim.now() >= latest {
                let late = |broken: bool, what: String| broken.then_some(what);
                oracle.note(
                    "L3",
                    late(
                        told > 0,
                        format!(
                            "{told} messages are in the ingest queue {calm:?} after all was healed"
                        ),
                    ),
                );
                oracle.note(
                    "L2",
                    late(
                        !left.is_empty(),
                        format!("{left:?} are not done with {calm:?} after all was healed"),
                    ),
                );
                return Ok(false);
            }
            self.look()?;
        }
    }

    /// S5: a reconcile finds what no notification told, and only that, and then nothing any more.
    fn reconcile(
        &mut self,
        oracle: &mut Oracle<'_>,
        mode: EventMode,
        bucket: &Bucket,
    ) -> Result<bool, Halt> {
        self.sim.run_for(bucket.left_alone())?;
        let operator = self.sim.node("operator");
        let found = self.sim.block_on(bucket.reconcile(&operator))?;
        let found = found.unwrap_or_default();
        let broken = (mode.lost == 0 && found > 0)
            .then(|| format!("all was told and taken in, and a reconcile finds {found} missing"));
        oracle.note("S5", broken);
        if found == 0 {
            return Ok(true);
        }
        self.sim.sometimes(Probe::Reconciled);
        if !self.windows_close(oracle, bucket)? {
            return Ok(false);
        }
        let again = self.sim.block_on(bucket.reconcile(&operator))?;
        let again = again.unwrap_or_default();
        let broken = (again > 0).then(|| {
            format!("a reconcile had {found} objects taken in, and another finds {again} missing")
        });
        oracle.note("S5", broken);
        Ok(true)
    }

    pub(super) fn resume_windows(&mut self) -> Result<(), Halt> {
        let ledger = self.cluster.ledger();
        let resumed = self.sim.block_on(async {
            let mut resumed = 0;
            for run in open_runs(self.cluster).await {
                let Ok(row) = ledger.run(&run).await else {
                    continue;
                };
                if row.state.status != RunStatus::Paused {
                    continue;
                }
                // After a breach only with a new budget: to the end.
                let to_the_end = Limits {
                    breach_stops: BreachStops::AtTheEnd,
                    ..row.state.limits
                };
                let went_on = ledger.resume(&row, None).await.is_ok()
                    || ledger.resume(&row, Some(to_the_end)).await.is_ok();
                resumed += u32::from(went_on);
            }
            resumed
        })?;
        if resumed > 0 {
            self.sim.sometimes(Probe::Resumed);
        }
        Ok(())
    }

    /// Somebody pauses the window that is now.
    pub(super) fn pause_window(&mut self) -> Result<(), Halt> {
        let ledger = self.cluster.ledger();
        let wished = self.sim.block_on(async {
            let Some(run) = open_runs(self.cluster).await.pop_last() else {
                return false;
            };
            ledger.wish(&run, Wish::Pause).await.is_ok()
        })?;
        if wished {
            self.sim.sometimes(Probe::AskedToPause);
        }
        Ok(())
    }

    /// Windows with failures are redriven, on a calm day.
    fn redrive_windows(&mut self) -> Result<(), Halt> {
        let shortest = self.scenario.handler.shortest;
        let longest = self.scenario.handler.longest;
        self.cluster
            .set_behaviour(Behaviour::calm(shortest, longest));
        let ledger = self.cluster.ledger();
        let redriven = self.sim.block_on(async {
            let runs = ledger.runs().await.unwrap_or_default();
            let mut redriven: Vec<RunId> = Vec::new();
            for summary in runs {
                // What a mistake has damaged the oracles tell.
                let read = (
                    ledger.run(&summary.id).await,
                    ledger.tallies(&summary.id).await,
                );
                let (Ok(row), Ok(tallies)) = read else {
                    continue;
                };
                if row.total_final() == Some(tallies.settled().succeeded) {
                    continue;
                }
                let redrive = Redrive {
                    selection: Selection::default(),
                    refresh: false,
                };
                if ledger
                    .change_run(&row, &RunEvent::Redrive, Some(&redrive))
                    .await
                    .is_ok()
                {
                    redriven.push(summary.id);
                }
            }
            redriven
        })?;
        if !redriven.is_empty() {
            self.sim.sometimes(Probe::Redriven);
        }
        Ok(())
    }

    /// FAILED if one of the windows did, RUNNING if one is under way, else SUCCEEDED.
    pub(super) fn worst_of_windows(&self) -> Result<RunStatus, Halt> {
        let ledger = self.cluster.ledger();
        self.sim.block_on(async {
            let mut worst = RunStatus::Succeeded;
            for summary in ledger.runs().await.unwrap_or_default() {
                let Ok(row) = ledger.run(&summary.id).await else {
                    return RunStatus::Running;
                };
                match (row.state.status, worst) {
                    (RunStatus::Succeeded, _) | (_, RunStatus::Running) => {}
                    (RunStatus::Running | RunStatus::Paused, _) => worst = RunStatus::Running,
                    (RunStatus::Failed | RunStatus::Aborted, _) => worst = RunStatus::Failed,
                }
            }
            worst
        })
    }

    /// Everybody is asked to leave, and does; who was on his way back is asked when he is there.
    fn leave(&mut self) -> Result<(), Halt> {
        self.leaving.clear();
        let latest = self.sim.now() + Duration::from_mins(5);
        while !self.all_over() && self.sim.now() < latest {
            for process in self.cluster.processes() {
                if !process.is_over() {
                    process.drain();
                }
            }
            self.sim.run_for(Duration::from_secs(1))?;
        }
        Ok(())
    }
}
