//! What ended calls come to, and a lane whose calls fail as a whole.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::core::class::{Class, Failure};
use crate::core::time::{Tick, Timestamp};
use crate::core::work::{CallEnd, ItemReport, Stopped, Unit};
use crate::ports::CallReport;
use crate::shell::worker::calls::{CallId, FirstPoll, Running};

/// A lane whose calls failed as a whole this often in a row backs off, and says so.
const WHOLE_FAILURES_MAX: u32 = 10;

/// How long it then starts no calls.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Both clocks at one moment.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    now: Timestamp,
    tick: Tick,
}

impl Engine {
    pub(super) fn calls_ended(
        &mut self,
        ended: Vec<(CallId, CallReport)>,
        first: Option<FirstPoll>,
    ) {
        self.env.permits.give(ended.len());
        let at = self.moment();
        for (id, report) in ended {
            if let Some(call) = self.calls.end(id) {
                self.call_ended(call, report, at);
            }
        }
        if let Some(first) = first {
            self.calls.learn(first);
        }
    }

    pub(super) fn moment(&self) -> Moment {
        let clock = &self.env.runtime.clock;
        Moment {
            now: clock.now(),
            tick: clock.tick(),
        }
    }

    fn call_ended(&mut self, call: Running, report: CallReport, at: Moment) {
        let mut reports = report.items;
        if reports.len() != call.unit.items.len() {
            let cause = format!(
                "{} answers for {} items",
                reports.len(),
                call.unit.items.len()
            );
            let failure = Failure::new(Class::BadOutput, cause);
            reports = vec![ItemReport::Undecided(failure); call.unit.items.len()];
        }
        if call.stopped == Stopped::TimedOut {
            self.say_timed_out(&call, &mut reports);
        }
        self.count_whole_failures(&reports);
        self.ended_of(call.page, &call.unit, reports, call.stopped, at);
    }

    /// A call that was stopped for its time says what it likes; only a batch's answers line by line are believed.
    fn say_timed_out(&self, call: &Running, reports: &mut [ItemReport]) {
        let timeout = self
            .slots
            .get(&call.page)
            .and_then(|slot| slot.run.job.lane(self.lane)?.timeout);
        let cause = format!("ran longer than {:?}", timeout.unwrap_or_default());
        for report in reports {
            let believed = match report {
                ItemReport::Succeeded(_) | ItemReport::Failed(_) => call.batch,
                ItemReport::Undecided(_) => false,
            };
            if !believed {
                *report = ItemReport::Undecided(Failure::new(Class::Timeout, &cause));
            }
        }
    }

    fn count_whole_failures(&mut self, reports: &[ItemReport]) {
        let concerns_call = |report: &ItemReport| match report {
            ItemReport::Undecided(failure) | ItemReport::Failed(failure) => {
                matches!(failure.class, Class::Unavailable | Class::Throttled)
            }
            ItemReport::Succeeded(_) => false,
        };
        if !reports.iter().all(concerns_call) {
            self.whole_failures = 0;
            return;
        }
        self.whole_failures += 1;
        if self.whole_failures >= WHOLE_FAILURES_MAX {
            tracing::warn!(
                lane = %self.lane,
                failures = self.whole_failures,
                "calls keep failing as a whole: the lane backs off for {BACK_OFF:?}"
            );
            self.whole_failures = 0;
            self.back_off_until = self.env.runtime.clock.tick() + BACK_OFF;
        }
    }

    pub(super) fn ended_of(
        &mut self,
        id: u64,
        unit: &Unit,
        reports: Vec<ItemReport>,
        stopped: Stopped,
        at: Moment,
    ) {
        self.ended += unit.items.len() as u64;
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.run
            .running
            .fetch_sub(unit.items.len() as u64, Ordering::Relaxed);
        let runtime = &self.env.runtime;
        let draw = || runtime.entropy.next_u64();
        let end = CallEnd {
            stopped,
            rules: &slot.rules,
            now: at.now,
            tick: at.tick,
            draw: &draw,
        };
        if let Err(violation) = slot.work.call_ended(unit, reports, end) {
            tracing::error!(page = %slot.held.page.id, %violation, "the page is dropped");
            self.forget(id);
            return;
        }
        if slot.work.unstarted() > 0 {
            self.ready.insert(id);
        }
        if slot.work.has_news() && slot.news_since.is_none() {
            slot.news_since = Some(at.tick);
            self.news.insert(id);
        }
    }
}
