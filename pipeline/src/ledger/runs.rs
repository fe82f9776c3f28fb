//! Runs: one row each, and an index in the order of their start.

use serde::{Deserialize, Serialize};

use crate::core::id::{Generation, JobName, RunId, WriteId};
use crate::core::part::Cursor;
use crate::core::planted::{Bug, is_planted};
use crate::core::redrive::Selection;
use crate::core::run::{Limits, Reason, Run, RunEvent, RunStatus, Wish};
use crate::core::time::Timestamp;
use crate::core::window::Window;
use crate::ports::table::Change;
use crate::ports::{Condition, Key, Query, Row, Update, Write};

use super::error::{LedgerError, damaged};
use super::parts::Resumption;
use super::{Ledger, SCHEMA_VERSION, UNCLEAR_TRIES_MAX, keys, unclear};

/// What a run starts with.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its name.
    pub id: RunId,
    /// Its job's name.
    pub job: JobName,
    /// The job file's text, kept so that resume and redrive need no file.
    pub job_text: String,
    /// The job file's name, for messages.
    pub job_file: String,
    /// The directory its relative paths begin at.
    pub base: String,
    /// What the starter wants to read again with the job, such as flags; opaque here.
    pub options: String,
    /// How it is judged.
    pub limits: Limits,
    /// Now.
    pub created: Timestamp,
}

/// The redrive under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redrive {
    /// What it takes.
    pub selection: Selection,
    /// Whether sources that changed are taken as they are now.
    #[serde(default)]
    pub refresh: bool,
}

/// A run's row.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Its name.
    pub id: RunId,
    /// Its job's name.
    pub job: JobName,
    /// The job file's text.
    pub job_text: String,
    /// The job file's name.
    pub job_file: String,
    /// The directory its relative paths begin at.
    pub base: String,
    /// What the starter stored beside the job.
    pub options: String,
    /// Status, generation, reason, limits.
    pub state: Run,
    /// What another process asked for.
    pub wish: Option<Wish>,
    /// Where the reader stands.
    pub input: Resumption,
    /// The cursor as it is, also at the end.
    pub cursor: Cursor,
    /// Parts frozen.
    pub parts: u32,
    /// Items found so far.
    pub total: u64,
    /// The redrive under way or last made.
    pub redrive: Option<Redrive>,
    /// The first part that the redrive has not gone through; none: it is done.
    pub redrive_part: Option<u32>,
    /// When it started.
    pub created: Timestamp,
    /// When it ended or paused.
    pub ended: Option<Timestamp>,
    /// The last generation whose result files are complete.
    pub compiled: Option<Generation>,
    /// Event mode: the window that it is.
    pub window: Option<Window>,
    /// The name of the last change of its state; none: it is as it began.
    pub change: Option<WriteId>,
}

impl RunRow {
    /// The total, once it can no longer grow.
    pub fn total_final(&self) -> Option<u64> {
        match self.input {
            Resumption::Done => Some(self.total),
            Resumption::At(_) => None,
        }
    }

    /// Whether items that were pending when the redrive began are worked on.
    pub fn takes_pending(&self) -> bool {
        takes_pending(self.redrive.as_ref())
    }

    /// What a glance at it would have shown.
    pub fn glance(&self) -> RunGlance {
        RunGlance {
            status: self.state.status,
            generation: self.state.generation,
            wish: self.wish,
            redrive: self.redrive.clone(),
            redrive_part: self.redrive_part,
        }
    }
}

/// What is to be known of a run each second. It is read from the whole row, which has the job's text; that is neither
/// copied nor decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunGlance {
    /// Where it stands.
    pub status: RunStatus,
    /// How often it was redriven.
    pub generation: Generation,
    /// What another process asked for.
    pub wish: Option<Wish>,
    /// The redrive under way or last made.
    pub redrive: Option<Redrive>,
    /// The first part that the redrive has not gone through; none: it is done.
    pub redrive_part: Option<u32>,
}

impl RunGlance {
    /// Whether items that were pending when the redrive began are worked on.
    pub fn takes_pending(&self) -> bool {
        takes_pending(self.redrive.as_ref())
    }
}

fn takes_pending(redrive: Option<&Redrive>) -> bool {
    match redrive {
        Some(redrive) => redrive.selection.takes_pending(),
        None => true,
    }
}

/// One line of the index of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub id: RunId,
    /// Its job.
    pub job: JobName,
    /// When it started.
    pub created: Timestamp,
}

