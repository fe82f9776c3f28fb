//! The one test binary: one build, one link, every check of the outside.
#![allow(
    clippy::disallowed_methods,
    reason = "journeys run real processes in real time"
)]

mod contract_arms;
mod emulator_arms;
mod emulator_aws;
