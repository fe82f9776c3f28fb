//! Who may do what with a page, whoever asks: also one who has just read how it stands, so that the name of its last
//! write does not stop him. And what no program may do to a row that it cannot read.

use std::sync::Arc;

use trommel::core::id::{Generation, PageId, SessionId};
use trommel::core::lane::Lane;
use trommel::core::outcome::Outcome;
use trommel::core::packing::Packed;
use trommel::core::page::{ItemState, Mark, PageStatus, Refusal};
use trommel::core::part::{Cursor, Part, Place, Stretch};
use trommel::core::run::{Reason, RunEvent};
use trommel::core::time::Timestamp;
use trommel::ledger::{Held, Ledger, LedgerError, SettleEnd, Settlement};
use trommel::ports::{Key, TableError, Update, Write};
use trommel_simulator::point::Kind;
use trommel_simulator::services::{Rates, Source};

use crate::scenario::{Scenario, job};

const NOW: Timestamp = Timestamp(1_767_225_600_000);

/// A run with one page of three items that nobody has.
struct World {
    scenario: Scenario,
    page: PageId,
}

impl World {
    fn new() -> Self {
        let scenario = Scenario::with_objects(1, job(4, 0), 3, 0);
        let world = Self {
            scenario,
            page: PageId::new(0, 0),
        };
        let packed = Packed {
            id: world.page,
            lane: Lane::Function,
            stretches: vec![Stretch { first: 0, items: 3 }],
        };
        let (ledger, run) = (world.ledger("router"), world.scenario.cluster.run());
        let made = world
            .scenario
            .block_on(async move { ledger.create_pages(&run, &[packed], Generation(0)).await });
        made.expect("there is none");
        world
    }

    /// The ledger as one session writes it.
    fn ledger(&self, session: &str) -> Ledger {
        let runtime = self.scenario.cluster.service().runtime();
        let table = self.scenario.cluster.table().quiet();
        Ledger::new(table, runtime, SessionId::new(session))
    }

    fn lease(&self, session: &str) -> Result<Held, LedgerError> {
        let (ledger, run) = (self.ledger(session), self.scenario.cluster.run());
        self.scenario
            .block_on(async { ledger.lease(&run, self.page, NOW).await })
    }

    /// As it stands.
    fn held(&self) -> Held {
        let (ledger, run) = (self.ledger("reader"), self.scenario.cluster.run());
        let held = self
            .scenario
            .block_on(async { ledger.page(&run, self.page).await });
        held.expect("it can be read").expect("it is there")
    }

    fn settle(&self, session: &str, held: Held, marks: &[Mark]) -> Result<SettleEnd, LedgerError> {
        let item = |mark: &Mark| ItemState {
            mark: *mark,
            ..ItemState::default()
        };
        let settlement = Settlement {
            held,
            items: marks.iter().map(item).collect(),
            outputs: None,
            moved: Vec::new(),
            classes: Vec::new(),
        };
        let (ledger, run) = (self.ledger(session), self.scenario.cluster.run());
        let ends = self
            .scenario
            .block_on(async { ledger.settle(&run, vec![settlement]).await })?;
        Ok(ends.into_iter().next().expect("one end a settlement"))
    }

    /// Everything that a session may try with the page as it stands: what it was refused.
    fn try_all(&self, session: &str) -> Vec<Result<(), LedgerError>> {
        let (ledger, run) = (self.ledger(session), self.scenario.cluster.run());
        let held = self.held();
        let third = SessionId::new("third");
        let done = [Mark::Done(Outcome::Succeeded); 3];
        let settled = self.settle(session, held.clone(), &done);
        let mut ends = vec![settled.map(|_| ())];
        ends.extend(self.scenario.block_on(async {
            [
                ledger.note(&run, &held, 0).await.map(|_| ()),
                ledger.release(&run, &held, NOW).await.map(|_| ()),
                ledger.take_over(&run, &held, &third).await.map(|_| ()),
                ledger.lease(&run, self.page, NOW).await.map(|_| ()),
            ]
        }));
        ends
    }
}

