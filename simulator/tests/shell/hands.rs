//! What people do: drain a node, pause and resume, redrive.

use std::collections::BTreeSet;
use std::time::Duration;

use trommel::core::id::ItemId;
use trommel::core::outcome::Outcome;
use trommel::core::run::{RunEvent, RunStatus, Wish};
use trommel::ledger::Redrive;
use trommel_simulator::cluster::{Behaviour, Process};

use crate::oracle;
use crate::scenario::{Scenario, job, seconds};

fn busy(scenario: &Scenario, calls: usize) {
    let enough = || scenario.cluster.calls().len() >= calls;
    assert!(
        scenario.goes_on_until(seconds(120), enough),
        "no {calls} calls in time"
    );
}

/// Carries out an event on the run, as the command line does.
pub(crate) fn change(scenario: &Scenario, event: &RunEvent, redrive: Option<&Redrive>) {
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    scenario.block_on(async {
        let row = ledger.run(&run).await.expect("the run has a row");
        let changed = ledger.change_run(&row, event, redrive).await;
        changed.expect("nobody else changes it");
    });
}

#[test]
fn a_drained_node_gives_back_and_the_other_goes_on() {
    let scenario = Scenario::with_objects(11, job(4, 0), 60, 40);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(seconds(1), seconds(2)));
    let (_, first) = scenario.start("a");
    let (_, other) = scenario.start("b");
    busy(&scenario, 20);
    first.drain();
    let asked_at = scenario.sim.now();
    assert!(
        scenario.goes_on_until(seconds(30), || first.is_over()),
        "it drains in time"
    );
    assert_eq!(first.ended(), Some(RunStatus::Running));
    let drained_at = scenario.sim.now();
    let ended = scenario.goes_on_until(seconds(300), || other.is_over());
    let calls = scenario.cluster.calls();
    assert!(
        calls.iter().all(|call| call.succeeded == Some(true)),
        "no call was cut short"
    );
    let began_late =
        |call: &&trommel_simulator::watch::Seen| call.node == "a" && call.began > asked_at;
    assert_eq!(
        calls.iter().find(began_late),
        None,
        "it starts no call once it is asked"
    );
    assert!(
        calls
            .iter()
            .any(|call| call.node == "b" && call.began > drained_at)
    );
    assert_eq!(calls.len(), 100, "what it gave back was not begun");
    oracle::check(&scenario, ended);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
}

#[test]
fn a_paused_run_holds_nothing_and_a_fresh_node_resumes_it() {
    let scenario = Scenario::with_objects(12, job(4, 0), 60, 40);
    scenario
        .cluster
        .set_behaviour(Behaviour::calm(seconds(1), seconds(2)));
    let processes = [scenario.start("a").1, scenario.start("b").1];
    busy(&scenario, 20);
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    let wished = scenario.block_on(async { ledger.wish(&run, Wish::Pause).await });
    wished.expect("the run is RUNNING");
    let left = || processes.iter().all(Process::is_over);
    assert!(
        scenario.goes_on_until(seconds(30), left),
        "both leave in time"
    );
    assert_eq!(scenario.status(), RunStatus::Paused);
    assert_eq!(
        oracle::leases(&scenario),
        [] as [String; 0],
        "everything is given back"
    );
    assert_eq!(scenario.cluster.running(), 0);
    let audit = oracle::audit(&scenario);
    assert_eq!(audit.problems, [] as [String; 0]);
    assert!(audit.pending > 0, "it paused in the middle");

    change(&scenario, &RunEvent::Resume(None), None);
    let (_, fresh) = scenario.start("c");
    let ended = scenario.goes_on_until(seconds(600), || fresh.is_over());
    oracle::check(&scenario, ended);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
}

#[test]
fn a_redrive_runs_exactly_what_failed() {
    let scenario = Scenario::with_objects(13, job(8, 100), 60, 40);
    let failing = Behaviour {
        bad: 300_000,
        ..Behaviour::calm(Duration::from_millis(100), seconds(1))
    };
    scenario.cluster.set_behaviour(failing);
    let processes = [scenario.start("a").1, scenario.start("b").1];
    let left = || processes.iter().all(Process::is_over);
    let ended = scenario.goes_on_until(seconds(300), left);
    oracle::check(&scenario, ended);
    assert_eq!(
        scenario.status(),
        RunStatus::Succeeded,
        "failures were tolerated"
    );
    let failed: BTreeSet<ItemId> = oracle::outcomes(&scenario)
        .into_iter()
        .filter(|(_, outcome)| *outcome == Outcome::Failed)
        .map(|(item, _)| item)
        .collect();
    assert!(!failed.is_empty());

    scenario
        .cluster
        .set_behaviour(Behaviour::calm(seconds(1), seconds(1)));
    change(&scenario, &RunEvent::Redrive, Some(&Redrive::default()));
    let (_, fresh) = scenario.start("c");
    let ended = scenario.goes_on_until(seconds(300), || fresh.is_over());
    oracle::check(&scenario, ended);
    assert_eq!(scenario.status(), RunStatus::Succeeded);
    let mut again = BTreeSet::new();
    for call in scenario.cluster.calls() {
        if call.generation == 1 {
            assert!(again.insert(call.item), "{} ran twice", call.item);
        }
    }
    assert_eq!(again, failed);
    let outcomes = oracle::outcomes(&scenario);
    assert!(
        outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Succeeded)
    );
}
