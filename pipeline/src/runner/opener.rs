//! Opens a run from its row: the stored job text is parsed again, stores and executors are made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::adapters::command::{CommandExecutor, CommandSpec, Reaper};
#[cfg(feature = "docker")]
use crate::adapters::docker::DockerExecutor;
use crate::adapters::runtime_api::HandlerExecutor;
use crate::core::job::{ExecutorSpec, HandlerSpec, Job, LaneSpec, OutputMode};
use crate::core::lane::Lane;
use crate::job_file::{self, Executors, JobErrors, Overrides, ParseOptions};
use crate::ledger::RunRow;
use crate::ports::Executor;
use crate::shell::{OpenRun, OpenedRun, Stores};

use super::backend::Backend;

/// A job as it is stored with a run.
#[derive(Clone, Debug)]
pub struct StoredJob {
    /// The file's text.
    pub text: String,
    /// The file's name, for messages.
    pub file: String,
    /// The directory its relative paths begin at.
    pub base: String,
    /// What the command line said instead.
    pub overrides: Overrides,
}

impl StoredJob {
    /// The job of a run.
    pub fn of(row: &RunRow) -> Self {
        Self {
            text: row.job_text.clone(),
            file: row.job_file.clone(),
            base: row.base.clone(),
            overrides: serde_json::from_str(&row.options).unwrap_or_default(),
        }
    }

    /// Parses it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(&self, executors: Executors) -> Result<Job, JobErrors> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let options = ParseOptions {
            executors,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            overrides: self.overrides.clone(),
        };
        let env = |name: &str| std::env::var(name).ok();
        job_file::parse(
            &self.text,
            &self.file,
            Path::new(&self.base),
            &env,
            &options,
        )
    }
}

/// Where the calls of runs are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    Here,
    /// By workers: the programs need not be on this machine.
    Elsewhere,
}

/// Opens runs for sessions of this process.
pub struct JobOpener {
    backend: Arc<Backend>,
    calls: Calls,
    handler: Option<Arc<dyn Executor>>,
    reaper_program: Option<std::path::PathBuf>,
    reaper: OnceCell<Arc<Reaper>>,
    /// Those that were asked for so far; a job has one or two.
    handlers: Mutex<Vec<(HandlerSpec, HandlerExecutor)>>,
}

impl JobOpener {
    /// For runs whose lanes are commands. `reaper_program` is a program that understands the hidden
    /// command `__reaper`: it ends the calls of a worker that was killed. Without it they outlive it.
    pub fn commands(backend: Arc<Backend>, reaper_program: Option<std::path::PathBuf>) -> Self {
        Self {
            backend,
            calls: Calls::Here,
            handler: None,
            reaper_program,
            reaper: OnceCell::new(),
            handlers: Mutex::default(),
        }
    }

    /// For runs whose calls are carried out by other processes.
    pub fn router(backend: Arc<Backend>) -> Self {
        Self {
            calls: Calls::Elsewhere,
            ..Self::commands(backend, None)
        }
    }

    /// For runs whose lanes are this handler.
    pub fn handler(backend: Arc<Backend>, handler: Arc<dyn Executor>) -> Self {
        Self {
            backend,
            calls: Calls::Here,
            handler: Some(handler),
            reaper_program: None,
            reaper: OnceCell::new(),
            handlers: Mutex::default(),
        }
    }

    /// How lanes without an executor are read.
    pub fn executors(&self) -> Executors {
        match self.handler {
            Some(_) => Executors::InProcess,
            None => Executors::Commands,
        }
    }

    async fn reaper(&self) -> Result<Option<Arc<Reaper>>, String> {
        let Some(program) = &self.reaper_program else {
            return Ok(None);
        };
        let start = || async { Reaper::start(program, &["__reaper"]) };
        match self.reaper.get_or_try_init(start).await {
            Ok(reaper) => Ok(Some(reaper.clone())),
            Err(error) => Err(format!("the helper that ends calls cannot start: {error}")),
        }
    }

