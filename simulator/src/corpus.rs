//! Scenarios that are kept: each says what it must come to, and is replayed by every check.

use std::path::Path;

use crate::run::{Text, run};
use crate::scenario::{Expect, FaultSource, Scenario};

/// Replays all scenarios of a folder; answers how many there are, and what does not come to what it says.
///
/// # Errors
/// The folder or a file in it cannot be read, or there is none.
pub fn replay_all(folder: &Path) -> Result<(usize, Vec<String>), String> {
    let problem = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(problem)? {
        let path = entry.map_err(problem)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{}: no scenario is kept there", folder.display()));
    }
    let mut broken = Vec::new();
    for path in &paths {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let scenario = Scenario::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        if let Some(problem) = comes_to_something_else(&scenario) {
            broken.push(format!("{name}: {problem}"));
        }
    }
    Ok((paths.len(), broken))
}

fn comes_to_something_else(scenario: &Scenario) -> Option<String> {
    match &scenario.expect {
        None | Some(Expect::Pass) => breaks(scenario),
        Some(Expect::Violates { bug, oracle }) => misses_bug(scenario, bug, oracle),
        Some(Expect::Finds { bug, oracle }) => {
            breaks(scenario).or_else(|| misses_bug(scenario, bug, oracle))
        }
    }
}

/// What is wrong with it, where nothing should be.
fn breaks(scenario: &Scenario) -> Option<String> {
    let outcome = run(scenario, Text::Hashed);
    let broken = outcome
        .violation
        .map(|violation| format!("{}: {}", violation.oracle, violation.seen));
    broken.or_else(|| misses(scenario, outcome.fired.len()))
}

/// Whether the oracle is silent though this mistake is planted, where that can be.
fn misses_bug(scenario: &Scenario, bug: &str, oracle: &str) -> Option<String> {
    if !crate::bugs::CAN_PLANT {
        return None;
    }
    let planted = match crate::bugs::named(Some(bug)) {
        Ok(planted) => planted,
        Err(problem) => return Some(problem),
    };
    crate::bugs::plant(planted);
    let violation = run(scenario, Text::Hashed).violation;
    crate::bugs::plant(None);
    match violation {
        Some(violation) if violation.oracle == *oracle => None,
        Some(violation) => Some(format!("{} instead of {oracle}", violation.oracle)),
        None => Some(format!("{bug} is planted, and nothing is broken")),
    }
}

/// Written by hand, each of its faults must strike; else the calls it names are made no more.
fn misses(scenario: &Scenario, struck: usize) -> Option<String> {
    let FaultSource::Plan(plan) = &scenario.faults else {
        return None;
    };
    let stale = scenario.why.is_some() && struck < plan.len();
    stale.then(|| format!("{struck} of its {} faults struck", plan.len()))
}
