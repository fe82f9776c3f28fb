//! The `command` executor: a process a call, on this machine.
//!
//! It checks the source, fills in the command line, runs the process ([`child`]) and reads its answer
//! ([`protocol`]). It decides neither retries nor timeouts: whoever wants a call to end stops it.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for real processes, which no simulated clock can hurry"
)]

pub(in crate::adapters) mod argv;
pub(in crate::adapters) mod child;
mod group;
pub(in crate::adapters) mod protocol;
mod reaper;
pub(in crate::adapters) mod scratch;
pub(in crate::adapters) mod source;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;

pub use argv::{ResolveError, resolve};
pub(in crate::adapters) use group::Group;
pub(in crate::adapters) use reaper::SESSION_VARIABLE;
pub use reaper::{Reaper, reaper_main};

use crate::core::class::{Class, Failure};
use crate::core::job::OutputMode;
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use crate::ports::objects::Objects;
use argv::Template;
use child::{Ended, Listen, Start, Stopping};
use source::{File, NotRun, Sources};

/// A command, as a job says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments; `{path}`, `{key}` and `{size}` in the arguments are filled in.
    pub argv: Vec<String>,
    /// The directory it runs in, and that a relative program is looked for from.
    pub cwd: PathBuf,
    /// Whether its stdout is kept.
    pub output: OutputMode,
}

/// Runs a command for each call.
pub struct CommandExecutor {
    program: PathBuf,
    template: Template,
    cwd: PathBuf,
    output: OutputMode,
    sources: Sources,
    reaper: Option<Arc<Reaper>>,
}

impl CommandExecutor {
    /// Resolves the program, against this process's PATH. `input` is where object items lie: none for
    /// jobs over values. Without a `reaper` calls outlive a worker that is killed with `kill -9`.
    ///
    /// # Errors
    /// [`ResolveError`]: the program cannot be run.
    pub fn new(
        spec: &CommandSpec,
        input: Option<Arc<dyn Objects>>,
        reaper: Option<Arc<Reaper>>,
    ) -> Result<Self, ResolveError> {
        let (program, arguments) = spec.argv.split_first().ok_or(ResolveError::Empty)?;
        let search = std::env::var_os("PATH");
        Ok(Self {
            program: resolve(program, &spec.cwd, search.as_deref())?,
            template: Template::new(arguments),
            cwd: spec.cwd.clone(),
            output: spec.output,
            sources: Sources::new(input),
            reaper,
        })
    }

    /// Carries out a call of items whose sources are as they were listed.
    async fn execute(&self, call: &Call, items: &[&CallItem], stop: &Stop) -> Vec<ItemReport> {
        if call.is_batch() {
            return self.execute_batch(call, items, stop).await;
        }
        let [item] = items else {
            unreachable!("a call of more items is a batch");
        };
        let report = match self.execute_single(call, item, stop).await {
            Ok(ended) => protocol::read_single(&ended, self.output),
            Err(NotRun::Stopped) => ItemReport::Undecided(protocol::stopped()),
            Err(NotRun::Failed(failure)) => ItemReport::Failed(failure),
        };
        vec![report]
    }

    async fn execute_single(
        &self,
        call: &Call,
        item: &CallItem,
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        // Held until the process is over: the file goes with it.
        let file = self.file_for(item, stop).await?;
        let mut command = self.command(self.template.fill_for(item, file.path())?);
        command.envs(protocol::single_variables(&call.run, item));
        let input = protocol::single_input(item);
        let listen = match self.output {
            OutputMode::Keep => Listen::All,
            OutputMode::None => Listen::Nothing,
        };
        let input = Box::new(std::iter::once(input));
        self.run(call, command, input, listen, stop).await
    }

    async fn execute_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Vec<ItemReport> {
        let ended = match self.run_batch(call, items, stop).await {
            Ok(ended) => ended,
            Err(NotRun::Stopped) => {
                return vec![ItemReport::Undecided(protocol::stopped()); items.len()];
            }
            Err(NotRun::Failed(failure)) => {
                return vec![protocol::unanswered(failure, items.len()); items.len()];
            }
        };
        protocol::read_batch(&ended, items, self.output)
    }

    async fn run_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        let arguments = self.template.fill_for_batch()?;
        let input = protocol::batch_input(&call.run, items)?;
        let mut command = self.command(arguments);
        command
            .envs(protocol::batch_variables(&call.run, items))
            // Those of an outer worker would name the wrong item.
            .env_remove("TROMMEL_ITEM")
            .env_remove("TROMMEL_IDEMPOTENCY_KEY");
        self.run(call, command, Box::new(input), Listen::All, stop)
            .await
    }

    async fn run(
        &self,
        call: &Call,
        command: Command,
        input: child::Pieces<'_>,
        listen: Listen,
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        let start = Start {
            command,
            input,
            listen,
            reaper: self.reaper.as_ref(),
        };
        let stopping = Stopping {
            stop,
            grace: call.grace,
        };
        child::run(start, stopping)
            .await
            .map_err(|error| self.not_started(&error).into())
    }

    fn command(&self, arguments: Vec<OsString>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.cwd);
        if let Some(reaper) = &self.reaper {
            command.env(SESSION_VARIABLE, reaper.session());
        }
        command
    }

    /// The file for `{path}`, if the command asks for one.
    async fn file_for(&self, item: &CallItem, stop: &Stop) -> Result<File, NotRun> {
        if !self.template.needs_path() {
            return Ok(File::None);
        }
        self.sources.file_for(item, stop).await
    }

    /// Why a process did not start. Whether the item or the machine is to blame, the kernel's word says.
    fn not_started(&self, error: &io::Error) -> Failure {
        let class = match error.kind() {
            // More than the kernel takes as arguments and environment; a NUL byte in an argument.
            io::ErrorKind::ArgumentListTooLong | io::ErrorKind::InvalidInput => Class::BadInput,
            _ => Class::Unavailable,
        };
        let (program, cwd) = (self.program.display(), self.cwd.display());
        Failure::new(class, format!("{program} did not start in {cwd}: {error}"))
    }
}

#[async_trait]
impl Executor for CommandExecutor {
    async fn call(&self, call: Call, stop: Stop) -> CallReport {
        if stop.is_cancelled() {
            return CallReport::undecided(call.items.len(), &protocol::stopped());
        }
        let looked = self.sources.look_at(&call.items).await;
        let mut answers = Vec::new();
        if !looked.going().is_empty() {
            answers = self.execute(&call, looked.going(), &stop).await;
        }
        CallReport {
            items: looked.look_again(answers).await,
        }
    }
}

/// A name that nobody else has.
fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests;
