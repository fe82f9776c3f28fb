//! The ports' implementations that touch the world, each behind its feature; the in-process ones need
//! none.
//!
//! Adapters are mechanical: they know how a store says things, never what the ledger means by them.

pub(crate) mod bounds;
pub mod memory;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "local")]
mod cgroup;
#[cfg(feature = "local")]
pub mod command;
#[cfg(feature = "local")]
pub mod directory;
#[cfg(feature = "docker")]
pub mod docker;
pub mod handler;
#[cfg(any(feature = "local", feature = "aws"))]
pub(crate) mod invocation;
#[cfg(feature = "local")]
pub mod runtime_api;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "local")]
pub mod task_protection;
#[cfg(feature = "local")]
pub mod tokio_runtime;
