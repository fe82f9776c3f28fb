//! Containers that this process answers for: removed when their call is over, by force if it was given up.

#![expect(
    clippy::disallowed_methods,
    reason = "what a dropped call leaves behind is removed by a real task, in real time"
)]

use std::time::Duration;

use tokio::runtime::Handle;

use super::engine::{Engine, EngineError};

/// Tries to remove a container, before it is left to whoever starts next on this machine.
const REMOVALS_MAX: u32 = 6;

/// Between the first two tries; each time twice as long, a minute in all: an engine restarts in less.
const REMOVAL_RETRY: Duration = Duration::from_secs(2);

/// Containers to be removed, in this order; at the latest when this is dropped.
pub(super) struct Held {
    engine: Engine,
    ids: Vec<String>,
}

impl Held {
    pub(super) fn new(engine: &Engine, id: String) -> Self {
        Self {
            engine: engine.clone(),
            ids: vec![id],
        }
    }

    /// Also that one, after the others.
    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.ids.append(&mut other.ids);
        self
    }

    /// The container itself.
    pub(super) fn id(&self) -> &str {
        &self.ids[0]
    }

    /// Removes them now; if the engine does not answer, later.
    pub(super) async fn release(mut self) {
        while let Some(id) = self.ids.first() {
            if let Err(error) = self.engine.remove(id).await {
                tracing::debug!(%error, id, "a container is removed later");
                return;
            }
            self.ids.remove(0);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if ids.is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(remove_all(self.engine.clone(), ids))),
            Err(error) => tracing::warn!(%error, ?ids, "containers are left behind"),
        }
    }
}

async fn remove_all(engine: Engine, ids: Vec<String>) {
    for id in ids {
        if let Err(error) = remove(&engine, &id).await {
            tracing::warn!(%error, id, "a container is left behind");
        }
    }
}

async fn remove(engine: &Engine, id: &str) -> Result<(), EngineError> {
    let mut pause = REMOVAL_RETRY;
    for _ in 1..REMOVALS_MAX {
        match engine.remove(id).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, id, "a container is not removed yet"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    engine.remove(id).await
}
