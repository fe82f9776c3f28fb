//! What must hold at the end of every scenario, whatever happened in it.

use std::collections::BTreeMap;

use trommel::core::id::{ItemId, SHARDS};
use trommel::core::outcome::Outcome;
use trommel::core::page::PageStatus;
use trommel::core::run::RunStatus;
use trommel::ledger::Held;
use trommel::shell::report::{self, Audit};

use trommel_simulator::oracle::Oracle;

use crate::scenario::{SMALL_BYTES, Scenario, seconds};

/// Every promise, at the end of a run. `ended` says whether all processes left in time.
pub(crate) fn check(scenario: &Scenario, ended: bool) {
    let cluster = &scenario.cluster;
    let status = scenario.status();
    let held = leases(scenario);
    assert!(ended, "L2: the run is {}, and {held:?}", status.as_str());
    assert!(
        matches!(status, RunStatus::Succeeded | RunStatus::Failed),
        "the run ended as {}",
        status.as_str()
    );
    let (ledger, run) = (cluster.ledger(), cluster.run());
    let row = scenario.block_on(async { ledger.run(&run).await });
    let input = cluster.stores().input.clone();
    let listed = scenario.block_on(async { input.list(b"", None, 1000).await });
    let objects = listed.expect("memory lists all").objects;
    let is_small = objects
        .iter()
        .map(|object| object.size_bytes == SMALL_BYTES);
    let is_small = is_small.collect();
    let mut oracle = Oracle::new(&scenario.sim, cluster, is_small);
    oracle.at_any_time();
    oracle
        .at_rest(&row.expect("the run has a row"))
        .expect("the world goes on");
    permits_come_back(scenario, &mut oracle);
    let (violations, compared) = oracle.finish();
    assert_eq!(violations, []);
    assert!(compared.values().sum::<u64>() > 0, "nothing was compared");
}

pub(crate) fn audit(scenario: &Scenario) -> Audit {
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    let audit = scenario.block_on(async { report::audit(&ledger, &run).await });
    audit.expect("the quiet way has no faults")
}

/// All pages of the run.
pub(crate) fn pages(scenario: &Scenario) -> Vec<Held> {
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    let mut pages = Vec::new();
    for shard in 0..SHARDS {
        let found = scenario.block_on(async {
            let all = (" ", "~");
            ledger.pages_between(&run, shard, all, usize::MAX).await
        });
        pages.extend(found.expect("the quiet way has no faults"));
    }
    pages
}

/// Pages that somebody holds.
pub(crate) fn leases(scenario: &Scenario) -> Vec<String> {
    let leased = |held: Held| match &held.page.status {
        PageStatus::Leased { session } => Some(format!("{} by {session}", held.page.id)),
        PageStatus::Ready | PageStatus::Waiting { .. } | PageStatus::Settled => None,
    };
    pages(scenario).into_iter().filter_map(leased).collect()
}

/// Outcomes by item.
pub(crate) fn outcomes(scenario: &Scenario) -> BTreeMap<ItemId, Outcome> {
    let mut outcomes = BTreeMap::new();
    for held in pages(scenario) {
        for (index, item) in held.page.items.iter().enumerate() {
            if let Some(outcome) = item.mark.outcome() {
                let id = held
                    .page
                    .id
                    .origin(u8::try_from(index).expect("a page has 100"));
                let former = outcomes.insert(id, outcome);
                assert_eq!(former, None, "S1: {id} has two outcomes");
            }
        }
    }
    outcomes
}

/// L4: once a session lives that buries the dead, nothing is lent.
fn permits_come_back(scenario: &Scenario, oracle: &mut Oracle<'_>) {
    let left = |oracle: &Oracle<'_>| oracle.lent_or_live().expect("the world goes on");
    if left(oracle).is_none() {
        return;
    }
    let janitor = scenario.sim.node("janitor");
    scenario.cluster.watch_only(&janitor);
    let back = scenario.goes_on_until(seconds(150), || left(oracle).is_none());
    assert!(back, "L4: {:?}", left(oracle));
    janitor.crash();
}
