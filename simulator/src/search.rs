//! Runs many seeds on all cores. What it finds does not depend on how many cores there are: the failing
//! scenario of the smallest seed is the one that is told.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trommel::core::price::Usage;

use crate::exec::lock;
use crate::point::{Kind, Operation};
use crate::probe::{Probe, Probes};
use crate::run::{Outcome, Text, run};
use crate::scenario::{FaultSource, Profile, Role, Scenario, Workload};

/// Which seeds, and when to stop.
#[derive(Clone, Debug)]
pub struct Search {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Threads.
    pub jobs: usize,
    /// Stops early after so long.
    pub time_max: Option<Duration>,
    /// What the seeds stand for.
    pub days: Days,
    /// When it is done.
    pub until: Until,
    /// The bug that is planted, if any.
    pub bug: Option<trommel::core::planted::Bug>,
}

/// What seeds stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Days {
    /// Each takes one of all profiles.
    #[default]
    All,
    /// All are of this profile.
    Of(Profile),
    /// What speed is told of: 20 items, four workers, some 30 faults, to the end of the run.
    Measured,
}

/// When a search is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All seeds were run.
    End,
    /// One failed. Which one it is may depend on the number of threads.
    FirstFailure,
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Scenarios that were run.
    pub scenarios: u64,
    /// The failing one of the smallest seed.
    pub failing: Option<(Scenario, Outcome)>,
    /// How often each oracle spoke first, and the smallest seed.
    pub by_oracle: BTreeMap<String, (u64, u64)>,
    /// Every oracle that spoke, first or later.
    pub spoke: BTreeSet<String>,
    /// How many failed.
    pub failures: u64,
    /// Faults that struck, by operation and kind.
    pub pairs: BTreeMap<(Operation, Kind), u64>,
    /// Things that happened.
    pub probes: Probes,
    /// Comparisons by oracle.
    pub compared: BTreeMap<&'static str, u64>,
    /// Service calls.
    pub calls: BTreeMap<Operation, u64>,
    /// Polls of tasks.
    pub steps: u64,
    /// What was billed for all of them.
    pub usage: Usage,
    /// Virtual time of all of them together.
    pub virtual_time: Duration,
    /// Hash of the traces' hashes by seed: the same for any number of threads.
    pub hashes: BTreeMap<u64, u64>,
    /// Real time it took.
    pub took: Duration,
}

impl Found {
    /// Pairs that never struck.
    pub fn pairs_missed(&self) -> BTreeSet<(Operation, Kind)> {
        let all = Operation::ALL.into_iter().flat_map(|operation| {
            operation
                .faults()
                .iter()
                .map(move |kind| (operation, *kind))
        });
        all.filter(|pair| !self.pairs.contains_key(pair)).collect()
    }

    /// What never happened.
    pub fn probes_missed(&self) -> Vec<Probe> {
        let all = Probe::ALL.iter().copied();
        all.filter(|probe| !self.probes.contains_key(probe))
            .collect()
    }

    fn add(&mut self, scenario: Scenario, outcome: Outcome) {
        self.scenarios += 1;
        for (point, kind) in &outcome.fired {
            *self.pairs.entry((point.operation, *kind)).or_default() += 1;
        }
        for (name, times) in &outcome.probes {
            *self.probes.entry(*name).or_default() += times;
        }
        for (oracle, times) in &outcome.compared {
            *self.compared.entry(oracle).or_default() += times;
        }
        for (operation, times) in &outcome.calls {
            *self.calls.entry(*operation).or_default() += times;
        }
        self.steps += outcome.steps;
        self.usage += outcome.usage;
        self.virtual_time += outcome.virtual_time;
        self.hashes.insert(scenario.seed, outcome.trace_hash);
        if let Some(violation) = &outcome.violation {
            self.failures += 1;
            self.spoke.extend(outcome.spoke.iter().cloned());
            let told = self.by_oracle.entry(violation.oracle.clone());
            let told = told.or_insert((0, scenario.seed));
            *told = (told.0 + 1, told.1.min(scenario.seed));
            let smaller = |(known, _): &(Scenario, Outcome)| known.seed > scenario.seed;
            if self.failing.as_ref().is_none_or(smaller) {
                self.failing = Some((scenario, outcome));
            }
        }
    }
}

