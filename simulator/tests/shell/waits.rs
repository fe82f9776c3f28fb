//! What nobody should have to wait for: permits that lie idle elsewhere, news that has nothing to be gathered with, result
//! files of a run in which all is settled.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use trommel::core::job::Location;
use trommel::core::run::{RunEvent, RunStatus};
use trommel::core::time::Tick;
use trommel::ledger::Redrive;
use trommel::ports::ObjectsError;
use trommel::shell::finalizer::Manifest;
use trommel_simulator::cluster::{Behaviour, Process};
use trommel_simulator::point::{Kind, Operation, Point};
use trommel_simulator::scenario::Role;
use trommel_simulator::services::Source;

use crate::books::ledger;
use crate::hands::change;
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
fn what_was_settled_last_is_judged_within_a_second() {
    for seed in 0..20 {
        let (scenario, _) = at_work(seed, 8, 8, 0);
        let is_judged = || scenario.status() == RunStatus::Succeeded;
        while !is_judged() {
            scenario.run_for(Duration::from_millis(50));
        }
        let waited = scenario.sim.now().since(last_call(&scenario));
        assert!(waited < seconds(1), "seed {seed}: {waited:?}");
    }
}

#[test]
fn large_items_run_as_many_at_a_time_as_they_may() {
    let scenario = Scenario::with_objects(1, job(8, 0), 0, 40);
    let long = Behaviour::calm(seconds(3), seconds(3));
    scenario.cluster.set_behaviour(long);
    let (_, process) = scenario.start("a");
    let ended = scenario.goes_on_until(seconds(120), || process.is_over());
    oracle::check(&scenario, ended);
    assert_eq!(scenario.cluster.running_most(), 8);
    let waited = last_call(&scenario).since(Tick::default());
    assert!(waited < seconds(5 * 3 + 5), "five times eight: {waited:?}");
}

#[test]
fn a_finalizer_that_waits_while_the_run_is_redriven_writes_nothing() {
    let mut job = job(1, 0);
    job.results = Some(Location::S3 {
        bucket: "results".to_owned(),
        key: String::new(),
    });
    let name = job.name.clone();
    let scenario = Scenario::with_objects(1, job, 8, 0);
    // A session that lives and never says that it has heard of the end.
    let deaf = ledger(&scenario, "deaf");
    let opened = deaf.open_session(&name, seconds(3_600), "deaf");
    assert_eq!(scenario.block_on(opened), Ok(()));
    let behaviour = Behaviour::calm(seconds(1), seconds(2));
    let bad = Behaviour {
        bad: 1_000_000,
        ..behaviour
    };
    scenario.cluster.set_behaviour(bad);
    let (_, first) = scenario.start("a");
    let has_failed = || scenario.status() == RunStatus::Failed;
    assert!(scenario.goes_on_until(seconds(60), has_failed));
    scenario.run_for(seconds(10));
    assert!(!first.is_over(), "it waits");
    scenario.cluster.set_behaviour(behaviour);
    change(&scenario, &RunEvent::Redrive, Some(&Redrive::default()));
    let (_, second) = scenario.start("b");
    let all_left = || first.is_over() && second.is_over();
    assert!(scenario.goes_on_until(seconds(300), all_left));
    assert_eq!(scenario.status(), RunStatus::Succeeded);
    let trace = scenario.sim.trace_text();
    assert!(trace.contains("a it was redriven meanwhile"), "{trace}");
    let manifest = scenario.block_on(async {
        let results = scenario.cluster.results();
        let mut reader = results.get(b"run-1/manifest.json", 0, None, None).await?;
        let mut text = String::new();
        let read = reader.read_to_string(&mut text).await;
        read.expect("memory is read to its end");
        Ok::<_, ObjectsError>(text)
    });
    let manifest: Manifest = serde_json::from_str(&manifest.expect("it is there")).expect("ours");
    assert_eq!(
        (manifest.generation, manifest.status.as_str()),
        (1, "SUCCEEDED")
    );
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

#[test]
fn items_that_run_alone_follow_one_another_at_once() {
    let scenario = Scenario::with_objects(1, job(8, 0), 10, 0);
    let long = Behaviour::calm(seconds(15), seconds(15));
    scenario.cluster.set_behaviour(long);
    let made = || scenario.cluster.calls().len();
    for name in ["a", "b"] {
        let before = made();
        let (node, _) = scenario.start(name);
        assert!(scenario.goes_on_until(seconds(60), || made() > before));
        node.crash();
    }
    let before = made();
    let short = Duration::from_millis(100);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(short, short));
    let (_, third) = scenario.start("c");
    let ended = scenario.goes_on_until(seconds(120), || third.is_over());
    oracle::check(&scenario, ended);
    let calls = scenario.cluster.calls();
    let mut began: Vec<Tick> = calls[before..].iter().map(|call| call.began).collect();
    began.sort();
    assert_eq!(began.len(), 10, "each item alone");
    for pair in began.windows(2) {
        // The call, a settle and a note: four latencies of some ten milliseconds.
        let waited = pair[1].since(pair[0]);
        assert!(waited >= short, "two at a time: {waited:?}");
        assert!(waited < short * 4, "{waited:?}");
    }
}

/// Runs so many items, while the lease of one page hangs, and says when their calls began, in order.
fn beginnings_while_a_lease_hangs(small: u64, large: u64, page: &str) -> Vec<Duration> {
    let scenario = Scenario::with_objects(1, job(8, 0), small, large);
    let short = Duration::from_millis(10);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(short, short));
    let lease = Point {
        operation: Operation::TableWrite,
        entity: format!("a page#run-1#00 / {page}"),
        // The first makes the page.
        nth: 2,
    };
    let hangs = Source::Plan([(lease, Kind::Hangs)].into());
    scenario.cluster.injector().set(hangs);
    let (_, process) = scenario.start("a");
    let ended = scenario.goes_on_until(seconds(300), || process.is_over());
    oracle::check(&scenario, ended);
    let calls = scenario.cluster.calls();
    let began = calls.iter().map(|call| call.began.since(Tick::default()));
    let mut began: Vec<Duration> = began.collect();
    began.sort();
    began
}

#[test]
fn a_page_whose_lease_takes_long_keeps_no_other_waiting() {
    // Of large items each is a page; of small ones a hundred are, and at first one page is wanted.
    for (small, large, page, late) in [(0, 6, "00000000-00002", 1), (250, 0, "00000000-00000", 100)]
    {
        let began = beginnings_while_a_lease_hangs(small, large, page);
        let (in_time, late) = began.split_at(began.len() - late);
        assert!(
            in_time.iter().all(|began| *began < seconds(3)),
            "{page}: {in_time:?}"
        );
        assert!(
            late.iter().all(|began| *began > seconds(5)),
            "{page}: until its hint comes again, {late:?}"
        );
    }
}
