//! The command line of `trommel-sim`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::oracle::Violation;
use crate::point::Kind;
use crate::report;
use crate::run::{Outcome, Text, run, run_with};
use crate::scenario::{Profile, Scenario};
use crate::search::{Days, Found, Search, Until, scenario_of, search};
use crate::shrink::shrink;

/// Break a queue-driven pipeline in a simulated world, again and again, the same way each time.
#[derive(Debug, Parser)]
#[command(name = "trommel-sim", version, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds; the first that breaks a promise is made small and shown
    Run(RunArgs),
    /// Run one scenario again: a file, or a seed
    Replay(ReplayArgs),
    /// Crash the caller before every service call of a scenario, one after the other
    Explore(ExploreArgs),
    /// Look whether the same seed gives the same bytes, and whether the kept scenarios still hold
    Check(CheckArgs),
    /// Search on an emulator: what breaks there is made small in the model, and confirmed
    Fuzz(FuzzArgs),
    /// Measure how many scenarios a core runs in a second
    Bench(BenchArgs),
    /// Prints the hashes of the first seeds' traces, while everything is logged
    #[command(name = crate::same::COMMAND, hide = true)]
    Hashes { seeds: u64 },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many seeds
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// Threads; the result does not depend on it [default: one a core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// What goes wrong: swarm, low or none [default: a mix]
    #[arg(long, value_parser = profile)]
    profile: Option<Profile>,
    /// Plant this mistake in the pipeline (needs the feature `planted`)
    #[arg(long)]
    bug: Option<String>,
    /// Where the smallest failing scenario is written
    #[arg(long, default_value = "failing-scenario.json")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ReplayArgs {
    /// A scenario file, or a seed
    what: String,
    /// Plant this mistake in the pipeline (needs the feature `planted`)
    #[arg(long)]
    bug: Option<String>,
    /// Write the trace as a page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the trace as JSON Lines, each with the hash of all up to it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Make a failing scenario small first
    #[arg(long)]
    shrink: bool,
    /// Run it on an emulator instead, and compare (needs the feature `localstack`)
    #[arg(long, value_name = "EMULATOR")]
    on: Option<On>,
    /// How often, on an emulator
    #[arg(long, default_value_t = 1, requires = "on")]
    times: u32,
}

/// Writes the trace, as it is wanted.
fn keep(args: &ReplayArgs, lines: &[String], outcome: &Outcome) -> Result<(), String> {
    if let Some(path) = &args.html {
        write(path, &crate::swimlane::html(lines, outcome))?;
    }
    if let Some(path) = &args.trace {
        write(path, &report::json_lines(&outcome.trace))?;
    }
    Ok(())
}

/// Where services are that are not simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum On {
    /// What `TROMMEL_TEST_ENDPOINT` or `AWS_ENDPOINT_URL` names; else LocalStack in Docker, or MiniStack
    Localstack,
}

#[derive(Debug, clap::Args)]
struct FuzzArgs {
    /// Where (needs the feature `localstack`)
    #[arg(long, value_name = "EMULATOR")]
    on: On,
    /// For how long: 90s, 5min, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = "5min")]
    time: Duration,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Plant this mistake in the pipeline (needs the feature `planted`)
    #[arg(long)]
    bug: Option<String>,
    /// Where the smallest failing scenario is written
    #[arg(long, default_value = "failing-scenario.json")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ExploreArgs {
    /// A scenario file [default: ten items with retries and a redrive]
    scenario: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Seeds that are run three times
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Folder of kept scenarios
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Seconds for each planted bug
    #[arg(long, default_value_t = 60)]
    bug_seconds: u64,
}

#[derive(Debug, clap::Args)]
struct BenchArgs {
    /// How many scenarios
    #[arg(long, default_value_t = 500)]
    seeds: u64,
}

fn profile(text: &str) -> Result<Profile, String> {
    let known = Profile::ALL.into_iter().find(|p| p.as_str() == text);
    known.ok_or_else(|| "it is swarm, low or none".to_owned())
}

/// A number and what it counts.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return Err("it is a number with s, min or h".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "it begins with a number")?;
    Ok(Duration::from_secs(seconds * u64::from(number)))
}

