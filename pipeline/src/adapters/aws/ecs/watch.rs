//! Waits for tasks to end: one look at a time for all tasks of this process in a cluster, a hundred in a request, and what
//! events tell in between where there is a queue for them.
//!
//! Whoever waits takes the turn to look, also for the others, and hands it on: there is no task of its own that could be
//! forgotten, and where nobody waits nobody asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::Task;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::super::classify::{Fault, Verdict};
use super::listen::{Events, Heard, listen};
use super::looks::{Looks, Purpose, Round, TASKS_A_LOOK};
use super::told::says_how;

/// A task that so many looks in a row do not find is not there. Just after its start it need not be found yet ("RunTask":
/// the API is eventually consistent); after its end it is for about an hour.
const MISSES_MAX: u32 = 20;

/// So many looks in a row that are refused will not be allowed later either.
const REFUSALS_MAX: u32 = 3;

/// Tasks of which it is remembered that they have ended here: events of them that come twice or late are nobody else's. Beyond
/// it they are passed on for some seconds.
const DONE_MAX: usize = 1024;

/// Why nobody knows any more how a task goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

pub(super) type End = Result<Task, Lost>;

/// When the task began, by ECS's clock; none as long as that is not seen. It closes with the task's end.
pub(super) type Began = watch::Receiver<Option<SystemTime>>;

/// The tasks that are waited for.
#[derive(Default)]
pub(super) struct Watch {
    board: Mutex<Board>,
    turn: tokio::sync::Mutex<Turn>,
    hurry: Notify,
    events: Option<Arc<Events>>,
    /// Whether the last that was learned of a task of ours was told by an event, and not found by a look.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Board {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Tasks that ended here, the latest last.
    done: VecDeque<String>,
}

#[derive(Debug)]
struct Waiting {
    arn: String,
    misses: u32,
    began: watch::Sender<Option<SystemTime>>,
    end: oneshot::Sender<End>,
}

/// Held by whoever looks.
#[derive(Debug, Default)]
struct Turn {
    looks: Looks,
    last: Option<Instant>,
    refusals: u32,
}

impl Watch {
    /// One that hears these events.
    pub(super) fn hearing(events: Events) -> Self {
        Self {
            events: Some(Arc::new(events)),
            ..Self::default()
        }
    }

    pub(super) fn events(&self) -> Option<&Arc<Events>> {
        self.events.as_ref()
    }

    /// An event told of this task.
    pub(super) fn hear(&self, task: &Task) -> Heard {
        let heard = self.board().hear(task);
        match heard {
            Heard::Ours => self.told.store(true, Ordering::Relaxed),
            Heard::Unsaid => self.hurry(),
            Heard::Another => {}
        }
        heard
    }

    /// Events do not tell all: looks are to see ends themselves again.
    pub(super) fn note_missed(&self) {
        // Whoever looks may be waiting for the next look by the former measure.
        if self.told.swap(false, Ordering::Relaxed) {
            self.hurry();
        }
    }

    fn purpose(&self) -> Purpose {
        if self.told.load(Ordering::Relaxed) {
            Purpose::Reconcile
        } else {
            Purpose::See
        }
    }

