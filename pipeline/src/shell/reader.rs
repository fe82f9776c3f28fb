//! The reader: freezes the input part by part. Nothing is dispatched before it is frozen, so an
//! interrupted reading goes on at the cursor, and the total is final when the last part is.

use std::time::Duration;

use crate::core::run::{Reason, RunEvent};
use crate::ledger::{LedgerError, Resumption};

use super::env::{Env, Mode, RunHandle, Seen};
use super::source::{Source, SourceError};

/// Between tries to reach a source or ledger that does not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked whether what was frozen is settled.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A source that does not answer for so many tries in a row cannot be read.
const TRIES_MAX: u32 = 30;

/// Reads the run's input to its end, or until the session ends.
pub(super) async fn read(env: &Env, run: &RunHandle) {
    let mut failed = 0;
    while !env.is_ending() {
        let row = match env.ledger.run(&run.id).await {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(run = %run.id, %error, "the reader cannot read the ledger");
                env.pause(AGAIN_AFTER).await;
                continue;
            }
        };
        let cursor = match row.input {
            Resumption::Done => return,
            Resumption::At(cursor) => cursor,
        };
        let parts_before = cursor.parts;
        match read_from(env, run, cursor).await {
            Ok(()) => {}
            Err(ReadError::Ledger(error)) => {
                tracing::warn!(run = %run.id, %error, "the reader starts again at the cursor");
                env.pause(AGAIN_AFTER).await;
            }
            Err(ReadError::Source(error)) if error.is_retryable() && failed < TRIES_MAX => {
                let progressed = env.ledger.run(&run.id).await;
                let progressed = progressed.is_ok_and(|row| row.parts > parts_before);
                failed = if progressed { 0 } else { failed + 1 };
                tracing::warn!(run = %run.id, %error, "the input does not answer, trying again");
                env.pause(AGAIN_AFTER).await;
            }
            Err(ReadError::Source(error)) => {
                fail(env, run, &error).await;
                return;
            }
        }
    }
}

enum ReadError {
    Ledger(LedgerError),
    Source(SourceError),
}

impl From<LedgerError> for ReadError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<SourceError> for ReadError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

async fn read_from(
    env: &Env,
    run: &RunHandle,
    cursor: crate::core::part::Cursor,
) -> Result<(), ReadError> {
    let runtime = env.runtime.clone();
    let mut source = Source::open(&run.job.input, &run.stores, cursor, runtime).await?;
    loop {
        if !wait_for_work(env, run).await {
            return Ok(());
        }
        let Some(draft) = source.next_part().await? else {
            env.ledger.finish_input(&run.id, source.cursor()).await?;
            run.frozen.notify_waiters();
            run.settled.notify_waiters();
            return Ok(());
        };
        env.ledger
            .freeze(&run.id, &draft.part, &draft.cursor)
            .await?;
        if draft.part.number < run.cache.wanted_below() {
            run.cache.put(draft.part.number, draft.inputs);
        }
        run.frozen.notify_waiters();
    }
}

/// Waits until the run is worked on; false if the session ends first.
pub(super) async fn wait_for_work(env: &Env, run: &RunHandle) -> bool {
    let works = |seen: Seen| (seen.mode == Mode::Work && seen.takes_pending).then_some(());
    tokio::select! {
        biased;
        () = env.kill.cancelled() => false,
        () = env.drain.cancelled() => false,
        () = run.until(works) => true,
    }
}

/// Ends the run, once what was frozen before is settled: items before a bad record are processed. A crash in
/// between is harmless, as the reader that starts again at the cursor meets the same record.
async fn fail(env: &Env, run: &RunHandle, error: &SourceError) {
    let problem = error.to_string();
    tracing::error!(run = %run.id, %problem, "the input cannot be read");
    while !env.is_ending() {
        match try_fail(env, run, &problem).await {
            Ok(Verdict::Written) | Err(LedgerError::Run(_)) => return,
            Ok(Verdict::TooEarly) => env.pause(LOOK_AGAIN).await,
            Err(error) => {
                tracing::warn!(run = %run.id, %error, "the verdict was not written, trying again");
                env.pause(AGAIN_AFTER).await;
            }
        }
    }
}

enum Verdict {
    Written,
    TooEarly,
}

async fn try_fail(env: &Env, run: &RunHandle, problem: &str) -> Result<Verdict, LedgerError> {
    let settled = env.ledger.tallies(&run.id).await?.settled();
    let row = env.ledger.run(&run.id).await?;
    if settled.total() < row.total && row.takes_pending() {
        // A run that is paused or ended meanwhile refuses the event, which ends the waiting.
        row.state.apply(&RunEvent::Succeed)?;
        return Ok(Verdict::TooEarly);
    }
    let event = RunEvent::Fail(Reason::Input {
        problem: problem.to_owned(),
    });
    env.ledger.change_run(&row, &event, None).await?;
    Ok(Verdict::Written)
}
