//! What the ledger says of a run: counts, items, evidence, and an audit that recounts everything.
//! Reading only; it needs no session.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::id::{ItemId, PageId, RunId, SHARDS};
use crate::core::item::Input;
use crate::core::job::Job;
use crate::core::outcome::{ItemCounts, Outcome, Settled};
use crate::core::packing::{Order, pack};
use crate::core::page::{Mark, PageStatus};
use crate::core::part::Part;
use crate::core::planted::{Bug, is_planted};
use crate::core::tally::Tallies;
use crate::core::time::Timestamp;
use crate::ledger::{FailureRow, Held, IntakeCounts, Ledger, LedgerError, RunRow, SessionStatus};

use super::part_cache::Inputs;
use super::redriver::latest;
use super::source::{SourceError, Stores, load_part};

/// Parts looked up at a time.
const PARTS_AT_ONCE: usize = 100;

/// A run's row, counts and tallies at one moment.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The row, read last.
    pub row: RunRow,
    /// The counts; they add up.
    pub counts: ItemCounts,
    /// Where they come from.
    pub tallies: Tallies,
    /// Event mode: what was met in the ingest queue.
    pub met: Option<IntakeCounts>,
    /// Sessions that live.
    pub sessions: usize,
    /// Event mode: no message that waits was sent before this; none: the queue was empty.
    pub oldest_message: Option<Timestamp>,
}

/// Counts a run: outcomes first, the total last, so that they add up at every moment.
pub async fn report(ledger: &Ledger, run: &RunId) -> Result<RunReport, LedgerError> {
    let tallies = ledger.tallies(run).await?;
    let job = ledger.run(run).await?.job;
    let mut running = 0;
    let mut sessions = 0;
    let mut oldest_message = None;
    for session in ledger.sessions(&job).await? {
        if session.status == SessionStatus::Live {
            sessions += 1;
            running += session.running.get(run).copied().unwrap_or(0);
            oldest_message = oldest_message
                .into_iter()
                .chain(session.oldest_message)
                .min();
        }
    }
    let row = ledger.run(run).await?;
    // A window that still takes in has counted its total on its shards.
    let (total, met) = ledger.total_and_met(&row).await?;
    let counts = ItemCounts::new(total, tallies.settled(), running);
    Ok(RunReport {
        row,
        counts,
        tallies,
        met,
        sessions,
        oldest_message,
    })
}

/// One item as the ledger knows it.
#[derive(Clone, Debug)]
pub struct ItemView {
    /// Its name.
    pub item: ItemId,
    /// The page that holds its state now.
    pub page: PageId,
    /// Outcome, or pending.
    pub mark: Mark,
    /// Its input, if it can be read.
    pub input: Option<Arc<Input>>,
    /// Evidence of its latest failure.
    pub failure: Option<FailureRow>,
    /// Retries charged in this generation.
    pub retries: u32,
}

/// A run opened for reading.
pub struct RunReader {
    /// The books.
    pub ledger: Ledger,
    /// The run.
    pub row: RunRow,
    /// Its job.
    pub job: Arc<Job>,
    /// Its stores.
    pub stores: Stores,
}

/// One part with everything known of its items.
pub struct PartView {
    /// The part.
    pub part: Part,
    /// Its pages' rows, in order; none where they are not made yet.
    pub pages: Vec<Held>,
    /// Its items' inputs, or why they cannot be read.
    pub inputs: Result<Inputs, SourceError>,
}

impl RunReader {
    /// Parts from `first` on, a hundred at most.
    pub async fn parts(&self, first: u32) -> Result<Vec<Part>, LedgerError> {
        self.ledger
            .parts_from(&self.row.id, first, PARTS_AT_ONCE)
            .await
    }

    /// One part's pages and inputs.
    pub async fn part(&self, part: Part) -> Result<PartView, LedgerError> {
        let pages = self.ledger.pages_of_part(&self.row.id, part.number).await?;
        let inputs = load_part(&self.job.input, &self.stores, &self.row.cursor, &part).await;
        Ok(PartView {
            part,
            pages,
            inputs,
        })
    }

