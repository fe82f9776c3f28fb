//! The sweeper: finds what nobody else would. Due retries, pages of dead sessions, hints that were lost.
//!
//! A sweep reads between low water and the last dispatched page, so its cost is bounded by the
//! horizon. Any number of sweepers may run: each thing they do is one conditional write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::core::class::{Class, Failure};
use crate::core::id::{PageId, SHARDS, SessionId, WriteId};
use crate::core::lane::Lane;
use crate::core::outcome::Outcome;
use crate::core::packing::Order;
use crate::core::page::{Mark, Page, PageStatus, Refusal};
use crate::core::planted::{Bug, is_planted};
use crate::core::run::RunStatus;
use crate::core::time::Tick;
use crate::ledger::{FailureRow, Fence, Held, LedgerError, Progress, SessionStatus};

use super::env::{Env, Mode, Others, RunHandle};

/// A shard's row names at most this many unsettled pages below its low water: enough for retries that
/// are hours off not to hold it back, few enough for one write unit.
const STRAGGLERS_MAX: usize = 32;

/// A sweep takes at most this share of the time: after a long one the next comes later.
const SHARE: u32 = 20;

/// … but never later than this: a sweep may have taken long because one of its calls hung.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Runs that stopped are looked at again once in so many sweeps: what was left behind in them is rare, and may wait.
const REVISIT_EVERY: u64 = 6;

/// Dead sessions are forgotten after so many of their durations: ten minutes, on AWS.
const FORGOTTEN_AFTER: u32 = 20;

/// What a sweeper remembers between sweeps.
#[derive(Default)]
pub(super) struct Memory {
    /// Sessions, their last beat, and when this process first saw it.
    beats: BTreeMap<SessionId, (i64, Tick)>,
    /// Ready and forgotten pages seen in the last sweep, by the name of their last write.
    ready: BTreeMap<(crate::core::id::RunId, PageId), WriteId>,
    /// Sessions that are not live, and since when they were seen so.
    dead: BTreeMap<SessionId, Tick>,
    /// Sweeps so far.
    sweeps: u64,
}

/// What one sweep has seen so far.
#[derive(Default)]
struct Sweep {
    /// Ready and forgotten pages, by the name of their last write.
    ready: BTreeMap<(crate::core::id::RunId, PageId), WriteId>,
    /// The job's sessions, as they were before any page was read.
    sessions: Sessions,
    /// Lanes whose queues hold nothing.
    empty: BTreeMap<Lane, bool>,
}

/// The job's sessions at one moment.
#[derive(Default)]
struct Sessions {
    live: BTreeSet<SessionId>,
    /// Those that are not live, and have a row.
    dead: BTreeSet<SessionId>,
}

impl Sweep {
    /// Whether the lane's queue holds no hint: by the word of this session's worker, else by the queue's own.
    async fn lane_is_empty(&mut self, env: &Env, lane: Lane) -> bool {
        if let Some(known) = env.lane_is_empty(lane) {
            return known;
        }
        if let Some(asked) = self.empty.get(&lane) {
            return *asked;
        }
        let Some(queue) = env.queues.get(&lane) else {
            return false;
        };
        let is_empty = match queue.depth().await {
            Ok(depth) => depth.ready == 0,
            Err(error) => {
                tracing::debug!(%lane, %error, "nobody knows how many hints there are");
                false
            }
        };
        self.empty.insert(lane, is_empty);
        is_empty
    }
}

/// Sweeps until the session ends.
pub(super) async fn sweep(env: &Arc<Env>) {
    let mut memory = Memory::default();
    while !env.is_ending() {
        let begun = env.runtime.clock.tick();
        if let Err(error) = sweep_once(env, &mut memory).await {
            tracing::warn!(%error, "a sweep failed, the next will do");
        }
        memory.sweeps += 1;
        let took = env.runtime.clock.tick().since(begun);
        let pause = if is_planted(Bug::SweepsWithoutPause) {
            took
        } else if is_planted(Bug::HungSweepsPauseLong) {
            env.settings.sweep_every.max(took * SHARE)
        } else {
            env.settings.sweep_every.max((took * SHARE).min(PAUSE_MAX))
        };
        // What a crash left is looked for as soon as its run is known.
        tokio::select! {
            biased;
            () = env.opened.notified() => {}
            () = env.pause(pause) => {}
        }
    }
}

