//! The same scenarios on an emulator: the real shell and the AWS adapters, behind the same links with the same
//! faults, in real time.
//!
//! [`stage`] sets up a table, queues and buckets for one scenario, [`bridge`] lets the simulator's executor wait
//! for the SDK, [`parity`] compares what became of a scenario there and in the model, [`fuzz`] searches seeds, [`commands`] tell of it. Only
//! with the feature `localstack`: the simulator alone compiles no SDK.

mod bridge;
pub mod commands;
pub mod fuzz;
pub mod parity;
mod stage;

pub use stage::{SPEED, Stage};
