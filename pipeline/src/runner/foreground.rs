//! A run in the foreground: sessions around it until it is no longer RUNNING, then its result files.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::core::id::{RunId, SessionId};
use crate::core::job::Job;
use crate::core::lane::Lane;
use crate::core::run::{Reason, RunEvent, RunStatus};
use crate::ledger::{Ledger, LedgerError, RunRow, SessionStatus};
use crate::ports::{Queue, Runtime};
use crate::shell::finalizer::{CompileError, Manifest, compile};
use crate::shell::report::RunReader;
use crate::shell::{Env, OpenError, OpenRun, Session, SessionEnd};

use super::at_work::AtWork;
use super::backend::{Backend, BackendError};
use super::protection::Protection;

/// Why a run could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The run's job, stores or executors.
    #[error("{0}")]
    Cannot(String),
    /// The result files.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl From<OpenError> for RunnerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Ledger(error) => Self::Ledger(error),
            OpenError::Cannot(why) => Self::Cannot(why),
        }
    }
}

/// How a foreground run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The run's row at the end.
    pub row: RunRow,
    /// Its result files, if it has ended and the job names a place for them.
    pub manifest: Option<Manifest>,
}

/// What a process does for its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// All of it.
    #[default]
    All,
    /// Reads, routes, redrives, judges and compiles; calls are left to workers elsewhere.
    Router,
}

impl Role {
    /// Its name, as on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Router => "router",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::Router]
            .into_iter()
            .find(|role| role.as_str() == name)
    }

    /// The lanes of the job whose calls run in this process.
    pub(super) fn lanes(self, job: &Job) -> Vec<Lane> {
        let has = |lane: &Lane| job.lane(*lane).is_some();
        match self {
            Self::All => Lane::ALL.into_iter().filter(has).collect(),
            Self::Router => Vec::new(),
        }
    }
}

/// One process's work on a job's runs.
pub struct Foreground {
    /// The backend, opened to run.
    pub backend: Arc<Backend>,
    /// How to open runs.
    pub opener: Arc<dyn OpenRun>,
    /// Who this is, for people: host and process.
    pub who: String,
    /// What this process does for a run that it drives.
    pub role: Role,
    /// Asked: stop taking work, finish or give back, pause the run.
    pub drain: CancellationToken,
    /// What keeps this process's machine from ending it in the middle of a call.
    pub protection: Protection,
    /// The session that is at work.
    pub at_work: Arc<AtWork>,
}

impl Foreground {
    fn runtime(&self) -> &Runtime {
        self.backend.runtime()
    }

    /// A ledger for a new session.
    fn ledger(&self) -> Ledger {
        let draw = self.runtime().entropy.next_u64();
        let session = SessionId::new(format!("{draw:016x}"));
        Ledger::new(self.backend.table(), self.runtime().clone(), session)
    }

    async fn session(&self, job: &Job, lanes: &[Lane]) -> Result<Session, RunnerError> {
        let session = Session::start(self.env(job).await?, lanes, &self.who).await?;
        self.at_work.begin(session.env());
        Ok(session)
    }

    /// What a new session shares; it drains when this process is asked to.
    pub(super) async fn env(&self, job: &Job) -> Result<Arc<Env>, RunnerError> {
        self.env_with(job, self.backend.queues(job).await?).await
    }

    /// The same, with these queues of the lanes.
    pub(super) async fn env_with(
        &self,
        job: &Job,
        queues: BTreeMap<Lane, Arc<dyn Queue>>,
    ) -> Result<Arc<Env>, RunnerError> {
        let ledger = self.ledger();
        ledger.set_pool(&job.name, job.max_concurrency).await?;
        let env = Env::new(
            ledger,
            self.runtime().clone(),
            job.name.clone(),
            queues,
            self.opener.clone(),
            self.backend.settings(),
        );
        let (asked, draining) = (self.drain.clone(), env.drain.clone());
        let until = env.kill.clone();
        let pass_on = async move {
            tokio::select! {
                biased;
                () = asked.cancelled() => draining.cancel(),
                () = until.cancelled() => {}
            }
        };
        self.runtime().spawn.spawn("drain", Box::pin(pass_on));
        Ok(env)
    }

