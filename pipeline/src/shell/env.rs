//! What the loops of one session share: ledger, queues, permits, and the runs they know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::class::Class;
use crate::core::id::{Generation, JobName, PageId, RunId};
use crate::core::job::Job;
use crate::core::lane::Lane;
use crate::core::packing::Order;
use crate::core::run::RunStatus;
use crate::core::tally::CLASSES_MAX;
use crate::core::time::{Tick, Timestamp};
use crate::core::work::{Escalation, Rules};
use crate::ledger::{Ledger, LedgerError, RunGlance, RunRow};
use crate::ports::{Executor, Queue, Runtime};

use super::part_cache::PartCache;
use super::permits::Permits;
use super::source::Stores;

/// So many runs are remembered for leases that were left behind in them; a job seldom has two at a time.
const TOUCHED_MAX: usize = 64;

/// How the loops of one session behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A session without a beat for so long counts as dead.
    pub session_duration: Duration,
    /// How often it beats.
    pub beat_every: Duration,
    /// How often the judge looks, and everybody learns of verdicts and wishes, and of what others froze and settled: at
    /// most 1 s.
    pub judge_every: Duration,
    /// The shortest time between sweeps.
    pub sweep_every: Duration,
    /// Whether this process may be sure that no other session lives: it holds the ledger's lock.
    pub others: Others,
}

/// Whether other sessions may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They may: only a missing beat proves a death.
    MayLive,
    /// They do not: the lock on the ledger proves it, so their work is taken at once. Hints of former
    /// processes are gone with them.
    AreDead,
}

impl Settings {
    /// For an embedded ledger: writes are cheap, and no other process runs.
    pub fn embedded() -> Self {
        Self {
            session_duration: Duration::from_secs(30),
            beat_every: Duration::from_millis(250),
            judge_every: Duration::from_millis(100),
            sweep_every: Duration::from_secs(1),
            others: Others::AreDead,
        }
    }

    /// A session that was silent for so long stops its calls: before anybody may take its leases, whatever the clocks
    /// say.
    pub fn silent_max(&self) -> Duration {
        self.session_duration * 2 / 3
    }

    /// How long it may take until a dead session's pages are taken by another.
    pub fn retaken_within(&self) -> Duration {
        match self.others {
            Others::AreDead => self.sweep_every,
            Others::MayLive => self.session_duration * 2,
        }
    }

    /// For DynamoDB: every call costs, and other processes share the work.
    pub fn shared() -> Self {
        Self {
            session_duration: Duration::from_secs(30),
            beat_every: Duration::from_secs(3),
            judge_every: Duration::from_secs(1),
            sweep_every: Duration::from_secs(5),
            others: Others::MayLive,
        }
    }
}

/// Gives the loops what they need to work on a run: its job, its stores, its executors. The command
/// line's parses the stored job file; a library user's hands out a handler.
#[async_trait]
pub trait OpenRun: Send + Sync {
    /// Opens a run.
    ///
    /// # Errors
    /// Why it cannot be worked on here, in words.
    async fn open(&self, row: &RunRow) -> Result<OpenedRun, String>;
}

/// What [`OpenRun`] gives.
#[derive(Clone)]
pub struct OpenedRun {
    /// The job.
    pub job: Arc<Job>,
    /// Input and scratch.
    pub stores: Stores,
    /// What carries out each lane's calls.
    pub executors: BTreeMap<Lane, Arc<dyn Executor>>,
}

/// What is done about a run in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its items are worked on.
    Work,
    /// No new calls; what runs may finish, or goes back.
    Drain,
    /// Calls are stopped, their items aborted.
    Abort,
}

/// What a session last learned of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What to do.
    pub mode: Mode,
    /// Where it stands.
    pub status: RunStatus,
    /// Its generation.
    pub generation: Generation,
    /// Whether items pending since an older generation are worked on.
    pub takes_pending: bool,
    /// Whether sources that changed are taken as they are now.
    pub refresh: bool,
    /// Whether a redrive has yet to go through the pages.
    pub redriving: bool,
}

