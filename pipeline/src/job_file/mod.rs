//! The job file: TOML text in, a [`Job`] out, or everything that is wrong with it.
//!
//! Pure but for the environment, which is asked through a closure: a run stores the text and the
//! directory it stood in, and reads the same job out of them again at every resume and redrive.
//! Whether files, programs and buckets exist is not checked here but when they are opened.
//!
//! Reading order: [`parse`], then `input`, `lanes` and `rules` (what the tables mean), `reading` (how
//! they are walked), `places` and `units` (how values are written), [`error`].

mod check;
pub mod error;
mod events;
mod executors;
mod input;
mod lanes;
mod places;
mod reading;
mod rules;
pub(crate) mod suggest;
pub(crate) mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::core::id::JobName;
use crate::core::job::{ExecutorSpec, InputSpec, Job, LedgerUri, Location, OnBreach};
use crate::core::lane::Lane;

use check::Placed;
use error::Code;
use lanes::ReadLane;
use reading::{Fields, Origin, Problem, Reading};

pub use error::{JobError, JobErrors};
pub use places::LEDGER_DEFAULT;
pub use reading::Env;

/// The longest text of a job file. It is stored in the run's row, and DynamoDB's items hold 400 KB
/// ("Quotas in Amazon DynamoDB").
pub const JOB_BYTES_MAX: usize = 256 * 1024;

/// The most calls at one time: far more than one job can use, and a slip of the keyboard beyond it.
pub const MAX_CONCURRENCY_MAX: u32 = 1_000_000;

/// Max concurrency where nothing else is said and no command runs on this machine: the most that
/// a Distributed Map starts at one time ("Map state's concurrency").
pub const MAX_CONCURRENCY_DEFAULT: u32 = 10_000;

/// How the two ways to replace the ledger are named in errors.
const LEDGER_FLAG: &str = "--ledger or TROMMEL_LEDGER";

const KEYS: [&str; 14] = [
    "name",
    "input",
    "max_concurrency",
    "tolerated_failure_count",
    "tolerated_failure_percentage",
    "fail_fast",
    "on_breach",
    "results",
    "ledger",
    "scratch",
    "function",
    "container",
    "retry",
    "catch",
];

/// What carries out the calls of a lane that names no executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executors {
    /// Nothing: a lane must name its command.
    Commands,
    /// The handler that the embedding program gives.
    InProcess,
}

/// What is known beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// What a lane without an executor means.
    pub executors: Executors,
    /// Cores of this machine: the default of max concurrency where commands run.
    pub cores: u32,
    /// What the command line or the environment said instead of the file.
    pub overrides: Overrides,
}

/// What replaces values of the file. Stored with the run, so that it is read the same way again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// The absolute directory that these paths are relative to: where the command was given.
    pub dir: PathBuf,
    /// `--input`: another place for the same kind of input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// `--results`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// `--ledger` or `TROMMEL_LEDGER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// `--max-concurrency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
}

/// Reads a job out of the text of a job file.
///
/// `file_name` is the file as the user named it (shown in errors; it also names a job without a
/// name), `base` the absolute directory it stands in, `env` the environment.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn parse(
    text: &str,
    file_name: &str,
    base: &Path,
    env: &Env<'_>,
    options: &ParseOptions,
) -> Result<Job, JobErrors> {
    let mut reading = Reading::new(text, file_name, base, env);
    if text.len() > JOB_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, more than {JOB_BYTES_MAX}",
            text.len()
        );
        let help = "put long lists of items into a file of their own, and read it with `jsonl`";
        reading.refuse(Origin::Whole, Problem::new(Code::TooMuch, message, help));
        return Err(reading.finish().expect("one error was just noted"));
    }
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        let message = format!("not TOML: {}", error.message().trim().replace('\n', ", "));
        let help = match error.message() {
            "duplicate key" => "keep one of them",
            _ => "see https://toml.io for how it is written; texts need quotes",
        };
        let span = error.span().unwrap_or(text.len()..text.len());
        reading.refuse_at(span, Problem::new(Code::Syntax, message, help));
    }
    // The span of the document is of no use in messages: an empty one means the file as a whole.
    let fields = reading.open("the job", (document.get_ref(), 0..0), &KEYS);
    let job = read(&mut reading, &fields, options);
    match (reading.finish(), job) {
        (None, Some(job)) => Ok(job),
        (Some(errors), _) => Err(errors),
        (None, None) => unreachable!("a value is refused only with a note"),
    }
}

