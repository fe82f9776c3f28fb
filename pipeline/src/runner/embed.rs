//! Trommel inside a Rust program: a job text, a handler, a run.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::adapters::tokio_runtime;
use crate::core::id::RunId;
use crate::core::run::{BreachStops, Limits};
use crate::job_file::{Executors, JobErrors, Overrides};
use crate::ledger::{Ledger, NewRun};
use crate::ports::Executor;
use crate::shell::report::{RunReport, report};

use super::backend::{Backend, BackendError, Purpose};
use super::foreground::{Foreground, Role, RunnerError};
use super::opener::{JobOpener, StoredJob};

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
        let job = self.job.parse(Executors::InProcess)?;
        let runtime = tokio_runtime::runtime();
        let backend = Arc::new(Backend::open(&job.ledger, Purpose::Run, runtime.clone()).await?);
        let opener = JobOpener::handler(backend.clone(), self.handler.clone());
        let who = format!("process {}", std::process::id());
        let (opener, drain) = (Arc::new(opener), self.drain.clone());
        let foreground = Foreground {
            backend: backend.clone(),
            opener,
            who,
            role: Role::All,
            drain,
        };
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
        Ok(report(&ledger, &run).await.map_err(RunnerError::from)?)
    }
}
