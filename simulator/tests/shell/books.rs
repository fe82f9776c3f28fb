//! The ledger's book-keeping, by hand: what is made is made once, what is known is not asked for again, and nothing is
//! written that says nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use trommel::core::id::{Generation, PageId, RunId, SessionId};
use trommel::core::lane::Lane;
use trommel::core::outcome::Outcome;
use trommel::core::packing::Packed;
use trommel::core::page::{ItemState, Mark};
use trommel::core::part::Stretch;
use trommel::core::run::{BreachStops, Limits, Reason, RunEvent, RunStatus};
use trommel::core::time::Timestamp;
use trommel::core::tolerance::Tolerance;
use trommel::core::window::Window;
use trommel::ledger::{Held, Ledger, LedgerError, NewRun, Redrive, SettleEnd, Settlement};
use trommel::ports::TableError;
use trommel_simulator::point::{Kind, Operation, Point};
use trommel_simulator::rules::KnownToken;
use trommel_simulator::services::{Rates, Source};

use crate::scenario::{SHARED, Scenario, job, seconds};

pub(crate) const NOW: Timestamp = Timestamp(1_767_225_600_000);

/// The ledger as one session writes it, by a way that has faults.
pub(crate) fn ledger(scenario: &Scenario, session: &str) -> Ledger {
    let node = scenario.sim.node(session);
    let table = Arc::new(scenario.cluster.table().link(&node));
    Ledger::new(table, node.runtime(), SessionId::new(session))
}

fn transactions(scenario: &Scenario) -> u64 {
    let calls = scenario.cluster.injector().calls_by_operation();
    calls.get(&Operation::TableTransact).copied().unwrap_or(0)
}

pub(crate) fn new_run(name: &str, created: Timestamp) -> NewRun {
    NewRun {
        id: RunId::new(name),
        job: job(1, 0).name,
        job_text: String::new(),
        job_file: "job.toml".to_owned(),
        base: String::new(),
        options: String::new(),
        limits: Limits {
            tolerance: Tolerance::default(),
            breach_stops: BreachStops::AtOnce,
        },
        created,
    }
}

#[test]
fn a_run_whose_making_is_not_answered_is_made_once_and_its_name_is_taken() {
    let answered = [KnownToken::Answered, KnownToken::DoneAgain];
    for (lost, known) in [Kind::ReplyLost, Kind::RequestLost]
        .into_iter()
        .flat_map(|lost| answered.map(|known| (lost, known)))
    {
        let scenario = Scenario::new(1, job(1, 0));
        scenario.cluster.table().set_known(known);
        let ledger = ledger(&scenario, "starter");
        let first = scenario.cluster.injector().calls() + 1;
        scenario.cluster.injector().crash_at(Some((first, lost)));
        let new = new_run("a", NOW);
        assert_eq!(
            scenario.block_on(async { ledger.create_run(&new).await }),
            Ok(()),
            "{lost:?}, {known:?}"
        );
        let row = scenario.block_on(async { ledger.run(&new.id).await });
        assert_eq!(row.expect("it is there").created, NOW);
        let begun = scenario.sim.now();
        let other = new_run("a", Timestamp(NOW.0 + 1));
        let taken = scenario.block_on(async { ledger.create_run(&other).await });
        let is_refused = |error: &LedgerError| {
            matches!(
                error,
                LedgerError::Table(TableError::ConditionFailed { .. })
            )
        };
        assert!(taken.as_ref().is_err_and(is_refused), "{taken:?}");
        let took = scenario.sim.now().since(begun);
        assert!(took.as_secs() < 2, "a clear answer is not asked for again");
    }
}

