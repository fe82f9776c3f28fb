//! What must hold of a run, whatever happened to it: the promises of `pipeline/design.md`, checked from
//! outside.
//!
//! Each check says how much it compared, so that a run in which nothing happened cannot pass for a proof.
//! Promises that show in single writes are checked where the writes land, in [`crate::services`].

mod cost;

use std::collections::{BTreeMap, BTreeSet};

use trommel::core::id::{ItemId, SHARDS};
use trommel::core::lane::Lane;
use trommel::core::outcome::Outcome;
use trommel::core::page::{Mark, PageStatus};
use trommel::core::run::{Reason, RunStatus};
use trommel::core::tolerance::Breach;
use trommel::ledger::{Held, RunRow, SessionStatus};
use trommel::shell::report::{self, Audit};

use crate::budget::Budget;
use crate::cluster::Cluster;
use crate::halt::Halt;
use crate::own::{Ended, EndedItem, Own};
use crate::places::Places;
use crate::probe::Probe;
use crate::results;
use crate::simulation::Simulation;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one: `S1`, `L2`, …; `panic` where the pipeline's own code gave up.
    pub oracle: String,
    /// What was seen.
    pub seen: String,
}

impl Violation {
    /// One of this oracle.
    pub fn new(oracle: &str, seen: impl Into<String>) -> Self {
        Self {
            oracle: oracle.to_owned(),
            seen: seen.into(),
        }
    }

    /// One told as a sentence that begins with the oracle's name: `S1: …`.
    pub fn told(text: &str) -> Self {
        let named = text.split_once(": ").filter(|(name, _)| is_oracle(name));
        match named {
            Some((name, seen)) => Self::new(name, seen),
            None => Self::new("panic", text),
        }
    }
}

fn is_oracle(name: &str) -> bool {
    let (kind, number) = name.split_at(name.len().min(1));
    matches!(kind, "S" | "L") && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// How much each oracle compared.
pub type Compared = BTreeMap<&'static str, u64>;

/// Looks at one cluster.
pub struct Oracle<'a> {
    sim: &'a Simulation,
    cluster: &'a Cluster,
    /// Whether each item is small enough for the function lane, in the order of the input.
    is_small: Vec<bool>,
    data_is_known: bool,
    places_are_known: bool,
    /// What is tolerated, as the scenario has it.
    tolerated: Option<Budget>,
    compared: Compared,
    found: Vec<Violation>,
}

impl<'a> Oracle<'a> {
    /// Nothing looked at yet.
    pub fn new(sim: &'a Simulation, cluster: &'a Cluster, is_small: Vec<bool>) -> Self {
        Self {
            is_small,
            data_is_known: true,
            places_are_known: true,
            tolerated: None,
            sim,
            cluster,
            compared: Compared::new(),
            found: Vec::new(),
        }
    }

    /// Job, data and handler are not the simulated ones: what is read and answered is their own business.
    pub fn data_is_not_known(&mut self) {
        self.data_is_known = false;
    }

    /// Objects came or went while they were listed: nobody knows which item is which.
    pub fn places_are_not_known(&mut self) {
        self.places_are_known = false;
    }

    /// The run is judged by this: counted here anew, not by the rule that is under test.
    pub fn tolerates(&mut self, budget: Budget) {
        self.tolerated = Some(budget);
    }

    fn is_breached(&self, failures: u64, row: &RunRow) -> bool {
        match &self.tolerated {
            Some(budget) => budget.is_exceeded(failures, row.total_final()),
            None => {
                let tolerance = row.state.limits.tolerance;
                tolerance.breach(failures, row.total_final()).is_some()
            }
        }
    }

    /// What was found, and how much was looked at.
    pub fn finish(self) -> (Vec<Violation>, Compared) {
        (self.found, self.compared)
    }

    pub(crate) fn holds(&mut self, oracle: &'static str, compared: u64, broken: Option<String>) {
        *self.compared.entry(oracle).or_default() += compared;
        self.found
            .extend(broken.map(|seen| Violation::new(oracle, seen)));
    }

