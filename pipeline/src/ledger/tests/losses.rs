//! The worst moments for a request or a reply to be lost, one by one.

use std::time::Duration;

use super::faulty::{Fault, Store, Tokens, finish};
use super::scene::{
    self, PAGE_ITEMS, PAGES, PERMITS_MAX, Session, all_well, job, limits, run_id, settlement,
};
use crate::core::class::{Class, Failure};
use crate::core::id::{Epoch, Generation, PageId};
use crate::core::outcome::Outcome;
use crate::core::page::{Mark, PageStatus};
use crate::core::redrive::Selection;
use crate::core::run::{Reason, RunEvent, RunStatus};
use crate::core::time::Timestamp;
use crate::core::tolerance::Breach;
use crate::ledger::{FailureRow, Fence, LedgerError, Redrive, SessionStatus, SettleEnd};

const DURATION: Duration = Duration::from_secs(30);

#[test]
fn a_session_whose_announcement_was_lost_is_announced_again() {
    for fault in [Fault::LostRequest, Fault::LostReply] {
        let store = Store::new(Tokens::Kept);
        scene::set_up(&store);
        let session = Session::new(&store, "s1", vec![fault]).ledger;
        finish(session.open_session(&job(), DURATION, "a test")).expect("it goes again");
        let sessions = finish(session.sessions(&job())).expect("nothing fails");
        assert_eq!(sessions.len(), 1, "after {fault:?}");
        assert_eq!(sessions[0].status, SessionStatus::Live);
        finish(session.beat(&job(), &std::collections::BTreeMap::new(), None)).expect("it lives");
    }
}

#[test]
fn a_verdict_by_an_old_budget_is_not_written_over_a_resume_with_a_new_one() {
    let store = Store::new(Tokens::Kept);
    scene::set_up(&store);
    let session = Session::open(&store, "s1").ledger;
    let run = || finish(session.run(&run_id())).expect("nothing fails");
    let breach = Reason::Breach {
        breach: Breach::Count {
            failures: 1,
            tolerated: 0,
        },
    };
    let seen_by_a_slow_judge = run();
    let pause = RunEvent::Pause(breach.clone());
    finish(session.change_run(&run(), &pause, None)).expect("it runs");
    let resume = RunEvent::Resume(Some(limits(5)));
    finish(session.change_run(&run(), &resume, None)).expect("it is paused");

    let fail = RunEvent::Fail(breach);
    let late = session.change_run(&seen_by_a_slow_judge, &fail, None);
    assert_eq!(finish(late), Err(LedgerError::Raced));
    assert_eq!(run().state.status, RunStatus::Running);
    assert_eq!(run().state.limits, limits(5));
}

#[test]
fn of_two_redrives_only_one_is_told_that_it_is_the_one() {
    let store = Store::new(Tokens::Kept);
    scene::set_up(&store);
    let session = Session::open(&store, "s1").ledger;
    let run = || finish(session.run(&run_id())).expect("nothing fails");
    finish(session.change_run(&run(), &RunEvent::Stop, None)).expect("it runs");
    let redrive = |class: &str| Redrive {
        selection: Selection {
            classes: vec![class.to_owned()],
            ..Selection::default()
        },
        refresh: false,
    };
    let seen = run();
    let first = redrive("Timeout");
    let first = session.change_run(&seen, &RunEvent::Redrive, Some(&first));
    let change = finish(first).expect("it is stopped");
    assert_eq!(change.after.generation.0, 1);
    let second = redrive("Crashed");
    let second = session.change_run(&seen, &RunEvent::Redrive, Some(&second));
    assert_eq!(finish(second), Err(LedgerError::Raced));
    assert_eq!(run().redrive, Some(redrive("Timeout")));
}

#[test]
fn a_change_of_a_run_whose_reply_or_request_is_lost_is_made_once() {
    for faults in [
        vec![Fault::LostReply],
        vec![Fault::LostRequest],
        vec![Fault::LostRequest, Fault::None, Fault::LostReply],
    ] {
        let store = Store::new(Tokens::Kept);
        scene::set_up(&store);
        let session = Session::open(&store, "s1");
        let row = finish(session.ledger.run(&run_id())).expect("nothing fails");
        session.table.fail(&faults);
        let change = session.ledger.change_run(&row, &RunEvent::Stop, None);
        let change = finish(change).expect("it is found to be made, or made again");
        let now = finish(session.ledger.run(&run_id())).expect("nothing fails");
        assert_eq!(now.state, change.after, "after {faults:?}");
        assert_eq!(now.state.status, RunStatus::Aborted);
    }
}

/// Longer than a read is tried again.
const LONG: Fault = Fault::Outage(40);

