//! The `ecs` executor: a call is a task on AWS ECS, started, watched and read by how it ended.
//!
//! A task carries one item. It finds it in `TROMMEL_INPUT` and says how it went by its exit code; it has no output, since
//! ECS brings none back: what it makes it writes where it belongs. Retries and permits are not decided here. The lane's
//! timeout it minds itself, from the task's start: what comes before is not the handler's time. A stopped call stops its task,
//! which gets SIGTERM and after its own `stopTimeout` SIGKILL. A call that is dropped, or whose process dies, leaves its task
//! running, and whoever runs the same attempt next finds it by its token. How a task goes on is seen by looks and, where the
//! cluster's events come into a queue, heard sooner.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for a real service, which no simulated clock can hurry"
)]

mod ended;
mod listen;
mod looks;
mod pace;
mod request;
mod start;
pub(super) mod told;
mod watch;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::Task;
use tokio::time::Instant;

use super::classify::Fault;
use super::config::Clients;
use super::pointer::Pointers;
use crate::adapters::invocation::not_said;
use crate::core::class::{Class, Failure};
use crate::core::job::EcsSpec;
use crate::core::time::Tick;
use crate::ports::Queue;
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use ended::Ended;
use listen::Events;
use pace::Pace;
use start::{NotStarted, Order, run_task};
use watch::{Began, End, Watch};

/// How long a task may take until it runs: its image is pulled anew for each on Fargate, and gigabytes take minutes.
const START_WAIT_MAX: Duration = Duration::from_mins(15);

/// What the calls of a process in one cluster share: how fast they start, and who looks at them.
pub struct Cluster {
    client: Client,
    name: String,
    watch: Arc<Watch>,
    pace: Mutex<Pace>,
    start: Instant,
}

impl Cluster {
    /// The cluster of that name or ARN. Talks to nobody yet: a cluster that is not there shows with the first call.
    pub fn new(clients: &Clients, name: impl Into<String>) -> Self {
        Self {
            client: clients.ecs.clone(),
            name: name.into(),
            watch: Arc::default(),
            pace: Mutex::new(Pace::new()),
            start: Instant::now(),
        }
    }

    /// Hears from this queue what becomes of its tasks, as EventBridge tells it; other workers may share the queue. What
    /// is not told so is looked for, as without it.
    #[must_use]
    pub fn with_events(self, queue: Arc<dyn Queue>) -> Self {
        Self {
            watch: Arc::new(Watch::hearing(Events::new(queue))),
            ..self
        }
    }

    async fn pace(&self) {
        let now = Tick::default() + self.start.elapsed();
        let wait = self
            .pace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(now);
        tokio::time::sleep(wait).await;
    }

    async fn stop(&self, arn: &str, reason: &str) {
        let request = self.client.stop_task().cluster(&self.name);
        let answer = request.task(arn).reason(reason).send().await;
        if let Err(error) = answer {
            let error = Fault::of(&error).told();
            tracing::warn!(task = arn, %error, "a task was not stopped and goes on");
        }
        self.watch.hurry();
    }
}

/// Runs a task for each call.
pub struct EcsExecutor {
    cluster: Arc<Cluster>,
    spec: EcsSpec,
    pointers: Option<Pointers>,
    timeout: Option<Duration>,
}

/// Why a task is ended before it ends itself.
enum Cut {
    Stopped,
    /// It has run for longer than this.
    Late(Duration),
}

impl EcsExecutor {
    /// Calls in this cluster. Items too long for a task's variables go into `pointers`; without it they fail.
    pub fn new(cluster: Arc<Cluster>, spec: &EcsSpec, pointers: Option<Pointers>) -> Self {
        Self {
            cluster,
            spec: spec.clone(),
            pointers,
            timeout: None,
        }
    }

    /// Ends tasks that run for longer than the lane's timeout: since their start, whoever started them.
    #[must_use]
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    async fn execute(&self, call: &Call, item: &CallItem, stop: &Stop) -> ItemReport {
        let begun = tokio::select! {
            biased;
            begun = self.begin(call, item, stop) => begun,
            () = out_of_time(stop, call.grace) => Err(not_sent_or_lost()),
        };
        let arn = match begun {
            Ok(arn) => arn,
            Err(NotStarted::Refused(failure)) => return ItemReport::Failed(failure),
            Err(NotStarted::Unclear(failure)) => return ItemReport::Undecided(failure),
        };
        let cluster = &self.cluster;
        let (mut place, began) = cluster.watch.wait_for(&arn);
        let mut ending = pin!(place.end(&cluster.client, &cluster.name));
        let cut = tokio::select! {
            biased;
            end = &mut ending => return self.read(&end),
            () = stop.cancelled() => Cut::Stopped,
            timeout = late(began, self.timeout) => Cut::Late(timeout),
        };
        let end = tokio::select! {
            biased;
            end = &mut ending => Some(end),
            () = self.end(&arn, call) => None,
        };
        match (cut, end) {
            (Cut::Stopped, Some(end)) => self.read(&end),
            (Cut::Stopped, None) => {
                let cause =
                    format!("stopped; the task {arn} was told to end, and its end was not seen");
                ItemReport::Undecided(Failure::new(Class::Crashed, cause))
            }
            // It may have ended by itself since the last look.
            (Cut::Late(_), Some(Ok(task))) if !self.was_stopped(&task) => self.read(&Ok(task)),
            (Cut::Late(timeout), Some(_) | None) => {
                let cause = format!("the task {arn} ran longer than {timeout:?}");
                ItemReport::Failed(Failure::new(Class::Timeout, cause))
            }
        }
    }

