//! A scenario: everything that one simulated run follows from, as a file that can be kept.
//!
//! `generate` draws one from a seed; [`crate::run`] carries it out; [`crate::shrink`] makes it smaller.

mod drawing;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trommel::core::class::Class;
use trommel::core::job::{InputSpec, Job};
use trommel::core::retry::{CatchRule, Errors, Then};
use trommel::shell::Settings;

use crate::cluster::Behaviour;
use crate::events::EventMode;
use crate::job_rules::Rules;
use crate::point::{Kind, Point};
use crate::schedule::Schedule;
use crate::services::{Rates, Source};

/// The version of the file's form.
pub const VERSION: u32 = 1;

/// The size up to which an object goes to the function lane here, in bytes.
pub const SMALL_BYTES_MAX: u64 = 100;

/// The size of a small object here …
pub const SMALL_BYTES: u64 = 10;

/// … and of a large one.
pub const LARGE_BYTES: u64 = 1000;

/// The key of the file with a line an item, where there is one.
pub const LINES_KEY: &str = "lines.jsonl";

/// Everything one run follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// [`VERSION`].
    pub v: u32,
    /// What it is kept for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What chance follows from.
    pub seed: u64,
    /// Processes that work on the run.
    pub workers: u32,
    /// What each of them does; those that are not named do all.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// What is to be done.
    pub workload: Workload,
    /// How.
    pub tuning: Tuning,
    /// Which of the ready tasks goes next.
    #[serde(default)]
    pub schedule: Schedule,
    /// Clocks that are wrong.
    #[serde(default)]
    pub clocks: Vec<WrongClock>,
    /// What the handler does, by chance.
    pub handler: Behaviour,
    /// What happens to nodes, in the order of its time.
    pub troubles: Vec<Trouble>,
    /// What goes wrong with calls.
    pub faults: FaultSource,
    /// Faults of calls come for so long, in seconds; then all is healed and the run must end.
    pub chaos_seconds: u64,
    /// How often the run is redriven, once it ended with something to redrive.
    pub redrives: u32,
    /// The last redrive takes what failed, and nothing that is pending.
    #[serde(default)]
    pub redrive_failed_only: bool,
    /// The input is a bucket's events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventMode>,
    /// What the job says beside its tuning.
    #[serde(default, skip_serializing_if = "Rules::is_none")]
    pub rules: Rules,
    /// What this scenario is kept for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// What a process does, as in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `run`: reads, routes, judges, and takes calls of both lanes.
    #[default]
    All,
    /// `run --role router`: takes no calls.
    Router,
    /// `worker`: takes calls, until it is told to stop.
    Worker,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Objects for the function lane; they share pages.
    pub small: u64,
    /// Objects for the container lane; each has its own page.
    pub large: u64,
    /// The input is one file with a line for each of them, all for the function lane.
    #[serde(default)]
    pub lines: bool,
    /// Each line is longer by so many bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line_bytes: u32,
    /// The store lists so many objects in one answer, and takes a second for it; 0: all, and at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub listed_at_once: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Workload {
    /// The line of this number.
    pub fn line(&self, number: u64) -> String {
        match self.line_bytes as usize {
            0 => format!("{{\"number\":{number}}}"),
            bytes => format!("{{\"number\":{number},\"more\":\"{}\"}}", "x".repeat(bytes)),
        }
    }
}

/// How the job is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tuning {
    /// Calls at one time.
    pub max_concurrency: u32,
    /// Items in one call.
    pub batch: u32,
    /// Failures tolerated by number …
    pub tolerated: u64,
    /// … or by percentage.
    pub tolerated_percent: Option<u8>,
    /// Retries of a flaky item.
    pub retries: u32,
    /// Between the first failure and the first retry, in milliseconds.
    pub interval_ms: u64,
    /// A breach pauses the run instead of ending it.
    pub pauses: bool,
    /// Result files are compiled at the end.
    #[serde(default)]
    pub results: bool,
    /// Objects of the scratch place can grow, as files do; S3's cannot.
    #[serde(default = "as_before")]
    pub appends: bool,
    /// A session that is silent for so long, in seconds, is dead.
    #[serde(default = "session_seconds")]
    pub session_seconds: u32,
}

/// What scenarios were kept with that do not say.
fn as_before() -> bool {
    true
}

/// What production has.
fn session_seconds() -> u32 {
    30
}

impl Tuning {
    /// How sessions behave: as in production, or the same in less time.
    pub fn settings(&self) -> Settings {
        let shared = Settings::shared();
        let session_duration = Duration::from_secs(u64::from(self.session_seconds.max(3)));
        Settings {
            session_duration,
            beat_every: shared.beat_every.min(session_duration / 4),
            sweep_every: shared.sweep_every.min(session_duration / 2),
            ..shared
        }
    }
}

/// The clock of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrongClock {
    /// Whose.
    pub node: String,
    /// It is ahead by so much, in milliseconds.
    pub offset_ms: i64,
    /// It gains so much, in millionths.
    pub drift_ppm: i64,
}

