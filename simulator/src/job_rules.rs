//! What a scenario's job says beside its tuning, and the job file that says both: the job of every scenario is
//! read from its text, as a user's is.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use trommel::core::job::Job;
use trommel::core::redrive::Selection;

use crate::entropy::Stream;
use crate::own::{Data, job_of};
use crate::scenario::{LARGE_BYTES, LINES_KEY, SMALL_BYTES_MAX, Tuning};

/// How long a simulated call may take, in seconds.
pub const TIMEOUT_SECONDS: u64 = 20;

/// The rules of a job beside its tuning. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rules {
    /// The percentage tolerated, as it is written, instead of the tuning's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<String>,
    /// The percentage alone decides: no number of failures is said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub percent_alone: bool,
    /// `fail_fast`: so many whole percent of so many items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<(u32, u64)>,
    /// Waits before retries are not drawn: each has its full length.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exact_waits: bool,
    /// No wait is longer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_wait_ms: Option<u64>,
    /// Retries that a second rule grants for what the first does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_retried: Option<u32>,
    /// Classes that are caught, and what happens then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caught: Vec<(String, Caught)>,
    /// What the last redrive takes, if it is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The largest object that the container lane takes, in bytes; none: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<u64>,
    /// Rows that one answer of the table holds, as if they were large; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_at_once: Option<u32>,
    /// The most writes of one transaction; none: as many as DynamoDB takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_max: Option<usize>,
}

/// What happens to what is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caught {
    /// It fails.
    Fail,
    /// It is left out.
    Skip,
    /// It moves to the container lane.
    Container,
}

impl Caught {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Container => "container",
        }
    }
}

/// Percentages at which something is rounded, or nothing is.
const PERCENTS: [&str; 8] = [
    "0",
    "0.5",
    "3.333333",
    "12.50",
    "33.3",
    "33.333333",
    "66.6",
    "100",
];

/// Classes that simulated calls fail of.
const CLASSES: [&str; 6] = ["Flaky", "Bad", "Bad1", "Timeout", "Crashed", "Unavailable"];

fn one_of<T: Copy>(chance: &Stream, all: &[T]) -> T {
    all[chance.below(all.len() as u64) as usize]
}

