//! What each command does: opens the ledger, calls the runner or reads the report, shows the result.

mod bill;
mod control;
mod look;
mod open;
mod quarantine;
mod redrive;
mod run;
mod serve;
mod watch;

use super::args::{Cli, Command};
use super::error::{CliError, ErrorCode};
use super::exit::Exit;

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
            Command::Reaper => Ok(Exit::Usage),
        }
    });
    // A blocked file operation must not keep the program from ending.
    runtime.shutdown_background();
    exit
}
