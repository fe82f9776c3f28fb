//! `status`, `runs`, `items`, `show`, `audit`: reading only, beside whoever works.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bill;
use super::open::{Open, open};
use super::watch::{Rates, pause, snapshot, talk};
use crate::cli::args::{Global, ItemsArgs, OneRun, RunsArgs, ShowArgs, StatusArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::print;
use crate::cli::screen::{self, Screen};
use crate::cli::tables;
use crate::cli::text::{Color, counted};
use crate::cli::view::{
    GroupRow, HistoryRow, ItemPage, ItemRow, ItemState, RunRow as RunLine, json_line,
};
use crate::core::class::Class;
use crate::core::lane::Lane;
use crate::core::outcome::Outcome;
use crate::core::page::Mark;
use crate::core::run::RunStatus;
use crate::ledger::{FailureRow, RunRow};
use crate::runner::Purpose;
use crate::shell::report::{self, ItemView, RunReader};

/// Columns where the terminal says nothing.
const WIDTH_DEFAULT: usize = 100;

/// `trommel status RUN`.
pub(super) async fn status(global: &Global, args: StatusArgs) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Read).await?;
    let row = at.run(&args.run.run).await?;
    let reader = at.reader(row.clone()).await?;
    let mut rates = Rates::default();
    let mut screen = args.watch.then(|| Screen::stderr(talk(global)));
    let shown = loop {
        let now = report::report(&at.ledger, &row.id).await?;
        let wall = at.backend.runtime().clock.now();
        let shown = snapshot(&now, &reader.job, wall.0, &mut rates);
        let Some(screen) = &mut screen else {
            break shown;
        };
        if global.json {
            print(&json_line(&shown))?;
        } else {
            screen.update(&shown);
        }
        if shown.status != RunStatus::Running {
            break shown;
        }
        pause().await;
    };
    match screen {
        Some(screen) if !global.json => screen.finish(&shown),
        Some(_) => {}
        None if global.json => {
            let mut value = serde_json::to_value(&shown).unwrap_or_default();
            bill::add(&mut value, &at);
            print(&json_line(&value))?;
        }
        None => {
            let width = tables::stdout_width().map_or(WIDTH_DEFAULT, usize::from);
            print(&screen::render(&shown, width, Color::of_stdout()))?;
        }
    }
    bill::tell(&at, global);
    if args.watch {
        return Ok(Exit::of_run(
            shown.status,
            shown.item_counts.settled().failures(),
        ));
    }
    Ok(Exit::Success)
}

/// `trommel runs`.
pub(super) async fn runs(global: &Global, args: RunsArgs) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Read).await?;
    let mut lines = Vec::new();
    for run in at
        .ledger
        .runs()
        .await?
        .iter()
        .rev()
        .take(args.limit as usize)
    {
        let now = report::report(&at.ledger, &run.id).await?;
        let wall = at.backend.runtime().clock.now();
        let until = now.row.ended.unwrap_or(wall);
        lines.push(RunLine {
            run: run.id.clone(),
            job: run.job.clone(),
            status: now.row.state.status,
            generation: now.row.state.generation.0,
            started_at: run.created,
            elapsed: until.since(run.created),
            item_counts: now.counts,
        });
    }
    if global.json {
        print(&json_line(&lines))?;
    } else {
        print(&tables::runs(&lines, tables::stdout_width()))?;
    }
    Ok(Exit::Success)
}

/// `trommel items RUN`.
pub(super) async fn items(global: &Global, args: ItemsArgs) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Read).await?;
    let row = at.run(&args.run.run).await?;
    if args.group {
        return group(global, &at, &row, &args.class).await;
    }
    let reader = at.reader(row).await?;
    let mut rows = Vec::new();
    let mut next = 0;
    'parts: loop {
        let parts = reader.parts(next).await?;
        let Some(last) = parts.last() else { break };
        next = last.number + 1;
        for part in parts {
            let view = reader.part(part).await?;
            for item in reader.items(&view).await? {
                let line = item_row(&reader, &item);
                let by_state = args.state.is_empty() || args.state.contains(&line.state);
                let by_class = args.class.is_empty()
                    || line
                        .class
                        .as_ref()
                        .is_some_and(|class| args.class.contains(class));
                if by_state && by_class {
                    rows.push(line);
                }
                if rows.len() >= args.limit as usize {
                    break 'parts;
                }
            }
        }
    }
    if global.json {
        print(&json_line(&rows))?;
    } else {
        print(&tables::items(&rows, tables::stdout_width()))?;
        if rows.len() >= args.limit as usize && !global.quiet {
            screen::tell(&format!("the first {}; --limit shows more\n", rows.len()));
        }
    }
    Ok(Exit::Success)
}

fn item_row(reader: &RunReader, item: &ItemView) -> ItemRow {
    let state = match item.mark {
        Mark::Pending | Mark::Moved => ItemState::Pending,
        Mark::Done(outcome) => ItemState::Settled(outcome),
    };
    let size = item.input.as_ref().and_then(|input| input.size_bytes());
    let routed = reader.job.size_rule().route(size);
    let lane = match (item.page.escalated, routed) {
        (Some(_), _) | (None, crate::core::lane::Routed::To(Lane::Container)) => Lane::Container,
        (
            None,
            crate::core::lane::Routed::To(Lane::Function)
            | crate::core::lane::Routed::TooLarge { .. },
        ) => Lane::Function,
    };
    let failed = item.failure.as_ref();
    let calls = match item.mark {
        Mark::Pending | Mark::Moved => item.retries,
        Mark::Done(_) => failed.map_or(item.retries + 1, |row| row.attempts),
    };
    ItemRow {
        item: item.item,
        state,
        lane,
        attempts: calls,
        size,
        label: label(item),
        class: failed.map(|row| row.failure.class.clone()),
        cause: failed.map(|row| row.failure.cause.clone()),
    }
}