/// What a program ends with that Ctrl-C ended, as shells say it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    // Panics of the simulated pipeline are told by the report.
    std::panic::set_hook(Box::new(|_| {}));
    let done = match args.command {
        Command::Run(args) => run_seeds(&args),
        Command::Replay(args) => replay(&args),
        Command::Explore(args) => explore(&args),
        Command::Check(args) => check(&args),
        Command::Fuzz(args) => fuzz(&args),
        Command::Bench(args) => Ok(bench(&args)),
        Command::Hashes { seeds } => {
            crate::same::print_with_logging(seeds, cores());
            Ok(Verdict::Holds)
        }
    };
    match done {
        Ok(Verdict::Holds) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Ok(Verdict::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(problem) => {
            eprintln!("trommel-sim: {problem}");
            ExitCode::from(2)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Broken,
    /// All that was looked at held; there was more.
    Interrupted,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Tells how far a search is, on one line of a terminal.
fn teller() -> impl Fn(u64) + Sync {
    let shows = std::io::stderr().is_terminal();
    move |done| {
        if shows && done % 100 == 0 {
            eprint!("\r{done} scenarios");
            let _ = std::io::stderr().flush();
        }
    }
}

fn run_seeds(args: &RunArgs) -> Result<Verdict, String> {
    crate::interrupt::listen()?;
    eprintln!("searching; Ctrl-C stops and tells what was found by then");
    let found = search(
        &Search {
            first: args.first,
            seeds: args.seeds,
            jobs: args.jobs.unwrap_or_else(cores),
            time_max: args.time.map(Duration::from_secs),
            days: args.profile.map_or(Days::All, Days::Of),
            until: if args.bug.is_some() {
                Until::FirstFailure
            } else {
                Until::End
            },
            bug: crate::bugs::named(args.bug.as_deref())?,
        },
        &teller(),
    );
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    if args.json {
        println!("{}", report::json(&found));
    } else {
        print!("{}", report::coverage(&found));
    }
    let Some((scenario, outcome)) = &found.failing else {
        return Ok(match crate::interrupt::is_asked() {
            true => Verdict::Interrupted,
            false => Verdict::Holds,
        });
    };
    crate::bugs::plant(crate::bugs::named(args.bug.as_deref())?);
    let told = tell_failure(&found, scenario, outcome, args);
    crate::bugs::plant(None);
    told?;
    Ok(Verdict::Broken)
}

fn tell_failure(
    found: &Found,
    scenario: &Scenario,
    outcome: &Outcome,
    args: &RunArgs,
) -> Result<(), String> {
    let Some(shrunk) = shrink(scenario, outcome) else {
        return Err(format!(
            "seed {} failed and passes when it is replayed: this is a mistake of the simulator",
            scenario.seed
        ));
    };
    let path = &args.out;
    write(path, &shrunk.scenario.to_json())?;
    let last = run(&shrunk.scenario, Text::Kept);
    let mut again = format!("trommel-sim replay {}", path.display());
    if let Some(bug) = &args.bug {
        again = format!("{again} --bug {bug}");
    }
    println!("{} of {} scenarios failed", found.failures, found.scenarios);
    for line in report::failure(&shrunk, &last, &again) {
        println!("{line}");
    }
    Ok(())
}

fn write(path: &PathBuf, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_scenario(path: &PathBuf) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    Scenario::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn replay(args: &ReplayArgs) -> Result<Verdict, String> {
    let mut scenario = match args.what.parse() {
        Ok(seed) => scenario_of(seed, Days::All),
        Err(_) => read_scenario(&PathBuf::from(&args.what))?,
    };
    crate::bugs::plant(crate::bugs::named(args.bug.as_deref())?);
    if let Some(On::Localstack) = args.on {
        return replay_on_an_emulator(&scenario, args);
    }
    let mut outcome = run(&scenario, Text::Kept);
    let again = format!("trommel-sim replay {}", args.what);
    let mut lines = report::passed(&scenario, &outcome);
    if outcome.violation.is_some() && args.shrink {
        let shrunk = shrink(&scenario, &outcome);
        let shrunk = shrunk.ok_or("it failed once and passes again: a mistake of the simulator")?;
        scenario = shrunk.scenario.clone();
        outcome = run(&scenario, Text::Kept);
        lines = report::failure(&shrunk, &outcome, &again);
    } else if let Some(violation) = &outcome.violation {
        lines = report::broken(&scenario, violation, &outcome, &again);
    }
    for line in &lines {
        println!("{line}");
    }
    keep(args, &lines, &outcome)?;
    Ok(match outcome.violation {
        Some(_) => Verdict::Broken,
        None => Verdict::Holds,
    })
}

#[cfg(not(feature = "localstack"))]
const NO_EMULATOR: &str = "build it with `--features localstack` to play on an emulator";

#[cfg(not(feature = "localstack"))]
fn replay_on_an_emulator(_: &Scenario, _: &ReplayArgs) -> Result<Verdict, String> {
    Err(NO_EMULATOR.to_owned())
}

#[cfg(not(feature = "localstack"))]
fn fuzz(_: &FuzzArgs) -> Result<Verdict, String> {
    Err(NO_EMULATOR.to_owned())
}

#[cfg(feature = "localstack")]
fn replay_on_an_emulator(scenario: &Scenario, args: &ReplayArgs) -> Result<Verdict, String> {
    let keep = |outcome: &Outcome| keep(args, &[], outcome);
    crate::emulator::commands::replay(scenario, args.times, &keep).map(Verdict::from)
}

#[cfg(feature = "localstack")]
fn fuzz(args: &FuzzArgs) -> Result<Verdict, String> {
    crate::bugs::plant(crate::bugs::named(args.bug.as_deref())?);
    let wanted = crate::emulator::fuzz::Fuzz {
        first: args.first,
        time_max: args.time,
    };
    let mut again = format!("trommel-sim replay {}", args.out.display());
    if let Some(bug) = &args.bug {
        again = format!("{again} --bug {bug}");
    }
    crate::emulator::commands::search(&wanted, &args.out, &again).map(Verdict::from)
}

#[cfg(feature = "localstack")]
impl From<crate::emulator::commands::Said> for Verdict {
    fn from(said: crate::emulator::commands::Said) -> Self {
        match said {
            crate::emulator::commands::Said::Holds => Self::Holds,
            crate::emulator::commands::Said::Broken => Self::Broken,
        }
    }
}

/// Ten items, retries, failures, a redrive: what `explore` crashes at every call.
fn small_scenario() -> Scenario {
    let mut scenario = Scenario::generate(1, Profile::None);
    scenario.workers = 1;
    scenario.workload.small = 7;
    scenario.workload.large = 3;
    scenario.tuning.max_concurrency = 4;
    scenario.tuning.retries = 1;
    scenario.tuning.interval_ms = 500;
    scenario.tuning.tolerated = 10;
    scenario.handler.flaky = 300_000;
    scenario.handler.bad = 200_000;
    scenario.redrives = 1;
    scenario
}

fn explore(args: &ExploreArgs) -> Result<Verdict, String> {
    let scenario = match &args.scenario {
        Some(path) => read_scenario(path)?,
        None => small_scenario(),
    };
    let calm = run(&scenario, Text::Hashed);
    if let Some(violation) = calm.violation {
        return Err(format!("it fails without a crash: {violation:?}"));
    }
    let calls: u64 = calm.calls.values().sum();
    let (mut points, mut broken) = (0_u64, 0_u64);
    for call in 1..=calls {
        for kind in [Kind::CrashBefore, Kind::CrashAfter] {
            points += 1;
            let outcome = run_with(&scenario, Text::Hashed, Some((call, kind)));
            let Some(violation) = outcome.violation else {
                continue;
            };
            broken += 1;
            let Violation { oracle, seen } = violation;
            println!("{} call {call}: {oracle}: {seen}", kind.as_str());
        }
    }
    println!(
        "{points} points ({calls} service calls, a crash before and after each): {} recovered",
        points - broken
    );
    Ok(if broken == 0 {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

fn check(args: &CheckArgs) -> Result<Verdict, String> {
    let mut verdict = Verdict::Holds;
    let differ = crate::same::differing(args.seeds, cores().max(2))?;
    println!(
        "determinism: {} seeds, at one thread, at several, and in another process that logs: {} differ",
        args.seeds,
        differ.len()
    );
    if !differ.is_empty() {
        println!("  {differ:?}");
        verdict = Verdict::Broken;
    }
    if let Some(folder) = &args.corpus {
        let (kept, broken) = crate::corpus::replay_all(folder)?;
        println!(
            "corpus: {kept} scenarios, {} do not come to what they say",
            broken.len()
        );
        for line in &broken {
            println!("  {line}");
            verdict = Verdict::Broken;
        }
    }
    let table = crate::bugs::find_all(Duration::from_secs(args.bug_seconds));
    for line in &table.lines {
        println!("{line}");
    }
    if table.missed > 0 {
        verdict = Verdict::Broken;
    }
    Ok(verdict)
}

fn bench(args: &BenchArgs) -> Verdict {
    for (what, days) in [
        ("20 items, 4 workers", Days::Measured),
        ("as `run` draws them", Days::All),
    ] {
        let wanted = Search {
            first: 0,
            seeds: args.seeds,
            jobs: 1,
            time_max: None,
            days,
            until: Until::End,
            bug: None,
        };
        let found = search(&wanted, &teller());
        println!("{what}, one core: {}", report::speed(&found));
    }
    Verdict::Holds
}
