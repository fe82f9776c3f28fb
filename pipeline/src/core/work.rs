//! The plan for one leased page: which call comes next, and what its end means for each item.
//!
//! Here retries are charged, batches halved to find a poison item, failures caught or escalated.
//! Carrying out calls and writing the page are the worker's; [`super::page`] is the row's own machine.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::class::{Class, Failure};
use super::invariant::{InvariantId, Violation, check};
use super::lane::Lane;
use super::outcome::Outcome;
use super::page::{ItemState, Mark, Page};
use super::retry::{CatchRule, Decision, RetryRule, Then, decide};
use super::time::{Tick, Timestamp};
use crate::core::planted::{Bug, is_planted};

/// A retry due within this is waited for by the holder; a page whose next retry is further off is
/// released, and the sweeper hints at it when it is due.
pub const HELD_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a handler answered for an item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Nothing.
    #[default]
    None,
    /// JSON text.
    Json(Box<str>),
}

/// What became of one item in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemReport {
    /// It succeeded.
    Succeeded(Output),
    /// It failed, and this is known of the item itself.
    Failed(Failure),
    /// Nothing is known: the call failed for this reason before it said.
    Undecided(Failure),
}

/// Why a call was stopped from outside, if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was not: it ended by itself.
    No,
    /// Its lane's timeout.
    TimedOut,
    /// The run failed or was stopped: what is undecided is aborted.
    Aborted,
    /// The worker drains: what is undecided goes back, uncharged.
    GivenBack,
}

/// The job's rules that matter to one lane's pages.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Retry rules, first match counts.
    pub retry: Vec<RetryRule>,
    /// Catch rules, first match counts.
    pub catch: Vec<CatchRule>,
    /// Items one call may carry.
    pub batch: usize,
    /// The lane.
    pub lane: Lane,
    /// Whether there is a container lane to escalate to.
    pub escalation: Escalation,
}

/// Whether items of the function lane may move to the container lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// There is a container lane.
    Possible,
    /// There is none, or this is it.
    None,
}

/// The items of one call, by their indexes in the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// At least one.
    pub items: Vec<u8>,
}

/// A terminal failure, to be kept as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The item's index.
    pub index: u8,
    /// What it became.
    pub outcome: Outcome,
    /// Why.
    pub failure: Failure,
    /// Calls of it in this generation.
    pub attempts: u32,
}

/// What is new since it was last taken, to be recorded together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Outputs of items that succeeded.
    pub outputs: Vec<(u8, Box<str>)>,
    /// Terminal failures.
    pub evidence: Vec<Evidence>,
    /// Items that escalate.
    pub moved: Vec<u8>,
    /// Items with a new outcome.
    pub settled: u32,
}

impl News {
    /// Whether there is anything to record.
    pub fn is_empty(&self) -> bool {
        self.settled == 0 && self.moved.is_empty()
    }
}

/// A leased page at work.
#[derive(Clone, Debug)]
pub struct Work {
    page: Page,
    items: Vec<ItemState>,
    ready: VecDeque<Unit>,
    /// Items in `ready`.
    unstarted: usize,
    waiting: BTreeMap<Tick, Vec<u8>>,
    in_calls: usize,
    news: News,
}

impl Work {
    /// Plans a page that was just leased.
    #[must_use]
    pub fn new(page: Page, rules: &Rules, now: Timestamp, tick: Tick) -> Self {
        let items = page.items.clone();
        let mut work = Self {
            page,
            items,
            ready: VecDeque::new(),
            unstarted: 0,
            waiting: BTreeMap::new(),
            in_calls: 0,
            news: News::default(),
        };
        let mut runnable = Vec::new();
        for (index, item) in work.items.iter_mut().enumerate() {
            if item.mark != Mark::Pending {
                continue;
            }
            item.retries.resize(rules.retry.len(), 0);
            match item.due {
                Some(due) if due > now => {
                    work.waiting
                        .entry(tick + due.since(now))
                        .or_default()
                        .push(index as u8);
                }
                Some(_) | None => runnable.push(index as u8),
            }
        }
        work.enqueue(&runnable, rules);
        work
    }

    /// The items as they are now.
    pub fn items(&self) -> &[ItemState] {
        &self.items
    }

