//! A session from its start to its end: which loops run, and in which order they stop.
//!
//! Drain first (no new calls, what runs finishes or goes back, all is settled), then permits and the
//! session row go, then the beat. A session whose leases are lost stops at once; its process may start
//! anew under another name.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::core::id::RunId;
use crate::core::job::InputSpec;
use crate::core::lane::Lane;
use crate::core::run::RunStatus;
use crate::ledger::LedgerError;

use super::env::{Env, OpenError, Others, RunHandle, Seen};
use super::intake::{INTAKES, Ingest, take_in};
use super::{keeper, reader, redriver, router, sweeper, windows, worker};

/// A session at work.
pub struct Session {
    env: Arc<Env>,
    /// Closed once every worker and every intake has ended.
    workers: mpsc::Receiver<()>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// Everything it held is settled or given back.
    Closed,
    /// Its leases were lost; others take over what it held.
    Lost,
}

impl Session {
    /// Opens a session and starts its loops: keeper, sweeper, and a worker for each of `lanes`.
    ///
    /// # Errors
    /// The ledger does not answer.
    pub async fn start(env: Arc<Env>, lanes: &[Lane], who: &str) -> Result<Self, LedgerError> {
        Self::open(env, lanes, who, None).await
    }

    /// As [`Session::start`], and takes in events: intakes, and the tending of windows.
    ///
    /// # Errors
    /// The ledger does not answer.
    pub async fn serve(
        env: Arc<Env>,
        lanes: &[Lane],
        who: &str,
        ingest: Arc<Ingest>,
    ) -> Result<Self, LedgerError> {
        Self::open(env, lanes, who, Some(ingest)).await
    }

    async fn open(
        env: Arc<Env>,
        lanes: &[Lane],
        who: &str,
        ingest: Option<Arc<Ingest>>,
    ) -> Result<Self, LedgerError> {
        let mut opened_at = env.runtime.clock.tick();
        env.ledger
            .open_session(&env.job, env.settings.session_duration, who)
            .await?;
        if env.settings.others == Others::AreDead {
            sweeper::bury_all(&env).await?;
        }
        // Where that took long, others may soon count it as dead.
        let now = env.runtime.clock.tick();
        if now.since(opened_at) > env.settings.beat_every {
            let nothing = BTreeMap::new();
            env.ledger.beat(&env.job, &nothing, None).await?;
            opened_at = now;
        }
        let (alive, workers) = mpsc::channel(1);
        for lane in lanes.iter().copied() {
            let alive = alive.clone();
            start(&env, "worker", move |env| async move {
                worker::work(env, lane).await;
                drop(alive);
            });
        }
        if let Some(ingest) = ingest {
            for _ in 0..INTAKES {
                let (alive, ingest) = (alive.clone(), ingest.clone());
                start(&env, "intake", move |env| async move {
                    take_in(&env, &ingest).await;
                    drop(alive);
                });
            }
            let alive = alive.clone();
            start(&env, "windows", move |env| async move {
                windows::tend(&env, &ingest).await;
                drop(alive);
            });
        }
        drop(alive);
        start(&env, "beat", move |env| async move {
            keeper::beat(&env, opened_at).await;
        });
        start(&env, "permits", |env| async move {
            keeper::keep_permits(&env).await;
        });
        start(
            &env,
            "sweeper",
            |env| async move { sweeper::sweep(&env).await },
        );
        Ok(Self { env, workers })
    }

    /// What the session's loops share.
    pub fn env(&self) -> &Arc<Env> {
        &self.env
    }

    /// Reads, routes and redrives a run, and waits until it is no longer RUNNING or the session is to end.
    ///
    /// # Errors
    /// The run cannot be worked on here.
    pub async fn drive(&self, run: &RunId) -> Result<RunStatus, OpenError> {
        let handle = self.env.open_run(run).await?;
        handle.drive();
        let run = handle.clone();
        start(&self.env, "redriver", |env| async move {
            redriver::redrive(&env, &run).await;
        });
        if matches!(handle.job.input, InputSpec::Events(_)) {
            // Its parts come by intake, and are routed there.
            return Ok(self.wait(&handle).await);
        }
        let run = handle.clone();
        start(&self.env, "reader", |env| async move {
            reader::read(&env, &run).await;
        });
        let run = handle.clone();
        start(&self.env, "router", |env| async move {
            router::route(&env, &run).await;
        });
        Ok(self.wait(&handle).await)
    }

    async fn wait(&self, run: &RunHandle) -> RunStatus {
        let ended = |seen: Seen| Some(seen.status).filter(|status| *status != RunStatus::Running);
        tokio::select! {
            biased;
            status = run.until(ended) => status,
            () = self.env.kill.cancelled() => run.now().status,
            () = self.env.drain.cancelled() => run.now().status,
        }
    }

    /// Ends the session: drains, gives back, closes.
    pub async fn close(mut self) -> SessionEnd {
        self.env.drain.cancel();
        // The channel closes when the last worker has dropped its sender.
        while self.workers.recv().await.is_some() {}
        if self.env.kill.is_cancelled() {
            return SessionEnd::Lost;
        }
        self.env.closing.cancel();
        let closed = self.close_row().await;
        self.env.kill.cancel();
        if let Err(error) = closed {
            tracing::warn!(%error, "the session was not closed; others will find it dead");
        }
        SessionEnd::Closed
    }

    /// The beat may change the row at the same time, and answers be unclear, so it is tried a few times.
    async fn close_row(&self) -> Result<(), LedgerError> {
        const TRIES_MAX: u32 = 20;
        let mut last = Ok(());
        for _ in 0..TRIES_MAX {
            last = self.env.ledger.close_session(&self.env.job).await;
            if last.is_ok() {
                let ledger = &self.env.ledger;
                return ledger.forget_session(&self.env.job, ledger.session()).await;
            }
        }
        last
    }
}

fn start<F, Fut>(env: &Arc<Env>, name: &'static str, task: F)
where
    F: FnOnce(Arc<Env>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    env.runtime.spawn.spawn(name, Box::pin(task(env.clone())));
}