/// A change of a run's state that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChange {
    /// The state before.
    pub before: Run,
    /// The state after.
    pub after: Run,
}

impl Ledger {
    /// Starts a run. A name that is taken is refused.
    pub async fn create_run(&self, new: &NewRun) -> Result<(), LedgerError> {
        for tried in 0..UNCLEAR_TRIES_MAX {
            match self.transact(creations(new)).await {
                Err(error) if error.is_unclear() => {}
                // The row is that of an earlier try whose answer was lost.
                Err(error)
                    if error.is_condition()
                        && tried > 0
                        && self.run(&new.id).await?.created == new.created =>
                {
                    return Ok(());
                }
                result => return result,
            }
        }
        Err(unclear("a run's making"))
    }

    /// A run's row.
    pub async fn run(&self, run: &RunId) -> Result<RunRow, LedgerError> {
        let key = keys::run(run);
        let row = self.get(&key).await?;
        let row = row.ok_or_else(|| LedgerError::NotFound(format!("run {run}")))?;
        decode(&key, run, &row)
    }

    /// How a run stands, and what was wished.
    pub async fn glance(&self, run: &RunId) -> Result<RunGlance, LedgerError> {
        let key = keys::run(run);
        let row = self.get(&key).await?;
        let row = row.ok_or_else(|| LedgerError::NotFound(format!("run {run}")))?;
        decode_glance(&key, &row)
    }

    /// All runs, oldest first.
    pub async fn runs(&self) -> Result<Vec<RunSummary>, LedgerError> {
        const ROWS: usize = 1000;
        let mut runs = Vec::new();
        for (sk, row) in self
            .query_all(Query::all(keys::RUNS, ROWS), usize::MAX)
            .await?
        {
            let key = Key::new(keys::RUNS, &sk);
            let (created, id) = sk
                .split_once('#')
                .ok_or_else(|| damaged(&key, "its name has no #"))?;
            let created = created
                .parse()
                .map_err(|_| damaged(&key, "its name has no time"))?;
            let job = row
                .text("job")
                .ok_or_else(|| damaged(&key, "it names no job"))?;
            runs.push(RunSummary {
                id: RunId::new(id),
                job: JobName::new(job),
                created: Timestamp(created),
            });
        }
        Ok(runs)
    }