    /// Which attempt the next call of an item is, from 1.
    pub fn attempt(&self, index: u8) -> u32 {
        let item = &self.items[usize::from(index)];
        1 + item.retries.iter().sum::<u32>() + item.throttles
    }

    /// The next call, if one may start now.
    pub fn next_call(&mut self) -> Option<Unit> {
        let unit = self.ready.pop_front()?;
        self.unstarted -= unit.items.len();
        self.in_calls += unit.items.len();
        Some(unit)
    }

    /// Items in calls that have not started.
    pub fn unstarted(&self) -> usize {
        self.unstarted
    }

    /// Calls that may start now.
    pub fn ready_calls(&self) -> usize {
        self.ready.len()
    }

    /// Items in calls.
    pub fn in_calls(&self) -> usize {
        self.in_calls
    }

    /// When the next retry is due.
    pub fn next_due(&self) -> Option<Tick> {
        self.waiting.keys().next().copied()
    }

    /// Makes calls of the items that are due.
    pub fn wake(&mut self, tick: Tick, rules: &Rules) {
        let later = self.waiting.split_off(&Tick(tick.0.saturating_add(1)));
        let due = std::mem::replace(&mut self.waiting, later);
        let due: Vec<u8> = due.into_values().flatten().collect();
        if !due.is_empty() {
            self.enqueue(&due, rules);
        }
    }

    /// Whether nothing runs or may run soon: what is left waits for retries that are far off.
    pub fn is_idle(&self, tick: Tick) -> bool {
        let far = |due: &Tick| due.since(tick) > HELD_WAIT_MAX;
        self.in_calls == 0
            && self.ready.is_empty()
            && self.news.is_empty()
            && self.waiting.keys().next().is_none_or(far)
    }

    /// Whether there is something to record.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Takes what is new. At most `moves_max` escalations, as each is a write in the settle's transaction; others stay.
    pub fn take_news(&mut self, moves_max: usize) -> (News, Vec<ItemState>) {
        let mut news = std::mem::take(&mut self.news);
        let mut items = self.items.clone();
        self.news.moved = news.moved.split_off(moves_max.min(news.moved.len()));
        for index in &self.news.moved {
            items[usize::from(*index)].mark = Mark::Pending;
        }
        (news, items)
    }

    /// A call ended: `reports` are those of its unit's items, in order.
    ///
    /// # Errors
    /// A violation if the reports do not fit the call.
    pub fn call_ended(
        &mut self,
        unit: &Unit,
        reports: Vec<ItemReport>,
        end: CallEnd<'_>,
    ) -> Result<(), Violation> {
        check(reports.len() == unit.items.len(), InvariantId::S3, || {
            format!(
                "{} reports for a call of {}",
                reports.len(),
                unit.items.len()
            )
        })?;
        self.in_calls -= unit.items.len();
        let mut undecided: Vec<(u8, Failure)> = Vec::new();
        for (index, report) in unit.items.iter().zip(reports) {
            let state = &self.items[usize::from(*index)];
            check(state.mark == Mark::Pending, InvariantId::S1, || {
                format!(
                    "item {index} of page {} was called as {:?}",
                    self.page.id, state.mark
                )
            })?;
            match report {
                ItemReport::Succeeded(output) => self.succeed(*index, output),
                ItemReport::Failed(failure) => self.fail(*index, failure, &end)?,
                ItemReport::Undecided(failure) => undecided.push((*index, failure)),
            }
        }
        self.decide(undecided, &end)
    }

    fn decide(
        &mut self,
        undecided: Vec<(u8, Failure)>,
        end: &CallEnd<'_>,
    ) -> Result<(), Violation> {
        let Some((_, first)) = undecided.first() else {
            return Ok(());
        };
        match end.stopped {
            Stopped::GivenBack => {
                self.call_first(undecided.iter().map(|(index, _)| *index).collect());
                return Ok(());
            }
            Stopped::Aborted => {
                for (index, _) in undecided {
                    let failure = Failure::new(Class::named("Aborted"), "stopped with the run");
                    self.settle(index, Outcome::Aborted, Some(failure));
                }
                return Ok(());
            }
            Stopped::No | Stopped::TimedOut => {}
        }
        if undecided.len() > 1 && first.class.may_be_one_item() {
            let items: Vec<u8> = undecided.iter().map(|(index, _)| *index).collect();
            let (left, right) = items.split_at(items.len().div_ceil(2));
            self.call_first(right.to_vec());
            self.call_first(left.to_vec());
            return Ok(());
        }
        for (index, failure) in undecided {
            self.fail(index, failure, end)?;
        }
        Ok(())
    }

