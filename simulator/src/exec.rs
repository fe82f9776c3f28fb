//! The executor: one thread, tasks picked by the seed, timers exact to the nanosecond.
//!
//! It knows tasks by number and owner by number; names, crashes and traces of nodes are told to it by
//! [`crate::node`]. Its lock is never held while a future or a waker of others is polled, woken or
//! dropped, because each of those may call back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use trommel::core::time::Tick;
use trommel::ports::runtime::BoxFuture;

use crate::entropy::Stream;
use crate::halt::{Halt, Limits, Panicked};
use crate::pace::Pace;
use crate::schedule::{Picker, Schedule};
use crate::timers::{TimerId, Timers};

/// Whose a task or a timer is.
pub(crate) type Owner = u32;

type Ready = Arc<ReadyTasks>;

/// A service elsewhere has answered within this time, or never will.
const ANSWERS_WITHIN: Duration = Duration::from_mins(1);

/// Tasks that can be polled.
#[derive(Default)]
struct ReadyTasks {
    tasks: Mutex<Vec<u64>>,
    /// Whether somebody waits in real time for one; looked at while the tasks are locked.
    awaited: AtomicBool,
    came: Condvar,
}

impl ReadyTasks {
    fn push(&self, task: u64) {
        let mut tasks = lock(&self.tasks);
        tasks.push(task);
        if self.awaited.load(Ordering::Relaxed) {
            self.came.notify_one();
        }
    }

    /// Waits in real time for a task, at most so long.
    fn wait(&self, most: Duration) {
        let tasks = lock(&self.tasks);
        if !tasks.is_empty() {
            return;
        }
        self.awaited.store(true, Ordering::Relaxed);
        let waited = self.came.wait_timeout(tasks, most);
        let tasks = waited.unwrap_or_else(PoisonError::into_inner).0;
        self.awaited.store(false, Ordering::Relaxed);
        drop(tasks);
    }
}

/// Wakes one task: puts its number among the ready ones, once until it is polled.
struct TaskWaker {
    ready: Ready,
    task: u64,
    queued: AtomicBool,
}

impl TaskWaker {
    /// Born ready: a task is polled once without being woken.
    fn born_ready(ready: &Ready, task: u64) -> Arc<Self> {
        ready.push(task);
        Arc::new(Self {
            ready: Arc::clone(ready),
            task,
            queued: AtomicBool::new(true),
        })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

/// What a task is called: `a/main`. Written out only where somebody reads it.
#[derive(Clone)]
pub(crate) struct TaskName {
    pub(crate) node: Arc<str>,
    pub(crate) task: &'static str,
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.task)
    }
}

struct Task {
    owner: Owner,
    name: TaskName,
    flag: Arc<TaskWaker>,
    /// Gone while it is being polled.
    work: Option<Work>,
}

/// What is polled, and by whom it is woken.
struct Work {
    future: BoxFuture<'static, ()>,
    waker: Waker,
}

/// A place for tasks, one after the other.
#[derive(Default)]
struct Slot {
    /// How many tasks had it before: part of a task's number, so that no number comes twice.
    uses: u32,
    task: Option<Task>,
}

#[derive(Default)]
struct State {
    now: u64,
    mains: u64,
    slots: Vec<Slot>,
    /// Slots without a task.
    free: Vec<u32>,
    timers: Timers,
    panics: Vec<Panicked>,
    /// Owners that do not run before then.
    frozen: BTreeMap<Owner, u64>,
    /// Owners whose tasks and timers ended for good, by number.
    ended: BTreeSet<Owner>,
    /// Whether all did.
    closed: bool,
}

impl State {
    fn has_ended(&self, owner: Owner) -> bool {
        self.closed || self.ended.contains(&owner)
    }

    /// A number that no task has.
    fn next_main(&mut self) -> u64 {
        self.mains += 1;
        u64::MAX - self.mains
    }

