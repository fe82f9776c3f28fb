//! The redriver: reopens what a redrive selected, page by page, repeatable from its cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::id::{Generation, RunId, SHARDS};
use crate::core::outcome::Outcome;
use crate::core::page::{Mark, Refusal};
use crate::core::part::Part;
use crate::core::planted::{Bug, is_planted};
use crate::core::redrive::{Candidate, Selection};
use crate::ledger::{FailureRow, Held, Ledger, LedgerError, Redrive};

use super::env::{Env, RunHandle, Seen};
use super::part_cache::Inputs;
use super::router::{Outstanding, part_inputs, reading_cursor};

/// Parts looked up at a time.
const PARTS_AT_ONCE: usize = 100;

/// A page that somebody still holds is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Goes through the run's parts, if a redrive is under way. Answers once its cursor is at the end.
pub(super) async fn redrive(env: &Env, run: &RunHandle) {
    while !env.is_ending() {
        match reopen_all(env, run).await {
            Ok(()) => return,
            Err(LedgerError::Raced) if env.is_ending() => return,
            Err(error) => {
                tracing::warn!(run = %run.id, %error, "the redriver starts again at its cursor");
                env.pause(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn reopen_all(env: &Env, run: &RunHandle) -> Result<(), LedgerError> {
    let asked = env.runtime.clock.tick();
    let row = env.ledger.run(&run.id).await?;
    run.learn(Seen::of(&row.glance()), asked);
    let (Some(redrive), Some(mut next)) = (row.redrive.clone(), row.redrive_part) else {
        return Ok(());
    };
    let generation = row.state.generation;
    if next == 0 {
        for shard in 0..SHARDS {
            still_wanted(env, run, generation).await?;
            // Pages below the old low water are about to be unsettled again.
            env.ledger.reset_low(&run.id, shard, generation).await?;
        }
    }
    let mut outstanding = Outstanding::count(env, run).await?;
    loop {
        let parts = env.ledger.parts_from(&run.id, next, PARTS_AT_ONCE).await?;
        let Some(last) = parts.last() else { break };
        next = last.number + 1;
        for part in &parts {
            reopen_part(env, run, part, &redrive, generation, &mut outstanding).await?;
            still_wanted(env, run, generation).await?;
            env.ledger
                .redrive_reached(&run.id, generation, Some(part.number + 1))
                .await?;
        }
    }
    env.ledger
        .redrive_reached(&run.id, generation, None)
        .await?;
    run.settled.notify_waiters();
    Ok(())
}

/// A session that ends reopens nothing more, and none does for a redrive that another has followed: what the former one would
/// make pending, the other may be told to leave so.
///
/// # Errors
/// `Raced`: it is not wanted any more.
async fn still_wanted(
    env: &Env,
    run: &RunHandle,
    generation: Generation,
) -> Result<(), LedgerError> {
    if is_planted(Bug::RedriversOfBefore) {
        return Ok(());
    }
    let seen = env.lately_seen(run).await?;
    if env.is_ending() || seen.generation != generation {
        return Err(LedgerError::Raced);
    }
    Ok(())
}

async fn reopen_part(
    env: &Env,
    run: &RunHandle,
    part: &Part,
    redrive: &Redrive,
    generation: Generation,
    outstanding: &mut Outstanding,
) -> Result<(), LedgerError> {
    let inputs = if redrive.selection.needs_input() {
        readable(env, run, part).await?
    } else {
        None
    };
    let sight = Sight {
        ledger: &env.ledger,
        run: &run.id,
        inputs: inputs.as_ref(),
    };
    // Until a page is reopened, a late settle of the former generation may move an item of it to a page of its own:
    // so it is looked again until there is none that is new.
    let mut seen = BTreeSet::new();
    loop {
        if !seen.is_empty() && is_planted(Bug::PartsReopenedAtOneLook) {
            return Ok(());
        }
        let mut pages = env.ledger.pages_of_part(&run.id, part.number).await?;
        pages.retain(|held| seen.insert(held.page.id));
        if pages.is_empty() {
            return Ok(());
        }
        for held in pages {
            if choose(&sight, &held, &redrive.selection).await?.is_none() {
                continue;
            }
            outstanding.wait_below_horizon(env, run, 1).await?;
            if reopen_page(env, run, held, generation, (&sight, &redrive.selection)).await? {
                outstanding.add(1);
                if is_planted(Bug::RedriveStopsEarly) {
                    return Ok(());
                }
            }
        }
    }
}

/// A part's inputs; none if they cannot be read, which then match no filter.
async fn readable(env: &Env, run: &RunHandle, part: &Part) -> Result<Option<Inputs>, LedgerError> {
    let cursor = reading_cursor(env, run).await?;
    match part_inputs(run, part, &cursor).await {
        Ok(inputs) => Ok(Some(inputs)),
        Err(error) => {
            tracing::warn!(part = part.number, %error, "a part cannot be read for the selection");
            Ok(None)
        }
    }
}

/// Reopens one page; waits while a session that has not yet heard of the end holds it. What fails
/// meanwhile is chosen too.
async fn reopen_page(
    env: &Env,
    run: &RunHandle,
    mut held: Held,
    generation: Generation,
    (sight, selection): (&Sight<'_>, &Selection),
) -> Result<bool, LedgerError> {
    let mut chosen = choose(sight, &held, selection).await?;
    loop {
        let Some(items) = chosen.clone() else {
            return Ok(false);
        };
        still_wanted(env, run, generation).await?;
        match env.ledger.reopen(&run.id, &held, generation, items).await {
            Ok(open) => {
                env.hint(&run.id, open.page.lane, &[open.page.id]).await;
                return Ok(true);
            }
            Err(LedgerError::Page(Refusal::Done | Refusal::Settled)) => return Ok(false),
            Err(LedgerError::Page(Refusal::Busy { .. }) | LedgerError::Raced) => {}
            Err(error) => return Err(error),
        }
        env.pause(LOOK_AGAIN).await;
        if env.is_ending() {
            return Err(LedgerError::Raced);
        }
        let now = env.ledger.page(&run.id, held.page.id).await?;
        held = now.ok_or_else(|| LedgerError::NotFound(format!("page {}", held.page.id)))?;
        if !is_planted(Bug::ReopenedByTheFirstLook) {
            chosen = choose(sight, &held, selection).await?;
        }
    }
}

/// What choosing may look at.
struct Sight<'a> {
    ledger: &'a Ledger,
    run: &'a RunId,
    /// The part's inputs, where they are needed and can be read.
    inputs: Option<&'a Inputs>,
}

/// The settled items of a page that the selection takes; none if the page stays as it is.
async fn choose(
    sight: &Sight<'_>,
    held: &Held,
    selection: &Selection,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let page = &held.page;
    let any_failed = page.items.iter().any(|item| {
        item.mark
            .outcome()
            .is_some_and(|outcome| outcome != Outcome::Succeeded)
    });
    let takes_pending = selection.takes_pending() && page.pending() > 0;
    if !any_failed {
        return Ok(takes_pending.then(Vec::new));
    }
    let evidence = if selection.needs_failures() {
        latest(sight.ledger.failures_of_page(sight.run, page.id).await?)
    } else {
        BTreeMap::new()
    };
    let mut items = Vec::new();
    for (index, item) in page.items.iter().enumerate() {
        let Mark::Done(outcome) = item.mark else {
            continue;
        };
        let index = index as u8;
        let id = page.id.origin(index);
        let name = id.to_string();
        let failure = evidence.get(&id);
        let fingerprint = failure.map(|row| row.failure.fingerprint());
        let input = match (sight.inputs, page.index_in_part(index)) {
            (Some(inputs), Some(at)) => inputs.get(at as usize),
            (None, _) | (_, None) => None,
        };
        let key = input.map(|input| full_key(input)).unwrap_or_default();
        let candidate = Candidate {
            item: &name,
            outcome,
            class: failure.map(|row| row.failure.class.as_str()),
            fingerprint: fingerprint.as_deref(),
            key: &key,
            size_bytes: input.and_then(|input| input.size_bytes()),
        };
        if selection.takes(&candidate) || is_planted(Bug::RedriveReopensSuccesses) {
            items.push(index);
        }
    }
    Ok((takes_pending || !items.is_empty()).then_some(items))
}

fn full_key(input: &crate::core::item::Input) -> String {
    match input {
        crate::core::item::Input::Object(object) => {
            String::from_utf8_lossy(&object.key).into_owned()
        }
        crate::core::item::Input::Value(json) => json.to_string(),
    }
}

/// Each item's evidence of its latest generation.
pub(super) fn latest(rows: Vec<FailureRow>) -> BTreeMap<crate::core::id::ItemId, FailureRow> {
    let mut latest: BTreeMap<crate::core::id::ItemId, FailureRow> = BTreeMap::new();
    for row in rows {
        match latest.get(&row.item) {
            Some(there) if there.generation > row.generation => {}
            Some(_) | None => drop(latest.insert(row.item, row)),
        }
    }
    latest
}

/// What a redrive would take, without taking it (`--dry-run`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Settled items that would be reopened.
    pub reopened: u64,
    /// Items still pending that would go on.
    pub pending: u64,
    /// Pages they lie in.
    pub pages: u64,
}

/// Counts what a selection takes.
pub async fn plan(
    reader: &super::report::RunReader,
    selection: &Selection,
) -> Result<Plan, LedgerError> {
    let mut plan = Plan::default();
    let mut next = 0;
    loop {
        let parts = reader.parts(next).await?;
        let Some(last) = parts.last() else {
            return Ok(plan);
        };
        next = last.number + 1;
        for part in parts {
            let items = u64::from(part.items);
            let view = reader.part(part).await?;
            let first = |held: &&Held| held.page.id.escalated.is_none();
            let in_pages = view.pages.iter().filter(first);
            let in_pages: usize = in_pages.map(|held| held.page.items.len()).sum();
            if selection.takes_pending() {
                plan.pending += items.saturating_sub(in_pages as u64);
            }
            for held in &view.pages {
                let sight = Sight {
                    ledger: &reader.ledger,
                    run: &reader.row.id,
                    inputs: view.inputs.as_ref().ok(),
                };
                if let Some(chosen) = choose(&sight, held, selection).await? {
                    plan.reopened += chosen.len() as u64;
                    plan.pending += held.page.pending() as u64;
                    plan.pages += 1;
                }
            }
        }
    }
}
