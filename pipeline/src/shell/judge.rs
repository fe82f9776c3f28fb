//! The judge: counts failures first and the total last, so that a breach is never false, both within one
//! generation, and writes the verdict in one conditional write. Through it a session also learns of wishes and of others' verdicts.

use std::collections::VecDeque;

use crate::core::id::WriteId;
use crate::core::job::OnBreach;
use crate::core::outcome::Settled;
use crate::core::planted::{Bug, is_planted};
use crate::core::run::{BreachStops, Reason, RunEvent, RunStatus, Wish};
use crate::core::tally::Tallies;
use crate::core::tolerance::Breach;
use crate::ledger::{LedgerError, RunRow};

use super::env::{Env, RunHandle, Seen};

/// What the judge of one run remembers between looks.
#[derive(Debug, Default)]
struct Memory {
    samples: Samples,
    /// How the run stood when it was looked at last.
    stood: Option<Stood>,
}

/// What no redrive leaves as it is.
#[derive(Debug, PartialEq, Eq)]
struct Stood {
    change: Option<WriteId>,
    redrive_part: Option<u32>,
}

impl Stood {
    fn of(row: &RunRow) -> Self {
        Self {
            change: row.change.clone(),
            redrive_part: row.redrive_part,
        }
    }
}

/// Samples for `fail_fast`.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// (settled, failures) of this generation, oldest first.
    taken: VecDeque<(u64, u64)>,
}

impl Samples {
    /// Enough to look back over the items named in `fail_fast`; older samples go.
    const MAX: usize = 4096;

    /// The latest sample that lies at least `last` items back.
    fn back(&mut self, now: (u64, u64), last: u64) -> Option<(u64, u64)> {
        if self.taken.is_empty() {
            self.taken.push_back((0, 0));
        }
        while self.taken.len() >= 2 && now.0.saturating_sub(self.taken[1].0) >= last {
            self.taken.pop_front();
        }
        if self.taken.len() < Self::MAX && self.taken.back() != Some(&now) {
            self.taken.push_back(now);
        }
        self.taken
            .front()
            .copied()
            .filter(|front| now.0.saturating_sub(front.0) >= last)
    }
}

/// The counts are read again after so many looks at the run's row alone, for what others settled: whoever
/// settled the last item counts at once, unless it died in between.
const GLANCES_MAX: u32 = 8;

/// A session that neither drives a run nor holds pages of it looks so much less often; before it leases one it
/// looks at once.
const IDLE_SLOWER: u32 = 5;

/// Judges the run until it is no longer RUNNING or the session ends.
pub(super) async fn judge(env: &Env, run: &RunHandle) {
    let mut memory = Memory::default();
    let mut glances = GLANCES_MAX;
    let shortest = env.settings.judge_every / 4;
    loop {
        let settled = run.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        let looked = if glances < GLANCES_MAX {
            glances += 1;
            glance(env, run).await
        } else {
            glances = 0;
            look(env, run, &mut memory).await
        };
        match looked {
            Ok(RunStatus::Running) => {}
            Ok(
                RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted,
            ) => return,
            Err(LedgerError::Raced) => {
                glances = GLANCES_MAX;
                env.pause(shortest).await;
                if !env.is_ending() {
                    continue;
                }
            }
            Err(error) => {
                glances = GLANCES_MAX;
                tracing::warn!(run = %run.id, %error, "the judge cannot look");
            }
        }
        if env.is_ending() {
            return;
        }
        let pause = if env.is_concerned(run) {
            env.settings.judge_every
        } else {
            env.settings.judge_every * IDLE_SLOWER
        };
        tokio::select! {
            biased;
            () = env.kill.cancelled() => return,
            () = env.drain.cancelled() => return,
            () = settled.as_mut() => {
                glances = GLANCES_MAX;
                env.pause(shortest).await;
            }
            () = env.runtime.clock.sleep(pause) => {}
        }
    }
}

/// A look at the run's row alone: where it stands, and what was wished.
async fn glance(env: &Env, run: &RunHandle) -> Result<RunStatus, LedgerError> {
    let asked = env.runtime.clock.tick();
    let seen = env.ledger.glance(&run.id).await?;
    run.learn(Seen::of(&seen), asked);
    if seen.status != RunStatus::Running || seen.wish.is_none() {
        return Ok(seen.status);
    }
    let row = read(env, run).await?;
    match wished(&row) {
        Some(event) if row.state.status == RunStatus::Running => {
            change(env, run, row, &event).await
        }
        Some(_) | None => Ok(row.state.status),
    }
}

/// The run's row, which all loops of the session learn from.
async fn read(env: &Env, run: &RunHandle) -> Result<RunRow, LedgerError> {
    let asked = env.runtime.clock.tick();
    let row = env.ledger.run(&run.id).await?;
    run.learn(Seen::of(&row.glance()), asked);
    Ok(row)
}

/// One look with the counts; answers where the run stands.
async fn look(env: &Env, run: &RunHandle, memory: &mut Memory) -> Result<RunStatus, LedgerError> {
    let tallies = env.ledger.tallies(&run.id).await?;
    let row = read(env, run).await?;
    if row.state.status != RunStatus::Running {
        return Ok(row.state.status);
    }
    // Counts of before a redrive say that all is done, and judge it by failures that are reopened: the counts must
    // be younger than the row as it still stands.
    let stands = Some(Stood::of(&row));
    let moved = memory.stood != stands;
    memory.stood = stands;
    if moved && !is_planted(Bug::VerdictOfOldCounts) {
        return Err(LedgerError::Raced);
    }
    match decide(run, &row, &tallies, &mut memory.samples) {
        Some(event) => change(env, run, row, &event).await,
        None => Ok(RunStatus::Running),
    }
}

