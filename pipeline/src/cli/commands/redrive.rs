//! `redrive`: a plan first, then the same foreground work as `run`.

use super::open::{Open, open, parse};
use super::run::{Working, replace_job};
use crate::cli::args::{Global, ItemList, RedriveArgs, RunRef, SelectionArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::screen::tell;
use crate::cli::text::{counted, grouped};
use crate::cli::view::{ItemState, json_line};
use crate::core::job::LedgerUri;
use crate::core::redrive::Selection;
use crate::core::run::{RunEvent, RunRefusal};
use crate::ledger::{LedgerError, Redrive, RunRow};
use crate::runner::{Purpose, StoredJob};
use crate::shell::{Plan, plan};

/// `trommel redrive RUN`.
pub(super) async fn redrive(global: &Global, args: RedriveArgs) -> Result<Exit, CliError> {
    let selection = selection(&args.selection)?;
    let purpose = if args.dry_run {
        Purpose::Read
    } else {
        Purpose::Write
    };
    let looking = open(global, purpose).await?;
    let row = looking.run(&args.run.run).await?;
    // The pure machine says whether the run may be redriven at all.
    row.state
        .apply(&RunEvent::Redrive)
        .map_err(LedgerError::from)
        .map_err(|error| refused(&row, error))?;
    let reader = looking.reader(row.clone()).await?;
    let plan = plan(&reader, &selection).await?;
    if args.dry_run {
        tell_plan(global, &row, &plan, looking.backend.uri())?;
        return Ok(Exit::Success);
    }
    if plan.reopened + plan.pending == 0 && row.total_final().is_some() {
        return Err(
            CliError::new(ErrorCode::NothingSelected, "nothing is selected").hinted(format!(
                "trommel items {} --group shows what failed",
                row.id
            )),
        );
    }
    let at = looking.into_running().await?;
    let row = at.run(&RunRef::Id(row.id)).await?;
    let row = replace_job(&at, row, args.job.as_deref()).await?;
    let job = parse(&StoredJob::of(&row))?;
    let working = Working::new(&at, &job, args.role).await?;
    start(&at, &row, selection, &args).await?;
    if !global.quiet {
        tell(&format!("redriving {}\n", taken(&plan, &row)));
    }
    if args.detach {
        return Ok(Exit::Success);
    }
    let row = at.run(&RunRef::Id(row.id)).await?;
    working.work(&at, &job, &row, global).await
}

/// What a redrive takes, in words.
fn taken(plan: &Plan, row: &RunRow) -> String {
    let reopened = counted(plan.reopened, "item");
    let items = match (plan.reopened, plan.pending) {
        (_, 0) => reopened,
        (0, pending) => format!("{} that never ran", counted(pending, "item")),
        (_, pending) => format!("{reopened}, and {} that never ran", grouped(pending)),
    };
    match row.total_final() {
        Some(_) => items,
        None => format!("{items}, and what was not yet read of the input"),
    }
}

async fn start(
    at: &Open,
    row: &RunRow,
    selection: Selection,
    args: &RedriveArgs,
) -> Result<(), CliError> {
    let redrive = Redrive {
        selection,
        refresh: args.refresh,
    };
    let change = at
        .ledger
        .change_run(row, &RunEvent::Redrive, Some(&redrive))
        .await;
    change.map(|_| ()).map_err(|error| refused(row, error))
}

fn refused(row: &RunRow, error: LedgerError) -> CliError {
    match error {
        LedgerError::Run(RunRefusal::StillRunning) => CliError::new(
            ErrorCode::WrongStatus,
            format!("run {} is RUNNING", row.id),
        )
        .hinted(format!(
            "wait for it, or `trommel pause {0}`; if its process died, `trommel resume {0}`",
            row.id
        )),
        error => error.into(),
    }
}

/// Each page is reopened (a transaction of two writes), leased and settled (another of two); a hint is sent,
/// received and deleted, ten at a time. On-demand prices of us-east-1: $0.625 a million write units,
/// $0.125 a million read units, $0.40 a million SQS requests ("Amazon DynamoDB pricing", "Amazon SQS pricing").
fn price_usd(plan: &Plan) -> f64 {
    const WRITES_A_PAGE: f64 = 4.0 + 1.0 + 4.0;
    const READS_A_PAGE: f64 = 2.0;
    const REQUESTS_A_PAGE: f64 = 0.3;
    let pages = plan.pages as f64;
    pages * (WRITES_A_PAGE * 0.625 + READS_A_PAGE * 0.125 + REQUESTS_A_PAGE * 0.40) / 1e6
}

fn tell_plan(
    global: &Global,
    row: &RunRow,
    plan: &Plan,
    ledger: &LedgerUri,
) -> Result<(), CliError> {
    let usd = match ledger {
        LedgerUri::Sqlite(_) => 0.0,
        LedgerUri::DynamoDb(_) => price_usd(plan),
    };
    if global.json {
        let value = serde_json::json!({
            "run": row.id.as_str(), "reopened": plan.reopened, "pending": plan.pending,
            "pages": plan.pages, "estimatedUsd": usd, "dryRun": true,
        });
        return crate::cli::print(&json_line(&value));
    }
    let cost = match ledger {
        LedgerUri::Sqlite(_) => "no service calls: the ledger is embedded".to_owned(),
        LedgerUri::DynamoDb(_) => format!("about ${usd:.6} of DynamoDB and SQS, the calls apart"),
    };
    crate::cli::print(&format!(
        "would redrive {}, in {}\n{cost}\n",
        taken(plan, row),
        counted(plan.pages, "page")
    ))
}

fn selection(args: &SelectionArgs) -> Result<Selection, CliError> {
    let mut selection = Selection {
        classes: args.class.iter().map(ToString::to_string).collect(),
        key: args.key.clone(),
        larger_bytes: args.larger,
        smaller_bytes: args.smaller,
        fingerprints: args.fingerprint.clone(),
        ..Selection::default()
    };
    for state in &args.state {
        match state {
            ItemState::Settled(outcome) => selection.outcomes.push(*outcome),
            ItemState::Pending => selection.pending = Some(true),
            ItemState::Running => {}
        }
    }
    if selection.pending == Some(true) && selection.outcomes.is_empty() {
        selection.only_pending = true;
    }
    let bad = |why: String| CliError::new(ErrorCode::BadArgument, format!("--items: {why}"));
    let items = match &args.items {
        None => Vec::new(),
        Some(ItemList::Given(items)) => items.clone(),
        Some(ItemList::File(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CliError::new(
                    ErrorCode::File,
                    format!("{} cannot be read", path.display()),
                )
                .because(error)
                .hinted("give items as --items 3-17-42,3-17-43, or a file with one a line")
            })?;
            ItemList::read_lines(&text).map_err(bad)?
        }
        Some(ItemList::Stdin) => {
            let text = std::io::read_to_string(std::io::stdin()).map_err(|e| bad(e.to_string()))?;
            ItemList::read_lines(&text).map_err(bad)?
        }
    };
    selection.items = items.iter().map(ToString::to_string).collect();
    Ok(selection)
}
