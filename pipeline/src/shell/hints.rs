//! Hints: a lane's message says that a page may be ready. Losing, doubling or reordering them costs
//! time, never an item.

use std::sync::Arc;
use std::time::Duration;

use crate::core::id::{PageId, RunId};
use crate::core::lane::Lane;
use crate::ports::queue::Outgoing;
use crate::ports::{Queue, QueueError};

use super::env::Env;

/// How long a hint stays hidden while its page is being leased, which is a read and a write. If the worker dies
/// in between, the hint comes back; if it only is slow, a second worker finds the page leased. Short, as a
/// process that left may have a receive under way at the service, which then hides a hint that nobody got.
pub(super) const HINT_VISIBILITY: Duration = Duration::from_secs(5);

/// The hint's text.
pub(super) fn encode(run: &RunId, page: PageId) -> String {
    format!("{run} {page}")
}

/// Run and page of a hint; none if the message is not one.
pub(super) fn decode(body: &str) -> Option<(RunId, PageId)> {
    let (run, page) = body.split_once(' ')?;
    Some((RunId::new(run), page.parse().ok()?))
}

impl Env {
    /// Sends hints. What is not sent is found by the sweeper, so a failure is only noted.
    pub async fn hint(&self, run: &RunId, lane: Lane, pages: &[PageId]) {
        let Some(queue) = self.queues.get(&lane) else {
            tracing::error!(%lane, "no queue for this lane");
            return;
        };
        if let Err(error) = send(queue, run, pages).await {
            tracing::warn!(%lane, %error, "hints were not sent; the sweeper will send them");
        }
    }
}

async fn send(queue: &Arc<dyn Queue>, run: &RunId, pages: &[PageId]) -> Result<(), QueueError> {
    for batch in pages.chunks(queue.profile().batch_max) {
        let messages = batch
            .iter()
            .map(|page| Outgoing::now(encode(run, *page)))
            .collect();
        let rejected = queue.send(messages).await?;
        if !rejected.is_empty() {
            tracing::warn!(hints = rejected.len(), reason = %rejected[0].reason, "hints were rejected");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_reads_back_and_junk_does_not() {
        let (run, page) = (
            RunId::new("brave-heron-4f2a"),
            PageId::new(3, 7).escalation_of(1),
        );
        assert_eq!(decode(&encode(&run, page)), Some((run, page)));
        for junk in ["", "x", "a b", "{\"a\":1}"] {
            assert_eq!(decode(junk), None, "{junk}");
        }
    }
}
