//! The engine: holds the plans of all leased pages of one lane, starts calls in the order in which pages were
//! leased, and gathers what is new into groups to settle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::core::class::{Class, Failure};
use crate::core::id::RunId;
use crate::core::item::Input;
use crate::core::job::LaneSpec;
use crate::core::lane::{Lane, Routed};
use crate::core::packing::Order;
use crate::core::page::PageStatus;
use crate::core::time::{Tick, Timestamp};
use crate::core::work::{CallEnd, ItemReport, Rules, Stopped, Unit, Work};
use crate::ledger::{Held, LedgerError, SettleEnd};
use crate::ports::{Call, CallItem, CallReport};
use crate::shell::env::{Env, Mode, RunHandle};

use super::calls::{CallId, Calls, FirstPoll, Out, Running, Start};
use super::leaser::{Demand, Leased};
use super::settler::{self, Entry, GROUP_PAGES_MAX, Writers};

/// Pages held at most, whatever the rate: what a death of this session would have to be taken over.
const HELD_PAGES_MAX: usize = 256;

/// The engine holds work for about this long ahead, so that leasing and settling overlap with calls.
const AHEAD: Duration = Duration::from_millis(100);

/// It looks ahead only as far as the items that it then holds take this room: large ones come fast enough.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Events taken from the inbox at a time.
const EVENTS_AT_ONCE: usize = 1024;

/// A lane whose calls failed as a whole this often in a row backs off, and says so.
const WHOLE_FAILURES_MAX: u32 = 10;

