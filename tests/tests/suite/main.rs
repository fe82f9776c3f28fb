//! The one test binary: one build, one link, every check of the outside.
#![allow(
    clippy::disallowed_methods,
    reason = "journeys run real processes in real time"
)]

mod architecture;
mod bad_input;
mod bad_ledger;
mod conformance;
mod conformance_queue;
mod conformance_table;
mod contract_arms;
mod contract_executors;
mod docker_calls;
mod docker_ecs;
mod emulator_arms;
mod emulator_aws;
mod emulator_chaos;
mod emulator_commands;
mod emulator_doctor;
mod emulator_events;
mod emulator_functions;
mod emulator_functions_ecs;
mod emulator_journey;
mod emulator_lambda;
mod emulator_leases;
mod health;
mod journey_checksums;
mod journey_control;
mod journey_crashes;
mod journey_handlers;
mod journey_many_files;
mod journey_poison;
mod journey_redrive;
mod journey_retries;
mod journey_signals;
mod journey_sources;
mod journey_tolerance;
mod journey_torn_log;
mod parity;
mod readme;
mod stub;
mod stub_agent;
mod stub_ecs;
mod stub_ecs_events;
mod stub_lambda;
mod support;
