//! The queue's rules, held to what SQS emulators answer, and to what the simulated queue does with all its
//! faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use trommel::adapters::aws::SqsQueue;
use trommel::adapters::tokio_runtime;
use trommel::ports::queue::{Handle, Outgoing};
use trommel::ports::{Clock, Queue};
use trommel_localstack::{Emulator, Kind};
use trommel_simulator::Simulation;
use trommel_simulator::point::Kind as FaultKind;
use trommel_simulator::rules::{Liberty, QueueRules, Span};
use trommel_simulator::services::{Injector, QueueModel, Rates, Source};

use crate::conformance::{Taken, Waiver, cases, play, runtime, say, stage};
use crate::emulator_arms::{fresh, left_out};

/// What emulators do beyond the plain queue, and why it is borne.
const WAIVERS: [Waiver; 5] = [
    Waiver {
        kind: Kind::LocalStack,
        liberty: Liberty::Withheld,
        reason: "it looks for ended visibilities now and then; an empty answer proves nothing anyway",
    },
    Waiver {
        kind: Kind::LocalStack,
        liberty: Liberty::FormerHandleDeletes,
        reason: "AWS leaves it open (DeleteMessage); a hint that is gone is made again",
    },
    Waiver {
        kind: Kind::LocalStack,
        liberty: Liberty::FormerHandleHides,
        reason: "AWS refuses; the pipeline changes no visibility by a handle that it does not hold",
    },
    Waiver {
        kind: Kind::LocalStack,
        liberty: Liberty::Doubled,
        reason: "a change of visibility after its end is answered as done, and not done; AWS refuses",
    },
    Waiver {
        kind: Kind::MiniStack,
        liberty: Liberty::FormerHandleRefused,
        reason: "it knows the latest handle only; AWS says yes (DeleteMessage), and both are borne",
    },
];

/// A case waits at most so long for its own sake.
const WAITS_MS_MAX: u64 = 2_500;

/// What is left at the end comes within this time.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// A batch, as SQS takes it.
const BATCH: usize = 10;

/// One call, named without names of the service: deliveries are counted from the latest one back.
#[derive(Clone, Debug)]
enum Step {
    /// So many seconds each message is delayed; none: it is empty.
    Send(Vec<Option<u64>>),
    Receive {
        max: usize,
        wait_s: u64,
        visibility_s: u64,
    },
    Delete(Vec<usize>),
    Change(Vec<(usize, u64)>),
    Depth,
    Wait(u64),
}

/// What calls are chosen by.
#[derive(Clone, Debug)]
struct Plan {
    /// What the model's chance follows from.
    seed: u64,
    sent: usize,
    waited_ms: u64,
}

impl ReferenceStateMachine for Plan {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        let plan = |seed| Self {
            seed,
            sent: 0,
            waited_ms: 0,
        };
        any::<u64>().prop_map(plan).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let delay = prop_oneof![8 => Just(Some(0)), 2 => Just(Some(1)), 1 => Just(None)];
        let receive = (
            1..=BATCH,
            prop_oneof![4 => Just(0_u64), 1 => Just(1)],
            0..=2_u64,
        );
        let receive = receive.prop_map(|(max, wait_s, visibility_s)| Step::Receive {
            max,
            wait_s,
            visibility_s,
        });
        // Most often one of the latest.
        let delivery = || prop_oneof![3 => 0..4_usize, 1 => 0..20_usize];
        prop_oneof![
            4 => prop::collection::vec(delay, 1..4).prop_map(Step::Send),
            6 => receive,
            3 => prop::collection::vec(delivery(), 1..4).prop_map(Step::Delete),
            2 => prop::collection::vec((delivery(), 0..=2_u64), 1..4).prop_map(Step::Change),
            1 => Just(Step::Depth),
            2 => (100..1_300_u64).prop_map(Step::Wait),
        ]
        .boxed()
    }

    fn preconditions(plan: &Self, step: &Step) -> bool {
        match step {
            Step::Send(_) | Step::Depth => true,
            Step::Receive { wait_s, .. } => plan.waited_ms + 1000 * wait_s <= WAITS_MS_MAX,
            Step::Delete(_) | Step::Change(_) => plan.sent > 0,
            Step::Wait(ms) => plan.sent > 0 && plan.waited_ms + ms <= WAITS_MS_MAX,
        }
    }

    fn apply(mut plan: Self, step: &Step) -> Self {
        match step {
            Step::Send(batch) => plan.sent += batch.len(),
            Step::Receive { wait_s, .. } => plan.waited_ms += 1000 * wait_s,
            Step::Wait(ms) => plan.waited_ms += ms,
            Step::Delete(_) | Step::Change(_) | Step::Depth => {}
        }
        plan
    }
}

/// A queue under test, beside the rules.
struct Case {
    queue: Arc<dyn Queue>,
    clock: Arc<dyn Clock>,
    rules: QueueRules,
    sent: usize,
}