#[test]
fn what_was_settled_before_the_store_fell_silent_is_recognised_when_it_goes_again() {
    for tokens in [Tokens::Kept, Tokens::Ignored] {
        let store = Store::new(tokens);
        scene::set_up_pages(&store);
        let session = Session::open(&store, "s1");
        // One item of each page is left, so that the pages stay leased.
        let group: Vec<_> = (0..PAGES)
            .map(|number| {
                settlement(&session.lease(number), |index| {
                    (index > 0).then_some(Mark::Done(Outcome::Failed))
                })
            })
            .collect();
        session.table.fail(&[Fault::LostReply, LONG]);
        let settle = || finish(session.ledger.settle(&run_id(), group.clone()));
        let error = settle().expect_err("nobody answers");
        assert!(error.is_unclear(), "{error}");
        session.table.heal();
        let ends = settle().expect("it answers again");
        for end in ends {
            let SettleEnd::Recorded(held) = end else {
                panic!("recorded, and told that it is lost");
            };
            assert_eq!(held.page.pending(), 1);
            let rest = vec![all_well(&held)];
            let ends = finish(session.ledger.settle(&run_id(), rest)).expect("nothing fails");
            assert!(matches!(&ends[..], [SettleEnd::Recorded(held)]
                if held.page.status == PageStatus::Settled));
        }
        let tallies = finish(session.ledger.tallies(&run_id())).expect("nothing fails");
        assert_eq!(tallies.settled().total(), u64::from(PAGES * PAGE_ITEMS));
        assert_eq!(tallies.settled().succeeded, u64::from(PAGES));
    }
}

#[test]
fn of_a_group_only_the_lost_pages_are_lost_though_the_reply_is_lost_too() {
    let store = Store::new(Tokens::Ignored);
    scene::set_up_pages(&store);
    let mine = Session::open(&store, "s1");
    let other = Session::open(&store, "s2");
    let keep_one = |index: usize| (index > 0).then_some(Mark::Done(Outcome::Succeeded));
    let held = [mine.lease(0), mine.lease(1), mine.lease(2)];
    let group: Vec<_> = held.iter().map(|held| settlement(held, keep_one)).collect();
    // Page 0 is taken from me; pages 1 and 2 are recorded, but nobody says so.
    let dead = mine.ledger.session().clone();
    finish(other.ledger.take_over(&run_id(), &held[0], &dead)).expect("it is leased");
    mine.table
        .fail(&[Fault::None, Fault::None, Fault::LostReply, LONG]);
    let settle = || finish(mine.ledger.settle(&run_id(), group.clone()));
    settle().expect_err("nobody answers");
    mine.table.heal();
    let ends = settle().expect("it answers again");
    assert!(matches!(
        &ends[..],
        [
            SettleEnd::Lost,
            SettleEnd::Recorded(_),
            SettleEnd::Recorded(_)
        ]
    ));
}

fn permits_of(session: &Session) -> u32 {
    let sessions = finish(session.ledger.sessions(&job())).expect("nothing fails");
    let mut own = sessions
        .into_iter()
        .filter(|row| row.id == *session.ledger.session());
    own.next().expect("it is announced").permits
}

fn lent(session: &Session) -> u32 {
    finish(session.ledger.pool(&job()))
        .expect("nothing fails")
        .lent
}

#[test]
fn permits_taken_again_within_ten_minutes_are_lent_again_though_the_endpoint_remembers_tokens() {
    let store = Store::new(Tokens::Kept);
    scene::set_up(&store);
    let session = Session::open(&store, "s1");
    for _ in 0..3 {
        let taken = finish(session.ledger.take_permits(&job(), 0, 4));
        assert_eq!(taken, Ok(4));
        assert_eq!((permits_of(&session), lent(&session)), (4, 4));
        finish(session.ledger.give_permits(&job(), 0)).expect("nothing fails");
        assert_eq!((permits_of(&session), lent(&session)), (0, 0));
    }
}

#[test]
fn permits_that_were_given_back_unheard_are_not_given_twice() {
    let store = Store::new(Tokens::Ignored);
    scene::set_up(&store);
    let session = Session::open(&store, "s1");
    let other = Session::open(&store, "s2");
    let taken = finish(session.ledger.take_permits(&job(), 0, PERMITS_MAX));
    assert_eq!(taken, Ok(PERMITS_MAX));
    session.table.fail(&[Fault::LostReply, LONG]);
    let give = || finish(session.ledger.give_permits(&job(), PERMITS_MAX - 6));
    give().expect_err("nobody answers");
    assert_eq!(finish(other.ledger.take_permits(&job(), 0, 6)), Ok(6));
    session.table.heal();
    give().expect("they are back");
    assert_eq!(permits_of(&session), PERMITS_MAX - 6);
    assert_eq!(lent(&other), PERMITS_MAX);
}

