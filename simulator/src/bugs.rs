//! Mistakes planted in the pipeline on purpose: each must be found, or an oracle is blind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use trommel::core::planted::Bug;

use crate::search::{Days, Search, Until, real_now, search};
use crate::shrink::shrink;

/// Whether this program can plant mistakes.
pub const CAN_PLANT: bool = cfg!(feature = "planted");

/// The mistake of this name.
///
/// # Errors
/// There is none, or this program cannot plant any.
pub fn named(name: Option<&str>) -> Result<Option<Bug>, String> {
    let Some(name) = name else {
        return Ok(None);
    };
    if !CAN_PLANT {
        return Err("build it with `--features planted` to plant mistakes".to_owned());
    }
    let bug = Bug::parse(name);
    bug.map(Some).ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!(
            "no mistake is called {name:?}; there are {}",
            names.join(", ")
        )
    })
}

/// From now on this thread's pipeline has this mistake.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    trommel::core::planted::plant(bug);
}

/// From now on this thread's pipeline has this mistake.
#[cfg(not(feature = "planted"))]
pub fn plant(_: Option<Bug>) {}

/// What became of the search for all planted mistakes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// One line each, to be read.
    pub lines: Vec<String>,
    /// How many were not found.
    pub missed: usize,
}

/// Each must be woken by some mistake.
const ORACLES: [&str; 19] = [
    "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "L1", "L2", "L3",
    "L4", "L5", "L6", "L7",
];

/// Seeds that are run after a mistake was found, to see which oracles speak of it.
const MORE_SEEDS: u64 = 100;

/// Searches for each of them, for at most so long, on one core.
pub fn find_all(time_max: Duration) -> Table {
    let mut table = Table::default();
    if !CAN_PLANT {
        table
            .lines
            .push("planted mistakes: left out; build with `--features planted`".to_owned());
        return table;
    }
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    let mut spoke: BTreeSet<String> = BTreeSet::new();
    let searched = || Bug::ALL.into_iter().filter(|bug| !bug.is_rare());
    for bug in searched() {
        let begun = real_now();
        let wanted = Search {
            first: 0,
            seeds: u64::MAX,
            jobs: 1,
            time_max: Some(time_max),
            days: Days::All,
            until: Until::FirstFailure,
            bug: Some(bug),
        };
        let found = search(&wanted, &|_| {});
        let took = begun.elapsed();
        let mut line = format!("{:40}", bug.name());
        match &found.failing {
            Some((scenario, outcome)) => {
                times.push(took);
                let more = Search {
                    first: scenario.seed,
                    seeds: MORE_SEEDS,
                    until: Until::End,
                    ..wanted
                };
                spoke.extend(search(&more, &|_| {}).spoke);
                plant(Some(bug));
                let shrunk = shrink(scenario, outcome);
                plant(None);
                let oracle = outcome.violation.as_ref().map_or("", |v| v.oracle.as_str());
                let _ = write!(
                    line,
                    " {oracle:6} {:>6} seeds {took:>9.2?}",
                    found.scenarios
                );
                if let Some(shrunk) = shrunk {
                    let size = shrunk.scenario.size();
                    sizes.push(size);
                    let _ = write!(line, "  {:>3} → {size} faults", shrunk.size_before);
                }
            }
            None => {
                table.missed += 1;
                let _ = write!(line, " NOT FOUND in {} seeds, {took:.1?}", found.scenarios);
            }
        }
        eprintln!("{line}");
        table.lines.push(line);
    }
    let silent: Vec<&str> = ORACLES
        .into_iter()
        .filter(|oracle| !spoke.contains(*oracle))
        .collect();
    if !silent.is_empty() {
        table.missed += silent.len();
        table.lines.push(format!(
            "no mistake wakes these oracles: {}",
            silent.join(", ")
        ));
    }
    times.sort();
    sizes.sort_unstable();
    table.lines.push(format!(
        "planted mistakes: {} of {} found; median {:.2?}; median minimal plan {} faults",
        searched().count() - table.missed,
        searched().count(),
        times.get(times.len() / 2).copied().unwrap_or_default(),
        sizes.get(sizes.len() / 2).copied().unwrap_or_default()
    ));
    table
}
