//! A small world for tests by hand: a job over objects of two sizes, and processes that work on it.

use std::time::Duration;

use trommel::core::class::Class;
use trommel::core::id::JobName;
use trommel::core::job::{
    ExecutorSpec, GRACE_DEFAULT, InputSpec, Job, LaneSpec, LedgerUri, Location, OnBreach,
    OutputMode,
};
use trommel::core::retry::{Errors, Jitter, RetryRule};
use trommel::core::run::RunStatus;
use trommel::core::tolerance::Tolerance;
use trommel::ports::table::TableProfile;
use trommel::shell::Settings;
use trommel_simulator::cluster::Process;
use trommel_simulator::scenario::Role;
use trommel_simulator::{Cluster, Node, Simulation};

/// The size of a small object.
pub(crate) const SMALL_BYTES: u64 = 10;

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
        let bytes = if number < small { SMALL_BYTES } else { 1000 };
        let key = format!("object-{number:05}");
        let put = cluster
            .stores()
            .input
            .put(key.as_bytes(), vec![0; bytes as usize].into());
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
        let process = self.cluster.start(&node, Role::All);
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
