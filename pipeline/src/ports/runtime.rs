//! Time, chance and spawning.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::core::time::{Tick, Timestamp};

/// A boxed future, as ports hand them around.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Two clocks: one for people, one for waiting.
pub trait Clock: Send + Sync {
    /// Wall-clock time; may jump.
    fn now(&self) -> Timestamp;

    /// The monotonic clock; never goes back.
    fn tick(&self) -> Tick;

    /// Completes once [`Clock::tick`] has reached `at`, never earlier; at once if it has.
    fn sleep_until(&self, at: Tick) -> BoxFuture<'static, ()>;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.tick() + duration)
    }
}

/// Random numbers.
pub trait Entropy: Send + Sync {
    /// The next draw, uniform over all values.
    fn next_u64(&self) -> u64;
}

/// Starts tasks.
pub trait Spawn: Send + Sync {
    /// Runs the future to its end beside the caller. Nobody waits for it here: a task that must be
    /// waited for says so through a channel. If the process dies, so does the task, at any await.
    /// A panic in the future ends that task only.
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>);
}

/// The three together, cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
}

/// The future did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done in time")]
pub struct Elapsed;

impl Runtime {
    /// The future's result, or [`Elapsed`] (and the future dropped) after `duration`.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn within<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T> + Send,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            result = future => Ok(result),
            () = self.clock.sleep(duration) => Err(Elapsed),
        }
    }
}
