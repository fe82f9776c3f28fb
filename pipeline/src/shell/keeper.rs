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

/// Permits unused for so long go back to the pool, for other sessions.
const IDLE_BACK_AFTER: Duration = Duration::from_secs(5);

/// Before the pool is asked again after it had none, for the first time …
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// … and at most: others give back what they do not need as often as this.
const ASK_AGAIN_MAX: Duration = IDLE_BACK_AFTER;

/// Beats until the session ends.
pub(super) async fn beat(env: &Env) {
    let mut last_good = env.runtime.clock.tick();
    let latest = env.settings.silent_max();
    loop {
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
        if is_too_late(env.runtime.clock.tick(), last_good, latest) {
            tracing::error!("no beat for too long: calls are stopped, the leases are lost");
            env.kill.cancel();
            return;
        }
        tokio::select! {
            biased;
            () = env.kill.cancelled() => return,
            () = env.closing.cancelled() => return,
            () = env.runtime.clock.sleep(env.settings.beat_every) => {}
        }
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
    let mut back_at = env.runtime.clock.tick() + IDLE_BACK_AFTER;
    let mut row = Row::Agrees;
    let mut ask_again = ASK_AGAIN;
    loop {
        tokio::select! {
            biased;
            () = env.kill.cancelled() => return,
            () = env.permits.short.notified() => {}
            () = env.runtime.clock.sleep_until(back_at) => {}
        }
        let wanted = env.permits.take_wanted();
        if wanted > 0 && !env.drain.is_cancelled() {
            match env
                .ledger
                .take_permits(&env.job, env.permits.granted(), wanted)
                .await
            {
                Ok(0) => {
                    env.pause(ask_again).await;
                    ask_again = (ask_again * 2).min(ASK_AGAIN_MAX);
                    env.permits.want_still(wanted);
                }
                Ok(permits) => {
                    ask_again = ASK_AGAIN;
                    env.permits.grant(permits);
                }
                Err(error) => {
                    row = Row::MayHoldMore;
                    tracing::warn!(%error, "the pool of permits does not answer");
                    env.pause(ASK_AGAIN).await;
                    env.permits.want_still(wanted);
                }
            }
        }
        if env.runtime.clock.tick() >= back_at {
            row = give_idle(env, row).await;
            back_at = env.runtime.clock.tick() + IDLE_BACK_AFTER;
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

/// Gives back what was idle. What was not clearly given is not taken into use again: it may be the
/// pool's by now, or soon.
async fn give_idle(env: &Env, row: Row) -> Row {
    let idle = env.permits.take_idle();
    if idle == 0 && row == Row::Agrees {
        return row;
    }
    match env
        .ledger
        .give_permits(&env.job, env.permits.granted())
        .await
    {
        Ok(()) => Row::Agrees,
        Err(error) => {
            tracing::warn!(%error, "permits were not given back yet");
            Row::MayHoldMore
        }
    }
}