    /// Something is about to end: the next look comes soon.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Has the task looked at from now on.
    pub(super) fn wait_for(self: &Arc<Self>, arn: &str) -> (Place<'_>, Began) {
        let (end_sender, end) = oneshot::channel();
        let (began_sender, began) = watch::channel(None);
        let mut board = self.board();
        let number = board.next;
        board.next += 1;
        let waiting = Waiting {
            arn: arn.to_owned(),
            misses: 0,
            began: began_sender,
            end: end_sender,
        };
        board.waiting.insert(number, waiting);
        drop(board);
        self.hurry();
        let place = Place {
            watch: self,
            number,
            end,
        };
        (place, began)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, turn: &mut Turn, client: &Client, cluster: &str) {
        self.until_due(turn).await;
        // Whoever looks may be gone before it is done, as its own task has ended.
        turn.last = Some(Instant::now());
        let arns = self.board().arns();
        let mut round = Round::Quiet;
        for arns in arns.chunks(TASKS_A_LOOK) {
            let request = client.describe_tasks().cluster(cluster);
            let answer = request.set_tasks(Some(arns.to_vec())).send().await;
            match answer {
                Ok(answer) => {
                    turn.refusals = 0;
                    let tasks = answer.tasks.unwrap_or_default();
                    let found = self.board().found(arns, tasks);
                    if found.ended + found.missing > 0 {
                        self.note_missed();
                    }
                    if found.begun + found.ended > 0 {
                        round = Round::News;
                    }
                }
                Err(error) => self.not_seen(turn, &Fault::of(&error)),
            }
        }
        let requests = arns.len().div_ceil(TASKS_A_LOOK);
        turn.looks.note(round, self.purpose(), requests);
        turn.last = Some(Instant::now());
    }

    /// Waits for the time of the next look. Dropped while it waits, it has done nothing.
    async fn until_due(&self, turn: &mut Turn) {
        let Some(last) = turn.last else { return };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(last + turn.looks.apart()) => {}
            () = self.hurry.notified() => {
                turn.looks.hurry();
                tokio::time::sleep_until(last + turn.looks.apart()).await;
            }
        }
    }

    /// A look that failed says nothing of the tasks; they are looked at again, unless that is not allowed at all.
    fn not_seen(&self, turn: &mut Turn, fault: &Fault) {
        tracing::warn!(error = %fault.text, "the tasks on ECS could not be looked at");
        match fault.verdict() {
            Verdict::Refused(_) | Verdict::NotFound => turn.refusals += 1,
            Verdict::Throttled
            | Verdict::Unreachable
            | Verdict::Unclear
            | Verdict::Condition
            | Verdict::Conflict => {}
        }
        if turn.refusals < REFUSALS_MAX {
            return;
        }
        turn.refusals = 0;
        let lost = Lost(format!("it cannot be looked at: {}", fault.told()));
        for (_, waiting) in std::mem::take(&mut self.board().waiting) {
            // Whoever went away meanwhile needs no answer.
            let _ = waiting.end.send(Err(lost.clone()));
        }
    }
}

impl Board {
    fn arns(&self) -> Vec<String> {
        let arns: BTreeSet<&String> = self.waiting.values().map(|one| &one.arn).collect();
        arns.into_iter().cloned().collect()
    }

    /// One look's answer: hands out what has begun and what has ended.
    fn found(&mut self, asked: &[String], tasks: Vec<Task>) -> Found {
        let asked: BTreeSet<&String> = asked.iter().collect();
        let tasks: BTreeMap<String, Task> = tasks
            .into_iter()
            .filter_map(|task| Some((task.task_arn()?.to_owned(), task)))
            .collect();
        let mut ended = Vec::new();
        let mut found = Found::default();
        for (number, waiting) in &mut self.waiting {
            match tasks.get(&waiting.arn) {
                Some(task) if task.last_status() == Some("STOPPED") => {
                    ended.push((*number, Ok(task.clone())));
                }
                Some(task) => {
                    waiting.misses = 0;
                    found.begun += usize::from(waiting.begins(task));
                }
                None if asked.contains(&waiting.arn) => {
                    waiting.misses += 1;
                    found.missing += 1;
                    if waiting.misses >= MISSES_MAX {
                        let lost = Lost(format!("ECS does not know the task {}", waiting.arn));
                        ended.push((*number, Err(lost)));
                    }
                }
                None => {}
            }
        }
        found.ended = ended.len();
        for (number, end) in ended {
            self.end(number, end);
        }
        found
    }

    fn end(&mut self, number: u64, end: End) {
        let Some(waiting) = self.waiting.remove(&number) else {
            return;
        };
        if !self.done.contains(&waiting.arn) {
            self.done.push_back(waiting.arn);
        }
        if self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
        // Whoever went away meanwhile needs no answer.
        let _ = waiting.end.send(end);
    }