async fn sweep_once(env: &Arc<Env>, memory: &mut Memory) -> Result<(), LedgerError> {
    let mut sweep = Sweep {
        sessions: bury(env, memory).await?,
        ..Sweep::default()
    };
    for run in env.known_runs() {
        if run.now().mode == Mode::Work {
            sweep_run(env, &run, memory, &mut sweep).await?;
        }
    }
    memory.ready = sweep.ready;
    if memory.sweeps.is_multiple_of(REVISIT_EVERY) && !is_planted(Bug::StoppedRunsUnvisited) {
        revisit(env).await?;
    }
    forget(env, memory, sweep.sessions.dead).await
}

/// Opens runs again that go on after a pause or in a redrive: a page that could not be given back when they
/// stopped is leased to this session, which lives, so nobody else may take it.
async fn revisit(env: &Arc<Env>) -> Result<(), LedgerError> {
    for run in env.forgotten_runs() {
        match env.ledger.run(&run).await?.state.status {
            RunStatus::Running => {
                if let Err(error) = env.open_run(&run).await {
                    tracing::warn!(%run, %error, "a run that goes on cannot be opened");
                }
            }
            RunStatus::Succeeded => env.is_done_with(&run),
            RunStatus::Paused | RunStatus::Failed | RunStatus::Aborted => {}
        }
    }
    Ok(())
}

/// Removes the rows of sessions that have been dead for long: what they held was taken over, and a lease of
/// theirs that turns up later is known by its missing row. Not before: the request that opened one may arrive
/// late, and would open it anew.
async fn forget(
    env: &Env,
    memory: &mut Memory,
    dead: BTreeSet<SessionId>,
) -> Result<(), LedgerError> {
    let now = env.runtime.clock.tick();
    memory.dead.retain(|session, _| dead.contains(session));
    for session in dead {
        let since = *memory.dead.entry(session.clone()).or_insert(now);
        let is_early = is_planted(Bug::DeadForgottenAtOnce) && since < now;
        if is_early || now.since(since) >= env.settings.session_duration * FORGOTTEN_AFTER {
            env.ledger.forget_session(&env.job, &session).await?;
            memory.beats.remove(&session);
        }
    }
    Ok(())
}

/// The ledger's lock proves that no other session lives: their permits go back at once.
pub(super) async fn bury_all(env: &Env) -> Result<(), LedgerError> {
    bury(env, &mut Memory::default()).await.map(|_| ())
}

/// Marks sessions dead that have not beaten for their whole duration; answers all there are but this one.
async fn bury(env: &Env, memory: &mut Memory) -> Result<Sessions, LedgerError> {
    // A beat seen now may be as young as the end of this read; one not seen is as old as its begin.
    let asked = env.runtime.clock.tick();
    let sessions = env.ledger.sessions(&env.job).await?;
    let read = env.runtime.clock.tick();
    let mut found = Sessions::default();
    for session in sessions {
        if session.id == *env.ledger.session() {
            continue;
        }
        if session.status != SessionStatus::Live {
            found.dead.insert(session.id);
            continue;
        }
        let seen = memory
            .beats
            .entry(session.id.clone())
            .or_insert((session.beat, read));
        if seen.0 != session.beat {
            *seen = (session.beat, read);
        }
        let silent = asked.since(seen.1) >= session.duration;
        if !silent && env.settings.others == Others::MayLive {
            found.live.insert(session.id);
            continue;
        }
        match env.ledger.mark_dead(&env.job, &session).await {
            Ok(()) => {
                tracing::warn!(session = %session.id, who = session.who, "a session died");
                found.dead.insert(session.id);
            }
            Err(LedgerError::Raced) => {
                found.live.insert(session.id);
            }
            Err(error) => return Err(error),
        }
    }
    env.note_company(!found.live.is_empty());
    Ok(found)
}

