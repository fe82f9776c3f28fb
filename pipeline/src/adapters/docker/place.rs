//! One container for one attempt: makes it, or takes over what a dead worker left of it.
//!
//! Before a container is made, every other that carries one of its items must be gone. What a live worker
//! holds (this one, too: it may still be removing) is waited for. What a dead one left is claimed first;
//! then it is adopted if it does the same for the same attempt, and removed if not. A claim is a container
//! that is never started: the engine gives its name to one of those who ask for it, so that of all workers
//! of a machine one adopts, and nobody sweeps what another has adopted.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for a real engine, and makes containers in tasks that outlive a dropped call"
)]

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerState, ContainerStateStatusEnum, ContainerSummary, HostConfig,
};
use tokio::time::Instant;

use super::container::{Fed, INPUT_LABEL, WORK_LABEL};
use super::engine::{Engine, EngineError};
use super::held::Held;
use super::identity::{Identity, WORKER_LABEL};
use super::worker::{Standing, Worker};
use crate::adapters::command::source::NotRun;
use crate::core::class::{Class, Failure};
use crate::ports::executor::Stop;

/// How long a call waits for a container that another live worker holds: longer than a grace of 30 s and a
/// kill, within which one that lost its lease ends its own.
const HELD_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often it looks whether that is over.
const HELD_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Claims of dead workers to clear away before a target is left to others: each is another worker that died
/// within an adoption.
const DEAD_CLAIMS_MAX: u32 = 3;

/// On a claim: the container that it is for.
pub(super) const CLAIM_LABEL: &str = "trommel.claim";

/// A container for a call.
pub(super) enum Place {
    /// Made, and not started.
    New(Held),
    /// A dead worker's; started, and perhaps over.
    Adopted(Held),
}

/// What a call looks for.
pub(super) struct Wanted<'a> {
    pub(super) identity: &'a Identity,
    pub(super) body: ContainerCreateBody,
}

impl Wanted<'_> {
    fn work(&self) -> Option<&String> {
        self.body.labels.as_ref()?.get(WORK_LABEL)
    }
}

/// Finds and makes containers in the name of one worker.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) engine: Engine,
    pub(super) worker: Worker,
}

/// What became of a dead worker's container.
enum Inherited {
    Adopted(Held),
    Removed,
    /// Another worker has it.
    Busy,
}

impl Places {
    /// The one container of a call.
    pub(super) async fn take(&self, wanted: &Wanted<'_>, stop: &Stop) -> Result<Place, NotRun> {
        let until = Instant::now() + HELD_WAIT_MAX;
        loop {
            if let Some(place) = self.try_to_take(wanted).await? {
                return Ok(place);
            }
            if Instant::now() > until {
                let cause = format!(
                    "another live worker on this machine still holds its container, {} or one that \
                     shares an item; `docker ps -a` shows it",
                    wanted.identity.name()
                );
                return Err(Failure::new(Class::Unavailable, cause).into());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(NotRun::Stopped),
                () = tokio::time::sleep(HELD_LOOK_EVERY) => {}
            }
        }
    }

    async fn try_to_take(&self, wanted: &Wanted<'_>) -> Result<Option<Place>, Failure> {
        let run = wanted.identity.run_filter();
        let listed = self.engine.list(&run).await.map_err(|e| e.failure())?;
        let mut found: Vec<Found> = listed.into_iter().filter_map(Found::read).collect();
        found.retain(|found| found.identity.overlaps(wanted.identity));
        // What may be adopted comes last: the others are gone by then.
        found.sort_by_key(|found| found.identity == *wanted.identity);
        for found in found {
            if self.look_at(&found.labels) == Standing::MayLive {
                return Ok(None);
            }
            match self.inherit(&found, wanted).await? {
                Inherited::Adopted(held) => return Ok(Some(Place::Adopted(held))),
                Inherited::Removed => {}
                Inherited::Busy => return Ok(None),
            }
        }
        match self.make(wanted.identity.name(), wanted.body.clone()).await {
            Ok(held) => Ok(Some(Place::New(held))),
            // Made meanwhile: it is found at the next look.
            Err(EngineError::Conflict(_)) => Ok(None),
            Err(error) => Err(not_made(&error, &wanted.body)),
        }
    }

    /// How the worker stands whose label a container has.
    pub(super) fn look_at(&self, labels: &HashMap<String, String>) -> Standing {
        match labels.get(WORKER_LABEL).map(|label| label.parse()) {
            Some(Ok(worker)) => self.worker.look_at(&worker),
            Some(Err(_)) | None => Standing::MayLive,
        }
    }