/// Reads a ledger's address as `--ledger` and `TROMMEL_LEDGER` give it, relative to `dir`.
///
/// # Errors
/// What is wrong, with a way out.
pub fn parse_ledger(text: &str, dir: &Path, env: &Env<'_>) -> Result<LedgerUri, JobErrors> {
    let mut reading = Reading::new("", LEDGER_FLAG, dir, env);
    match places::ledger_uri(text, dir, env) {
        Ok(ledger) => Ok(ledger),
        Err(problem) => {
            reading.refuse(Origin::Flag(LEDGER_FLAG), problem);
            Err(reading.finish().expect("one error was just noted"))
        }
    }
}

fn read(reading: &mut Reading<'_>, job: &Fields<'_>, options: &ParseOptions) -> Option<Job> {
    let overrides = &options.overrides;
    let name = name(reading, job);
    reading.require(
        job,
        "input",
        "say what to read: input = { objects = \"./in\" }",
    );
    let input = input::read(reading, job).map(|input| replace_input(reading, input, overrides));
    let tolerance = rules::tolerance(reading, job);
    let fail_fast = rules::fail_fast(reading, job);
    let breaches = [("fail", OnBreach::Fail), ("pause", OnBreach::Pause)];
    let on_breach = reading
        .word(job, "on_breach", &breaches)
        .unwrap_or(OnBreach::Fail);
    let results = location(
        reading,
        job,
        "results",
        ("--results", overrides.results.as_deref(), &overrides.dir),
    );
    let scratch = location(reading, job, "scratch", ("", None, &overrides.dir));
    let ledger = ledger(reading, job, overrides);
    let function = lanes::read(reading, job, Lane::Function, options.executors);
    let container = lanes::read(reading, job, Lane::Container, options.executors);
    let has_container = job.get("container").is_some();
    let mut retry = rules::retries(reading, job);
    let mut catch = rules::catches(reading, job, has_container);
    if let Some(InputSpec::Events(events)) = &input {
        events::add_rules(events, &mut retry, &mut catch);
    }
    let max_concurrency = max_concurrency(
        reading,
        job,
        options,
        [function.as_ref(), container.as_ref()],
    );

    if let (Some(function), Some(container), Some(input)) = (&function, &container, &input) {
        check::lanes(reading, function, container, input);
    }
    if let (Some(function), Some(input)) = (&function, &input) {
        check::batch_arguments(reading, function, input);
    }
    for lane in [&function, &container].into_iter().flatten() {
        let job = name.as_ref().zip(ledger.as_ref().map(|(uri, _)| uri));
        check::task_events(reading, lane, input.as_ref(), job);
    }
    if let Some(ledger) = &ledger {
        check::written(
            reading,
            input.as_ref(),
            ledger,
            [("results", &results), ("scratch", &scratch)],
        );
        if let Some(name) = &name {
            check::queue_names(reading, name, ledger);
        }
    }
    Some(Job {
        name: name?,
        input: input?,
        max_concurrency: max_concurrency?,
        tolerance,
        fail_fast,
        on_breach,
        results: results.map(|(location, _)| location),
        ledger: ledger?.0,
        scratch: scratch.map(|(location, _)| location),
        function: function?.spec,
        container: container.map(|lane| lane.spec),
        retry,
        catch,
    })
}

fn name(reading: &mut Reading<'_>, job: &Fields<'_>) -> Option<JobName> {
    if job.get("name").is_none() {
        return Some(JobName::new(default_name(
            reading.file_name(),
            reading.base,
        )));
    }
    let name = reading.text(job, "name", "\"thumbnails\"")?;
    if let Some(problem) = JobName::problem(name.get_ref()) {
        let message = format!("the name {:?} {problem}", name.get_ref());
        let help = format!("write name = {:?}", sanitised(name.get_ref()));
        reading.refuse_at(name.span(), Problem::new(Code::BadName, message, help));
        return None;
    }
    Some(JobName::new(name.get_ref()))
}

