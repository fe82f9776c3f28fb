//! The engine: holds the plans of all leased pages of one lane, starts calls in the order in which pages were
//! leased, and gathers what is new into groups to settle.

mod ending;
mod rate;
mod settling;
mod starting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::core::class::Failure;
use crate::core::id::RunId;
use crate::core::item::Input;
use crate::core::lane::Lane;
use crate::core::packing::Order;
use crate::core::page::PAGE_ITEMS_MAX;
use crate::core::time::Tick;
use crate::core::work::{Rules, Stopped, Unit, Work};
use crate::ledger::{Held, LedgerError, SettleEnd};
use crate::ports::CallReport;
use crate::shell::env::{Env, Mode, RunHandle};

use super::calls::{CallId, Calls, FirstPoll, Out};
use super::leaser::{Demand, Leased};
use super::settler::Writers;
use rate::Rate;

/// Pages held at most, whatever the rate: what a death of this session would have to be taken over.
const HELD_PAGES_MAX: usize = 256;

/// The engine holds work for about this long ahead, so that leasing and settling overlap with calls.
const AHEAD: Duration = Duration::from_millis(100);

/// It looks ahead only as far as the items that it then holds take this room: large ones come fast enough.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Events taken from the inbox at a time.
const EVENTS_AT_ONCE: usize = 1024;

/// What the engine hears.
pub(super) enum Event {
    /// A page was leased.
    Leased(Box<Leased>),
    /// Calls ended.
    CallsEnded {
        ended: Vec<(CallId, CallReport)>,
        /// What the first poll of their task was like, if this is it.
        first: Option<FirstPoll>,
    },
    /// The start of an item that is to run alone was noted, or not.
    Noted {
        page: u64,
        unit: Unit,
        result: Result<Held, LedgerError>,
    },
    /// A group was settled.
    Settled(Vec<(u64, SettleEnd)>),
    /// A page was given back, or is lost.
    Released(u64),
    /// A hint came to nothing.
    NotLeased,
    /// What comes is late: it is asked for anew.
    Overdue,
    /// No more pages will come: the session ends.
    NoMorePages,
}

struct Slot {
    run: RunHandle,
    rules: Arc<Rules>,
    work: Work,
    held: Held,
    inputs: Result<Vec<Arc<Input>>, Failure>,
    /// Room that the inputs take.
    input_bytes: usize,
    /// Being settled, noted or released: no second write at the same time.
    writing: bool,
    /// Since when there has been something to record.
    news_since: Option<Tick>,
}

impl Slot {
    /// Whether something else begins only once its news is settled: a suspect's next item, or, where order is kept and
    /// nothing of it is left to do, the next page. Then nothing is gathered by waiting.
    fn is_waited_for(&self) -> bool {
        let work = &self.work;
        if self.held.page.is_suspect() {
            return work.in_calls() == 0;
        }
        let is_done = work.unstarted() == 0 && work.in_calls() == 0 && work.next_due().is_none();
        is_done && self.run.order() == Order::Kept
    }
}

/// One lane's engine.
pub(super) struct Engine {
    env: Arc<Env>,
    lane: Lane,
    demand: Arc<Demand>,
    out: Out,
    slots: BTreeMap<u64, Slot>,
    /// Room that the inputs of all slots take.
    held_bytes: usize,
    /// What an item of the page that came last takes: as much as those that are to come, most likely.
    item_bytes: usize,
    next_slot: u64,
    /// Slots with calls to start, oldest first.
    ready: BTreeSet<u64>,
    /// Slots with something to record, by the time since when.
    news: BTreeSet<u64>,
    calls: Calls,
    settling: bool,
    leasing: bool,
    writers: Writers,
    rules: BTreeMap<RunId, Arc<Rules>>,
    ended: u64,
    rate: Rate,
    whole_failures: u32,
    back_off_until: Tick,
    stop_at: Option<Tick>,
}

