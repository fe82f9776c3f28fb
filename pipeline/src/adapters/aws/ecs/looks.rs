//! How often tasks are looked at. Pure.

use std::time::Duration;

/// Tasks in one request ("DescribeTasks", tasks).
pub(super) const TASKS_A_LOOK: usize = 100;

/// A task takes seconds to start, so nothing is gained by looking more often.
const APART_MIN: Duration = Duration::from_secs(1);

/// An end is noticed within this time, however quiet it was.
const APART_MAX: Duration = Duration::from_secs(15);

/// The same where events tell of ends: what an event was lost for is noticed within this time. Ten thousand tasks then take less
/// than a request a second.
pub(super) const RECONCILED_WITHIN: Duration = Duration::from_mins(2);

/// With ever more tasks a look takes ever more requests, and an account has 20 reads a second for all its tools
/// ("Request throttling for the Amazon ECS API"): half of them are left to the others.
const APART_EACH_REQUEST: Duration = Duration::from_millis(100);

/// What looks are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see ends: nothing else tells of them.
    See,
    /// To find what events did not tell.
    Reconcile,
}

/// What came of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Something began or ended: others may follow.
    News,
    /// Nothing did.
    Quiet,
}

/// The time between looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    apart: Duration,
    /// What the number of requests asks for.
    least: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            apart: APART_MIN,
            least: APART_MIN,
        }
    }
}

impl Looks {
    /// From the last look to the next.
    pub(super) fn apart(&self) -> Duration {
        self.apart.max(self.least)
    }

    /// A look was made, with so many requests.
    pub(super) fn note(&mut self, round: Round, purpose: Purpose, requests: usize) {
        let most = match purpose {
            Purpose::See => APART_MAX,
            Purpose::Reconcile => RECONCILED_WITHIN,
        };
        self.apart = match round {
            Round::News => APART_MIN,
            Round::Quiet => (self.apart * 2).min(most),
        };
        self.least = APART_EACH_REQUEST * u32::try_from(requests).unwrap_or(u32::MAX);
    }

    /// Something began, or is about to end.
    pub(super) fn hurry(&mut self) {
        self.apart = APART_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_ever_more_seldom_until_something_ends_or_begins() {
        let mut looks = Looks::default();
        let mut quiet = || {
            looks.note(Round::Quiet, Purpose::See, 1);
            looks.apart().as_secs()
        };
        assert_eq!(
            [quiet(), quiet(), quiet(), quiet(), quiet()],
            [2, 4, 8, 15, 15]
        );
        looks.hurry();
        assert_eq!(looks.apart(), APART_MIN);
        looks.note(Round::Quiet, Purpose::See, 1);
        looks.note(Round::News, Purpose::See, 1);
        assert_eq!(looks.apart(), APART_MIN);
    }

    #[test]
    fn where_events_tell_looks_become_rarer_and_come_back_where_they_do_not() {
        let mut looks = Looks::default();
        let mut apart = |purpose| {
            looks.note(Round::Quiet, purpose, 1);
            looks.apart().as_secs()
        };
        let told: Vec<u64> = (0..8).map(|_| apart(Purpose::Reconcile)).collect();
        assert_eq!(told, [2, 4, 8, 16, 32, 64, 120, 120]);
        assert_eq!(apart(Purpose::See), 15);
    }

    #[test]
    fn ten_thousand_tasks_take_ten_requests_a_second() {
        let mut looks = Looks::default();
        looks.note(Round::News, Purpose::See, 10_000 / TASKS_A_LOOK);
        assert_eq!(looks.apart(), Duration::from_secs(10));
    }
}
