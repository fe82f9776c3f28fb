//! The `ecs` executor: a call is a task on AWS ECS, started, watched and read by how it ended.
//!
//! A task carries one item. It finds it in `TROMMEL_INPUT` and says how it went by its exit code; it has no output, since
//! ECS brings none back: what it makes it writes where it belongs. Retries, timeouts and permits are not decided here. A
//! stopped call stops its task, which gets SIGTERM and after its own `stopTimeout` SIGKILL; a call that is dropped, or whose
//! process dies, leaves its task running, and whoever runs the same attempt next finds it by its token.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for a real service, which no simulated clock can hurry"
)]

mod ended;
mod looks;
mod pace;
mod request;
mod start;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ecs::Client;
use tokio::time::Instant;

use super::classify::Fault;
use super::config::Clients;
use super::pointer::Pointers;
use crate::adapters::invocation::not_said;
use crate::core::class::{Class, Failure};
use crate::core::job::EcsSpec;
use crate::core::time::Tick;
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use ended::Ended;
use pace::Pace;
use start::{NotStarted, Order, run_task};
use watch::Watch;

/// What the calls of a process in one cluster share: how fast they start, and who looks at them.
pub struct Cluster {
    client: Client,
    name: String,
    watch: Watch,
    pace: Mutex<Pace>,
    start: Instant,
}

impl Cluster {
    /// The cluster of that name or ARN. Talks to nobody yet: a cluster that is not there shows with the first call.
    pub fn new(clients: &Clients, name: impl Into<String>) -> Self {
        Self {
            client: clients.ecs.clone(),
            name: name.into(),
            watch: Watch::default(),
            pace: Mutex::new(Pace::new()),
            start: Instant::now(),
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
}

impl EcsExecutor {
    /// Calls in this cluster. Items too long for a task's variables go into `pointers`; without it they fail.
    pub fn new(cluster: Arc<Cluster>, spec: &EcsSpec, pointers: Option<Pointers>) -> Self {
        Self {
            cluster,
            spec: spec.clone(),
            pointers,
        }
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
        tokio::select! {
            biased;
            end = cluster.watch.end(&cluster.client, &cluster.name, &arn) => match end {
                Ok(task) => self.read(&task),
                Err(lost) => ItemReport::Undecided(Failure::new(Class::Unavailable, lost.0)),
            },
            () = self.end(&arn, call, stop) => {
                let cause = format!("stopped; the task {arn} was told to end, and its end was not seen");
                ItemReport::Undecided(Failure::new(Class::Crashed, cause))
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

    /// Completes when a stopped task's time is over.
    async fn end(&self, arn: &str, call: &Call, stop: &Stop) {
        stop.cancelled().await;
        self.cluster
            .stop(arn, &format!("trommel: {}", call.run))
            .await;
        tokio::time::sleep(call.grace).await;
    }

    fn read(&self, task: &aws_sdk_ecs::types::Task) -> ItemReport {
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

/// Completes when a stopped call's time is over.
async fn out_of_time(stop: &Stop, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}
