//! The loops, over ports only.

pub mod source;
