//! What the ledger keeps of failures, once everybody has left: each has its evidence, which says what the pipeline
//! was told, and the tallies count them by the same classes.

use std::collections::{BTreeMap, BTreeSet};

use trommel::core::id::{ItemId, SHARDS};
use trommel::core::outcome::Outcome;
use trommel::core::page::{ItemState, Mark};
use trommel::core::redrive::Selection;
use trommel::core::tally::CLASSES_MAX;
use trommel::ledger::{FailureRow, Held};

use crate::charges::{Due, Next, Policy, Replay};
use crate::chosen::{Chosen, Seen};
use crate::cluster::Cluster;
use crate::filling;
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::places::Places;
use crate::scenario::{self, Scenario};
use crate::simulation::Simulation;
use crate::told::Told;

/// Looks at the evidence of one run.
pub(crate) struct Evidence<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) sim: &'a Simulation,
    pub(crate) cluster: &'a Cluster,
}

impl Evidence<'_> {
    /// Every check.
    ///
    /// # Errors
    /// The world could not go on.
    pub(crate) fn check(
        &self,
        oracle: &mut Oracle<'_>,
        pages: &[Held],
        places: &Places,
    ) -> Result<(), Halt> {
        let told: Vec<Told> = self.cluster.told();
        let struck = self.cluster.injector().struck();
        let policy = Policy::of(self.scenario, struck);
        let mut replay = Replay::of(policy, &told);
        let broken = replay.go(&told);
        oracle.holds("S11", told.len() as u64, broken.into_iter().next());
        let broken = filling::wrong(self.scenario, &places.parts, pages);
        oracle.holds("L7", pages.len() as u64, broken);
        oracle.holds("S9", 1, self.order_wrong(&told, pages, places));
        let rows = self.rows(pages)?;
        for held in pages {
            for one in Item::all(held, places) {
                let broken = match one.state.mark {
                    Mark::Done(outcome) if outcome != Outcome::Succeeded => {
                        let latest = rows.get(&one.id).and_then(|rows| rows.last());
                        self.row_wrong(&one, outcome, latest, &replay)
                    }
                    Mark::Done(_) | Mark::Pending | Mark::Moved => continue,
                };
                oracle.holds("S5", 1, broken);
            }
        }
        // What `trommel item` shows of one is what stands among all.
        if let Some((item, own)) = rows.first_key_value() {
            let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
            let shown = self
                .sim
                .block_on(async { ledger.failures_of(&run, *item).await })?;
            let shown = shown.expect("the quiet way has no faults");
            let broken = (shown != *own).then(|| format!("{shown:?} are shown of {own:?}"));
            oracle.holds("S5", 1, broken);
        }
        self.classes(oracle, &rows)
    }

    fn is_calm(&self) -> bool {
        self.scenario.is_calm() && self.cluster.injector().struck() == 0
    }

    /// With max concurrency 1, items are called for the first time in the order of the input.
    fn order_wrong(&self, told: &[Told], pages: &[Held], places: &Places) -> Option<String> {
        if self.scenario.tuning.max_concurrency > 1 || !self.is_calm() {
            return None;
        }
        let first = |held: &&Held| held.page.id.escalated.is_none();
        let items = pages.iter().filter(first);
        let items = items.flat_map(|held| Item::all(held, places));
        let place: BTreeMap<ItemId, u32> = items.map(|one| (one.id, one.place)).collect();
        let mut last = None;
        let mut called = BTreeSet::new();
        for call in told.iter().filter(|call| call.generation == 0) {
            let at = place.get(&call.item);
            if !called.insert(call.item) {
                continue;
            }
            if at < last {
                let item = call.item;
                return Some(format!("{item} was called after what stands behind it"));
            }
            last = at;
        }
        None
    }

    /// Evidence of the items that failed, by item, oldest first.
    fn rows(&self, pages: &[Held]) -> Result<BTreeMap<ItemId, Vec<FailureRow>>, Halt> {
        let mut rows: BTreeMap<ItemId, Vec<FailureRow>> = BTreeMap::new();
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let failed = |held: &&Held| {
            let counts = held
                .page
                .items
                .iter()
                .filter_map(|item| item.mark.outcome());
            counts
                .into_iter()
                .any(|outcome| outcome != Outcome::Succeeded)
                || held.page.generation.0 > 0
        };
        let shards: BTreeSet<u32> = pages
            .iter()
            .filter(failed)
            .map(|held| held.page.id.part % SHARDS)
            .collect();
        for shard in shards {
            let found = self
                .sim
                .block_on(async { ledger.failures_of_shard(&run, shard).await })?;
            for row in found.expect("the quiet way has no faults") {
                rows.entry(row.item).or_default().push(row);
            }
        }
        Ok(rows)
    }

    /// What is wrong with the evidence of an item that came to this, in a sentence.
    fn row_wrong(
        &self,
        one: &Item<'_>,
        outcome: Outcome,
        row: Option<&FailureRow>,
        replay: &Replay<'_>,
    ) -> Option<String> {
        let id = one.id;
        // The page itself says that its workers died of it: see `services::promises`.
        let workers_died = one.state.deaths_alone >= 2 && outcome == Outcome::Failed;
        let Some(row) = row else {
            // Who takes over the page of a dead worker writes what it knows afterwards, and may die in between.
            return (!workers_died).then(|| format!("{id} is {outcome:?}, and nothing says why"));
        };
        let key = (id, row.generation.0);
        let class = row.failure.class.to_string();
        let wrong = |why: &str| Some(format!("{id} is {outcome:?}, its evidence {row:?}: {why}"));
        if workers_died && row.generation < one.held.page.generation {
            // The same: this is from before the redrive.
            return None;
        }
        if row.outcome != outcome {
            return wrong("it is of another outcome");
        }
        if class == "WorkerDied" {
            return if workers_died {
                None
            } else {
                wrong("no worker died of it")
            };
        }
        if !self.scenario.changes_input() && row.label != cut(&self.key(one)) {
            return wrong("its label is another's");
        }
        let is_large = u64::from(one.place) >= self.scenario.small();
        let refused = self.scenario.rules.refuses_large();
        // Which object an item is, is not known where some came or went meanwhile.
        let must_be_refused = refused && is_large && !self.scenario.changes_input();
        if must_be_refused || class == "TooLarge" {
            let may_be = is_large || self.scenario.changes_input();
            let as_due = refused && may_be && class == "TooLarge" && !replay.was_called(id);
            return if as_due {
                None
            } else {
                wrong("what no lane takes is not called")
            };
        }
        if outcome == Outcome::Aborted {
            let stopped = class == "Aborted" && replay.is_open(key);
            return if stopped {
                None
            } else {
                wrong("nothing was stopped")
            };
        }
        let in_lane = (id, row.generation.0, one.held.page.lane);
        let Some(next) = replay.next_of(in_lane, &row.failure, row.attempts) else {
            return wrong("no such attempt came to that");
        };
        let print = format!("{class}: attempt # on \"…\" failed");
        let of_handler = class == "Flaky" || class.starts_with("Bad");
        if of_handler && class != "BadOutput" && class != "BadInput" {
            let cause = format!("attempt {} on \"{id}\" failed", row.attempts);
            if row.failure.cause != cause || row.failure.fingerprint() != print {
                return wrong("its cause is another's");
            }
        }
        match next {
            Due::Known(Next::Ends(ends)) if ends != outcome => wrong("the rules say otherwise"),
            Due::Known(Next::Moves) => wrong("it was to go to the container lane"),
            Due::Known(Next::Again(_) | Next::Throttled) => wrong("it had retries left"),
            Due::Known(Next::Ends(_)) | Due::Unknown => None,
        }
    }

    /// What the redrive of this selection must take.
    ///
    /// # Errors
    /// The world could not go on.
    pub(crate) fn choose(
        &self,
        oracle: &Oracle<'_>,
        selection: &Selection,
    ) -> Result<Chosen, Halt> {
        let (pages, places) = (oracle.pages()?, oracle.places()?);
        let rows = self.rows(&pages)?;
        let seen = |one: &Item<'_>| Seen {
            row: rows.get(&one.id).and_then(|rows| rows.last()),
            key: self.key(one),
            bytes: match u64::from(one.place) < self.scenario.small() {
                _ if self.scenario.workload.lines => None,
                true => Some(scenario::SMALL_BYTES),
                false => Some(scenario::LARGE_BYTES),
            },
        };
        Ok(Chosen::from(selection, &pages, &places, seen))
    }

    /// What is wrong with what a redrive did so far, where it goes without faults.
    ///
    /// # Errors
    /// The world could not go on.
    pub(crate) fn chosen_wrong(
        &self,
        chosen: &Chosen,
        generation: u32,
        pages: &[Held],
    ) -> Result<Option<String>, Halt> {
        let rows = self.rows(pages)?;
        let told = self.cluster.told();
        let called = told.iter().filter(|told| told.generation == generation);
        let called: BTreeSet<ItemId> = called.map(|told| told.item).collect();
        if let Some(item) = chosen.taken.difference(&called).next() {
            return Ok(Some(format!("the redrive was to take {item}, and did not")));
        }
        if let Some(item) = chosen.left.intersection(&called).next() {
            return Ok(Some(format!("the redrive was to leave {item} alone")));
        }
        for pending in chosen.untouched.values() {
            // What failed late, of the former generation, may have been chosen after all.
            if pending.iter().any(|item| rows.contains_key(item)) {
                continue;
            }
            if let Some(item) = pending.intersection(&called).next() {
                return Ok(Some(format!("the redrive was to leave {item} pending")));
            }
        }
        Ok(None)
    }

    /// An item's key or value.
    fn key(&self, one: &Item<'_>) -> String {
        match self.scenario.workload.lines {
            true => self.scenario.workload.line(u64::from(one.place)),
            false => scenario::object(u64::from(one.place)),
        }
    }

    /// The tallies count failures by the classes that the evidence names.
    fn classes(
        &self,
        oracle: &mut Oracle<'_>,
        rows: &BTreeMap<ItemId, Vec<FailureRow>>,
    ) -> Result<(), Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let tallies = self.sim.block_on(async { ledger.tallies(&run).await })?;
        let tallies = tallies.expect("the quiet way has no faults");
        for (generation, tally) in &tallies.by_generation {
            let failures = tally.settled.failed + tally.settled.timed_out;
            let by_class: u64 = tally.classes.values().sum();
            let broken = (by_class != failures).then(|| {
                format!(
                    "{failures} failed in generation {generation}, by class {:?}",
                    tally.classes
                )
            });
            oracle.holds("S2", failures, broken);
            let mut named: BTreeMap<String, u64> = BTreeMap::new();
            let of_generation = rows.values().flatten();
            for row in of_generation.filter(|row| row.generation.0 == *generation) {
                if row.outcome == Outcome::Failed || row.outcome == Outcome::TimedOut {
                    *named.entry(row.failure.class.to_string()).or_default() += 1;
                }
            }
            let all_have_names = named.len() < CLASSES_MAX;
            let differs = all_have_names && named.keys().ne(tally.classes.keys());
            let broken = (self.is_calm() && differs).then(|| {
                format!(
                    "generation {generation} failed of {named:?}, and counts {:?}",
                    tally.classes
                )
            });
            oracle.holds("S2", named.len() as u64, broken);
        }
        Ok(())
    }
}

/// An item with its state.
pub(crate) struct Item<'a> {
    pub(crate) id: ItemId,
    pub(crate) held: &'a Held,
    pub(crate) state: &'a ItemState,
    /// Where it stands in the input.
    pub(crate) place: u32,
}

impl<'a> Item<'a> {
    /// All of a page.
    pub(crate) fn all(held: &'a Held, places: &Places) -> Vec<Self> {
        let states = (0..).zip(&held.page.items);
        let item = |((index, state), place)| Self {
            id: held.page.id.origin(index),
            held,
            state,
            place,
        };
        states.zip(places.of_page(&held.page)).map(item).collect()
    }
}

/// What of a key or value fits a table.
fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.len() <= CHARS_MAX {
        return text.to_owned();
    }
    // It is ASCII.
    format!("{}…", &text[..CHARS_MAX])
}
