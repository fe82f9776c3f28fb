//! Taking in, by hand: marks, intakes that end, messages that nobody can read, and what a reconcile finds.

use std::collections::BTreeSet;

use trommel::core::class::{Class, Failure};
use trommel::core::event::{EventKind, ObjectEvent};
use trommel::core::item::Input;
use trommel::core::mark::{Claim, IntakeId, MarkOf, Sequencer, TWINS_MAX, Taken};
use trommel::core::packing::{Order, pack};
use trommel::core::part::Stretch;
use trommel::core::time::Timestamp;
use trommel::core::window::Window;
use trommel::ledger::{IntakeCounts, IntakeState, Marked, Quarantined};
use trommel::ports::Query;
use trommel::shell::reconcile::Finder;
use trommel_simulator::point::Kind;

use crate::books::{NOW, ledger, new_run};
use crate::scenario::{Scenario, job};

/// The answer to the next service call is lost.
fn lose_the_next_answer(scenario: &Scenario) {
    let injector = scenario.cluster.injector();
    injector.crash_at(Some((injector.calls() + 1, Kind::ReplyLost)));
}

#[test]
fn each_object_has_its_own_mark_however_long_its_names_are() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "intake");
    let long = |last: &str| "x".repeat(1023) + last;
    let (a, b) = (long("a"), long("b"));
    let at = |key: &[u8], version: Option<&str>| MarkOf {
        bucket: "bucket".into(),
        key: key.into(),
        version: version.map(Into::into),
    };
    let places = [
        at(b"k", None),
        at(b"k", Some("v")),
        at(b"k", Some(&a)),
        at(b"k", Some(&b)),
        at(a.as_bytes(), None),
        at(b.as_bytes(), None),
        at(b"\xff1", None),
        at(b"\xff2", None),
    ];
    assert_eq!(BTreeSet::from(places.clone()).len(), places.len());
    let claim = |index: usize, intake: &str| Claim {
        intake: IntakeId::new(intake),
        index: index as u32,
    };
    let mark = |index: usize, intake: &str| {
        let event = Taken {
            sequencer: None,
            at: NOW,
            etag: "e".into(),
            by: claim(index, intake),
        };
        let event = (EventKind::Created, event);
        let marked = ledger.mark(&places[index], event, Sequencer::Ignored, NOW);
        scenario.block_on(marked)
    };
    for index in 0..places.len() {
        assert_eq!(mark(index, "first"), Ok(Marked::Won), "{index}");
    }
    for index in 0..places.len() {
        let held = Marked::Held(claim(index, "first"));
        assert_eq!(mark(index, "second"), Ok(held), "{index}");
    }
}

#[test]
fn a_mark_is_named_by_what_people_know_as_long_as_that_fits() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "intake");
    let at = MarkOf {
        bucket: "bucket".into(),
        key: b"a key".as_slice().into(),
        version: Some("a version".into()),
    };
    let event = Taken {
        sequencer: None,
        at: NOW,
        etag: "e".into(),
        by: Claim {
            intake: IntakeId::new("first"),
            index: 0,
        },
    };
    let marked = ledger.mark(&at, (EventKind::Created, event), Sequencer::Ignored, NOW);
    assert_eq!(scenario.block_on(marked), Ok(Marked::Won));
    let table = scenario.cluster.table().quiet();
    let rows = scenario.block_on(table.query(Query::all("object#bucket/a key", 10)));
    let rows = rows.expect("it can be read").rows;
    assert_eq!(rows[0].0, "seen#a version");
}

#[test]
fn an_event_and_its_object_are_looked_for_under_the_same_name() {
    let event = ObjectEvent {
        bucket: "bucket".into(),
        key: b"in/a".as_slice().into(),
        kind: EventKind::Created,
        size_bytes: Some(1),
        etag: Some("e".into()),
        version: None,
        sequencer: None,
        at: NOW,
    };
    let object = event.object().expect("it has a size and an eTag");
    assert_eq!(event.store_key(), b"bucket/in/a");
    assert_eq!(event.store_key(), object.store_key().into_owned());
}

#[test]
fn the_window_after_a_window_is_as_long_and_begins_where_that_ends() {
    let length = std::time::Duration::from_secs(90);
    let first = Window::at(NOW, length);
    let second = first.next();
    assert_eq!(second.start, first.end);
    assert_eq!(second, Window::at(first.end, length));
}

#[test]
fn what_was_marked_and_never_became_ready_is_missing_and_what_was_removed_is_not() {
    let scenario = Scenario::new(1, job(1, 0));
    let intake = ledger(&scenario, "intake");
    let event = |key: &str, kind: EventKind, at: i64| ObjectEvent {
        bucket: "bucket".into(),
        key: key.as_bytes().into(),
        kind,
        size_bytes: Some(1),
        etag: (kind != EventKind::Removed).then(|| "\"e\"".into()),
        version: None,
        sequencer: None,
        at: Timestamp(NOW.0 + at),
    };
    let marked = [
        event("never-ready", EventKind::Created, 0),
        event("removed", EventKind::Removed, 5_000),
    ];
    for (index, event) in (0..).zip(&marked) {
        let claim = Claim {
            intake: IntakeId::new("dead.0"),
            index,
        };
        let at = MarkOf::event(event).expect("it has a mark");
        let taken = (event.kind, Taken::of(event, &claim));
        let marked = intake.mark(&at, taken, Sequencer::Ignored, NOW);
        assert_eq!(scenario.block_on(marked), Ok(Marked::Won));
    }
    let names = ["never-ready", "removed", "unseen"];
    let listed = names.map(|key| event(key, EventKind::Listed, 999));
    let mut finder = Finder::new(ledger(&scenario, "operator"), job(1, 0).name);
    let missing = scenario.block_on(finder.missing(listed.into()));
    let missing = missing.expect("it can be read");
    let keys: Vec<&[u8]> = missing.iter().map(|event| &*event.key).collect();
    assert_eq!(keys, [&b"never-ready"[..], b"unseen"]);
}

