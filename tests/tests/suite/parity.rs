//! Scenarios on an emulator as in the model: the same faults on the same items, the same outcome for each item.
//!
//! `TROMMEL_PARITY_SCENARIOS` says how many of the kept scenarios are taken; 20 is full scale, and then one
//! of them is also run 20 times. Which of two processes meets a fault is the wire's own chance, so each scenario has one
//! process here, and every fault is its.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trommel_simulator::emulator::Stage;
use trommel_simulator::emulator::parity::{Fate, in_the_model, planned};
use trommel_simulator::scenario::{FaultSource, Role, Scenario};

use crate::conformance::{say, stage};

/// So many scenarios where nobody says otherwise.
const SCENARIOS_DEFAULT: usize = 5;

/// At full scale.
const SCENARIOS_FULL: usize = 20;

/// Kept scenarios whose faults strike wherever they run, the most telling first.
const SUITED: [&str; SCENARIOS_FULL] = [
    "06-settle-reply-lost",
    "19-call-crash-after",
    "02-hint-lost",
    "06-freeze-reply-lost",
    "16-call-dies",
    "09-settle-throttled",
    "19-settle-crash-before",
    "01-hint-doubled",
    "06-page-made-reply-lost",
    "06-lease-reply-lost",
    "06-session-reply-lost",
    "06-dispatch-reply-lost",
    "06-permits-reply-lost",
    "07-settle-request-lost",
    "08-settle-twice-unclear",
    "10-hint-rejected",
    "12-settle-arrives-late",
    "12-settle-conflict",
    "16-call-out-of-memory",
    "16-call-throttled",
];

/// The one that is run again and again.
const REPEATED: &str = "34-the-same-on-an-emulator";

/// A session of a scenario here, in seconds of the scenario.
const SESSION_SECONDS: u32 = 10;

fn kept(name: &str) -> Scenario {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/corpus");
    let path = corpus.join(format!("{name}.json"));
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The same with one process, which meets all faults, and with sessions that die sooner.
fn alone(mut scenario: Scenario) -> Scenario {
    scenario.workers = 1;
    scenario.roles = vec![Role::All];
    scenario.tuning.session_seconds = SESSION_SECONDS;
    // As on S3.
    scenario.tuning.appends = false;
    if let FaultSource::Plan(plan) = &mut scenario.faults {
        for (point, _) in plan {
            if let Some(about) = point.entity.strip_prefix("b ") {
                point.entity = format!("a {about}");
            }
        }
    }
    scenario
}

/// The stage. Scenarios go one after the other: beside another, a slow emulator would be slower.
fn set(what: &str) -> Option<(MutexGuard<'static, ()>, Stage)> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    stage(what)?;
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::find().unwrap_or_else(|reason| panic!("{reason}"));
    Some((turn, stage))
}

/// How many of the kept ones.
fn scenarios() -> usize {
    let asked = std::env::var("TROMMEL_PARITY_SCENARIOS").ok();
    asked.map_or(SCENARIOS_DEFAULT, |text| {
        let count: usize = text
            .parse()
            .expect("TROMMEL_PARITY_SCENARIOS is a number of scenarios");
        count.min(SCENARIOS_FULL)
    })
}

fn on(stage: &Stage, scenario: &Scenario) -> Fate {
    stage
        .fate(scenario)
        .unwrap_or_else(|reason| panic!("{reason}"))
}

#[test]
fn kept_scenarios_come_to_the_same_on_an_emulator_as_in_the_model() {
    let Some((_turn, stage)) = set("parity of kept scenarios") else {
        return;
    };
    let mut different = Vec::new();
    let count = scenarios();
    for name in &SUITED[..count] {
        let scenario = alone(kept(name));
        let model = in_the_model(&scenario);
        assert_eq!(model.broken, None, "{name} in the model");
        let struck = model.faults.len();
        assert_eq!(Some(struck), planned(&scenario), "{name} in the model");
        let fate = on(&stage, &scenario);
        if let Some(difference) = model.differs_from(&fate) {
            different.push(format!("{name}: model and emulator: {difference}"));
        }
    }
    let kind = stage.emulator().kind().as_str();
    say(&format!(
        "parity: {} of {count} scenarios came to the same on {kind} as in the model",
        count - different.len()
    ));
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn one_scenario_comes_to_the_same_each_time() {
    let Some((_turn, stage)) = set("one scenario again and again") else {
        return;
    };
    let scenario = kept(REPEATED);
    let model = in_the_model(&scenario);
    let times = scenarios();
    for number in 1..=times {
        let fate = on(&stage, &scenario);
        if let Some(difference) = model.differs_from(&fate) {
            panic!("{REPEATED}, time {number} of {times}: model and emulator: {difference}");
        }
    }
    let (faults, items) = (model.faults.len(), model.items.len());
    say(&format!(
        "parity: {REPEATED}, {times} of {times} times: the same {faults} faults, the same outcome of {items} items"
    ));
}
