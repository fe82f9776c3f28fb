//! What one call costs that is not answered, on a day on which nothing else goes wrong: a few seconds and a few calls
//! more, and no work that is done again. Every call of a small run is tried.

use std::time::Duration;

use trommel_simulator::point::{Kind, Operation};
use trommel_simulator::run::{Outcome, Text, run, run_with};
use trommel_simulator::scenario::{Profile, Scenario, Tuning, Workload};

/// What an unclear answer of the ledger costs: a second until it is given up, and one until it is asked again.
const SECONDS_MORE_MAX: u64 = 3;

/// What is throttled is asked again at once; the end is looked for once a second.
const THROTTLED_SECONDS_MAX: u64 = 1;

/// What is found by sweeps only, two of them at most: a hint that was lost, a page that nobody was told of.
const UNTIL_SWEPT_SECONDS: u64 = 12;

/// Service calls more, with the seconds that pass.
const CALLS_MORE_MAX: u64 = 60;

/// A run in which much happens: retries, failures, batches, a redrive, result files.
fn busy_day(seed: u64) -> Scenario {
    let mut scenario = Scenario::generate(seed, Profile::None);
    scenario.workers = 1;
    scenario.workload = Workload {
        small: 7,
        large: 2,
        lines: false,
        line_bytes: 0,
        listed_at_once: 0,
    };
    scenario.tuning = Tuning {
        max_concurrency: 4,
        batch: 1,
        tolerated: 100,
        tolerated_percent: None,
        retries: 2,
        interval_ms: 500,
        pauses: false,
        results: true,
        appends: true,
        session_seconds: 30,
    };
    scenario.handler.flaky = 300_000;
    scenario.handler.bad = 150_000;
    scenario.handler.slow = 0;
    scenario.handler.throttled = 0;
    scenario.handler.killers = 0;
    scenario.redrives = 1;
    scenario.redrive_failed_only = false;
    scenario.events = None;
    scenario.rules = trommel_simulator::job_rules::Rules::default();
    scenario
}

/// What this call's loss cost too much, in a sentence.
fn too_dear(calm: &Outcome, lost: &Outcome) -> Option<String> {
    let (point, kind) = lost.fired.first()?;
    if let Some(violation) = &lost.violation {
        return Some(format!("{kind:?} of {point}: {violation:?}"));
    }
    let of_ledger = match point.operation {
        Operation::TableGet
        | Operation::TableQuery
        | Operation::TableWrite
        | Operation::TableTransact => true,
        Operation::QueueReceive
        | Operation::QueueSend
        | Operation::QueueDelete
        | Operation::QueueChangeVisibility
        | Operation::QueueDepth => false,
        // What a handler reads, and what it answers, is work.
        Operation::ObjectsHead
        | Operation::ObjectsGet
        | Operation::ObjectsList
        | Operation::ObjectsPut
        | Operation::ObjectsPutIfAbsent
        | Operation::ObjectsUpload
        | Operation::ObjectsAppend
        | Operation::ObjectsDelete
        | Operation::Call => return None,
    };
    // A router that does not know whether its pages are told of leaves the hints to a sweep.
    let of_shard = point.entity.contains("shard#");
    let seconds = match of_ledger && !of_shard {
        true if *kind == Kind::Throttled => THROTTLED_SECONDS_MAX,
        true => SECONDS_MORE_MAX,
        false => UNTIL_SWEPT_SECONDS,
    };
    // Result files are compiled once the session is closed.
    let compiles = point.entity.contains("run#") && point.operation == Operation::TableWrite;
    if lost.sessions != calm.sessions && !compiles {
        let (was, is) = (calm.sessions, lost.sessions);
        return Some(format!("{kind:?} of {point}: {was} sessions became {is}"));
    }
    let all = |outcome: &Outcome| outcome.calls.values().sum::<u64>();
    let work = |outcome: &Outcome| outcome.calls.get(&Operation::Call).copied();
    let late = lost.virtual_time > calm.virtual_time + Duration::from_secs(seconds);
    let again = work(lost) != work(calm);
    let busy = all(lost) > all(calm) + CALLS_MORE_MAX;
    (late || again || busy).then(|| {
        let (was, is) = (calm.virtual_time, lost.virtual_time);
        let (calls, more) = (&calm.calls, &lost.calls);
        format!("{kind:?} of {point}: {was:?} became {is:?}, {calls:?} became {more:?}")
    })
}

#[test]
fn an_answer_that_is_lost_costs_seconds_and_no_work() {
    let day = busy_day(1);
    let calm = run(&day, Text::Hashed);
    assert_eq!(calm.violation, None);
    let calls: u64 = calm.calls.values().sum();
    let mut dear = Vec::new();
    for kind in [Kind::ReplyLost, Kind::RequestLost, Kind::Throttled] {
        for nth in 1..=calls {
            let lost = run_with(&day, Text::Hashed, Some((nth, kind)));
            dear.extend(too_dear(&calm, &lost));
        }
    }
    assert_eq!(dear, [] as [String; 0]);
}
