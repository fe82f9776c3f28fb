//! The command line: commands, options and their help.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::core::class::Class;
use crate::core::duty::Duty;
use crate::core::id::{ItemId, RunId};
use crate::core::lane::Lane;
use crate::core::price::Prices;
use crate::core::time::Timestamp;
use crate::core::tolerance::Percent;
use crate::job_file::units;
use crate::runner::Role;

use super::view::ItemState;

const AFTER_HELP: &str = "\
Examples:
  trommel run thumbnails.toml             start a run and watch it
  trommel items latest --group            why items failed, by kind
  trommel redrive latest --class Timeout  run again what timed out

Exit codes: 0 all succeeded, 3 succeeded with tolerated failures, 1 failed or aborted, 5 paused,
2 usage or configuration, 4 endpoint or credentials, 6 audit disagrees, 130 after Ctrl-C, 143 after SIGTERM.";

/// Sorts work by size, keeps the state of every item, redrives what failed.
#[derive(Clone, Debug, Parser)]
#[command(name = "trommel", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(
    propagate_version = true,
    infer_subcommands = false,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print data as JSON, one object or list a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// How the log on standard error is written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Everywhere"
    )]
    pub log: LogFormat,
    /// The ledger, instead of the job's: sqlite:PATH or dynamodb:TABLE
    #[arg(
        long,
        global = true,
        value_name = "URI",
        env = "TROMMEL_LEDGER",
        hide_env_values = true,
        help_heading = "Everywhere"
    )]
    ledger: Option<String>,
    /// No progress, no hints; errors only
    #[arg(short, long, global = true, help_heading = "Everywhere")]
    pub quiet: bool,
}

impl Global {
    /// The ledger that replaces the job's; an empty variable is none.
    pub fn ledger(&self) -> Option<&str> {
        self.ledger.as_deref().filter(|uri| !uri.is_empty())
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start a new run of a job and watch it
    Run(RunArgs),
    /// Take in the events of a job until told to stop: each window is a run
    Serve(ServeArgs),
    /// Help a run that is going on: take work of one lane until told to stop
    Worker(WorkerArgs),
    /// Show how a run stands
    Status(StatusArgs),
    /// List the runs of the ledger, the latest first
    Runs(RunsArgs),
    /// List items of a run, or group its failures
    Items(ItemsArgs),
    /// List the messages of a job that nobody could read (event mode)
    Quarantine(QuarantineArgs),
    /// Show all about one item: input, attempts, causes, output
    Show(ShowArgs),
    /// Run again what did not succeed
    Redrive(RedriveArgs),
    /// Stop handing out work; calls that run go on to their end
    Pause(OneRun),
    /// Go on with a run that is paused, or that lost its process
    Resume(ResumeArgs),
    /// End a run for good; what did not run is left pending and can be redriven
    Stop(OneRun),
    /// Count everything again and compare with what the ledger says
    Audit(OneRun),
    /// Make what a job needs on AWS, and print the policy its processes need
    Provision(ProvisionArgs),
    /// Look whether what a job needs is there, as it should be, and reached
    Doctor(DoctorArgs),
    /// Say what a job will ask of AWS and cost, before it starts
    Estimate(EstimateArgs),
    /// Find objects whose events were lost, and have them taken in
    Reconcile(ReconcileArgs),
    /// Ends the process groups of calls when the process that started it dies
    #[command(name = "__reaper", hide = true)]
    Reaper,
}

/// Which run: its id, or the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunRef {
    /// The run that was started last.
    Latest,
    /// This one.
    Id(RunId),
}

impl FromStr for RunRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// Longer than any id; keys of the ledger stay small.
        const CHARS_MAX: usize = 64;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match text {
            "latest" => Ok(Self::Latest),
            _ if text.is_empty() || text.len() > CHARS_MAX || !text.chars().all(plain) => Err(
                "a run is called like brave-heron-4f2a, or `latest`; see `trommel runs`".to_owned(),
            ),
            _ => Ok(Self::Id(RunId::new(text))),
        }
    }
}