async fn sweep_run(
    env: &Env,
    run: &RunHandle,
    memory: &Memory,
    sweep: &mut Sweep,
) -> Result<(), LedgerError> {
    let seen = run.now();
    let mut hints = Vec::new();
    let mut lowest: Option<PageId> = None;
    for (shard, progress) in (0..SHARDS).zip(env.ledger.progress(&run.id).await?) {
        let left_out = is_planted(Bug::LastShardUnswept) && shard == 0;
        if progress.dispatched == 0 || left_out {
            continue;
        }
        let unsettled = unsettled_of(env, run, shard, &progress).await?;
        // A redrive goes back to the beginning once, so this holds however old what was seen is.
        let gone_through = !seen.redriving && progress.generation == seen.generation.0;
        if gone_through {
            raise_low(env, run, shard, &progress, &unsettled).await;
        }
        for held in unsettled {
            let page = held.page.id;
            lowest = Some(lowest.map_or(page, |lowest| lowest.min(page)));
            if let Some(held) = to_hint(env, run, held, memory, sweep).await? {
                hints.push(held);
            }
        }
    }
    if run.order() == Order::Kept {
        hints.retain(|held| Some(held.page.id) == lowest);
    }
    for held in hints {
        env.hint(&run.id, held.page.lane, &[held.page.id]).await;
    }
    Ok(())
}

async fn unsettled_of(
    env: &Env,
    run: &RunHandle,
    shard: u32,
    progress: &Progress,
) -> Result<Vec<Held>, LedgerError> {
    let (from, to) = progress.range();
    let mut pages = Vec::new();
    for straggler in &progress.stragglers {
        if is_planted(Bug::StragglersAlone) {
            if let Ok(id) = straggler.parse() {
                pages.extend(env.ledger.page(&run.id, id).await?);
            }
            continue;
        }
        // What its items escalated to stands right behind it, below low water, too.
        let with_escalations = (straggler.as_str(), format!("{straggler}e~"));
        let (first, last) = (with_escalations.0, with_escalations.1.as_str());
        let found = env
            .ledger
            .pages_between(&run.id, shard, (first, last), usize::MAX);
        pages.extend(found.await?);
    }
    pages.extend(
        env.ledger
            .pages_between(&run.id, shard, (&from, &to), usize::MAX)
            .await?,
    );
    let there: BTreeSet<PageId> = pages.iter().map(|held| held.page.id).collect();
    let misses = |page: &Page| !is_planted(Bug::StragglersAlone) && misses_any(page, &there);
    pages.retain(|held| held.page.status != PageStatus::Settled || misses(&held.page));
    Ok(pages)
}

/// Whether an item of this page moved to one that was not read: a query is no picture of one moment.
fn misses_any(page: &Page, there: &BTreeSet<PageId>) -> bool {
    let mut marks = (0..).zip(&page.items);
    marks.any(|(index, item)| {
        item.mark == Mark::Moved && !there.contains(&page.id.escalation_of(index))
    })
}

/// Low water rises to the first unsettled page; a few that are left behind are named.
async fn raise_low(
    env: &Env,
    run: &RunHandle,
    shard: u32,
    progress: &Progress,
    unsettled: &[Held],
) {
    let names: Vec<String> = unsettled
        .iter()
        .map(|held| held.page.id.to_string())
        .collect();
    let waiting = |held: &Held| matches!(held.page.status, PageStatus::Waiting { .. });
    let behind = unsettled
        .iter()
        .take_while(|held| waiting(held))
        .count()
        .min(STRAGGLERS_MAX);
    let low = match names.get(behind) {
        Some(_) if is_planted(Bug::LowWaterTooHigh) => progress.range().1,
        Some(name) => name.clone(),
        None => progress.range().1,
    };
    let stragglers = &names[..behind];
    if low == progress.low && stragglers == progress.stragglers {
        return;
    }
    let raised = env
        .ledger
        .advance_low(&run.id, shard, progress, &low, stragglers);
    if let Err(error) = raised.await {
        // A redrive went back to the beginning, say: the next sweep reads from where it lies.
        tracing::debug!(run = %run.id, shard, %error, "a low water stays");
    }
}

/// The page, if somebody should be told that it is ready.
async fn to_hint(
    env: &Env,
    run: &RunHandle,
    held: Held,
    memory: &Memory,
    sweep: &mut Sweep,
) -> Result<Option<Held>, LedgerError> {
    // Pages of an older generation wait for the redriver, but must not be left with the dead.
    let current = held.page.generation == run.now().generation;
    match &held.page.status {
        PageStatus::Settled => Ok(None),
        PageStatus::Waiting { due } => {
            let is_due =
                current && !is_planted(Bug::RetriesNeverDue) && *due <= env.runtime.clock.now();
            let is_news = is_due && is_news(env, run, &held, memory, sweep).await;
            Ok(is_news.then_some(held))
        }
        PageStatus::Ready => {
            let is_news = current && is_news(env, run, &held, memory, sweep).await;
            Ok(is_news.then_some(held))
        }
        PageStatus::Leased { session } => {
            let session = session.clone();
            if session == *env.ledger.session() {
                let back = give_back_forgotten(env, run, held, memory, sweep).await;
                return Ok(back.filter(|_| current));
            }
            if !is_dead(env, &session, &sweep.sessions).await? {
                return Ok(None);
            }
            let taken = take_over(env, run, &held, &session).await?;
            Ok(taken.filter(|_| current))
        }
    }
}