fn is_refused(end: &Result<(), LedgerError>) -> bool {
    matches!(end, Err(LedgerError::Page(_)))
}

#[test]
fn who_does_not_hold_a_page_changes_nothing_of_it() {
    let world = World::new();
    let before = world.held();
    let ends = world.try_all("other");
    assert!(ends[..4].iter().all(is_refused), "nobody has it: {ends:?}");
    assert_eq!(ends[4], Ok(()), "who leases it has it");
    let mine = world.held();
    assert_eq!(mine.page.epoch, before.page.epoch.next());
    for stranger in ["a stranger", "another"] {
        let ends = world.try_all(stranger);
        assert!(ends.iter().all(is_refused), "{stranger}: {ends:?}");
        assert_eq!(world.held(), mine);
    }
    let busy = world.lease("another").expect_err("it is leased");
    assert!(matches!(busy, LedgerError::Page(Refusal::Busy { .. })));
}

#[test]
fn a_settled_page_is_nobodys_any_more() {
    let world = World::new();
    let held = world.lease("me").expect("it is ready");
    let done = [Mark::Done(Outcome::Failed); 3];
    let end = world.settle("me", held, &done).expect("it is mine");
    assert!(matches!(end, SettleEnd::Recorded(_)));
    let settled = world.held();
    assert_eq!(settled.page.status, PageStatus::Settled);
    let ends = world.try_all("me");
    let refused = |end: &Result<(), LedgerError>| is_refused(end) || *end == Ok(());
    assert!(ends.iter().all(refused), "{ends:?}");
    assert!(ends[1..].iter().all(is_refused), "{ends:?}");
    assert_eq!(world.held(), settled);
    // Only a redrive opens it, and only a later one than the last.
    let (ledger, run) = (world.ledger("redriver"), world.scenario.cluster.run());
    let reopen = |generation: u32| {
        let (held, generation) = (world.held(), Generation(generation));
        let opened = ledger.reopen(&run, &held, generation, vec![0]);
        world.scenario.block_on(opened).map(|_| ())
    };
    assert_eq!(reopen(0), Err(LedgerError::Page(Refusal::Done)));
    assert_eq!(reopen(1), Ok(()));
    assert_eq!(reopen(1), Err(LedgerError::Page(Refusal::Done)));
}

#[test]
fn what_would_break_a_promise_is_refused_though_the_holder_asks() {
    let world = World::new();
    let held = world.lease("me").expect("it is ready");
    let (ledger, run) = (world.ledger("me"), world.scenario.cluster.run());
    let beyond = world
        .scenario
        .block_on(async { ledger.note(&run, &held, 3).await });
    assert!(matches!(
        beyond,
        Err(LedgerError::Page(Refusal::Illegal { .. }))
    ));
    let pending = Mark::Pending;
    let failed = Mark::Done(Outcome::Failed);
    let fewer = world.settle("me", held.clone(), &[failed, pending]);
    assert!(
        matches!(fewer, Err(LedgerError::Page(Refusal::Broken(_)))),
        "{fewer:?}"
    );
    let Ok(SettleEnd::Recorded(held)) = world.settle("me", held, &[failed, pending, pending])
    else {
        panic!("it is mine");
    };
    let noted = world
        .scenario
        .block_on(async { ledger.note(&run, &held, 0).await });
    assert!(matches!(
        noted,
        Err(LedgerError::Page(Refusal::Illegal { .. }))
    ));
    for changed in [pending, Mark::Moved, Mark::Done(Outcome::Succeeded)] {
        let end = world.settle("me", held.clone(), &[changed, pending, pending]);
        assert!(
            matches!(end, Err(LedgerError::Page(Refusal::Broken(_)))),
            "an outcome became {changed:?}: {end:?}"
        );
        let told = end.map(|_| ()).expect_err("it was refused").to_string();
        assert!(told.contains("S1") && told.contains("item 0"), "{told}");
    }
    let succeeded = Mark::Done(Outcome::Succeeded);
    let Ok(SettleEnd::Recorded(held)) = world.settle("me", held, &[failed, succeeded, succeeded])
    else {
        panic!("it is mine");
    };
    let again = ledger.reopen(&run, &held, Generation(1), vec![1]);
    let again = world.scenario.block_on(again);
    assert!(
        matches!(again, Err(LedgerError::Page(Refusal::Broken(_)))),
        "{again:?}"
    );
    let beyond = ledger.reopen(&run, &held, Generation(1), vec![3]);
    assert!(world.scenario.block_on(beyond).is_err());
    assert_eq!(world.held(), held);
}

