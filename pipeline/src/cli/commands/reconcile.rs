//! `reconcile`: which objects of the bucket nobody took in, what taking them in costs, and doing it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use super::open::open_uri;
use super::provision::{needed_bucket, read, unreachable};
use crate::adapters::aws::{Clients, Endpoint, Walk};
use crate::cli::args::{Global, ReconcileArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::screen::tell;
use crate::cli::text::{counted, escape, grouped, moment};
use crate::cli::view::json_line;
use crate::core::estimate::{Estimate, Source, Workload};
use crate::core::event::ObjectEvent;
use crate::core::job::{Dedupe, EventsSpec, InputSpec, Job};
use crate::core::lane::{Lane, Routed};
use crate::core::mark::MARK_KEPT;
use crate::core::price::Prices;
use crate::core::time::Timestamp;
use crate::runner::{Purpose, own_places};
use crate::shell::reconcile::{Finder, send};

/// Above so many it is asked first.
const UNASKED_MAX: usize = 1000;

/// So many are held at a time, some 20 MB; then the rest is left for another time.
const HELD_MAX: usize = 100_000;

/// `trommel reconcile JOB`.
pub(super) async fn reconcile(global: &Global, args: ReconcileArgs) -> Result<Exit, CliError> {
    let job = read(global, &args.job)?;
    let events = events(&job)?;
    let bucket = needed_bucket(&job, events)?;
    let at = open_uri(&job.ledger, Purpose::Read).await?;
    let now = at.backend.runtime().clock.now();
    let span = Span::new(args.since.moment(now), now, args.leave)?;
    if span.is_cut && !global.quiet {
        let from = moment(span.from);
        tell(&format!("marks go after 28 days: looking from {from} on\n"));
    }
    let clients = Clients::open(Endpoint::from_env()).await;
    let mut walk = Walk::open(&clients, bucket, &events.prefix)
        .await
        .map_err(unreachable)?;
    let mut finder = Finder::new(at.ledger.clone(), job.name.clone());
    let own = own_places(&job);
    let mut found = Found::default();
    while let Some(page) = walk.page().await.map_err(unreachable)? {
        let page: Vec<ObjectEvent> = page
            .into_iter()
            .filter(|object| span.holds(object.at) && is_work(object, &own))
            .collect();
        found.looked_at += page.len();
        found.missing.extend(finder.missing(page).await?);
        if found.missing.len() >= HELD_MAX {
            found.is_part = true;
            break;
        }
    }
    let cost = cost(&job, events, &found.missing);
    if !args.apply {
        tell_found(global, (&job, bucket, &span), &found, (cost, 0))?;
        return Ok(Exit::Success);
    }
    if found.missing.len() > UNASKED_MAX && !args.yes {
        confirm(found.missing.len(), cost)?;
    }
    if !found.missing.is_empty() {
        let (queue, _) = at.backend.ingest(events).await?;
        let runtime = at.backend.runtime();
        send(queue.as_ref(), runtime, events.keys, &found.missing)
            .await
            .map_err(|error| {
                unreachable(error).hinted("run it again: what was sent is not taken in twice")
            })?;
    }
    let sent = found.missing.len();
    tell_found(global, (&job, bucket, &span), &found, (cost, sent))?;
    Ok(Exit::Success)
}

fn events(job: &Job) -> Result<&EventsSpec, CliError> {
    match &job.input {
        InputSpec::Events(events) => match events.dedupe {
            Dedupe::On => Ok(events),
            Dedupe::Off => Err(CliError::new(
                ErrorCode::BadArgument,
                format!("the job {} keeps no marks (dedupe = false)", job.name),
            )
            .hinted("without marks nobody knows what was taken in; list it with a job of its own: input = { objects = \"s3://…\" }")),
        },
        InputSpec::Objects(_)
        | InputSpec::Jsonl(_)
        | InputSpec::Csv { .. }
        | InputSpec::Json(_)
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => Err(CliError::new(
            ErrorCode::BadArgument,
            format!("the job {} does not take in events", job.name),
        )
        .hinted("a run that was interrupted goes on with `trommel resume`")),
    }
}

/// When the objects that are looked at were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: Timestamp,
    until: Timestamp,
    /// Whether it was to begin before what marks can tell.
    is_cut: bool,
}

impl Span {
    /// From `since` on, but for what was written within the last `leave`.
    fn new(since: Timestamp, now: Timestamp, leave: Duration) -> Result<Self, CliError> {
        let ago = |duration: Duration| {
            let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            Timestamp(now.0.saturating_sub(millis))
        };
        let (until, oldest) = (ago(leave), ago(MARK_KEPT));
        if since >= until {
            let leave = humantime::format_duration(leave);
            let problem = format!("what was written in the last {leave} is left to its events");
            return Err(CliError::new(ErrorCode::BadArgument, problem)
                .hinted("look further back: --since 2h"));
        }
        Ok(Self {
            from: since.max(oldest),
            until,
            is_cut: since < oldest,
        })
    }