#[test]
fn a_router_begins_behind_the_parts_that_were_dispatched() {
    let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
    let (ledger, run) = (ledger(&scenario, "router"), scenario.cluster.run());
    let next = || scenario.block_on(async { ledger.next_part_to_route(&run).await });
    assert_eq!(next(), Ok(0));
    for part in 0..40 {
        let dispatched = ledger.dispatched(&run, part);
        assert_eq!(scenario.block_on(dispatched), Ok(()));
        assert_eq!(next(), Ok(part + 1));
    }
    // A slower router records what it did long ago.
    assert_eq!(scenario.block_on(ledger.dispatched(&run, 3)), Ok(()));
    assert_eq!(next(), Ok(40));
    // A sweep goes over what was dispatched, and over no more.
    let shards = scenario.block_on(async { ledger.progress(&run).await });
    let shards = shards.expect("it can be read");
    assert_eq!(shards[7].range(), (" ".to_owned(), "00000039-~".to_owned()));
    let low = "00000023-00002";
    let raised = ledger.advance_low(&run, 7, &shards[7], low, &[]);
    assert_eq!(scenario.block_on(raised), Ok(()));
    let shards = scenario.block_on(async { ledger.progress(&run).await });
    let shards = shards.expect("it can be read");
    assert_eq!(shards[7].range(), (low.to_owned(), "00000039-~".to_owned()));
}

/// So many pages of one item, each leased by this session.
fn leased(scenario: &Scenario, ledger: &Ledger, count: u32) -> Vec<Held> {
    let run = scenario.cluster.run();
    let packed = |seq: u32| Packed {
        id: PageId::new(0, seq),
        lane: Lane::Function,
        stretches: vec![Stretch {
            first: seq,
            items: 1,
        }],
    };
    let pages: Vec<Packed> = (0..count).map(packed).collect();
    scenario.block_on(async {
        let made = ledger.create_pages(&run, &pages, Generation(0)).await;
        made.expect("there are none");
        let mut held = Vec::new();
        for page in &pages {
            held.push(ledger.lease(&run, page.id, NOW).await.expect("it is ready"));
        }
        held
    })
}

fn success(held: Held) -> Settlement {
    Settlement {
        held,
        items: vec![ItemState {
            mark: Mark::Done(Outcome::Succeeded),
            ..ItemState::default()
        }],
        outputs: None,
        moved: Vec::new(),
        classes: Vec::new(),
    }
}

#[test]
fn what_fits_into_one_transaction_goes_in_one() {
    // One write is the tally's.
    let fits = SHARED.transact_writes_max as u32 - 1;
    for (pages, wanted) in [(fits, 1), (fits + 1, 2)] {
        let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
        let (ledger, run) = (ledger(&scenario, "me"), scenario.cluster.run());
        let held = leased(&scenario, &ledger, pages);
        let before = transactions(&scenario);
        let group = held.into_iter().map(success).collect();
        let ends = scenario.block_on(async { ledger.settle(&run, group).await });
        let ends = ends.expect("all are mine");
        let is_recorded = |end: &SettleEnd| matches!(end, SettleEnd::Recorded(_));
        assert!(ends.iter().all(is_recorded));
        assert_eq!(transactions(&scenario) - before, wanted, "{pages} pages");
    }
}

#[test]
fn of_a_group_only_the_page_that_somebody_else_took_is_lost() {
    let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
    let (mine, run) = (ledger(&scenario, "me"), scenario.cluster.run());
    let held = leased(&scenario, &mine, 3);
    let other = ledger(&scenario, "heir");
    let dead = SessionId::new("me");
    let taken = scenario.block_on(async { other.take_over(&run, &held[1], &dead).await });
    taken.expect("its holder counts as dead");
    let group = held.into_iter().map(success).collect();
    let ends = scenario.block_on(async { mine.settle(&run, group).await });
    let ends = ends.expect("the group goes again without it");
    let recorded: Vec<bool> = ends
        .iter()
        .map(|end| matches!(end, SettleEnd::Recorded(_)))
        .collect();
    assert_eq!(recorded, [true, false, true]);
    let tallies = scenario.block_on(async { mine.tallies(&run).await });
    assert_eq!(tallies.expect("they are there").settled().succeeded, 2);
}