    /// The items of a part, in the order of the input.
    pub async fn items(&self, view: &PartView) -> Result<Vec<ItemView>, LedgerError> {
        let mut evidence = BTreeMap::new();
        let failed = |held: &Held| {
            held.page.items.iter().any(|item| {
                item.mark
                    .outcome()
                    .is_some_and(|outcome| outcome != Outcome::Succeeded)
            })
        };
        for held in view.pages.iter().filter(|held| failed(held)) {
            let rows = self
                .ledger
                .failures_of_page(&self.row.id, held.page.id)
                .await?;
            evidence.extend(latest(rows));
        }
        let input = |index: Option<u32>| match (&view.inputs, index) {
            (Ok(inputs), Some(index)) => inputs.get(index as usize).cloned(),
            (Ok(_) | Err(_), _) => None,
        };
        let mut items = BTreeMap::new();
        for held in &view.pages {
            for (index, state) in held.page.items.iter().enumerate() {
                if state.mark == Mark::Moved {
                    continue;
                }
                let at = held.page.index_in_part(index as u8);
                let item = held.page.id.origin(index as u8);
                items.insert(
                    at.unwrap_or(u32::MAX),
                    ItemView {
                        item,
                        page: held.page.id,
                        mark: state.mark,
                        input: input(at),
                        failure: evidence
                            .get(&item)
                            .filter(|_| is_failed(state.mark))
                            .cloned(),
                        retries: state.retries.iter().sum(),
                    },
                );
            }
        }
        // A run may end while the pages of a part are made.
        let leaves_out = is_planted(Bug::HalfMadePartsLost) && !items.is_empty();
        if items.len() < view.part.items as usize
            && !leaves_out
            && let Ok(inputs) = &view.inputs
        {
            for (at, item) in self.unrouted(view.part.number, inputs) {
                items.entry(at).or_insert(item);
            }
        }
        Ok(items.into_values().collect())
    }

    /// What the handler answered for an item that succeeded, as JSON; none if nothing was kept.
    ///
    /// # Errors
    /// The output part cannot be read, in words.
    pub async fn output_of(&self, item: &ItemView) -> Result<Option<String>, String> {
        let held = self
            .ledger
            .page(&self.row.id, item.page)
            .await
            .map_err(|e| e.to_string())?;
        let Some(held) = held else { return Ok(None) };
        for stretch in &held.page.outputs {
            for line in super::outputs::read(&self.stores, stretch).await? {
                if line.item.parse() == Ok(item.item) {
                    return match (line.output, line.large) {
                        (Some(output), _) => Ok(Some(output.get().to_owned())),
                        (None, Some(large)) => super::outputs::read_large(&self.stores, &large)
                            .await
                            .map(Some),
                        (None, None) => Ok(None),
                    };
                }
            }
        }
        Ok(None)
    }

    /// Items whose pages are not made yet: packing says what they will be called.
    fn unrouted(&self, part: u32, inputs: &Inputs) -> BTreeMap<u32, ItemView> {
        let order = if self.job.max_concurrency == 1 {
            Order::Kept
        } else {
            Order::Free
        };
        let mut items = BTreeMap::new();
        for packed in pack(part, inputs, &self.job.size_rule(), order) {
            let indexes = packed
                .stretches
                .iter()
                .flat_map(|s| s.first..s.first + s.items);
            for (index, at) in indexes.enumerate() {
                items.insert(
                    at,
                    ItemView {
                        item: packed.id.origin(index as u8),
                        page: packed.id,
                        mark: Mark::Pending,
                        input: inputs.get(at as usize).cloned(),
                        failure: None,
                        retries: 0,
                    },
                );
            }
        }
        items
    }
}

fn is_failed(mark: Mark) -> bool {
    mark.outcome()
        .is_some_and(|outcome| outcome != Outcome::Succeeded)
}

/// Evidence that still stands: of items whose outcome is not a success, one row an item.
pub async fn standing_failures(
    ledger: &Ledger,
    run: &RunId,
) -> Result<Vec<(FailureRow, Outcome)>, LedgerError> {
    let mut standing = Vec::new();
    for shard in 0..SHARDS {
        let rows = latest(ledger.failures_of_shard(run, shard).await?);
        let mut page: Option<Held> = None;
        for (item, row) in rows {
            if page.as_ref().is_none_or(|held| held.page.id != item.page()) {
                page = ledger.page(run, item.page()).await?;
            }
            let mut mark = page.as_ref().and_then(|held| mark_of(held, item.index));
            if mark == Some(Mark::Moved) {
                let moved = item.page().escalation_of(item.index);
                mark = ledger
                    .page(run, moved)
                    .await?
                    .and_then(|held| mark_of(&held, 0));
            }
            match mark.and_then(Mark::outcome) {
                None | Some(Outcome::Succeeded) => {}
                Some(outcome) => standing.push((row, outcome)),
            }
        }
    }
    standing.sort_by_key(|(row, _)| row.item);
    Ok(standing)
}