impl Seen {
    /// What a glance at the row says.
    pub fn of(row: &RunGlance) -> Self {
        let mode = match row.status {
            RunStatus::Running => Mode::Work,
            RunStatus::Paused | RunStatus::Succeeded => Mode::Drain,
            RunStatus::Failed | RunStatus::Aborted => Mode::Abort,
        };
        Self {
            mode,
            status: row.status,
            generation: row.generation,
            takes_pending: row.takes_pending(),
            refresh: row.redrive.as_ref().is_some_and(|redrive| redrive.refresh),
            redriving: row.redrive_part.is_some(),
        }
    }
}

/// A run, as this session works on it.
pub struct OpenRunHandle {
    /// Its name.
    pub id: RunId,
    /// Its job.
    pub job: Arc<Job>,
    /// Input and scratch.
    pub stores: Stores,
    /// What carries out each lane's calls.
    pub executors: BTreeMap<Lane, Arc<dyn Executor>>,
    /// Parts read lately.
    pub cache: PartCache,
    learned: Mutex<Learned>,
    /// It changed. (No watch channel of tokio: that wakes its receivers in an order of its own chance.)
    changed: Notify,
    /// Something was learned of a run of this session: its engines look what to do.
    heard: Arc<Notify>,
    /// Whether this session reads, routes and redrives it.
    driven: AtomicBool,
    /// Something was settled here: counts, verdict and horizon may have changed.
    pub settled: Notify,
    /// A part was frozen here.
    pub frozen: Notify,
    /// Items in calls right now, in this session.
    pub running: AtomicU64,
}

/// What was last learned of a run, and when the ledger was asked.
#[derive(Clone, Copy, Debug)]
struct Learned {
    seen: Seen,
    asked: Tick,
}

impl Learned {
    /// Takes an answer; whether it says something else than before. What has ended goes on only in another generation:
    /// an answer that says otherwise was long under way, and would be the last word, as the judge has left by then.
    fn take(&mut self, seen: Seen, asked: Tick) -> bool {
        let before = self.seen;
        let is_same = before.generation == seen.generation;
        if is_same && before.status.is_ended() && !seen.status.is_ended() {
            return false;
        }
        *self = Self { seen, asked };
        before != seen
    }
}

/// A run this session knows.
pub type RunHandle = Arc<OpenRunHandle>;

impl OpenRunHandle {
    /// The rules of one lane.
    pub fn rules(&self, lane: Lane) -> Rules {
        let batch = self
            .job
            .lane(lane)
            .map_or(1, |spec| spec.max_items_per_batch as usize);
        let escalation = match (lane, &self.job.container) {
            (Lane::Function, Some(_)) => Escalation::Possible,
            (Lane::Function, None) | (Lane::Container, _) => Escalation::None,
        };
        Rules {
            retry: self.job.retry.clone(),
            catch: self.job.catch.clone(),
            batch,
            lane,
            escalation,
        }
    }

