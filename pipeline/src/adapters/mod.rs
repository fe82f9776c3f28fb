//! What touches the world: processes, files, clocks. Everything here stands behind a trait of
//! [`crate::ports`], and behind a feature where it needs an operating system or a service.

#[cfg(feature = "local")]
pub mod command;
pub mod handler;
#[cfg(feature = "local")]
pub mod tokio_runtime;