impl Engine {
    pub(super) fn new(
        env: Arc<Env>,
        lane: Lane,
        demand: Arc<Demand>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        let out = Out {
            events,
            kill: env.kill.clone(),
        };
        Self {
            env,
            lane,
            demand,
            calls: Calls::new(out.clone()),
            out,
            slots: BTreeMap::new(),
            held_bytes: 0,
            item_bytes: 0,
            next_slot: 0,
            ready: BTreeSet::new(),
            news: BTreeSet::new(),
            settling: false,
            leasing: true,
            writers: Writers::default(),
            rules: BTreeMap::new(),
            ended: 0,
            rate: Rate::default(),
            whole_failures: 0,
            back_off_until: Tick::default(),
            stop_at: None,
        }
    }

    /// Works until the session ends and nothing is held.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let env = self.env.clone();
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut draining = false;
        loop {
            let freed = env.permits.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let heard = env.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            let now = env.runtime.clock.tick();
            self.obey(now);
            self.wake(now);
            self.start_calls(now);
            self.settle(now);
            self.give_back_idle(now);
            self.ask_for_pages(now);
            if !self.leasing && self.slots.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = env.kill.cancelled() => return self.leave(),
                received = inbox.recv_many(&mut events, EVENTS_AT_ONCE) => {
                    debug_assert!(received > 0, "the engine keeps a sender itself");
                }
                () = env.drain.cancelled(), if !draining => draining = true,
                () = freed => {}
                () = heard => {}
                () = env.sleep_until(self.next_look(now)) => {}
            }
            for event in events.drain(..) {
                self.hear(event);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Leased(leased) => {
                self.demand.has_come();
                self.take(*leased);
            }
            Event::NotLeased => self.demand.has_come(),
            Event::Overdue => {}
            Event::CallsEnded { ended, first } => self.calls_ended(ended, first),
            Event::Noted { page, unit, result } => self.noted(page, unit, result),
            Event::Settled(ends) => {
                self.settling = false;
                for (page, end) in ends {
                    self.settled(page, end);
                }
            }
            Event::Released(page) => self.forget(page),
            Event::NoMorePages => self.leasing = false,
        }
    }

    fn take(&mut self, leased: Leased) {
        let Leased { run, held, inputs } = leased;
        let rules = self
            .rules
            .entry(run.id.clone())
            .or_insert_with(|| Arc::new(run.rules(self.lane)));
        let clock = &self.env.runtime.clock;
        let work = Work::new(held.page.clone(), rules, clock.now(), clock.tick());
        let rules = rules.clone();
        let id = self.next_slot;
        self.next_slot += 1;
        let texts = inputs.iter().flatten();
        let input_bytes = texts.map(|input| input.payload_bytes()).sum();
        self.held_bytes += input_bytes;
        self.item_bytes = input_bytes / held.page.items.len().max(1);
        let slot = Slot {
            run,
            rules,
            work,
            held,
            inputs,
            input_bytes,
            writing: false,
            news_since: None,
        };
        self.slots.insert(id, slot);
        self.ready.insert(id);
    }

    /// Stops what the session's end or a run's end asks to stop.
    fn obey(&mut self, now: Tick) {
        let ending = self.env.drain.is_cancelled();
        let mut abort = BTreeSet::new();
        let mut give_back = BTreeSet::new();
        for (id, slot) in &self.slots {
            match slot.run.now().mode {
                Mode::Abort => drop(abort.insert(*id)),
                Mode::Drain => drop(give_back.insert(*id)),
                Mode::Work if ending => drop(give_back.insert(*id)),
                Mode::Work => {}
            }
        }
        if !abort.is_empty() {
            self.calls
                .stop_pages(|page| abort.contains(&page), Stopped::Aborted);
        }
        if give_back.is_empty() {
            self.stop_at = None;
            return;
        }
        let grace = self.grace(&give_back);
        let stop_at = *self.stop_at.get_or_insert(now + grace);
        if now >= stop_at {
            self.calls
                .stop_pages(|page| give_back.contains(&page), Stopped::GivenBack);
        }
    }

    /// What runs may finish within the lane's grace before it is stopped.
    fn grace(&self, pages: &BTreeSet<u64>) -> Duration {
        let grace = |id: &u64| Some(self.slots.get(id)?.run.job.lane(self.lane)?.grace);
        pages.iter().filter_map(grace).max().unwrap_or_default()
    }

    fn wake(&mut self, now: Tick) {
        self.calls.stop_late(now);
        for (id, slot) in &mut self.slots {
            if slot.work.next_due().is_some_and(|due| due <= now) {
                slot.work.wake(now, &slot.rules);
                self.ready.insert(*id);
            }
        }
    }

    fn ask_for_pages(&mut self, now: Tick) {
        if self.env.drain.is_cancelled() {
            self.demand.set(0);
            return;
        }
        self.rate.sample(now, self.ended);
        let unstarted: usize = self
            .ready
            .iter()
            .filter_map(|id| Some(self.slots.get(id)?.work.unstarted()))
            .sum();
        let ahead = (self.rate.per_second * AHEAD.as_secs_f64()) as usize;
        let room_bytes = HELD_BYTES_MAX.saturating_sub(self.held_bytes);
        let ahead = ahead.min(room_bytes / self.item_bytes.max(1));
        let permits = self.env.permits.granted() as usize;
        let pages = match self.lane {
            Lane::Function => {
                let missing = (permits.max(1) + ahead).saturating_sub(unstarted);
                let room = HELD_PAGES_MAX.saturating_sub(self.slots.len());
                missing.div_ceil(PAGE_ITEMS_MAX).min(room)
            }
            // A page is one item: one that waits for a permit must be held, or nobody would ask for more permits.
            Lane::Container => {
                let beyond = match self.env.permits.is_pool_empty() {
                    true => 1,
                    false => permits.max(1),
                };
                (permits + beyond + ahead).saturating_sub(self.busy_pages())
            }
        };
        self.demand.set(pages);
    }

    /// Pages that do not only wait for a retry; those too, once there are too many of them.
    fn busy_pages(&self) -> usize {
        let waits = |slot: &&Slot| slot.work.in_calls() == 0 && slot.work.unstarted() == 0;
        let waiting = self.slots.values().filter(waits).count();
        self.slots.len() - waiting.min(HELD_PAGES_MAX)
    }

    /// Until then nothing is to be done, unless something is heard; none: nothing at all.
    fn next_look(&self, now: Tick) -> Option<Tick> {
        let within = self.settle_within();
        // What is being written is heard of when that is done.
        let idle = |id: &u64| self.slots.get(id).filter(|slot| !slot.writing);
        let since = self.news.iter().filter_map(|id| idle(id)?.news_since).min();
        let news = since.filter(|_| !self.settling).map(|since| since + within);
        let due = self
            .slots
            .values()
            .filter_map(|slot| slot.work.next_due())
            .min();
        let later = [due, self.calls.next_deadline(), self.stop_at];
        let back_off = Some(self.back_off_until);
        let later = later.into_iter().chain([back_off]).flatten();
        later.filter(|moment| *moment > now).chain(news).min()
    }

    fn forget(&mut self, id: u64) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.held_bytes -= slot.input_bytes;
        self.env.let_go(&slot.run.id, slot.held.page.id);
        if slot.held.page.is_suspect() {
            self.env.permits.give_up_alone();
        }
        self.ready.remove(&id);
        self.news.remove(&id);
    }

    /// The leases are lost, or the process leaves: calls are dropped, nothing more is written.
    fn leave(self) {
        for slot in self.slots.values() {
            let items = slot.work.in_calls() as u64;
            slot.run.running.fetch_sub(items, Ordering::Relaxed);
        }
        if self.calls.len() > 0 {
            tracing::warn!(calls = self.calls.len(), "calls were dropped");
        }
    }
}
