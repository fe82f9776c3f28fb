//! The one test binary: one build, one link, every check of the outside.

mod bad_input;
mod bad_ledger;
mod contract_arms;
mod emulator_arms;
mod emulator_aws;
mod readme;
