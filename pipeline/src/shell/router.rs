//! The router: size → lane. Makes a frozen part's pages, then hints at them.
//!
//! Pages first, then the progress row, then the hints: a router that dies in between leaves pages that the
//! sweeper finds. What is not settled stays below the horizon, so that sweeps are bounded whatever the run's size.

use std::time::Duration;

use crate::core::id::{Generation, PageId, RunId, SHARDS};
use crate::core::job::InputSpec;
use crate::core::lane::Lane;
use crate::core::packing::{Order, Packed, pack};
use crate::core::page::PageStatus;
use crate::core::part::Cursor;
use crate::core::planted::{Bug, is_planted};
use crate::ledger::{Held, LedgerError};

use super::env::{Env, RunHandle};
use super::part_cache::Inputs;
use super::reader::wait_for_work;
use super::source::{SourceError, load_part};

/// The horizon: at most so many unsettled pages a run, or four a call if that is more.
pub(super) const HORIZON_PAGES: u64 = 10_000;

/// Between tries after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Routes the run's parts until the session ends or the last part is routed.
pub(super) async fn route(env: &Env, run: &RunHandle) {
    while wait_for_work(env, run).await {
        match route_all(env, run).await {
            Ok(()) => return,
            Err(RouteError::Ending) => {}
            Err(RouteError::Ledger(error)) => {
                tracing::warn!(run = %run.id, %error, "the router starts again");
                env.pause(AGAIN_AFTER).await;
            }
            Err(RouteError::Source(error)) => {
                tracing::warn!(run = %run.id, %error, "the router cannot read a part");
                env.pause(AGAIN_AFTER).await;
            }
        }
    }
}

enum RouteError {
    Ending,
    Ledger(LedgerError),
    Source(SourceError),
}

impl From<LedgerError> for RouteError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

async fn route_all(env: &Env, run: &RunHandle) -> Result<(), RouteError> {
    let mut next = env.ledger.next_part_to_route(&run.id).await?;
    let mut outstanding = Outstanding::count(env, run).await?;
    if run.order() == Order::Kept {
        hint_in_order(env, run, &outstanding.found).await?;
    }
    outstanding.found.clear();
    loop {
        if !wait_for_work(env, run).await {
            return Err(RouteError::Ending);
        }
        run.cache.want_below(next + 2);
        let frozen = run.frozen.notified();
        tokio::pin!(frozen);
        frozen.as_mut().enable();
        let Some(part) = env.ledger.part(&run.id, next).await? else {
            let row = env.ledger.run(&run.id).await?;
            if row.total_final().is_some() && next >= row.parts {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = env.kill.cancelled() => {}
                () = env.drain.cancelled() => {}
                () = frozen => {}
                () = env.runtime.clock.sleep(env.settings.judge_every) => {}
            }
            continue;
        };
        let cursor = reading_cursor(env, run).await?;
        let inputs = part_inputs(run, &part, &cursor)
            .await
            .map_err(RouteError::Source)?;
        let known = if is_planted(Bug::LastItemUnrouted) {
            &inputs[..inputs.len().saturating_sub(1)]
        } else {
            &inputs[..]
        };
        let mut packed = pack(next, known, &run.job.size_rule(), run.order());
        if is_planted(Bug::SizeIgnored) {
            for page in &mut packed {
                page.lane = Lane::Function;
            }
        }
        outstanding
            .wait_below_horizon(env, run, packed.len() as u64)
            .await?;
        let generation = run.now().generation;
        dispatch(env, run, next, &packed, generation).await?;
        outstanding.made += packed.len() as u64;
        match run.order() {
            Order::Free => hint_all(env, &run.id, &packed).await,
            Order::Kept => {
                let pages: Vec<_> = packed.iter().map(|page| (page.id, page.lane)).collect();
                hint_in_order(env, run, &pages).await?;
            }
        }
        next += 1;
    }
}

async fn dispatch(
    env: &Env,
    run: &RunHandle,
    part: u32,
    packed: &[Packed],
    generation: Generation,
) -> Result<(), LedgerError> {
    env.ledger.create_pages(&run.id, packed, generation).await?;
    env.ledger.dispatched(&run.id, part).await
}

async fn hint_all(env: &Env, run: &RunId, packed: &[Packed]) {
    for lane in Lane::ALL {
        let pages: Vec<PageId> = packed
            .iter()
            .filter(|page| page.lane == lane)
            .map(|page| page.id)
            .collect();
        if !pages.is_empty() {
            env.hint(run, lane, &pages).await;
        }
    }
}