    /// What an event tells: hands it out, and says whose it was.
    fn hear(&mut self, task: &Task) -> Heard {
        let arn = task.task_arn().unwrap_or_default();
        let those = self.waiting.iter_mut().filter(|(_, one)| one.arn == arn);
        let mut numbers = Vec::new();
        for (number, waiting) in those {
            waiting.misses = 0;
            waiting.begins(task);
            numbers.push(*number);
        }
        let is_done = self.done.iter().any(|done| done == arn);
        match (numbers.is_empty(), task.last_status()) {
            (true, _) if is_done => Heard::Ours,
            (true, _) => Heard::Another,
            (false, Some("STOPPED")) if !says_how(task) => Heard::Unsaid,
            (false, Some("STOPPED")) => {
                for number in numbers {
                    self.end(number, Ok(task.clone()));
                }
                Heard::Ours
            }
            (false, _) => Heard::Ours,
        }
    }
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    begun: usize,
    ended: usize,
    missing: usize,
}

impl Waiting {
    /// Whether this is the first that is seen of the task's start.
    fn begins(&self, task: &Task) -> bool {
        let at = task.started_at().map(|at| SystemTime::try_from(*at));
        let Some(Ok(at)) = at else { return false };
        self.began
            .send_if_modified(|began| began.replace(at).is_none())
    }
}

/// One who waits; gives the place up when dropped.
pub(super) struct Place<'a> {
    watch: &'a Arc<Watch>,
    number: u64,
    end: oneshot::Receiver<End>,
}

impl Place<'_> {
    /// Waits until the task has stopped; whoever waits also looks and listens for the others.
    pub(super) async fn end(&mut self, client: &Client, cluster: &str) -> End {
        tokio::select! {
            biased;
            end = &mut self.end => end.unwrap_or_else(|_| Err(Lost("its place was lost".to_owned()))),
            never = keep_looking(self.watch, client, cluster) => match never {},
            never = keep_listening(self.watch) => match never {},
        }
    }
}

async fn keep_looking(watch: &Watch, client: &Client, cluster: &str) -> Infallible {
    loop {
        let mut turn = watch.turn.lock().await;
        watch.look(&mut turn, client, cluster).await;
    }
}

