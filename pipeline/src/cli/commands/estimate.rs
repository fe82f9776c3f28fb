//! `estimate`: what a job will ask of AWS, and what that costs, before it starts.

use super::open::{current_dir, job_errors};
use super::run::read_job;
use crate::cli::args::{EstimateArgs, Global, PriceArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::text::{counted, grouped};
use crate::cli::view::json_line;
use crate::core::estimate::{Estimate, Source, Workload};
use crate::core::job::{InputSpec, Job, LedgerUri, Location};
use crate::core::lane::{Lane, Routed};
use crate::core::price::{Prices, Usage};
use crate::job_file::{Executors, Overrides};
use crate::ports::ObjectsError;
use crate::runner::tree;

/// So many objects are listed, a hundred requests; of a larger input the rest is not known, and told so.
const LISTED_MAX: u64 = 100_000;

/// Objects asked for at a time: what S3 gives at most.
const PAGE: usize = 1000;

/// Events have no end; without a number the estimate is for as many.
const EVENTS_DEFAULT: u64 = 1_000_000;

/// How the number of items is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Given,
    Job,
    Listed,
    /// There are more.
    ListedInPart,
    Assumed,
}

/// `trommel estimate JOB`.
pub(super) async fn estimate(global: &Global, args: EstimateArgs) -> Result<Exit, CliError> {
    let overrides = Overrides {
        dir: current_dir()?,
        ledger: global.ledger().map(str::to_owned),
        ..Overrides::default()
    };
    let stored = read_job(&args.job, overrides)?;
    let job = stored.parse(Executors::Commands).map_err(job_errors)?;
    let prices = prices(&args)?;
    let (work, how) = workload(&job, &args).await?;
    let estimate = on_aws(&job, &Estimate::of(&work));
    let told = Told {
        job: &job,
        work: &work,
        how,
        estimate: &estimate,
        prices: &prices,
    };
    if global.json {
        crate::cli::print(&told.json())?;
    } else {
        crate::cli::print(&told.text())?;
    }
    Ok(Exit::Success)
}

/// List prices, then those of a file, then those of flags.
fn prices(args: &EstimateArgs) -> Result<Prices, CliError> {
    let mut prices = Prices::LIST;
    if let Some(path) = &args.prices {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            CliError::new(ErrorCode::File, format!("{shown} cannot be read")).because(error)
        })?;
        let file: PriceArgs = toml::from_str(&text).map_err(|error| {
            CliError::new(ErrorCode::BadArgument, format!("{shown} has no prices"))
                .because(error.message())
                .hinted("write, for example: write_unit_million_usd = 0.7")
        })?;
        file.put_over(&mut prices);
    }
    args.own.put_over(&mut prices);
    Ok(prices)
}

/// How much there is to do.
async fn workload(job: &Job, args: &EstimateArgs) -> Result<(Workload, Counted), CliError> {
    let source = source(&job.input);
    let empty = Workload {
        source,
        fines: 0,
        fine_bytes: 0,
        lumps: 0,
        results: job.results.is_some(),
    };
    let of = |items| assumed(job, empty, items, args.mean_size.unwrap_or(0));
    if let Some(items) = args.items {
        return Ok((of(items), Counted::Given));
    }
    match &job.input {
        InputSpec::Range { start, end } => {
            let items = i128::from(*end) - i128::from(*start);
            let items = u64::try_from(items).unwrap_or(0);
            Ok((of(items), Counted::Job))
        }
        InputSpec::Inline(values) => Ok((of(values.len() as u64), Counted::Job)),
        InputSpec::Objects(place) => list(job, place, empty).await,
        InputSpec::Events(_) => Ok((of(EVENTS_DEFAULT), Counted::Assumed)),
        InputSpec::Jsonl(_) | InputSpec::Csv { .. } | InputSpec::Json(_) => Err(CliError::new(
            ErrorCode::BadArgument,
            "how many rows the file has is not known before it is read",
        )
        .hinted("say how many: --items 1000000")),
    }
}

