//! The bad part of a scenario: troubles at their time, faults until the time is over, and the healing.

use std::time::Duration;

use trommel::core::run::Wish;
use trommel::core::time::Tick;

use super::Stage;
use crate::halt::Halt;
use crate::probe::Probe;
use crate::scenario::{Happening, Trouble};
use crate::services::Source;

impl Stage<'_> {
    /// Troubles at their time; faults until the time is over, or the run.
    pub(super) fn chaos(&mut self) -> Result<(), Halt> {
        enum Step<'a> {
            Begin(&'a Trouble),
            End(&'a Trouble),
        }
        let mut steps = Vec::new();
        for trouble in &self.scenario.troubles {
            steps.push((trouble.at_ms, Step::Begin(trouble)));
            steps.push((trouble.at_ms + trouble.for_ms, Step::End(trouble)));
        }
        steps.sort_by_key(|(at_ms, _)| *at_ms);
        for (at_ms, step) in steps {
            let at = Tick::default() + Duration::from_millis(at_ms);
            while self.sim.now() < at && !self.is_past() {
                self.look_until(at)?;
            }
            if self.sim.now() < at {
                break;
            }
            match step {
                Step::Begin(trouble) => self.begin(trouble)?,
                Step::End(trouble) => self.end(trouble)?,
            }
        }
        let healed = Tick::default() + Duration::from_secs(self.scenario.chaos_seconds);
        while self.sim.now() < healed && !self.cluster.is_undriven() && !self.is_past() {
            self.look()?;
        }
        Ok(())
    }

    /// Whether what goes wrong from now on meets nobody who works. Events keep coming.
    fn is_past(&self) -> bool {
        let is_dataset = self.scenario.events.is_none();
        let is_left = self.cluster.is_undriven() || !self.is_met_when_past();
        is_dataset && is_left && self.cluster.is_past()
    }

    /// Seldom somebody comes back to a run that is over, or starts it.
    fn is_met_when_past(&self) -> bool {
        self.scenario.seed.is_multiple_of(4)
    }

    pub(super) fn begin(&mut self, trouble: &Trouble) -> Result<(), Halt> {
        let name = trouble.node.as_str();
        let length = Duration::from_millis(trouble.for_ms);
        let until = self.sim.now() + length;
        let what = trouble.what;
        self.sim
            .trace(&format_args!("{what:?} of {name} for {length:?}"));
        match what {
            Happening::Crash => {
                self.sim.sometimes(Probe::Killed);
                self.sim.node(name).crash();
            }
            Happening::Freeze => {
                self.sim.sometimes(Probe::Frozen);
                self.sim.node(name).freeze(length);
            }
            Happening::Cut => self.cluster.table().cut(name, until),
            Happening::Heat => self.cluster.table().heat(until),
            Happening::Drain => {
                for process in self.cluster.processes() {
                    if process.node().name() == name && !process.is_over() {
                        self.sim.sometimes(Probe::Drained);
                        process.drain();
                    }
                }
            }
            Happening::Overwrite => {
                if let Some(number) = self.number_of(name) {
                    self.sim.sometimes(Probe::Overwritten);
                    self.sim.block_on(self.put(number))?;
                }
            }
            Happening::Delete => {
                if self.number_of(name).is_some() {
                    self.sim.sometimes(Probe::Deleted);
                    let input = self.cluster.stores().input.clone();
                    let deleted = self
                        .sim
                        .block_on(async { input.delete(name.as_bytes()).await })?;
                    deleted.expect("memory deletes all");
                }
            }
            Happening::Pause if self.scenario.events.is_some() => self.pause_window()?,
            Happening::Pause => {
                let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
                let wished = self
                    .sim
                    .block_on(async { ledger.wish(&run, Wish::Pause).await })?;
                // One that has ended cannot be paused.
                if wished.is_ok() {
                    self.sim.sometimes(Probe::AskedToPause);
                }
            }
        }
        Ok(())
    }

    pub(super) fn end(&mut self, trouble: &Trouble) -> Result<(), Halt> {
        match trouble.what {
            Happening::Crash | Happening::Drain => self.start(&trouble.node),
            Happening::Pause if self.scenario.events.is_some() => self.resume_windows()?,
            Happening::Pause => self.resume()?,
            Happening::Freeze
            | Happening::Cut
            | Happening::Heat
            | Happening::Overwrite
            | Happening::Delete => {}
        }
        Ok(())
    }

    /// Nothing goes wrong any more, and every node is back that has something to come back for.
    pub(super) fn heal(&mut self) {
        self.sim.trace(&"healed");
        self.cluster.set_faults(Source::Calm);
        self.cluster.injector().crash_at(None);
        if self.is_past() {
            self.cluster.call_off_returns();
            self.leaving.clear();
        } else {
            self.start_all();
        }
    }

    /// Faults for so long, or until everybody left.
    pub(super) fn storm(&mut self, length: Duration) -> Result<(), Halt> {
        let healed = self.sim.now() + length;
        while self.sim.now() < healed && !self.cluster.is_undriven() {
            self.look()?;
        }
        self.heal();
        Ok(())
    }
}
