//! When the task is to be protected, and when not any more. Pure.

use std::time::Duration;

use crate::core::time::Tick;

/// How long a protection is asked for, in minutes. A process that hangs holds a deployment up for so long, so it is a
/// fraction of ECS's default of 120; the bounds are 1 and 2,880 ("Amazon ECS task scale-in protection endpoint",
/// ExpiresInMinutes).
pub(super) const EXPIRES_MINUTES: u64 = 30;

/// From asking for a protection to its own end.
const EXPIRES: Duration = Duration::from_secs(60 * EXPIRES_MINUTES);

/// It is renewed this early, so that there is time to try again before it ends.
const RENEW_AFTER: Duration = Duration::from_secs(60 * EXPIRES_MINUTES / 2);

/// It is kept for so long after the last call: between two short items nothing is asked, and a service that scales in
/// waits no longer than it does for a container to stop.
const LINGER: Duration = Duration::from_secs(10);

/// After a request that failed; doubled with each that follows.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(5);

/// Never longer: a deployment that is in the way now (`DEPLOYMENT_BLOCKED`) is over some minutes later.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// What the agent is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A first call runs.
    Protect,
    /// Calls run on, and the protection would end.
    Renew,
    /// Nothing has run for a while, or the process ends.
    Release,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is as asked.
    Done,
    /// It is as before.
    Refused,
    /// It may be as asked, or as before.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Off,
    /// Somebody asked, and no answer came.
    Unclear {
        ends_at: Tick,
    },
    On {
        renew_at: Tick,
        ends_at: Tick,
    },
}

/// How the protection of this task stands, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protection {
    standing: Standing,
    /// How it stood before what was asked for last.
    before: Standing,
    /// Since when nothing has run.
    idle_since: Option<Tick>,
    /// Nothing is asked before.
    not_before: Tick,
    /// How long not, after the next failure.
    retry_after: Duration,
}

impl Protection {
    /// Nothing was asked for yet.
    pub(super) fn new() -> Self {
        Self {
            standing: Standing::Off,
            before: Standing::Off,
            idle_since: None,
            not_before: Tick::default(),
            retry_after: RETRY_AFTER_MIN,
        }
    }

    /// What to ask for now, with so many calls running.
    pub(super) fn next(&mut self, running: u32, now: Tick) -> Option<Ask> {
        let is_idle = self.note(running, now);
        if now < self.not_before {
            return None;
        }
        match self.standing {
            Standing::Off | Standing::Unclear { .. } if running > 0 => Some(Ask::Protect),
            Standing::Off => None,
            Standing::Unclear { .. } | Standing::On { .. } if is_idle => Some(Ask::Release),
            Standing::On { renew_at, .. } if running > 0 && now >= renew_at => Some(Ask::Renew),
            Standing::Unclear { .. } | Standing::On { .. } => None,
        }
    }

    /// Whether nothing has run for a while.
    fn note(&mut self, running: u32, now: Tick) -> bool {
        match self.standing {
            Standing::Unclear { ends_at } | Standing::On { ends_at, .. } if now >= ends_at => {
                self.standing = Standing::Off;
            }
            Standing::Off | Standing::Unclear { .. } | Standing::On { .. } => {}
        }
        if running > 0 {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        now.since(since) >= LINGER
    }

    /// What to ask for when the process ends.
    pub(super) fn last(&self) -> Option<Ask> {
        match self.standing {
            Standing::Off => None,
            Standing::Unclear { .. } | Standing::On { .. } => Some(Ask::Release),
        }
    }

    /// It is being asked for: from now on nobody knows, until the answer is here.
    pub(super) fn asked(&mut self, ask: Ask, now: Tick) {
        let ends_at = match (ask, self.standing) {
            (Ask::Protect | Ask::Renew, _) | (Ask::Release, Standing::Off) => now + EXPIRES,
            (Ask::Release, Standing::Unclear { ends_at } | Standing::On { ends_at, .. }) => ends_at,
        };
        self.before = self.standing;
        self.standing = match self.standing {
            Standing::Off | Standing::Unclear { .. } => Standing::Unclear { ends_at },
            // Renewed, or protected as before: in either case until then, as far as is known.
            Standing::On { renew_at, .. } => Standing::On { renew_at, ends_at },
        };
    }

    /// What came of what was asked for.
    pub(super) fn answered(&mut self, ask: Ask, answer: Answer, now: Tick) {
        if answer == Answer::Done {
            self.retry_after = RETRY_AFTER_MIN;
            self.not_before = now;
            self.standing = match ask {
                Ask::Protect | Ask::Renew => Standing::On {
                    renew_at: now + RENEW_AFTER,
                    ends_at: now + EXPIRES,
                },
                Ask::Release => Standing::Off,
            };
            return;
        }
        self.not_before = now + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
        match answer {
            Answer::Refused => self.standing = self.before,
            // As it stands since it was asked for: nobody knows.
            Answer::Lost | Answer::Done => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::default() + Duration::from_secs(seconds)
    }

    /// Asks for what is due, and gets this answer.
    fn ask(protection: &mut Protection, running: u32, now: Tick, answer: Answer) -> Option<Ask> {
        let ask = protection.next(running, now)?;
        protection.asked(ask, now);
        protection.answered(ask, answer, now);
        Some(ask)
    }

    #[test]
    fn it_is_asked_for_with_the_first_call_and_given_up_a_while_after_the_last() {
        let mut protection = Protection::new();
        let mut at = |seconds, running| ask(&mut protection, running, at(seconds), Answer::Done);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 3), Some(Ask::Protect));
        assert_eq!(at(2, 1), None);
        assert_eq!(at(3, 0), None, "another may come");
        assert_eq!(at(9, 1), None, "and one did");
        assert_eq!(at(10, 0), None);
        assert_eq!(at(19, 0), None);
        assert_eq!(at(20, 0), Some(Ask::Release));
        assert_eq!(at(900, 0), None);
        assert_eq!(at(901, 1), Some(Ask::Protect));
    }

