//! How fast calls of one function may become more. Pure.
//!
//! Lambda makes at most 1,000 environments for a function in each 10 s, saves up none that were not used, and throttles what
//! goes beyond ("Lambda scaling behavior"). Calls that wait here instead are not sent, paid for and sent again. It knows
//! this process only: where several share a function, Lambda's own word remains.

use std::time::Duration;

use crate::core::time::Tick;

/// Environments that are made in each [`WINDOW`] at most ("Lambda scaling behavior", concurrency scaling rate).
pub(super) const STEP: usize = 1000;

/// The time for which [`STEP`] holds; the same document.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// The calls of one function: how many run, and how many may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ramp {
    running: usize,
    /// Environments that there were when the window began.
    warm: usize,
    /// The most calls that ran at once since.
    peak: usize,
    began: Tick,
}

impl Ramp {
    /// No call runs yet.
    pub(super) fn new(now: Tick) -> Self {
        Self {
            running: 0,
            warm: 0,
            peak: 0,
            began: now,
        }
    }

    /// Begins one more call.
    ///
    /// # Errors
    /// How long until it is worth asking again.
    pub(super) fn begin(&mut self, now: Tick) -> Result<(), Duration> {
        self.turn(now);
        if self.running >= self.warm + STEP {
            return Err(WINDOW.saturating_sub(now.since(self.began)));
        }
        self.running += 1;
        self.peak = self.peak.max(self.running);
        Ok(())
    }

    /// One call ended.
    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// What one window made is there in the next. After a window without a word, only what runs is believed to be.
    fn turn(&mut self, now: Tick) {
        let passed = now.since(self.began);
        if passed < WINDOW {
            return;
        }
        self.warm = if passed < WINDOW * 2 {
            self.peak
        } else {
            self.running
        };
        self.peak = self.running;
        self.began = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::default() + Duration::from_secs(seconds)
    }

    /// Begins calls until no more may.
    fn fill(ramp: &mut Ramp, now: Tick) -> usize {
        let mut begun = 0;
        while ramp.begin(now).is_ok() {
            begun += 1;
        }
        begun
    }

    #[test]
    fn a_thousand_calls_run_at_first_and_a_thousand_more_after_each_ten_seconds() {
        let mut ramp = Ramp::new(at(0));
        assert_eq!(fill(&mut ramp, at(0)), STEP);
        assert_eq!(ramp.begin(at(4)), Err(Duration::from_secs(6)));
        assert_eq!(fill(&mut ramp, at(10)), STEP);
        assert_eq!(fill(&mut ramp, at(20)), STEP);
        assert_eq!(ramp.running, 3 * STEP);
    }

    #[test]
    fn a_call_that_ended_makes_room_at_once() {
        let mut ramp = Ramp::new(at(0));
        fill(&mut ramp, at(0));
        ramp.end();
        assert_eq!(ramp.begin(at(1)), Ok(()));
        assert_eq!(ramp.begin(at(1)), Err(Duration::from_secs(9)));
    }

    #[test]
    fn environments_of_the_last_window_are_used_again() {
        let mut ramp = Ramp::new(at(0));
        fill(&mut ramp, at(0));
        for _ in 0..STEP {
            ramp.end();
        }
        assert_eq!(fill(&mut ramp, at(10)), 2 * STEP);
    }

    #[test]
    fn nothing_is_saved_up_by_waiting() {
        let mut ramp = Ramp::new(at(0));
        assert_eq!(ramp.begin(at(0)), Ok(()));
        assert_eq!(fill(&mut ramp, at(3600)), STEP);
    }
}