fn source(input: &InputSpec) -> Source {
    match input {
        InputSpec::Objects(_) => Source::Listing,
        InputSpec::Jsonl(_) | InputSpec::Csv { .. } | InputSpec::Json(_) => Source::File,
        InputSpec::Inline(_) => Source::Inline,
        InputSpec::Range { .. } => Source::Numbers,
        InputSpec::Events(events) => Source::Events(events.dedupe),
    }
}

/// Items that are all of one size; rows and numbers have none.
fn assumed(job: &Job, mut work: Workload, items: u64, mean_bytes: u64) -> Workload {
    let size = job.input.is_objects().then_some(mean_bytes);
    match job.size_rule().route(size) {
        Routed::To(Lane::Container) => work.lumps = items,
        Routed::To(Lane::Function) | Routed::TooLarge { .. } => {
            work.fines = items;
            work.fine_bytes = items.saturating_mul(size.unwrap_or(0));
        }
    }
    work
}

/// Counts by listing, each object in its lane.
async fn list(
    job: &Job,
    place: &Location,
    mut work: Workload,
) -> Result<(Workload, Counted), CliError> {
    let failed = |error: ObjectsError| {
        CliError::new(ErrorCode::Unreachable, "the input cannot be listed")
            .because(error)
            .hinted("or say how much there is: --items 1000000 --mean-size '1 MiB'")
    };
    let (objects, prefix) = tree(place).await?;
    let rule = job.size_rule();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let listing = objects.list(&prefix, after.as_deref(), PAGE).await;
        let listing = listing.map_err(failed)?;
        for object in &listing.objects {
            match rule.route(Some(object.size_bytes)) {
                Routed::To(Lane::Container) => work.lumps += 1,
                Routed::To(Lane::Function) | Routed::TooLarge { .. } => {
                    work.fines += 1;
                    work.fine_bytes = work.fine_bytes.saturating_add(object.size_bytes);
                }
            }
        }
        after = listing.objects.last().map(|object| object.key.to_vec());
        if !listing.more || after.is_none() {
            return Ok((work, Counted::Listed));
        }
        if work.items() >= LISTED_MAX {
            return Ok((work, Counted::ListedInPart));
        }
    }
}

/// What is asked of AWS: nothing of what is embedded, or lies in directories.
fn on_aws(job: &Job, all: &Estimate) -> Estimate {
    let nothing = Usage::default();
    let in_s3 = |place: Option<&Location>, usage: Usage| match place {
        Some(Location::S3 { .. }) => usage,
        Some(Location::Path(_)) | None => nothing,
    };
    let input = match &job.input {
        InputSpec::Objects(place)
        | InputSpec::Jsonl(place)
        | InputSpec::Json(place)
        | InputSpec::Csv { file: place, .. } => Some(place),
        InputSpec::Inline(_) | InputSpec::Range { .. } | InputSpec::Events(_) => None,
    };
    let objects_read = match &job.input {
        InputSpec::Events(_) => all.objects_read,
        InputSpec::Objects(_)
        | InputSpec::Jsonl(_)
        | InputSpec::Json(_)
        | InputSpec::Csv { .. }
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => in_s3(input, all.objects_read),
    };
    let is_shared = match &job.ledger {
        LedgerUri::DynamoDb(_) => true,
        LedgerUri::Sqlite(_) => false,
    };
    // A shared ledger's scratch place is the results' if nothing else is said.
    let scratch = match (&job.scratch, is_shared) {
        (Some(place), _) => Some(place),
        (None, true) => job.results.as_ref(),
        (None, false) => None,
    };
    Estimate {
        ingest: all.ingest,
        ledger: if is_shared { all.ledger } else { nothing },
        lanes: if is_shared { all.lanes } else { nothing },
        input: in_s3(input, all.input),
        scratch: in_s3(scratch, all.scratch),
        results: in_s3(job.results.as_ref(), all.results),
        objects_read,
    }
}

