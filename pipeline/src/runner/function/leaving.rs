//! What a function that ends does about calls that go on without it: it leaves them to the next.
//!
//! A task on ECS runs for hours, a function for minutes. Ending the task with the function would begin its item anew each time;
//! so the item is given back as it is, and who takes it next finds the task. All other calls end with the function.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::core::class::{Class, Failure};
use crate::core::lane::Lane;
use crate::ledger::RunRow;
use crate::ports::Executor;
use crate::ports::executor::{Call, CallReport, Stop};
use crate::shell::{OpenRun, OpenedRun};

/// Opens runs for one call of a function.
pub(super) struct Leaving {
    pub(super) inner: Arc<dyn OpenRun>,
    /// Calls get no longer to end, whatever the job says: the function is over then.
    pub(super) grace_max: Duration,
    /// Cancelled before the function's session ends.
    pub(super) leaves: CancellationToken,
}

#[async_trait]
impl OpenRun for Leaving {
    async fn open(&self, row: &RunRow) -> Result<OpenedRun, String> {
        let mut opened = self.inner.open(row).await?;
        let mut job = (*opened.job).clone();
        for lane in Lane::ALL {
            let spec = match lane {
                Lane::Function => Some(&mut job.function),
                Lane::Container => job.container.as_mut(),
            };
            let (Some(spec), Some(executor)) = (spec, opened.executors.get_mut(&lane)) else {
                continue;
            };
            spec.grace = spec.grace.min(self.grace_max);
            if executor.is_found_again() {
                spec.grace = Duration::ZERO;
                *executor = Arc::new(LeftBehind {
                    inner: executor.clone(),
                    leaves: self.leaves.clone(),
                });
            }
        }
        opened.job = Arc::new(job);
        Ok(opened)
    }
}

/// Carries out calls as another does, but lets go of them when the function leaves.
struct LeftBehind {
    inner: Arc<dyn Executor>,
    leaves: CancellationToken,
}

#[async_trait]
impl Executor for LeftBehind {
    fn start_wait_max(&self) -> Duration {
        self.inner.start_wait_max()
    }

    fn is_found_again(&self) -> bool {
        true
    }

    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let items = call.items.len();
        let stop_theirs = Stop::new();
        let left = async {
            stop.cancelled().await;
            if !self.leaves.is_cancelled() {
                stop_theirs.cancel();
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            report = self.inner.call(call, stop_theirs.clone()) => report,
            () = left => {
                let cause = "it goes on, and is left to whoever takes its item next";
                CallReport::undecided(items, &Failure::new(Class::Crashed, cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::core::id::{Epoch, Generation, ItemId, RunId};
    use crate::core::item::Input;
    use crate::ports::executor::{CallItem, ItemReport, Output};

    /// Works until it is told to stop, and counts that.
    #[derive(Default)]
    struct Works {
        stopped: AtomicU32,
    }

    #[async_trait]
    impl Executor for Works {
        async fn call(&self, call: Call, stop: Stop) -> CallReport {
            stop.cancelled().await;
            self.stopped.fetch_add(1, Ordering::Relaxed);
            CallReport {
                items: vec![ItemReport::Succeeded(Output::None); call.items.len()],
            }
        }
    }

    fn call() -> Call {
        let item = CallItem {
            id: ItemId {
                part: 0,
                number: 1,
                index: 0,
            },
            attempt: 1,
            epoch: Epoch(1),
            generation: Generation(0),
            input: Arc::new(Input::Value("1".into())),
        };
        Call {
            run: RunId::new("run"),
            items: vec![item],
            batch: false,
            grace: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn a_call_is_stopped_as_ever_until_the_function_leaves_and_then_let_go() {
        let works = Arc::new(Works::default());
        let leaves = CancellationToken::new();
        let left_behind = LeftBehind {
            inner: works.clone(),
            leaves: leaves.clone(),
        };
        let stop = Stop::new();
        stop.cancel();
        let stopped = left_behind.call(call(), stop.clone()).await;
        assert_eq!(stopped.items, [ItemReport::Succeeded(Output::None)]);
        leaves.cancel();
        let left = left_behind.call(call(), stop).await;
        assert!(
            matches!(&left.items[..], [ItemReport::Undecided(_)]),
            "{left:?}"
        );
        assert_eq!(works.stopped.load(Ordering::Relaxed), 1);
    }
}
