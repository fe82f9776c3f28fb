//! The ledger: the tables of runs, parts, pages, tallies, failures and sessions. The only user of
//! [`Table`].
//!
//! It is the truth. Each rule is a conditional write that the pure machines of [`crate::core`] decided,
//! so it is visible to the simulator. A page's writes form a chain: each is conditional on the name of
//! the one before. What a lost reply leaves unclear is read back: the write's name is mine, so it
//! happened; the lease is mine, so it goes again; else the lease is lost.

mod error;
mod failures;
mod intakes;
mod keys;
mod marks;
mod page_row;
mod pages;
mod parts;
mod runs;
mod sessions;
mod tallies;
#[cfg(test)]
mod tests;
mod windows;

use std::hash::{Hash as _, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use error::LedgerError;
pub use failures::{FailureRow, Fence};
pub use intakes::{
    INTAKE_PAGES_MAX, Intake, IntakeCounts, IntakeState, QUARANTINED_BYTES_MAX, Quarantined,
    ReadyEnd,
};
pub use marks::Marked;
pub use pages::{Held, SettleEnd, Settlement};
pub use parts::{Progress, Resumption};
pub use runs::{NewRun, Redrive, RunChange, RunGlance, RunRow, RunSummary};
pub use sessions::{Pool, SessionRow, SessionStatus};
pub use windows::OpenWindow;

use crate::core::id::{SessionId, WriteId};
use crate::ports::{Consistency, Key, Query, Row, Runtime, Table, TableError, Write};

/// The schema version this program writes. Rows with a larger one are refused, never guessed at.
pub const SCHEMA_VERSION: i64 = 1;

/// A call that was certainly not carried out is tried again this often before the caller hears of
/// it; with the waits below that is about 20 s, longer than a partition split or a failover takes.
const TRIES_MAX: u32 = 12;
const WAIT_FIRST: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(4);

/// A write with no clear answer is looked up and repeated this often: tables try nothing again by
/// themselves.
const UNCLEAR_TRIES_MAX: u32 = 5;

/// The ledger, as one session uses it. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    table: Arc<dyn Table>,
    runtime: Runtime,
    session: SessionId,
    writes: Arc<AtomicU64>,
    /// The permits that this session holds, while that is clear.
    permits: Arc<Mutex<Option<sessions::OwnPermits>>>,
}

impl Ledger {
    /// The ledger in `table`; `session` names this process's writes.
    pub fn new(table: Arc<dyn Table>, runtime: Runtime, session: SessionId) -> Self {
        Self {
            table,
            runtime,
            session,
            writes: Arc::default(),
            permits: Arc::default(),
        }
    }

    /// The session that writes.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// What the table's endpoint can do.
    pub fn profile(&self) -> crate::ports::TableProfile {
        self.table.profile()
    }

    /// A new name for a write: nobody else's, and never this session's again.
    fn next_write(&self) -> WriteId {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        WriteId::new(format!("{}.{number:x}", self.session))
    }

    async fn get(&self, key: &Key) -> Result<Option<Row>, LedgerError> {
        let mut tries = Tries::new(self);
        loop {
            match self.table.get(key, Consistency::Strong).await {
                Ok(Some(row)) => return error::readable(row, || key.clone()).map(Some),
                Ok(None) => return Ok(None),
                Err(error) => tries.again(error, Repeat::AtWill).await?,
            }
        }
    }

    /// One write; only what certainly did not happen is tried again.
    async fn write(&self, write: Write) -> Result<Option<Row>, LedgerError> {
        self.write_as(write, Repeat::Writes).await
    }

    /// One write that comes to the same when it is made twice: what may have happened is tried again, too.
    async fn write_at_will(&self, write: Write) -> Result<(), LedgerError> {
        self.write_as(write, Repeat::AtWill).await.map(|_| ())
    }

    async fn write_as(&self, write: Write, repeat: Repeat) -> Result<Option<Row>, LedgerError> {
        let mut tries = Tries::new(self);
        loop {
            match self.table.write(write.clone()).await {
                Ok(row) => return Ok(row),
                Err(error) => tries.again(error, repeat).await?,
            }
        }
    }

    /// One transaction; its token is made of its content, so that the endpoint knows a repetition.
    async fn transact(&self, writes: Vec<Write>) -> Result<(), LedgerError> {
        let token = token_of(&writes);
        let mut tries = Tries::new(self);
        loop {
            match self.table.transact(&token, writes.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.again(error, Repeat::Writes).await?,
            }
        }
    }

    /// All rows of a query, in order, up to `rows_max`.
    async fn query_all(
        &self,
        mut query: Query,
        rows_max: usize,
    ) -> Result<Vec<(String, Row)>, LedgerError> {
        let mut rows = Vec::new();
        let mut tries = Tries::new(self);
        loop {
            query.limit = query.limit.min(rows_max - rows.len()).max(1);
            let page = match self.table.query(query.clone()).await {
                Ok(page) => page,
                Err(error) => {
                    tries.again(error, Repeat::AtWill).await?;
                    continue;
                }
            };
            for (sk, row) in page.rows {
                let row = error::readable(row, || Key::new(&query.pk, &sk))?;
                rows.push((sk, row));
            }
            match page.next {
                Some(next) if rows.len() < rows_max => query.after = Some(next),
                Some(_) | None => return Ok(rows),
            }
        }
    }
}

/// Which errors may be met by trying again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// A read may always be repeated, and so may some writes.
    AtWill,
    /// A write only if it certainly did not happen.
    Writes,
}

struct Tries<'a> {
    ledger: &'a Ledger,
    made: u32,
}

impl<'a> Tries<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        Self { ledger, made: 0 }
    }

    /// Waits before the next try, or gives the error back.
    async fn again(&mut self, error: TableError, repeat: Repeat) -> Result<(), LedgerError> {
        let may_repeat = match &error {
            TableError::Conflict | TableError::Throttled(_) => true,
            TableError::Unclear(_) => repeat == Repeat::AtWill,
            TableError::ConditionFailed { .. } | TableError::Refused(_) => false,
        };
        self.made += 1;
        if !may_repeat || self.made >= TRIES_MAX {
            return Err(error.into());
        }
        let full = WAIT_FIRST
            .saturating_mul(1 << self.made.min(16))
            .min(WAIT_MAX);
        let draw = self.ledger.runtime.entropy.next_u64();
        let wait = full.mul_f64(0.5 + 0.5 * (draw as f64 / u64::MAX as f64));
        self.ledger.runtime.clock.sleep(wait).await;
        Ok(())
    }
}

/// Given up: whether it happened is not known.
fn unclear(what: &str) -> LedgerError {
    TableError::Unclear(format!("{what} was tried {UNCLEAR_TRIES_MAX} times")).into()
}

/// A token of the writes: equal content, equal token.
fn token_of(writes: &[Write]) -> String {
    let mut hash = Fnv::new();
    writes.hash(&mut hash);
    format!("{:032x}", hash.0)
}

/// FNV-1a: names what has the same content alike, on every machine and in every version.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte))
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.add(bytes);
    }

    /// Half of it, where room is dear: the better mixed one.
    fn finish(&self) -> u64 {
        (self.0 >> 64) as u64
    }
}
