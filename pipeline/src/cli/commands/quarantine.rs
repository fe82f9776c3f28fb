//! `quarantine`: the messages of a job that nobody could read.

use serde::Serialize;

use super::open::open;
use crate::cli::args::{Global, QuarantineArgs, RunRef};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::print;
use crate::cli::text::{escape, fit, moment};
use crate::cli::view::json_line;
use crate::core::id::{JobName, RunId};
use crate::ledger::Quarantined;
use crate::runner::Purpose;

/// A body is cut to this in the list for people.
const SHOWN_CHARS_MAX: usize = 120;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    run: &'a RunId,
    sent_at: String,
    #[serde(flatten)]
    message: &'a Quarantined,
}

/// `trommel quarantine [JOB]`.
pub(super) async fn quarantine(global: &Global, args: QuarantineArgs) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Read).await?;
    let job = match args.job {
        Some(name) => JobName::new(name),
        None => at.run(&RunRef::Latest).await?.job,
    };
    let messages = at.ledger.quarantined(&job, args.limit as usize).await?;
    let lines: Vec<Line<'_>> = messages
        .iter()
        .map(|(run, message)| Line {
            run,
            sent_at: moment(message.at),
            message,
        })
        .collect();
    if global.json {
        print(&json_line(&lines))?;
        return Ok(Exit::Success);
    }
    if lines.is_empty() {
        print(&format!("no message of {job} is in quarantine\n"))?;
    }
    for line in lines {
        let (reason, body) = (escape(&line.message.reason), escape(&line.message.body));
        let body = fit(&body, SHOWN_CHARS_MAX);
        print(&format!(
            "{}  {}  {reason}\n    {body}\n",
            line.sent_at, line.run
        ))?;
    }
    Ok(Exit::Success)
}