    /// Carries out one event on a run: one conditional write, so that of two judges one decides. Like a
    /// page's, these writes form a chain: what was decided by a row that has changed since is not written,
    /// even if the run came back to the same status.
    ///
    /// # Errors
    /// [`LedgerError::Raced`] if somebody else changed it; nothing was written.
    pub async fn change_run(
        &self,
        row: &RunRow,
        event: &RunEvent,
        redrive: Option<&Redrive>,
    ) -> Result<RunChange, LedgerError> {
        let before = row.state.clone();
        let after = before.apply(event)?;
        let now = self.runtime.clock.now();
        let change = self.next_write();
        let mut updates = vec![
            Update::Set("status".into(), after.status.as_str().into()),
            Update::Set("gen".into(), i64::from(after.generation.0).into()),
            Update::Set("limits".into(), json(&after.limits).into()),
            Update::Set("change".into(), change.as_str().into()),
            Update::Remove("wish".into()),
        ];
        updates.push(match &after.reason {
            Some(reason) => Update::Set("reason".into(), json(reason).into()),
            None => Update::Remove("reason".into()),
        });
        updates.push(match after.status {
            RunStatus::Running => Update::Remove("ended".into()),
            RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
                Update::Set("ended".into(), now.0.into())
            }
        });
        if let Some(redrive) = redrive {
            updates.push(Update::Set("redrive".into(), json(redrive).into()));
            updates.push(Update::Set("redrivePart".into(), 0.into()));
        }
        let mut when = vec![
            Condition::Equals("status".into(), before.status.as_str().into()),
            Condition::Equals("gen".into(), i64::from(before.generation.0).into()),
            match &row.change {
                Some(last) => Condition::Equals("change".into(), last.as_str().into()),
                None => Condition::Missing("change".into()),
            },
        ];
        if *event == RunEvent::Succeed {
            // No item may have been found since the judge looked.
            let total = i64::try_from(row.total).unwrap_or(i64::MAX);
            when.push(Condition::Equals("total".into(), total.into()));
            when.push(Condition::Equals("inputDone".into(), 1.into()));
        }
        if *event == RunEvent::Redrive && row.window.is_some() {
            // What is taken in while pages are reopened would be of no generation.
            when.push(Condition::Equals("inputDone".into(), 1.into()));
        }
        if is_planted(Bug::RunChangesUnchained) || is_planted(Bug::VerdictBeforeTheEnd) {
            when.clear();
        }
        let mut writes = vec![Write::update(keys::run(&row.id), when, updates)];
        if let (RunEvent::Redrive, Some(window)) = (event, row.window) {
            // Those who serve take it up again.
            writes.push(Write {
                key: keys::window(&row.job, window.start.0, &row.id),
                when: Vec::new(),
                change: Change::Put(Row::new().with("v", SCHEMA_VERSION)),
            });
        }
        for _ in 0..UNCLEAR_TRIES_MAX {
            let result = match writes.as_slice() {
                [write] => self.write(write.clone()).await.map(|_| ()),
                _ => self.transact(writes.clone()).await,
            };
            let Err(error) = result else {
                return Ok(RunChange { before, after });
            };
            let now = self.run(&row.id).await?;
            if now.change.as_ref() == Some(&change) {
                return Ok(RunChange { before, after });
            }
            if error.is_condition() {
                return Err(LedgerError::Raced);
            }
        }
        Err(unclear("a run's change"))
    }

    /// Writes a wish that runners obey within a second.
    pub async fn wish(&self, run: &RunId, wish: Wish) -> Result<(), LedgerError> {
        let when = vec![Condition::Equals(
            "status".into(),
            RunStatus::Running.as_str().into(),
        )];
        let updates = vec![Update::Set("wish".into(), wish.as_str().into())];
        match self
            .write_at_will(Write::update(keys::run(run), when, updates))
            .await
        {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            result => result,
        }
    }

    /// Records how far the redrive has gone through the parts; none: it is done.
    pub async fn redrive_reached(
        &self,
        run: &RunId,
        generation: Generation,
        part: Option<u32>,
    ) -> Result<(), LedgerError> {
        let mut when = vec![Condition::Equals(
            "gen".into(),
            i64::from(generation.0).into(),
        )];
        let update = match part {
            Some(part) => {
                // Only forward: once it is done, a slower redriver must not take it up again.
                when.push(Condition::AtMost("redrivePart".into(), i64::from(part)));
                Update::Set("redrivePart".into(), i64::from(part).into())
            }
            None => Update::Remove("redrivePart".into()),
        };
        match self
            .write(Write::update(keys::run(run), when, vec![update]))
            .await
        {
            Err(error) if error.is_condition() => {
                // Of the same redrive, somebody is further already.
                let now = self.run(run).await?;
                if now.state.generation == generation {
                    Ok(())
                } else {
                    Err(LedgerError::Raced)
                }
            }
            result => result.map(|_| ()),
        }
    }

    /// A run that is PAUSED goes on, judged by `limits` if some are given. After a selective redrive that means
    /// what it had left pending, in the same write: another resume would find the selection done again.
    ///
    /// # Errors
    /// As [`Ledger::change_run`].
    pub async fn resume(
        &self,
        row: &RunRow,
        limits: Option<Limits>,
    ) -> Result<RunChange, LedgerError> {
        let selection_done = matches!(row.state.reason, Some(Reason::SelectionDone { .. }));
        let redrive = row.redrive.clone().filter(|_| selection_done);
        let redrive = redrive.map(|mut redrive| {
            redrive.selection.pending = Some(true);
            redrive
        });
        self.change_run(row, &RunEvent::Resume(limits), redrive.as_ref())
            .await
    }

    /// Replaces the stored job and how the run is judged (`--job FILE`).
    pub async fn replace_job(&self, new: &NewRun) -> Result<(), LedgerError> {
        let updates = vec![
            Update::Set("text".into(), new.job_text.as_str().into()),
            Update::Set("file".into(), new.job_file.as_str().into()),
            Update::Set("base".into(), new.base.as_str().into()),
            Update::Set("options".into(), new.options.as_str().into()),
            Update::Set("limits".into(), json(&new.limits).into()),
        ];
        self.write(Write::update(
            keys::run(&new.id),
            vec![Condition::Present],
            updates,
        ))
        .await
        .map(|_| ())
    }

    /// Records that the result files of a generation are complete.
    ///
    /// # Errors
    /// [`LedgerError::Raced`]: it is not the run's generation any more.
    pub async fn compiled(&self, run: &RunId, generation: Generation) -> Result<(), LedgerError> {
        let number = i64::from(generation.0);
        let write = Write::update(
            keys::run(run),
            vec![Condition::Equals("gen".into(), number.into())],
            vec![Update::Set("compiled".into(), number.into())],
        );
        match self.write_at_will(write).await {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            result => result,
        }
    }
}

