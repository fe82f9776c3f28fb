//! Failure rows: evidence for people and for selections, never the truth.
//!
//! They are written before the settle and outside its transaction; where a page says otherwise, the page
//! is right. One row an item and generation, under the page where the item first stood. Of several who held the
//! item, the last one's word stands: a late write of an earlier one is refused.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::core::class::{Class, Failure};
use crate::core::id::{Epoch, Generation, ItemId, PageId, RunId, SHARDS};
use crate::core::outcome::Outcome;
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::ports::table::{Change, Condition};
use crate::ports::{Key, Query, Row, Write};

use super::error::{LedgerError, damaged};
use super::{Ledger, SCHEMA_VERSION, keys};

/// Whose word a row is: later ones stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(i64);

impl Fence {
    /// Above every epoch of a page that has not moved: epochs are 32 bits.
    const MOVED: i64 = 1 << 32;

    /// That of who holds the item's page in this epoch. An item moves once in a generation, to a page of its own.
    pub fn of(page: PageId, epoch: Epoch) -> Self {
        let moved = if page.escalated.is_some() {
            Self::MOVED
        } else {
            0
        };
        Self(moved + i64::from(epoch.0))
    }
}

/// Why an item failed in one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// The item.
    pub item: ItemId,
    /// The generation.
    pub generation: Generation,
    /// Who says so.
    pub fence: Fence,
    /// What it became.
    pub outcome: Outcome,
    /// Class and cause of its last attempt.
    pub failure: Failure,
    /// Calls of it in this generation.
    pub attempts: u32,
    /// Its key or value, cut to a column.
    pub label: String,
    /// When.
    pub at: Timestamp,
}

/// Rows of before it have none.
const FENCE: &str = "fence";

impl FailureRow {
    fn encode(&self) -> Row {
        Row::new()
            .with("v", SCHEMA_VERSION)
            .with(FENCE, self.fence.0)
            .with("outcome", self.outcome.as_str())
            .with("class", self.failure.class.as_str())
            .with("cause", self.failure.cause.as_str())
            .with("fingerprint", self.failure.fingerprint())
            .with("attempts", i64::from(self.attempts))
            .with("label", self.label.as_str())
            .with("at", self.at.0)
    }
}

impl Ledger {
    /// Keeps evidence, but for what a later holder has said already. Repeating it does no harm, so that what was not
    /// clearly kept is kept again.
    pub async fn keep_failures(
        &self,
        run: &RunId,
        failures: &[FailureRow],
    ) -> Result<(), LedgerError> {
        /// Writes under way at one time: enough to fill a group commit.
        const AT_ONCE: usize = 64;
        for group in failures.chunks(AT_ONCE) {
            let writes = group.iter().map(|failure| self.keep_failure(run, failure));
            // All of them are waited for, also where one fails: none is left under way.
            let written: Vec<_> = writes.collect::<FuturesUnordered<_>>().collect().await;
            written.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn keep_failure(&self, run: &RunId, failure: &FailureRow) -> Result<(), LedgerError> {
        let nobody_else = Condition::Missing(FENCE.into());
        let nobody_later = Condition::AtMost(FENCE.into(), failure.fence.0);
        for when in [nobody_else, nobody_later] {
            let when = match is_planted(Bug::FormersWordStands) {
                true => Vec::new(),
                false => vec![when],
            };
            let write = Write {
                key: keys::failure(run, failure.item, failure.generation),
                when,
                change: Change::Put(failure.encode()),
            };
            match self.write(write).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_condition() => {}
                Err(error) => return Err(error),
            }
        }
        // A later holder has had its say.
        Ok(())
    }

    /// Evidence of one item, over all generations, oldest first.
    pub async fn failures_of(
        &self,
        run: &RunId,
        item: ItemId,
    ) -> Result<Vec<FailureRow>, LedgerError> {
        let prefix = format!("{}#{:02}#", item.page(), item.index);
        let shard = item.page().shard();
        self.failures_between(run, shard, &prefix, &format!("{prefix}~"))
            .await
    }

    /// Evidence of all items of one page, over all generations.
    pub async fn failures_of_page(
        &self,
        run: &RunId,
        page: PageId,
    ) -> Result<Vec<FailureRow>, LedgerError> {
        let origin = PageId::new(page.part, page.number);
        self.failures_between(
            run,
            page.shard(),
            &format!("{origin}#"),
            &format!("{origin}#~"),
        )
        .await
    }

    /// Evidence of all items of one shard, over all generations.
    pub async fn failures_of_shard(
        &self,
        run: &RunId,
        shard: u32,
    ) -> Result<Vec<FailureRow>, LedgerError> {
        debug_assert!(shard < SHARDS, "shards are numbered below {SHARDS}");
        self.failures_between(run, shard, " ", Query::LAST).await
    }

    async fn failures_between(
        &self,
        run: &RunId,
        shard: u32,
        from: &str,
        to: &str,
    ) -> Result<Vec<FailureRow>, LedgerError> {
        const ROWS: usize = 200;
        let pk = keys::failures(run, shard);
        let query = Query::all(&pk, ROWS).between(from, to);
        let mut failures = Vec::new();
        for (sk, row) in self.query_all(query, usize::MAX).await? {
            failures.push(decode(&Key::new(&pk, &sk), &sk, &row)?);
        }
        Ok(failures)
    }
}

fn decode(key: &Key, sk: &str, row: &Row) -> Result<FailureRow, LedgerError> {
    let bad = |what: &str| damaged(key, format!("{what} cannot be read"));
    let mut fields = sk.split('#');
    let mut next = || fields.next().ok_or_else(|| bad("its name"));
    let (page, index, generation) = (next()?, next()?, next()?);
    let page: PageId = page.parse().map_err(|_| bad("its name"))?;
    let item = page.origin(index.parse().map_err(|_| bad("its name"))?);
    let text = |name: &'static str| row.text(name).ok_or_else(|| bad(name));
    Ok(FailureRow {
        item,
        generation: Generation(generation.parse().map_err(|_| bad("its name"))?),
        fence: Fence(row.num(FENCE).unwrap_or_default()),
        outcome: Outcome::from_name(text("outcome")?).ok_or_else(|| bad("outcome"))?,
        failure: Failure::new(Class::from_name(text("class")?), text("cause")?),
        attempts: row
            .num("attempts")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        label: row.text("label").unwrap_or("").to_owned(),
        at: Timestamp(row.num("at").unwrap_or(0)),
    })
}