    /// The executors of a job's lanes.
    ///
    /// # Errors
    /// A program cannot be run, in words.
    pub async fn lane_executors(
        &self,
        job: &Job,
        stores: &Stores,
    ) -> Result<BTreeMap<Lane, Arc<dyn Executor>>, String> {
        let mut executors: BTreeMap<Lane, Arc<dyn Executor>> = BTreeMap::new();
        if self.calls == Calls::Elsewhere {
            return Ok(executors);
        }
        for lane in Lane::ALL {
            let Some(spec) = job.lane(lane) else { continue };
            let executor = self.executor(job, spec, stores).await;
            let executor = executor.map_err(|problem| format!("{lane} lane: {problem}"))?;
            executors.insert(lane, executor);
        }
        Ok(executors)
    }
}

impl JobOpener {
    /// The processes of a handler, which the runs of this process share: windows come and go, and a start takes longer than
    /// many a call.
    async fn pooled(&self, spec: &HandlerSpec) -> Result<HandlerExecutor, String> {
        let reaper = self.reaper().await?;
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = handlers.iter().find(|(known, _)| known == spec) {
            return Ok(known.clone());
        }
        let made = HandlerExecutor::new(spec.clone(), None, OutputMode::Keep, reaper);
        let made = made.map_err(|error| error.to_string())?;
        handlers.push((spec.clone(), made.clone()));
        Ok(made)
    }

    async fn executor(
        &self,
        job: &Job,
        spec: &LaneSpec,
        stores: &Stores,
    ) -> Result<Arc<dyn Executor>, String> {
        let objects = || job.input.is_objects().then(|| stores.input.clone());
        match (&spec.executor, &self.handler) {
            (ExecutorSpec::InProcess, Some(handler)) => Ok(handler.clone()),
            (ExecutorSpec::InProcess, None) => {
                Err("its handler is part of another program".to_owned())
            }
            (ExecutorSpec::Command { argv, cwd }, _) => {
                let spec = CommandSpec {
                    argv: argv.clone(),
                    cwd: cwd.clone(),
                    output: spec.output,
                };
                let command = CommandExecutor::new(&spec, objects(), self.reaper().await?);
                Ok(Arc::new(command.map_err(|error| error.to_string())?))
            }
            (ExecutorSpec::Handler(handler), _) => {
                let pooled = self.pooled(handler).await?;
                Ok(Arc::new(pooled.with(spec.timeout, spec.output)))
            }
            #[cfg(feature = "docker")]
            (ExecutorSpec::Docker(docker), _) => {
                let retaken_within = self.backend.settings().retaken_within();
                let docker = DockerExecutor::new(docker.clone(), objects(), retaken_within);
                Ok(Arc::new(docker.with_timeout(spec.timeout)))
            }
            #[cfg(not(feature = "docker"))]
            (ExecutorSpec::Docker(_), _) => Err(not_built("docker", "docker")),
            #[cfg(feature = "aws")]
            (ExecutorSpec::Lambda(lambda), _) => {
                let scratch = super::aws::pointers(job, stores);
                Ok(self.backend.clients().lambda(lambda, spec, scratch).await)
            }
            #[cfg(not(feature = "aws"))]
            (ExecutorSpec::Lambda(_), _) => Err(not_built("lambda", "aws")),
            #[cfg(feature = "aws")]
            (ExecutorSpec::Ecs(ecs), _) => {
                let scratch = super::aws::pointers(job, stores);
                let executor = self.backend.clients().ecs(ecs, spec, scratch).await;
                executor.map_err(|error| error.to_string())
            }
            #[cfg(not(feature = "aws"))]
            (ExecutorSpec::Ecs(_), _) => Err(not_built("ecs", "aws")),
        }
    }
}

/// What a program says that was built without an executor.
#[cfg(not(all(feature = "docker", feature = "aws")))]
fn not_built(executor: &str, feature: &str) -> String {
    format!(
        "this trommel was built without `{executor}`; build it with `cargo build --release --features {feature}`"
    )
}

#[async_trait]
impl OpenRun for JobOpener {
    async fn open(&self, row: &RunRow) -> Result<OpenedRun, String> {
        let stored = StoredJob::of(row);
        let job = stored
            .parse(self.executors())
            .map_err(|errors| errors.to_string())?;
        let stores = self
            .backend
            .stores(&job, &row.id)
            .await
            .map_err(|e| e.to_string())?;
        let executors = self.lane_executors(&job, &stores).await?;
        Ok(OpenedRun {
            job: Arc::new(job),
            stores,
            executors,
        })
    }
}