#[test]
fn sessions_count_what_they_meet_in_rows_of_their_own() {
    let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
    let run = scenario.cluster.run();
    let one = IntakeCounts {
        duplicates: 1,
        ..IntakeCounts::default()
    };
    for number in 0..12 {
        let session = ledger(&scenario, &format!("session-{number}"));
        let counted = session.count_met(&run, &one);
        assert_eq!(scenario.block_on(counted), Ok(()));
    }
    let rows = scenario.cluster.table().quiet();
    let rows = scenario.block_on(rows.query(Query::all(format!("shard#{run}"), 100)));
    let rows = rows.expect("it can be read").rows;
    let counts: Vec<i64> = rows
        .iter()
        .filter_map(|(_, row)| row.num("duplicates"))
        .collect();
    assert_eq!(counts.iter().sum::<i64>(), 12);
    assert!(
        counts.len() > 3,
        "they would wait for each other: {counts:?}"
    );
}

#[test]
fn as_many_events_of_one_moment_as_a_bucket_can_write_are_known_again() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "intake");
    let at = MarkOf {
        bucket: "bucket".into(),
        key: b"k".as_slice().into(),
        version: None,
    };
    let claim = |index: usize| Claim {
        intake: IntakeId::new("a.0"),
        index: index as u32,
    };
    let mark = |etag: usize, by: usize| {
        let event = Taken {
            sequencer: None,
            at: NOW,
            etag: format!("e{etag}").into(),
            by: claim(by),
        };
        let event = (EventKind::Created, event);
        scenario.block_on(ledger.mark(&at, event, Sequencer::Ignored, NOW))
    };
    let all = TWINS_MAX + 1;
    for etag in 0..all {
        assert_eq!(mark(etag, etag), Ok(Marked::Won));
    }
    for etag in 0..all {
        assert_eq!(mark(etag, 100), Ok(Marked::Held(claim(etag))), "{etag}");
    }
}

#[test]
fn an_intake_is_declared_void_once_whatever_answers_are_lost_and_its_row_goes_in_time() {
    let scenario = Scenario::new(1, job(1, 0));
    let (ledger, name) = (ledger(&scenario, "heir"), job(1, 0).name);
    let id = IntakeId::new("dead.0");
    lose_the_next_answer(&scenario);
    for _ in 0..2 {
        let void = ledger.void_intake(&name, &id, NOW);
        assert_eq!(scenario.block_on(void), Ok(IntakeState::Void));
    }
    let table = scenario.cluster.table().quiet();
    let mut expires = Vec::new();
    for slot in 0..16 {
        let pk = format!("intake#{name}#{slot:02}");
        let rows = scenario.block_on(table.query(Query::all(pk, 10)));
        let rows = rows.expect("it can be read").rows;
        expires.extend(rows.iter().filter_map(|(_, row)| row.num("expires")));
    }
    // In seconds, as DynamoDB's time to live has it.
    assert_eq!(expires, [NOW.0 / 1000]);
}

#[test]
fn what_nobody_can_read_is_kept_and_counted_once_though_the_answer_is_lost() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "intake");
    let new = new_run("window", NOW);
    let end = Timestamp(NOW.0 + 60_000);
    let opened = ledger.open_window(&new, Window { start: NOW, end });
    assert_eq!(scenario.block_on(opened), Ok(()));
    let (run, name) = (new.id, new.job);
    let junk = Quarantined {
        id: "m".to_owned(),
        body: "?".to_owned(),
        reason: "no notification".to_owned(),
        at: NOW,
    };
    lose_the_next_answer(&scenario);
    for _ in 0..2 {
        let kept = ledger.quarantine(&name, &run, &junk);
        assert_eq!(scenario.block_on(kept), Ok(()));
    }
    let kept = scenario.block_on(ledger.quarantined(&name, 10));
    assert_eq!(kept, Ok(vec![(run.clone(), junk)]));
    let row = scenario.block_on(ledger.run(&run)).expect("it is there");
    let met = scenario.block_on(ledger.total_and_met(&row));
    let (_, met) = met.expect("it can be read");
    assert_eq!(met.unwrap_or_default().quarantined, 1);
}

#[test]
fn neighbours_in_a_page_are_one_stretch() {
    let inputs: Vec<_> = (0..7)
        .map(|number: u32| std::sync::Arc::new(Input::Value(number.to_string().into())))
        .collect();
    let packed = pack(0, &inputs, &job(1, 0).size_rule(), Order::Free);
    let stretches: Vec<&[Stretch]> = packed.iter().map(|page| &page.stretches[..]).collect();
    assert_eq!(stretches, [[Stretch { first: 0, items: 7 }]]);
}

#[test]
fn a_failure_says_its_class_and_its_cause() {
    let failure = Failure::new(Class::named("NotAnImage"), "no header");
    assert_eq!(failure.to_string(), "NotAnImage: no header");
}
