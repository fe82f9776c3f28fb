//! `trommel-sim replay FILE --on localstack` and `trommel-sim fuzz --on localstack`, as lines to be read.

use std::path::Path;

use super::fuzz::{Confirmed, Fuzz, Searched, fuzz};
use super::parity::{Fate, in_the_model, planned};
use super::{SPEED, Stage};
use crate::report;
use crate::run::{Outcome, Text, run};
use crate::scenario::Scenario;

/// Whether all promises were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// All.
    Holds,
    /// One was broken.
    Broken,
}

fn find() -> Result<Stage, String> {
    let stage = Stage::find()?;
    let emulator = stage.emulator();
    let (kind, url) = (emulator.kind().as_str(), emulator.url());
    println!("on {kind} at {url}, {SPEED} seconds of the scenario in one");
    Ok(stage)
}

/// Replays a scenario there so often, and says in what it differs from the model and from time to time. `keep`
/// gets each outcome.
///
/// # Errors
/// No stage, or what `keep` says.
pub fn replay(
    scenario: &Scenario,
    times: u32,
    keep: &dyn Fn(&Outcome) -> Result<(), String>,
) -> Result<Said, String> {
    let stage = find()?;
    let model = in_the_model(scenario);
    let mut said = Said::Holds;
    let mut first: Option<Fate> = None;
    let mut alike = 0;
    for number in 1..=times {
        let outcome = stage.run(scenario)?;
        keep(&outcome)?;
        let fate = Fate::of(&outcome);
        let settled = fate.items.iter().flatten().count();
        let (faults, items) = (fate.faults.len(), fate.items.len());
        let status = fate.status.unwrap_or("unknown");
        println!("{number}: {status}, {faults} faults struck, {settled} of {items} items settled");
        if let Some(broken) = &fate.broken {
            println!("   broken: {broken}");
            said = Said::Broken;
        }
        match model.differs_from(&fate) {
            Some(difference) => println!("   model and emulator: {difference}"),
            None => println!("   as in the model"),
        }
        let first = first.get_or_insert_with(|| fate.clone());
        match first.differs_from(&fate) {
            Some(difference) => println!("   the first time and this: {difference}"),
            None => alike += 1,
        }
    }
    let planned = planned(scenario).map_or(String::new(), |count| format!(" of {count} planned"));
    let struck = first.map_or(0, |first| first.faults.len());
    println!("{alike} of {times} alike, {struck}{planned} faults struck");
    Ok(said)
}

/// Searches there, and keeps the smallest scenario that breaks a promise in `out`.
///
/// # Errors
/// No stage, or the file cannot be written.
pub fn search(wanted: &Fuzz, out: &Path, again: &str) -> Result<Said, String> {
    let stage = find()?;
    let searched = fuzz(&stage, wanted, &|line| println!("{line}"))?;
    let Searched {
        scenarios,
        faults,
        spoilt,
        caught,
    } = searched;
    println!(
        "{scenarios} scenarios, {faults} faults struck, {} without a verdict",
        spoilt.len()
    );
    for line in &spoilt {
        println!("  {line}");
    }
    let Some(caught) = caught else {
        return Ok(Said::Holds);
    };
    let text = caught.kept().to_json();
    std::fs::write(out, text).map_err(|error| format!("{}: {error}", out.display()))?;
    let (oracle, seen) = (&caught.violation.oracle, &caught.violation.seen);
    println!("{oracle} is broken there: {seen}");
    match &caught.shrunk {
        Some(shrunk) => {
            let last = run(&shrunk.scenario, Text::Kept);
            for line in report::failure(shrunk, &last, again) {
                println!("{line}");
            }
        }
        None => println!("the model keeps all promises with these faults: not made smaller"),
    }
    let confirmed = match caught.confirmed {
        Confirmed::Small => "confirmed by a replay there",
        Confirmed::AsCaught => "confirmed by a replay there of what was caught, which is kept",
        Confirmed::Neither => "NOT confirmed by a replay there",
    };
    println!("{confirmed}: {again} --on localstack");
    Ok(Said::Broken)
}
