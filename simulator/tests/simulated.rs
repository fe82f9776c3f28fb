//! The simulator as a test: what is kept comes to what it says, and the first seeds break no promise.
//!
//! Long searches are `trommel-sim run`'s; `TROMMEL_SIM_SEEDS` makes this one longer or shorter.

use std::collections::BTreeSet;
use std::path::Path;

use trommel::core::planted::Bug;
use trommel_simulator::corpus;
use trommel_simulator::scenario::{Expect, Scenario};
use trommel_simulator::search::{Days, Search, Until, search};

/// Some ten seconds without optimisation.
const SEEDS: u64 = 250;

/// In so many seeds everything that must happen sometimes does.
const SEEDS_FOR_ALL: u64 = 2_000;

fn seeds() -> u64 {
    let said = std::env::var("TROMMEL_SIM_SEEDS").ok();
    said.map_or(SEEDS, |said| {
        said.parse().expect("TROMMEL_SIM_SEEDS is a number")
    })
}

#[test]
fn every_kept_scenario_comes_to_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (kept, broken) = corpus::replay_all(&folder).expect("the corpus can be read");
    assert!(kept > 0);
    assert_eq!(broken, [] as [String; 0]);
}

#[test]
fn no_promise_is_broken_by_the_first_seeds() {
    let found = search(
        &Search {
            first: 0,
            seeds: seeds(),
            jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            time_max: None,
            days: Days::All,
            until: Until::FirstFailure,
            bug: None,
        },
        &|_| {},
    );
    let missed = found.probes_missed();
    let failing = found
        .failing
        .map(|(scenario, outcome)| (scenario.seed, outcome.violation));
    assert_eq!(failing, None, "again: trommel-sim replay SEED --shrink");
    assert_eq!(found.scenarios, seeds());
    let silent: Vec<_> = found
        .compared
        .iter()
        .filter(|(_, times)| **times == 0)
        .collect();
    assert_eq!(silent, [], "these oracles compared nothing");
    if seeds() >= SEEDS_FOR_ALL {
        assert_eq!(missed, [], "these must happen sometimes, and did not");
    }
}

#[test]
fn each_mistake_too_rare_for_a_search_has_a_kept_scenario_that_finds_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut said = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the corpus can be read") {
        let text = std::fs::read_to_string(entry.expect("it is listed").path());
        let scenario = Scenario::parse(&text.expect("it can be read")).expect("it is one");
        if let Some(Expect::Finds { bug, .. }) = scenario.expect {
            said.insert(bug);
        }
    }
    let kept = |bug: &Bug| said.contains(bug.name());
    let missing: Vec<Bug> = Bug::RARE.into_iter().filter(|bug| !kept(bug)).collect();
    assert_eq!(missing, []);
}