/// Something that happens to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trouble {
    /// When, in milliseconds from the start.
    pub at_ms: u64,
    /// To whom: a node `a`, `b`, …, or an object of the input.
    pub node: String,
    /// What.
    pub what: Happening,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// What can happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// It is killed, and started again after the time.
    Crash,
    /// Nothing of it runs; then it goes on as if nothing had been.
    Freeze,
    /// Its way to the table carries nothing.
    Cut,
    /// Writes to pages are throttled, for all.
    Heat,
    /// It is asked to end softly, and started again after the time.
    Drain,
    /// Somebody pauses the run, and resumes it after the time.
    Pause,
    /// Somebody overwrites the object.
    Overwrite,
    /// Somebody deletes the object.
    Delete,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Crash,
        Self::Freeze,
        Self::Cut,
        Self::Heat,
        Self::Drain,
        Self::Pause,
        Self::Overwrite,
        Self::Delete,
    ];
}

/// Where faults of calls come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultSource {
    /// By chance: of a million calls each.
    Swarm(Rates),
    /// At these points.
    Plan(Vec<(Point, Kind)>),
}

impl FaultSource {
    /// As the injector takes it.
    pub fn source(&self) -> Source {
        match self {
            Self::Swarm(rates) => Source::Swarm(rates.clone()),
            Self::Plan(plan) => Source::Plan(plan.iter().cloned().collect()),
        }
    }
}

/// What a kept scenario must come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Expect {
    /// No promise is broken.
    Pass,
    /// With this bug planted, this oracle says so.
    Violates {
        /// The planted bug.
        bug: String,
        /// The oracle.
        oracle: String,
    },
    /// No promise is broken; with this bug planted, this oracle says so.
    Finds {
        /// The planted bug.
        bug: String,
        /// The oracle.
        oracle: String,
    },
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Each seed leaves some kinds out and has the rest often.
    Swarm,
    /// All kinds, seldom: calm stretches find what noise hides.
    Low,
    /// Nothing.
    None,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Swarm, Self::Low, Self::None];

    /// Its name, as on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Low => "low",
            Self::None => "none",
        }
    }
}

/// The name of the so many-th worker, from 0.
pub fn worker(number: u32) -> String {
    char::from(b'a' + (number % 26) as u8).to_string()
}

/// The name of the so many-th object, from 0.
pub fn object(number: u64) -> String {
    format!("object-{number:05}")
}

impl Scenario {
    /// What the so many-th process does, from 0. One that is alone does all.
    pub fn role(&self, number: u32) -> Role {
        if self.workers == 1 {
            return Role::All;
        }
        self.roles.get(number as usize).copied().unwrap_or_default()
    }

    /// The job that is run.
    pub fn job(&self) -> Job {
        let mut job = self.rules.job(&self.tuning, self.workload.lines);
        if let Some(events) = &self.events {
            job.input = InputSpec::Events(events.spec());
            job.catch.insert(0, superseded());
        }
        job
    }

    /// Where an object of the input is changed while the run goes on.
    pub fn changes_input(&self) -> bool {
        let changes =
            |trouble: &Trouble| matches!(trouble.what, Happening::Overwrite | Happening::Delete);
        self.troubles.iter().any(changes)
    }

    /// Whether nothing goes wrong but what the handler says.
    pub fn is_calm(&self) -> bool {
        let no_faults = match &self.faults {
            FaultSource::Swarm(rates) => rates.values().all(|rate| *rate == 0),
            FaultSource::Plan(plan) => plan.is_empty(),
        };
        let steady = self.troubles.is_empty() && self.clocks.is_empty();
        no_faults && steady && self.handler.killers == 0
    }

    /// How many items are small enough for the function lane.
    pub fn small(&self) -> u64 {
        let Workload {
            small,
            large,
            lines,
            ..
        } = self.workload;
        if lines { small + large } else { small }
    }

    /// How many faults and troubles it names; of a swarm, only the troubles.
    pub fn size(&self) -> usize {
        let faults = match &self.faults {
            FaultSource::Swarm(_) => 0,
            FaultSource::Plan(plan) => plan.len(),
        };
        faults + self.troubles.len()
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if scenario.v != VERSION {
            let v = scenario.v;
            return Err(format!(
                "it is of version {v}; this program reads {VERSION}"
            ));
        }
        if scenario.workers == 0 {
            return Err("it has no worker: nothing would happen".to_owned());
        }
        Ok(scenario)
    }

    /// As a file.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("a scenario is plain data") + "\n"
    }
}

/// What job files with events bring with them.
fn superseded() -> CatchRule {
    CatchRule {
        errors: Errors::Any(vec![Class::SourceChanged]),
        then: Then::Skip,
    }
}

/// Pairs of operation and fault, and how often each struck.
pub type Pairs = BTreeMap<(crate::point::Operation, Kind), u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_survives_its_file() {
        for seed in 0..50 {
            let scenario = Scenario::generate(seed, Profile::Swarm);
            let again = Scenario::parse(&scenario.to_json());
            assert_eq!(again, Ok(scenario));
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = Scenario::generate(1, Profile::Low).to_json();
        let text = text.replace("\"workers\"", "\"wrokers\"");
        let error = Scenario::parse(&text).expect_err("there is no such key");
        assert!(error.contains("wrokers"), "{error}");
    }
}
