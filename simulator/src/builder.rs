//! Tests a handler of one's own against bad days: `Simulation::builder()`, in a `#[test]` or under `proptest!`.
//!
//! The handler is real, and so are the loops that call it; services, time and failures are simulated. The
//! guide is `simulator/guide.md`.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::job_rules::Rules;
use crate::oracle::Violation;
use crate::own::{Data, Own, Subject, job_of};
use crate::report;
use crate::run::{Outcome, Play, Text};
use crate::scenario::{Happening, Profile, Scenario};
use crate::shrink::shrink_by;
use crate::simulation::Simulation;

/// Names the file of a scenario to run instead of the seeds, with its trace.
pub const REPLAY: &str = "TROMMEL_REPLAY";

/// Scenarios of a test that says nothing else: about a second.
const SEEDS: Range<u64> = 0..300;

/// Items where a test gives none.
const LINES: u32 = 10;

type Make = Arc<dyn Fn() -> Subject + Send + Sync>;

/// A simulation in the making.
#[derive(Clone)]
#[must_use = "nothing happens until it is run"]
pub struct Builder {
    job: String,
    data: Data,
    make: Make,
    seeds: Range<u64>,
    profile: Profile,
}

impl Simulation {
    /// Runs a handler through many simulated days.
    pub fn builder() -> Builder {
        let lines = (0..LINES).map(|number| number.to_string()).collect();
        Builder {
            job: String::new(),
            data: Data::Lines(lines),
            make: Arc::new(|| Subject::new(|_, _| async { Ok(()) })),
            seeds: SEEDS,
            profile: Profile::Swarm,
        }
    }
}

impl Builder {
    /// The text of a job file. Its ledger and its input are simulated; everything else counts: retries,
    /// tolerance, batches, timeouts, lanes.
    pub fn job(mut self, text: impl Into<String>) -> Self {
        self.job = text.into();
        self
    }

