//! What the stores of this machine refuse alike.
//!
//! The bounds are those of DynamoDB and SQS; a store that could hold more keeps to them all the same,
//! because a run must not depend on where its ledger lies.

pub(crate) mod queue;
pub(crate) mod table;