#[test]
fn a_window_may_be_paused_while_it_takes_in_and_redriven_only_when_it_is_sealed() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "router");
    let new = new_run("window", NOW);
    let window = Window {
        start: NOW,
        end: Timestamp(NOW.0 + 60_000),
    };
    let opened = ledger.open_window(&new, window);
    assert_eq!(scenario.block_on(opened), Ok(()));
    let change = |event: RunEvent, redrive: Option<&Redrive>| {
        scenario.block_on(async {
            let row = ledger.run(&new.id).await?;
            let changed = ledger.change_run(&row, &event, redrive).await;
            changed.map(|change| change.after.status)
        })
    };
    let all = Redrive::default();
    let paused = change(RunEvent::Pause(Reason::Asked), None);
    assert_eq!(paused, Ok(RunStatus::Paused));
    let resumed = change(RunEvent::Resume(None), None);
    assert_eq!(resumed, Ok(RunStatus::Running));
    let aborted = change(RunEvent::Stop, None);
    assert_eq!(aborted, Ok(RunStatus::Aborted));
    let too_early = change(RunEvent::Redrive, Some(&all));
    assert!(too_early.is_err(), "it takes in still: {too_early:?}");
    let sealed = scenario.block_on(async { ledger.seal(&new.id).await });
    assert_eq!(sealed, Ok(0));
    let redriven = change(RunEvent::Redrive, Some(&all));
    assert_eq!(redriven, Ok(RunStatus::Running));
}

#[test]
fn a_move_of_permits_that_was_given_up_does_not_happen_later() {
    for gives in [true, false] {
        let scenario = Scenario::new(1, job(1, 0));
        let (ledger, name) = (ledger(&scenario, "me"), job(1, 0).name);
        let opened = ledger.open_session(&name, seconds(3_600), "me");
        assert_eq!(scenario.block_on(opened), Ok(()));
        assert_eq!(scenario.block_on(ledger.set_pool(&name, 9)), Ok(()));
        let injector = scenario.cluster.injector();
        injector.set(Source::Swarm(Rates::from([(Kind::Late, 1_000_000)])));
        let unclear = scenario.block_on(ledger.take_permits(&name, 0, 2));
        assert!(unclear.is_err(), "nothing was answered: {unclear:?}");
        injector.set(Source::Calm);
        let took = match gives {
            true => {
                assert_eq!(scenario.block_on(ledger.give_permits(&name, 0)), Ok(()));
                0
            }
            false => {
                let took = scenario.block_on(ledger.take_permits(&name, 0, 3));
                took.expect("it is calm")
            }
        };
        scenario.run_for(seconds(600));
        let pool = scenario.block_on(ledger.pool(&name));
        assert_eq!(pool.expect("it is there").lent, took, "gives: {gives}");
    }
}

#[test]
fn permits_asked_for_in_vain_are_not_lent_later() {
    let scenario = Scenario::new(1, job(1, 0));
    let name = job(1, 0).name;
    let (me, other) = (ledger(&scenario, "me"), ledger(&scenario, "other"));
    for ledger in [&me, &other] {
        let opened = ledger.open_session(&name, seconds(3_600), "me");
        assert_eq!(scenario.block_on(opened), Ok(()));
    }
    assert_eq!(scenario.block_on(me.set_pool(&name, 1)), Ok(()));
    let first = Point {
        operation: Operation::TableTransact,
        entity: "me permit#job / pool".to_owned(),
        nth: 1,
    };
    let late = Source::Plan([(first, Kind::Late)].into());
    scenario.cluster.injector().set(late);
    let clock = scenario.sim.node("other").runtime().clock;
    let taken_meanwhile = async {
        clock.sleep(Duration::from_millis(500)).await;
        other.take_permits(&name, 0, 1).await
    };
    let mine = me.take_permits(&name, 0, 1);
    let (mine, others) = scenario.block_on(async { join(mine, taken_meanwhile).await });
    assert_eq!((mine, others), (Ok(0), Ok(1)));
    assert_eq!(scenario.block_on(other.give_permits(&name, 0)), Ok(()));
    scenario.run_for(seconds(600));
    let trace = scenario.sim.trace_text();
    assert!(trace.contains("a late request arrives"), "{trace}");
    let pool = scenario.block_on(me.pool(&name));
    assert_eq!(pool.expect("it is there").lent, 0);
}