/// The writes that make a run: its row, first, and its line in the index.
pub(super) fn creations(new: &NewRun) -> Vec<Write> {
    let state = Run::new(new.limits);
    let row = Row::new()
        .with("v", SCHEMA_VERSION)
        .with("job", new.job.as_str())
        .with("text", new.job_text.as_str())
        .with("file", new.job_file.as_str())
        .with("base", new.base.as_str())
        .with("options", new.options.as_str())
        .with("status", state.status.as_str())
        .with("gen", 0)
        .with("limits", json(&state.limits))
        .with("cursor", json(&Cursor::default()))
        .with("parts", 0)
        .with("total", 0)
        .with("inputDone", 0)
        .with("created", new.created.0);
    let index = Row::new()
        .with("v", SCHEMA_VERSION)
        .with("job", new.job.as_str());
    let index_key = keys::run_index(new.created.0, &new.id);
    vec![
        Write::create(keys::run(&new.id), row),
        Write::create(index_key, index),
    ]
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data serialises")
}

fn decode_glance(key: &Key, row: &Row) -> Result<RunGlance, LedgerError> {
    let bad = |what: &str| damaged(key, format!("{what} cannot be read"));
    let small = |name: &str| row.num(name).and_then(|number| u32::try_from(number).ok());
    let redrive = match row.text("redrive") {
        Some(text) => Some(serde_json::from_str(text).map_err(|_| bad("redrive"))?),
        None => None,
    };
    let wish = match row.text("wish") {
        Some(name) => Some(Wish::from_name(name).ok_or_else(|| bad("wish"))?),
        None => None,
    };
    let status = row.text("status").and_then(RunStatus::from_name);
    Ok(RunGlance {
        status: status.ok_or_else(|| bad("status"))?,
        generation: Generation(small("gen").ok_or_else(|| bad("gen"))?),
        wish,
        redrive,
        redrive_part: small("redrivePart"),
    })
}

fn decode(key: &Key, id: &RunId, row: &Row) -> Result<RunRow, LedgerError> {
    let bad = |what: &str| damaged(key, format!("{what} cannot be read"));
    let seen = decode_glance(key, row)?;
    let text = |name: &'static str| row.text(name).ok_or_else(|| bad(name));
    let number = |name: &'static str| -> Result<u64, LedgerError> {
        row.num(name)
            .and_then(|n| u64::try_from(n).ok())
            .ok_or_else(|| bad(name))
    };
    let small = |name: &'static str| -> Result<u32, LedgerError> {
        u32::try_from(number(name)?).map_err(|_| bad(name))
    };
    let cursor: Cursor = serde_json::from_str(text("cursor")?).map_err(|_| bad("cursor"))?;
    let limits: Limits = serde_json::from_str(text("limits")?).map_err(|_| bad("limits"))?;
    let reason: Option<Reason> = match row.text("reason") {
        Some(text) => Some(serde_json::from_str(text).map_err(|_| bad("reason"))?),
        None => None,
    };
    let input = match number("inputDone")? {
        0 => Resumption::At(cursor.clone()),
        _ => Resumption::Done,
    };
    let state = Run {
        status: seen.status,
        generation: seen.generation,
        reason,
        limits,
    };
    Ok(RunRow {
        id: id.clone(),
        job: JobName::new(text("job")?),
        job_text: text("text")?.to_owned(),
        job_file: text("file")?.to_owned(),
        base: text("base")?.to_owned(),
        options: row.text("options").unwrap_or("").to_owned(),
        state,
        wish: seen.wish,
        input,
        cursor,
        parts: small("parts")?,
        total: number("total")?,
        redrive: seen.redrive,
        redrive_part: seen.redrive_part,
        created: Timestamp(row.num("created").ok_or_else(|| bad("created"))?),
        ended: row.num("ended").map(Timestamp),
        compiled: row
            .num("compiled")
            .and_then(|n| u32::try_from(n).ok())
            .map(Generation),
        window: window_of(row),
        change: row.text("change").map(WriteId::new),
    })
}

fn window_of(row: &Row) -> Option<Window> {
    Some(Window {
        start: Timestamp(row.num("windowStart")?),
        end: Timestamp(row.num("windowEnd")?),
    })
}
