//! The settler: writes one group of pages. Outputs first, then evidence, then the outcomes with their
//! tally in one transaction, then hints at pages that escalation made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::core::class::Failure;
use crate::core::id::{Generation, ItemId, RunId};
use crate::core::lane::Lane;
use crate::core::page::{ItemState, Page};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::core::work::{Evidence, News};
use crate::ledger::{FailureRow, Fence, Held, LedgerError, SettleEnd, Settlement};
use crate::ports::executor::OUTPUT_INLINE_BYTES_MAX;
use crate::shell::env::{Env, RunHandle};
use crate::shell::outputs::{self, Large, OutputWriter};

/// Pages settled together at most: what one transaction of SQLite takes with ease.
pub(super) const GROUP_PAGES_MAX: usize = 64;

/// Between tries while the ledger or the scratch place does not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What one page has to record.
pub(super) struct Entry {
    /// The engine's number for the page.
    pub(super) page: u64,
    pub(super) held: Held,
    pub(super) items: Vec<ItemState>,
    pub(super) news: News,
    /// The labels of items with evidence, by index.
    pub(super) labels: BTreeMap<u8, String>,
}

/// The output parts of every run this engine writes to.
pub(super) type Writers = Arc<Mutex<BTreeMap<RunId, OutputWriter>>>;

/// Settles one group of one run. Tries until it is done or the session ends; answers one end an entry.
pub(super) async fn settle(
    env: &Env,
    run: &RunHandle,
    writers: &Writers,
    entries: Vec<Entry>,
) -> Vec<(u64, SettleEnd)> {
    let ids: Vec<u64> = entries.iter().map(|entry| entry.page).collect();
    // An outcome without its output or its evidence is worse than one that is made again by others.
    let written = write_outputs(env, run, writers, &entries).await;
    let kept = written.is_some() && keep_evidence(env, run, &entries).await;
    let Some(stretches) = written.filter(|_| kept) else {
        return ids.into_iter().map(|id| (id, SettleEnd::Lost)).collect();
    };
    let settlements: Vec<Settlement> = entries
        .into_iter()
        .zip(stretches)
        .map(|(entry, outputs)| Settlement {
            classes: classes(env, &entry.news.evidence),
            held: entry.held,
            items: entry.items,
            outputs,
            moved: entry.news.moved,
        })
        .collect();
    let mut ends = vec![None; ids.len()];
    loop {
        let group = settlements.clone();
        match env.ledger.settle_rest(&run.id, group, &mut ends).await {
            Ok(()) => break,
            Err(error) if env.kill.is_cancelled() => {
                tracing::warn!(run = %run.id, %error, "left without settling");
                break;
            }
            Err(error @ (LedgerError::Broken(_) | LedgerError::Page(_))) => {
                tracing::error!(run = %run.id, %error, "a promise would have been broken: pages dropped");
                break;
            }
            Err(error) => {
                tracing::warn!(run = %run.id, %error, "not settled yet, trying again");
                if is_planted(Bug::SettledIsAskedAgain) {
                    ends.fill(None);
                }
                env.runtime.clock.sleep(AGAIN_AFTER).await;
            }
        }
    }
    let ends = ends.into_iter();
    let ends: Vec<SettleEnd> = ends.map(|end| end.unwrap_or(SettleEnd::Lost)).collect();
    hint_moved(env, run, &settlements, &ends).await;
    run.settled.notify_waiters();
    ids.into_iter().zip(ends).collect()
}

fn classes(env: &Env, evidence: &[Evidence]) -> Vec<String> {
    let failures = evidence
        .iter()
        .filter(|evidence| evidence.outcome.is_failure());
    failures
        .map(|evidence| env.counted_as(&evidence.failure.class))
        .collect()
}

