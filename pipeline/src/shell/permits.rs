//! Permits: how many calls this session may run, over all its lanes.
//!
//! The session takes permits from the job's pool in blocks (`crate::ledger`); here they are handed to calls
//! without a service call. A suspect item runs with nothing else in the session: it takes all of them.

use std::sync::{Mutex, PoisonError};

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

    /// Takes one, if there is one. `unstarted` is how many calls would start if there were enough.
    pub fn try_take(&self, unstarted: usize) -> bool {
        let (took, short) = self.with(|state| {
            let free = state.used < state.granted && state.alone == Alone::Nobody;
            if free {
                state.used += 1;
                state.used_most = state.used_most.max(state.used);
            }
            let short = !free && state.alone == Alone::Nobody;
            if short {
                let wanted = u32::try_from(unstarted).unwrap_or(u32::MAX).max(1);
                state.wanted = state.wanted.max(wanted);
            }
            (free, short)
        });
        if short {
            self.short.notify_one();
        }
        took
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

    /// A call has ended.
    pub fn give(&self) {
        self.with(|state| {
            debug_assert!(state.used > 0, "only what was taken is given");
            state.used = state.used.saturating_sub(1);
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

    /// The pool granted more.
    pub(crate) fn grant(&self, permits: u32) {
        self.with(|state| state.granted += permits);
        self.freed.notify_waiters();
    }

    /// Takes away what was not in use since this was last asked, to be given back to the pool.
    pub(crate) fn take_idle(&self) -> u32 {
        self.with(|state| {
            let idle = state
                .granted
                .saturating_sub(state.used_most.max(state.used));
            state.granted -= idle;
            state.used_most = state.used;
            idle
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_calls_than_granted() {
        let permits = Permits::default();
        assert!(!permits.try_take(5));
        assert_eq!(permits.take_wanted(), 5);
        permits.grant(2);
        assert!(permits.try_take(5));
        assert!(permits.try_take(4));
        assert!(!permits.try_take(3));
        permits.give();
        assert!(permits.try_take(3));
    }

    #[test]
    fn a_suspect_waits_for_all_and_keeps_all_out() {
        let permits = Permits::default();
        permits.grant(8);
        assert!(permits.try_take(1));
        assert!(!permits.try_take_alone());
        assert!(!permits.try_take(1), "nothing new starts while it waits");
        permits.give();
        assert!(permits.try_take_alone());
        assert!(!permits.try_take(1));
        permits.give();
        assert!(permits.try_take(1));
    }

    #[test]
    fn what_was_idle_for_a_while_goes_back() {
        let permits = Permits::default();
        permits.grant(10);
        assert!(permits.try_take(1));
        permits.give();
        assert_eq!(permits.take_idle(), 9, "one was in use in between");
        assert_eq!(permits.take_idle(), 1);
        assert_eq!(permits.granted(), 0);
    }
}
