//! A deterministic world for Trommel: one thread, one seed, virtual time.
//!
//! The loops of `trommel` ask ports for time, chance and tasks. Here those ports are played by one
//! executor that picks among ready tasks by a seed and jumps to the next deadline when none is
//! ready. The same seed gives the same trace, byte for byte; another seed gives another order.
//!
//! [`simulation`] is the entry, [`node`] is one simulated process, [`exec`] runs the tasks within the
//! bounds of [`halt`] in the order of [`schedule`], [`entropy`] derives streams of numbers from the seed, [`trace`] writes down what
//! happened. [`services`] are what nodes share, with faults; [`cluster`] puts the real shell on nodes.

pub mod budget;
pub mod bugs;
pub mod builder;
mod charges;
mod chosen;
pub mod cli;
pub mod cluster;
pub mod corpus;
#[cfg(feature = "localstack")]
pub mod emulator;
pub mod entropy;
pub mod events;
mod evidence;
pub mod exec;
mod filling;
pub mod halt;
mod interrupt;
pub mod job_rules;
pub mod node;
pub mod oracle;
pub mod own;
mod pace;
mod places;
pub mod point;
pub mod probe;
pub mod report;
mod results;
pub mod rules;
pub mod run;
mod same;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod services;
pub mod shrink;
pub mod simulation;
pub mod swimlane;
mod timers;
mod told;
pub mod trace;
pub mod watch;

pub use builder::{BadDay, Builder, Verdict};
pub use cluster::Cluster;
pub use entropy::{Seed, Stream};
pub use halt::{Halt, Limits, Panicked};
pub use node::Node;
pub use own::{Ended, EndedItem, Subject};
pub use simulation::Simulation;
