//! Where a ledger lives, and what lies beside it: queues, scratch place, the stores of input and results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::directory::Directory;
use crate::adapters::memory::{MemoryObjects, MemoryQueue};
use crate::adapters::sqlite::{Access, LockError, OpenError, RunnerLock, SqliteLedger};
use crate::core::bill::Bill;
use crate::core::id::RunId;
use crate::core::job::{EventsSpec, InputSpec, Job, LedgerUri, Location};
use crate::core::lane::Lane;
use crate::core::mark::Sequencer;
use crate::ports::{Objects, Queue, Runtime, Table};
use crate::shell::{Settings, Stores};

#[cfg(feature = "aws")]
use super::aws::SharedClients;

/// This build has none.
#[cfg(not(feature = "aws"))]
#[derive(Clone, Default)]
struct SharedClients(());

/// What a backend is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run items: an embedded ledger is then locked, one process at a time.
    Run,
    /// To write a wish or a state; also beside a runner.
    Write,
    /// To look.
    Read,
}

/// Why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Another process runs the ledger, or the lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The table or queues are not there, or do not answer.
    #[error("{0}")]
    Unreachable(String),
    /// This build or this combination does not do it.
    #[error("{problem}")]
    Unsupported {
        /// What.
        problem: String,
        /// A way out.
        help: String,
    },
}

/// An open backend.
pub struct Backend {
    uri: LedgerUri,
    runtime: Runtime,
    table: Arc<dyn Table>,
    place: BackendPlace,
    clients: SharedClients,
}

enum BackendPlace {
    Sqlite {
        /// Keeps the ledger's threads.
        ledger: SqliteLedger,
        /// Held as long as this process may run items.
        lock: Option<RunnerLock>,
    },
    #[cfg(feature = "aws")]
    Aws(super::aws::AwsPlace),
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Opens a backend.
    ///
    /// # Errors
    /// [`BackendError`], in words for users.
    pub async fn open(
        uri: &LedgerUri,
        purpose: Purpose,
        runtime: Runtime,
    ) -> Result<Self, BackendError> {
        Self::open_with(uri, purpose, runtime, SharedClients::default()).await
    }

    /// Opens the same ledger for another purpose, with the same connections and the same bill.
    ///
    /// # Errors
    /// [`BackendError`], in words for users.
    pub async fn reopen(&self, purpose: Purpose) -> Result<Self, BackendError> {
        let (runtime, clients) = (self.runtime.clone(), self.clients.clone());
        Self::open_with(&self.uri, purpose, runtime, clients).await
    }

