//! What a seed decides: the job, the handler, who crashes when; and how it all is run to its end.

use std::time::Duration;

use trommel::core::class::Class;
use trommel::core::id::JobName;
use trommel::core::job::{
    ExecutorSpec, GRACE_DEFAULT, InputSpec, Job, LaneSpec, LedgerUri, Location, OnBreach,
    OutputMode,
};
use trommel::core::lane::Lane;
use trommel::core::retry::{Errors, Jitter, RetryRule};
use trommel::core::run::RunStatus;
use trommel::core::time::Tick;
use trommel::core::tolerance::Tolerance;
use trommel::ports::table::TableProfile;
use trommel::shell::Settings;
use trommel_simulator::cluster::{Behaviour, Process};
use trommel_simulator::services::Faults;
use trommel_simulator::{Cluster, Node, Simulation, Stream};

use crate::oracle;

pub(crate) const BOTH: &[Lane] = &[Lane::Function, Lane::Container];

/// What DynamoDB allows, and how long a session there gathers outcomes.
pub(crate) const SHARED: TableProfile = TableProfile {
    transact_writes_max: 100,
    row_bytes_max: 400 * 1024,
    settle_within: Duration::from_secs(1),
};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn lane(object_bytes_max: Option<u64>) -> LaneSpec {
    LaneSpec {
        executor: ExecutorSpec::InProcess,
        object_bytes_max,
        max_items_per_batch: 1,
        timeout: Some(seconds(20)),
        grace: GRACE_DEFAULT,
        output: OutputMode::Keep,
    }
}

/// A job over objects of two sizes: small ones together, large ones alone.
pub(crate) fn job(max_concurrency: u32, tolerated: u64) -> Job {
    let flaky = RetryRule {
        errors: Errors::Any(vec![Class::named("Flaky"), Class::Timeout]),
        max_attempts: 2,
        // The second retry may be further off than a holder waits: then the page is given back.
        interval: seconds(8),
        backoff_rate: 8.0,
        max_delay: None,
        jitter: Jitter::Full,
    };
    Job {
        name: JobName::new("job"),
        input: InputSpec::Objects(Location::S3 {
            bucket: "input".to_owned(),
            key: String::new(),
        }),
        max_concurrency,
        tolerance: Tolerance {
            count: Some(tolerated),
            percent: None,
        },
        fail_fast: None,
        on_breach: OnBreach::Fail,
        results: None,
        ledger: LedgerUri::DynamoDb("table".to_owned()),
        scratch: None,
        function: lane(Some(100)),
        container: Some(lane(None)),
        retry: vec![flaky],
        catch: Vec::new(),
    }
}

/// Puts objects into the input: the small ones share pages, each large one has its own.
pub(crate) async fn put_objects(cluster: &Cluster, small: u64, large: u64) {
    for number in 0..small + large {
        let bytes = if number < small { 10 } else { 1000 };
        let key = format!("object-{number:05}");
        let put = cluster
            .stores()
            .input
            .put(key.as_bytes(), vec![0; bytes].into());
        put.await.expect("memory takes all");
    }
}

/// One simulated world with its cluster.
pub(crate) struct Scenario {
    pub(crate) sim: Simulation,
    pub(crate) cluster: Cluster,
}

impl Scenario {
    pub(crate) fn new(seed: u64, job: Job) -> Self {
        let sim = Simulation::new(seed);
        let cluster = Cluster::new(&sim, job, Settings::shared(), SHARED);
        Self { sim, cluster }
    }

    /// With a run over so many objects.
    pub(crate) fn with_objects(seed: u64, job: Job, small: u64, large: u64) -> Self {
        let scenario = Self::new(seed, job);
        scenario.block_on(async {
            put_objects(&scenario.cluster, small, large).await;
            scenario.cluster.create_run().await;
        });
        scenario
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.sim.block_on(future).expect("the world goes on")
    }

    pub(crate) fn start(&self, name: &str) -> (Node, Process) {
        let node = self.sim.node(name);
        let process = self.cluster.start(&node, BOTH);
        (node, process)
    }

    pub(crate) fn run_for(&self, duration: Duration) {
        self.sim.run_for(duration).expect("the world goes on");
    }

    pub(crate) fn status(&self) -> RunStatus {
        let (ledger, run) = (self.cluster.ledger(), self.cluster.run());
        let row = self.block_on(async { ledger.run(&run).await });
        row.expect("the run has a row").state.status
    }

    /// Goes on until the condition holds; false if it does not within `longest`.
    pub(crate) fn goes_on_until(&self, longest: Duration, holds: impl Fn() -> bool) -> bool {
        let latest = self.sim.now() + longest;
        while !holds() {
            if self.sim.now() >= latest {
                return false;
            }
            self.run_for(Duration::from_millis(500));
        }
        true
    }
}

/// A crash, and perhaps a new start.
#[derive(Clone, Debug)]
pub(crate) struct Crash {
    pub(crate) worker: usize,
    pub(crate) at: Duration,
    pub(crate) back_after: Duration,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) small: u64,
    pub(crate) large: u64,
    pub(crate) max_concurrency: u32,
    pub(crate) batch: u32,
    pub(crate) tolerated: u64,
    pub(crate) behaviour: Behaviour,
    pub(crate) crashes: Vec<Crash>,
    /// Links that carry nothing: whose, from when, for how long.
    pub(crate) cuts: Vec<Crash>,
    pub(crate) faults: Faults,
    /// Pages cannot be written: from when, for how long.
    pub(crate) heat: Option<(Duration, Duration)>,
}

