//! Watches a run: snapshots of the ledger for the screen, while something else works on it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::adapters::tokio_runtime;
use crate::cli::args::Global;
use crate::cli::error::CliError;
use crate::cli::screen::{Screen, Talk};
use crate::cli::view::Snapshot;
use crate::core::id::RunId;
use crate::core::job::Job;
use crate::core::run::RunStatus;
use crate::core::time::{Tick, Timestamp};
use crate::ledger::Ledger;
use crate::ports::Clock;
use crate::shell::report::{RunReport, report};

/// How often the screen is refreshed.
const REFRESH: Duration = Duration::from_millis(250);

/// What the rate is averaged over.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// This process's clock.
pub(super) fn clock() -> Arc<dyn Clock> {
    tokio_runtime::runtime().clock
}

/// Rates from successive looks.
#[derive(Default)]
pub(super) struct Rates {
    seen: std::collections::VecDeque<(Tick, u64)>,
}

impl Rates {
    fn rate(&mut self, settled: u64) -> Option<f64> {
        let now = clock().tick();
        self.seen.push_back((now, settled));
        while self.seen.len() > 2
            && self
                .seen
                .front()
                .is_some_and(|(at, _)| now.since(*at) > RATE_WINDOW)
        {
            self.seen.pop_front();
        }
        let (first, was) = self.seen.front().copied()?;
        let took = now.since(first).as_secs_f64();
        (took > 0.2).then(|| settled.saturating_sub(was) as f64 / took)
    }
}

/// The page of `status`.
pub(super) fn snapshot(report: &RunReport, job: &Job, now_ms: i64, rates: &mut Rates) -> Snapshot {
    let row = &report.row;
    let generation = report.tallies.generation(row.state.generation.0);
    let until = row.ended.map_or(now_ms, |ended| ended.0);
    let elapsed = Duration::from_millis(u64::try_from(until - row.created.0).unwrap_or(0));
    let settled = report.counts.settled().total();
    let running = row.state.status == RunStatus::Running;
    let average = if elapsed.is_zero() {
        0.0
    } else {
        settled as f64 / elapsed.as_secs_f64()
    };
    let rate = if running {
        rates.rate(settled).unwrap_or(average)
    } else {
        average
    };
    let left = report.counts.total.saturating_sub(settled);
    let eta = (running && row.total_final().is_some() && rate > 0.0)
        .then(|| Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX));
    let mut classes: Vec<(String, u64)> = generation.classes.into_iter().collect();
    classes.sort_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
    let tolerance = row.state.limits.tolerance;
    let ended = matches!(row.state.status, RunStatus::Succeeded | RunStatus::Failed);
    let failures = if ended {
        report.counts.settled().failures()
    } else {
        generation.settled.failures()
    };
    Snapshot {
        run: row.id.clone(),
        job: row.job.clone(),
        status: row.state.status,
        reason: row.state.reason.as_ref().map(ToString::to_string),
        generation: row.state.generation.0,
        elapsed,
        item_counts: report.counts,
        total_is_final: row.total_final().is_some(),
        quarantined: report.met.map_or(0, |met| met.quarantined),
        intake: report.met,
        oldest_message: report
            .oldest_message
            .map(|sent| Timestamp(now_ms).since(sent)),
        tolerance,
        failures,
        failures_max: tolerance.failures_max(row.total_final()),
        rate_per_second: rate,
        eta,
        classes,
        max_concurrency: job.max_concurrency,
    }
}

/// How much is said on standard error.
pub(super) fn talk(global: &Global) -> Talk {
    if global.quiet {
        Talk::Quiet
    } else {
        Talk::Normal
    }
}

/// Keeps the screen up to date until `done`, or until the run is no longer RUNNING.
pub(super) async fn watch(
    ledger: &Ledger,
    run: &RunId,
    job: &Job,
    global: &Global,
    done: &CancellationToken,
) -> Result<Snapshot, CliError> {
    let mut screen = Screen::stderr(talk(global));
    let mut rates = Rates::default();
    loop {
        let is_done = done.is_cancelled();
        let now = clock().now();
        let shown = snapshot(&report(ledger, run).await?, job, now.0, &mut rates);
        if is_done {
            screen.finish(&shown);
            return Ok(shown);
        }
        screen.update(&shown);
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = pause() => {}
        }
    }
}

/// Waits until the next look.
pub(super) async fn pause() {
    clock().sleep(REFRESH).await;
}