fn label(item: &ItemView) -> String {
    match (&item.input, &item.failure) {
        (Some(input), _) => input.label(),
        (None, Some(row)) => row.label.clone(),
        (None, None) => String::new(),
    }
}

async fn group(
    global: &Global,
    at: &Open,
    row: &RunRow,
    classes: &[Class],
) -> Result<Exit, CliError> {
    let mut groups: BTreeMap<(Class, String), (u64, FailureRow)> = BTreeMap::new();
    for (failure, _) in report::standing_failures(&at.ledger, &row.id).await? {
        if !classes.is_empty() && !classes.contains(&failure.failure.class) {
            continue;
        }
        let name = (failure.failure.class.clone(), failure.failure.fingerprint());
        groups.entry(name).or_insert((0, failure)).0 += 1;
    }
    let mut rows: Vec<GroupRow> = groups
        .into_iter()
        .map(|((class, fingerprint), (count, example))| GroupRow {
            count,
            class,
            fingerprint,
            example: example.item,
            label: example.label,
            cause: example.failure.cause,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.count));
    if global.json {
        print(&json_line(&rows))?;
    } else {
        print(&tables::groups(&rows, tables::stdout_width()))?;
    }
    Ok(Exit::Success)
}

/// `trommel show RUN ITEM`.
pub(super) async fn show(global: &Global, args: ShowArgs) -> Result<Exit, CliError> {
    let (run, id) = args
        .target()
        .map_err(|why| CliError::new(ErrorCode::BadArgument, why))?;
    let at = open(global, Purpose::Read).await?;
    let row = at.run(&run).await?;
    let reader = at.reader(row).await?;
    let missing = || {
        CliError::new(
            ErrorCode::NoItem,
            format!("run {} has no item {id}", reader.row.id),
        )
        .hinted(format!("trommel items {} lists them", reader.row.id))
    };
    let part = at
        .ledger
        .part(&reader.row.id, id.part)
        .await?
        .ok_or_else(missing)?;
    let view = reader.part(part).await?;
    let items = reader.items(&view).await?;
    let item = items
        .iter()
        .find(|item| item.item == id)
        .ok_or_else(missing)?;
    let output = match item.mark {
        Mark::Done(Outcome::Succeeded) => reader.output_of(item).await.map_err(|why| {
            CliError::new(ErrorCode::File, "the output cannot be read").because(why)
        })?,
        Mark::Done(_) | Mark::Pending | Mark::Moved => None,
    };
    let input = match (&item.input, &view.inputs) {
        (Some(input), _) => input.to_json(),
        (None, Err(error)) => format!("(cannot be read: {error})"),
        (None, Ok(_)) => String::new(),
    };
    let page = ItemPage {
        run: reader.row.id.clone(),
        row: item_row(&reader, item),
        input,
        output,
        history: history(&at, &reader, item).await?,
    };
    if global.json {
        print(&json_line(&page))?;
    } else {
        print(&tables::item(&page, tables::stdout_width()))?;
    }
    Ok(Exit::Success)
}

async fn history(
    at: &Open,
    reader: &RunReader,
    item: &ItemView,
) -> Result<Vec<HistoryRow>, CliError> {
    let mut rows = Vec::new();
    for failure in at.ledger.failures_of(&reader.row.id, item.item).await? {
        let calls = failure.attempts;
        let times = if calls == 1 {
            "1 call".to_owned()
        } else {
            format!("{calls} calls")
        };
        rows.push(HistoryRow {
            at: failure.at,
            generation: failure.generation.0,
            event: failure.outcome.as_str().to_owned(),
            took: None::<Duration>,
            detail: format!("{} (after {times})", failure.failure),
        });
    }
    if item.page.escalated.is_some() {
        let at = rows.last().map_or(reader.row.created, |row| row.at);
        rows.push(HistoryRow {
            at,
            generation: reader.row.state.generation.0,
            event: "moved".to_owned(),
            took: None,
            detail: "to the container lane".to_owned(),
        });
    }
    Ok(rows)
}

/// `trommel audit RUN`.
pub(super) async fn audit(global: &Global, args: OneRun) -> Result<Exit, CliError> {
    let at = open(global, Purpose::Read).await?;
    let row = at.run(&args.run).await?;
    let audit = report::audit(&at.ledger, &row.id).await?;
    let agrees = audit.problems.is_empty();
    if global.json {
        let value = serde_json::json!({
            "run": row.id.as_str(), "agrees": agrees, "pages": audit.pages, "total": audit.total,
            "pending": audit.pending, "recounted": audit.recounted, "tallied": audit.tallied,
            "problems": audit.problems,
        });
        print(&json_line(&value))?;
    } else if agrees {
        let (items, pages) = (audit.in_parts, audit.pages);
        let (items, pages) = (counted(items, "item"), counted(pages, "page"));
        print(&format!(
            "{}: {items} in {pages} recounted, all counts agree\n",
            row.id
        ))?;
    } else {
        for problem in &audit.problems {
            print(&format!("{problem}\n"))?;
        }
    }
    if agrees {
        return Ok(Exit::Success);
    }
    if row.state.status == RunStatus::Running && !global.quiet {
        screen::tell(
            "the run is being worked on: counts move while they are compared; pause it first\n",
        );
    }
    Ok(Exit::AuditDisagrees)
}
