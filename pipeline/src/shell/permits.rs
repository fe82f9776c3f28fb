//! Permits: how many calls this session may run, over all its lanes.
//!
//! The session takes permits from the job's pool in blocks (`crate::ledger`); here they are handed to calls
//! without a service call. A suspect item runs with nothing else in the session: it takes all of them.

use std::sync::{Mutex, PoisonError};

use crate::core::planted::{Bug, is_planted};
use tokio::sync::Notify;

/// The session's permits. Shared by the engines of all lanes and the keeper.
#[derive(Debug, Default)]
pub struct Permits {
    state: Mutex<State>,
    /// A permit came free, or more were granted.
    pub freed: Notify,
    /// A call found none: the keeper should ask for more.
    pub short: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    granted: u32,
    used: u32,
    used_most: u32,
    wanted: u32,
    /// The pool had none when it was asked last.
    pool_is_empty: bool,
    alone: Alone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Alone {
    #[default]
    Nobody,
    /// Somebody waits until nothing runs; nothing new starts.
    Waiting,
    /// One call runs, and nothing else.
    Running,
}

impl Permits {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes as many as there are, up to `wanted`: how many calls would start if there were enough.
    pub fn take(&self, wanted: usize) -> usize {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let (took, short) = self.with(|state| {
            if state.alone != Alone::Nobody {
                return (0, false);
            }
            let took = if is_planted(Bug::CallsWithoutPermits) {
                wanted
            } else {
                wanted.min(state.granted.saturating_sub(state.used))
            };
            state.used += took;
            state.used_most = state.used_most.max(state.used);
            let missing = wanted - took;
            state.wanted = state.wanted.max(missing);
            (took, missing > 0)
        });
        if short {
            self.short.notify_one();
        }
        took as usize
    }

    /// So many calls of all pages wait: where some are asked for, so many are.
    pub(crate) fn are_short_of(&self, calls: usize) {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        self.with(|state| {
            if state.wanted > 0 {
                state.wanted = state.wanted.max(calls);
            }
        });
    }

    /// Takes all of them for one call, if nothing runs; else nothing new starts until nothing does.
    pub fn try_take_alone(&self) -> bool {
        let (took, short) = self.with(|state| match state.alone {
            Alone::Running => (false, false),
            Alone::Nobody | Alone::Waiting if state.granted == 0 => {
                state.wanted = state.wanted.max(1);
                (false, true)
            }
            Alone::Nobody | Alone::Waiting if state.used > 0 => {
                state.alone = Alone::Waiting;
                (false, false)
            }
            Alone::Nobody | Alone::Waiting => {
                state.alone = Alone::Running;
                state.used = 1;
                state.used_most = state.used_most.max(1);
                (true, false)
            }
        });
        if short {
            self.short.notify_one();
        }
        took
    }

    /// So many calls have ended.
    pub fn give(&self, calls: usize) {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        self.with(|state| {
            debug_assert!(state.used >= calls, "only what was taken is given");
            state.used = state.used.saturating_sub(calls);
            if state.alone == Alone::Running {
                state.alone = Alone::Nobody;
            }
        });
        self.freed.notify_waiters();
    }

    /// Nobody waits to run alone any more.
    pub fn give_up_alone(&self) {
        self.with(|state| {
            if state.alone == Alone::Waiting {
                state.alone = Alone::Nobody;
            }
        });
        self.freed.notify_waiters();
    }

    /// How many the session holds.
    pub fn granted(&self) -> u32 {
        self.with(|state| state.granted)
    }

    /// How many are in use.
    pub fn used(&self) -> u32 {
        self.with(|state| state.used)
    }

    /// How many more calls would have started since this was last asked.
    pub(crate) fn take_wanted(&self) -> u32 {
        self.with(|state| std::mem::take(&mut state.wanted))
    }

    /// What was wanted a while ago may not be wanted any more: who is short says so again.
    pub(crate) fn ask_anew(&self) {
        self.with(|state| state.wanted = 0);
        self.freed.notify_waiters();
    }

