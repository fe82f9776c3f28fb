//! The keeper: one beat renews every lease of the session, and permits move between pool and session.
//!
//! A session that could not beat for two thirds of its duration stops its calls: before anybody may
//! take its leases, whatever the clocks say.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::time::Tick;
use crate::ledger::LedgerError;

use super::env::{Env, Mode};

/// Permits are looked at this often while the session has some, or its row may.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Those unused at so many looks go back to the pool, for other sessions. While it has none left they do not wait so
/// long ([`Idle::due_back`]).
const IDLE_LOOKS: u32 = 5;

/// Before the pool is asked again after it had none: others give back what they do not need about as often. It costs
/// half a read unit.
const ASK_AGAIN: Duration = IDLE_LOOK;

/// Beats until the session ends. Its opening was the first beat.
pub(super) async fn beat(env: &Env, opened_at: Tick) {
    let mut last_good = opened_at;
    let latest = env.settings.silent_max();
    let mut next = opened_at + env.settings.beat_every;
    loop {
        tokio::select! {
            biased;
            () = env.kill.cancelled() => return,
            () = env.closing.cancelled() => return,
            () = env.runtime.clock.sleep_until(next) => {}
        }
        let begun = env.runtime.clock.tick();
        let running = running(env);
        let beat = env.ledger.beat(&env.job, &running, env.oldest_message());
        let left = latest.saturating_sub(begun.since(last_good));
        match env.runtime.within(left, beat).await {
            Ok(Ok(())) => {
                last_good = begun;
                env.note_beat(begun);
            }
            // A beat that was under way met the row as it was closed.
            Ok(Err(LedgerError::Raced)) if env.closing.is_cancelled() => return,
            Ok(Err(LedgerError::Raced)) => {
                tracing::error!("this session was marked dead: its leases are lost");
                env.kill.cancel();
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "a beat failed"),
            Err(_) => tracing::warn!("a beat was not answered in time"),
        }
        let now = env.runtime.clock.tick();
        if is_too_late(now, last_good, latest) {
            tracing::error!("no beat for too long: calls are stopped, the leases are lost");
            env.kill.cancel();
            return;
        }
        next = now + env.settings.beat_every;
    }
}

fn is_too_late(now: Tick, last_good: Tick, latest: Duration) -> bool {
    now.since(last_good) >= latest
}

/// Every run that this session may lease or settle pages of, with its items in calls: who compiles result files
/// waits until a run is none of them.
fn running(env: &Env) -> BTreeMap<crate::core::id::RunId, u64> {
    let mut running = env.runs_held();
    for run in env.known_runs() {
        let items = run.running.load(Ordering::Relaxed);
        if items > 0 || run.now().mode == Mode::Work {
            running.insert(run.id.clone(), items);
        }
    }
    running
}

/// Moves permits until the session ends.
pub(super) async fn keep_permits(env: &Env) {
    let mut idle = Idle::default();
    let mut look_at = None;
    let mut row = Row::Agrees;
    let mut ask_at = None;
    loop {
        let next = [look_at, ask_at].into_iter().flatten().min();
        tokio::select! {
            biased;
            () = env.kill.cancelled() => return,
            () = env.permits.short.notified(), if ask_at.is_none() => {}
            () = env.sleep_until(next) => {}
        }
        let now = env.runtime.clock.tick();
        if ask_at.is_some_and(|at| at <= now) {
            ask_at = None;
            env.permits.ask_anew();
        }
        let wanted = match ask_at {
            Some(_) => 0,
            None => env.permits.take_wanted(),
        };
        if wanted > 0 && !env.drain.is_cancelled() {
            let held = env.permits.granted();
            match env.ledger.take_permits(&env.job, held, wanted).await {
                Ok(permits) => {
                    env.permits.grant(permits);
                    ask_at = (permits == 0).then(|| env.runtime.clock.tick() + ASK_AGAIN);
                }
                Err(error) => {
                    row = Row::MayHoldMore;
                    tracing::warn!(%error, "no permits could be taken yet");
                    ask_at = Some(env.runtime.clock.tick() + ASK_AGAIN);
                }
            }
        }
        if look_at.is_some_and(|at| at <= env.runtime.clock.tick()) {
            look_at = None;
            let due = idle.due_back(env).await;
            if env.permits.withdraw(due) > 0 || row == Row::MayHoldMore {
                row = give_back(env).await;
            }
        }
        let looks = env.permits.granted() > 0 || row == Row::MayHoldMore;
        if looks && look_at.is_none() {
            look_at = Some(env.runtime.clock.tick() + IDLE_LOOK);
        }
    }
}

/// What the session's row holds, as against what the session counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Agrees,
    /// A move had no clear answer: it may hold more.
    MayHoldMore,
}

/// What was idle at the looks of before.
#[derive(Debug, Default)]
struct Idle {
    looks: u32,
    /// The fewest of them.
    least: Option<u32>,
}

impl Idle {
    /// How many permits go back now: what was idle for long; and where the pool has none left, and other sessions live
    /// that may wait for some, what was idle since the last look, if it is half of them at least: fewer are often needed
    /// again.
    async fn due_back(&mut self, env: &Env) -> u32 {
        let lately = env.permits.lately();
        let least = self
            .least
            .map_or(lately.idle, |least| least.min(lately.idle));
        self.looks += 1;
        if self.looks >= IDLE_LOOKS {
            *self = Self::default();
            return least;
        }
        self.least = Some(least);
        let is_scarce = async || match env.ledger.pool(&env.job).await {
            Ok(pool) => pool.lent >= pool.max,
            Err(error) => {
                tracing::debug!(%error, "the pool of permits was not looked at");
                false
            }
        };
        let is_asked_for = lately.idle > 0 && lately.idle >= lately.used && env.has_company();
        if is_asked_for && is_scarce().await {
            *self = Self::default();
            return lately.idle;
        }
        0
    }
}

/// Gives back what was withdrawn. What was not clearly given is not taken into use again: it may be the
/// pool's by now, or soon.
async fn give_back(env: &Env) -> Row {
    let kept = env.permits.granted();
    match env.ledger.give_permits(&env.job, kept).await {
        Ok(()) => Row::Agrees,
        Err(error) => {
            tracing::warn!(%error, "permits were not given back yet");
            Row::MayHoldMore
        }
    }
}