    /// In a task of its own: if the call is dropped meanwhile, the container is still known, and removed.
    async fn make(&self, name: String, body: ContainerCreateBody) -> Result<Held, EngineError> {
        let engine = self.engine.clone();
        let making = tokio::spawn(async move {
            let id = engine.create(&name, body).await?;
            Ok(Held::new(&engine, id))
        });
        making
            .await
            .unwrap_or_else(|error| Err(EngineError::Unreachable(error.to_string())))
    }

    async fn inherit(&self, found: &Found, wanted: &Wanted<'_>) -> Result<Inherited, Failure> {
        let claim = self.claim(&found.id, &found.image).await;
        let Some(claim) = claim.map_err(|error| error.failure())? else {
            return Ok(Inherited::Busy);
        };
        let state = match self.engine.state(&found.id).await {
            Ok(state) => state,
            Err(EngineError::NotFound(_)) => {
                claim.release().await;
                return Ok(Inherited::Removed);
            }
            // The claim is let go, and the container goes on.
            Err(error) => return Err(error.failure()),
        };
        let held = Held::new(&self.engine, found.id.clone()).and(claim);
        match found.use_for(wanted, &state) {
            Use::Adopt => {
                tracing::info!(container = found.id, "adopted what a dead worker left");
                Ok(Inherited::Adopted(held))
            }
            Use::Remove => {
                held.release().await;
                Ok(Inherited::Removed)
            }
            Use::GiveUp => {
                held.release().await;
                let cause = "its worker died before its container had all of its input, \
                             and the container was ended";
                Err(Failure::new(Class::Crashed, cause))
            }
        }
    }

    /// The sole right to a dead worker's container; nothing if another live worker has it.
    pub(super) async fn claim(
        &self,
        target: &str,
        image: &str,
    ) -> Result<Option<Held>, EngineError> {
        let name = format!("trommel-claim-{target}");
        for _ in 0..DEAD_CLAIMS_MAX {
            let made = self.make(name.clone(), self.claim_body(target, image));
            match made.await {
                Ok(claim) => return Ok(Some(claim)),
                Err(EngineError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            match self.engine.labels(&name).await {
                // By identifier: the name may be another's by then.
                Ok((id, labels)) if self.look_at(&labels) == Standing::Gone => {
                    self.engine.remove(&id).await?;
                }
                Ok(_) => return Ok(None),
                // Let go meanwhile.
                Err(EngineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn claim_body(&self, target: &str, image: &str) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(image.to_owned()),
            // Never run; but without a command some images make no container.
            cmd: Some(vec!["claim".to_owned()]),
            labels: Some(HashMap::from([
                (CLAIM_LABEL.to_owned(), target.to_owned()),
                (WORKER_LABEL.to_owned(), self.worker.label()),
            ])),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

/// Why there is no container, with what to do about it.
fn not_made(error: &EngineError, body: &ContainerCreateBody) -> Failure {
    match error {
        EngineError::NotFound(words) => {
            let image = body.image.as_deref().unwrap_or_default();
            let cause = format!(
                "{words}; images are not fetched while items run: `docker pull {image}` (or build it) first"
            );
            Failure::new(Class::Unavailable, cause)
        }
        EngineError::Conflict(_) | EngineError::Refused(_) | EngineError::Unreachable(_) => {
            error.failure()
        }
    }
}

/// A container as a list shows it.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) image: String,
    pub(super) labels: HashMap<String, String>,
    identity: Identity,
}

/// What a dead worker's container is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Adopt,
    /// It has not begun, or does something else.
    Remove,
    /// It is this attempt, and its result means nothing.
    GiveUp,
}

impl Found {
    /// Nothing for a container that is no call's.
    pub(super) fn read(container: ContainerSummary) -> Option<Self> {
        let labels = container.labels?;
        Some(Self {
            identity: Identity::from_labels(&labels)?,
            id: container.id?,
            image: container.image_id?,
            labels,
        })
    }

    fn use_for(&self, wanted: &Wanted<'_>, state: &ContainerState) -> Use {
        if self.identity != *wanted.identity
            || self.labels.get(WORK_LABEL) != wanted.work()
            || !was_started(state)
        {
            return Use::Remove;
        }
        let fed = self.labels.get(INPUT_LABEL).map(String::as_str);
        if fed == Some(Fed::BeforeStart.label()) {
            return Use::Adopt;
        }
        Use::GiveUp
    }
}

fn was_started(state: &ContainerState) -> bool {
    use ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::EXITED | Status::STOPPING) => true,
        // Restarting does not happen under the policy that we set; the others are nothing to wait for.
        Some(
            Status::CREATED | Status::RESTARTING | Status::REMOVING | Status::DEAD | Status::EMPTY,
        )
        | None => false,
    }
}