    /// The pool granted more; none: it has none.
    pub(crate) fn grant(&self, permits: u32) {
        self.with(|state| {
            state.pool_is_empty = permits == 0;
            state.granted += permits;
            if permits > 0 {
                // None of what there is now was idle while it was there.
                state.used_most = state.granted;
            }
        });
        if permits > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Whether the pool had none when it was asked last.
    pub(crate) fn is_pool_empty(&self) -> bool {
        self.with(|state| state.pool_is_empty)
    }

    /// How they were used since this was last asked.
    pub(crate) fn lately(&self) -> Lately {
        self.with(|state| {
            let used = state.used_most.max(state.used);
            state.used_most = state.used;
            Lately {
                used,
                idle: state.granted.saturating_sub(used),
            }
        })
    }

    /// Takes away so many, to be given back to the pool, as far as they are not in use; answers how many.
    pub(crate) fn withdraw(&self, permits: u32) -> u32 {
        self.with(|state| {
            let free = permits.min(state.granted.saturating_sub(state.used));
            state.granted -= free;
            free
        })
    }
}

/// How permits were used for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lately {
    /// The most that were in use at one time.
    pub(crate) used: u32,
    /// Those that never were.
    pub(crate) idle: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_calls_than_granted() {
        let permits = Permits::default();
        assert_eq!(permits.take(5), 0);
        assert_eq!(permits.take_wanted(), 5);
        permits.grant(2);
        assert_eq!(permits.take(5), 2);
        assert_eq!(permits.take(3), 0);
        permits.give(1);
        assert_eq!(permits.take(3), 1);
    }

    #[test]
    fn a_suspect_waits_for_all_and_keeps_all_out() {
        let permits = Permits::default();
        permits.grant(8);
        assert_eq!(permits.take(1), 1);
        assert!(!permits.try_take_alone());
        assert_eq!(permits.take(1), 0, "nothing new starts while it waits");
        permits.give(1);
        assert!(permits.try_take_alone());
        assert_eq!(permits.take(1), 0);
        permits.give(1);
        assert_eq!(permits.take(1), 1);
    }

    #[test]
    fn what_was_idle_for_a_while_goes_back() {
        let permits = Permits::default();
        permits.grant(10);
        permits.lately();
        assert_eq!(permits.take(1), 1);
        permits.give(1);
        let lately = permits.lately();
        assert_eq!(
            (lately.used, lately.idle),
            (1, 9),
            "one was in use in between"
        );
        assert_eq!(permits.withdraw(lately.idle), 9);
        assert_eq!(permits.granted(), 1);
        assert_eq!(permits.lately().idle, 1);
    }

    #[test]
    fn what_is_in_use_again_is_not_withdrawn() {
        let permits = Permits::default();
        permits.grant(4);
        assert_eq!(permits.lately().idle, 0, "what just came was not idle");
        assert_eq!(permits.lately().idle, 4);
        assert_eq!(permits.take(3), 3);
        assert_eq!(permits.withdraw(4), 1);
        assert_eq!((permits.granted(), permits.used()), (3, 3));
    }

    #[test]
    fn who_says_again_that_it_is_short_asks_for_no_more() {
        let permits = Permits::default();
        for _ in 0..3 {
            assert_eq!(permits.take(1), 0);
            permits.are_short_of(4);
        }
        assert_eq!(permits.take_wanted(), 4);
        permits.are_short_of(4);
        assert_eq!(permits.take_wanted(), 0, "none was asked for");
    }

    #[test]
    fn what_was_wanted_once_is_not_asked_for_later() {
        let permits = Permits::default();
        assert_eq!(permits.take(5), 0);
        permits.ask_anew();
        assert_eq!(permits.take_wanted(), 0, "nobody said so again");
        assert_eq!(permits.take(2), 0);
        assert_eq!(permits.take_wanted(), 2);
    }
}
