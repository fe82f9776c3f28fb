//! Reconcile, as an operator does it: the bucket is listed, and what nobody took in is told again.
//!
//! Listing and sending go the ways of a node of its own, with all faults; who dies of it is not started again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trommel::core::event::{EventKind, Keys, ObjectEvent, end_of_second, store_key};
use trommel::core::id::SessionId;
use trommel::core::time::{Tick, Timestamp};
use trommel::ledger::Ledger;
use trommel::ports::Objects as _;
use trommel::shell::reconcile::{Finder, send};

use super::{BUCKET, Bucket, PREFIX, State};
use crate::entropy::Stream;
use crate::exec::lock;
use crate::node::Node;
use crate::services::ObjectsLink;
use crate::simulation::Simulation;

/// What was written within so long is left to its events. Longer than a second, to whose end a listed state is
/// reckoned: what is written in it after the listing would count as earlier.
const LEFT: Duration = Duration::from_secs(3);

/// Reconciles begin up to so long after the last act.
const RECONCILED_AFTER_MS: u64 = 60_000;

/// Keys that a page shows.
const PAGE: usize = 5;

impl Bucket {
    /// How long the last act must be past, that all is seen.
    pub fn left_alone(&self) -> Duration {
        LEFT
    }

    /// At their times operators reconcile, while all goes on.
    pub(super) fn reconciles(&self, sim: &Simulation, chance: &Stream) {
        for number in 0..self.mode.reconciles {
            let at_ms = chance.below(self.mode.spread_ms + RECONCILED_AFTER_MS);
            let (this, node) = (self.clone(), sim.node(&format!("operator-{number}")));
            node.clone().spawn("reconcile", async move {
                let clock = node.runtime().clock;
                let due = Tick::default() + Duration::from_millis(at_ms);
                clock.sleep_until(due).await;
                if let Err(problem) = this.reconcile(&node).await {
                    node.trace(&format_args!("reconcile gives up: {problem}"));
                }
            });
        }
    }

    /// Has taken in what nobody took in. How many that were.
    ///
    /// # Errors
    /// Something did not answer.
    pub async fn reconcile(&self, node: &Node) -> Result<usize, String> {
        let cluster = &self.cluster;
        let runtime = node.runtime();
        let session = SessionId::new(format!("{:016x}", runtime.entropy.next_u64()));
        let table = Arc::new(cluster.table().link(node));
        let ledger = Ledger::new(table, runtime.clone(), session);
        let mut finder = Finder::new(ledger, cluster.job().name.clone());
        let listed = self.listed(node).await?;
        let missing = finder.missing(listed).await;
        let missing = missing.map_err(|error| error.to_string())?;
        node.trace(&format_args!("reconcile finds {}", missing.len()));
        lock(&self.log).sent += missing.len() as u64;
        let queue = cluster.ingest().link(node);
        let sent = send(&queue, &runtime, Keys::Aws, &missing).await;
        sent.map_err(|error| error.to_string())?;
        Ok(missing.len())
    }

    /// All objects that are old enough, page by page, each in the state in which its page shows it.
    async fn listed(&self, node: &Node) -> Result<Vec<ObjectEvent>, String> {
        let input = self.cluster.stores().input.clone();
        let store = ObjectsLink::new(input, node, self.cluster.injector().clone());
        let prefix = store_key(BUCKET, PREFIX.as_bytes());
        let began = self.cluster.service().runtime().clock.now();
        let until = Timestamp(began.0 - LEFT.as_millis() as i64);
        let mut listed = Vec::new();
        let mut after: Option<Arc<[u8]>> = None;
        loop {
            let page = store.list(&prefix, after.as_deref(), PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            let Some(last) = page.objects.last() else {
                return Ok(listed);
            };
            after = Some(last.key.clone());
            let written = self.written();
            for object in page.objects {
                // No two states have one eTag.
                let at = written[&*object.pin.etag];
                if at < until {
                    listed.push(ObjectEvent {
                        bucket: BUCKET.into(),
                        key: object.key[BUCKET.len() + 1..].into(),
                        kind: EventKind::Listed,
                        size_bytes: Some(object.size_bytes),
                        etag: Some(object.pin.etag),
                        version: object.pin.version,
                        sequencer: None,
                        at: end_of_second(at),
                    });
                }
            }
            if !page.more {
                return Ok(listed);
            }
        }
    }

    /// When each state was written, by its eTag.
    fn written(&self) -> BTreeMap<Arc<str>, Timestamp> {
        let log = lock(&self.log);
        let states = log.states.values().flatten();
        let written = states.filter_map(|state| match state {
            State::Written { pin, at } => Some((pin.etag.clone(), *at)),
            State::Removed => None,
        });
        written.collect()
    }
}
