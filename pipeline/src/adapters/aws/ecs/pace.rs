//! How fast tasks may be started. Pure.

use std::time::Duration;

use crate::core::time::Tick;

/// RunTask takes 20 calls a second, and so many at once ("Request throttling for the Amazon ECS API"); Fargate starts no
/// more either ("Fargate throttling quotas").
const STARTS_PER_SECOND: u32 = 20;

/// Starts that may come at once, and so may never be more than a second's.
const BURST: u32 = STARTS_PER_SECOND;

/// From one start to the next.
const APART: Duration = Duration::from_millis(1000 / STARTS_PER_SECOND as u64);

/// The starts of one process in one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// When the next would be due if they came evenly.
    next: Tick,
}

impl Pace {
    /// Nothing was started yet.
    pub(super) fn new() -> Self {
        Self {
            next: Tick::default(),
        }
    }

    /// Takes a place in the row: how long to wait before the start. A place that is not used is lost.
    pub(super) fn take(&mut self, now: Tick) -> Duration {
        let burst = APART * (BURST - 1);
        let wait = self.next.since(now + burst);
        self.next = self.next.max(now) + APART;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::default() + Duration::from_millis(millis)
    }

    #[test]
    fn twenty_start_at_once_and_then_twenty_a_second() {
        let mut pace = Pace::new();
        let waits: Vec<u128> = (0..60).map(|_| pace.take(at(0)).as_millis()).collect();
        assert_eq!(waits[..20], [0; 20]);
        assert_eq!(waits[20], 50);
        assert_eq!(waits[59], 2000);
    }

    #[test]
    fn nothing_is_saved_up_beyond_a_burst() {
        let mut pace = Pace::new();
        let waits = (0..30).map(|_| pace.take(at(60_000)));
        assert_eq!(waits.filter(Duration::is_zero).count(), 20);
    }
}