    /// Starts the item's task, or finds the one there is.
    async fn begin(&self, call: &Call, item: &CallItem, stop: &Stop) -> Result<String, NotStarted> {
        let variables = self.variables(call, item).await;
        let variables = variables.map_err(NotStarted::Refused)?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(NotStarted::Unclear(not_begun())),
            () = self.cluster.pace() => {}
        }
        let order = Order {
            spec: &self.spec,
            token: request::token(&call.run, item),
            started_by: request::started_by(&call.run, item),
            variables,
        };
        run_task(&self.cluster.client, &order).await
    }

    async fn variables(
        &self,
        call: &Call,
        item: &CallItem,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let with = |input: &str| request::variables(&self.spec, &call.run, item, input);
        let container = &self.spec.container;
        let input = item.input.to_json();
        let whole = with(&input);
        let Err(excess) = request::check(container, &whole) else {
            return Ok(whole);
        };
        let Some(pointers) = &self.pointers else {
            let cause = format!(
                "{}; with scratch = \"s3://bucket/prefix\" in the job its item would be put there, and a pointer sent",
                excess.cause
            );
            return Err(Failure::new(Class::BadInput, cause));
        };
        let pointed = with(&pointers.put(call, &[item], input).await?);
        request::check(container, &pointed)?;
        Ok(pointed)
    }

    /// Stops the task, and completes when its time is over.
    async fn end(&self, arn: &str, call: &Call) {
        self.cluster
            .stop(arn, &format!("trommel: {}", call.run))
            .await;
        tokio::time::sleep(call.grace).await;
    }

    fn was_stopped(&self, task: &Task) -> bool {
        Ended::of(task, &self.spec.container).is_some_and(|ended| ended.is_on_request())
    }

    fn read(&self, end: &End) -> ItemReport {
        let task = match end {
            Ok(task) => task,
            Err(lost) => {
                return ItemReport::Undecided(Failure::new(Class::Unavailable, &lost.0));
            }
        };
        match Ended::of(task, &self.spec.container) {
            Some(ended) => ended.report(),
            None => {
                let cause = "ECS said that its task had stopped, and not how";
                ItemReport::Undecided(Failure::new(Class::Crashed, cause))
            }
        }
    }
}

#[async_trait]
impl Executor for EcsExecutor {
    fn start_wait_max(&self) -> Duration {
        START_WAIT_MAX
    }

    /// By its token.
    fn is_found_again(&self) -> bool {
        true
    }

    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        let items = match &call.items[..] {
            [item] if !call.batch => vec![self.execute(&call, item, &stop).await],
            items => {
                let cause = "a task on ECS carries one item; set max_items_per_batch = 1";
                not_said(items.len(), &Failure::new(Class::BadInput, cause))
            }
        };
        CallReport { items }
    }
}

fn not_begun() -> Failure {
    Failure::new(Class::Crashed, "stopped before its task was started")
}

fn not_sent_or_lost() -> NotStarted {
    let cause =
        "stopped while its task was being started: it may be there, and is found by its token";
    NotStarted::Unclear(Failure::new(Class::Crashed, cause))
}

/// Returns when a task has run for too long, which is counted from the start that ECS tells.
async fn late(mut began: Began, timeout: Option<Duration>) -> Duration {
    let Some(timeout) = timeout else {
        return std::future::pending().await;
    };
    let Ok(at) = began.wait_for(Option::is_some).await.map(|began| *began) else {
        return std::future::pending().await;
    };
    // By their clock and ours: a start that is yet to come has just been.
    let age = at.map_or(Duration::ZERO, |at| at.elapsed().unwrap_or_default());
    tokio::time::sleep(timeout.saturating_sub(age)).await;
    timeout
}

/// Completes when a stopped call's time is over.
async fn out_of_time(stop: &Stop, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}
