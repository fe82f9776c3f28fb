//! Trommel sorts work by size: the fines fall through together, the lumps go on alone.
//!
//! A job file points at objects or rows; Trommel reads them, routes each by size, runs them through
//! workers, keeps every item's state in a durable ledger, tolerates what it may, and redrives the rest
//! later. Modules, in reading order: [`core`] decides, [`ports`] name what the world must do, [`ledger`]
//! keeps the books, [`shell`] runs the loops, [`wire`] parses, [`adapters`] touch the world.

pub mod adapters;
#[cfg(feature = "cli")]
pub mod cli;
pub mod core;
#[cfg(feature = "job-file")]
pub mod job_file;
pub mod ledger;
pub mod ports;
#[cfg(feature = "embedded")]
pub mod runner;
#[cfg(feature = "embedded")]
pub use runner::function;
pub mod shell;
pub mod wire;
