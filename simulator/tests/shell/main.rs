//! The real shell, on two nodes and shared services: crashes, faults, drains, redrives.
//!
//! A failing seed is named with the way to run it again alone, with its whole trace.

mod crashes;
mod hands;
mod oracle;
mod scenario;