    fn call_first(&mut self, items: Vec<u8>) {
        self.unstarted += items.len();
        self.ready.push_front(Unit { items });
    }

    fn succeed(&mut self, index: u8, output: Output) {
        self.settle(index, Outcome::Succeeded, None);
        if let Output::Json(json) = output {
            self.news.outputs.push((index, json));
        }
    }

    fn fail(&mut self, index: u8, failure: Failure, end: &CallEnd<'_>) -> Result<(), Violation> {
        let rules = end.rules;
        let item = &mut self.items[usize::from(index)];
        let decision = decide(
            &rules.retry,
            &rules.catch,
            &failure.class,
            &item.retries,
            item.throttles,
            (end.draw)(),
        );
        let delay = match decision {
            Decision::Retry { rule, delay } => {
                if !is_planted(Bug::RetriesUncharged) {
                    item.retries[rule] += 1;
                }
                let (charged, granted) = (item.retries[rule], rules.retry[rule].max_attempts);
                check(charged <= granted, InvariantId::S11, || {
                    format!("{charged} retries charged to rule {rule}, which grants {granted}")
                })?;
                delay
            }
            Decision::Throttle { delay } => {
                item.throttles += 1;
                delay
            }
            Decision::End(then) => {
                self.end(index, then, failure, rules);
                return Ok(());
            }
        };
        item.due = Some(end.now.after(delay));
        self.waiting
            .entry(end.tick + delay)
            .or_default()
            .push(index);
        Ok(())
    }

    fn end(&mut self, index: u8, then: Then, failure: Failure, rules: &Rules) {
        let may_escalate = rules.lane == Lane::Function && rules.escalation == Escalation::Possible;
        let too_small = matches!(failure.class, Class::Timeout | Class::OutOfMemory);
        let escalates = match then {
            Then::Container => may_escalate,
            Then::Fail => {
                let caught = rules
                    .catch
                    .iter()
                    .any(|rule| rule.errors.contain(&failure.class));
                may_escalate && too_small && !caught
            }
            Then::Skip => false,
        };
        if escalates {
            self.items[usize::from(index)].mark = Mark::Moved;
            self.news.moved.push(index);
            return;
        }
        let outcome = match (then, &failure.class) {
            (Then::Skip, _) => Outcome::Skipped,
            (Then::Fail | Then::Container, Class::Timeout) => Outcome::TimedOut,
            (Then::Fail | Then::Container, _) => Outcome::Failed,
        };
        self.settle(index, outcome, Some(failure));
    }

    fn settle(&mut self, index: u8, outcome: Outcome, failure: Option<Failure>) {
        let attempts = self.attempt(index);
        let item = &mut self.items[usize::from(index)];
        item.mark = Mark::Done(outcome);
        item.due = None;
        self.news.settled += 1;
        if let Some(failure) = failure {
            self.news.evidence.push(Evidence {
                index,
                outcome,
                failure,
                attempts,
            });
        }
    }

    fn enqueue(&mut self, indexes: &[u8], rules: &Rules) {
        let batch = if self.page.is_suspect() {
            1
        } else {
            rules.batch.max(1)
        };
        self.unstarted += indexes.len();
        for items in indexes.chunks(batch) {
            self.ready.push_back(Unit {
                items: items.to_vec(),
            });
        }
    }
}

/// What the end of a call is judged by.
pub struct CallEnd<'a> {
    /// Whether it was stopped from outside.
    pub stopped: Stopped,
    /// The lane's rules.
    pub rules: &'a Rules,
    /// The wall clock.
    pub now: Timestamp,
    /// The monotonic clock.
    pub tick: Tick,
    /// Random draws for jitter.
    pub draw: &'a dyn Fn() -> u64,
}

#[cfg(test)]
mod tests;
