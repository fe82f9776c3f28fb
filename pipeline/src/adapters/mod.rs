//! Touch the world: implementations of the ports.

#[cfg(feature = "aws")]
pub mod aws;