#[test]
fn a_part_is_frozen_only_while_its_run_is_running() {
    let world = World::new();
    let ledger = crate::books::ledger(&world.scenario, "reader");
    let run = world.scenario.cluster.run();
    let row = || {
        let row = world.scenario.block_on(async { ledger.run(&run).await });
        row.expect("the run has a row")
    };
    let freeze = || {
        let cursor = row().cursor;
        let part = Part {
            number: cursor.parts,
            items: 5,
            place: Place::Numbers { first: 0 },
        };
        let behind = Cursor {
            parts: cursor.parts + 1,
            items: cursor.items + 5,
            ..cursor
        };
        let frozen = ledger.freeze(&run, &part, &behind);
        world.scenario.block_on(frozen)
    };
    let change = |event: RunEvent| {
        let before = row();
        let changed = ledger.change_run(&before, &event, None);
        world.scenario.block_on(changed).expect("it may")
    };
    assert_eq!(freeze(), Ok(()));
    let total = row().total;
    change(RunEvent::Pause(Reason::Asked));
    assert_eq!(freeze(), Err(LedgerError::Raced), "it is paused");
    change(RunEvent::Resume(None));
    assert_eq!(freeze(), Ok(()), "it goes on");
    change(RunEvent::Stop);
    // What was asked for before the end may arrive after it: result files have told the total.
    assert_eq!(freeze(), Err(LedgerError::Raced), "it has ended");
    assert_eq!(row().total, total + 5);
    let throttled = Source::Swarm(Rates::from([(Kind::Throttled, 1_000_000)]));
    world.scenario.cluster.injector().set(throttled);
    let refused = freeze();
    assert!(
        matches!(refused, Err(LedgerError::Table(TableError::Throttled(_)))),
        "nobody came before: {refused:?}"
    );
}

#[test]
fn rows_of_a_newer_program_and_rows_that_cannot_be_are_refused_not_guessed_at() {
    let damages: [(&str, Update); 12] = [
        ("v", Update::Set("v".into(), 2.into())),
        ("v", Update::Remove("v".into())),
        ("status", Update::Set("status".into(), "lent".into())),
        ("lane", Update::Set("lane".into(), "slow".into())),
        ("items", Update::Set("items".into(), "..?".into())),
        ("items", Update::Set("items".into(), "..".into())),
        ("at", Update::Set("at".into(), "0-3".into())),
        ("epoch", Update::Set("epoch".into(), (-1).into())),
        ("retries", Update::Set("retries".into(), "0000".into())),
        ("retries", Update::Set("retries".into(), "".into())),
        ("dues", Update::Set("dues".into(), "3:1".into())),
        ("alones", Update::Set("alones".into(), "0:-1".into())),
    ];
    for (what, damage) in damages {
        let world = World::new();
        let run = world.scenario.cluster.run();
        let key = Key::new(format!("page#{run}#00"), world.page.to_string());
        let table: Arc<dyn trommel::ports::Table> = world.scenario.cluster.table().quiet();
        let told = format!("{damage:?}");
        let written = table.write(Write::update(key, Vec::new(), vec![damage]));
        world.scenario.block_on(written).expect("a table takes all");
        let read = world.lease("me").expect_err(&told);
        let is_newer = told.contains("Num(2)");
        match read {
            LedgerError::Newer { version, .. } => assert!(is_newer && version == 2, "{told}"),
            LedgerError::Damaged { problem, .. } => {
                assert!(
                    !is_newer && !problem.is_empty(),
                    "{what}: {told}: {problem}"
                );
            }
            other => panic!("{told}: {other}"),
        }
    }
}
