//! The command line: what people type, and what they see.
//!
//! Arguments, errors, exit codes, screens and tables, all as plain data and pure functions; what the
//! commands do is not here: [`main`] takes it as a function.
//!
//! Reading order: [`args`], [`view`] (what is shown, as data), [`screen`] and [`tables`] (as text),
//! [`error`] and [`exit`].

pub mod args;
#[cfg(feature = "embedded")]
mod commands;
pub mod error;
pub mod exit;
pub mod logging;
pub mod names;
pub mod screen;
pub mod tables;
pub mod text;
pub mod view;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;
use error::CliError;
use exit::Exit;
use text::Color;

/// The whole program: what the `trommel` binary runs.
///
/// The hidden command `__reaper` comes first: it must run before any thread starts.
#[cfg(feature = "embedded")]
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "__reaper")
    {
        return crate::adapters::command::reaper_main();
    }
    start(commands::carry_out)
}

/// Reads the arguments, sets up the log, has the command carried out, and tells how it ended.
pub fn start(carry_out: impl FnOnce(Cli) -> Result<Exit, CliError>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return usage(&told),
    };
    let is_json = cli.global.json;
    logging::init(cli.global.log);
    match carry_out(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let text = if is_json {
                error.render_json()
            } else {
                error.render(Color::of_stderr())
            };
            screen::tell(&text);
            error.exit().into()
        }
    }
}

/// Help and version go to standard output and are a success; anything else is told on standard error.
fn usage(told: &clap::Error) -> ExitCode {
    // A reader that went away (`trommel --help | head -1`) is no failure.
    let _ = told.print();
    let exit = if told.use_stderr() {
        Exit::Usage
    } else {
        Exit::Success
    };
    exit.into()
}

/// Writes data to standard output, above a block that may be drawn.
///
/// # Errors
/// Says why it cannot be written. A reader that went away is no error: it has had enough.
pub fn print(data: &str) -> Result<(), CliError> {
    let written = screen::above(|| {
        let mut out = std::io::stdout().lock();
        out.write_all(data.as_bytes()).and_then(|()| out.flush())
    });
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CliError::new(
            error::ErrorCode::File,
            "standard output cannot be written",
        )
        .because(error)),
        Ok(()) => Ok(()),
    }
}
