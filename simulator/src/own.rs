//! What a user brings into a simulation: a job, data, a handler, and what must hold of them at the end.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::core::class::{Class, Failure};
use trommel::core::job::{InputSpec, Job, LedgerUri, Location};
use trommel::core::outcome::Outcome;
use trommel::core::run::RunStatus;
use trommel::job_file::{Executors, Overrides, ParseOptions, parse};
use trommel::ports::{Executor, Runtime};

use crate::node::Node;
use crate::scenario::LINES_KEY;

/// Cores of the machine that a job file is read for: they are the default of `max_concurrency`.
const CORES: u32 = 4;

/// A handler as the simulator calls it.
type Handle =
    Arc<dyn Fn(HandlerItem, Runtime) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// What must hold at the end.
type Holds = Arc<dyn Fn(&Ended) -> Result<(), String> + Send + Sync>;

/// A handler under test, with the world that it acts on. One is made for every scenario.
#[derive(Clone)]
pub struct Subject {
    pub(crate) handle: Handle,
    pub(crate) holds: Holds,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

impl Subject {
    /// A handler. What it waits for, it waits for on the clock of the [`Runtime`] that it is given: real
    /// sleeps and real sockets have no place in a simulation. What it answers becomes the item's output.
    pub fn new<F, Fut, T>(handle: F) -> Self
    where
        F: Fn(HandlerItem, Runtime) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send + 'static,
        T: Serialize,
    {
        let handle = move |item: HandlerItem, runtime: Runtime| -> BoxFuture<'static, _> {
            let answer = handle(item, runtime);
            Box::pin(async move {
                let output = serde_json::to_value(answer.await?);
                output.map_err(|error| Failure::new(Class::BadOutput, error.to_string()))
            })
        };
        Self {
            handle: Arc::new(handle),
            holds: Arc::new(|_| Ok(())),
        }
    }

    /// What must hold once the run has ended and everybody left; an error says what does not.
    #[must_use]
    pub fn holds(
        mut self,
        holds: impl Fn(&Ended) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.holds = Arc::new(holds);
        self
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Where it stands.
    pub status: RunStatus,
    /// Its items, in the order of the data.
    pub items: Vec<EndedItem>,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedItem {
    /// Its outcome; none: it is pending.
    pub outcome: Option<Outcome>,
    /// How often its handler was called.
    pub calls: u32,
}

impl Ended {
    /// The places in the data of what succeeded.
    pub fn succeeded(&self) -> impl Iterator<Item = usize> + '_ {
        let items = self.items.iter().enumerate();
        items
            .filter(|(_, item)| item.outcome == Some(Outcome::Succeeded))
            .map(|(place, _)| place)
    }
}

/// What a run reads.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Objects of a bucket, in the order of their keys.
    Objects(Vec<(String, Bytes)>),
    /// Lines of a file.
    Lines(Vec<String>),
}

impl Data {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Objects(objects) => objects.len(),
            Self::Lines(lines) => lines.len(),
        }
    }
}

/// Everything a user brings.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) job: Job,
    pub(crate) data: Data,
    pub(crate) subject: Subject,
}

impl Own {
    /// Whether each item is small enough for the function lane.
    pub(crate) fn is_small(&self) -> Vec<bool> {
        let bound = self.job.function.object_bytes_max;
        match &self.data {
            Data::Lines(lines) => vec![true; lines.len()],
            Data::Objects(objects) => objects
                .iter()
                .map(|(_, bytes)| bound.is_none_or(|bound| bytes.len() as u64 <= bound))
                .collect(),
        }
    }

    /// The executor of one node.
    pub(crate) fn executor(&self, node: &Node) -> Arc<dyn Executor> {
        let (handle, runtime) = (self.subject.handle.clone(), node.runtime());
        Arc::new(handler(move |item| handle(item, runtime.clone())))
    }
}

/// Reads a job file, for a simulated table and simulated data.
///
/// # Errors
/// What is wrong with it, as the command line would say.
pub(crate) fn job_of(text: &str, data: &Data) -> Result<Job, String> {
    let options = ParseOptions {
        executors: Executors::InProcess,
        cores: CORES,
        overrides: Overrides::default(),
    };
    let job = parse(
        text,
        "job.toml",
        Path::new("/simulated"),
        &|_| None,
        &options,
    );
    let mut job = job.map_err(|errors| errors.to_string())?;
    let place = |key: &str| Location::S3 {
        bucket: "input".to_owned(),
        key: key.to_owned(),
    };
    job.input = match data {
        Data::Objects(_) => InputSpec::Objects(place("")),
        Data::Lines(_) => InputSpec::Jsonl(place(LINES_KEY)),
    };
    job.ledger = LedgerUri::DynamoDb("table".to_owned());
    Ok(job)
}