impl Rules {
    /// Whether large objects are too large for every lane.
    pub fn refuses_large(&self) -> bool {
        self.largest.is_some_and(|largest| largest < LARGE_BYTES)
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Some of them, by chance.
    pub fn generate(chance: &Stream) -> Self {
        let mut caught = Vec::new();
        for class in CLASSES {
            let then = one_of(chance, &[Caught::Fail, Caught::Skip, Caught::Container]);
            if chance.chance(80_000) {
                caught.push((class.to_owned(), then));
            }
        }
        let percent = one_of(chance, &PERCENTS).to_owned();
        let percent = chance.chance(200_000).then_some(percent);
        Self {
            percent_alone: percent.is_some() && chance.chance(500_000),
            percent,
            fail_fast: chance
                .chance(100_000)
                .then(|| (one_of(chance, &[0, 10, 50, 100]), 1 + chance.below(12))),
            exact_waits: chance.chance(300_000),
            longest_wait_ms: chance.chance(200_000).then_some(45_000),
            others_retried: chance.chance(250_000).then(|| chance.below(3) as u32),
            caught,
            selection: chance.chance(500_000).then(|| selection(chance)),
            largest: chance
                .chance(60_000)
                .then(|| one_of(chance, &[LARGE_BYTES - 1, LARGE_BYTES])),
            rows_at_once: chance.chance(80_000).then(|| one_of(chance, &[2, 3, 8])),
            writes_max: chance
                .chance(300_000)
                .then(|| one_of(chance, &[4, 5, 7, 10, 25])),
        }
    }

    /// The job file.
    pub fn job_text(&self, tuning: &Tuning) -> String {
        let mut text = String::with_capacity(800);
        let percent = tuning
            .tolerated_percent
            .map(|percent| percent.min(100).to_string());
        let percent = self.percent.clone().or(percent);
        let lines = [
            Some("name = \"job\"\ninput = { objects = \"s3://input/\" }".to_owned()),
            Some(format!(
                "max_concurrency = {}",
                tuning.max_concurrency.max(1)
            )),
            (!self.percent_alone)
                .then(|| format!("tolerated_failure_count = {}", tuning.tolerated)),
            percent.map(|percent| format!("tolerated_failure_percentage = {percent}")),
            self.fail_fast
                .map(|(percent, last)| format!("fail_fast = \"{percent} % of last {last}\"")),
            tuning.pauses.then(|| "on_breach = \"pause\"".to_owned()),
            tuning
                .results
                .then(|| "results = \"s3://results/\"".to_owned()),
            Some(format!(
                "[function]\nmax_object = {SMALL_BYTES_MAX}\nmax_items_per_batch = {}\ntimeout = \"{TIMEOUT_SECONDS}s\"",
                tuning.batch.max(1)
            )),
            Some(format!("[container]\ntimeout = \"{TIMEOUT_SECONDS}s\"")),
            self.largest
                .map(|largest| format!("max_object = \"{largest} B\"")),
            (tuning.retries > 0)
                .then(|| self.rule("\"Flaky\", \"Timeout\"", tuning.retries, tuning)),
            self.others_retried
                .map(|retries| self.rule("\"ALL\"", retries, tuning)),
        ];
        for line in lines.into_iter().flatten() {
            writeln!(text, "{line}").expect("a text takes it");
        }
        for (class, then) in &self.caught {
            let then = then.as_str();
            writeln!(text, "[[catch]]\nerrors = [\"{class}\"]\nthen = \"{then}\"")
                .expect("a text takes it");
        }
        text
    }

    fn rule(&self, errors: &str, attempts: u32, tuning: &Tuning) -> String {
        let longest = self
            .longest_wait_ms
            .map(|longest| longest.max(tuning.interval_ms));
        let longest = longest.map(|longest| format!("max_delay = \"{longest}ms\"\n"));
        format!(
            "[[retry]]\nerrors = [{errors}]\nmax_attempts = {attempts}\ninterval = \"{}ms\"\n{}jitter = \"{}\"",
            tuning.interval_ms,
            longest.unwrap_or_default(),
            if self.exact_waits { "none" } else { "full" }
        )
    }

    /// The job that the file says.
    ///
    /// # Panics
    /// The scenario holds what no job file may, such as a percentage of 101.
    pub fn job(&self, tuning: &Tuning, lines: bool) -> Job {
        let data = if lines {
            Data::Lines(Vec::new())
        } else {
            Data::Objects(Vec::new())
        };
        let job = job_of(&self.job_text(tuning), &data);
        job.unwrap_or_else(|error| panic!("{LINES_KEY}: {error}"))
    }
}

/// A selection of one kind or two.
fn selection(chance: &Stream) -> Selection {
    use trommel::core::outcome::Outcome;
    let mut selection = Selection::default();
    for _ in 0..=chance.below(2) {
        match chance.below(9) {
            0 => selection.outcomes = vec![Outcome::Failed],
            1 => selection.outcomes = vec![Outcome::TimedOut, Outcome::Aborted, Outcome::Skipped],
            2 => selection.pending = Some(chance.chance(500_000)),
            3 => selection.only_pending = true,
            4 => selection.classes = vec!["Flaky".to_owned(), "Bad".to_owned()],
            5 => selection.fingerprints = vec![one_of(chance, &FINGERPRINTS).to_owned()],
            6 => selection.key = Some(one_of(chance, &PATTERNS).to_owned()),
            7 => match chance.below(4) {
                0 => selection.larger_bytes = Some(10),
                1 => selection.larger_bytes = Some(9),
                2 => selection.smaller_bytes = Some(1000),
                _ => selection.smaller_bytes = Some(1001),
            },
            _ => selection.items = (0..6).map(|item| format!("0-0-{}", 2 * item)).collect(),
        }
    }
    selection
}

/// Of what the simulated handler says: see [`crate::cluster`].
const FINGERPRINTS: [&str; 2] = [
    "Bad: attempt # on \"…\" failed",
    "Flaky: attempt # on \"…\" failed",
];

/// Some match few objects, some many, some need to go back.
const PATTERNS: [&str; 8] = [
    "*",
    "object-*1",
    "object-0000?",
    "o*0*2",
    "*-*0*0*",
    "object-00001*",
    "?bject-000*0?",
    "*3?",
];