fn mark_of(held: &Held, index: u8) -> Option<Mark> {
    held.page
        .items
        .get(usize::from(index))
        .map(|item| item.mark)
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Items recounted from the pages' rows.
    pub recounted: Settled,
    /// Items without an outcome, recounted.
    pub pending: u64,
    /// The tallies' sums.
    pub tallied: Settled,
    /// The total the run's row names.
    pub total: u64,
    /// Items of the frozen parts.
    pub in_parts: u64,
    /// Pages looked at.
    pub pages: u64,
    /// What does not agree, each in a sentence; empty: all is well.
    pub problems: Vec<String>,
}

/// Recounts a run from its pages and parts, and compares with tallies and row. Exact while the run is not
/// being worked on.
pub async fn audit(ledger: &Ledger, run: &RunId) -> Result<Audit, LedgerError> {
    let mut audit = Audit::default();
    let mut routed = 0;
    let mut moved = BTreeMap::new();
    let mut arrived = BTreeMap::new();
    let mut next = 0;
    let progress = ledger.progress(run).await?;
    loop {
        let parts = ledger.parts_from(run, next, PARTS_AT_ONCE).await?;
        let Some(last) = parts.last() else { break };
        next = last.number + 1;
        for part in &parts {
            audit.in_parts += u64::from(part.items);
            let mut in_pages = 0u64;
            for held in ledger.pages_of_part(run, part.number).await? {
                audit.pages += 1;
                audit.recounted += held.page.counts();
                audit.pending += held.page.pending() as u64;
                for (index, item) in held.page.items.iter().enumerate() {
                    if item.mark == Mark::Moved {
                        moved.insert(held.page.id.origin(index as u8), held.page.id);
                    }
                }
                if held.page.id.escalated.is_some() {
                    arrived.insert(held.page.id.origin(0), held.page.id);
                } else {
                    in_pages += held.page.items.len() as u64;
                }
                if held.page.status == PageStatus::Settled && held.page.pending() > 0 {
                    audit.problems.push(format!(
                        "page {} is settled with pending items",
                        held.page.id
                    ));
                }
            }
            // A run may end while the pages of a part are made; what is dispatched has them all.
            let shard = progress.get((part.number % SHARDS) as usize);
            let is_dispatched = shard.is_some_and(|shard| shard.dispatched > part.number);
            let items = u64::from(part.items);
            if in_pages > items || (is_dispatched && in_pages != items) {
                audit.problems.push(format!(
                    "part {} has {} items, its pages hold {in_pages}",
                    part.number, part.items
                ));
            }
            routed += in_pages;
        }
    }
    if moved.keys().ne(arrived.keys()) {
        audit.problems.push(format!(
            "{} items moved to the container lane, {} arrived",
            moved.len(),
            arrived.len()
        ));
    }
    let row = ledger.run(run).await?;
    audit.tallied = ledger.tallies(run).await?.settled();
    audit.total = ledger.total_and_met(&row).await?.0;
    audit.pending += audit.in_parts.saturating_sub(routed);
    for outcome in Outcome::ALL {
        let (pages, tallies) = (audit.recounted.of(outcome), audit.tallied.of(outcome));
        if pages != tallies {
            let name = outcome.as_str();
            audit.problems.push(format!(
                "{name}: {pages} by the pages, {tallies} by the tallies"
            ));
        }
    }
    if audit.in_parts != audit.total {
        let (parts, total) = (audit.in_parts, audit.total);
        audit.problems.push(format!(
            "total: {parts} by the parts, {total} by the run's row"
        ));
    }
    let sum = audit.recounted.total() + audit.pending;
    if sum != audit.in_parts {
        let parts = audit.in_parts;
        audit.problems.push(format!(
            "{sum} items in pages and pending, {parts} in the parts"
        ));
    }
    Ok(audit)
}
