//! What nobody comes back for: containers of workers that are gone, ended and removed after a while.
//!
//! Once for each executor, when calls have had time to adopt what is theirs.

#![expect(
    clippy::disallowed_methods,
    reason = "a task beside the calls, which waits in real time"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::models::ContainerSummary;
use tokio::task::AbortHandle;

use super::engine::EngineError;
use super::held::Held;
use super::identity::WORKER_LABEL;
use super::place::{CLAIM_LABEL, Places};
use super::worker::Standing;

/// How long calls may adopt once a dead worker's pages can be had: those of a run that goes on are all called again
/// by then, as far as its max concurrency lets them.
pub(super) const ADOPT_WITHIN: Duration = Duration::from_secs(20);

/// What an orphan gets to end by itself: what `docker stop` gives ("docker container stop", --timeout).
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// Sweeps once; given up when this is dropped.
pub(super) struct Sweeper(AbortHandle);

impl Sweeper {
    pub(super) fn start(places: Places, adopt_within: Duration) -> Self {
        let sweeping = tokio::spawn(async move {
            tokio::time::sleep(adopt_within).await;
            if let Err(error) = sweep(&places).await {
                tracing::warn!(%error, "containers of dead workers, if there are any, were not removed");
            }
        });
        Self(sweeping.abort_handle())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sweep(places: &Places) -> Result<(), EngineError> {
    let listed = places.engine.list(WORKER_LABEL).await?;
    let ids: BTreeSet<String> = listed.iter().filter_map(|it| it.id.clone()).collect();
    for container in listed {
        let name = container.names.clone().unwrap_or_default();
        if let Err(error) = look_at(places, container, &ids).await {
            tracing::warn!(%error, ?name, "what a dead worker left is still there");
        }
    }
    Ok(())
}

async fn look_at(
    places: &Places,
    container: ContainerSummary,
    listed: &BTreeSet<String>,
) -> Result<(), EngineError> {
    let (Some(id), Some(image), Some(labels)) =
        (container.id, container.image_id, container.labels)
    else {
        return Ok(());
    };
    if places.look_at(&labels) == Standing::MayLive {
        return Ok(());
    }
    match labels.get(CLAIM_LABEL) {
        // It goes when its target is claimed again.
        Some(target) if listed.contains(target) => Ok(()),
        Some(_) => places.engine.remove(&id).await,
        None => end(places, id, &image).await,
    }
}

async fn end(places: &Places, id: String, image: &str) -> Result<(), EngineError> {
    let Some(claim) = places.claim(&id, image).await? else {
        return Ok(());
    };
    tracing::info!(container = id, "ending what a dead worker left");
    let held = Held::new(&places.engine, id).and(claim);
    if let Err(error) = places.engine.stop(held.id(), ORPHAN_GRACE).await {
        tracing::debug!(%error, container = held.id(), "it is removed by force");
    }
    held.release().await;
    Ok(())
}
