//! One test binary for everything that needs more than one crate.

mod emulator_arms;
mod emulator_aws;
