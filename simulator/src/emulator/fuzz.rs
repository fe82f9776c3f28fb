//! A search on an emulator: scenarios by their seeds, one after the other, for so long. What breaks a promise
//! there is made small in the model, where a replay takes a millisecond, and confirmed on the emulator.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Stage;
use crate::oracle::Violation;
use crate::run::{Outcome, Text, run};
use crate::scenario::{FaultSource, Scenario};
use crate::schedule::Schedule;
use crate::search::{Days, real_now, scenario_of};
use crate::shrink::{Shrunk, shrink};

/// Replays on the emulator until something is confirmed: its order is another each time.
const CONFIRMATIONS_MAX: u32 = 3;

/// Sessions of a searched scenario may be silent for so long, in seconds: two in real time.
const SESSION_SECONDS: u32 = 10;

/// Faults come for so long, in seconds; six in real time.
const CHAOS_SECONDS_MAX: u64 = 30;

/// No retry of a searched scenario waits longer, in milliseconds.
const INTERVAL_MS_MAX: u64 = 3_000;

/// What to search.
#[derive(Clone, Copy, Debug)]
pub struct Fuzz {
    /// The first seed.
    pub first: u64,
    /// No seed is begun after so long.
    pub time_max: Duration,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The scenario as it ran, its faults as those that struck.
    pub scenario: Scenario,
    /// What was broken there.
    pub violation: Violation,
    /// The same made small in the model; none: the model does not break.
    pub shrunk: Option<Shrunk>,
    /// What the emulator breaks at again.
    pub confirmed: Confirmed,
}

/// What an emulator breaks at again when it is replayed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The small scenario.
    Small,
    /// The scenario as it was caught: what the model sees in the small one does not show there.
    AsCaught,
    /// Neither.
    Neither,
}

impl Caught {
    /// The scenario to keep: the small one, unless only that which was caught breaks there.
    pub fn kept(&self) -> &Scenario {
        match (&self.shrunk, self.confirmed) {
            (Some(shrunk), Confirmed::Small | Confirmed::Neither) => &shrunk.scenario,
            (Some(_), Confirmed::AsCaught) | (None, _) => &self.scenario,
        }
    }
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub struct Searched {
    /// Scenarios that came to a verdict.
    pub scenarios: u64,
    /// Faults that struck in them.
    pub faults: u64,
    /// Scenarios that came to none, and why: the emulator failed, not the pipeline.
    pub spoilt: Vec<String>,
    /// The first that broke a promise.
    pub caught: Option<Caught>,
}

/// What a seed stands for on an emulator: as everywhere, in less time.
pub fn scenario_there(seed: u64) -> Scenario {
    let mut scenario = scenario_of(seed, Days::All);
    let tuning = &mut scenario.tuning;
    let was_ms = 1000 * u64::from(tuning.session_seconds);
    tuning.session_seconds = tuning.session_seconds.min(SESSION_SECONDS);
    let is_ms = 1000 * u64::from(tuning.session_seconds);
    // As on S3.
    tuning.appends = false;
    tuning.interval_ms = tuning.interval_ms.min(INTERVAL_MS_MAX);
    for trouble in &mut scenario.troubles {
        trouble.at_ms = trouble.at_ms * is_ms / was_ms;
        trouble.for_ms = trouble.for_ms * is_ms / was_ms;
    }
    scenario.chaos_seconds = scenario.chaos_seconds.min(CHAOS_SECONDS_MAX);
    scenario.redrives = scenario.redrives.min(1);
    // Notifications come from the model's own bucket.
    scenario.events = None;
    scenario
}

/// Searches until something is found or the time is over. `tell` hears of each scenario.
///
/// # Errors
/// The stage could not be set.
pub fn fuzz(stage: &Stage, fuzz: &Fuzz, tell: &dyn Fn(&str)) -> Result<Searched, String> {
    let begun = real_now();
    let mut searched = Searched::default();
    let mut seed = fuzz.first;
    while begun.elapsed() < fuzz.time_max {
        let scenario = scenario_there(seed);
        let one = real_now();
        let outcome = match play(stage, &scenario)? {
            Ok(outcome) => outcome,
            Err(why) => {
                searched.spoilt.push(format!("seed {seed}: {why}"));
                seed += 1;
                continue;
            }
        };
        searched.scenarios += 1;
        searched.faults += outcome.fired.len() as u64;
        let verdict = outcome.violation.as_ref().map_or("holds", |v| &v.oracle);
        let (took, faults) = (one.elapsed(), outcome.fired.len());
        tell(&format!(
            "seed {seed}: {verdict}, {faults} faults, {took:.1?}"
        ));
        if let Some(violation) = outcome.violation.clone() {
            searched.caught = Some(catch(stage, &scenario, &outcome, violation)?);
            break;
        }
        seed += 1;
    }
    Ok(searched)
}

/// Carries it out there; inside, why it came to no verdict.
fn play(stage: &Stage, scenario: &Scenario) -> Result<Result<Outcome, String>, String> {
    let played = catch_unwind(AssertUnwindSafe(|| stage.run(scenario)));
    match played {
        Ok(Ok(outcome)) => Ok(Ok(outcome)),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Ok(Err("the ledger could not be read for a verdict".to_owned())),
    }
}

fn catch(
    stage: &Stage,
    scenario: &Scenario,
    outcome: &Outcome,
    violation: Violation,
) -> Result<Caught, String> {
    let scenario = Scenario {
        faults: FaultSource::Plan(outcome.fired.clone()),
        ..scenario.clone()
    };
    let shrunk = shrink_in_the_model(&scenario, &violation.oracle);
    let breaks = |scenario: &Scenario| breaks_again(stage, scenario, &violation.oracle);
    let confirmed = match &shrunk {
        Some(shrunk) if breaks(&shrunk.scenario)? => Confirmed::Small,
        Some(_) | None if breaks(&scenario)? => Confirmed::AsCaught,
        Some(_) | None => Confirmed::Neither,
    };
    Ok(Caught {
        scenario,
        violation,
        shrunk,
        confirmed,
    })
}

fn breaks_again(stage: &Stage, scenario: &Scenario, oracle: &str) -> Result<bool, String> {
    for _ in 0..CONFIRMATIONS_MAX {
        let again = play(stage, scenario)?.ok();
        let violation = again.and_then(|outcome| outcome.violation);
        if violation.is_some_and(|again| again.oracle == oracle) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The order in which the emulator did it is not known: each of the model's orders is tried, with the faults
/// that struck there and with those of the seed.
fn shrink_in_the_model(scenario: &Scenario, oracle: &str) -> Option<Shrunk> {
    let of_the_seed = scenario_there(scenario.seed);
    for faults in [&scenario.faults, &of_the_seed.faults] {
        for schedule in Schedule::ALL {
            let tried = Scenario {
                faults: faults.clone(),
                schedule,
                ..scenario.clone()
            };
            let outcome = run(&tried, Text::Hashed);
            let same = |violation: &Violation| violation.oracle == oracle;
            if outcome.violation.as_ref().is_some_and(same) {
                return shrink(&tried, &outcome);
            }
        }
    }
    None
}