/// How long it then starts no calls.
const BACK_OFF: Duration = Duration::from_secs(5);

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
    /// The hints that were received last are leased or spent.
    NoneComing,
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
    /// Whether nothing of it is left to do, and the next page is told of only once it is settled: then nothing is
    /// gathered by waiting.
    fn is_waited_for(&self) -> bool {
        let work = &self.work;
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
                () = sleep_until(&env, self.next_look(now)) => {}
            }
            for event in events.drain(..) {
                self.hear(event);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Leased(leased) => self.take(*leased),
            Event::CallsEnded { ended, first } => self.calls_ended(ended, first),
            Event::Noted { page, unit, result } => self.noted(page, unit, result),
            Event::Settled(ends) => {
                self.settling = false;
                for (page, end) in ends {
                    self.settled(page, end);
                }
            }
            Event::Released(page) => self.forget(page),
            Event::NoneComing => {}
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

    fn start_calls(&mut self, now: Tick) {
        if now < self.back_off_until || self.env.drain.is_cancelled() {
            return;
        }
        let ids: Vec<u64> = self.ready.iter().copied().collect();
        let mut left = Left::Nothing;
        for id in ids {
            let Some(slot) = self.slots.get(&id) else {
                self.ready.remove(&id);
                continue;
            };
            if slot.run.now().mode != Mode::Work {
                continue;
            }
            if slot.held.page.is_suspect() {
                self.start_alone(id);
                continue;
            }
            // Without permits nobody else starts; but a suspect that waits until nothing runs is why there are none.
            if left == Left::Nothing {
                left = self.start_calls_of(id);
            }
        }
        self.calls.launch(&self.env.runtime);
    }

    /// Starts what a page has to start, as far as permits go.
    fn start_calls_of(&mut self, id: u64) -> Left {
        let wanted = self
            .slots
            .get(&id)
            .map_or(0, |slot| slot.work.ready_calls());
        let took = self.env.permits.take(wanted);
        for started in 0..took {
            let unit = self
                .slots
                .get_mut(&id)
                .and_then(|slot| slot.work.next_call());
            let Some(unit) = unit else {
                // The page was dropped by what its first call came to.
                self.env.permits.give(took - started);
                break;
            };
            self.start(id, unit);
        }
        if self
            .slots
            .get(&id)
            .is_none_or(|slot| slot.work.ready_calls() == 0)
        {
            self.ready.remove(&id);
        }
        if took < wanted {
            Left::Some
        } else {
            Left::Nothing
        }
    }

    /// A suspect's item runs with nothing else in the session, once its start is noted.
    fn start_alone(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.writing || slot.work.in_calls() > 0 || slot.work.has_news() {
            return;
        }
        if slot.work.unstarted() == 0 {
            self.ready.remove(&id);
            return;
        }
        if !self.env.permits.try_take_alone() {
            return;
        }
        let unit = slot.work.next_call().expect("something is unstarted");
        slot.writing = true;
        let (env, run, held) = (self.env.clone(), slot.run.clone(), slot.held.clone());
        let events = self.out.events.clone();
        let note = async move {
            let result = env.ledger.note(&run.id, &held, unit.items[0]).await;
            let _ = events.send(Event::Noted {
                page: id,
                unit,
                result,
            });
        };
        self.env.runtime.spawn.spawn("note", Box::pin(note));
    }

    fn noted(&mut self, id: u64, unit: Unit, result: Result<Held, LedgerError>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.writing = false;
        match result {
            Ok(held) => {
                slot.held = held;
                self.start(id, unit);
                self.calls.launch(&self.env.runtime);
            }
            Err(error) => {
                tracing::warn!(page = %slot.held.page.id, %error, "a start was not noted: lease lost");
                self.env.permits.give(1);
                self.forget(id);
            }
        }
    }

    fn start(&mut self, id: u64, unit: Unit) {
        let slot = self.slots.get(&id).expect("a call starts from a held page");
        let run = slot.run.clone();
        run.running
            .fetch_add(unit.items.len() as u64, Ordering::Relaxed);
        let spec = run
            .job
            .lane(self.lane)
            .expect("a page lies in a lane of its job");
        let Prepared {
            call,
            unit,
            mut refused,
        } = prepare(slot, &unit, self.lane, spec);
        match (call, run.executors.get(&self.lane)) {
            (Some(call), Some(executor)) => {
                let start = Start {
                    page: id,
                    unit,
                    timeout: spec
                        .timeout
                        .map(|timeout| timeout + executor.start_wait_max()),
                };
                let now = self.env.runtime.clock.tick();
                self.calls.start(executor, call, start, now);
            }
            (Some(_), None) => {
                let problem = format!("there is no executor for the {} lane here", self.lane);
                let failure = Failure::new(Class::Unavailable, problem);
                refused.extend(unit.items.iter().map(|index| (*index, failure.clone())));
                self.env.permits.give(1);
            }
            (None, _) => self.env.permits.give(1),
        }
        if !refused.is_empty() {
            self.refuse(id, refused);
        }
    }

    /// Items that cannot be called at all.
    fn refuse(&mut self, id: u64, refused: Vec<(u8, Failure)>) {
        let (items, failures): (Vec<u8>, Vec<Failure>) = refused.into_iter().unzip();
        let reports = failures.into_iter().map(ItemReport::Failed).collect();
        let at = self.moment();
        self.ended_of(id, &Unit { items }, reports, Stopped::No, at);
    }

    fn calls_ended(&mut self, ended: Vec<(CallId, CallReport)>, first: Option<FirstPoll>) {
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

    fn moment(&self) -> Moment {
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

    fn ended_of(
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

    /// Hands a group of pages with news to the settler, one group at a time.
    fn settle(&mut self, now: Tick) {
        if self.settling {
            return;
        }
        let within = self.env.ledger.profile().settle_within;
        let due = |slot: &Slot| {
            let is_late = |since: Tick| now.since(since) >= within;
            slot.news_since
                .is_some_and(|since| is_late(since) || slot.is_waited_for())
        };
        let any_due = self.news.iter().any(|id| {
            self.slots
                .get(id)
                .is_some_and(|slot| !slot.writing && due(slot))
        });
        if !any_due && !self.env.drain.is_cancelled() {
            return;
        }
        let mut entries = Vec::new();
        let mut run: Option<RunHandle> = None;
        // Of each page at most as many escalations as fit one transaction beside page and tally.
        let moves_max = self
            .env
            .ledger
            .profile()
            .transact_writes_max
            .saturating_sub(2)
            .max(1);
        for id in self.news.clone() {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            let same_run = run.as_ref().is_none_or(|run| run.id == slot.run.id);
            if slot.writing || !same_run || entries.len() >= GROUP_PAGES_MAX {
                continue;
            }
            let (news, items) = slot.work.take_news(moves_max);
            slot.writing = true;
            slot.news_since = None;
            self.news.remove(&id);
            run = Some(slot.run.clone());
            let labels = labels(slot, &news.evidence);
            entries.push(Entry {
                page: id,
                held: slot.held.clone(),
                items,
                news,
                labels,
            });
        }
        let Some(run) = run else { return };
        self.settling = true;
        let (env, writers) = (self.env.clone(), self.writers.clone());
        let events = self.out.events.clone();
        let settle = async move {
            let ends = settler::settle(&env, &run, &writers, entries).await;
            let _ = events.send(Event::Settled(ends));
        };
        self.env.runtime.spawn.spawn("settle", Box::pin(settle));
    }

    fn settled(&mut self, id: u64, end: SettleEnd) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.writing = false;
        match end {
            SettleEnd::Recorded(held) if held.page.status == PageStatus::Settled => {
                self.forget(id);
            }
            SettleEnd::Recorded(held) => {
                slot.held = held;
                if slot.work.has_news() {
                    slot.news_since.get_or_insert(self.env.runtime.clock.tick());
                    self.news.insert(id);
                }
            }
            SettleEnd::Lost => {
                tracing::warn!(page = %slot.held.page.id, "its lease is lost: the page is dropped");
                self.calls.stop_pages(|page| page == id, Stopped::GivenBack);
                self.forget(id);
            }
        }
    }

    /// Gives back pages that nothing can be done about now.
    fn give_back_idle(&mut self, now: Tick) {
        let ending = self.env.drain.is_cancelled();
        let mut back = Vec::new();
        for (id, slot) in &self.slots {
            let leaving = ending || slot.run.now().mode != Mode::Work;
            let quiet = slot.work.in_calls() == 0 && !slot.work.has_news();
            let idle = if leaving {
                quiet
            } else {
                slot.work.is_idle(now)
            };
            if idle && !slot.writing {
                back.push(*id);
            }
        }
        for id in back {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.writing = true;
            self.ready.remove(&id);
            if slot.held.page.is_suspect() {
                self.env.permits.give_up_alone();
            }
            let (env, run) = (self.env.clone(), slot.run.clone());
            let (held, items) = (slot.held.clone(), slot.work.items().to_vec());
            let events = self.out.events.clone();
            let release = async move {
                release(&env, &run, held, items).await;
                let _ = events.send(Event::Released(id));
            };
            self.env.runtime.spawn.spawn("release", Box::pin(release));
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
        let target = (self.env.permits.granted() as usize).max(1) + ahead;
        let missing = target.saturating_sub(unstarted);
        let per_page = match self.lane {
            Lane::Function => crate::core::page::PAGE_ITEMS_MAX,
            Lane::Container => 1,
        };
        let room = match self.lane {
            Lane::Function => HELD_PAGES_MAX.saturating_sub(self.slots.len()),
            Lane::Container => target.saturating_sub(self.slots.len()),
        };
        let coming = self.demand.coming.load(Ordering::Relaxed);
        let pages = missing.div_ceil(per_page).min(room).saturating_sub(coming);
        self.demand.set(pages);
    }

    /// Until then nothing is to be done, unless something is heard; none: nothing at all.
    fn next_look(&self, now: Tick) -> Option<Tick> {
        let within = self.env.ledger.profile().settle_within;
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

async fn sleep_until(env: &Env, moment: Option<Tick>) {
    match moment {
        Some(moment) => env.runtime.clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether permits ran out before calls did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Some,
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Moment {
    now: Timestamp,
    tick: Tick,
}

/// How many items end in a second, lately.
#[derive(Default)]
struct Rate {
    at: Tick,
    ended: u64,
    per_second: f64,
}

impl Rate {
    fn sample(&mut self, now: Tick, ended: u64) {
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

/// What a unit comes to.
struct Prepared {
    /// The call of those that can be called, if any can.
    call: Option<Call>,
    /// These.
    unit: Unit,
    /// The others, each with the reason.
    refused: Vec<(u8, Failure)>,
}

/// An item that cannot be called fails alone, whatever it would have shared a call with.
fn prepare(slot: &Slot, unit: &Unit, lane: Lane, spec: &LaneSpec) -> Prepared {
    let page = &slot.held.page;
    let mut refused = Vec::new();
    let mut called = Vec::with_capacity(unit.items.len());
    let mut items = Vec::with_capacity(unit.items.len());
    for index in unit.items.iter().copied() {
        let input = match input(slot, index, lane) {
            Ok(input) => input,
            Err(failure) => {
                refused.push((index, failure));
                continue;
            }
        };
        called.push(index);
        items.push(CallItem {
            id: page.id.origin(index),
            attempt: slot.work.attempt(index),
            epoch: page.epoch,
            generation: page.generation,
            input,
        });
    }
    let call = (!items.is_empty()).then(|| Call {
        run: slot.run.id.clone(),
        items,
        batch: spec.max_items_per_batch > 1,
        grace: spec.grace,
    });
    Prepared {
        call,
        unit: Unit { items: called },
        refused,
    }
}

/// An item's input, if it can be read and the lane takes it.
fn input(slot: &Slot, index: u8, lane: Lane) -> Result<Arc<Input>, Failure> {
    let inputs = slot.inputs.as_ref().map_err(Failure::clone)?;
    let input = inputs[usize::from(index)].clone();
    match slot.run.job.size_rule().route(input.size_bytes()) {
        Routed::TooLarge { bytes_max } => {
            let size = input.size_bytes().unwrap_or(0);
            let cause = format!("{size} bytes, and the largest lane takes {bytes_max}");
            Err(Failure::new(Class::TooLarge, cause))
        }
        Routed::To(routed) => {
            debug_assert!(
                routed == lane || slot.held.page.id.escalated.is_some() || slot.run.now().refresh,
                "S9: the lane matches the size rule, or the item was escalated"
            );
            Ok(input)
        }
    }
}

fn labels(slot: &Slot, evidence: &[crate::core::work::Evidence]) -> BTreeMap<u8, String> {
    let Ok(inputs) = &slot.inputs else {
        return BTreeMap::new();
    };
    let label = |index: u8| Some((index, inputs.get(usize::from(index))?.label()));
    evidence
        .iter()
        .filter_map(|evidence| label(evidence.index))
        .collect()
}

/// Gives a page back, with the retries charged so far.
async fn release(env: &Env, run: &RunHandle, held: Held, items: Vec<crate::core::page::ItemState>) {
    let mut held = held;
    if held.page.items != items {
        let charged = crate::ledger::Settlement {
            held: held.clone(),
            items,
            outputs: None,
            moved: Vec::new(),
            classes: Vec::new(),
        };
        match env
            .ledger
            .settle(&run.id, vec![charged])
            .await
            .map(|mut ends| ends.pop())
        {
            Ok(Some(SettleEnd::Recorded(recorded))) => held = recorded,
            Ok(Some(SettleEnd::Lost) | None) => return,
            Err(error) => {
                // Whether they were is not known; a sweep finds the page as it is, and gives it back.
                tracing::warn!(page = %held.page.id, %error, "retries were not recorded");
                return;
            }
        }
    }
    if let Err(error) = env
        .ledger
        .release(&run.id, &held, env.runtime.clock.now())
        .await
    {
        tracing::warn!(page = %held.page.id, %error, "a page was not given back; its lease runs out");
    }
}
