//! Windows at work: each that is not done with is judged here, redriven if asked, sealed when its time is over, and
//! leaves its result files behind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::id::RunId;
use crate::core::run::RunStatus;
use crate::ledger::{LedgerError, OpenWindow};

use super::env::{Env, OpenError, RunHandle};
use super::finalizer::{CompileError, compile};
use super::intake::Ingest;
use super::redriver;
use super::report::RunReader;

/// Windows that this session redrives just now.
#[derive(Clone, Default)]
struct Redriving(Arc<Mutex<BTreeSet<RunId>>>);

#[derive(Debug, thiserror::Error)]
enum TendError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Tends the job's windows until the session ends.
pub(super) async fn tend(env: &Arc<Env>, ingest: &Ingest) {
    let redriving = Redriving::default();
    while !env.is_ending() {
        match env.ledger.open_windows(&env.job).await {
            Ok(windows) => {
                for open in windows {
                    let run = open.row.id.clone();
                    if let Err(error) = tend_one(env, ingest, open, &redriving).await {
                        tracing::warn!(%run, %error, "a window is looked after again later");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the windows cannot be read"),
        }
        env.pause(env.settings.judge_every).await;
    }
}

async fn tend_one(
    env: &Arc<Env>,
    ingest: &Ingest,
    open: OpenWindow,
    redriving: &Redriving,
) -> Result<(), TendError> {
    let run = &open.row.id;
    if open.row.total_final().is_none() && open.window.is_over(env.runtime.clock.now()) {
        let total = env.ledger.seal(run).await?;
        tracing::info!(%run, total, "a window is sealed");
        return Ok(());
    }
    match open.row.state.status {
        RunStatus::Running => {
            let handle = env.open_run(run).await?;
            handle.drive();
            if open.row.redrive_part.is_some() {
                redriving.start(env, handle);
            }
            Ok(())
        }
        RunStatus::Paused => Ok(()),
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
            if open.row.total_final().is_some() {
                finish(env, ingest, open).await?;
            }
            Ok(())
        }
    }
}

/// Compiles the result files of a window that has ended, and is done with it.
async fn finish(env: &Arc<Env>, ingest: &Ingest, open: OpenWindow) -> Result<(), TendError> {
    if let Some((results, prefix)) = &ingest.results {
        let handle = env.open_run(&open.row.id).await?;
        let reader = RunReader {
            ledger: env.ledger.clone(),
            row: open.row.clone(),
            job: handle.job.clone(),
            stores: handle.stores.clone(),
        };
        let compiled = compile(&reader, results.as_ref(), prefix, &env.runtime).await?;
        if compiled.is_none() {
            tracing::info!(run = %open.row.id, "a window was redriven");
            return Ok(());
        }
    }
    env.ledger.close_window(&env.job, &open).await?;
    tracing::info!(run = %open.row.id, status = open.row.state.status.as_str(), "a window is done");
    Ok(())
}

impl Redriving {
    fn start(&self, env: &Arc<Env>, run: RunHandle) {
        let id = run.id.clone();
        if !self.lock().insert(id.clone()) {
            return;
        }
        let (session, this) = (env.clone(), self.clone());
        let redrive = async move {
            redriver::redrive(&session, &run).await;
            this.lock().remove(&id);
        };
        env.runtime.spawn.spawn("redriver", Box::pin(redrive));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