impl Case {
    async fn span<T>(&self, call: impl Future<Output = T>) -> (T, Span) {
        let began = self.clock.tick();
        let answer = call.await;
        let ended = self.clock.tick();
        (answer, Span { began, ended })
    }

    /// The handle of the delivery so many before the latest; the oldest, if there are fewer.
    fn handle(&self, back: usize) -> Option<Handle> {
        let latest = self.rules.delivered().checked_sub(1)?;
        self.rules.handle(latest.saturating_sub(back)).cloned()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Send(delays) => self.send(delays).await,
            Step::Receive {
                max,
                wait_s,
                visibility_s,
            } => {
                let wait = Duration::from_secs(wait_s);
                self.receive(max, wait, Duration::from_secs(visibility_s))
                    .await;
            }
            Step::Delete(backs) => {
                let handles = backs.into_iter().filter_map(|back| self.handle(back));
                self.delete(handles.collect()).await;
            }
            Step::Change(changes) => {
                // A batch in which a handle stands twice is no request.
                let mut named = BTreeSet::new();
                let mut entries = Vec::new();
                for (back, seconds) in changes {
                    let handle = self.handle(back);
                    entries.extend(
                        handle
                            .filter(|handle| named.insert(handle.clone()))
                            .map(|handle| (handle, Duration::from_secs(seconds))),
                    );
                }
                self.change(entries).await;
            }
            Step::Depth => {
                let depth = self.queue.depth().await.expect("it answers");
                self.rules.saw_depth(depth);
            }
            Step::Wait(ms) => self.clock.sleep(Duration::from_millis(ms)).await,
        }
    }

    async fn send(&mut self, delays: Vec<Option<u64>>) {
        let mut batch = Vec::new();
        for delay in delays {
            self.sent += 1;
            batch.push(Outgoing {
                body: delay.map_or_else(String::new, |_| format!("message {}", self.sent)),
                delay: Duration::from_secs(delay.unwrap_or(0)),
            });
        }
        let (rejected, span) = self.span(self.queue.send(batch.clone())).await;
        let rejected = rejected.expect("it answers");
        let fits = self.rules.saw_send(&batch, &rejected, span);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    /// How many came.
    async fn receive(&mut self, max: usize, wait: Duration, visibility: Duration) -> usize {
        let receive = self.queue.receive(max, wait, visibility);
        let (messages, span) = self.span(receive).await;
        let messages = messages.expect("it answers");
        let fits = self.rules.saw_receive(max, visibility, &messages, span);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
        messages.len()
    }

    async fn delete(&mut self, handles: Vec<Handle>) {
        if handles.is_empty() {
            return;
        }
        let rejected = self.queue.delete(handles.clone()).await;
        let rejected = rejected.expect("it answers");
        let fits = self.rules.saw_delete(&handles, &rejected);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    async fn change(&mut self, entries: Vec<(Handle, Duration)>) {
        if entries.is_empty() {
            return;
        }
        let change = self.queue.change_visibility(entries.clone());
        let (rejected, span) = self.span(change).await;
        let rejected = rejected.expect("it answers");
        let fits = self.rules.saw_change(&entries, &rejected, span);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    /// Shows all that is hidden, receives and deletes it.
    async fn end(&mut self) {
        for handles in self.rules.latest_handles().chunks(BATCH) {
            let at_once = |handle: &Handle| (handle.clone(), Duration::ZERO);
            self.change(handles.iter().map(at_once).collect()).await;
        }
        self.clock.sleep_until(self.rules.all_visible_from()).await;
        let latest = self.clock.tick() + COMES_WITHIN;
        loop {
            let before = self.rules.delivered();
            let came = self
                .receive(BATCH, Duration::ZERO, Duration::from_mins(1))
                .await;
            let new = (before..self.rules.delivered()).filter_map(|n| self.rules.handle(n));
            let new = new.cloned().collect();
            self.delete(new).await;
            if came == 0 && (self.rules.is_empty() || self.clock.tick() > latest) {
                break;
            }
            if came == 0 {
                self.clock.sleep(Duration::from_millis(100)).await;
            }
        }
        self.rules.saw_the_end();
    }
}

static ON_THE_EMULATOR: Taken = Taken::new();

/// On an emulator, in real time.
struct OnTheEmulator;

fn the_emulator() -> &'static Emulator {
    stage("conformance of the queue").expect("looked for before")
}

impl StateMachineTest for OnTheEmulator {
    type SystemUnderTest = Case;
    type Reference = Plan;

    fn init_test(_: &Plan) -> Case {
        let emulator = the_emulator();
        runtime().block_on(async {
            let clients = emulator.clients().await;
            let name = fresh("conformance");
            emulator.queue(&clients, &name).await.expect("a new queue");
            let queue = SqsQueue::open(&clients, &name).await.expect("just made");
            Case {
                queue: Arc::new(queue),
                clock: tokio_runtime::runtime().clock,
                rules: QueueRules::new(),
                sent: 0,
            }
        })
    }

    fn apply(mut case: Case, _: &Plan, step: Step) -> Case {
        runtime().block_on(case.step(step));
        case
    }

    fn check_invariants(case: &Case, _: &Plan) {
        let kind = the_emulator().kind();
        for liberty in case.rules.taken().keys() {
            let borne = |waiver: &Waiver| waiver.kind == kind && waiver.liberty == *liberty;
            assert!(
                kind == Kind::Unknown || WAIVERS.iter().any(borne),
                "{} took a liberty that no waiver names: {liberty:?}: {}",
                kind.as_str(),
                liberty.meaning()
            );
        }
    }

    fn teardown(mut case: Case, plan: Plan) {
        runtime().block_on(case.end());
        ON_THE_EMULATOR.add(case.rules.taken());
        Self::check_invariants(&case, &plan);
    }
}

#[test]
fn what_an_emulators_queue_does_is_allowed_by_the_rules() {
    let Some(emulator) = stage("conformance of the queue") else {
        return;
    };
    let kind = emulator.kind();
    if kind == Kind::Unknown {
        left_out("nothing is known of this endpoint's queues: its liberties are only counted");
    }
    play::<OnTheEmulator>(cases());
    let (name, cases) = (kind.as_str(), cases());
    say(&format!("{cases} cases of the queue on {name}"));
    let taken = ON_THE_EMULATOR.all();
    if kind == Kind::Unknown {
        say(&format!("liberties taken there: {taken:?}"));
    }
    for waiver in WAIVERS.iter().filter(|waiver| waiver.kind == kind) {
        let (meaning, reason) = (waiver.liberty.meaning(), waiver.reason);
        let times = taken.get(&waiver.liberty).copied().unwrap_or(0);
        say(&format!("waived, {times} times: {meaning}: {reason}"));
        assert!(
            times > 0 || cases < 256,
            "the waiver of {:?} is stale",
            waiver.liberty
        );
    }
    for liberty in Liberty::ALL {
        if liberty.is_of_the_model() && !taken.contains_key(&liberty) {
            let meaning = liberty.meaning();
            say(&format!(
                "never seen there, and done by the model: {meaning}"
            ));
        }
    }
}

static IN_THE_MODEL: Taken = Taken::new();

/// In the simulated queue, in virtual time, with its faults.
struct InTheModel;

/// What carries the world along.
struct ModelCase {
    sim: Simulation,
    case: Case,
}

fn faults() -> Rates {
    [
        FaultKind::Lost,
        FaultKind::Doubled,
        FaultKind::Late,
        FaultKind::Ghost,
        FaultKind::Rejected,
    ]
    .into_iter()
    .map(|kind| (kind, 50_000))
    .collect()
}

impl StateMachineTest for InTheModel {
    type SystemUnderTest = ModelCase;
    type Reference = Plan;

    fn init_test(plan: &Plan) -> ModelCase {
        let sim = Simulation::new(plan.seed);
        let injector = Arc::new(Injector::new(sim.seed()));
        // Every fourth is calm, and takes no liberty.
        if !plan.seed.is_multiple_of(4) {
            injector.set(Source::Swarm(faults()));
        }
        let model = QueueModel::new("function", &sim.node("services"), injector);
        let node = sim.node("a");
        let case = Case {
            queue: Arc::new(model.link(&node)),
            clock: node.runtime().clock,
            rules: QueueRules::new(),
            sent: 0,
        };
        ModelCase { sim, case }
    }

    fn apply(mut model: ModelCase, _: &Plan, step: Step) -> ModelCase {
        let ModelCase { sim, case } = &mut model;
        sim.block_on(case.step(step)).expect("it goes on");
        model
    }

    fn teardown(mut model: ModelCase, plan: Plan) {
        let ModelCase { sim, case } = &mut model;
        sim.block_on(case.end()).expect("it goes on");
        let taken = case.rules.taken();
        IN_THE_MODEL.add(taken);
        assert!(
            !plan.seed.is_multiple_of(4) || taken.is_empty(),
            "calm, and it took {taken:?}"
        );
        for liberty in taken.keys() {
            assert!(liberty.is_of_the_model(), "{liberty:?} is none of its own");
        }
    }
}

#[test]
fn the_simulated_queue_takes_the_liberties_of_its_faults_and_no_others() {
    play::<InTheModel>(500);
    let taken = IN_THE_MODEL.all();
    for liberty in Liberty::ALL {
        assert_eq!(
            liberty.is_of_the_model(),
            taken.contains_key(&liberty),
            "{liberty:?} in {taken:?}"
        );
    }
}
