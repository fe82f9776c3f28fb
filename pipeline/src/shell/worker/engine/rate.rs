//! How fast items end.

use std::time::Duration;

use crate::core::time::Tick;

/// How many items end in a second, lately.
#[derive(Default)]
pub(super) struct Rate {
    at: Tick,
    ended: u64,
    pub(super) per_second: f64,
}

impl Rate {
    pub(super) fn sample(&mut self, now: Tick, ended: u64) {
        const WINDOW: Duration = Duration::from_millis(50);
        let took = now.since(self.at);
        if took < WINDOW {
            return;
        }
        let latest = (ended - self.ended) as f64 / took.as_secs_f64();
        self.per_second = 0.5 * self.per_second + 0.5 * latest;
        (self.at, self.ended) = (now, ended);
    }
}