    /// The slot that the next task gets, and that task's number.
    fn next_slot(&mut self) -> (usize, u64) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("tasks are bounded by memory")
        });
        let uses = &mut self.slots[slot as usize].uses;
        *uses += 1;
        (slot as usize, u64::from(*uses) << 32 | u64::from(slot))
    }

    /// The task of this number, if it has not ended.
    fn task(&mut self, number: u64) -> Option<&mut Task> {
        let slot = self.slots.get_mut((number & 0xffff_ffff) as usize)?;
        if u64::from(slot.uses) != number >> 32 {
            return None;
        }
        slot.task.as_mut()
    }

    fn remove(&mut self, number: u64) -> Option<Task> {
        self.task(number)?;
        let slot = (number & 0xffff_ffff) as u32;
        self.free.push(slot);
        self.slots[slot as usize].task.take()
    }

    /// After a poll; hands it back if its task ended meanwhile, by a crash of its owner.
    fn put_back(&mut self, number: u64, work: Work) -> Option<Work> {
        match self.task(number) {
            Some(task) => task.work.replace(work),
            None => Some(work),
        }
    }

    fn is_frozen(&mut self, owner: Owner) -> bool {
        match self.frozen.get(&owner) {
            Some(until) if *until > self.now => true,
            Some(_) => {
                self.frozen.remove(&owner);
                false
            }
            None => false,
        }
    }

    fn wake_when_thawed(&mut self, owner: Owner, waker: Waker) {
        let until = self.frozen.get(&owner).copied().unwrap_or(self.now);
        self.timers.insert(until, owner, waker);
    }

    fn names(&self) -> Vec<String> {
        let tasks = self.slots.iter().filter_map(|slot| slot.task.as_ref());
        tasks.map(|task| task.name.to_string()).collect()
    }
}

pub(crate) struct Exec {
    ready: Ready,
    picker: Mutex<Picker>,
    limits: Limits,
    /// None: time jumps to the next deadline.
    pace: Option<Pace>,
    steps: AtomicU64,
    state: Mutex<State>,
}

/// What is to be done next.
enum Next {
    Poll(u64),
    Reached,
}

