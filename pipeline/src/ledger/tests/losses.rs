//! The worst moments for a request or a reply to be lost, one by one.

use std::time::Duration;

use super::faulty::{Fault, Store, Tokens, finish};
use super::scene::{self, Session, job};
use crate::ledger::SessionStatus;

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
