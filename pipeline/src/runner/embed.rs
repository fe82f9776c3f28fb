//! Trommel inside a Rust program: a job text, a handler, a run.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::adapters::tokio_runtime;
use crate::core::bill::Bill;
use crate::core::id::RunId;
use crate::core::job::Job;
use crate::core::run::{BreachStops, Limits};
use crate::job_file::{Executors, JobErrors, Overrides};
use crate::ledger::{Ledger, NewRun};
use crate::ports::Executor;
use crate::shell::report::{RunReport, report};

use super::backend::{Backend, BackendError, Purpose};
use super::foreground::{Foreground, Role, RunnerError};
use super::opener::{JobOpener, StoredJob};
use super::protection::Protection;
use super::serve::Served;

/// A job whose lanes are a handler of this program.
///
/// The job text is that of a job file, without executors. Paths are relative to the current directory.
pub struct Embedded {
    job: StoredJob,
    handler: Arc<dyn Executor>,
    drain: CancellationToken,
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The job text.
    #[error("{0}")]
    Job(#[from] JobErrors),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The run.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The job's input has an end: run it.
    #[error("the job's input is no queue of events")]
    NoEvents,
    /// The current directory.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Embedded {
    /// A job text and the handler of its items.
    ///
    /// # Errors
    /// There is no current directory.
    pub fn new(
        job_text: impl Into<String>,
        handler: impl Executor + 'static,
    ) -> Result<Self, EmbedError> {
        let base: PathBuf = std::env::current_dir()?;
        let overrides = Overrides {
            dir: base.clone(),
            ..Overrides::default()
        };
        let base = base.to_string_lossy().into_owned();
        let job = StoredJob {
            text: job_text.into(),
            file: "job".into(),
            base,
            overrides,
        };
        Ok(Self {
            job,
            handler: Arc::new(handler),
            drain: CancellationToken::new(),
        })
    }

    /// Cancel it to stop softly: what runs finishes, the run is left PAUSED.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Starts a run and works on it to its end.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn run(&self) -> Result<RunReport, EmbedError> {
        Ok(self.run_with_bill().await?.0)
    }

    /// Takes in the events of the job until it is drained.
    ///
    /// # Errors
    /// [`EmbedError`]; [`EmbedError::NoEvents`] if the job's input has an end.
    pub async fn serve(&self) -> Result<Option<Bill>, EmbedError> {
        let job = self.job.parse(Executors::InProcess)?;
        let served = Served::new(&job, &self.job).ok_or(EmbedError::NoEvents)?;
        let foreground = self.foreground(&job).await?;
        foreground.serve(&served).await?;
        Ok(foreground.backend.bill())
    }

    async fn foreground(&self, job: &Job) -> Result<Foreground, EmbedError> {
        let runtime = tokio_runtime::runtime();
        let backend = Arc::new(Backend::open(&job.ledger, Purpose::Run, runtime).await?);
        let opener = JobOpener::handler(backend.clone(), self.handler.clone());
        Ok(Foreground {
            backend,
            opener: Arc::new(opener),
            who: format!("process {}", std::process::id()),
            role: Role::All,
            drain: self.drain.clone(),
            protection: Protection::default(),
            at_work: Arc::default(),
        })
    }

    /// As [`Embedded::run`]; answers what it asked of AWS, too, if it asked.
    ///
    /// # Errors
    /// [`EmbedError`].
    pub async fn run_with_bill(&self) -> Result<(RunReport, Option<Bill>), EmbedError> {
        let job = self.job.parse(Executors::InProcess)?;
        let runtime = tokio_runtime::runtime();
        let foreground = self.foreground(&job).await?;
        let backend = &foreground.backend;
        let run = RunId::new(format!(
            "{}-{:08x}",
            job.name,
            runtime.entropy.next_u64() >> 32
        ));
        let name = crate::core::id::SessionId::new("starter");
        let ledger = Ledger::new(backend.table(), runtime.clone(), name);
        let new = NewRun {
            id: run.clone(),
            job: job.name.clone(),
            job_text: self.job.text.clone(),
            job_file: self.job.file.clone(),
            base: self.job.base.clone(),
            options: serde_json::to_string(&self.job.overrides).unwrap_or_default(),
            limits: Limits {
                tolerance: job.tolerance,
                breach_stops: BreachStops::AtOnce,
            },
            created: runtime.clock.now(),
        };
        ledger.create_run(&new).await.map_err(RunnerError::from)?;
        foreground.run(&job, &run).await?;
        let report = report(&ledger, &run).await.map_err(RunnerError::from)?;
        Ok((report, backend.bill()))
    }
}