async fn keep_listening(watch: &Arc<Watch>) -> Infallible {
    loop {
        listen(watch).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.watch.board().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_ecs::types::Container;
    use aws_smithy_types::DateTime;

    use super::*;

    fn task(arn: &str, status: &str) -> Task {
        Task::builder().task_arn(arn).last_status(status).build()
    }

    #[test]
    fn a_look_hands_out_what_has_stopped_and_nothing_else() {
        let watch = Arc::new(Watch::default());
        let (mut first, _) = watch.wait_for("1");
        let (mut second, _) = watch.wait_for("2");
        let (mut again, _) = watch.wait_for("1");
        let asked = watch.board().arns();
        assert_eq!(asked, ["1", "2"]);
        let tasks = vec![task("1", "STOPPED"), task("2", "RUNNING")];
        assert_eq!(watch.board().found(&asked, tasks).ended, 2);
        assert!(first.end.try_recv().expect("it ended").is_ok());
        assert!(again.end.try_recv().expect("it ended").is_ok());
        assert!(second.end.try_recv().is_err());
    }

    #[test]
    fn the_start_of_a_task_is_told_once_when_it_is_seen() {
        let watch = Arc::new(Watch::default());
        let (_place, began) = watch.wait_for("1");
        let asked = watch.board().arns();
        let look = |task: Task| watch.board().found(&asked, vec![task]).begun;
        assert_eq!(look(task("1", "PROVISIONING")), 0);
        assert_eq!(*began.borrow(), None);
        let runs = Task::builder().task_arn("1").last_status("RUNNING");
        let runs = runs.started_at(DateTime::from_secs(7)).build();
        assert_eq!(look(runs.clone()), 1);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        assert_eq!(*began.borrow(), Some(at));
        assert_eq!(look(runs), 0, "that is no news");
    }

    #[test]
    fn a_task_that_is_not_found_is_lost_only_after_many_looks_in_a_row() {
        let watch = Arc::new(Watch::default());
        let (mut place, _) = watch.wait_for("1");
        let asked = watch.board().arns();
        let miss = || watch.board().found(&asked, Vec::new()).ended;
        for _ in 1..MISSES_MAX {
            assert_eq!(miss(), 0);
        }
        watch.board().found(&asked, vec![task("1", "PENDING")]);
        for _ in 1..MISSES_MAX {
            assert_eq!(miss(), 0);
        }
        assert_eq!(miss(), 1);
        assert!(place.end.try_recv().expect("it is told").is_err());
    }

    fn stopped(arn: &str) -> Task {
        let exited = Container::builder().exit_code(0).build();
        let task = Task::builder().task_arn(arn).last_status("STOPPED");
        task.containers(exited).build()
    }

    #[test]
    fn an_event_of_an_end_is_handed_out_once_whatever_comes_after_it() {
        let watch = Arc::new(Watch::default());
        let (mut place, _) = watch.wait_for("1");
        assert_eq!(watch.hear(&task("1", "RUNNING")), Heard::Ours);
        assert!(place.end.try_recv().is_err());
        assert_eq!(watch.hear(&stopped("1")), Heard::Ours);
        assert!(place.end.try_recv().expect("it ended").is_ok());
        for late in [stopped("1"), task("1", "RUNNING")] {
            assert_eq!(watch.hear(&late), Heard::Ours, "and nobody else's");
        }
        assert_eq!(watch.hear(&stopped("2")), Heard::Another);
    }

    #[test]
    fn an_event_of_an_end_that_says_not_how_is_left_to_a_look() {
        let watch = Arc::new(Watch::default());
        let (mut place, _) = watch.wait_for("1");
        assert_eq!(watch.hear(&task("1", "STOPPED")), Heard::Unsaid);
        assert!(place.end.try_recv().is_err());
        assert_eq!(watch.purpose(), Purpose::See);
    }

    #[test]
    fn looks_only_reconcile_as_long_as_events_tell_what_they_would_find() {
        let watch = Arc::new(Watch::default());
        let _places = ["1", "2"].map(|arn| watch.wait_for(arn));
        assert_eq!(watch.purpose(), Purpose::See);
        watch.hear(&stopped("1"));
        assert_eq!(watch.purpose(), Purpose::Reconcile);
        watch.hear(&stopped("9"));
        assert_eq!(watch.purpose(), Purpose::Reconcile, "that is another's");
        watch.note_missed();
        assert_eq!(watch.purpose(), Purpose::See);
    }

    #[test]
    fn who_waits_for_a_look_that_only_reconciles_looks_soon_when_events_stop() {
        use futures_util::FutureExt as _;
        let watch = Arc::new(Watch::default());
        let _place = watch.wait_for("1");
        let is_hurried = || watch.hurry.notified().now_or_never().is_some();
        assert!(is_hurried(), "by the wait that began");
        watch.hear(&task("1", "RUNNING"));
        assert!(!is_hurried());
        watch.note_missed();
        assert!(is_hurried());
        watch.note_missed();
        assert!(!is_hurried(), "nothing changed");
    }

    #[test]
    fn only_the_latest_ends_are_remembered() {
        let watch = Arc::new(Watch::default());
        for number in 0..=DONE_MAX {
            let arn = number.to_string();
            let _place = watch.wait_for(&arn);
            watch.hear(&stopped(&arn));
        }
        assert_eq!(watch.hear(&stopped("0")), Heard::Another);
        assert_eq!(watch.hear(&stopped("1")), Heard::Ours);
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked_for() {
        let watch = Arc::new(Watch::default());
        let (place, _) = watch.wait_for("1");
        drop(place);
        assert_eq!(watch.board().arns(), Vec::<String>::new());
    }
}
