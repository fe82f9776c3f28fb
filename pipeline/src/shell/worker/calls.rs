//! Calls under way: their deadlines, how each is stopped, and how many share a task.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::class::{Class, Failure};
use crate::core::time::Tick;
use crate::core::work::{Stopped, Unit};
use crate::ports::runtime::BoxFuture;
use crate::ports::{Call, CallReport, Executor, Runtime, Stop};

use super::engine::Event;

/// A call's number among those that run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId(usize);

/// A call under way.
pub(super) struct Running {
    /// The page it belongs to.
    pub(super) page: u64,
    /// Its items.
    pub(super) unit: Unit,
    /// Whether and why it was told to stop.
    pub(super) stopped: Stopped,
    /// Whether it goes by the batch protocol.
    pub(super) batch: bool,
    stop: Stop,
    deadline: Option<Tick>,
}

/// All calls of one engine.
pub(super) struct Calls {
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    /// No deadline lies before this.
    earliest: Option<Tick>,
    /// Calls to start with the next [`Calls::launch`].
    starting: Vec<Started>,
    together: Together,
    out: Out,
}

/// What a call starts with.
pub(super) struct Start {
    pub(super) page: u64,
    pub(super) unit: Unit,
    pub(super) timeout: Option<Duration>,
}

/// Where ends of calls go, and what ends all of them by force.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) kill: CancellationToken,
}

impl Calls {
    pub(super) fn new(out: Out) -> Self {
        Self {
            running: Vec::new(),
            free: Vec::new(),
            earliest: None,
            starting: Vec::new(),
            together: Together::default(),
            out,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.running.len() - self.free.len()
    }

    /// Prepares a call; it starts with the next [`Calls::launch`], and its end comes as an event.
    pub(super) fn start(
        &mut self,
        executor: &Arc<dyn Executor>,
        call: Call,
        start: Start,
        now: Tick,
    ) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            self.running.len() - 1
        });
        let stop = Stop::new();
        let deadline = start.timeout.map(|timeout| now + timeout);
        self.earliest = earlier(self.earliest, deadline);
        self.running[index] = Some(Running {
            page: start.page,
            unit: start.unit,
            stopped: Stopped::No,
            batch: call.batch,
            stop: stop.clone(),
            deadline,
        });
        let items = call.items.len();
        let executor = executor.clone();
        let future = Box::pin(async move {
            let call = AssertUnwindSafe(executor.call(call, stop))
                .catch_unwind()
                .await;
            call.unwrap_or_else(|_| {
                let failure = Failure::new(Class::Crashed, "the executor panicked");
                CallReport::undecided(items, &failure)
            })
        });
        self.starting.push((CallId(index), future));
    }

    /// Starts what was prepared.
    pub(super) fn launch(&mut self, runtime: &Runtime) {
        while !self.starting.is_empty() {
            let left = self.starting.len().saturating_sub(self.together.calls);
            let calls = self.starting.split_off(left);
            let task = carry_out(calls, runtime.clone(), self.out.clone());
            runtime.spawn.spawn("calls", Box::pin(task));
        }
    }

    /// A task of calls was polled for the first time: what it took tells how many may share one.
    pub(super) fn learn(&mut self, first: FirstPoll) {
        self.together.learn(first);
    }

    /// A call has ended.
    pub(super) fn end(&mut self, id: CallId) -> Option<Running> {
        let running = self.running.get_mut(id.0)?.take()?;
        self.free.push(id.0);
        Some(running)
    }

    /// A moment before which no deadline lies.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.earliest
    }

    /// Stops the calls whose time is up.
    pub(super) fn stop_late(&mut self, now: Tick) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        self.earliest = None;
        for call in self.running.iter_mut().flatten() {
            match call.deadline {
                Some(deadline) if deadline <= now => call.stop(Stopped::TimedOut),
                deadline => self.earliest = earlier(self.earliest, deadline),
            }
        }
    }

    /// Stops the calls of these pages.
    pub(super) fn stop_pages(&mut self, pages: impl Fn(u64) -> bool, why: Stopped) {
        for call in self
            .running
            .iter_mut()
            .flatten()
            .filter(|call| pages(call.page))
        {
            call.stop(why);
        }
    }
}

fn earlier(one: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

impl Running {
    fn stop(&mut self, why: Stopped) {
        if self.stopped == Stopped::No {
            self.stopped = why;
            self.deadline = None;
            self.stop.cancel();
        }
    }
}

/// How many calls share a task. A task costs more than a call that is over at once, so such calls go together;
/// calls that wait or compute get a task each, for a handler that computes must be able to use every core.
struct Together {
    calls: usize,
}

impl Default for Together {
    fn default() -> Self {
        Self { calls: 1 }
    }
}

impl Together {
    /// A handler that ends within a few microseconds loses nothing by waiting for 31 others.
    const CALLS_MAX: usize = 32;

    /// A call that takes longer than this is worth a task.
    const AT_ONCE: Duration = Duration::from_micros(10);

    fn learn(&mut self, first: FirstPoll) {
        let each = first.took / u32::try_from(first.calls).unwrap_or(u32::MAX).max(1);
        self.calls = if first.ended == first.calls && each <= Self::AT_ONCE {
            (self.calls * 2).min(Self::CALLS_MAX)
        } else {
            1
        };
    }
}

/// What the first poll of a task of calls was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstPoll {
    calls: usize,
    ended: usize,
    took: Duration,
}

type Started = (CallId, BoxFuture<'static, CallReport>);

/// Calls that share a task. Their ends are told together, after each poll.
struct Shared {
    calls: Vec<Started>,
    runtime: Runtime,
    out: Out,
    polled: bool,
}

impl Future for Shared {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (begun, calls) = (this.runtime.clock.tick(), this.calls.len());
        let mut ended = Vec::new();
        this.calls
            .retain_mut(|(id, call)| match call.as_mut().poll(context) {
                Poll::Ready(report) => {
                    ended.push((*id, report));
                    false
                }
                Poll::Pending => true,
            });
        let first = (!this.polled).then(|| FirstPoll {
            calls,
            ended: ended.len(),
            took: this.runtime.clock.tick().since(begun),
        });
        this.polled = true;
        if first.is_some() || !ended.is_empty() {
            // If the engine is gone, the session is: the pages are taken over.
            let _ = this.out.events.send(Event::CallsEnded { ended, first });
        }
        if this.calls.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

async fn carry_out(calls: Vec<Started>, runtime: Runtime, out: Out) {
    let kill = out.kill.clone();
    let calls = Shared {
        calls,
        runtime,
        out,
        polled: false,
    };
    tokio::select! {
        biased;
        // Dropping the calls ends them by force: the lease is lost, and nobody waits for their end.
        () = kill.cancelled() => {}
        () = calls => {}
    }
}