async fn change(
    env: &Env,
    run: &RunHandle,
    row: RunRow,
    event: &RunEvent,
) -> Result<RunStatus, LedgerError> {
    let asked = env.runtime.clock.tick();
    let change = env.ledger.change_run(&row, event, None).await?;
    let after = RunRow {
        state: change.after.clone(),
        ..row
    };
    run.learn(Seen::of(&after.glance()), asked);
    tracing::info!(run = %run.id, status = change.after.status.as_str(), "the run changed");
    Ok(change.after.status)
}

fn wished(row: &RunRow) -> Option<RunEvent> {
    match row.wish {
        Some(Wish::Pause) => Some(RunEvent::Pause(Reason::Asked)),
        Some(Wish::Stop) => Some(RunEvent::Stop),
        None => None,
    }
}

/// What the numbers ask for, if anything.
fn decide(
    run: &RunHandle,
    row: &RunRow,
    tallies: &Tallies,
    samples: &mut Samples,
) -> Option<RunEvent> {
    if let Some(event) = wished(row) {
        return Some(event);
    }
    if let Some(event) = verdict(row, tallies) {
        return Some(event);
    }
    let breach = breach_now(run, row, tallies, samples)?;
    match (row.state.limits.breach_stops, run.job.on_breach) {
        (BreachStops::AtTheEnd, _) => None,
        (BreachStops::AtOnce, OnBreach::Fail) => Some(RunEvent::Fail(Reason::Breach { breach })),
        (BreachStops::AtOnce, OnBreach::Pause) => Some(RunEvent::Pause(Reason::Breach { breach })),
    }
}

/// The verdict, once everything that was to be done is done. It counts all items of the run.
fn verdict(row: &RunRow, tallies: &Tallies) -> Option<RunEvent> {
    if row.redrive_part.is_some() && !is_planted(Bug::VerdictDuringRedrive) {
        return None;
    }
    let settled = tallies.settled();
    let total = if is_planted(Bug::VerdictBeforeTheEnd) {
        Some(row.total)
    } else {
        row.total_final()
    };
    let failures = if is_planted(Bug::ToleranceOffByOne) {
        settled.failures().saturating_sub(1)
    } else {
        settled.failures()
    };
    if let Some(total) = total
        && settled.total() == total
    {
        return Some(
            match row.state.limits.tolerance.breach(failures, Some(total)) {
                Some(breach) => RunEvent::Fail(Reason::Breach { breach }),
                None => RunEvent::Succeed,
            },
        );
    }
    let generation = tallies.generation(row.state.generation.0);
    let selected_done = generation.settled.total() == generation.opened;
    let pending = row.total.saturating_sub(settled.total());
    (!row.takes_pending() && selected_done)
        .then_some(RunEvent::Pause(Reason::SelectionDone { pending }))
}

/// A breach that stops the run before its end: of this generation's failures only.
fn breach_now(
    run: &RunHandle,
    row: &RunRow,
    tallies: &Tallies,
    samples: &mut Samples,
) -> Option<Breach> {
    let generation = tallies.generation(row.state.generation.0);
    let failures = generation.settled.failures();
    let base = match (row.total_final(), row.redrive_part) {
        (Some(total), None) => Some(to_be_done(total, tallies.settled(), generation.settled)),
        (None, _) | (_, Some(_)) => None,
    };
    let tolerance = row.state.limits.tolerance;
    // What the final verdict would tolerate must not stop the run before its end: of five reopened items one
    // is 20 %, and may still be well within the run's budget.
    let all = tallies.settled().failures();
    let equality = u64::from(is_planted(Bug::BreachAtEquality) && failures > 0);
    let (failures, all) = (failures + equality, all + equality);
    if let Some(breach) = tolerance.breach(failures, base)
        && tolerance.breach(all, row.total_final()).is_some()
    {
        return Some(breach);
    }
    let brake = run.job.fail_fast?;
    let now = (generation.settled.total(), failures);
    let then = samples.back(now, brake.last)?;
    brake.breach(now, then)
}

/// How many items this generation has to do: all but those settled before it.
fn to_be_done(total: u64, settled: Settled, generation: Settled) -> u64 {
    total.saturating_sub(settled.total().saturating_sub(generation.total()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_look_back_over_enough_items_and_no_more() {
        let mut samples = Samples::default();
        assert_eq!(samples.back((50, 1), 100), None);
        assert_eq!(samples.back((120, 2), 100), Some((0, 0)));
        assert_eq!(samples.back((160, 30), 100), Some((50, 1)));
    }

    #[test]
    fn a_generation_has_to_do_what_was_not_settled_before_it() {
        let before = Settled {
            succeeded: 90,
            ..Settled::default()
        };
        let mut now = before;
        now.add(crate::core::outcome::Outcome::Failed, 4);
        let own = Settled {
            failed: 4,
            ..Settled::default()
        };
        assert_eq!(to_be_done(100, now, own), 10);
    }
}
