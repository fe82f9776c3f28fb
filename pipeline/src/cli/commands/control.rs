//! `pause` and `stop`: a wish for the process at work, or the change itself where none is.

use std::time::Duration;

use super::open::{Open, open};
use super::watch::{Rates, clock, snapshot};
use crate::cli::args::{Global, OneRun};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::screen::tell;
use crate::cli::view::json_line;
use crate::core::run::{Reason, RunEvent, RunRefusal, RunStatus, Wish};
use crate::ledger::{LedgerError, RunRow, SessionStatus};
use crate::runner::Purpose;
use crate::shell::report::report;

/// A runner obeys a wish within a second; a slow store may take longer.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);

/// `trommel pause RUN`.
pub(super) async fn pause(global: &Global, args: OneRun) -> Result<Exit, CliError> {
    ask(global, args, Wish::Pause, &RunEvent::Pause(Reason::Asked)).await
}

/// `trommel stop RUN`.
pub(super) async fn stop(global: &Global, args: OneRun) -> Result<Exit, CliError> {
    ask(global, args, Wish::Stop, &RunEvent::Stop).await
}

async fn ask(
    global: &Global,
    args: OneRun,
    wish: Wish,
    event: &RunEvent,
) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Write).await?;
    let row = at.run(&args.run).await?;
    row.state
        .apply(event)
        .map_err(|refusal| refused(&row, &refusal))?;
    if row.state.status == RunStatus::Running && is_worked_on(&at, &row).await? {
        at.ledger.wish(&row.id, wish).await?;
        if obeyed(&at, &row).await? {
            return tell_status(global, &at, &row).await;
        }
        tell("no process obeyed in time; the run is changed all the same\n");
    }
    let row = at.ledger.run(&row.id).await?;
    match at.ledger.change_run(&row, event, None).await {
        Ok(_) | Err(LedgerError::Raced) => tell_status(global, &at, &row).await,
        Err(LedgerError::Run(refusal)) => Err(refused(&row, &refusal)),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process may be at work on the run.
async fn is_worked_on(at: &Open, row: &RunRow) -> Result<bool, CliError> {
    if let Some(locked) = at.backend.is_run_by_another() {
        return Ok(locked);
    }
    let sessions = at.ledger.sessions(&row.job).await?;
    Ok(sessions
        .iter()
        .any(|session| session.status == SessionStatus::Live))
}

async fn obeyed(at: &Open, row: &RunRow) -> Result<bool, CliError> {
    let until = clock().tick() + OBEYED_WITHIN;
    while clock().tick() < until {
        if at.ledger.run(&row.id).await?.state.status != RunStatus::Running {
            return Ok(true);
        }
        super::watch::pause().await;
    }
    Ok(false)
}

async fn tell_status(global: &Global, at: &Open, row: &RunRow) -> Result<Exit, CliError> {
    let now = report(&at.ledger, &row.id).await?;
    if global.json {
        let reader = at.reader(now.row.clone()).await?;
        let wall = at.backend.runtime().clock.now();
        let shown = snapshot(&now, &reader.job, wall.0, &mut Rates::default());
        crate::cli::print(&json_line(&shown))?;
    } else {
        let status = now.row.state.status.as_str();
        crate::cli::print(&format!("{} {status}\n", row.id))?;
    }
    Ok(Exit::Success)
}

fn refused(row: &RunRow, refusal: &RunRefusal) -> CliError {
    let id = &row.id;
    let error = CliError::new(ErrorCode::WrongStatus, format!("run {id}: {refusal}"));
    match refusal {
        RunRefusal::Ended(_) => {
            error.hinted(format!("trommel redrive {id} takes what did not succeed"))
        }
        RunRefusal::Already(_)
        | RunRefusal::StillRunning
        | RunRefusal::NotRunning(_)
        | RunRefusal::NeedsBudget(_) => error,
    }
}