    #[cfg_attr(
        not(feature = "aws"),
        expect(clippy::unused_async, reason = "the build with AWS awaits here")
    )]
    async fn open_with(
        uri: &LedgerUri,
        purpose: Purpose,
        runtime: Runtime,
        clients: SharedClients,
    ) -> Result<Self, BackendError> {
        match uri {
            LedgerUri::Sqlite(path) => Self::open_sqlite(uri, path, purpose, runtime, clients),
            #[cfg(feature = "aws")]
            LedgerUri::DynamoDb(name) => {
                let place = super::aws::AwsPlace::open(name, purpose, &clients).await?;
                let table = place.table();
                Ok(Self {
                    uri: uri.clone(),
                    runtime,
                    table,
                    place: BackendPlace::Aws(place),
                    clients,
                })
            }
            #[cfg(not(feature = "aws"))]
            LedgerUri::DynamoDb(_) => Err(not_built("dynamodb: ledgers")),
        }
    }

    fn open_sqlite(
        uri: &LedgerUri,
        path: &Path,
        purpose: Purpose,
        runtime: Runtime,
        clients: SharedClients,
    ) -> Result<Self, BackendError> {
        let lock = match purpose {
            Purpose::Run => Some(RunnerLock::acquire(path)?),
            Purpose::Write | Purpose::Read => None,
        };
        let access = match purpose {
            Purpose::Run | Purpose::Write => Access::Write,
            Purpose::Read => Access::Read,
        };
        let ledger = SqliteLedger::open(path, access, runtime.clock.clone())?;
        let table = Arc::new(ledger.table());
        let place = BackendPlace::Sqlite { ledger, lock };
        Ok(Self {
            uri: uri.clone(),
            runtime,
            table,
            place,
            clients,
        })
    }

    /// What this process asked of AWS so far; none if it asked nothing.
    #[cfg(feature = "aws")]
    pub fn bill(&self) -> Option<Bill> {
        self.clients.bill()
    }

    /// Nothing: this build asks nothing of AWS.
    #[cfg(not(feature = "aws"))]
    pub fn bill(&self) -> Option<Bill> {
        None
    }

    /// The clients of this process.
    #[cfg(feature = "aws")]
    pub(super) fn clients(&self) -> &SharedClients {
        &self.clients
    }

    /// The ledger's table.
    pub fn table(&self) -> Arc<dyn Table> {
        self.table.clone()
    }

    /// Time, chance, tasks.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Where the ledger is.
    pub fn uri(&self) -> &LedgerUri {
        &self.uri
    }

    /// How sessions behave on this backend.
    pub fn settings(&self) -> Settings {
        match &self.place {
            BackendPlace::Sqlite { .. } => Settings::embedded(),
            #[cfg(feature = "aws")]
            BackendPlace::Aws(_) => Settings::shared(),
        }
    }

    /// Whether some process runs this ledger now; none where only heartbeats tell.
    pub fn is_run_by_another(&self) -> Option<bool> {
        match &self.place {
            BackendPlace::Sqlite { lock: Some(_), .. } => Some(false),
            BackendPlace::Sqlite { ledger, lock: None } => {
                Some(RunnerLock::acquire(ledger.path()).is_err())
            }
            #[cfg(feature = "aws")]
            BackendPlace::Aws(_) => None,
        }
    }

    /// The queues of a job's lanes, made if they are not there. An embedded run's hints need not outlive its
    /// process: the lock makes it the only one, and its first sweep finds every page.
    #[cfg_attr(
        not(feature = "aws"),
        expect(clippy::unused_async, reason = "the build with AWS awaits here")
    )]
    pub async fn queues(&self, job: &Job) -> Result<BTreeMap<Lane, Arc<dyn Queue>>, BackendError> {
        let lanes: Vec<Lane> = Lane::ALL
            .into_iter()
            .filter(|lane| job.lane(*lane).is_some())
            .collect();
        match &self.place {
            BackendPlace::Sqlite { .. } => {
                let queue = || Arc::new(MemoryQueue::new(self.runtime.clock.clone()));
                Ok(lanes
                    .into_iter()
                    .map(|lane| (lane, queue() as Arc<dyn Queue>))
                    .collect())
            }
            #[cfg(feature = "aws")]
            BackendPlace::Aws(place) => place.queues(&job.name, &lanes).await,
        }
    }

    /// The stores of a run: its input and its scratch place.
    pub async fn stores(&self, job: &Job, run: &RunId) -> Result<Stores, BackendError> {
        let (input, input_prefix) = match &job.input {
            InputSpec::Objects(place) => self.tree(place).await?,
            InputSpec::Jsonl(file) | InputSpec::Json(file) | InputSpec::Csv { file, .. } => {
                self.file(file).await?
            }
            InputSpec::Events(_) => (self.buckets().await?, Vec::new()),
            InputSpec::Inline(_) | InputSpec::Range { .. } => (
                Arc::new(MemoryObjects::new()) as Arc<dyn Objects>,
                Vec::new(),
            ),
        };
        let (scratch, scratch_prefix) = self.scratch(job, run).await?;
        Ok(Stores {
            input,
            input_prefix,
            scratch,
            scratch_prefix,
        })
    }

    async fn scratch(
        &self,
        job: &Job,
        run: &RunId,
    ) -> Result<(Arc<dyn Objects>, Vec<u8>), BackendError> {
        if let Some(place) = &job.scratch {
            let (objects, mut prefix) = self.tree(place).await?;
            prefix.extend_from_slice(format!("{run}/").as_bytes());
            return Ok((objects, prefix));
        }
        match (&self.place, &job.results) {
            (BackendPlace::Sqlite { ledger, .. }, _) => {
                let beside = ledger
                    .path()
                    .parent()
                    .map_or_else(PathBuf::new, Path::to_path_buf);
                let scratch: Arc<dyn Objects> = Arc::new(Directory::new(beside.join("runs")));
                Ok((scratch, format!("{run}/").into_bytes()))
            }
            #[cfg(feature = "aws")]
            (BackendPlace::Aws(_), Some(results @ Location::S3 { .. })) => {
                let (objects, mut prefix) = self.tree(results).await?;
                prefix.extend_from_slice(format!("scratch/{run}/").as_bytes());
                Ok((objects, prefix))
            }
            #[cfg(feature = "aws")]
            (BackendPlace::Aws(_), _) => Err(BackendError::Unsupported {
                problem: "a dynamodb: ledger needs a scratch place that all workers reach".into(),
                help: "add scratch = \"s3://bucket/prefix\" to the job".into(),
            }),
        }
    }

    /// A store and the prefix under which everything of `place` lies: empty, or ending in a slash.
    pub async fn tree(
        &self,
        place: &Location,
    ) -> Result<(Arc<dyn Objects>, Vec<u8>), BackendError> {
        tree_by(&self.clients, place).await
    }

    async fn file(&self, file: &Location) -> Result<(Arc<dyn Objects>, Vec<u8>), BackendError> {
        match file {
            Location::Path(path) => {
                let directory = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
                let name = path.file_name().map(std::os::unix::ffi::OsStrExt::as_bytes);
                let name = name.unwrap_or_default().to_vec();
                Ok((Arc::new(Directory::new(directory)), name))
            }
            Location::S3 { bucket, key } => {
                let bucket = one_bucket(&self.clients, bucket).await?;
                Ok((bucket, key.clone().into_bytes()))
            }
        }
    }

    /// The queue that events come from, and whether sequencers are believed where it is.
    ///
    /// # Errors
    /// It is not there, or does not answer.
    #[cfg(feature = "aws")]
    pub async fn ingest(
        &self,
        events: &EventsSpec,
    ) -> Result<(Arc<dyn Queue>, Sequencer), BackendError> {
        let (queue, here) = self.clients.ingest(&events.queue).await?;
        Ok((queue, events.sequencer.unwrap_or(here)))
    }

    /// The queue that events come from.
    ///
    /// # Errors
    /// This build has none.
    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "the build with AWS awaits here")]
    pub async fn ingest(
        &self,
        _events: &EventsSpec,
    ) -> Result<(Arc<dyn Queue>, Sequencer), BackendError> {
        Err(not_built("events as input"))
    }

    /// All buckets as one store: its keys are `bucket/key`.
    #[cfg(feature = "aws")]
    pub async fn buckets(&self) -> Result<Arc<dyn Objects>, BackendError> {
        Ok(self.clients.buckets().await)
    }

    /// All buckets as one store.
    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "the build with AWS awaits here")]
    pub async fn buckets(&self) -> Result<Arc<dyn Objects>, BackendError> {
        Err(not_built("events as input"))
    }
}