    /// Works on the run until it is no longer RUNNING, or until it is asked to stop, which leaves the run
    /// PAUSED if no other session is at work. Then compiles its results.
    ///
    /// # Errors
    /// [`RunnerError`]; the run can be resumed.
    pub async fn run(&self, job: &Job, run: &RunId) -> Result<Ended, RunnerError> {
        let work = self.drive(job, run);
        self.protection.during(&self.at_work, work).await
    }

    async fn drive(&self, job: &Job, run: &RunId) -> Result<Ended, RunnerError> {
        let lanes = self.role.lanes(job);
        let ledger = self.ledger();
        loop {
            let session = self.session(job, &lanes).await?;
            let driven = session.drive(run).await;
            let end = session.close().await;
            driven?;
            // Somebody may have resumed it while the last calls of before a pause ended here.
            let status = ledger.run(run).await?.state.status;
            if status != RunStatus::Running || self.drain.is_cancelled() {
                break;
            }
            match end {
                SessionEnd::Lost => tracing::warn!("starting anew under another session"),
                SessionEnd::Closed => tracing::info!("the run goes on"),
            }
        }
        self.pause_if_last(&ledger, job, run).await?;
        let row = ledger.run(run).await?;
        let manifest = match row.state.status {
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
                self.compile(&ledger, job, row.clone()).await?
            }
            RunStatus::Running | RunStatus::Paused => None,
        };
        Ok(Ended { row, manifest })
    }

    /// A worker of one lane: whatever runs the job has, until it is asked to stop.
    ///
    /// # Errors
    /// [`RunnerError`].
    pub async fn work(&self, job: &Job, lanes: &[Lane]) -> Result<(), RunnerError> {
        let work = async {
            while !self.drain.is_cancelled() {
                let session = self.session(job, lanes).await?;
                self.keep(session).await;
            }
            Ok(())
        };
        self.protection.during(&self.at_work, work).await
    }

    /// Lets a session work until this process is asked to stop, or its leases are lost; then ends it.
    pub(super) async fn keep(&self, session: Session) {
        tokio::select! {
            biased;
            () = self.drain.cancelled() => {}
            () = session.env().kill.cancelled() => {}
        }
        session.close().await;
    }

    async fn pause_if_last(
        &self,
        ledger: &Ledger,
        job: &Job,
        run: &RunId,
    ) -> Result<(), RunnerError> {
        let row = ledger.run(run).await?;
        if row.state.status != RunStatus::Running {
            return Ok(());
        }
        let sessions = ledger.sessions(&job.name).await?;
        if sessions
            .iter()
            .any(|session| session.status == SessionStatus::Live)
        {
            return Ok(());
        }
        match ledger
            .change_run(&row, &RunEvent::Pause(Reason::Interrupted), None)
            .await
        {
            Ok(_) | Err(LedgerError::Raced | LedgerError::Run(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Compiles the result files of a run that has ended, if its job names a place for them and nobody redrives it meanwhile.
    ///
    /// # Errors
    /// [`RunnerError`]; it may be repeated.
    pub async fn compile(
        &self,
        ledger: &Ledger,
        job: &Job,
        row: RunRow,
    ) -> Result<Option<Manifest>, RunnerError> {
        let Some(place) = &job.results else {
            return Ok(None);
        };
        let (results, prefix) = self.backend.tree(place).await?;
        let stores = self.backend.stores(job, &row.id).await?;
        let ledger = ledger.clone();
        let reader = RunReader {
            ledger,
            row,
            job: Arc::new(job.clone()),
            stores,
        };
        Ok(compile(&reader, results.as_ref(), &prefix, self.runtime()).await?)
    }
}
