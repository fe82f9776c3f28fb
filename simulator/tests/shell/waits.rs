//! What nobody should have to wait for: permits that lie idle elsewhere, news that has nothing to be gathered with, result
//! files of a run in which all is settled.

use std::time::Duration;

use trommel::core::job::Location;
use trommel::core::run::RunStatus;
use trommel::core::time::Tick;
use trommel_simulator::cluster::{Behaviour, Process};
use trommel_simulator::scenario::Role;

use crate::oracle;
use crate::scenario::{Scenario, job, seconds};

/// So many calls of a tenth of a second each, on four processes.
fn at_work(seed: u64, max_concurrency: u32, small: u64, large: u64) -> (Scenario, Vec<Process>) {
    let mut job = job(max_concurrency, 0);
    job.results = Some(Location::S3 {
        bucket: "results".to_owned(),
        key: String::new(),
    });
    let scenario = Scenario::with_objects(seed, job, small, large);
    let short = Duration::from_millis(100);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(short, short));
    let start = |(name, role)| {
        let node = scenario.sim.node(name);
        scenario.cluster.start(&node, role)
    };
    let roles = [
        ("a", Role::All),
        ("b", Role::Worker),
        ("c", Role::Worker),
        ("d", Role::Worker),
    ];
    let processes = roles.map(start).into();
    (scenario, processes)
}

/// When the last call ended.
fn last_call(scenario: &Scenario) -> Tick {
    let calls = scenario.cluster.calls();
    let last = calls.iter().map(|call| call.began).max();
    last.expect("there were calls") + Duration::from_millis(100)
}

#[test]
fn who_waits_for_permits_gets_those_that_lie_idle_elsewhere_within_seconds() {
    for seed in 0..20 {
        let (scenario, processes) = at_work(seed, 8, 15, 5);
        let driver = &processes[0];
        let ended = scenario.goes_on_until(seconds(60), || driver.is_over());
        assert_eq!(scenario.status(), RunStatus::Succeeded);
        let waited = last_call(&scenario).since(Tick::default());
        assert!(waited < seconds(7), "seed {seed}: {waited:?}");
        processes.iter().for_each(Process::drain);
        let all_left = || processes.iter().all(Process::is_over);
        assert!(scenario.goes_on_until(seconds(30), all_left));
        oracle::check(&scenario, ended);
    }
}

#[test]
fn result_files_of_a_run_in_which_all_is_settled_wait_for_nobody() {
    for seed in 0..20 {
        let (scenario, processes) = at_work(seed, 8, 8, 0);
        let driver = &processes[0];
        assert!(scenario.goes_on_until(seconds(60), || driver.is_over()));
        let manifest = async {
            let results = scenario.cluster.results();
            results.head(b"run-1/manifest.json").await
        };
        assert!(scenario.block_on(manifest).is_ok());
        // A settle, a verdict, and what it takes to hear of it; the beats of three idle workers would be six seconds.
        let waited = scenario.sim.now().since(last_call(&scenario));
        assert!(waited < seconds(4), "seed {seed}: {waited:?}");
    }
}

#[test]
fn result_files_that_are_there_are_not_made_again_and_those_that_are_gone_are() {
    let (scenario, processes) = at_work(1, 8, 8, 0);
    assert!(scenario.goes_on_until(seconds(60), || processes[0].is_over()));
    let results = scenario.cluster.results();
    let names = [&b"run-1/manifest.json"[..], b"run-1/SUCCEEDED_0.jsonl"];
    let pins = || {
        let pins = async {
            let mut pins = Vec::new();
            for name in names {
                pins.push(results.head(name).await.expect("it is there").pin);
            }
            pins
        };
        scenario.block_on(pins)
    };
    let starts_again = || {
        let again = scenario.cluster.start(&scenario.sim.node("a"), Role::All);
        assert!(scenario.goes_on_until(seconds(60), || again.is_over()));
    };
    let made = pins();
    starts_again();
    assert_eq!(pins(), made, "nothing was written");
    scenario
        .block_on(async { results.delete(names[1]).await })
        .expect("memory deletes all");
    starts_again();
    assert_ne!(pins(), made);
}
