//! `serve`: a process that takes in events until it is told to stop, and says how its windows stand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::bill;
use super::health;
use super::open::{Open, current_dir, job_errors, open_uri};
use super::run::{Leaving, Working, read_job};
use super::watch::{Rates, clock, snapshot};
use crate::cli::args::{Global, ServeArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::screen::tell;
use crate::cli::view::{Snapshot, json_line};
use crate::core::id::RunId;
use crate::core::job::Job;
use crate::job_file::{Executors, Overrides};
use crate::ledger::LedgerError;
use crate::runner::{Purpose, Served};
use crate::shell::report::report;

/// How often it is looked how the windows stand.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// `trommel serve JOB`.
pub(super) async fn serve(global: &Global, args: ServeArgs) -> Result<Exit, CliError> {
    let overrides = Overrides {
        dir: current_dir()?,
        ledger: global.ledger().map(str::to_owned),
        ..Overrides::default()
    };
    let stored = read_job(&args.job, overrides)?;
    let job = stored.parse(Executors::Commands).map_err(job_errors)?;
    let Some(served) = Served::new(&job, &stored) else {
        let problem = format!("the input of the job {} has an end", job.name);
        return Err(CliError::new(ErrorCode::BadArgument, problem).hinted(
            "run it: trommel run JOB; events are written as input = { events = \"sqs:QUEUE\" }",
        ));
    };
    let at = open_uri(&job.ledger, Purpose::Run).await?;
    let working = Working::new(&at, &job, args.role).await?;
    if !global.quiet {
        tell(&format!(
            "taking in {} for {}, a run every {}; Ctrl-C drains\n",
            served.events.queue,
            job.name,
            humantime::format_duration(served.events.window)
        ));
    }
    let _health = health::open(args.health, &working.foreground.at_work, global).await?;
    let leaving = Leaving::listen(&working.foreground.drain, global)?;
    let done = CancellationToken::new();
    let work = async {
        let ended = working.foreground.serve(&served).await;
        done.cancel();
        ended
    };
    let (ended, ()) = tokio::join!(work, show(&at, &job, global, &done));
    ended?;
    bill::tell(&at, global);
    Ok(leaving.exit().unwrap_or(Exit::Success))
}

/// Says what changed of the windows that are not done with, until `done`.
async fn show(at: &Open, job: &Job, global: &Global, done: &CancellationToken) {
    let mut shown = Shown::default();
    while !done.is_cancelled() {
        if let Err(error) = shown.look(at, job, global).await {
            tracing::debug!(%error, "the windows cannot be looked at just now");
        }
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = clock().sleep(LOOK_EVERY) => {}
        }
    }
    // How it stands at the end.
    let _ = shown.look(at, job, global).await;
}

/// What was said of each window last.
#[derive(Default)]
struct Shown {
    said: BTreeMap<RunId, String>,
}

impl Shown {
    async fn look(&mut self, at: &Open, job: &Job, global: &Global) -> Result<(), LedgerError> {
        let open = at.ledger.open_windows(&job.name).await?;
        let open: Vec<RunId> = open.into_iter().map(|open| open.row.id).collect();
        let mut runs = open.clone();
        // Those that were done with since get their last word.
        let left = self.said.keys().filter(|run| !runs.contains(*run));
        runs.splice(0..0, left.cloned().collect::<Vec<_>>());
        let mut said = BTreeMap::new();
        for run in runs {
            let report = report(&at.ledger, &run).await?;
            let now = clock().now();
            let snapshot = snapshot(&report, job, now.0, &mut Rates::default());
            let line = line(&snapshot);
            if self.said.get(&run) != Some(&line) {
                say(&snapshot, &line, global);
            }
            if open.contains(&run) {
                said.insert(run, line);
            }
        }
        self.said = said;
        Ok(())
    }
}

fn say(snapshot: &Snapshot, line: &str, global: &Global) {
    if global.json {
        // A reader that went away has had enough.
        let _ = crate::cli::print(&json_line(snapshot));
    } else if !global.quiet {
        tell(&format!("{line}\n"));
    }
}

fn line(snapshot: &Snapshot) -> String {
    let counts = &snapshot.item_counts;
    let settled = counts.settled();
    let mut line = format!(
        "{} {}: {} taken in, {} pending, {} running, {} succeeded, {} failed, {} skipped",
        snapshot.run,
        snapshot.status.as_str(),
        counts.total,
        counts.pending,
        counts.running,
        settled.succeeded,
        settled.failures(),
        settled.skipped,
    );
    let met = snapshot.intake.unwrap_or_default();
    for (number, what) in [
        (met.duplicates, "duplicates"),
        (met.superseded, "superseded"),
        (met.removed, "removed"),
        (met.ignored, "ignored"),
        (met.quarantined, "quarantined"),
    ] {
        if number > 0 {
            write!(line, ", {number} {what}").expect("a String takes everything");
        }
    }
    line
}