#[test]
fn permits_that_were_taken_unheard_are_found_by_the_next_who_asks() {
    let store = Store::new(Tokens::Ignored);
    scene::set_up(&store);
    let session = Session::open(&store, "s1");
    // Only the pool is read before the move: a session that was just opened holds none.
    session.table.fail(&[Fault::None, Fault::LostReply, LONG]);
    let take = |held, wanted| finish(session.ledger.take_permits(&job(), held, wanted));
    take(0, 5).expect_err("nobody answers");
    session.table.heal();
    assert_eq!(take(0, 3), Ok(5), "what was taken before is found first");
    assert_eq!(permits_of(&session), 5);
    assert_eq!(lent(&session), 5);
    finish(session.ledger.give_permits(&job(), 0)).expect("nothing fails");
    assert_eq!(lent(&session), 0);
}

#[test]
fn what_was_clear_of_permits_is_read_again_after_an_unheard_move() {
    let store = Store::new(Tokens::Ignored);
    scene::set_up(&store);
    let session = Session::open(&store, "s1");
    let take = |held, wanted| finish(session.ledger.take_permits(&job(), held, wanted));
    assert_eq!(take(0, 2), Ok(2));
    // Only the pool is read before the second move: what the session holds is known.
    session.table.fail(&[Fault::None, Fault::LostReply, LONG]);
    take(2, 3).expect_err("nobody answers");
    session.table.heal();
    assert_eq!(take(2, 1), Ok(3), "what was taken before is found first");
    assert_eq!(permits_of(&session), 5);
    assert_eq!(lent(&session), 5);
}

#[test]
fn a_former_holder_s_late_word_of_a_failure_does_not_stand_over_the_heir_s() {
    for fault in [Fault::None, Fault::LostReply] {
        let store = Store::new(Tokens::Kept);
        scene::set_up(&store);
        let session = Session::new(&store, "s1", vec![fault]).ledger;
        let say = |page: PageId, epoch: u32, outcome| {
            let row = FailureRow {
                item: scene::page_id(1).origin(0),
                generation: Generation(0),
                fence: Fence::of(page, Epoch(epoch)),
                outcome,
                failure: Failure::new(Class::Named("Flaky".into()), "by a test"),
                attempts: 1,
                label: "object".to_owned(),
                at: Timestamp(i64::from(epoch)),
            };
            // What was not clearly kept is kept again.
            while finish(session.keep_failures(&run_id(), std::slice::from_ref(&row))).is_err() {}
            let rows = finish(session.failures_of(&run_id(), scene::page_id(1).origin(0)));
            let rows = rows.expect("nothing fails");
            assert_eq!(rows.len(), 1, "after {fault:?}");
            rows[0].outcome
        };
        let (origin, moved) = (scene::page_id(1), scene::page_id(1).escalation_of(0));
        assert_eq!(say(origin, 3, Outcome::Failed), Outcome::Failed);
        assert_eq!(say(origin, 1, Outcome::Skipped), Outcome::Failed);
        assert_eq!(
            say(origin, 3, Outcome::TimedOut),
            Outcome::TimedOut,
            "itself"
        );
        assert_eq!(say(moved, 1, Outcome::Skipped), Outcome::Skipped);
        assert_eq!(
            say(origin, 9, Outcome::Failed),
            Outcome::Skipped,
            "it moved on"
        );
    }
}

#[test]
fn who_keeps_a_page_after_the_run_s_end_loses_it_and_settles_nothing() {
    let store = Store::new(Tokens::Kept);
    scene::set_up_pages(&store);
    let (slow, finalizer) = (
        Session::open(&store, "s1"),
        Session::open(&store, "s2").ledger,
    );
    let held = slow.lease(1);
    let taken = finish(finalizer.revoke(&run_id(), &held, slow.ledger.session(), Timestamp(0)));
    let taken = taken.expect("it is the holder's");
    assert_eq!(
        (taken.page.status, taken.page.deaths),
        (PageStatus::Ready, 0)
    );
    let late = all_well(&held);
    let ends = finish(slow.ledger.settle(&run_id(), vec![late])).expect("it answers");
    assert!(matches!(ends[..], [SettleEnd::Lost]), "{ends:?}");
    let again = finish(finalizer.revoke(&run_id(), &held, slow.ledger.session(), Timestamp(0)));
    assert!(matches!(again, Err(LedgerError::Raced)), "{again:?}");
}