/// All there is to tell.
struct Told<'a> {
    job: &'a Job,
    work: &'a Workload,
    how: Counted,
    estimate: &'a Estimate,
    prices: &'a Prices,
}

impl Told<'_> {
    fn json(&self) -> String {
        let usage = self.estimate.pipeline();
        let [dynamodb, sqs, s3] = self.estimate.usd_by_service(self.prices);
        let how = match self.how {
            Counted::Given => "given",
            Counted::Job => "job",
            Counted::Listed => "listed",
            Counted::ListedInPart => "listedInPart",
            Counted::Assumed => "assumed",
        };
        let value = serde_json::json!({
            "job": self.job.name.as_str(),
            "items": self.work.items(),
            "itemsKnownBy": how,
            "pages": self.work.pages(),
            "lumps": self.work.lumps,
            "usage": usage,
            "requests": usage.requests(),
            "usd": { "dynamodb": dynamodb, "sqs": sqs, "s3": s3, "total": usage.usd(self.prices) },
            "objectsRead": self.estimate.objects_read,
            "objectsReadUsd": self.estimate.objects_read.usd(self.prices),
            "parts": self.estimate,
            "prices": self.prices,
            "listPricesOf": Prices::LIST_OF,
        });
        json_line(&value)
    }

    fn text(&self) -> String {
        let (items, usage) = (self.work.items(), self.estimate.pipeline());
        let how = match self.how {
            Counted::Given => "as given",
            Counted::Job => "as the job says",
            Counted::Listed => "as listed",
            Counted::ListedInPart => "listed, and there are more: --items says how many",
            Counted::Assumed => "assumed, as events have no end: --items says another number",
        };
        let usd = self.estimate.usd_by_service(self.prices);
        let units = format!(
            "{} write units, {} read units",
            grouped(usage.write_units),
            grouped(usage.read_half_units.div_ceil(2))
        );
        let s3 = format!(
            "{} puts and lists, {} gets",
            grouped(usage.s3_puts),
            grouped(usage.s3_gets)
        );
        let rows = [
            ("DynamoDB", usage.dynamodb_requests, units, usd[0]),
            ("SQS", usage.sqs_requests, String::new(), usd[1]),
            ("S3", usage.s3_puts + usage.s3_gets, s3, usd[2]),
        ];
        let mut out = format!(
            "{}: {} in {} ({how})\n",
            self.job.name,
            counted(items, "item"),
            counted(self.work.pages(), "page")
        );
        for (service, requests, what, usd) in rows {
            out.push_str(&row(service, requests, usd, &what));
        }
        let total = usage.usd(self.prices);
        out.push_str(&row(
            "all",
            usage.requests(),
            total,
            &per_item(&usage, items, total),
        ));
        let read = self.estimate.objects_read;
        if read.s3_gets > 0 {
            let what = "what the calls read: apart, as it is their work";
            out.push_str(&row("objects", read.s3_gets, read.usd(self.prices), what));
        }
        let own = if *self.prices == Prices::LIST {
            ""
        } else {
            ", with prices of your own"
        };
        out + &format!(
            "list prices of {}{own}; apart: compute, storage, transfer, and the heartbeats and looks of processes, \
             a few calls a second each\n",
            Prices::LIST_OF
        )
    }
}

fn row(service: &str, requests: u64, usd: f64, what: &str) -> String {
    let requests = grouped(requests);
    let line = format!("  {service:<9} {requests:>13} calls  ${usd:>11.4}  {what}");
    format!("{}\n", line.trim_end())
}

fn per_item(usage: &Usage, items: u64, usd: f64) -> String {
    if items == 0 {
        return String::new();
    }
    let (calls, million) = (usage.requests() as f64 / items as f64, 1e6 / items as f64);
    format!(
        "{calls:.3} calls an item, ${:.2} a million items",
        usd * million
    )
}