/// A page that stayed ready since the last sweep although its lane was empty has lost its hint, unless its lease is
/// under way here. In the first sweep of the only process no page has a hint at all.
async fn is_news(
    env: &Env,
    run: &RunHandle,
    held: &Held,
    memory: &Memory,
    sweep: &mut Sweep,
) -> bool {
    if is_planted(Bug::LostHintsStayLost) {
        return false;
    }
    let name = (run.id.clone(), held.page.id);
    let stayed = memory.ready.get(&name) == Some(&held.write);
    sweep.ready.insert(name, held.write.clone());
    let first = memory.sweeps == 0 && env.settings.others == Others::AreDead;
    let is_coming = env.holds(&run.id, held.page.id);
    first || (stayed && !is_coming && sweep.lane_is_empty(env, held.page.lane).await)
}

/// A page that this session holds and no worker knows of: leasing or giving back was answered with an
/// error, and happened or did not. Nobody else takes it while this session lives.
async fn give_back_forgotten(
    env: &Env,
    run: &RunHandle,
    held: Held,
    memory: &Memory,
    sweep: &mut Sweep,
) -> Option<Held> {
    if env.holds(&run.id, held.page.id) {
        return None;
    }
    let name = (run.id.clone(), held.page.id);
    let stayed = memory.ready.get(&name) == Some(&held.write);
    sweep.ready.insert(name, held.write.clone());
    if !stayed {
        return None;
    }
    let now = env.runtime.clock.now();
    match env.ledger.release(&run.id, &held, now).await {
        Ok(back) => (back.page.status == PageStatus::Ready).then_some(back),
        Err(error) => {
            tracing::warn!(run = %run.id, page = %held.page.id, %error, "a forgotten page was not given back yet");
            None
        }
    }
}

/// Whether a page's holder is no more: one that lived when the sweep began is looked at in the next. One without a
/// row was forgotten after its death, or came since; the row is made before the first lease, so a fresh session is
/// never taken for it.
async fn is_dead(env: &Env, session: &SessionId, known: &Sessions) -> Result<bool, LedgerError> {
    if is_planted(Bug::DeadKeepTheirPages) {
        return Ok(false);
    }
    if known.dead.contains(session) {
        return Ok(true);
    }
    if known.live.contains(session) {
        return Ok(false);
    }
    let sessions = env.ledger.sessions(&env.job).await?;
    Ok(!sessions
        .iter()
        .any(|row| row.id == *session && row.status == SessionStatus::Live))
}

async fn take_over(
    env: &Env,
    run: &RunHandle,
    held: &Held,
    dead: &SessionId,
) -> Result<Option<Held>, LedgerError> {
    match env.ledger.take_over(&run.id, held, dead).await {
        Ok((taken, effects)) => {
            tracing::info!(run = %run.id, page = %taken.page.id, from = %dead, "took over a page");
            let mut failures = Vec::new();
            for index in effects.worker_died {
                let cause = "it was running alone at two deaths of its worker";
                failures.push(FailureRow {
                    item: taken.page.id.origin(index),
                    generation: taken.page.generation,
                    fence: Fence::of(taken.page.id, taken.page.epoch),
                    outcome: Outcome::Failed,
                    failure: Failure::new(Class::WorkerDied, cause),
                    attempts: crate::core::page::DEATHS_ALONE_MAX,
                    label: String::new(),
                    at: env.runtime.clock.now(),
                });
            }
            env.ledger.keep_failures(&run.id, &failures).await?;
            run.settled.notify_waiters();
            Ok((taken.page.status == PageStatus::Ready).then_some(taken))
        }
        Err(LedgerError::Raced | LedgerError::Page(Refusal::Done)) => Ok(None),
        Err(error) => Err(error),
    }
}