    /// At max concurrency 1 items run in input order.
    pub fn order(&self) -> Order {
        if self.job.max_concurrency == 1 {
            Order::Kept
        } else {
            Order::Free
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last learned.
    pub fn now(&self) -> Seen {
        self.learned().seen
    }

    /// Waits until what was learned is as it should be; answers what `check` makes of it.
    pub async fn until<T>(&self, check: impl Fn(Seen) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = check(self.now()) {
                return answer;
            }
            changed.await;
        }
    }

    /// How old what was last learned is.
    pub fn age(&self, now: Tick) -> Duration {
        now.since(self.learned().asked)
    }

    /// From now on this session reads, routes and redrives it.
    pub fn drive(&self) {
        self.driven.store(true, Ordering::Relaxed);
    }

    /// Publishes what was learned, at this moment or later.
    pub fn learn(&self, seen: Seen, asked: Tick) {
        let is_new = self.learned().take(seen, asked);
        if is_new {
            self.changed.notify_waiters();
            self.heard.notify_waiters();
        }
    }
}

/// What the loops of one session share.
pub struct Env {
    /// The books.
    pub ledger: Ledger,
    /// Time, chance, tasks.
    pub runtime: Runtime,
    /// The job whose session this is.
    pub job: JobName,
    /// The lanes' queues.
    pub queues: BTreeMap<Lane, Arc<dyn Queue>>,
    /// How to open a run.
    pub opener: Arc<dyn OpenRun>,
    /// How to behave.
    pub settings: Settings,
    /// The session's permits.
    pub permits: Permits,
    /// Ends all work softly: what runs may finish, or goes back.
    pub drain: CancellationToken,
    /// Cancelled once nothing is held any more and the session's row is being closed: no beat is due then.
    pub closing: CancellationToken,
    /// Ends all work at once: the leases are lost, or the process leaves.
    pub kill: CancellationToken,
    /// The lanes whose queue last answered with nothing; a session that does not work on a lane never knows.
    empty: Mutex<BTreeMap<Lane, bool>>,
    runs: Mutex<BTreeMap<RunId, RunHandle>>,
    /// When the oldest message that was received last was sent, in milliseconds; [`NO_MESSAGE`]: the queue was empty.
    oldest_message: AtomicI64,
    /// When the last beat began that the ledger heard.
    beaten_at: AtomicU64,
    /// A run became known.
    pub opened: Notify,
    /// Something was learned of a run.
    pub heard: Arc<Notify>,
    /// Whether other sessions of the job lived when the sweeper looked last.
    company: AtomicBool,
    /// Classes of the handlers' own that this session has counted by name.
    classes: Mutex<BTreeSet<String>>,
    /// Pages that this session's workers lease or hold, and how often each.
    held: Mutex<BTreeMap<(RunId, PageId), u32>>,
    /// Runs of which pages were leased here, the latest last.
    touched: Mutex<VecDeque<RunId>>,
}

/// No message was received last.
const NO_MESSAGE: i64 = i64::MAX;

impl Env {
    /// No message that waits was sent before this; none: the queue was empty at the last look, or events are not taken in.
    pub fn oldest_message(&self) -> Option<Timestamp> {
        let sent = self.oldest_message.load(Ordering::Relaxed);
        (sent != NO_MESSAGE).then_some(Timestamp(sent))
    }

    /// How long ago the ledger last heard of this session.
    pub fn silent_for(&self) -> Duration {
        let beaten_at = Tick(self.beaten_at.load(Ordering::Relaxed));
        self.runtime.clock.tick().since(beaten_at)
    }

    /// The ledger heard a beat that began then.
    pub(super) fn note_beat(&self, begun: Tick) {
        self.beaten_at.store(begun.0, Ordering::Relaxed);
    }

    /// Nothing is received for now: what comes meanwhile waits since now at the longest.
    pub(crate) fn note_not_looking(&self) {
        if self.oldest_message().is_none() {
            self.note_oldest(Some(self.runtime.clock.now()));
        }
    }

    /// Messages were received, or none.
    pub(crate) fn note_oldest(&self, oldest: Option<Timestamp>) {
        let sent = oldest.map_or(NO_MESSAGE, |sent| sent.0);
        self.oldest_message.store(sent, Ordering::Relaxed);
    }

