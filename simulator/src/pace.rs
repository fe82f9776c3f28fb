//! Real time for a world whose services are elsewhere: virtual time goes with the machine's own clock, so many
//! times as fast, and cannot be jumped over.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where a world keeps step with the real one"
)]

use std::time::{Duration, Instant};

use trommel::core::time::Tick;

/// How fast a world's time goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    begun: Instant,
    speed: u32,
}

impl Pace {
    /// From now on, so many virtual seconds in a real one; at least one.
    pub(crate) fn of(speed: u32) -> Self {
        Self {
            begun: Instant::now(),
            speed: speed.max(1),
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Tick {
        Tick::default() + self.begun.elapsed() * self.speed
    }

    /// How long this moment is off, in real time.
    pub(crate) fn until(&self, at: Tick) -> Duration {
        at.since(self.now()) / self.speed
    }
}
