//! The real shell, on two nodes and shared services: crashes, faults, drains, redrives.
//!
//! Searches over many seeds are `trommel-sim run`'s.

mod books;
mod crashes;
mod estimates;
mod fences;
mod hands;
mod intakes;
mod lost;
mod oracle;
mod refused;
mod runs;
mod scenario;
mod selections;
mod waits;
