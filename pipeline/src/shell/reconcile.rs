//! Reconciling: which listed objects nobody took in, and messages that have them taken in.
//!
//! Nothing is made an item here: a message goes to the ingest queue, and intake decides as of any other, so that an
//! event which was only late, or a second reconcile at the same time, makes no second item. Listing is the caller's.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use crate::core::event::{Keys, ObjectEvent};
use crate::core::id::JobName;
use crate::core::mark::{IntakeId, MarkOf};
use crate::ledger::{IntakeState, Ledger, LedgerError};
use crate::ports::queue::Outgoing;
use crate::ports::{Queue, QueueError, Runtime};
use crate::wire::events::encode;

/// Marks that are looked up at one time: enough to keep up with a listing, far below what a new table takes.
const LOOKS: usize = 64;

/// Intakes that are remembered: each took up to a hundred events, mostly of neighbours.
const INTAKES_MAX: usize = 10_000;

/// A batch is sent so often before it is given up.
const SENDS_MAX: u32 = 5;

/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Finds what nobody took in.
pub struct Finder {
    ledger: Ledger,
    job: JobName,
    /// Whether an intake became ready.
    intakes: BTreeMap<IntakeId, bool>,
}

impl Finder {
    /// For one job.
    pub fn new(ledger: Ledger, job: JobName) -> Self {
        Self {
            ledger,
            job,
            intakes: BTreeMap::new(),
        }
    }

    /// Those of the listed objects that nobody took in, in their order. Their events say when they were written, at
    /// the end of that second.
    ///
    /// # Errors
    /// The ledger does not answer.
    pub async fn missing(
        &mut self,
        listed: Vec<ObjectEvent>,
    ) -> Result<Vec<ObjectEvent>, LedgerError> {
        let mut missing = Vec::new();
        let mut listed = listed.into_iter();
        loop {
            let some: Vec<ObjectEvent> = listed.by_ref().take(LOOKS).collect();
            if some.is_empty() {
                return Ok(missing);
            }
            let marks: Vec<MarkOf> = some.iter().map(at).collect();
            let looks = marks.iter().map(|at| self.ledger.mark_of(at));
            for (event, mark) in some.iter().zip(join_all(looks).await) {
                let mark = mark?;
                let taken = mark.as_ref().and_then(|mark| mark.taken_of_listed(event));
                let is_taken = match taken {
                    Some(taken) => {
                        taken.is_removal() || self.became_ready(&taken.by.intake).await?
                    }
                    None => false,
                };
                if !is_taken {
                    missing.push(event.clone());
                }
            }
        }
    }

    /// A mark of an intake that never became ready takes nothing in.
    async fn became_ready(&mut self, id: &IntakeId) -> Result<bool, LedgerError> {
        if let Some(known) = self.intakes.get(id) {
            return Ok(*known);
        }
        let is_ready = match self.ledger.intake(&self.job, id).await? {
            Some(IntakeState::Ready { .. }) => true,
            Some(IntakeState::Void) | None => false,
        };
        if self.intakes.len() >= INTAKES_MAX {
            self.intakes.clear();
        }
        self.intakes.insert(id.clone(), is_ready);
        Ok(is_ready)
    }
}

fn at(event: &ObjectEvent) -> MarkOf {
    MarkOf {
        bucket: event.bucket.clone(),
        key: event.key.clone(),
        version: event.version.clone(),
    }
}

/// Sends a message for each event. May be repeated: what was taken in is known.
///
/// # Errors
/// How many were sent before the queue refused.
pub async fn send(
    queue: &dyn Queue,
    runtime: &Runtime,
    keys: Keys,
    events: &[ObjectEvent],
) -> Result<(), SendError> {
    let mut sent = 0;
    for batch in events.chunks(queue.profile().batch_max) {
        let mut left: Vec<Outgoing> = batch
            .iter()
            .map(|event| Outgoing::now(encode(event, keys)))
            .collect();
        let mut tries = 0;
        while !left.is_empty() {
            tries += 1;
            let why = match queue.send(left.clone()).await {
                Ok(rejected) => {
                    let why = rejected.first().map(|one| one.reason.clone());
                    let again = rejected.into_iter().map(|one| left[one.index].clone());
                    left = again.collect();
                    why.unwrap_or_default()
                }
                // It may have arrived: sent twice it is taken in once.
                Err(error @ (QueueError::Throttled(_) | QueueError::Unclear(_))) => {
                    error.to_string()
                }
                Err(QueueError::Refused(why)) => return Err(SendError { sent, why }),
            };
            if !left.is_empty() {
                if tries >= SENDS_MAX {
                    return Err(SendError { sent, why });
                }
                runtime.clock.sleep(AGAIN_AFTER).await;
            }
        }
        sent += batch.len();
    }
    Ok(())
}

/// Not all messages were sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (after {sent} were sent)")]
pub struct SendError {
    /// So many were sent.
    pub sent: usize,
    /// Why no more.
    pub why: String,
}
