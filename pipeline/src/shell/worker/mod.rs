//! The worker of one lane: leases pages, runs their calls, settles what became of them.
//!
//! ```text
//!   hints ─▶ leaser ─ leased pages ─▶ engine ─ calls ─▶ executor
//!              ▲                        │  ▲               │
//!              └──────── demand ────────┘  └── reports ────┘
//!                                       │
//!                                       └─ groups ─▶ settler ─▶ ledger
//! ```
//!
//! One task, the engine, holds the plans of all leased pages and decides; leasing, calls and
//! settling are tasks of their own that report to it. Which call is next and what its end means is
//! decided in [`crate::core::work`].

mod calls;
mod engine;
mod leaser;
mod settler;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::core::lane::Lane;

use super::env::Env;

/// Works on one lane until the session ends; everything it held is then settled or given back.
pub(super) async fn work(env: Arc<Env>, lane: Lane) {
    let (events, inbox) = mpsc::unbounded_channel();
    let demand = Arc::new(leaser::Demand::default());
    let leasing = leaser::lease(env.clone(), lane, demand.clone(), events.clone());
    env.runtime.spawn.spawn("leaser", Box::pin(leasing));
    engine::Engine::new(env, lane, demand, events)
        .run(inbox)
        .await;
}
