//! The worst moments for a request or a reply to be lost, one by one.

use std::time::Duration;

use super::faulty::{Fault, Store, Tokens, finish};
use super::scene::{self, Session, job, limits, run_id};
use crate::core::redrive::Selection;
use crate::core::run::{Reason, RunEvent, RunStatus};
use crate::core::tolerance::Breach;
use crate::ledger::{LedgerError, Redrive, SessionStatus};

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
        finish(session.beat(&job(), &std::collections::BTreeMap::new())).expect("it lives");
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
