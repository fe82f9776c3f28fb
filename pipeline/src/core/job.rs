//! A job as the loops know it: validated, units in the types, defaults filled in.
//!
//! Parsing the file, its error messages and its `${VAR}` are not here but in `crate::job_file`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::event::Keys;
use super::id::JobName;
use super::lane::{Lane, SizeRule};
use super::mark::Sequencer;
use super::retry::{CatchRule, RetryRule};
use super::tolerance::{FailFast, Tolerance};

/// Items of one call at most, whatever the job says: a page holds no more.
pub const BATCH_ITEMS_MAX: u32 = 100;

/// Default timeout of a call on the function lane: Lambda's longest ("Lambda quotas").
pub const FUNCTION_TIMEOUT_DEFAULT: Duration = Duration::from_mins(15);

/// Default time a stopped call gets to end by itself: ECS's `stopTimeout` ("Fargate task definition").
pub const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its name: sessions, permits and lane queues belong to it.
    pub name: JobName,
    /// What to read.
    pub input: InputSpec,
    /// Calls at one time, over all processes of the job.
    pub max_concurrency: u32,
    /// How many failures a run may have and still succeed.
    pub tolerance: Tolerance,
    /// The optional brake.
    pub fail_fast: Option<FailFast>,
    /// What a breach does.
    pub on_breach: OnBreach,
    /// Where result files go; none: no result files.
    pub results: Option<Location>,
    /// Where the ledger is.
    pub ledger: LedgerUri,
    /// Where frozen and output parts lie, if not beside an embedded ledger.
    pub scratch: Option<Location>,
    /// The lane for values and small objects.
    pub function: LaneSpec,
    /// The lane for larger objects, alone.
    pub container: Option<LaneSpec>,
    /// Retry rules, first match counts.
    pub retry: Vec<RetryRule>,
    /// Catch rules, first match counts.
    pub catch: Vec<CatchRule>,
}

impl Job {
    /// The lane's settings, if the job has the lane.
    pub fn lane(&self, lane: Lane) -> Option<&LaneSpec> {
        match lane {
            Lane::Function => Some(&self.function),
            Lane::Container => self.container.as_ref(),
        }
    }

    /// The bucket and the prefix in it, empty or ending in a slash, that frozen and output parts of its runs lie under, if
    /// they lie in S3.
    pub fn scratch_in_s3(&self) -> Option<(&str, String)> {
        match (&self.scratch, &self.ledger, &self.results) {
            (Some(Location::S3 { bucket, key }), _, _) => Some((bucket, tree(key))),
            (None, LedgerUri::DynamoDb(_), Some(Location::S3 { bucket, key })) => {
                Some((bucket, format!("{}scratch/", tree(key))))
            }
            (Some(Location::Path(_)), _, _)
            | (None, LedgerUri::Sqlite(_), _)
            | (None, LedgerUri::DynamoDb(_), Some(Location::Path(_)) | None) => None,
        }
    }

    /// The size branch.
    pub fn size_rule(&self) -> SizeRule {
        SizeRule {
            function_bytes_max: self.function.object_bytes_max,
            container: self.container.as_ref().map(|lane| lane.object_bytes_max),
        }
    }
}

/// A prefix as what is under it begins: empty, or ending in a slash.
pub(crate) fn tree(key: &str) -> String {
    let key = key.trim_end_matches('/');
    let slash = if key.is_empty() { "" } else { "/" };
    format!("{key}{slash}")
}

/// What a breach of the tolerance, or of `fail_fast`, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBreach {
    /// The run fails: its calls are stopped.
    Fail,
    /// The run pauses: nothing is lost, `resume` goes on.
    Pause,
}

/// A place for or with files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory (or a file in one), as an absolute path.
    Path(PathBuf),
    /// A bucket and a key or prefix in it.
    S3 {
        /// The bucket.
        bucket: String,
        /// The key or prefix, without a leading slash.
        key: String,
    },
}

/// Where the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerUri {
    /// A file, embedded in one process at a time.
    Sqlite(PathBuf),
    /// A table of this name, with SQS queues beside it.
    DynamoDb(String),
}

/// What to read.
#[derive(Clone, Debug, PartialEq)]
pub enum InputSpec {
    /// Every object under a directory or prefix.
    Objects(Location),
    /// One JSON value a line.
    Jsonl(Location),
    /// Rows, as objects of strings.
    Csv {
        /// The file.
        file: Location,
        /// Where the header is.
        headers: CsvHeaders,
        /// The field separator.
        delimiter: u8,
    },
    /// The elements of one JSON array (or the pairs of one object, as `{"key":…,"value":…}`).
    Json(Location),
    /// Values written in the job file, as JSON texts.
    Inline(Vec<String>),
    /// Whole numbers from `start` up to, not including, `end`.
    Range {
        /// The first number.
        start: i64,
        /// One past the last.
        end: i64,
    },
    /// Objects as they come to be, without end.
    Events(EventsSpec),
}