impl Exec {
    pub(crate) fn new(picks: Stream, limits: Limits, pace: Option<Pace>) -> Self {
        Self {
            ready: Ready::default(),
            picker: Mutex::new(Picker::new(picks)),
            limits,
            pace,
            steps: AtomicU64::default(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn set_schedule(&self, schedule: Schedule) {
        lock(&self.picker).set(schedule);
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(lock(&self.state).now)
    }

    /// Starts a task; nothing, if its owner has ended.
    pub(crate) fn spawn(&self, owner: Owner, name: TaskName, future: BoxFuture<'static, ()>) {
        let mut state = lock(&self.state);
        if state.has_ended(owner) {
            drop(state);
            drop(future);
            return;
        }
        let (slot, number) = state.next_slot();
        let flag = TaskWaker::born_ready(&self.ready, number);
        let task = Task {
            owner,
            name,
            work: Some(Work {
                future,
                waker: Waker::from(Arc::clone(&flag)),
            }),
            flag,
        };
        state.slots[slot].task = Some(task);
    }

    pub(crate) fn has_ended(&self, owner: Owner) -> bool {
        lock(&self.state).has_ended(owner)
    }

    /// Ends all tasks and timers of an owner, for good. A task that is being polled right now ends
    /// after this poll.
    pub(crate) fn end(&self, owner: Owner) {
        let mut state = lock(&self.state);
        state.ended.insert(owner);
        Self::drop_where(state, |other| other == owner);
    }

    /// Polls no task of this owner for so long.
    pub(crate) fn freeze(&self, owner: Owner, duration: Duration) {
        let mut state = lock(&self.state);
        let until = (Tick(state.now) + duration).0;
        state.frozen.insert(owner, until);
    }

    pub(crate) fn end_all(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        Self::drop_where(state, |_| true);
    }

    fn drop_where(mut state: MutexGuard<'_, State>, ends: impl Fn(Owner) -> bool) {
        let mut tasks = Vec::new();
        let State { slots, free, .. } = &mut *state;
        for (number, slot) in (0..).zip(slots) {
            if let Some(task) = slot.task.take_if(|task| ends(task.owner)) {
                free.push(number);
                tasks.push(task);
            }
        }
        let wakers = state.timers.take_of(ends);
        drop(state);
        // Only now: destructors may call back.
        drop((tasks, wakers));
    }

    pub(crate) fn panics(&self) -> Vec<Panicked> {
        lock(&self.state).panics.clone()
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    pub(crate) fn block_on<T>(
        &self,
        future: impl Future<Output = T>,
        tell: &dyn Fn(&Panicked),
    ) -> Result<T, Halt> {
        let mut future = pin!(future);
        let main = lock(&self.state).next_main();
        let flag = TaskWaker::born_ready(&self.ready, main);
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            match self.next(None)? {
                Next::Poll(task) if task == main => {
                    flag.queued.store(false, Ordering::Relaxed);
                    let context = &mut Context::from_waker(&waker);
                    if let Poll::Ready(result) = future.as_mut().poll(context) {
                        return Ok(result);
                    }
                }
                Next::Poll(task) => self.poll(task, tell),
                Next::Reached => unreachable!("only with a moment to reach"),
            }
        }
    }

    pub(crate) fn run_until(&self, at: Tick, tell: &dyn Fn(&Panicked)) -> Result<(), Halt> {
        loop {
            match self.next(Some(at.0))? {
                Next::Poll(task) => self.poll(task, tell),
                Next::Reached => return Ok(()),
            }
        }
    }

    /// The task to poll next, after moving time where nothing is ready; or that `until` is reached.
    fn next(&self, until: Option<u64>) -> Result<Next, Halt> {
        if let Some(pace) = self.pace {
            return self.next_in_step(pace, until);
        }
        loop {
            if let Some(task) = self.pick() {
                return self.count_step(task);
            }
            let mut state = lock(&self.state);
            let to = match (state.timers.next(), until) {
                (Some(deadline), Some(until)) if deadline > until => {
                    state.now = state.now.max(until);
                    return Ok(Next::Reached);
                }
                (None, Some(until)) => {
                    state.now = state.now.max(until);
                    return Ok(Next::Reached);
                }
                (Some(deadline), _) => deadline,
                (None, None) => {
                    return Err(Halt::Deadlock {
                        at: Tick(state.now),
                        waiting: state.names(),
                    });
                }
            };
            let limit = Tick::default() + self.limits.time_max;
            if to > limit.0 {
                return Err(Halt::TooLong {
                    at: limit,
                    alive: state.names(),
                });
            }
            drop(state);
            self.come_to(to);
        }
    }

    /// The same, in step with the real clock: where nothing is ready, it waits for a deadline or an answer.
    fn next_in_step(&self, pace: Pace, until: Option<u64>) -> Result<Next, Halt> {
        loop {
            self.come_to(pace.now().0);
            if let Some(task) = self.pick() {
                return self.count_step(task);
            }
            let mut state = lock(&self.state);
            if until.is_some_and(|until| until <= state.now) {
                return Ok(Next::Reached);
            }
            let next = [state.timers.next(), until].into_iter().flatten().min();
            let most = next.map_or(ANSWERS_WITHIN, |at| pace.until(Tick(at)));
            let waiting = next.is_none().then(|| (Tick(state.now), state.names()));
            drop(state);
            self.ready.wait(most);
            if let Some((at, waiting)) = waiting
                && lock(&self.ready.tasks).is_empty()
            {
                return Err(Halt::Deadlock { at, waiting });
            }
        }
    }

    fn pick(&self) -> Option<u64> {
        let mut ready = lock(&self.ready.tasks);
        match ready.len() {
            0 | 1 => ready.pop(),
            _ => Some(lock(&self.picker).pick(&mut ready)),
        }
    }

    fn count_step(&self, task: u64) -> Result<Next, Halt> {
        if self.steps.fetch_add(1, Ordering::Relaxed) < self.limits.steps_max {
            return Ok(Next::Poll(task));
        }
        let state = lock(&self.state);
        Err(Halt::TooManySteps {
            at: Tick(state.now),
            steps: self.limits.steps_max,
            alive: state.names(),
        })
    }

    /// Moves time on and wakes everything that is due then at once: so the seed decides which of them goes first.
    fn come_to(&self, at: u64) {
        let mut state = lock(&self.state);
        state.now = state.now.max(at);
        drop(state);
        loop {
            let mut state = lock(&self.state);
            let now = state.now;
            let Some(waker) = state.timers.take_due(now) else {
                return;
            };
            drop(state);
            waker.wake();
        }
    }

    fn poll(&self, number: u64, tell: &dyn Fn(&Panicked)) {
        let mut state = lock(&self.state);
        // A task that ended may have been woken before; then there is nothing to do.
        let Some(task) = state.task(number) else {
            return;
        };
        // Woken from here on, it is polled again.
        task.flag.queued.store(false, Ordering::Relaxed);
        let owner = task.owner;
        let mut work = task.work.take().expect("no poll within a poll");
        if !state.frozen.is_empty() && state.is_frozen(owner) {
            state.wake_when_thawed(owner, work.waker.clone());
            state.put_back(number, work);
            return;
        }
        drop(state);

        let mut context = Context::from_waker(&work.waker);
        let poll = || work.future.as_mut().poll(&mut context);
        let polled = catch_unwind(AssertUnwindSafe(poll));

        let mut state = lock(&self.state);
        match polled {
            Ok(Poll::Pending) => {
                let ended = state.put_back(number, work);
                drop(state);
                drop(ended);
            }
            Ok(Poll::Ready(())) => {
                let task = state.remove(number);
                drop(state);
                drop((task, work));
            }
            Err(payload) => {
                let task = state.remove(number);
                let panicked = Panicked {
                    at: Tick(state.now),
                    task: task
                        .map_or_else(|| "a crashed task".to_owned(), |task| task.name.to_string()),
                    message: message_of(payload.as_ref()),
                };
                state.panics.push(panicked.clone());
                drop(state);
                drop(work);
                tell(&panicked);
            }
        }
    }
}

/// What a panic said.
fn message_of(payload: &(dyn std::any::Any + Send)) -> String {
    match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no text".to_owned(),
    }
}

/// A lock that a panic in a task does not spoil: no state is left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a moment of virtual time; its timer goes when it is dropped. Of an owner that has ended it
/// never comes.
pub(crate) struct Sleep {
    exec: Arc<Exec>,
    owner: Owner,
    at: u64,
    timer: Option<TimerId>,
}

impl Sleep {
    pub(crate) fn new(exec: Arc<Exec>, owner: Owner, at: Tick) -> Self {
        Self {
            exec,
            owner,
            at: at.0,
            timer: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = lock(&this.exec.state);
        if state.has_ended(this.owner) {
            return Poll::Pending;
        }
        if state.now >= this.at {
            return Poll::Ready(());
        }
        let Some(waker) = this.timer.and_then(|timer| state.timers.waker(timer)) else {
            let waker = context.waker().clone();
            this.timer = Some(state.timers.insert(this.at, this.owner, waker));
            return Poll::Pending;
        };
        if !waker.will_wake(context.waker()) {
            let former = std::mem::replace(waker, context.waker().clone());
            drop(state);
            drop(former);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = lock(&self.exec.state).timers.remove(timer);
            drop(waker);
        }
    }
}
