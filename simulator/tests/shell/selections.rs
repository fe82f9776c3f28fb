//! What a redrive would take, by every kind of selection: `trommel redrive --dry-run` on a run in which items came to
//! several ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trommel::core::class::Class;
use trommel::core::id::SHARDS;
use trommel::core::outcome::Outcome;
use trommel::core::page::Mark;
use trommel::core::redrive::Selection;
use trommel::core::retry::{CatchRule, Errors, Then};
use trommel::shell::report::RunReader;
use trommel::shell::{Plan, plan};
use trommel_simulator::cluster::Behaviour;

use crate::scenario::{Scenario, job, seconds};

/// One item as it stands.
#[derive(Debug)]
struct Item {
    name: String,
    page: String,
    /// None: pending.
    outcome: Option<Outcome>,
    class: String,
    key: String,
    bytes: u64,
}

/// A run that failed of its budget: some items succeeded, some failed of several classes, some were left out, some are
/// pending.
fn ended() -> (Scenario, Vec<Item>) {
    let mut job = job(2, 9);
    job.retry.clear();
    job.catch = vec![CatchRule {
        errors: Errors::Any(vec![Class::named("Bad1")]),
        then: Then::Skip,
    }];
    let scenario = Scenario::with_objects(3, job, 24, 12);
    scenario.cluster.set_behaviour(Behaviour {
        flaky: 200_000,
        bad: 350_000,
        kinds_of_bad: 3,
        ..Behaviour::calm(Duration::from_millis(100), Duration::from_millis(400))
    });
    let (_, process) = scenario.start("a");
    assert!(scenario.goes_on_until(seconds(300), || process.is_over()));
    let items = items(&scenario);
    (scenario, items)
}

fn items(scenario: &Scenario) -> Vec<Item> {
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    let (mut items, mut classes) = (Vec::new(), BTreeMap::new());
    for shard in 0..SHARDS {
        let rows = scenario.block_on(ledger.failures_of_shard(&run, shard));
        for row in rows.expect("the quiet way has no faults") {
            classes.insert(row.item, row.failure.class.to_string());
        }
        let pages = ledger.pages_between(&run, shard, (" ", "~"), usize::MAX);
        for held in scenario
            .block_on(pages)
            .expect("the quiet way has no faults")
        {
            let stretches = held.page.stretches.iter();
            let places = stretches.flat_map(|one| one.first..one.first + one.items);
            let states = (0..).zip(&held.page.items).zip(places);
            for ((index, state), place) in states.filter(|((_, one), _)| one.mark != Mark::Moved) {
                let id = held.page.id.origin(index);
                items.push(Item {
                    name: id.to_string(),
                    page: held.page.id.to_string(),
                    outcome: state.mark.outcome(),
                    class: classes.get(&id).cloned().unwrap_or_default(),
                    key: format!("object-{place:05}"),
                    bytes: if place < 24 { 10 } else { 1000 },
                });
            }
        }
    }
    items
}

/// By the definition of `*` and `?`.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|from| is_like(rest, &text[from..])),
        ([_, ..], []) => false,
        ([one, rest @ ..], [same, text @ ..]) => {
            (*one == b'?' || one == same) && is_like(rest, text)
        }
    }
}

fn takes(selection: &Selection, item: &Item) -> bool {
    let Some(outcome) = item.outcome else {
        return false;
    };
    let print = format!("{}: attempt # on \"…\" failed", item.class);
    let in_default = [Outcome::Failed, Outcome::TimedOut, Outcome::Aborted].contains(&outcome);
    let mut yes = outcome != Outcome::Succeeded && !selection.only_pending;
    yes &= match selection.outcomes.len() {
        0 => in_default,
        _ => selection.outcomes.contains(&outcome),
    };
    yes &= selection.classes.is_empty() || selection.classes.contains(&item.class);
    yes &= selection.fingerprints.is_empty() || selection.fingerprints.contains(&print);
    yes &= selection.items.is_empty() || selection.items.contains(&item.name);
    yes &= selection.larger_bytes.is_none_or(|than| item.bytes > than);
    yes &= selection.smaller_bytes.is_none_or(|than| item.bytes < than);
    let key = selection.key.as_deref();
    yes && key.is_none_or(|key| is_like(key.as_bytes(), item.key.as_bytes()))
}

