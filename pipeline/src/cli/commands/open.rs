//! Finds the ledger and the run that a command is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::sqlite::{LockError, OpenError};
use crate::adapters::tokio_runtime;
use crate::cli::args::{Global, RunRef};
use crate::cli::error::{CliError, ErrorCode};
use crate::core::id::{RunId, SessionId};
use crate::core::job::{Job, LedgerUri};
use crate::job_file::{Executors, JobErrors, parse_ledger};
use crate::ledger::{Ledger, LedgerError, RunRow};
use crate::runner::{Backend, BackendError, Purpose, RunnerError, StoredJob};
use crate::shell::report::RunReader;

/// Where the default ledger lies under the directory in which it was made.
const DEFAULT_LEDGER: &str = ".trommel/ledger.db";

/// The current directory.
pub(super) fn current_dir() -> Result<PathBuf, CliError> {
    std::env::current_dir().map_err(|error| {
        CliError::new(ErrorCode::File, "the current directory cannot be read").because(error)
    })
}

/// An open ledger.
pub(super) struct Open {
    pub(super) backend: Arc<Backend>,
    pub(super) ledger: Ledger,
}

/// Opens the ledger that flags and environment name; else the nearest default one, from here upwards.
pub(super) async fn open(global: &Global, purpose: Purpose) -> Result<Open, CliError> {
    let here = current_dir()?;
    let uri = match global.ledger() {
        Some(text) => parse_ledger(text, &here, &|name| std::env::var(name).ok())?,
        None => LedgerUri::Sqlite(nearest(&here)),
    };
    if let (LedgerUri::Sqlite(path), Purpose::Write) = (&uri, purpose) {
        // A wish for a run needs a ledger that is there; only `run` makes one.
        if !path.exists() {
            return Err(BackendError::from(OpenError::Missing(path.clone())).into());
        }
    }
    open_uri(&uri, purpose).await
}

/// Opens this ledger.
pub(super) async fn open_uri(uri: &LedgerUri, purpose: Purpose) -> Result<Open, CliError> {
    let backend = Backend::open(uri, purpose, tokio_runtime::runtime()).await?;
    Ok(opened(backend))
}

fn opened(backend: Backend) -> Open {
    let runtime = backend.runtime().clone();
    let session = SessionId::new(format!("cli-{:016x}", runtime.entropy.next_u64()));
    let ledger = Ledger::new(backend.table(), runtime, session);
    Open {
        backend: Arc::new(backend),
        ledger,
    }
}

/// The default ledger of this directory, or of the nearest one above that has one.
fn nearest(here: &Path) -> PathBuf {
    let found = here
        .ancestors()
        .map(|dir| dir.join(DEFAULT_LEDGER))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| here.join(DEFAULT_LEDGER))
}

impl Open {
    /// The same ledger, opened to run items.
    pub(super) async fn into_running(self) -> Result<Self, CliError> {
        let backend = self.backend.reopen(Purpose::Run).await?;
        Ok(opened(backend))
    }

    /// The run that is meant.
    pub(super) async fn run(&self, which: &RunRef) -> Result<RunRow, CliError> {
        let id = match which {
            RunRef::Id(id) => id.clone(),
            RunRef::Latest => self.latest().await?,
        };
        match self.ledger.run(&id).await {
            Err(LedgerError::NotFound(_)) => {
                let error = CliError::new(ErrorCode::NoRun, format!("there is no run {id}"));
                Err(error.hinted("`trommel runs` lists them; --ledger names another ledger"))
            }
            result => Ok(result?),
        }
    }

    async fn latest(&self) -> Result<RunId, CliError> {
        match self.ledger.runs().await?.pop() {
            Some(run) => Ok(run.id),
            None => Err(CliError::new(ErrorCode::NoRun, "the ledger has no run yet")
                .hinted("start one: trommel run JOB")),
        }
    }

    /// The run opened for reading: its job parsed, its stores opened.
    pub(super) async fn reader(&self, row: RunRow) -> Result<RunReader, CliError> {
        let job = parse(&StoredJob::of(&row))?;
        let stores = self.backend.stores(&job, &row.id).await?;
        Ok(RunReader {
            ledger: self.ledger.clone(),
            row,
            job: Arc::new(job),
            stores,
        })
    }
}

/// Parses a stored job. One whose handler is part of another program can be read, not run.
pub(super) fn parse(stored: &StoredJob) -> Result<Job, CliError> {
    match stored.parse(Executors::Commands) {
        Ok(job) => Ok(job),
        Err(errors) => stored
            .parse(Executors::InProcess)
            .map_err(|_| errors.into()),
    }
}

impl From<LedgerError> for CliError {
    fn from(error: LedgerError) -> Self {
        let code = match &error {
            LedgerError::Newer { .. } => ErrorCode::LedgerTooNew,
            LedgerError::Damaged { .. } | LedgerError::Broken(_) => ErrorCode::LedgerBroken,
            LedgerError::NotFound(_) => ErrorCode::NoRun,
            LedgerError::Run(_) => ErrorCode::WrongStatus,
            LedgerError::Table(_) | LedgerError::Raced | LedgerError::Page(_) => {
                ErrorCode::Internal
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<BackendError> for CliError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Lock(lock) => {
                let code = match &lock {
                    LockError::Held { .. } => ErrorCode::LedgerBusy,
                    LockError::Failed { .. } => ErrorCode::File,
                };
                Self::new(code, lock.to_string())
            }
            BackendError::Open(open) => {
                let code = match &open {
                    OpenError::Missing(_) => ErrorCode::NoRun,
                    OpenError::Newer { .. } => ErrorCode::LedgerTooNew,
                    OpenError::NotALedger(_) => ErrorCode::LedgerBroken,
                    OpenError::Busy(_) => ErrorCode::LedgerBusy,
                    OpenError::Directory { .. }
                    | OpenError::ReadOnly(_)
                    | OpenError::Failed { .. } => ErrorCode::File,
                };
                let hint = match &open {
                    OpenError::Missing(_) => {
                        Some("start a run here (trommel run JOB), or name the ledger with --ledger")
                    }
                    OpenError::Newer { .. }
                    | OpenError::NotALedger(_)
                    | OpenError::Busy(_)
                    | OpenError::Directory { .. }
                    | OpenError::ReadOnly(_)
                    | OpenError::Failed { .. } => None,
                };
                let told = Self::new(code, open.to_string());
                hint.into_iter().fold(told, Self::hinted)
            }
            BackendError::Unreachable(why) => Self::new(
                ErrorCode::Unreachable,
                "the ledger's services cannot be used",
            )
            .because(why)
            .hinted("check AWS_ENDPOINT_URL, region and credentials"),
            BackendError::Unsupported { problem, help } => {
                Self::new(ErrorCode::NotYet, problem).hinted(help)
            }
        }
    }
}

impl From<RunnerError> for CliError {
    fn from(error: RunnerError) -> Self {
        match error {
            RunnerError::Backend(error) => error.into(),
            RunnerError::Ledger(error) => error.into(),
            RunnerError::Cannot(why) => Self::new(ErrorCode::NoProgram, why),
            RunnerError::Compile(error) => Self::new(ErrorCode::Internal, error.to_string())
                .hinted("the run's outcomes are safe in the ledger; `trommel items` and `trommel show` read them"),
        }
    }
}

/// The errors of a job file that was just read.
pub(super) fn job_errors(errors: JobErrors) -> CliError {
    errors.into()
}