/// Writes the group's outputs as one stretch of bytes; answers each page's own stretch. None if the session
/// ends first.
async fn write_outputs(
    env: &Env,
    run: &RunHandle,
    writers: &Writers,
    entries: &[Entry],
) -> Option<Vec<Option<String>>> {
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    for entry in entries {
        let begin = bytes.len();
        for (index, json) in &entry.news.outputs {
            let page = &entry.held.page;
            let item = page.id.origin(*index);
            if json.len() > OUTPUT_INLINE_BYTES_MAX {
                let large = write_large(env, run, item, page.generation, json).await?;
                outputs::encode_large(&mut bytes, item, &large);
            } else if let Err(error) = outputs::encode(&mut bytes, item, json) {
                tracing::error!(%item, %error, "an executor answered junk as output; it is left out");
            }
        }
        ranges.push(begin..bytes.len());
    }
    // A group is one lane's.
    let lane = entries.first().map(|entry| entry.held.page.lane);
    let Some(lane) = lane.filter(|_| !bytes.is_empty()) else {
        return Some(vec![None; entries.len()]);
    };
    let bytes = bytes::Bytes::from(bytes);
    let mut writers = writers.lock().await;
    let writer = writers
        .entry(run.id.clone())
        .or_insert_with(|| OutputWriter::new(env.ledger.session().clone(), lane));
    let (name, offset) = loop {
        match writer.write(&run.stores, bytes.clone()).await {
            Ok(place) => break place,
            Err(error) if env.kill.is_cancelled() => {
                tracing::warn!(run = %run.id, %error, "left without writing outputs");
                let forgotten = || vec![None; entries.len()];
                return is_planted(Bug::OutputsForgotten).then(forgotten);
            }
            Err(error) => {
                tracing::error!(run = %run.id, %error, "outputs cannot be written, trying again");
                env.runtime.clock.sleep(AGAIN_AFTER).await;
            }
        }
    };
    let stretch = |range: std::ops::Range<usize>| {
        let length = range.len();
        (length > 0).then(|| outputs::stretch(&name, offset + range.start as u64, length))
    };
    Some(ranges.into_iter().map(stretch).collect())
}

/// Writes a large output; none if the session ends first.
async fn write_large(
    env: &Env,
    run: &RunHandle,
    item: ItemId,
    generation: Generation,
    json: &str,
) -> Option<Large> {
    loop {
        match outputs::write_large(&run.stores, item, generation, (env.ledger.session(), json))
            .await
        {
            Ok(large) => return Some(large),
            Err(error) if env.kill.is_cancelled() => {
                tracing::warn!(%item, %error, "left without writing an output");
                return None;
            }
            Err(error) => {
                tracing::error!(%item, %error, "an output cannot be written, trying again");
                env.runtime.clock.sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// Keeps what is known of failures; false if the session ends first.
async fn keep_evidence(env: &Env, run: &RunHandle, entries: &[Entry]) -> bool {
    let mut rows = Vec::new();
    for entry in entries {
        let page = &entry.held.page;
        for evidence in &entry.news.evidence {
            let label = entry
                .labels
                .get(&evidence.index)
                .cloned()
                .unwrap_or_default();
            let at = env.runtime.clock.now();
            rows.push(row(page, evidence, label, at));
        }
    }
    while let Err(error) = env.ledger.keep_failures(&run.id, &rows).await {
        tracing::warn!(run = %run.id, %error, "evidence is not kept yet, trying again");
        if env.kill.is_cancelled() {
            return false;
        }
        env.runtime.clock.sleep(AGAIN_AFTER).await;
    }
    true
}

fn row(page: &Page, evidence: &Evidence, label: String, at: Timestamp) -> FailureRow {
    let Failure { class, cause } = &evidence.failure;
    FailureRow {
        item: page.id.origin(evidence.index),
        generation: page.generation,
        fence: Fence::of(page.id, page.epoch),
        outcome: evidence.outcome,
        failure: Failure::new(class.clone(), cause),
        attempts: evidence.attempts,
        label,
        at,
    }
}

async fn hint_moved(env: &Env, run: &RunHandle, settlements: &[Settlement], ends: &[SettleEnd]) {
    let mut pages = Vec::new();
    for (settlement, end) in settlements.iter().zip(ends) {
        if matches!(end, SettleEnd::Recorded(_)) {
            let id = settlement.held.page.id;
            pages.extend(
                settlement
                    .moved
                    .iter()
                    .map(|index| id.escalation_of(*index)),
            );
        }
    }
    if !pages.is_empty() {
        env.hint(&run.id, Lane::Container, &pages).await;
    }
}