    /// Items that are values: lines of JSON.
    pub fn lines<T: Serialize>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        let text = |line: T| serde_json::to_string(&line).expect("plain data serialises");
        self.data = Data::Lines(lines.into_iter().map(text).collect());
        self
    }

    /// Items that are objects of a bucket.
    pub fn objects<K: Into<String>, B: Into<Bytes>>(
        mut self,
        objects: impl IntoIterator<Item = (K, B)>,
    ) -> Self {
        let object = |(key, bytes): (K, B)| (key.into(), bytes.into());
        let mut objects: Vec<_> = objects.into_iter().map(object).collect();
        // As a listing has them.
        objects.sort_by(|one, other| one.0.cmp(&other.0));
        self.data = Data::Objects(objects);
        self
    }

    /// Makes the handler and what it acts on, anew for each scenario.
    pub fn subject(mut self, make: impl Fn() -> Subject + Send + Sync + 'static) -> Self {
        self.make = Arc::new(make);
        self
    }

    /// Which days: each seed is another one.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// How bad they are.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Runs all seeds, or until one fails; that one is made small.
    ///
    /// # Panics
    /// The job file is wrong, or the scenario named by [`REPLAY`] cannot be read: the message says how.
    pub fn run(&self) -> Verdict {
        if let Some(path) = std::env::var_os(REPLAY) {
            return self.replay(&PathBuf::from(path));
        }
        let mut scenarios = 0;
        for seed in self.seeds.clone() {
            scenarios += 1;
            let scenario = self.scenario(seed);
            if let Some(bad_day) = self.try_scenario(&scenario) {
                let bad_day = Some(bad_day);
                return Verdict { scenarios, bad_day };
            }
        }
        Verdict {
            scenarios,
            bad_day: None,
        }
    }

    fn replay(&self, path: &PathBuf) -> Verdict {
        let text = std::fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{REPLAY}: {}: {error}", path.display()));
        let scenario = Scenario::parse(&text);
        let scenario =
            scenario.unwrap_or_else(|error| panic!("{REPLAY}: {}: {error}", path.display()));
        let outcome = self.play(&scenario, Text::Kept);
        println!("{}", outcome.trace);
        let bad_day = outcome.violation.clone().map(|violation| BadDay {
            report: report::broken(&scenario, &violation, &outcome, "as you just did"),
            scenario,
            violation,
        });
        Verdict {
            scenarios: 1,
            bad_day,
        }
    }

    /// The scenario that a seed stands for.
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::generate(seed, self.profile);
        scenario.workload.small = self.data.len() as u64;
        scenario.workload.large = 0;
        scenario.workload.lines = matches!(self.data, Data::Lines(_));
        scenario.redrive_failed_only = false;
        // It is there from the start, whatever the job reads: no events tell of it.
        scenario.events = None;
        scenario.rules = Rules::default();
        // The data is the user's: nobody changes it.
        scenario.troubles.retain(|trouble| match trouble.what {
            Happening::Overwrite | Happening::Delete => false,
            Happening::Crash
            | Happening::Freeze
            | Happening::Cut
            | Happening::Heat
            | Happening::Drain
            | Happening::Pause => true,
        });
        scenario
    }

    /// Runs one scenario; if it fails, makes it small.
    ///
    /// # Panics
    /// The job file is wrong: the message says how.
    pub fn try_scenario(&self, scenario: &Scenario) -> Option<BadDay> {
        let outcome = self.play(scenario, Text::Hashed);
        outcome.violation.as_ref()?;
        let play = |scenario: &Scenario| self.play(scenario, Text::Hashed);
        let shrunk = shrink_by(scenario, &outcome, &play);
        let shrunk = shrunk.expect("a scenario fails again: is the handler's world made anew?");
        let last = self.play(&shrunk.scenario, Text::Kept);
        let again = match keep(&shrunk.scenario) {
            Ok(path) => format!("{REPLAY}={} cargo test … -- --nocapture", path.display()),
            Err(error) => format!("the scenario could not be kept: {error}"),
        };
        Some(BadDay {
            report: report::failure(&shrunk, &last, &again),
            scenario: shrunk.scenario,
            violation: shrunk.violation,
        })
    }

    fn play(&self, scenario: &Scenario, text: Text) -> Outcome {
        let job = job_of(&self.job, &self.data);
        let own = Own {
            job: job.unwrap_or_else(|error| panic!("{error}")),
            data: self.data.clone(),
            subject: (self.make)(),
        };
        Play {
            scenario,
            text,
            crash_at: None,
            own: Some(own),
            ground: None,
        }
        .run()
    }
}

/// Where the smallest failing scenario is written.
fn keep(scenario: &Scenario) -> std::io::Result<PathBuf> {
    let name = format!("trommel-bad-day-{}.json", scenario.seed);
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, scenario.to_json())?;
    Ok(path)
}

/// A day that broke something, as small as it got.
#[derive(Clone, Debug)]
pub struct BadDay {
    /// Its report: twelve lines at most.
    pub report: Vec<String>,
    /// The scenario.
    pub scenario: Scenario,
    /// What is broken: `yours`, where it is what the test says must hold.
    pub violation: Violation,
}

impl fmt::Display for BadDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report.join("\n"))
    }
}

/// What all the days came to.
#[derive(Clone, Debug)]
#[must_use = "it says whether anything is broken"]
pub struct Verdict {
    /// Scenarios that were run.
    pub scenarios: u64,
    /// The first that failed.
    pub bad_day: Option<BadDay>,
}

impl Verdict {
    /// Fails the test, with the report, if a day broke something.
    ///
    /// # Panics
    /// One did.
    #[track_caller]
    pub fn assert_holds(&self) {
        if let Some(bad_day) = &self.bad_day {
            panic!("\n{bad_day}\n");
        }
        assert!(self.scenarios > 0, "no scenario was run");
    }
}