    fn holds(&self, at: Timestamp) -> bool {
        (self.from..self.until).contains(&at)
    }
}

/// What a console shows as a folder, and what Trommel itself writes, is no work, as in intake.
fn is_work(object: &ObjectEvent, own: &[Vec<u8>]) -> bool {
    let is_folder = object.size_bytes == Some(0) && object.key.ends_with(b"/");
    let store_key = object.store_key();
    !is_folder && !own.iter().any(|place| store_key.starts_with(place))
}

/// What the walk came to.
#[derive(Default)]
struct Found {
    looked_at: usize,
    missing: Vec<ObjectEvent>,
    /// Whether there may be more.
    is_part: bool,
}

/// What sending and taking them in costs, in US dollars.
fn cost(job: &Job, events: &EventsSpec, missing: &[ObjectEvent]) -> f64 {
    let mut work = Workload {
        source: Source::Events(events.dedupe),
        fines: 0,
        fine_bytes: 0,
        lumps: 0,
        results: job.results.is_some(),
    };
    for object in missing {
        match job.size_rule().route(object.size_bytes) {
            Routed::To(Lane::Container) => work.lumps += 1,
            Routed::To(Lane::Function) | Routed::TooLarge { .. } => {
                work.fines += 1;
                let size = object.size_bytes.unwrap_or(0);
                work.fine_bytes = work.fine_bytes.saturating_add(size);
            }
        }
    }
    let mut usage = Estimate::of(&work).pipeline();
    // Sent as they are received: ten at a time.
    usage.sqs_requests += work.items().div_ceil(10);
    usage.usd(&Prices::LIST)
}

/// Asks at a terminal; else wants `--yes`.
fn confirm(number: usize, cost: f64) -> Result<(), CliError> {
    let what = format!(
        "{} would be taken in, for about ${cost:.4}",
        counted(number as u64, "object")
    );
    let unasked = || {
        CliError::new(ErrorCode::BadArgument, what.clone())
            .hinted("say that it is meant: --yes (above 1,000 it is asked)")
    };
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unasked());
    }
    tell(&format!("{what}. Go on? [y/N] "));
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) | Err(_) => Err(unasked()),
    }
}

fn tell_found(
    global: &Global,
    (job, bucket, span): (&Job, &str, &Span),
    found: &Found,
    (cost, sent): (f64, usize),
) -> Result<(), CliError> {
    let missing = found.missing.len();
    if global.json {
        let keys = found.missing.iter().take(EXAMPLES);
        let keys: Vec<_> = keys
            .map(|object| String::from_utf8_lossy(&object.key).into_owned())
            .collect();
        let value = serde_json::json!({
            "job": job.name.as_str(), "bucket": bucket, "from": moment(span.from),
            "lookedAt": found.looked_at, "missing": missing, "isPart": found.is_part,
            "estimatedUsd": cost, "sent": sent, "examples": keys,
        });
        return crate::cli::print(&json_line(&value));
    }
    let mut out = format!(
        "{} written since {} in {bucket}: {} not taken in\n",
        counted(found.looked_at as u64, "object"),
        moment(span.from),
        grouped(missing as u64),
    );
    for object in found.missing.iter().take(EXAMPLES) {
        let key = escape(&String::from_utf8_lossy(&object.key));
        writeln!(out, "  {key}").expect("a String takes everything");
    }
    let others = missing.saturating_sub(EXAMPLES) as u64;
    if others > 0 {
        let others = grouped(others);
        writeln!(out, "  and {others} more").expect("a String takes everything");
    }
    if missing > 0 {
        let next = match sent {
            0 => "taking them in; --apply does it".to_owned(),
            sent => format!(
                "{} sent to the ingest queue",
                counted(sent as u64, "message")
            ),
        };
        writeln!(out, "about ${cost:.4}, the calls apart: {next}")
            .expect("a String takes everything");
    }
    if found.is_part {
        out.push_str("there may be more: run it again once these are taken in\n");
    }
    crate::cli::print(&out)
}

/// So many keys are shown.
const EXAMPLES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_young_and_nothing_that_marks_cannot_tell_is_looked_at() {
        let day = 86_400_000;
        let now = Timestamp(100 * day);
        let leave = Duration::from_secs(15 * 60);
        let youngest = Timestamp(now.0 - 15 * 60_000);
        let span = Span::new(Timestamp(99 * day), now, leave).expect("a day ago");
        assert!(!span.is_cut);
        assert!(span.holds(Timestamp(99 * day)) && !span.holds(youngest));
        let long = Span::new(Timestamp(0), now, leave).expect("long ago");
        assert!(long.is_cut);
        assert_eq!(long.from, Timestamp(72 * day));
        assert!(Span::new(now, now, leave).is_err());
    }
}