/// A command on one run.
#[derive(Clone, Debug, Args)]
pub struct OneRun {
    /// The run
    #[arg(value_name = "RUN", default_value = "latest", value_parser = RunRef::from_str)]
    pub run: RunRef,
}

/// `run`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  trommel run thumbnails.toml\n  trommel run thumbnails.toml --input ./january --max-concurrency 8"
)]
pub struct RunArgs {
    /// The job file
    pub job: PathBuf,
    /// Read from here instead of the place that the job names
    #[arg(long, value_name = "PATH")]
    pub input: Option<String>,
    /// Write the result files here
    #[arg(long, value_name = "PATH")]
    pub results: Option<String>,
    /// Calls at one time, over all processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrency: Option<u32>,
    /// What this process does: all, or router (reads, routes and judges; calls are left to `worker`s)
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = role)]
    pub role: Role,
}

/// `serve`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  trommel serve photos.toml\n  trommel serve photos.toml --role router"
)]
pub struct ServeArgs {
    /// The job file: its input is events = "sqs:QUEUE"
    pub job: PathBuf,
    /// What this process does: all, or router (takes in, judges, compiles; calls are left to `worker`s)
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = role)]
    pub role: Role,
    /// Answer GET /healthz at this port of the loopback interface, or at ADDRESS:PORT: 200 while the process works
    #[arg(long, value_name = "PORT", value_parser = address)]
    pub health: Option<SocketAddr>,
}

/// `worker`.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// The job file
    pub job: PathBuf,
    /// The lane to take work from: function or container
    #[arg(long, value_parser = lane)]
    pub lane: Lane,
    /// Answer GET /healthz at this port of the loopback interface, or at ADDRESS:PORT: 200 while the process works
    #[arg(long, value_name = "PORT", value_parser = address)]
    pub health: Option<SocketAddr>,
}

/// `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// The run
    #[command(flatten)]
    pub run: OneRun,
    /// Stay and show changes until the run is over
    #[arg(short, long)]
    pub watch: bool,
}

/// `runs`.
#[derive(Clone, Debug, Args)]
pub struct RunsArgs {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `items`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  trommel items latest --group\n  trommel items latest --state failed --class Timeout --limit 10"
)]
pub struct ItemsArgs {
    /// The run
    #[command(flatten)]
    pub run: OneRun,
    /// Only items in this state; may be given again: pending, running, succeeded, failed, timedOut, aborted, skipped
    #[arg(long, value_name = "STATE", value_parser = state, hide_possible_values = true)]
    pub state: Vec<ItemState>,
    /// Only failures of this class; may be given again
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub class: Vec<Class>,
    /// Group failures by what their causes have in common
    #[arg(long, conflicts_with = "limit")]
    pub group: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `quarantine`.
#[derive(Clone, Debug, Args)]
pub struct QuarantineArgs {
    /// The job's name; without it, the job of the latest run
    pub job: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `show`.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "trommel show [OPTIONS] [RUN] <ITEM>")]
#[command(
    after_help = "Examples:\n  trommel show 3-17-42\n  trommel show brave-heron-4f2a 3-17-42"
)]
pub struct ShowArgs {
    /// The run; or the item, of the latest run
    #[arg(value_name = "RUN|ITEM")]
    first: String,
    /// The item, such as 3-17-42
    #[arg(value_name = "ITEM")]
    second: Option<String>,
}

impl ShowArgs {
    /// The run and the item.
    ///
    /// # Errors
    /// Says what is wrong with either.
    pub fn target(&self) -> Result<(RunRef, ItemId), String> {
        let (run, item) = match &self.second {
            Some(item) => (self.first.parse()?, item),
            None => (RunRef::Latest, &self.first),
        };
        let item = item
            .parse()
            .map_err(|_| format!("{item:?} is no item: they are called like 3-17-42"))?;
        Ok((run, item))
    }
}