    /// A session's environment.
    pub fn new(
        ledger: Ledger,
        runtime: Runtime,
        job: JobName,
        queues: BTreeMap<Lane, Arc<dyn Queue>>,
        opener: Arc<dyn OpenRun>,
        settings: Settings,
    ) -> Arc<Self> {
        let made_at = runtime.clock.tick();
        Arc::new(Self {
            ledger,
            runtime,
            job,
            queues,
            opener,
            settings,
            permits: Permits::default(),
            drain: CancellationToken::new(),
            closing: CancellationToken::new(),
            kill: CancellationToken::new(),
            empty: Mutex::default(),
            opened: Notify::new(),
            heard: Arc::default(),
            runs: Mutex::default(),
            oldest_message: AtomicI64::new(NO_MESSAGE),
            beaten_at: AtomicU64::new(made_at.0),
            company: AtomicBool::new(false),
            classes: Mutex::default(),
            held: Mutex::default(),
            touched: Mutex::default(),
        })
    }

    /// The runs this session knows.
    pub fn known_runs(&self) -> Vec<RunHandle> {
        self.runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// A run, opened if it is not known yet. While it is known it is judged here too, so that its
    /// wishes and verdicts are heard; once it ended it is forgotten, and a later hint opens it anew.
    ///
    /// # Errors
    /// Why it cannot be worked on.
    pub async fn open_run(self: &Arc<Self>, run: &RunId) -> Result<RunHandle, OpenError> {
        let known = self
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(run)
            .cloned();
        if let Some(handle) = known {
            return Ok(handle);
        }
        let asked = self.runtime.clock.tick();
        let row = self.ledger.run(run).await?;
        let seen = Seen::of(&row.glance());
        let opened = self.opener.open(&row).await.map_err(OpenError::Cannot)?;
        let handle = Arc::new(OpenRunHandle {
            id: run.clone(),
            job: opened.job,
            stores: opened.stores,
            executors: opened.executors,
            cache: PartCache::default(),
            learned: Mutex::new(Learned { seen, asked }),
            changed: Notify::new(),
            heard: self.heard.clone(),
            driven: AtomicBool::new(false),
            settled: Notify::new(),
            frozen: Notify::new(),
            running: AtomicU64::new(0),
        });
        {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = runs.get(run) {
                return Ok(known.clone());
            }
            runs.insert(run.clone(), handle.clone());
        }
        self.opened.notify_one();
        let (env, judged) = (self.clone(), handle.clone());
        let judge = async move {
            super::judge::judge(&env, &judged).await;
            env.runs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&judged.id);
        };
        self.runtime.spawn.spawn("judge", Box::pin(judge));
        Ok(handle)
    }

    /// A worker is about to lease a page. It is then held until [`Env::let_go`], once for each time.
    pub(super) fn hold(&self, run: &RunId, page: PageId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held.entry((run.clone(), page)).or_default() += 1;
        drop(held);
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if !touched.contains(run) {
            touched.push_back(run.clone());
        }
        if touched.len() > TOUCHED_MAX {
            touched.pop_front();
        }
    }

    /// Runs that this session does not know any more, of which pages may be leased to it all the same.
    pub(super) fn forgotten_runs(&self) -> Vec<RunId> {
        let known = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_forgotten = |run: &&RunId| !known.contains_key(*run);
        touched.iter().filter(is_forgotten).cloned().collect()
    }

    /// No page of the run is leased to anybody.
    pub(super) fn is_done_with(&self, run: &RunId) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.retain(|other| other != run);
    }

    /// A worker did not lease the page, or has forgotten it.
    pub(super) fn let_go(&self, run: &RunId, page: PageId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (run.clone(), page);
        match held.get_mut(&name) {
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => drop(held.remove(&name)),
            None => debug_assert!(false, "only what is held is let go"),
        }
    }

