//! A redrive: what is chosen runs again and nothing else; without faults, all of it converges.

use std::collections::BTreeSet;
use std::time::Duration;

use trommel::core::id::ItemId;
use trommel::core::redrive::Selection;
use trommel::core::run::{RunEvent, RunStatus};
use trommel::ledger::{Redrive, RunRow};

use super::Stage;
use crate::chosen::Chosen;
use crate::cluster::Behaviour;
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::probe::Probe;
use crate::scenario::Workload;

/// What a redrive meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    Stormy,
}

/// Whom a redrive chose, and what else is to be known to judge it.
struct Choice {
    chosen: Chosen,
    /// Not all that did not succeed.
    is_selective: bool,
    /// Only what failed: what was pending stays so.
    is_failed_only: bool,
    /// Which object an item is, is not known where some came or went meanwhile.
    is_known: bool,
    failed: BTreeSet<ItemId>,
    /// The run, as it was.
    row: RunRow,
}

impl Stage<'_> {
    /// False if there is nothing to redrive.
    pub(super) fn redrive(
        &mut self,
        oracle: &mut Oracle<'_>,
        weather: Weather,
    ) -> Result<bool, Halt> {
        let row = self.row()?;
        let before = oracle.succeeded()?;
        let all_succeeded = before.len() as u64 == row.total;
        if all_succeeded || row.state.status == RunStatus::Running || row.total_final().is_none() {
            return Ok(false);
        }
        let Some(choice) = self.choose(oracle, weather, row)? else {
            return Ok(false);
        };
        let generation = choice.row.state.generation.0 + 1;
        self.weather(weather);
        self.start_all();
        match weather {
            Weather::Stormy => self.storm(Duration::from_secs(self.scenario.chaos_seconds / 2))?,
            Weather::Calm if choice.is_selective => {
                self.only_the_chosen_run(oracle, &choice, generation)?;
            }
            Weather::Calm => {}
        }
        self.come_to_rest(oracle)?;
        oracle.redriven(&before, generation);
        if weather == Weather::Calm && self.own.is_none() && choice.is_known {
            self.it_converged(oracle, &choice)?;
        }
        Ok(true)
    }

    /// Asks for it; none if it is refused.
    fn choose(
        &self,
        oracle: &Oracle<'_>,
        weather: Weather,
        row: RunRow,
    ) -> Result<Option<Choice>, Halt> {
        let refresh = self.scenario.changes_input();
        if refresh {
            self.put_back()?;
        }
        let is_failed_only = self.scenario.redrive_failed_only && weather == Weather::Calm;
        let narrow = self.scenario.rules.selection.as_ref();
        let narrow = narrow.filter(|_| weather == Weather::Calm && self.own.is_none());
        let is_selective = is_failed_only || narrow.is_some();
        let selection = narrow.cloned().unwrap_or_else(|| Selection {
            pending: is_failed_only.then_some(false),
            ..Selection::default()
        });
        let by_input = selection.key.is_some()
            || selection.larger_bytes.is_some()
            || selection.smaller_bytes.is_some();
        let choice = Choice {
            chosen: self.evidence().choose(oracle, &selection)?,
            is_selective,
            is_failed_only: is_failed_only && narrow.is_none(),
            is_known: !(by_input && refresh),
            failed: oracle.failed()?,
            row,
        };
        let redrive = Redrive { selection, refresh };
        let (ledger, event) = (self.cluster.ledger(), RunEvent::Redrive);
        let changed = self
            .sim
            .block_on(async { ledger.change_run(&choice.row, &event, Some(&redrive)).await })?;
        if changed.is_err() {
            return Ok(None);
        }
        self.sim.sometimes(Probe::Redriven);
        self.sim.trace(&"redriven");
        Ok(Some(choice))
    }

    /// What was deleted is put back, and what changed is taken as it is now.
    fn put_back(&self) -> Result<(), Halt> {
        let Workload {
            small,
            large,
            lines,
            ..
        } = self.scenario.workload;
        if lines {
            return Ok(());
        }
        self.sim.block_on(async {
            for number in 0..small + large {
                self.put(number).await;
            }
        })
    }

    fn weather(&self, weather: Weather) {
        match weather {
            Weather::Calm => self.cluster.set_behaviour(Behaviour {
                flaky: 0,
                bad: 0,
                throttled: 0,
                panics: 0,
                killers: 0,
                slow: 0,
                ..self.scenario.handler
            }),
            Weather::Stormy => {
                self.sim.sometimes(Probe::RedrivenInStorm);
                self.cluster.set_faults(self.scenario.faults.source());
            }
        }
    }

    fn only_the_chosen_run(
        &mut self,
        oracle: &mut Oracle<'_>,
        choice: &Choice,
        generation: u32,
    ) -> Result<(), Halt> {
        self.until_all_left(self.sim.now() + self.calm_max)?;
        self.sim.sometimes(Probe::RedrivenSelected);
        let pages = oracle.pages()?;
        if choice.is_known {
            let evidence = self.evidence();
            let broken = evidence.chosen_wrong(&choice.chosen, generation, &pages)?;
            oracle.note("L5", broken);
        }
        if choice.is_failed_only {
            self.sim.sometimes(Probe::RedrivenFailedOnly);
            oracle.settled_again(&choice.failed)?;
        }
        Ok(())
    }

    /// L5: without faults, all that was chosen succeeds.
    fn it_converged(&self, oracle: &mut Oracle<'_>, choice: &Choice) -> Result<(), Halt> {
        let chosen = &choice.chosen;
        let after = self.row()?;
        let successes = oracle.succeeded()?;
        let succeeded = successes.len() as u64;
        // What was pending and not selected may have ended late, by those who only then heard of the former end
        // or found its holder dead.
        // What a former redrive asked for may arrive late too.
        let was_struck = self.cluster.injector().struck() > 0;
        let may_be_late = choice.row.state.generation.0 > 0 && was_struck;
        let left = match may_be_late {
            true => chosen.left.difference(&successes).count() as u64,
            false => chosen.left.len() as u64,
        };
        let (mut late, mut late_failures) = (0, 0);
        if choice.is_selective {
            late_failures = oracle.failed()?.difference(&choice.failed).count() as u64;
            late = oracle.aborted()?.difference(&chosen.left).count() as u64 + late_failures;
        }
        // So may a former holder's word that a pending item was to be skipped, which nobody asked to have again.
        if was_struck {
            late += oracle.skipped()?.difference(&chosen.left).count() as u64;
        }
        // What was left as it was may be too much for a success.
        let good = late_failures > 0 || left > 0 || after.state.status == RunStatus::Succeeded;
        let converged = good && succeeded + left + late == after.total;
        let broken = (!converged).then(|| {
            let (status, total) = (after.state.status.as_str(), after.total);
            format!(
                "a redrive without failures ended as {status}, {succeeded} of {total} succeeded"
            )
        });
        oracle.note("L5", broken);
        Ok(())
    }
}
