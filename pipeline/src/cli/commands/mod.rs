//! What each command does: opens the ledger, calls the runner or reads the report, shows the result.

mod bill;
mod control;
#[cfg(feature = "aws")]
mod doctor;
mod estimate;
mod health;
mod look;
#[cfg(not(feature = "aws"))]
mod not_built;
mod open;
#[cfg(feature = "aws")]
mod provision;
mod quarantine;
#[cfg(feature = "aws")]
mod reconcile;
mod redrive;
mod run;
mod serve;
mod watch;

use super::args::{Cli, Command};
use super::error::{CliError, ErrorCode};
use super::exit::Exit;
#[cfg(not(feature = "aws"))]
use not_built::{doctor, provision, reconcile};

/// Carries out one command.
pub(super) fn carry_out(cli: Cli) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        CliError::new(ErrorCode::Internal, "the program cannot start its threads").because(error)
    })?;
    let Cli { global, command } = cli;
    let exit = runtime.block_on(async {
        match command {
            Command::Run(args) => Box::pin(run::run(&global, args)).await,
            Command::Serve(args) => Box::pin(serve::serve(&global, args)).await,
            Command::Worker(args) => Box::pin(run::worker(&global, args)).await,
            Command::Resume(args) => Box::pin(run::resume(&global, args)).await,
            Command::Redrive(args) => Box::pin(redrive::redrive(&global, args)).await,
            Command::Status(args) => look::status(&global, args).await,
            Command::Runs(args) => look::runs(&global, args).await,
            Command::Items(args) => look::items(&global, args).await,
            Command::Quarantine(args) => quarantine::quarantine(&global, args).await,
            Command::Show(args) => look::show(&global, args).await,
            Command::Audit(args) => look::audit(&global, args).await,
            Command::Pause(args) => control::pause(&global, args).await,
            Command::Stop(args) => control::stop(&global, args).await,
            Command::Provision(args) => Box::pin(provision::provision(&global, args)).await,
            Command::Doctor(args) => Box::pin(doctor::doctor(&global, args)).await,
            Command::Estimate(args) => Box::pin(estimate::estimate(&global, args)).await,
            Command::Reconcile(args) => Box::pin(reconcile::reconcile(&global, args)).await,
            Command::Reaper => Ok(Exit::Usage),
        }
    });
    // A blocked file operation must not keep the program from ending.
    runtime.shutdown_background();
    exit
}
