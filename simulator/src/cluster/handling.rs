//! The simulated handler: how long a call takes, how it fails, and what it reads.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::core::class::{Class, Failure};
use trommel::core::item::{Input, Object};
use trommel::ports::{Executor, Objects, ObjectsError};

use super::Cluster;
use crate::exec::lock;
use crate::node::Node;
use crate::services::ObjectsLink;

/// What the simulated handler fills its output up with.
pub const FILLING: &str = "~";

/// What the handler does. Chances are of a million calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// A call takes at least this …
    pub shortest: Duration,
    /// … and at most this.
    pub longest: Duration,
    /// Fails with `Flaky`.
    pub flaky: u32,
    /// Fails with `Bad`.
    pub bad: u32,
    /// Fails with `Throttled`.
    pub throttled: u32,
    /// Panics.
    pub panics: u32,
    /// Takes ten times the longest.
    pub slow: u32,
    /// Kills its process: items, not calls.
    #[serde(default)]
    pub killers: u32,
    /// `Bad` has so many names, `Bad0`, `Bad1`, …; none: it is `Bad`.
    #[serde(default)]
    pub kinds_of_bad: u32,
    /// Its output is as long as this, in bytes, if that is longer than its name.
    #[serde(default)]
    pub output_bytes: u32,
}

impl Behaviour {
    /// Always succeeds, after a time between these two.
    pub const fn calm(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            flaky: 0,
            bad: 0,
            throttled: 0,
            panics: 0,
            slow: 0,
            killers: 0,
            kinds_of_bad: 0,
            output_bytes: 0,
        }
    }
}

impl Cluster {
    /// The simulated handler, as it runs on one node.
    pub(crate) fn handler(&self, node: &Node) -> Arc<dyn Executor> {
        let (cluster, node) = (self.clone(), node.clone());
        let handle = move |item: HandlerItem| cluster.clone().handle(node.clone(), item);
        Arc::new(handler(handle))
    }

    async fn handle(self, node: Node, item: HandlerItem) -> Result<String, Failure> {
        let behaviour = *lock(&self.inner.behaviour);
        let mut dice = self.inner.injector.dice(&item.id);
        let spread = behaviour.longest.saturating_sub(behaviour.shortest);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut takes = behaviour.shortest + Duration::from_nanos(dice.below(spread));
        if dice.chance(behaviour.slow) {
            takes = behaviour.longest * 10;
        }
        node.sleep(takes).await;
        let killers = behaviour.killers;
        self.inner.injector.kill_if(killers, &node, &item.id).await;
        let cause = format!("attempt {} on \"{}\" failed", item.attempt, item.id);
        let failure = |class: &str| Err(Failure::new(Class::named(class), &cause));
        if dice.chance(behaviour.flaky) {
            return failure("Flaky");
        }
        if dice.chance(behaviour.bad) {
            return match behaviour.kinds_of_bad {
                0 => failure("Bad"),
                kinds => failure(&format!("Bad{}", dice.below(u64::from(kinds)))),
            };
        }
        if dice.chance(behaviour.throttled) {
            return Err(Failure::new(Class::Throttled, cause));
        }
        assert!(!dice.chance(behaviour.panics), "simulated");
        if let Input::Object(object) = item.input() {
            self.read(&node, &item, object).await?;
        }
        let mut output = item.idempotency_key();
        let bytes = output.len().max(behaviour.output_bytes as usize);
        output.push_str(&FILLING.repeat(bytes - output.len()));
        Ok(output)
    }

    /// Reads the object as it was listed, as every executor of objects does.
    async fn read(&self, node: &Node, item: &HandlerItem, object: &Object) -> Result<(), Failure> {
        let input = self.inner.stores.input.clone();
        let link = ObjectsLink::new(input, node, self.inner.injector.clone());
        let failed = |error: ObjectsError| {
            let class = match &error {
                ObjectsError::NotFound(_) => Class::Gone,
                ObjectsError::Changed(_) => Class::SourceChanged,
                ObjectsError::Exists(_)
                | ObjectsError::Unavailable(_)
                | ObjectsError::Refused(_) => Class::Unavailable,
            };
            Failure::new(class, error.to_string())
        };
        let pin = Some(&object.pin);
        let reader = link.get(&object.store_key(), 0, None, pin).await;
        let mut bytes = Vec::new();
        let mut reader = reader.map_err(failed)?;
        let read = reader.read_to_end(&mut bytes).await;
        read.expect("memory is read to its end");
        self.inner.watch.read(item.id, item.generation, object);
        Ok(())
    }
}
