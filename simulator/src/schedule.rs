//! Which of the ready tasks goes next: the one thing that is left to chance once time is.
//!
//! Random order finds most; first come, first served is what people expect, and what a shrunk scenario is
//! brought back to where it can be; priorities with a few changes (Burckhardt and others: "A randomized
//! scheduler with probabilistic guarantees of finding bugs") let one task run far ahead of the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::entropy::Stream;

/// An order of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Any of them, each as likely as the others.
    #[default]
    Random,
    /// The one that has been ready for longest.
    Fifo,
    /// The one of the highest priority. Priorities are by chance; now and then that of the task which would
    /// run becomes the lowest.
    Pct,
}

impl Schedule {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Fifo, Self::Pct];
}

/// A change of priorities comes once in so many picks: some ten in a scenario.
const CHANGE_EVERY: u64 = 300;

/// Picks among ready tasks.
pub(crate) struct Picker {
    schedule: Schedule,
    chance: Stream,
    /// By task.
    priorities: BTreeMap<u64, u64>,
    /// The next one that is lower than all before it.
    lowest: u64,
}

impl Picker {
    pub(crate) fn new(chance: Stream) -> Self {
        Self {
            schedule: Schedule::default(),
            chance,
            priorities: BTreeMap::new(),
            lowest: u64::MAX >> 1,
        }
    }

    pub(crate) fn set(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// Takes one of several tasks out of the list.
    pub(crate) fn pick(&mut self, ready: &mut Vec<u64>) -> u64 {
        match self.schedule {
            Schedule::Random => {
                let choice = self.chance.below(ready.len() as u64) as usize;
                ready.swap_remove(choice)
            }
            Schedule::Fifo => ready.remove(0),
            Schedule::Pct => {
                let choice = self.highest(ready);
                let choice = if self.chance.below(CHANGE_EVERY) == 0 {
                    self.lowest -= 1;
                    self.priorities.insert(ready[choice], self.lowest);
                    self.highest(ready)
                } else {
                    choice
                };
                ready.remove(choice)
            }
        }
    }

    fn highest(&mut self, ready: &[u64]) -> usize {
        let mut highest = (0, 0);
        for (at, task) in ready.iter().enumerate() {
            let chance = &self.chance;
            // The upper half: what is lowered once stays below every fresh one.
            let fresh = || chance.draw() | 1 << 63;
            let priority = *self.priorities.entry(*task).or_insert_with(fresh);
            highest = highest.max((priority, at));
        }
        highest.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Seed;

    fn picker(schedule: Schedule) -> Picker {
        let mut picker = Picker::new(Seed(1).stream("schedule"));
        picker.set(schedule);
        picker
    }

    #[test]
    fn every_order_picks_each_task_once() {
        for schedule in Schedule::ALL {
            let mut picker = picker(schedule);
            let mut ready: Vec<u64> = (0..50).collect();
            let mut picked: Vec<u64> = (0..50).map(|_| picker.pick(&mut ready)).collect();
            assert_eq!(ready, [] as [u64; 0]);
            let in_order = picked.is_sorted();
            assert_eq!(in_order, schedule == Schedule::Fifo, "{picked:?}");
            picked.sort_unstable();
            assert_eq!(picked, (0..50).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn a_task_of_high_priority_runs_ahead_until_it_is_lowered() {
        let mut picker = picker(Schedule::Pct);
        let mut runs = Vec::new();
        for _ in 0..5_000 {
            let mut ready = vec![1, 2, 3];
            let picked = picker.pick(&mut ready);
            if runs.last() != Some(&picked) {
                runs.push(picked);
            }
        }
        assert!((4..60).contains(&runs.len()), "{}", runs.len());
    }
}