/// `redrive`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without a selection: everything that failed, timed out, was aborted or is pending. Several options
select what fulfils all of them. What succeeded never runs again.

Examples:
  trommel redrive latest --dry-run               how many items, and what it costs
  trommel redrive latest --class Timeout
  trommel redrive latest --key 'in/2026/*' --larger '64 MiB'
  trommel redrive latest --items 3-17-42,3-17-43")]
pub struct RedriveArgs {
    /// The run
    #[command(flatten)]
    pub run: OneRun,
    /// Go on with this job file instead of the one stored with the run
    #[arg(long, value_name = "FILE")]
    pub job: Option<PathBuf>,
    /// Take sources as they are now instead of failing as SourceChanged
    #[arg(long)]
    pub refresh: bool,
    /// Say what would run again, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the work to processes that are running
    #[arg(long)]
    pub detach: bool,
    /// What this process does: all, or router (reopens and judges; calls are left to `worker`s)
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = role)]
    pub role: Role,
    /// What to select.
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Which items to run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Items in this state; may be given again: pending, failed, timedOut, aborted, skipped
    #[arg(long, value_name = "STATE", value_parser = redrivable)]
    pub state: Vec<ItemState>,
    /// Failures of this class; may be given again
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub class: Vec<Class>,
    /// Failures with this fingerprint, as `items --group` prints it; may be given again
    #[arg(long, value_name = "TEXT")]
    pub fingerprint: Vec<String>,
    /// Objects whose key matches: `*` and `?` match within a key, `/` included
    #[arg(long, value_name = "GLOB", value_parser = key_glob)]
    pub key: Option<String>,
    /// Objects larger than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub larger: Option<u64>,
    /// Objects smaller than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub smaller: Option<u64>,
    /// These items: a list with commas, a file with one a line, or - for standard input
    #[arg(long, value_name = "LIST|FILE", value_parser = ItemList::from_str)]
    pub items: Option<ItemList>,
}

/// Items named by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemList {
    /// In the command line.
    Given(Vec<ItemId>),
    /// In a file, one a line.
    File(PathBuf),
    /// On standard input, one a line.
    Stdin,
}

impl FromStr for ItemList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items: Result<Vec<ItemId>, _> =
            text.split(',').map(|item| item.trim().parse()).collect();
        match (text, items) {
            ("-", _) => Ok(Self::Stdin),
            ("", _) => Err("name at least one item".to_owned()),
            (_, Ok(items)) => Ok(Self::Given(items)),
            (_, Err(_)) if text.contains(',') => Err("items are called like 3-17-42".to_owned()),
            (_, Err(_)) => Ok(Self::File(text.into())),
        }
    }
}

impl ItemList {
    /// Reads the lines of a file or of standard input; blank ones and those that begin with `#` are
    /// left out.
    ///
    /// # Errors
    /// Names the first line that is no item.
    pub fn read_lines(text: &str) -> Result<Vec<ItemId>, String> {
        let lines = text.lines().map(str::trim).enumerate();
        lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| {
                line.parse()
                    .map_err(|_| format!("line {}: {line:?} is no item", at + 1))
            })
            .collect()
    }
}

/// `resume`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  trommel resume latest\n  trommel resume latest --tolerated-failure-count 100\n  trommel resume latest --to-the-end"
)]
pub struct ResumeArgs {
    /// The run
    #[command(flatten)]
    pub run: OneRun,
    /// From now on tolerate at most so many failures
    #[arg(long, value_name = "N")]
    pub tolerated_failure_count: Option<u64>,
    /// From now on tolerate at most this share of failures
    #[arg(long, value_name = "P", value_parser = Percent::from_str)]
    pub tolerated_failure_percentage: Option<Percent>,
    /// Run everything, however many fail; the verdict stays FAILED
    #[arg(long, conflicts_with_all = ["tolerated_failure_count", "tolerated_failure_percentage"])]
    pub to_the_end: bool,
    /// Go on with this job file instead of the one stored with the run
    #[arg(long, value_name = "FILE")]
    pub job: Option<PathBuf>,
    /// Leave the work to processes that are running
    #[arg(long)]
    pub detach: bool,
    /// What this process does: all, or router (reads, routes and judges; calls are left to `worker`s)
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = role)]
    pub role: Role,
}

