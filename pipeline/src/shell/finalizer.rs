//! The finalizer: compiles the result files of a run from the ledger, and leaves out what the ledger
//! does not confirm. It may be stopped and started again at any moment: a file appears whole or not at
//! all, and the manifest, written last, names the files of one generation.
//!
//! The layout is that of Distributed Map's ResultWriter, one record an item, nothing encoded twice.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use crate::core::id::{ItemId, SessionId};
use crate::core::outcome::{ItemCounts, Outcome};
use crate::core::page::{Mark, PageStatus, Refusal};
use crate::core::part::Part;
use crate::core::planted::{Bug, is_planted};
use crate::core::run::RunStatus;
use crate::core::time::Tick;
use crate::ledger::{Held, LedgerError, SessionRow, SessionStatus};
use crate::ports::objects::Upload;
use crate::ports::{Objects, ObjectsError, Runtime};

use super::outputs::{self, Large, OutputLine};
use super::report::{ItemView, PartView, RunReader, report};

/// A new file begins when one has this many bytes ("ResultWriter", file size).
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// Sessions that have not heard of the end, and pages that they hold, are waited for so long: calls that are
/// stopped have the grace time to end, and a session that fell silent is dead sooner. Then the pages are taken.
const HELD_WAIT_MAX: Duration = Duration::from_mins(2);

/// An input that does not answer is tried so often, a second apart.
const INPUT_TRIES_MAX: u32 = 30;

/// Between two looks at what is still held.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why result files were not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The place of the results.
    #[error("the results cannot be written: {0}")]
    Results(#[from] ObjectsError),
    /// An output part.
    #[error("{0}")]
    Outputs(String),
    /// The input.
    #[error("the input cannot be read: {0}")]
    Inputs(String),
}

/// What was compiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The run.
    pub run: String,
    /// Its job.
    pub job: String,
    /// Where it stood.
    pub status: String,
    /// Its generation.
    pub generation: u32,
    /// Its counts.
    pub item_counts: ItemCounts,
    /// The files, by what their items became.
    pub result_files: BTreeMap<String, Vec<ResultFile>>,
}

/// One result file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultFile {
    /// Its key in the place of the results.
    pub key: String,
    /// Its size.
    pub size: u64,
    /// Its records.
    pub items: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    /// Where a large output is: the key of an object beside this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
}

/// The kinds of file, by what their items became.
const KINDS: [&str; 4] = ["SUCCEEDED", "FAILED", "SKIPPED", "PENDING"];

fn kind(mark: Mark) -> usize {
    match mark {
        Mark::Done(Outcome::Succeeded) => 0,
        Mark::Done(Outcome::Failed | Outcome::TimedOut | Outcome::Aborted) => 1,
        Mark::Done(Outcome::Skipped) => 2,
        Mark::Pending | Mark::Moved => 3,
    }
}

/// Compiles the result files of a run that has ended into `results` under `<run>/`, unless that was done for its
/// generation and what its manifest names is there. None: it was redriven meanwhile, and whoever ends it compiles.
///
/// # Errors
/// The ledger or the place of the results; nothing half-written is left visible.
pub async fn compile(
    run: &RunReader,
    results: &dyn Objects,
    prefix: &[u8],
    runtime: &Runtime,
) -> Result<Option<Manifest>, CompileError> {
    match compiled_before(run, results, prefix).await? {
        Some(manifest) => Ok(Some(manifest)),
        // Boxed, as it is large and every foreground's future would hold it.
        None => Box::pin(compile_anew(run, results, prefix, runtime)).await,
    }
}

