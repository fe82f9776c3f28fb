//! Time, chance and tasks of the real world, on tokio. The one place (with the command executor,
//! which waits for processes) where the library reads a real clock; everything else asks its ports.

#![expect(
    clippy::disallowed_methods,
    reason = "this file is what the others use instead"
)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::core::time::{Tick, Timestamp};
use crate::ports::runtime::BoxFuture;
use crate::ports::{Clock, Entropy, Runtime, Spawn};

/// tokio cannot wait for a moment beyond its own range; this long is for ever to any process.
const FOR_EVER: Duration = Duration::from_hours(30 * 365 * 24);

/// The runtime of this process.
///
/// # Panics
/// Outside of a tokio runtime: tasks go to the one that this is called in.
pub fn runtime() -> Runtime {
    Runtime {
        clock: Arc::new(TokioClock {
            start: Instant::now(),
        }),
        entropy: Arc::new(SystemEntropy),
        spawn: Arc::new(TokioSpawn {
            runtime: Handle::current(),
        }),
    }
}

/// Ticks count from when it was made.
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970: timestamps are for people.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn tick(&self) -> Tick {
        Tick::default() + self.start.elapsed()
    }

    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()> {
        let after_start = Duration::from_nanos(at.0);
        let at = self
            .start
            .checked_add(after_start)
            .unwrap_or_else(|| self.start + FOR_EVER);
        Box::pin(tokio::time::sleep_until(at))
    }
}

/// The thread's generator, seeded by the operating system.
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

struct TokioSpawn {
    runtime: Handle,
}

impl Spawn for TokioSpawn {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        let task = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked and ended");
            }
        };
        // Detached: the contract says that nobody waits for it here.
        drop(self.runtime.spawn(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_sleep_never_ends_early() {
        let clock = runtime().clock;
        for micros in [0, 1, 700, 2_300] {
            let until = clock.tick() + Duration::from_micros(micros);
            clock.sleep_until(until).await;
            assert!(clock.tick() >= until);
        }
    }

    #[tokio::test]
    async fn a_sleep_beyond_all_time_waits() {
        let clock = runtime().clock;
        let sleep = clock.sleep_until(Tick(u64::MAX));
        assert!(sleep.now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let spawn = runtime().spawn;
        spawn.spawn("doomed", Box::pin(async { panic!("on purpose") }));
        let (send, receive) = oneshot::channel();
        let task = async move {
            send.send(7).expect("the receiver waits below");
        };
        spawn.spawn("fine", Box::pin(task));
        assert_eq!(receive.await, Ok(7));
    }

    #[tokio::test]
    async fn draws_differ_and_wall_time_is_later_than_this_was_written() {
        let runtime = runtime();
        assert_ne!(runtime.entropy.next_u64(), runtime.entropy.next_u64());
        assert!(runtime.clock.now() > Timestamp(1_700_000_000_000));
    }
}