/// Crashes, cuts and faults come within this time; then the world is calm.
pub(crate) const TROUBLE: Duration = Duration::from_secs(150);

/// A run ends so long after the last trouble: sessions die within two durations, lost hints and late
/// requests come within 90 s more, then all items may run one after the other.
pub(crate) const CALM_MAX: Duration = Duration::from_mins(40);

pub(crate) const WORKERS: [&str; 2] = ["a", "b"];

impl Plan {
    /// Crashes and failing handlers, but services without faults.
    pub(crate) fn crashes(chance: &Stream) -> Self {
        let within = |longest: u64| Duration::from_millis(chance.below(longest * 1000));
        let crashes = (0..chance.below(5)).map(|_| Crash {
            worker: chance.below(2) as usize,
            at: within(120),
            back_after: within(50),
        });
        let crashes = crashes.collect();
        let rate = |most: u64| chance.below(most) as u32;
        let behaviour = Behaviour {
            flaky: rate(100_000),
            bad: rate(30_000),
            throttled: rate(30_000),
            panics: rate(10_000),
            slow: rate(10_000),
            ..Behaviour::calm(Duration::from_millis(20), within(4).max(seconds(1)))
        };
        Self {
            small: chance.below(60),
            large: chance.below(30),
            max_concurrency: 1 + chance.below(8) as u32,
            batch: if chance.chance(700_000) { 1 } else { 5 },
            tolerated: chance.below(12),
            behaviour,
            crashes,
            cuts: Vec::new(),
            faults: Faults::NONE,
            heat: None,
        }
    }

    /// Also services with faults, and links that are cut for a while.
    pub(crate) fn faults(chance: &Stream) -> Self {
        let mut plan = Self::crashes(chance);
        plan.faults = Faults::all(chance.below(20_000) as u32);
        if chance.chance(300_000) {
            let from = Duration::from_millis(chance.below(60_000));
            plan.heat = Some((from, Duration::from_millis(chance.below(60_000))));
        }
        for _ in 0..chance.below(3) {
            plan.cuts.push(Crash {
                worker: chance.below(2) as usize,
                at: Duration::from_millis(chance.below(110_000)),
                back_after: Duration::from_millis(chance.below(40_000)),
            });
        }
        plan
    }

    fn job(&self) -> Job {
        let mut job = job(self.max_concurrency, self.tolerated);
        job.function.max_items_per_batch = self.batch;
        job
    }

    /// The world before anything happens in it.
    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        let scenario = Scenario::with_objects(seed, self.job(), self.small, self.large);
        scenario.cluster.set_behaviour(self.behaviour);
        scenario.cluster.set_faults(self.faults);
        scenario
    }

    /// Runs it to its end and checks every promise.
    pub(crate) fn run(&self, scenario: &Scenario) {
        let processes = self.trouble(scenario);
        scenario.sim.trace(&"calm from here on");
        scenario.cluster.set_faults(Faults::NONE);
        let ended = scenario.goes_on_until(CALM_MAX, || processes.iter().all(Process::is_over));
        oracle::check(scenario, ended);
    }

    /// Both workers, with everything that happens to them; answers their latest processes.
    fn trouble(&self, scenario: &Scenario) -> Vec<Process> {
        enum Event {
            Crash,
            Back,
            Cut(Duration),
            Heat(Duration),
        }
        let mut events = Vec::new();
        for crash in &self.crashes {
            events.push((crash.at, crash.worker, Event::Crash));
            events.push((crash.at + crash.back_after, crash.worker, Event::Back));
        }
        for cut in &self.cuts {
            events.push((cut.at, cut.worker, Event::Cut(cut.back_after)));
        }
        if let Some((from, length)) = self.heat {
            events.push((from, 0, Event::Heat(length)));
        }
        events.sort_by_key(|(at, worker, _)| (*at, *worker));
        let mut processes = WORKERS.map(|name| scenario.start(name).1).to_vec();
        for (at, worker, event) in events {
            let name = WORKERS[worker];
            scenario
                .sim
                .run_until(Tick::default() + at)
                .expect("goes on");
            match event {
                Event::Crash => scenario.sim.node(name).crash(),
                Event::Back => {
                    if !processes[worker].is_over() {
                        continue;
                    }
                    processes[worker] = scenario.start(name).1;
                }
                Event::Heat(length) => {
                    scenario
                        .sim
                        .trace(&format_args!("pages are hot for {length:?}"));
                    scenario.cluster.table().heat(scenario.sim.now() + length);
                }
                Event::Cut(length) => {
                    let until = scenario.sim.now() + length;
                    scenario
                        .sim
                        .trace(&format_args!("{name} is cut off for {length:?}"));
                    scenario.cluster.table().cut(name, until);
                }
            }
        }
        if self.faults != Faults::NONE {
            let quiet = Tick::default() + TROUBLE;
            let over = || processes.iter().all(Process::is_over) || scenario.sim.now() >= quiet;
            scenario.goes_on_until(TROUBLE, over);
        }
        processes
    }
}