/// The scenario that this seed stands for.
pub fn scenario_of(seed: u64, days: Days) -> Scenario {
    // Most seeds are of the swarm; some are calm but for a few faults, as noise hides bugs too.
    let by_seed = match seed % 8 {
        7 => Profile::None,
        5 | 6 => Profile::Low,
        _ => Profile::Swarm,
    };
    match days {
        Days::All => Scenario::generate(seed, by_seed),
        Days::Of(profile) => Scenario::generate(seed, profile),
        Days::Measured => {
            let mut scenario = Scenario::generate(seed, Profile::Swarm);
            scenario.workers = 4;
            scenario.roles = vec![Role::All, Role::All, Role::Worker, Role::Worker];
            scenario.workload = Workload {
                small: 15,
                large: 5,
                lines: scenario.workload.lines,
                line_bytes: 0,
                listed_at_once: 0,
            };
            scenario.handler.output_bytes = 0;
            // Calls as short as the services' own, and none that ends its process, so that the figure is one of work and
            // faults, not of waiting.
            scenario.handler.longest = Duration::from_millis(500);
            scenario.handler.slow = 0;
            scenario.handler.killers = 0;
            scenario.tuning.max_concurrency = 8;
            scenario.tuning.session_seconds = 10;
            scenario.tuning.interval_ms = scenario.tuning.interval_ms.min(500);
            scenario.redrives = 0;
            // A dataset, as the figure was set for; what events cost shows in the other row.
            scenario.events = None;
            if let FaultSource::Swarm(rates) = &mut scenario.faults {
                for rate in rates.values_mut() {
                    *rate = *rate / 20 * 13;
                }
            }
            scenario
        }
    }
}

/// The machine's own clock, to stop a search in time and to say how fast it was.
#[expect(
    clippy::disallowed_methods,
    reason = "it times the search, not what is simulated"
)]
pub(crate) fn real_now() -> Instant {
    Instant::now()
}

/// Runs them. `tell` hears now and then how many are done.
pub fn search(search: &Search, tell: &(dyn Fn(u64) + Sync)) -> Found {
    let begun = real_now();
    let next = AtomicU64::new(search.first);
    let end = search.first.saturating_add(search.seeds);
    let found = Mutex::new(Found::default());
    let done = AtomicU64::new(0);
    let work = || {
        crate::bugs::plant(search.bug);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = search.time_max.is_some_and(|max| begun.elapsed() > max);
            let enough = search.until == Until::FirstFailure && lock(&found).failures > 0;
            if seed >= end || late || enough || crate::interrupt::is_asked() {
                break;
            }
            let scenario = scenario_of(seed, search.days);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&scenario, Text::Hashed)));
            let outcome = outcome.unwrap_or_else(|_| panicked());
            lock(&found).add(scenario, outcome);
            tell(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        crate::bugs::plant(None);
    };
    thread::scope(|scope| {
        for _ in 0..search.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().expect("no thread panics while it adds");
    found.took = begun.elapsed();
    found
}

fn panicked() -> Outcome {
    let seen = "the simulator itself panicked; replay the seed to see where";
    Outcome {
        violation: Some(crate::oracle::Violation::new("panic", seen)),
        spoke: BTreeSet::from(["panic".to_owned()]),
        fired: Vec::new(),
        status: None,
        calls: BTreeMap::new(),
        steps: 0,
        compared: BTreeMap::new(),
        trace_hash: 0,
        trace: String::new(),
        virtual_time: Duration::ZERO,
        usage: Usage::default(),
        sessions: 0,
        probes: Probes::new(),
        items: Vec::new(),
    }
}