/// A store and the prefix under which everything of `place` lies: empty, or ending in a slash. No ledger is needed.
///
/// # Errors
/// This build reaches no buckets.
pub async fn tree(place: &Location) -> Result<(Arc<dyn Objects>, Vec<u8>), BackendError> {
    tree_by(&SharedClients::default(), place).await
}

async fn tree_by(
    clients: &SharedClients,
    place: &Location,
) -> Result<(Arc<dyn Objects>, Vec<u8>), BackendError> {
    match place {
        Location::Path(path) => Ok((Arc::new(Directory::new(path)), Vec::new())),
        Location::S3 { bucket, key } => {
            let mut prefix = key.trim_end_matches('/').as_bytes().to_vec();
            if !prefix.is_empty() {
                prefix.push(b'/');
            }
            Ok((one_bucket(clients, bucket).await?, prefix))
        }
    }
}

#[cfg(feature = "aws")]
async fn one_bucket(
    clients: &SharedClients,
    bucket: &str,
) -> Result<Arc<dyn Objects>, BackendError> {
    Ok(clients.bucket(bucket).await)
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "the build with AWS awaits here")]
async fn one_bucket(
    _clients: &SharedClients,
    _bucket: &str,
) -> Result<Arc<dyn Objects>, BackendError> {
    Err(not_built("s3:// places"))
}

#[cfg(not(feature = "aws"))]
fn not_built(what: &str) -> BackendError {
    BackendError::Unsupported {
        problem: format!("this trommel was built without AWS: no {what}"),
        help: "build it with `cargo build --release --features aws`".into(),
    }
}
