//! Crashes and storms, each by hand.

use std::time::Duration;

use trommel::core::outcome::Outcome;
use trommel::core::retry::Jitter;
use trommel::core::run::RunStatus;
use trommel_simulator::cluster::Behaviour;

use crate::oracle;
use crate::scenario::{Scenario, job, seconds};

fn one_of_two_crashes(seed: u64) -> Scenario {
    let scenario = Scenario::with_objects(seed, job(4, 0), 60, 40);
    let takes = Behaviour::calm(Duration::from_millis(500), seconds(2));
    scenario.cluster.set_behaviour(takes);
    let (first, _) = scenario.start("a");
    let (_, other) = scenario.start("b");
    let first_holds = || {
        let calls = scenario.cluster.calls();
        calls.len() >= 20
            && calls
                .iter()
                .any(|call| call.node == "a" && call.succeeded.is_none())
    };
    assert!(scenario.goes_on_until(seconds(60), first_holds));
    first.crash();
    let crashed_at = scenario.sim.now();
    let left_of_it = || oracle::leases(&scenario).len();
    assert!(left_of_it() > 0, "it held leases");
    let ended = scenario.goes_on_until(seconds(300), || other.is_over());
    let last = scenario.cluster.calls().last().map(|call| call.began);
    let after = last.expect("there were calls").since(crashed_at);
    assert!(
        after > seconds(30),
        "its items were taken over, {after:?} later"
    );
    oracle::check(&scenario, ended);
    scenario
}

#[test]
fn the_other_node_takes_over_what_a_crashed_one_held() {
    let scenario = one_of_two_crashes(1);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
    let outcomes = oracle::outcomes(&scenario);
    assert_eq!(outcomes.len(), 100);
    assert!(
        outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Succeeded)
    );
    let trace = scenario.sim.trace_text();
    for what in [
        "wrote page#",
        "wrote session#",
        "a crashed",
        "b leaves: the run is SUCCEEDED",
    ] {
        assert!(trace.contains(what), "no line with {what:?} in the trace");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let once = one_of_two_crashes(2).sim.trace_text();
    let again = one_of_two_crashes(2).sim.trace_text();
    assert!(once == again, "the same seed gave two traces");
    let other = one_of_two_crashes(3).sim.trace_text();
    assert!(once != other, "two seeds gave one trace");
}

/// A store knows a transaction by its content for ten minutes; two takings must differ in it.
#[test]
fn permits_that_were_given_back_are_taken_again() {
    let mut job = job(4, 0);
    job.retry[0].interval = seconds(20);
    job.retry[0].jitter = Jitter::None;
    job.retry[0].backoff_rate = 1.0;
    job.retry[0].max_attempts = 3;
    let scenario = Scenario::with_objects(4, job, 4, 0);
    scenario.cluster.set_behaviour(Behaviour {
        flaky: 1_000_000,
        ..Behaviour::calm(seconds(1), seconds(1))
    });
    let (_, worker) = scenario.start("a");
    let third = || scenario.cluster.calls().len() == 12;
    assert!(
        scenario.goes_on_until(seconds(300), third),
        "each is called three times"
    );
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(seconds(1), seconds(1)));
    let ended = scenario.goes_on_until(seconds(600), || worker.is_over());
    oracle::check(&scenario, ended);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
}

/// Nobody takes over from a session that lives, so it must find such a page itself.
#[test]
fn a_page_that_could_not_be_given_back_is_not_forgotten() {
    let mut job = job(4, 0);
    job.retry[0].interval = seconds(60);
    job.retry[0].jitter = Jitter::None;
    let scenario = Scenario::with_objects(5, job, 4, 0);
    scenario.cluster.set_behaviour(Behaviour {
        flaky: 1_000_000,
        ..Behaviour::calm(seconds(1), seconds(1))
    });
    let (_, worker) = scenario.start("a");
    let called = || scenario.cluster.calls().len() == 4;
    assert!(scenario.goes_on_until(seconds(30), called));
    let storm = scenario.sim.now() + seconds(40);
    scenario.cluster.table().heat(storm);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(seconds(1), seconds(1)));
    // What runs already fails.
    let ended = scenario.goes_on_until(seconds(600), || worker.is_over());
    assert_eq!(scenario.cluster.calls().len(), 8);
    oracle::check(&scenario, ended);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
}