/// What the selection takes of these: a page is opened with all that is pending in it.
fn expected(selection: &Selection, takes_pending: bool, items: &[Item]) -> Plan {
    let mut pages: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in items {
        pages.entry(&item.page).or_default().push(item);
    }
    let mut plan = Plan::default();
    for items in pages.values() {
        let taken = items.iter().filter(|item| takes(selection, item)).count();
        let pending = items.iter().filter(|item| item.outcome.is_none()).count();
        if taken > 0 || (takes_pending && pending > 0) {
            plan.reopened += taken as u64;
            plan.pending += pending as u64;
            plan.pages += 1;
        }
    }
    plan
}

/// Each with whether it takes what is pending.
fn selections() -> Vec<(Selection, bool)> {
    let of = Selection::default;
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    let mut all = vec![(of(), true)];
    let mut narrow = |selection: Selection| {
        for pending in [None, Some(true), Some(false)] {
            let selection = Selection {
                pending,
                ..selection.clone()
            };
            all.push((selection, pending == Some(true)));
        }
    };
    for outcome in Outcome::ALL {
        narrow(Selection {
            outcomes: vec![outcome],
            ..of()
        });
    }
    for class in ["Flaky", "Bad0", "Bad1", "Bad2", "Bad", "Timeout"] {
        narrow(Selection {
            classes: texts(&[class]),
            ..of()
        });
        let print = format!("{class}: attempt # on \"…\" failed");
        narrow(Selection {
            fingerprints: vec![print.clone()],
            ..of()
        });
        narrow(Selection {
            classes: texts(&["Flaky"]),
            fingerprints: vec![print],
            ..of()
        });
    }
    for key in [
        "",
        "*",
        "**",
        "?",
        "object-?????",
        "object-0000?",
        "object-*3",
        "*1",
        "*-*0*1*",
        "o*0*2?",
        "*0??",
        "object-00012*",
        "*?",
        "object-000*01",
        "*2*2",
        "bject*",
        "object-0000",
        "object-000111",
        "*a*b*c",
        "*00*01*",
        "?*?-*?1",
    ] {
        narrow(Selection {
            key: Some(key.to_owned()),
            ..of()
        });
    }
    for bytes in [0, 9, 10, 11, 999, 1000, 1001] {
        narrow(Selection {
            larger_bytes: Some(bytes),
            ..of()
        });
        narrow(Selection {
            smaller_bytes: Some(bytes),
            ..of()
        });
        narrow(Selection {
            larger_bytes: Some(bytes),
            classes: texts(&["Flaky", "Bad1"]),
            outcomes: vec![Outcome::Failed, Outcome::Skipped],
            key: Some("*0*".to_owned()),
            ..of()
        });
    }
    for names in [
        &["0-0-0", "0-0-7"][..],
        &["0-1-0"],
        &["1-0-0", "0-0-11", "0-12-0"],
    ] {
        narrow(Selection {
            items: texts(names),
            ..of()
        });
    }
    all.push((
        Selection {
            only_pending: true,
            ..of()
        },
        true,
    ));
    all.push((
        Selection {
            pending: Some(false),
            ..of()
        },
        false,
    ));
    all
}

#[test]
fn a_selection_takes_what_it_says_and_nothing_else() {
    let (scenario, items) = ended();
    let mut ends: Vec<Option<Outcome>> = items.iter().map(|item| item.outcome).collect();
    ends.sort_unstable();
    ends.dedup();
    assert!(
        ends.len() >= 4,
        "too few kinds of ends to choose from: {ends:?}"
    );
    let (ledger, run) = (scenario.cluster.ledger(), scenario.cluster.run());
    let row = scenario.block_on(async { ledger.run(&run).await });
    let reader = RunReader {
        ledger,
        row: row.expect("the run has a row"),
        job: Arc::clone(scenario.cluster.job()),
        stores: scenario.cluster.stores().clone(),
    };
    for (selection, takes_pending) in selections() {
        let would = scenario.block_on(plan(&reader, &selection));
        let would = would.expect("the quiet way has no faults");
        let must = expected(&selection, takes_pending, &items);
        assert_eq!(would, must, "{selection:?} of {items:?}");
        // It says the same once it was stored with its run.
        let text = serde_json::to_string(&selection).expect("plain data serialises");
        let stored: Selection = serde_json::from_str(&text).expect("it was just written");
        assert_eq!(stored, selection);
    }
}