/// One page at a time, each once the one before is settled: what max concurrency 1 promises.
async fn hint_in_order(
    env: &Env,
    run: &RunHandle,
    pages: &[(PageId, Lane)],
) -> Result<(), RouteError> {
    for (page, lane) in pages {
        env.hint(&run.id, *lane, &[*page]).await;
        loop {
            let settled = run.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let now = env.ledger.page(&run.id, *page).await?;
            if now.is_none_or(|held| held.page.status == PageStatus::Settled) {
                break;
            }
            if !wait_for_work(env, run).await {
                return Err(RouteError::Ending);
            }
            tokio::select! {
                biased;
                () = env.kill.cancelled() => return Err(RouteError::Ending),
                () = env.drain.cancelled() => return Err(RouteError::Ending),
                () = settled => {}
                () = env.runtime.clock.sleep(env.settings.judge_every) => {}
            }
        }
    }
    Ok(())
}

/// The items of a part: from the cache, or read again.
pub(super) async fn part_inputs(
    run: &RunHandle,
    part: &crate::core::part::Part,
    cursor: &Cursor,
) -> Result<Inputs, SourceError> {
    if let Some(inputs) = run.cache.get(part.number) {
        return Ok(inputs);
    }
    // One at a time: the pages of a part are leased together, and each would read it all.
    let _turn = run.cache.turn().await;
    if let Some(inputs) = run.cache.get(part.number) {
        return Ok(inputs);
    }
    let inputs = load_part(&run.job.input, &run.stores, cursor, part).await?;
    run.cache.put(part.number, inputs.clone());
    Ok(inputs)
}

/// A cursor behind the first part: it knows what a stretch of a file cannot say of itself, such as a
/// CSV's header.
pub(super) async fn reading_cursor(env: &Env, run: &RunHandle) -> Result<Cursor, LedgerError> {
    if let Some(cursor) = run.cache.cursor() {
        return Ok(cursor);
    }
    if matches!(run.job.input, InputSpec::Events(_)) {
        // Events are frozen whole: there is nothing that their parts cannot say.
        return Ok(Cursor::default());
    }
    let cursor = env.ledger.run(&run.id).await?.cursor;
    if cursor.parts > 0 {
        run.cache.set_cursor(cursor.clone());
    }
    Ok(cursor)
}

/// How many pages are made and not settled.
pub(super) struct Outstanding {
    made: u64,
    settled_before: u64,
    generation: Generation,
    /// Unsettled pages found at the start, in order.
    found: Vec<(PageId, Lane)>,
}

impl Outstanding {
    /// Counts them once; from then on what is made and what tallies say is enough.
    pub(super) async fn count(env: &Env, run: &RunHandle) -> Result<Self, LedgerError> {
        let generation = run.now().generation;
        let settled_before = env
            .ledger
            .tallies(&run.id)
            .await?
            .generation(generation.0)
            .pages;
        let mut found = Vec::new();
        for held in unsettled(env, run).await? {
            found.push((held.page.id, held.page.lane));
        }
        found.sort_unstable();
        Ok(Self {
            made: found.len() as u64,
            settled_before,
            generation,
            found,
        })
    }

    /// Adds pages that were made ready elsewhere.
    pub(super) fn add(&mut self, pages: u64) {
        self.made += pages;
    }

    /// Waits until `more` pages may be made.
    pub(super) async fn wait_below_horizon(
        &self,
        env: &Env,
        run: &RunHandle,
        more: u64,
    ) -> Result<(), LedgerError> {
        let horizon = HORIZON_PAGES.max(4 * u64::from(run.job.max_concurrency));
        loop {
            let settled = run.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.made + more <= horizon {
                return Ok(());
            }
            let pages = env
                .ledger
                .tallies(&run.id)
                .await?
                .generation(self.generation.0)
                .pages;
            let outstanding = self
                .made
                .saturating_sub(pages.saturating_sub(self.settled_before));
            if outstanding == 0 || outstanding + more <= horizon || env.is_ending() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = env.kill.cancelled() => return Ok(()),
                () = env.drain.cancelled() => return Ok(()),
                () = env.runtime.clock.sleep(env.settings.judge_every) => {}
            }
        }
    }
}

/// All unsettled pages between low water and the last dispatched: bounded by the horizon.
pub(super) async fn unsettled(env: &Env, run: &RunHandle) -> Result<Vec<Held>, LedgerError> {
    let mut pages = Vec::new();
    for (shard, progress) in (0..SHARDS).zip(env.ledger.progress(&run.id).await?) {
        let (from, to) = progress.range();
        if progress.dispatched == 0 {
            continue;
        }
        for held in env
            .ledger
            .pages_between(&run.id, shard, (&from, &to), usize::MAX)
            .await?
        {
            if held.page.status != PageStatus::Settled {
                pages.push(held);
            }
        }
        for straggler in &progress.stragglers {
            let Ok(id) = straggler.parse() else { continue };
            let held = env.ledger.page(&run.id, id).await?;
            pages.extend(held.filter(|held| held.page.status != PageStatus::Settled));
        }
    }
    Ok(pages)
}
