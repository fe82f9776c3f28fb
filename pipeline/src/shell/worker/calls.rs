//! Calls under way: their deadlines, and how each is stopped.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::class::{Class, Failure};
use crate::core::time::Tick;
use crate::core::work::{Stopped, Unit};
use crate::ports::{Call, CallReport, Executor, Runtime, Stop};

use super::engine::Event;

/// A call's number within its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallId(pub(super) u64);

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
#[derive(Default)]
pub(super) struct Calls {
    running: BTreeMap<CallId, Running>,
    deadlines: BTreeMap<(Tick, CallId), ()>,
    next: u64,
}

/// What a call starts with.
pub(super) struct Start {
    pub(super) page: u64,
    pub(super) unit: Unit,
    pub(super) timeout: Option<Duration>,
}

impl Calls {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Starts a call; its end comes as an event.
    pub(super) fn start(
        &mut self,
        runtime: &Runtime,
        executor: &Arc<dyn Executor>,
        call: Call,
        start: Start,
        out: &Out,
    ) {
        let id = CallId(self.next);
        self.next += 1;
        let stop = Stop::new();
        let deadline = start.timeout.map(|timeout| runtime.clock.tick() + timeout);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id), ());
        }
        let running = Running {
            page: start.page,
            unit: start.unit,
            stopped: Stopped::No,
            batch: call.batch,
            stop: stop.clone(),
            deadline,
        };
        self.running.insert(id, running);
        let task = carry_out(executor.clone(), call, stop, id, out.clone());
        runtime.spawn.spawn("call", Box::pin(task));
    }

    /// A call has ended.
    pub(super) fn end(&mut self, id: CallId) -> Option<Running> {
        let running = self.running.remove(&id)?;
        if let Some(deadline) = running.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(running)
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Stops the calls whose time is up.
    pub(super) fn stop_late(&mut self, now: Tick) {
        while let Some((deadline, id)) = self.deadlines.keys().next().copied() {
            if deadline > now {
                return;
            }
            self.deadlines.remove(&(deadline, id));
            self.stop(id, Stopped::TimedOut);
        }
    }

    /// Stops the calls of these pages.
    pub(super) fn stop_pages(&mut self, pages: impl Fn(u64) -> bool, why: Stopped) {
        let ids: Vec<CallId> = self
            .running
            .iter()
            .filter(|(_, call)| pages(call.page))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.stop(id, why);
        }
    }

    fn stop(&mut self, id: CallId, why: Stopped) {
        if let Some(call) = self.running.get_mut(&id)
            && call.stopped == Stopped::No
        {
            call.stopped = why;
            call.stop.cancel();
        }
    }
}

/// Where ends of calls go, and what ends all of them by force.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) kill: CancellationToken,
}

async fn carry_out(executor: Arc<dyn Executor>, call: Call, stop: Stop, id: CallId, out: Out) {
    let items = call.items.len();
    let report = tokio::select! {
        biased;
        report = AssertUnwindSafe(executor.call(call, stop)).catch_unwind() => report,
        // Dropping the call ends it by force: the lease is lost, and nobody waits for its end.
        () = out.kill.cancelled() => return,
    };
    let report = report.unwrap_or_else(|_| {
        let failure = Failure::new(Class::Crashed, "the executor panicked");
        CallReport::undecided(items, &failure)
    });
    // If the engine is gone, the session is: the page is taken over.
    let _ = out.events.send(Event::CallEnded { id, report });
}