#[test]
fn a_window_whose_opening_is_not_answered_is_open() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "router");
    let first = scenario.cluster.injector().calls() + 1;
    let lost = Some((first, Kind::ReplyLost));
    scenario.cluster.injector().crash_at(lost);
    let (new, end) = (new_run("window", NOW), Timestamp(NOW.0 + 60_000));
    let opened = ledger.open_window(&new, Window { start: NOW, end });
    assert_eq!(scenario.block_on(opened), Ok(()));
    let open = scenario.block_on(ledger.open_windows(&new.job));
    assert_eq!(open.expect("it can be read").len(), 1);
}

#[test]
fn a_session_that_cannot_be_opened_says_why() {
    let scenario = Scenario::new(1, job(1, 0));
    let ledger = ledger(&scenario, "me");
    let too_long = "x".repeat(SHARED.row_bytes_max);
    let name = job(1, 0).name;
    let opened = ledger.open_session(&name, seconds(30), &too_long);
    let refused = scenario.block_on(opened);
    assert!(
        matches!(refused, Err(LedgerError::Table(TableError::Refused(_)))),
        "{refused:?}"
    );
}

#[test]
fn a_slower_redriver_takes_nothing_up_again_and_one_of_before_is_told() {
    let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
    let (ledger, run) = (ledger(&scenario, "redriver"), scenario.cluster.run());
    let row = || {
        let row = scenario.block_on(async { ledger.run(&run).await });
        row.expect("the run has a row")
    };
    let writes = || {
        let calls = scenario.cluster.injector().calls_by_operation();
        let of = |operation| calls.get(&operation).copied().unwrap_or(0);
        (of(Operation::TableWrite), of(Operation::TableTransact))
    };
    for event in [RunEvent::Stop, RunEvent::Redrive] {
        let (before, all) = (row(), Redrive::default());
        let redrive = (event == RunEvent::Redrive).then_some(&all);
        let (alone, together) = writes();
        let changed = ledger.change_run(&before, &event, redrive);
        scenario.block_on(changed).expect("it may");
        assert_eq!(writes(), (alone + 1, together), "one row is written alone");
    }
    let reached = |generation: u32, part: Option<u32>| {
        let reached = ledger.redrive_reached(&run, Generation(generation), part);
        scenario.block_on(reached)
    };
    assert_eq!(reached(1, Some(3)), Ok(()));
    assert_eq!(reached(1, Some(1)), Ok(()), "somebody is further already");
    assert_eq!(row().redrive_part, Some(3));
    assert_eq!(reached(0, Some(4)), Err(LedgerError::Raced));
    assert_eq!(reached(1, None), Ok(()));
    assert_eq!(reached(1, Some(5)), Ok(()));
    assert_eq!(row().redrive_part, None, "it is done");
}

#[test]
fn what_sessions_count_apart_is_read_as_one_sum() {
    let scenario = Scenario::with_objects(1, job(1, 0), 1, 0);
    let run = scenario.cluster.run();
    let sessions: Vec<Ledger> = ["a", "b", "c"].map(|name| ledger(&scenario, name)).into();
    let held = leased(&scenario, &sessions[0], 3);
    let group = held.into_iter().map(success).map(|one| Settlement {
        items: vec![ItemState {
            mark: Mark::Done(Outcome::Failed),
            ..ItemState::default()
        }],
        classes: vec!["Bad".to_owned()],
        ..one
    });
    let ends = scenario.block_on(sessions[0].settle(&run, group.collect()));
    for (end, session) in ends.expect("they are mine").into_iter().zip(&sessions) {
        let SettleEnd::Recorded(held) = end else {
            panic!("it is mine");
        };
        let opened = session.reopen(&run, &held, Generation(1), vec![0]);
        scenario.block_on(opened).expect("a redrive may");
    }
    let tallies = scenario.block_on(sessions[0].tallies(&run));
    let tallies = tallies.expect("they are there");
    assert_eq!(tallies.generation(0).settled.failed, 3);
    assert_eq!(tallies.generation(0).pages, 3);
    assert_eq!(tallies.generation(0).classes["Bad"], 3);
    assert_eq!(tallies.generation(1).opened, 3);
    assert_eq!(tallies.generation(1).reopened.failed, 3);
    assert_eq!(tallies.settled().total(), 0, "all are pending again");
}