    /// Whether a worker of this session leases or holds the page.
    pub(super) fn holds(&self, run: &RunId, page: PageId) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains_key(&(run.clone(), page))
    }

    /// Whether this session has to learn at once what becomes of a run: it drives it, or works on pages of it.
    pub(super) fn is_concerned(&self, run: &RunHandle) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        run.driven.load(Ordering::Relaxed) || held.keys().any(|(of, _)| *of == run.id)
    }

    /// The runs of which a worker of this session leases or holds pages.
    pub fn runs_held(&self) -> BTreeMap<RunId, u64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.keys().map(|(run, _)| (run.clone(), 0)).collect()
    }

    /// The pages that a worker of this session leases or holds, by run.
    pub fn pages_held(&self) -> BTreeMap<RunId, Vec<PageId>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pages: BTreeMap<RunId, Vec<PageId>> = BTreeMap::new();
        for (run, page) in held.keys() {
            pages.entry(run.clone()).or_default().push(*page);
        }
        pages
    }

    /// The name under which a failure is counted: its class, or `Other` once this session has named too
    /// many, so that a handler with ever new names cannot make tallies grow without bound.
    pub fn counted_as(&self, class: &Class) -> String {
        let name = class.as_str();
        let mut names = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.contains(name) {
            if names.len() >= CLASSES_MAX {
                return "Other".to_owned();
            }
            names.insert(name.to_owned());
        }
        name.to_owned()
    }

    /// Whether the lane's queue last answered with nothing, to a worker of this session; none: it has none that asks.
    pub fn lane_is_empty(&self, lane: Lane) -> Option<bool> {
        let empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.get(&lane).copied()
    }

    /// Whether other sessions of the job lived lately.
    pub(super) fn has_company(&self) -> bool {
        self.company.load(Ordering::Relaxed)
    }

    /// Notes whether other sessions of the job live.
    pub(super) fn note_company(&self, is_there: bool) {
        self.company.store(is_there, Ordering::Relaxed);
    }

    /// Notes what the lane's queue answered.
    pub fn note_lane(&self, lane: Lane, is_empty: bool) {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.insert(lane, is_empty);
    }

    /// Waits until then; none: for ever.
    pub(super) async fn sleep_until(&self, moment: Option<Tick>) {
        match moment {
            Some(moment) => self.runtime.clock.sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }

    /// Waits, unless the session ends first.
    pub async fn pause(&self, duration: Duration) {
        tokio::select! {
            biased;
            () = self.kill.cancelled() => {}
            () = self.drain.cancelled() => {}
            () = self.runtime.clock.sleep(duration) => {}
        }
    }

    /// What is known of a run, looked at again if it is not of lately: before what must not be done for a run that has moved on.
    ///
    /// # Errors
    /// The ledger.
    pub async fn lately_seen(&self, run: &RunHandle) -> Result<Seen, LedgerError> {
        let now = self.runtime.clock.tick();
        if run.age(now) > self.settings.judge_every * 2 {
            run.learn(Seen::of(&self.ledger.glance(&run.id).await?), now);
        }
        Ok(run.now())
    }

    /// Whether the session is to end.
    pub fn is_ending(&self) -> bool {
        self.drain.is_cancelled() || self.kill.is_cancelled()
    }
}

/// Why a run cannot be worked on here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Its job, its stores, its executors.
    #[error("{0}")]
    Cannot(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_before_the_end_brings_nothing_back() {
        let seen = |status, generation| {
            Seen::of(&RunGlance {
                status,
                generation: Generation(generation),
                wish: None,
                redrive: None,
                redrive_part: None,
            })
        };
        let ended = Learned {
            seen: seen(RunStatus::Failed, 0),
            asked: Tick(10),
        };
        for status in [RunStatus::Running, RunStatus::Paused] {
            let mut learned = ended;
            assert!(!learned.take(seen(status, 0), Tick(20)), "{status:?}");
            assert_eq!(learned.seen.mode, Mode::Abort);
            assert!(learned.take(seen(status, 1), Tick(20)), "a redrive");
            assert_eq!(learned.seen.status, status);
        }
        let mut paused = Learned {
            seen: seen(RunStatus::Paused, 0),
            ..ended
        };
        assert!(
            paused.take(seen(RunStatus::Running, 0), Tick(20)),
            "resumed"
        );
    }
}