/// The file's stem; of a file that is called as any job file may be, its directory's name.
fn default_name(file_name: &str, base: &Path) -> String {
    const ANY: [&str; 3] = ["job", "trommel", "pipeline"];
    let stem = Path::new(file_name)
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let directory = || {
        base.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    match stem {
        Some(stem) if !ANY.contains(&stem.as_str()) => sanitised(&stem),
        stem => sanitised(&directory().or(stem).unwrap_or_default()),
    }
}

/// The text with everything that cannot be in a job's name as single dashes; never empty.
fn sanitised(text: &str) -> String {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let name = parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let name = name[..name.len().min(JobName::CHARS_MAX)].trim_end_matches('-');
    if name.is_empty() {
        "job".to_owned()
    } else {
        name.to_owned()
    }
}

fn max_concurrency(
    reading: &mut Reading<'_>,
    job: &Fields<'_>,
    options: &ParseOptions,
    lanes: [Option<&ReadLane>; 2],
) -> Option<u32> {
    const KEY: &str = "max_concurrency";
    let written = reading.whole(job, KEY, 1..=u64::from(MAX_CONCURRENCY_MAX));
    if let Some(number) = options.overrides.max_concurrency {
        if number == 0 || number > MAX_CONCURRENCY_MAX {
            let message = format!("--max-concurrency cannot be {number}");
            let help = format!("give a whole number from 1 to {MAX_CONCURRENCY_MAX}");
            let problem = Problem::new(Code::OutOfBounds, message, help);
            reading.refuse(Origin::Flag("--max-concurrency"), problem);
            return None;
        }
        return Some(number);
    }
    if job.get(KEY).is_some() {
        return written.map(|number| u32::try_from(number).expect("at most MAX_CONCURRENCY_MAX"));
    }
    let computes_here = lanes
        .into_iter()
        .flatten()
        .any(|lane| match lane.spec.executor {
            ExecutorSpec::Command { .. } | ExecutorSpec::Handler(_) | ExecutorSpec::Docker(_) => {
                true
            }
            ExecutorSpec::Lambda(_) | ExecutorSpec::Ecs(_) | ExecutorSpec::InProcess => false,
        });
    Some(if computes_here {
        options.cores.max(1)
    } else {
        MAX_CONCURRENCY_DEFAULT
    })
}

fn replace_input(reading: &mut Reading<'_>, input: InputSpec, overrides: &Overrides) -> InputSpec {
    let Some(text) = &overrides.input else {
        return input;
    };
    match places::location(text, &overrides.dir, reading.env) {
        Ok(location) => input::replace(reading, input, location),
        Err(problem) => {
            reading.refuse(Origin::Flag("--input"), problem);
            input
        }
    }
}

/// A place that the file names under `key`, unless an option of the command line replaces it.
fn location(
    reading: &mut Reading<'_>,
    job: &Fields<'_>,
    key: &str,
    (flag, instead, dir): (&'static str, Option<&str>, &Path),
) -> Option<Placed<Location>> {
    let written = reading.text(job, key, "\"./out\"").and_then(|text| {
        let location = places::location(text.get_ref(), reading.base, reading.env);
        let location = reading.take(text.span(), location)?;
        Some((location, Origin::File(text.span())))
    });
    let Some(text) = instead else {
        return written;
    };
    match places::location(text, dir, reading.env) {
        Ok(location) => Some((location, Origin::Flag(flag))),
        Err(problem) => {
            reading.refuse(Origin::Flag(flag), problem);
            None
        }
    }
}

fn ledger(
    reading: &mut Reading<'_>,
    job: &Fields<'_>,
    overrides: &Overrides,
) -> Option<Placed<LedgerUri>> {
    let written = reading
        .text(job, "ledger", &format!("\"{LEDGER_DEFAULT}\""))
        .and_then(|text| {
            let ledger = places::ledger_uri(text.get_ref(), reading.base, reading.env);
            let ledger = reading.take(text.span(), ledger)?;
            Some((ledger, Origin::File(text.span())))
        });
    let (text, dir, origin) = match (&overrides.ledger, job.get("ledger")) {
        (Some(text), _) => (
            text.as_str(),
            overrides.dir.as_path(),
            Origin::Flag(LEDGER_FLAG),
        ),
        (None, Some(_)) => return written,
        (None, None) => (LEDGER_DEFAULT, overrides.dir.as_path(), Origin::Whole),
    };
    match places::ledger_uri(text, dir, reading.env) {
        Ok(ledger) => Some((ledger, origin)),
        Err(problem) => {
            reading.refuse(origin, problem);
            None
        }
    }
}