impl InputSpec {
    /// Whether its items are objects, which have sizes.
    pub fn is_objects(&self) -> bool {
        match self {
            Self::Objects(_) | Self::Events(_) => true,
            Self::Jsonl(_)
            | Self::Csv { .. }
            | Self::Json(_)
            | Self::Inline(_)
            | Self::Range { .. } => false,
        }
    }
}

/// Events as input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsSpec {
    /// The ingest queue's name, or its URL.
    pub queue: String,
    /// The bucket that sends; named for what sets up, checks and reconciles. Events of others are taken too.
    pub bucket: Option<String>,
    /// Only keys that begin so are work.
    pub prefix: String,
    /// How long a window is: each is a run.
    pub window: Duration,
    /// Whether duplicates and late events are told apart by marks.
    pub dedupe: Dedupe,
    /// Whether sequencers are believed; none: on AWS they are, elsewhere not.
    pub sequencer: Option<Sequencer>,
    /// How keys are spelled.
    pub keys: Keys,
    /// What becomes of an item whose object is gone.
    pub missing: Missing,
    /// With so many items pending nothing more is received.
    pub pending_max: u64,
}

/// Whether marks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedupe {
    /// A mark an object: one write an event.
    On,
    /// What comes twice is run twice.
    Off,
}

/// What becomes of an item whose object is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It fails.
    Fail,
    /// It is skipped.
    Skip,
    /// It is tried again for a while, then it fails.
    Retry,
}

/// The default of [`EventsSpec::pending_max`]: a thousand pages of small items.
pub const PENDING_MAX_DEFAULT: u64 = 100_000;

/// The default of [`EventsSpec::window`].
pub const WINDOW_DEFAULT: Duration = Duration::from_secs(3600);

/// Where a CSV file's header is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CsvHeaders {
    /// The first row.
    FirstRow,
    /// Given by the job; the first row is data.
    Given(Vec<String>),
}

/// One lane's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneSpec {
    /// What carries out its calls.
    pub executor: ExecutorSpec,
    /// The largest object it takes; none: any size.
    pub object_bytes_max: Option<u64>,
    /// Items one call may carry, 1 to [`BATCH_ITEMS_MAX`].
    pub max_items_per_batch: u32,
    /// How long a call may run; none: as long as it likes.
    pub timeout: Option<Duration>,
    /// How long a stopped call gets before it is killed.
    pub grace: Duration,
    /// What is done with a call's output.
    pub output: OutputMode,
}

/// What carries out a lane's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorSpec {
    /// A program and its arguments; `{path}`, `{key}` and `{size}` are filled in.
    Command {
        /// argv, never empty.
        argv: Vec<String>,
        /// The directory it runs in: the job file's.
        cwd: PathBuf,
    },
    /// A Lambda handler, run here.
    Handler(HandlerSpec),
    /// A function on AWS Lambda.
    Lambda(LambdaSpec),
    /// A container on this machine.
    Docker(DockerSpec),
    /// A task on AWS ECS.
    Ecs(EcsSpec),
    /// A Rust handler of the program that embeds Trommel.
    InProcess,
}

/// A Lambda handler's own program, which asks a Runtime API for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpec {
    /// The program and its arguments, never empty: a `bootstrap`, or a language's runtime client.
    pub argv: Vec<String>,
    /// The directory it runs in: the job file's.
    pub cwd: PathBuf,
    /// Variables beside those of this process.
    pub environment: BTreeMap<String, String>,
    /// A process that holds more is ended; none: no bound.
    pub memory_bytes: Option<u64>,
}

/// A function on AWS Lambda.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LambdaSpec {
    /// Its name or ARN, with `:version` or `:alias` if one is meant.
    pub function: String,
}

/// How a container on this machine is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerSpec {
    /// The image.
    pub image: String,
    /// What it runs instead of its own command; `{path}`, `{key}` and `{size}` are filled in.
    pub argv: Vec<String>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// It is ended if it needs more; none: no bound.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core; none: as many as there are.
    pub cpu_millis: Option<u64>,
    /// What it can reach.
    pub network: Network,
    /// What is done with its output.
    pub output: OutputMode,
}

/// What a container can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// What Docker's default network does, or the network of this name.
    Named(String),
}

/// The network that Docker gives containers that name none.
pub const NETWORK_DEFAULT: &str = "bridge";

/// How a task on ECS is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcsSpec {
    /// The cluster's name or ARN.
    pub cluster: String,
    /// The task definition: family, `family:revision` or ARN.
    pub task_definition: String,
    /// The container in it that does the work.
    pub container: String,
    /// Subnets to place it in; several, as one may have no room.
    pub subnets: Vec<String>,
    /// Its security groups.
    pub security_groups: Vec<String>,
    /// The capacity provider, such as `FARGATE_SPOT`; none: the cluster's default.
    pub capacity_provider: Option<String>,
    /// The queue that gets the events of its tasks, by name or URL; none: tasks are only looked at.
    pub events_queue: Option<String>,
    /// Variables beside those of the task definition.
    pub environment: BTreeMap<String, String>,
}

/// What is done with a call's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// Kept and written to the results.
    Keep,
    /// Discarded.
    None,
}