/// `provision`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Makes the ledger's table with its time to live and a queue for each lane; for events also the
ingest queue with its dead-letter queue, S3's leave to send, and the bucket's notification. What is
there is changed only where it differs, and what is not Trommel's (other statements of a policy,
other notifications of a bucket) is kept.

Examples:
  trommel provision photos.toml                     what would be made, and the policy
  trommel provision photos.toml --apply
  trommel provision photos.toml --role worker --json")]
pub struct ProvisionArgs {
    /// The job file
    pub job: PathBuf,
    /// Say what would be made or changed, and do nothing: the default
    #[arg(long, conflicts_with = "apply")]
    pub dry_run: bool,
    /// Make it
    #[arg(long)]
    pub apply: bool,
    /// Whose policy is printed: all, router or worker
    #[arg(long, value_name = "ROLE", default_value = "all", value_parser = duty)]
    pub role: Duty,
}

/// `doctor`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exits 0 if nothing fails, 4 if anything does; warnings do not count.\n\nExamples:\n  trommel doctor photos.toml"
)]
pub struct DoctorArgs {
    /// The job file
    pub job: PathBuf,
}

/// `estimate`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Counts requests, write and read units by service, for work that is there when it starts. Ranges and
inline values are counted by themselves, objects by listing up to 100,000 of them; files of rows and
events want --items.

Examples:
  trommel estimate photos.toml --items 5000000 --mean-size '2 MiB'
  trommel estimate photos.toml --prices frankfurt.toml")]
pub struct EstimateArgs {
    /// The job file
    pub job: PathBuf,
    /// So many items, instead of counting them
    #[arg(long, value_name = "N")]
    pub items: Option<u64>,
    /// How large objects are, with --items or events: it decides their lane
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub mean_size: Option<u64>,
    /// A TOML file with prices of your own: write_unit_million_usd = 0.7, and so on
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Prices given here.
    #[command(flatten)]
    pub own: PriceArgs,
}

/// Prices that replace those of the list: options, and the keys of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Prices, in US dollars")]
#[expect(clippy::struct_field_names, reason = "the names of the options")]
pub struct PriceArgs {
    /// A million of DynamoDB's write units
    #[arg(long, value_name = "USD", value_parser = price)]
    write_unit_million_usd: Option<f64>,
    /// A million of DynamoDB's read units
    #[arg(long, value_name = "USD", value_parser = price)]
    read_unit_million_usd: Option<f64>,
    /// A million requests to SQS
    #[arg(long, value_name = "USD", value_parser = price)]
    sqs_request_million_usd: Option<f64>,
    /// A million puts and lists of S3
    #[arg(long, value_name = "USD", value_parser = price)]
    s3_put_million_usd: Option<f64>,
    /// A million gets of S3
    #[arg(long, value_name = "USD", value_parser = price)]
    s3_get_million_usd: Option<f64>,
}

impl PriceArgs {
    /// Puts what is given in the place of what is there.
    pub fn put_over(&self, prices: &mut Prices) {
        for (given, price) in [
            (
                self.write_unit_million_usd,
                &mut prices.write_unit_million_usd,
            ),
            (
                self.read_unit_million_usd,
                &mut prices.read_unit_million_usd,
            ),
            (
                self.sqs_request_million_usd,
                &mut prices.sqs_request_million_usd,
            ),
            (self.s3_put_million_usd, &mut prices.s3_put_million_usd),
            (self.s3_get_million_usd, &mut prices.s3_get_million_usd),
        ] {
            *price = given.unwrap_or(*price);
        }
    }
}

