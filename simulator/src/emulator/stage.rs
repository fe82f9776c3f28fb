//! A table, queues and buckets on an emulator, new for each scenario; and scenarios carried out there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use trommel::adapters::aws::{Blueprint, Clients, DynamoTable, S3Objects, SqsQueue};
use trommel::core::lane::Lane;
use trommel::ports::{Objects, Queue, Table};
use trommel_localstack::{Emulator, Stage as Found};

use super::bridge::Bridge;
use crate::run::{Outcome, Play, Text};
use crate::scenario::Scenario;
use crate::services::Ground;

/// So many virtual seconds pass in a real one. A session of ten seconds may then be silent for two: ten times as
/// long as a busy emulator takes for its slowest answer.
pub const SPEED: u32 = 5;

/// An emulator to carry out scenarios on.
pub struct Stage {
    runtime: Runtime,
    emulator: &'static Emulator,
    clients: Clients,
    /// Of this process; with a number behind it, of one scenario.
    name: String,
    scenarios: AtomicU64,
}

impl Stage {
    /// Finds an emulator, or starts one.
    ///
    /// # Errors
    /// There is none, and why; or none is wanted.
    pub fn find() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let found = runtime.block_on(Found::find());
        let emulator = match found.map_err(|error| error.to_string())? {
            Found::On(emulator) => emulator,
            Found::None => return Err("no emulator is wanted, and this needs one".to_owned()),
        };
        let clients = runtime.block_on(emulator.clients());
        Ok(Self {
            runtime,
            emulator,
            clients,
            name: fresh(),
            scenarios: AtomicU64::default(),
        })
    }

    /// What it plays on.
    pub fn emulator(&self) -> &Emulator {
        self.emulator
    }

    /// Carries out a scenario there. The trace is kept.
    ///
    /// # Errors
    /// The stage could not be set.
    pub fn run(&self, scenario: &Scenario) -> Result<Outcome, String> {
        let number = self.scenarios.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.name);
        let ground = self.runtime.block_on(self.ground(&name, scenario))?;
        let play = Play {
            scenario,
            text: Text::Kept,
            crash_at: None,
            own: None,
            ground: Some(ground),
        };
        Ok(play.run())
    }

    async fn ground(&self, name: &str, scenario: &Scenario) -> Result<Ground, String> {
        let job = scenario.job().name;
        let blueprint = Blueprint::new(name).and_then(|plan| plan.with_job(&job, &Lane::ALL));
        let blueprint = blueprint.map_err(|error| error.to_string())?;
        let applied = blueprint.apply(&self.clients).await;
        applied.map_err(|error| error.to_string())?;
        let table: Arc<dyn Table> = Arc::new(DynamoTable::new(&self.clients, name));
        let tokio = self.runtime.handle();
        let mut queues = BTreeMap::new();
        for lane in Lane::ALL {
            let queue = Blueprint::queue_name(name, &job, lane);
            queues.insert(lane, self.queue(&queue).await?);
        }
        let ingest = format!("{name}-ingest");
        let made = self.emulator.queue(&self.clients, &ingest).await;
        made.map_err(|error| error.to_string())?;
        Ok(Ground {
            table: Arc::new(Bridge::new(table, tokio, SPEED)),
            queues,
            ingest: self.queue(&ingest).await?,
            input: self.bucket(name, "input").await?,
            scratch: self.bucket(name, "scratch").await?,
            results: self.bucket(name, "results").await?,
            speed: SPEED,
        })
    }

    async fn queue(&self, name: &str) -> Result<Arc<dyn Queue>, String> {
        let queue = SqsQueue::open(&self.clients, name).await;
        let queue: Arc<dyn Queue> = Arc::new(queue.map_err(|error| error.to_string())?);
        Ok(Arc::new(Bridge::new(queue, self.runtime.handle(), SPEED)))
    }

    async fn bucket(&self, name: &str, of: &str) -> Result<Arc<dyn Objects>, String> {
        let name = format!("{name}-{of}");
        let made = self.emulator.bucket(&self.clients, &name).await;
        made.map_err(|error| error.to_string())?;
        let bucket: Arc<dyn Objects> = Arc::new(S3Objects::new(&self.clients, name));
        Ok(Arc::new(Bridge::new(bucket, self.runtime.handle(), SPEED)))
    }
}

/// A name that nothing has on an emulator that others may have used before.
#[expect(
    clippy::disallowed_methods,
    reason = "it must differ from process to process"
)]
fn fresh() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    format!("sim-{millis:x}-{:x}", std::process::id())
}