/// The manifest of this generation, if all that it names is there.
async fn compiled_before(
    run: &RunReader,
    results: &dyn Objects,
    prefix: &[u8],
) -> Result<Option<Manifest>, CompileError> {
    let generation = run.row.state.generation;
    if run.row.compiled != Some(generation) {
        return Ok(None);
    }
    let key = manifest_key(&directory(run, prefix));
    let manifest = read_manifest(results, &key).await?;
    let Some(manifest) = manifest.filter(|found| found.generation == generation.0) else {
        return Ok(None);
    };
    for file in manifest.result_files.values().flatten() {
        match results.head(file.key.as_bytes()).await {
            Ok(found) if found.size_bytes == file.size => {}
            Ok(_) | Err(ObjectsError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(manifest))
}

/// The place of a run's files.
fn directory(run: &RunReader, prefix: &[u8]) -> Vec<u8> {
    [prefix, format!("{}/", run.row.id).as_bytes()].concat()
}

fn manifest_key(directory: &[u8]) -> Vec<u8> {
    [directory, b"manifest.json"].concat()
}

async fn compile_anew(
    run: &RunReader,
    results: &dyn Objects,
    prefix: &[u8],
    runtime: &Runtime,
) -> Result<Option<Manifest>, CompileError> {
    let holders = Holders {
        run,
        runtime,
        until: runtime.clock.tick() + HELD_WAIT_MAX,
    };
    if !holders.all_is_settled().await? {
        holders.wait_until_all_heard().await?;
    }
    let directory = directory(run, prefix);
    let mut files: Vec<Files<'_>> = KINDS
        .iter()
        .map(|kind| Files::new(results, &directory, kind))
        .collect();
    let mut next = 0;
    loop {
        let parts = run.parts(next).await?;
        let Some(last) = parts.last() else { break };
        next = last.number + 1;
        for part in parts {
            let view = holders.settled_view(part).await?;
            let outputs = outputs_of(run, &view.pages).await?;
            for item in run.items(&view).await? {
                let output = outputs.get(&item.item);
                let large = match output.and_then(|line| line.large.as_ref()) {
                    Some(large) => Some(copy_large(run, results, &directory, large).await?),
                    None => None,
                };
                let line = record(&item, output.and_then(|line| line.output.as_deref()), large);
                files[kind(item.mark)].add(&line).await?;
            }
        }
    }
    // What was reopened meanwhile is of no generation that could be named.
    if !holders.is_over().await? {
        return Ok(None);
    }
    let mut result_files = BTreeMap::new();
    for (kind, files) in KINDS.iter().zip(files) {
        result_files.insert((*kind).to_owned(), files.finish().await?);
    }
    let now = report(&run.ledger, &run.row.id).await?;
    let manifest = Manifest {
        run: run.row.id.to_string(),
        job: run.row.job.to_string(),
        status: run.row.state.status.as_str().to_owned(),
        generation: run.row.state.generation.0,
        item_counts: now.counts,
        result_files,
    };
    let key = manifest_key(&directory);
    let former = former_files(results, &key).await?;
    let mut text = serde_json::to_vec_pretty(&manifest).expect("plain data serialises");
    text.push(b'\n');
    results.put(&key, Bytes::from(text)).await?;
    let names = |key: &String| {
        manifest
            .result_files
            .values()
            .flatten()
            .any(|f| f.key == *key)
    };
    for gone in former.iter().filter(|key| !names(key)) {
        // A file of a former generation that the manifest no longer names would mislead.
        results.delete(gone.as_bytes()).await?;
    }
    let generation = run.row.state.generation;
    match run.ledger.compiled(&run.row.id, generation).await {
        Ok(()) => Ok(Some(manifest)),
        Err(LedgerError::Raced) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files that the manifest of before named.
async fn former_files(results: &dyn Objects, key: &[u8]) -> Result<Vec<String>, CompileError> {
    let former = read_manifest(results, key).await?;
    let files = former
        .map(|manifest| manifest.result_files)
        .unwrap_or_default();
    Ok(files.into_values().flatten().map(|file| file.key).collect())
}

/// The manifest, if there is one that can be read.
async fn read_manifest(
    results: &dyn Objects,
    key: &[u8],
) -> Result<Option<Manifest>, CompileError> {
    let mut reader = match results.get(key, 0, None, None).await {
        Ok(reader) => reader,
        Err(ObjectsError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    let read = reader.read_to_end(&mut text).await;
    read.map_err(|error| ObjectsError::Unavailable(error.to_string()))?;
    Ok(serde_json::from_slice(&text).ok())
}

/// Those who may still settle items of a run that has ended: what they settle later would not be in its files.
struct Holders<'a> {
    run: &'a RunReader,
    runtime: &'a Runtime,
    /// From then on nobody is waited for.
    until: Tick,
}

impl Holders<'_> {
    fn waits(&self) -> bool {
        self.runtime.clock.tick() < self.until && !is_planted(Bug::CompiledWhileHeld)
    }

    /// Whether every item is settled: then nobody can settle one, and whoever has not heard of the end has nothing to do.
    async fn all_is_settled(&self) -> Result<bool, LedgerError> {
        let RunReader { ledger, row, .. } = self.run;
        let settled = ledger.tallies(&row.id).await?.settled();
        Ok(row.total_final() == Some(settled.total()))
    }

    /// Waits, as long as nobody redrives the run, until every session that lives has said in a beat of its own that it
    /// does not work on the run. Two beats are waited for: the next may have been under way already. One that falls
    /// silent is dead; its sweeper may be, too.
    async fn wait_until_all_heard(&self) -> Result<(), LedgerError> {
        const BEATS: i64 = 2;
        let (ledger, job) = (&self.run.ledger, &self.run.row.job);
        let others = async || -> Result<Vec<SessionRow>, LedgerError> {
            let mut sessions = ledger.sessions(job).await?;
            sessions.retain(|session| {
                session.status == SessionStatus::Live && session.id != *ledger.session()
            });
            Ok(sessions)
        };
        let mut first: BTreeMap<SessionId, i64> = BTreeMap::new();
        for session in others().await? {
            first.insert(session.id, session.beat);
        }
        let mut last: BTreeMap<SessionId, (i64, Tick)> = BTreeMap::new();
        while self.waits() {
            let asked = self.runtime.clock.tick();
            let mut may_settle = false;
            for session in others().await? {
                let now = self.runtime.clock.tick();
                let seen = last
                    .entry(session.id.clone())
                    .or_insert((session.beat, now));
                if seen.0 != session.beat {
                    *seen = (session.beat, now);
                }
                if asked.since(seen.1) >= session.duration {
                    match ledger.mark_dead(job, &session).await {
                        Ok(()) | Err(LedgerError::Raced) => {}
                        Err(error) => return Err(error),
                    }
                }
                let heard = first
                    .get(&session.id)
                    .is_none_or(|beat| session.beat >= beat + BEATS);
                may_settle |= !heard || session.running.contains_key(&self.run.row.id);
            }
            if !may_settle || !self.is_over().await? {
                return Ok(());
            }
            self.runtime.clock.sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// A part of which nobody holds a page. It is read again if somebody did: an item may have moved meanwhile.
    async fn settled_view(&self, part: Part) -> Result<PartView, CompileError> {
        let mut unread = 0;
        loop {
            let view = self.run.part(part.clone()).await?;
            // A source that is gone leaves its items without their inputs; one that does not answer must not.
            if let Err(error) = &view.inputs
                && error.is_retryable()
            {
                unread += 1;
                if unread >= INPUT_TRIES_MAX {
                    return Err(CompileError::Inputs(error.to_string()));
                }
                self.runtime.clock.sleep(LOOK_AGAIN).await;
                continue;
            }
            let mut changed = false;
            for held in &view.pages {
                changed |= self.free(held.clone()).await?.write != held.write;
            }
            if !changed {
                return Ok(view);
            }
        }
    }

    /// The page once a live session has given it back or settled it, for which it has some time; from a dead one it is
    /// taken at once. The late writes of both are fenced thereby.
    async fn free(&self, mut held: Held) -> Result<Held, LedgerError> {
        let run = &self.run.row.id;
        while let PageStatus::Leased { session } = &held.page.status {
            let now = self.run.ledger.page(run, held.page.id).await?;
            let now = now.ok_or_else(|| LedgerError::NotFound(format!("page {}", held.page.id)))?;
            if now.write != held.write {
                held = now;
                continue;
            }
            if is_planted(Bug::CompiledWhileHeld) {
                return Ok(held);
            }
            let is_live = self.is_live(session).await?;
            if is_live && self.waits() {
                self.runtime.clock.sleep(LOOK_AGAIN).await;
                continue;
            }
            let keeps = is_planted(Bug::HeldBeyondPatience);
            if is_live && (keeps || !self.is_over().await?) {
                return Ok(held);
            }
            let taken = if is_live {
                tracing::warn!(%run, page = %held.page.id, %session, "took a page from a session that did not let go of it");
                let now = self.runtime.clock.now();
                self.run.ledger.revoke(run, &held, session, now).await
            } else {
                let taken = self.run.ledger.take_over(run, &held, session).await;
                taken.map(|(taken, _)| taken)
            };
            match taken {
                Ok(_) | Err(LedgerError::Raced | LedgerError::Page(Refusal::Done)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// Whether nobody has redriven the run since.
    async fn is_over(&self) -> Result<bool, LedgerError> {
        let now = self.run.ledger.glance(&self.run.row.id).await?;
        let has_ended = match now.status {
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => true,
            RunStatus::Running | RunStatus::Paused => false,
        };
        Ok(has_ended && now.generation == self.run.row.state.generation)
    }

    async fn is_live(&self, session: &SessionId) -> Result<bool, LedgerError> {
        let sessions = self.run.ledger.sessions(&self.run.row.job).await?;
        Ok(sessions
            .iter()
            .any(|row| row.id == *session && row.status == SessionStatus::Live))
    }
}

async fn outputs_of(
    run: &RunReader,
    pages: &[Held],
) -> Result<BTreeMap<ItemId, OutputLine>, CompileError> {
    let mut outputs = BTreeMap::new();
    for held in pages {
        debug_assert!(
            held.page.status != PageStatus::Settled || held.page.pending() == 0,
            "a settled page has no pending item"
        );
        for stretch in &held.page.outputs {
            let lines = outputs::read(&run.stores, stretch)
                .await
                .map_err(CompileError::Outputs)?;
            for line in lines {
                if let Ok(item) = line.item.parse() {
                    outputs.insert(item, line);
                }
            }
        }
    }
    Ok(outputs)
}

/// Puts a large output beside the result files; answers its key there.
async fn copy_large(
    run: &RunReader,
    results: &dyn Objects,
    directory: &[u8],
    large: &Large,
) -> Result<String, CompileError> {
    let text = outputs::read_large(&run.stores, large)
        .await
        .map_err(CompileError::Outputs)?;
    let mut key = directory.to_vec();
    key.extend_from_slice(format!("outputs/{}.json", large.name).as_bytes());
    results.put(&key, Bytes::from(text)).await?;
    Ok(String::from_utf8_lossy(&key).into_owned())
}

fn record(item: &ItemView, output: Option<&RawValue>, large: Option<String>) -> Vec<u8> {
    let input = item.input.as_ref().map(|input| input.to_json());
    let input = input
        .as_deref()
        .and_then(|json| serde_json::from_str::<&RawValue>(json).ok());
    let failure = item.failure.as_ref();
    let failed = item
        .mark
        .outcome()
        .filter(|outcome| *outcome != Outcome::Succeeded);
    let record = Record {
        item: item.item.to_string(),
        input,
        output: output.filter(|_| item.mark == Mark::Done(Outcome::Succeeded)),
        output_key: large,
        outcome: failed.map(Outcome::as_str),
        error: failure.map(|row| row.failure.class.as_str()),
        cause: failure.map(|row| row.failure.cause.as_str()),
        attempts: failure.map(|row| row.attempts),
    };
    let mut line = serde_json::to_vec(&record).expect("plain data serialises");
    line.push(b'\n');
    line
}

/// The files of one kind, one after the other.
struct Files<'a> {
    results: &'a dyn Objects,
    directory: Vec<u8>,
    kind: &'static str,
    done: Vec<ResultFile>,
    upload: Option<Box<dyn Upload>>,
    buffer: Vec<u8>,
    open: ResultFile,
}

impl<'a> Files<'a> {
    fn new(results: &'a dyn Objects, directory: &[u8], kind: &'static str) -> Self {
        let open = ResultFile {
            key: String::new(),
            size: 0,
            items: 0,
        };
        Self {
            results,
            directory: directory.to_vec(),
            kind,
            done: Vec::new(),
            upload: None,
            buffer: Vec::new(),
            open,
        }
    }

    fn key(&self) -> Vec<u8> {
        let mut key = self.directory.clone();
        key.extend_from_slice(format!("{}_{}.jsonl", self.kind, self.done.len()).as_bytes());
        key
    }

    async fn add(&mut self, line: &[u8]) -> Result<(), ObjectsError> {
        if self.open.size + line.len() as u64 > FILE_BYTES_MAX {
            self.close().await?;
        }
        self.buffer.extend_from_slice(line);
        self.open.size += line.len() as u64;
        self.open.items += 1;
        if self.buffer.len() >= self.results.profile().piece_bytes {
            let piece = Bytes::from(std::mem::take(&mut self.buffer));
            if self.upload.is_none() {
                self.upload = Some(self.results.upload(&self.key()).await?);
            }
            if let Some(upload) = &mut self.upload {
                upload.add(piece).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), ObjectsError> {
        if self.open.items == 0 {
            return Ok(());
        }
        let key = self.key();
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        match self.upload.take() {
            Some(mut upload) => {
                if !rest.is_empty() {
                    upload.add(rest).await?;
                }
                upload.complete().await?;
            }
            None => drop(self.results.put(&key, rest).await?),
        }
        let name = String::from_utf8_lossy(&key).into_owned();
        let next = ResultFile {
            key: String::new(),
            size: 0,
            items: 0,
        };
        let closed = std::mem::replace(&mut self.open, next);
        self.done.push(ResultFile {
            key: name,
            ..closed
        });
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<ResultFile>, ObjectsError> {
        self.close().await?;
        Ok(self.done)
    }
}