/// `reconcile`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Lists the job's bucket and prefix, and compares what was written since WHEN with the marks of what
was taken in. Marks go after 28 days, so nothing older can be told. Says what is missing and what
taking it in costs; with --apply it sends a message for each to the ingest queue, where it is taken
in as any event is.

Examples:
  trommel reconcile photos.toml --since 2h
  trommel reconcile photos.toml --since 2026-11-20 --apply
  trommel reconcile photos.toml --since 2026-11-20T08:00:00Z --apply --yes")]
pub struct ReconcileArgs {
    /// The job file: its input is events, its bucket is named
    pub job: PathBuf,
    /// What was written from then on: 2h, 3days, 2026-11-20 (UTC), 2026-11-20T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = Since::from_str)]
    pub since: Since,
    /// What was written within the last so long is left to its events
    #[arg(long, value_name = "DURATION", default_value = "15min", value_parser = humantime::parse_duration)]
    pub leave: Duration,
    /// Have it taken in
    #[arg(long)]
    pub apply: bool,
    /// Do not ask, however many there are
    #[arg(long, requires = "apply")]
    pub yes: bool,
}

/// A moment, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// This moment.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl Since {
    /// The moment that is meant.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Timestamp(now.0.saturating_sub(ago))
            }
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp(moment.as_millisecond())));
        }
        if let Ok(date) = text.parse::<jiff::civil::Date>() {
            let midnight = date.to_zoned(jiff::tz::TimeZone::UTC);
            let midnight = midnight.map_err(|error| error.to_string())?;
            return Ok(Self::At(Timestamp(midnight.timestamp().as_millisecond())));
        }
        let ago = humantime::parse_duration(text);
        ago.map(Self::Ago).map_err(|_| {
            "write how long ago (2h, 3days), a date, or a moment (2026-11-20T08:00:00Z)".to_owned()
        })
    }
}

fn duty(text: &str) -> Result<Duty, String> {
    Duty::from_name(text).ok_or_else(|| "a role is `all`, `router` or `worker`".to_owned())
}

fn price(text: &str) -> Result<f64, String> {
    let price = text
        .parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "a price is a number of dollars, 0.625 for example".to_owned())
}

fn lane(text: &str) -> Result<Lane, String> {
    Lane::from_name(text).ok_or_else(|| "a lane is `function` or `container`".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| "a role is `all` or `router`".to_owned())
}

/// A port alone is one of the loopback interface: nobody is told who was not named.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| "write a port, or an address and a port: 8080, 0.0.0.0:8080".to_owned())
}

fn state(text: &str) -> Result<ItemState, String> {
    let squeezed = text.replace(['-', '_'], "").to_lowercase();
    let states = ItemState::ALL.iter();
    let names: Vec<&str> = ItemState::ALL.map(ItemState::as_str).to_vec();
    states
        .copied()
        .find(|state| state.as_str().to_lowercase() == squeezed)
        .ok_or_else(|| format!("a state is {}", crate::job_file::suggest::one_of(&names)))
}

fn redrivable(text: &str) -> Result<ItemState, String> {
    use crate::core::outcome::Outcome;
    let state = state(text)?;
    match state {
        ItemState::Settled(Outcome::Succeeded) => Err("what succeeded never runs again".to_owned()),
        ItemState::Running => Err("no item runs in a run that can be redriven".to_owned()),
        ItemState::Pending
        | ItemState::Settled(
            Outcome::Failed | Outcome::TimedOut | Outcome::Aborted | Outcome::Skipped,
        ) => Ok(state),
    }
}

// clap wants a Result even where every name is a class.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the shape that clap's value parsers have"
)]
fn class(text: &str) -> Result<Class, String> {
    Ok(Class::from_name(text))
}

fn size(text: &str) -> Result<u64, String> {
    units::size(text).map_err(|problem| format!("{problem}; write it like \"64 MiB\""))
}

fn key_glob(text: &str) -> Result<String, String> {
    globset::Glob::new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