    #[test]
    fn a_long_call_is_protected_again_in_time_however_often_that_takes() {
        let mut protection = Protection::new();
        ask(&mut protection, 1, at(0), Answer::Done);
        let half = 60 * EXPIRES_MINUTES / 2;
        assert_eq!(protection.next(1, at(half - 1)), None);
        let again = ask(&mut protection, 1, at(half), Answer::Lost);
        assert_eq!(again, Some(Ask::Renew));
        assert_eq!(protection.next(1, at(half + 4)), None);
        let again = ask(&mut protection, 1, at(half + 5), Answer::Done);
        assert_eq!(again, Some(Ask::Renew));
        assert_eq!(protection.next(1, at(half + 5 + half - 1)), None);
    }

    #[test]
    fn what_is_refused_is_asked_for_ever_more_seldom() {
        let mut protection = Protection::new();
        let asked: Vec<u64> = (0..1000)
            .filter(|second| ask(&mut protection, 1, at(*second), Answer::Refused).is_some())
            .collect();
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
        assert_eq!(protection.next(0, at(5_000)), None, "it is not protected");
        assert_eq!(protection.last(), None);
    }

    #[test]
    fn a_request_that_nobody_answered_is_taken_back() {
        let mut protection = Protection::new();
        ask(&mut protection, 1, at(0), Answer::Lost);
        assert_eq!(protection.last(), Some(Ask::Release));
        assert_eq!(protection.next(0, at(10)), None);
        assert_eq!(protection.next(0, at(20)), Some(Ask::Release));
    }

    #[test]
    fn what_nobody_answered_and_was_then_refused_is_taken_back_too() {
        let mut protection = Protection::new();
        assert!(ask(&mut protection, 1, at(0), Answer::Lost).is_some());
        assert!(ask(&mut protection, 1, at(5), Answer::Refused).is_some());
        assert_eq!(protection.last(), Some(Ask::Release));
        assert_eq!(protection.next(0, at(16)), None);
        assert_eq!(protection.next(0, at(26)), Some(Ask::Release));
    }

    #[test]
    fn a_renewal_that_nobody_answered_may_have_been_granted_and_is_taken_back() {
        let mut protection = Protection::new();
        ask(&mut protection, 1, at(0), Answer::Done);
        let end = 60 * EXPIRES_MINUTES;
        assert_eq!(
            ask(&mut protection, 1, at(end - 2), Answer::Lost),
            Some(Ask::Renew)
        );
        assert_eq!(protection.next(0, at(end + 1)), None);
        assert_eq!(protection.next(0, at(end + 11)), Some(Ask::Release));
    }

    #[test]
    fn one_that_is_on_its_way_when_the_process_ends_is_taken_back_too() {
        let mut protection = Protection::new();
        assert_eq!(protection.last(), None);
        let ask = protection.next(1, at(0)).expect("a call runs");
        protection.asked(ask, at(0));
        assert_eq!(protection.last(), Some(Ask::Release));
    }

    #[test]
    fn what_cannot_be_given_up_ends_by_itself() {
        let mut protection = Protection::new();
        ask(&mut protection, 1, at(0), Answer::Done);
        let end = 60 * EXPIRES_MINUTES;
        let asked = (1..2 * end)
            .filter(|second| ask(&mut protection, 0, at(*second), Answer::Lost).is_some());
        let asked: Vec<u64> = asked.collect();
        assert_eq!(asked[..3], [11, 16, 26]);
        assert!(asked.iter().all(|second| *second < end), "{asked:?}");
        assert_eq!(protection.last(), None);
    }
}