    /// What shows at any moment: promises broken by a write, panics of the pipeline, too many calls.
    pub fn at_any_time(&mut self) {
        let table = self.cluster.table();
        let rows = table.compared();
        self.holds("S1", rows.pages, None);
        self.holds("S4", rows.pages + rows.runs, None);
        self.found
            .extend(table.broken().iter().map(|text| Violation::told(text)));
        for panic in self.sim.panics() {
            let text = panic.message.clone();
            let mut violation = Violation::told(&text);
            violation.seen = format!("{} said: {}", panic.task, violation.seen);
            self.found.push(violation);
        }
        let max = self.cluster.job().max_concurrency;
        let most = self.cluster.running_most();
        let calls = self.cluster.calls().len() as u64;
        let broken = (most > max).then(|| format!("{most} calls ran at one time, {max} may"));
        self.holds("S10", calls, broken);
    }

    /// What must hold once all processes left.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn at_rest(&mut self, row: &RunRow) -> Result<(), Halt> {
        self.pages_at_rest(row).map(|_| ())
    }

    /// The same; answers the pages and where their items stand.
    pub(crate) fn pages_at_rest(&mut self, row: &RunRow) -> Result<(Vec<Held>, Places), Halt> {
        let audit = self.audit()?;
        self.counts(&audit);
        self.shown(row, &audit)?;
        self.is_listed()?;
        self.verdict(row, &audit);
        let (pages, places) = (self.pages()?, self.places()?);
        self.outcomes(&pages);
        self.leases(row, &pages);
        self.lanes(&pages, &places);
        self.versions();
        self.results(row, &pages, &places)?;
        Ok((pages, places))
    }

    /// The index of runs names the run.
    fn is_listed(&mut self) -> Result<(), Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let runs = self.sim.block_on(async { ledger.runs().await })?;
        let runs = runs.expect("the quiet way has no faults");
        let is_there = runs.iter().any(|listed| listed.id == run);
        let broken = (!is_there).then(|| format!("{} runs are listed, not {run}", runs.len()));
        self.holds("S3", 1, broken);
        Ok(())
    }

    /// What `trommel status` says adds up, and is what the pages say.
    fn shown(&mut self, row: &RunRow, audit: &Audit) -> Result<(), Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let shown = self
            .sim
            .block_on(async { report::report(&ledger, &run).await })?;
        let counts = shown.expect("the quiet way has no faults").counts;
        let settled = counts.settled();
        let adds_up = settled == audit.recounted
            && counts.total == row.total
            && counts.pending + counts.running == audit.pending;
        let broken = (!adds_up).then(|| format!("{counts:?} are shown, {audit:?}"));
        self.holds("S2", 1, broken);
        Ok(())
    }

    fn counts(&mut self, audit: &Audit) {
        let items = audit.recounted.total() + audit.pending;
        // An outcome that was counted twice, or never, shows between the tallies and the pages.
        let (pages, tallies) = (audit.recounted, audit.tallied);
        let broken = (pages != tallies)
            .then(|| format!("the pages say {pages:?}, the tallies say {tallies:?}"));
        self.holds("S2", pages.total(), broken);
        let broken = (!audit.problems.is_empty()).then(|| audit.problems.join("; "));
        self.holds("S3", items, broken);
    }

    fn verdict(&mut self, row: &RunRow, audit: &Audit) {
        let failures = audit.recounted.failures();
        let breached = self.is_breached(failures, row);
        let braked = matches!(
            &row.state.reason,
            Some(Reason::Breach {
                breach: Breach::FailFast { .. }
            })
        );
        if braked {
            self.sim.sometimes(Probe::Braked);
        }
        if let Some(budget) = &self.tolerated {
            let reason = row.state.reason.as_ref();
            // In a redrive, what failed before may have succeeded since.
            let known = reason.filter(|_| row.state.generation.0 == 0);
            let broken = known.and_then(|reason| budget.is_reason_wrong(reason, failures));
            let shown = row.state.limits.tolerance.failures_max(row.total_final());
            let broken = broken.or_else(|| budget.is_shown_wrong(shown, row.total_final()));
            self.holds("S6", 1, broken);
        }
        // In a redrive, failures of its own may end it earlier.
        let may_fail = breached || braked || row.state.generation.0 > 0;
        let status = row.state.status;
        let broken = match status {
            RunStatus::Succeeded if breached => Some(format!(
                "SUCCEEDED with {failures} failures of {}",
                row.total
            )),
            RunStatus::Failed if !may_fail => {
                Some(format!("FAILED with {failures} failures of {}", row.total))
            }
            RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Aborted => None,
        };
        self.holds("S6", 1, broken);
        let unfinished = status == RunStatus::Succeeded && audit.pending > 0;
        let broken = unfinished.then(|| format!("{} pending in a success", audit.pending));
        self.holds("L1", row.total, broken);
        let running = status == RunStatus::Running;
        let broken = running.then(|| "all processes left, and the run is RUNNING".to_owned());
        self.holds("L2", 1, broken);
    }

    fn outcomes(&mut self, pages: &[Held]) {
        let mut outcomes: BTreeMap<ItemId, Outcome> = BTreeMap::new();
        for held in pages {
            for (index, item) in held.page.items.iter().enumerate() {
                let Some(outcome) = item.mark.outcome() else {
                    continue;
                };
                let index = u8::try_from(index).expect("a page has 100 items");
                let id = held.page.id.origin(index);
                let former = outcomes.insert(id, outcome);
                let broken = former.map(|former| format!("{id} is {former:?} and {outcome:?}"));
                self.holds("S1", 1, broken);
            }
        }
        let calls = self.cluster.calls();
        for (item, outcome) in &outcomes {
            if *outcome != Outcome::Succeeded {
                continue;
            }
            let called = calls
                .iter()
                .any(|call| call.item == *item && call.succeeded == Some(true));
            let broken = (!called).then(|| format!("{item} succeeded, and no call of it did"));
            self.holds("S1", 1, broken);
        }
    }

    /// The items that were aborted.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn aborted(&self) -> Result<BTreeSet<ItemId>, Halt> {
        self.items(|outcome| outcome == Some(Outcome::Aborted))
    }

    /// The items that were skipped so far.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn skipped(&self) -> Result<BTreeSet<ItemId>, Halt> {
        self.items(|outcome| outcome == Some(Outcome::Skipped))
    }

    /// The items that succeeded so far.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn succeeded(&self) -> Result<BTreeSet<ItemId>, Halt> {
        self.items(|outcome| outcome == Some(Outcome::Succeeded))
    }

    /// The items that failed so far.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn failed(&self) -> Result<BTreeSet<ItemId>, Halt> {
        self.items(|outcome| outcome.is_some_and(Outcome::is_failure))
    }

    /// L5, of a redrive of what failed: it does not end before all of that is settled again.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn settled_again(&mut self, failed: &BTreeSet<ItemId>) -> Result<(), Halt> {
        let pending = self.items(|outcome| outcome.is_none())?;
        let left = failed.intersection(&pending).next();
        let broken = left.map(|item| format!("the redrive of what failed left out {item}"));
        self.holds("L5", failed.len() as u64, broken);
        Ok(())
    }

    fn items(&self, are: impl Fn(Option<Outcome>) -> bool) -> Result<BTreeSet<ItemId>, Halt> {
        let mut items = BTreeSet::new();
        for held in self.pages()? {
            for (index, item) in held.page.items.iter().enumerate() {
                if item.mark != Mark::Moved && are(item.mark.outcome()) {
                    let index = u8::try_from(index).expect("a page has 100 items");
                    items.insert(held.page.id.origin(index));
                }
            }
        }
        Ok(items)
    }

    /// S7: what had succeeded `before` the redrive was not called in it.
    pub fn redriven(&mut self, before: &BTreeSet<ItemId>, generation: u32) {
        for call in self.cluster.calls() {
            if call.generation < generation {
                continue;
            }
            let broken = before.contains(&call.item).then(|| {
                let generation = call.generation;
                format!(
                    "{} had succeeded and ran in generation {generation}",
                    call.item
                )
            });
            self.holds("S7", 1, broken);
        }
    }

    /// S8: what a handler read is what was listed under its name; a redrive may look it up again.
    fn versions(&mut self) {
        let watch = self.cluster.watch();
        let (listed, looked_up) = (watch.states_listed(), watch.states_looked_up());
        for (item, generation, state) in watch.states_read() {
            let again = generation.0 > 0 && looked_up.contains(&state);
            let broken = (!again && !listed.contains(&state)).then(|| {
                format!("{item} read state {state} of its object in generation {generation}, which no listing named")
            });
            self.holds("S8", 1, broken);
        }
    }

    /// S2, of result files: each item in one of them, once, by what it became; successes with their output.
    fn results(&mut self, row: &RunRow, pages: &[Held], places: &Places) -> Result<(), Halt> {
        let ended = match row.state.status {
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => true,
            RunStatus::Running | RunStatus::Paused => false,
        };
        if self.cluster.job().results.is_none() || !ended {
            return Ok(());
        }
        let Some(found) = self.sim.block_on(results::read(self.cluster))? else {
            let seen = "the run has ended, and there is no manifest".to_owned();
            self.holds("S2", 1, Some(seen));
            return Ok(());
        };
        let mut wanted = results::wanted(pages, places);
        let mut found = found;
        if !self.data_is_known {
            results::forget_data(&mut wanted);
            found.forget_data();
        }
        if !self.places_are_known {
            results::forget_inputs(&mut wanted);
            found.forget_inputs();
        }
        let broken = results::difference(&wanted, &found, row);
        self.holds("S2", wanted.len() as u64, broken);
        Ok(())
    }

    fn leases(&mut self, row: &RunRow, pages: &[Held]) {
        if row.state.status != RunStatus::Succeeded {
            return;
        }
        let mut left = Vec::new();
        for held in pages {
            match &held.page.status {
                PageStatus::Leased { session } => {
                    left.push(format!("{} by {session}", held.page.id));
                }
                PageStatus::Ready | PageStatus::Waiting { .. } | PageStatus::Settled => {}
            }
        }
        let broken = (!left.is_empty()).then(|| format!("leased in a success: {left:?}"));
        self.holds("L4", pages.len() as u64, broken);
    }

    /// Where items stand in the input.
    ///
    /// # Errors
    /// The world could not go on.
    pub(crate) fn places(&self) -> Result<Places, Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        self.sim.block_on(async { Places::of(&ledger, &run).await })
    }

    /// Large objects are never in the function lane, and alone in the other.
    fn lanes(&mut self, pages: &[Held], places: &Places) {
        for held in pages {
            let page = &held.page;
            let alone = page.lane == Lane::Function || page.items.len() == 1;
            let mut broken = (!alone).then(|| format!("{} has company", page.id));
            let mut items = places.of_page(page).into_iter();
            let large = items.any(|item| self.is_small.get(item as usize) == Some(&false));
            if page.lane == Lane::Function && large {
                broken = Some(format!(
                    "{} holds a large item on the function lane",
                    page.id
                ));
            }
            self.holds("S9", 1, broken);
        }
    }

    /// S11: an item fails with the retried class at most once more than its rule grants. What a dead
    /// session had counted is forgotten with it, so after each `loss` it begins anew, as it does in the
    /// container lane.
    pub fn retries(&mut self, granted: u32, losses: u64) {
        let pages = self.pages().unwrap_or_default();
        let escalated: BTreeSet<ItemId> = pages
            .iter()
            .filter(|held| held.page.id.escalated.is_some())
            .map(|held| held.page.id.origin(0))
            .collect();
        let mut flaky: BTreeMap<(ItemId, u32), u64> = BTreeMap::new();
        for call in self.cluster.calls() {
            if call.class.as_deref() == Some("Flaky") {
                *flaky.entry((call.item, call.generation)).or_default() += 1;
            }
        }
        for ((item, generation), times) in flaky {
            let lanes = 1 + u64::from(escalated.contains(&item));
            let most = (lanes + losses) * (u64::from(granted) + 1);
            let broken = (times > most).then(|| {
                format!("{item} failed {times} times in generation {generation}, {granted} retries are granted")
            });
            self.holds("S11", 1, broken);
        }
    }

    /// What the owner of the handler says must hold.
    pub(crate) fn holds_for_its_owner(&mut self, own: &Own, status: RunStatus) {
        let items = self.ended(own.data.len());
        let ended = Ended { status, items };
        let broken = (own.subject.holds)(&ended).err();
        self.holds("yours", ended.items.len() as u64, broken);
    }

    /// What became of so many items, in the order of the data.
    pub(crate) fn ended(&self, items: usize) -> Vec<EndedItem> {
        let pages = self.pages().unwrap_or_default();
        let nothing = EndedItem {
            outcome: None,
            calls: 0,
        };
        let mut ended = vec![nothing; items];
        let mut places: BTreeMap<ItemId, usize> = BTreeMap::new();
        for held in pages.iter().filter(|held| held.page.id.escalated.is_none()) {
            let stretches = held.page.stretches.iter();
            let of_part =
                stretches.flat_map(|stretch| stretch.first..stretch.first + stretch.items);
            for (index, place) in (0..).zip(of_part) {
                places.insert(held.page.id.origin(index), place as usize);
            }
        }
        for held in &pages {
            for (index, item) in (0..).zip(&held.page.items) {
                let place = places.get(&held.page.id.origin(index));
                if let Some(place) = place.filter(|_| item.mark != Mark::Moved) {
                    ended[*place].outcome = item.mark.outcome();
                }
            }
        }
        for call in self.cluster.calls() {
            if let Some(place) = places.get(&call.item) {
                ended[*place].calls += 1;
            }
        }
        ended
    }

    /// # Errors
    /// The world could not go on.
    fn audit(&self) -> Result<Audit, Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let audit = self
            .sim
            .block_on(async { report::audit(&ledger, &run).await })?;
        Ok(audit.expect("the quiet way has no faults"))
    }

    /// All pages of the run.
    pub(crate) fn pages(&self) -> Result<Vec<Held>, Halt> {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let mut pages = Vec::new();
        for shard in 0..SHARDS {
            let found = self.sim.block_on(async {
                let all = (" ", "~");
                ledger.pages_between(&run, shard, all, usize::MAX).await
            })?;
            pages.extend(found.expect("the quiet way has no faults"));
        }
        Ok(pages)
    }

    /// L4: what is still lent, and by whom; none: nothing, and no session lives but the janitor.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn lent_or_live(&self) -> Result<Option<String>, Halt> {
        let ledger = self.cluster.ledger();
        let job = &self.cluster.job().name;
        let (pool, sessions) = self.sim.block_on(async {
            let pool = ledger.pool(job).await.expect("no faults");
            (pool, ledger.sessions(job).await.expect("no faults"))
        })?;
        let live = sessions
            .into_iter()
            .filter(|session| session.status == SessionStatus::Live && session.who != "janitor");
        let live: Vec<String> = live.map(|session| session.who).collect();
        let left = pool.lent > 0 || !live.is_empty();
        Ok(left.then(|| format!("{} lent, {live:?} live", pool.lent)))
    }

    /// So much was compared, and held.
    pub fn counted(&mut self, oracle: &'static str, compared: u64) {
        self.holds(oracle, compared, None);
    }

    /// L4: where nothing went wrong, whoever left took his row with him.
    ///
    /// # Errors
    /// The world could not go on.
    pub fn nobody_is_left(&mut self) -> Result<(), Halt> {
        let ledger = self.cluster.ledger();
        let job = &self.cluster.job().name;
        let sessions = self
            .sim
            .block_on(async { ledger.sessions(job).await.expect("no faults") })?;
        let broken = (!sessions.is_empty()).then(|| format!("all have left, but {sessions:?}"));
        self.holds("L4", 1, broken);
        Ok(())
    }

    /// Notes what a check outside found.
    pub fn note(&mut self, oracle: &'static str, broken: Option<String>) {
        self.holds(oracle, 1, broken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_violation_names_its_oracle() {
        assert_eq!(Violation::told("S10: 3 of 2").oracle, "S10");
        assert_eq!(Violation::told("S1: it: went back").seen, "it: went back");
        assert_eq!(Violation::told("index out of bounds").oracle, "panic");
        assert_eq!(Violation::told("Some: thing").oracle, "panic");
    }
}
