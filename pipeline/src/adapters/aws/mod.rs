//! The ports on AWS, or on an emulator of it: `Table` on DynamoDB, `Queue` on SQS, `Objects` on S3, `Executor` on Lambda and ECS.
//!
//! Thin and mechanical: no rule of the ledger lives here. Each file turns one port's words into the
//! service's and its answers back; [`classify`] alone decides what a failure means.

mod blueprint;
mod buckets;
mod classify;
pub mod config;
mod doctor;
mod ecs;
mod expression;
mod lambda;
mod meter;
mod objects;
mod pointer;
mod queue;
mod reconcile;
mod table;
mod upload;

pub use blueprint::{
    ApplyError, Arns, Blueprint, DEAD_LETTERS_AFTER, EventRule, Found, Ingest, TaskEvents,
    permissions,
};
pub use buckets::Buckets;
pub use config::{Clients, Endpoint, Identity};
pub use doctor::{Check, Health, examine};
pub use ecs::{Cluster, EcsExecutor};
pub use lambda::LambdaExecutor;
pub use meter::Meter;
pub use objects::S3Objects;
pub use pointer::Pointers;
pub use queue::SqsQueue;
pub use reconcile::Walk;
pub use table::DynamoTable;
