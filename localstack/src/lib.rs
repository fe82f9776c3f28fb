//! The stage: an emulator of SQS, DynamoDB and S3 for tests to play on.
//!
//! [`Stage::find`] takes an endpoint that is there, or starts one, says which it took, and leaves
//! nothing behind when the test process is gone, however it went. What an emulator does differently
//! from AWS stands in its [`Profile`], so that tests adapt in the open instead of being skipped. The
//! [`proxy`] stands between the SDK and an emulator and makes requests fail as AWS does.
#![allow(
    clippy::disallowed_methods,
    reason = "an emulator is a real process, waited for in real time"
)]

pub mod choice;
mod docker;
mod endpoint;
mod ministack;
pub mod profile;
mod provision;
pub mod proxy;
pub mod python;
mod watchdog;
mod zip;

pub use choice::Choice;
pub use endpoint::{Emulator, NoEndpoint, Stage};
pub use profile::{EncodedListings, FormerHandles, Functions, Kind, Profile};
pub use provision::ProvisionError;
pub use proxy::Proxy;
