//! The backend on DynamoDB and SQS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::adapters::aws::{
    Blueprint, Buckets, Clients, Cluster, DynamoTable, EcsExecutor, Endpoint, LambdaExecutor,
    Pointers, S3Objects, SqsQueue,
};
use crate::core::bill::Bill;
use crate::core::id::JobName;
use crate::core::job::{EcsSpec, Job, LambdaSpec, LaneSpec};
use crate::core::lane::Lane;
use crate::core::mark::Sequencer;
use crate::ports::{Executor, Objects, Queue, Table};
use crate::shell::Stores;

use super::backend::{BackendError, Purpose};

/// The clients of a process, opened with the first that asks for them: one pool of connections, one meter, and for each
/// cluster one who looks.
#[derive(Clone, Default)]
pub(super) struct SharedClients(Arc<OnceCell<Clients>>, Clusters);

/// By name, and by the queue of their tasks' events.
type Clusters = Arc<Mutex<BTreeMap<(String, Option<String>), Arc<Cluster>>>>;

impl SharedClients {
    async fn get(&self) -> &Clients {
        self.0
            .get_or_init(|| Box::pin(Clients::open(Endpoint::from_env())))
            .await
    }

    /// A bucket, where the environment says.
    pub(super) async fn bucket(&self, name: &str) -> Arc<dyn Objects> {
        Arc::new(S3Objects::new(self.get().await, name))
    }

    /// All buckets, where the environment says.
    pub(super) async fn buckets(&self) -> Arc<dyn Objects> {
        Arc::new(Buckets::new(self.get().await.clone()))
    }

    /// A queue by its name or URL, and whether sequencers are believed there: no emulator has one that can be.
    pub(super) async fn ingest(
        &self,
        queue: &str,
    ) -> Result<(Arc<dyn Queue>, Sequencer), BackendError> {
        let opened = self.queue(queue).await?;
        let sequencer = if self.get().await.endpoint.path_style {
            Sequencer::Ignored
        } else {
            Sequencer::Trusted
        };
        Ok((opened, sequencer))
    }

    /// A lane's calls of a function, where the environment says.
    pub(super) async fn lambda(
        &self,
        spec: &LambdaSpec,
        lane: &LaneSpec,
        scratch: Option<Pointers>,
    ) -> Arc<dyn Executor> {
        Arc::new(LambdaExecutor::new(self.get().await, spec, lane, scratch))
    }

    /// A lane's tasks in a cluster, where the environment says.
    ///
    /// # Errors
    /// The queue of their events is not there, or does not answer.
    pub(super) async fn ecs(
        &self,
        spec: &EcsSpec,
        lane: &LaneSpec,
        scratch: Option<Pointers>,
    ) -> Result<Arc<dyn Executor>, BackendError> {
        let clients = self.get().await;
        let place = (spec.cluster.clone(), spec.events_queue.clone());
        let clusters = || self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clusters().get(&place).cloned();
        let cluster = match known {
            Some(known) => known,
            None => {
                let mut cluster = Cluster::new(clients, &spec.cluster);
                if let Some(queue) = &spec.events_queue {
                    cluster = cluster.with_events(self.queue(queue).await.map_err(no_events)?);
                }
                // Another lane may have been as fast.
                let mut clusters = clusters();
                clusters.entry(place).or_insert(Arc::new(cluster)).clone()
            }
        };
        let executor = EcsExecutor::new(cluster, spec, scratch);
        Ok(Arc::new(executor.with_timeout(lane.timeout)))
    }

    /// A queue by its name or URL.
    async fn queue(&self, queue: &str) -> Result<Arc<dyn Queue>, BackendError> {
        let clients = self.get().await;
        let opened = if queue.starts_with("https://") || queue.starts_with("http://") {
            SqsQueue::at(clients, queue)
        } else {
            SqsQueue::open(clients, queue).await.map_err(unreachable)?
        };
        Ok(Arc::new(opened))
    }

    /// What was asked of AWS so far; none if nothing could be.
    pub(super) fn bill(&self) -> Option<Bill> {
        self.0.get().map(|clients| clients.meter.snapshot())
    }
}

/// Where events lie that are too long to be sent; none if the job's scratch place is not in S3.
pub(super) fn pointers(job: &Job, stores: &Stores) -> Option<Pointers> {
    let (bucket, _) = job.scratch_in_s3()?;
    let prefix = stores.scratch_prefix.clone();
    Some(Pointers::new(stores.scratch.clone(), bucket, prefix))
}

/// An open table and the clients beside it.
pub(super) struct AwsPlace {
    clients: Clients,
    name: String,
}

fn no_events(error: BackendError) -> BackendError {
    BackendError::Unreachable(format!(
        "events of tasks: {error}; `trommel provision --apply` makes their queue, or leave events_queue out"
    ))
}

fn unreachable(error: impl std::fmt::Display) -> BackendError {
    BackendError::Unreachable(error.to_string())
}

impl AwsPlace {
    /// Opens the table; to run items it is made if it is not there.
    pub(super) async fn open(
        name: &str,
        purpose: Purpose,
        clients: &SharedClients,
    ) -> Result<Self, BackendError> {
        let clients = clients.get().await.clone();
        match purpose {
            Purpose::Run => {
                let blueprint = Blueprint::new(name).map_err(unreachable)?;
                blueprint.apply(&clients).await.map_err(unreachable)?;
            }
            Purpose::Write | Purpose::Read => {}
        }
        Ok(Self {
            clients,
            name: name.to_owned(),
        })
    }

    pub(super) fn table(&self) -> Arc<dyn Table> {
        Arc::new(DynamoTable::new(&self.clients, &self.name))
    }

    /// The lanes' queues, made if they are not there.
    pub(super) async fn queues(
        &self,
        job: &JobName,
        lanes: &[Lane],
    ) -> Result<BTreeMap<Lane, Arc<dyn Queue>>, BackendError> {
        let blueprint = Blueprint::new(&self.name).map_err(unreachable)?;
        let blueprint = blueprint.with_job(job, lanes).map_err(unreachable)?;
        blueprint.apply(&self.clients).await.map_err(unreachable)?;
        let mut queues = BTreeMap::new();
        for lane in lanes {
            let name = Blueprint::queue_name(&self.name, job, *lane);
            let queue = SqsQueue::open(&self.clients, &name)
                .await
                .map_err(unreachable)?;
            queues.insert(*lane, Arc::new(queue) as Arc<dyn Queue>);
        }
        Ok(queues)
    }
}
