//! Windows of an endless job: each is a run whose parts come by intake. An index names those that are not done with.
//!
//! A window's total is what was taken in, counted on the rows of its shards' progress. Each of these is sealed by
//! itself; once all are, nothing more is taken in, and the sum is the run's total.

use crate::core::id::{JobName, RunId, SHARDS};
use crate::core::planted::{Bug, is_planted};
use crate::core::window::Window;
use crate::ports::table::Change;
use crate::ports::{Condition, Key, Query, Update, Write};

use super::error::{LedgerError, damaged};
use super::intakes::IntakeCounts;
use super::parts::Progress;
use super::runs::{NewRun, RunRow};
use super::{Ledger, SCHEMA_VERSION, keys};

/// A window that is not done with.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenWindow {
    /// Its run.
    pub row: RunRow,
    /// When it is.
    pub window: Window,
}

/// Windows looked up at a time: an endless job has two or three.
const ROWS: usize = 100;

impl Ledger {
    /// Starts the run of a window, if nobody did yet.
    pub async fn open_window(&self, new: &NewRun, window: Window) -> Result<(), LedgerError> {
        let mut writes = super::runs::creations(new);
        if let Change::Put(row) = &mut writes[0].change {
            row.set("windowStart".into(), window.start.0.into());
            row.set("windowEnd".into(), window.end.0.into());
        }
        let index = crate::ports::Row::new().with("v", SCHEMA_VERSION);
        writes.push(Write::create(
            keys::window(&new.job, window.start.0, &new.id),
            index,
        ));
        match self.transact(writes).await {
            Err(error) if error.is_condition() => Ok(()),
            Err(error) if error.is_unclear() => self.run(&new.id).await.map(|_| ()),
            result => result,
        }
    }

    /// The windows of a job that are not done with, oldest first.
    pub async fn open_windows(&self, job: &JobName) -> Result<Vec<OpenWindow>, LedgerError> {
        let pk = keys::windows(job);
        let mut windows = Vec::new();
        for (sk, _) in self.query_all(Query::all(&pk, ROWS), usize::MAX).await? {
            let run = sk.split_once('#').map(|(_, run)| RunId::new(run));
            let Some(run) = run else {
                return Err(damaged(&Key::new(&pk, &sk), "its name has no #"));
            };
            let row = self.run(&run).await?;
            if let Some(window) = row.window {
                windows.push(OpenWindow { row, window });
            }
        }
        Ok(windows)
    }

    /// A window is done with: it has its verdict and its result files.
    pub async fn close_window(&self, job: &JobName, done: &OpenWindow) -> Result<(), LedgerError> {
        let write = Write {
            key: keys::window(job, done.window.start.0, &done.row.id),
            when: Vec::new(),
            change: Change::Delete,
        };
        self.write(write).await.map(|_| ())
    }

    /// A run's total, so far if it is a window that still takes in, and what a window met in the ingest queue.
    pub async fn total_and_met(
        &self,
        row: &RunRow,
    ) -> Result<(u64, Option<IntakeCounts>), LedgerError> {
        if row.window.is_none() {
            return Ok((row.total, None));
        }
        let met = met(&self.progress(&row.id).await?);
        let total = row.total_final().unwrap_or(met.taken);
        Ok((total, Some(met)))
    }

    /// Ends the taking in: from here on the total is final. May be repeated, by anybody.
    pub async fn seal(&self, run: &RunId) -> Result<u64, LedgerError> {
        let before = self.progress(run).await?;
        for (shard, progress) in (0..SHARDS).zip(&before) {
            if !progress.sealed {
                let updates = vec![
                    Update::Set("v".into(), SCHEMA_VERSION.into()),
                    Update::Set("sealed".into(), 1.into()),
                ];
                let write = Write::update(keys::progress(run, shard), Vec::new(), updates);
                self.write(write).await?;
            }
        }
        // Only what is read after the last seal is final.
        let total = if is_planted(Bug::SealedTooEarly) {
            met(&before).taken
        } else {
            met(&self.progress(run).await?).taken
        };
        let write = Write::update(
            keys::run(run),
            vec![Condition::Equals("inputDone".into(), 0.into())],
            vec![
                Update::Set(
                    "total".into(),
                    i64::try_from(total).unwrap_or(i64::MAX).into(),
                ),
                Update::Set("inputDone".into(), 1.into()),
            ],
        );
        match self.write(write).await {
            Err(error) if error.is_condition() => Ok(self.run(run).await?.total),
            result => result.map(|_| total),
        }
    }
}

fn met(shards: &[Progress]) -> IntakeCounts {
    let mut met = IntakeCounts::default();
    for progress in shards {
        met.add(&progress.intake);
    }
    met
}
