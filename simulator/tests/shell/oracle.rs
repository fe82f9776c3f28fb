//! What must hold at the end of every scenario, whatever happened in it.

use std::collections::BTreeMap;

use trommel::core::id::{ItemId, SHARDS};
use trommel::core::outcome::Outcome;
use trommel::core::page::PageStatus;
use trommel::core::run::RunStatus;
use trommel::ledger::{Held, SessionStatus};
use trommel::shell::report::{self, Audit};

use crate::scenario::{Scenario, seconds};

/// Every promise, at the end of a run. `ended` says whether all processes left in time.
pub(crate) fn check(scenario: &Scenario, ended: bool) {
    let cluster = &scenario.cluster;
    let alive = if ended {
        ""
    } else {
        "L2: a process is still at work; "
    };
    let status = scenario.status();
    let audit = audit(scenario);
    assert!(
        ended,
        "{alive}the run is {}: {audit:?}, {:?}",
        status.as_str(),
        leases(scenario)
    );
    let broken = cluster.table().broken();
    assert!(broken.is_empty(), "{broken:?}");
    assert_eq!(scenario.sim.panics(), []);
    let max = cluster.job().max_concurrency;
    let most = cluster.running_most();
    assert!(most <= max, "S10: {most} calls ran at one time, {max} may");
    assert_eq!(audit.problems, [] as [String; 0]);
    let tolerated = cluster.job().tolerance.count.unwrap_or(0);
    let failures = audit.recounted.failures();
    match status {
        RunStatus::Succeeded => {
            assert!(
                failures <= tolerated,
                "S6: SUCCEEDED with {failures} failures of {tolerated}"
            );
            assert_eq!(audit.pending, 0, "L1: pending in a run that SUCCEEDED");
            assert_eq!(leases(scenario), [] as [String; 0], "L4");
        }
        RunStatus::Failed => {
            assert!(
                failures > tolerated,
                "S6: FAILED with {failures} failures of {tolerated}"
            );
        }
        RunStatus::Running | RunStatus::Paused | RunStatus::Aborted => {
            panic!("the run ended as {}", status.as_str());
        }
    }
    successes_were_called(scenario);
    permits_come_back(scenario);
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

fn successes_were_called(scenario: &Scenario) {
    let calls = scenario.cluster.calls();
    let mut succeeded: Vec<ItemId> = calls
        .into_iter()
        .filter(|call| call.succeeded == Some(true))
        .map(|call| call.item)
        .collect();
    succeeded.sort_unstable();
    for (item, outcome) in outcomes(scenario) {
        if outcome == Outcome::Succeeded {
            let called = succeeded.binary_search(&item).is_ok();
            assert!(called, "{item} succeeded without a call that did");
        }
    }
}

/// L4: once a session lives that buries the dead, nothing is lent.
fn permits_come_back(scenario: &Scenario) {
    if lent_or_live(scenario).is_none() {
        return;
    }
    let janitor = scenario.sim.node("janitor");
    scenario.cluster.watch_only(&janitor);
    let back = scenario.goes_on_until(seconds(150), || lent_or_live(scenario).is_none());
    assert!(back, "L4: {:?}", lent_or_live(scenario));
    janitor.crash();
}

/// What is still lent, and by whom; none: nothing, and no session lives but the janitor.
fn lent_or_live(scenario: &Scenario) -> Option<String> {
    let ledger = scenario.cluster.ledger();
    let job = &scenario.cluster.job().name;
    let (pool, sessions) = scenario.block_on(async {
        let pool = ledger.pool(job).await.expect("no faults");
        (pool, ledger.sessions(job).await.expect("no faults"))
    });
    let live = sessions
        .into_iter()
        .filter(|session| session.status == SessionStatus::Live && session.who != "janitor");
    let live: Vec<String> = live.map(|session| session.who).collect();
    (pool.lent > 0 || !live.is_empty()).then(|| format!("{} lent, {live:?} live", pool.lent))
}
