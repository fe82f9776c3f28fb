//! The `docker` executor: a container a call, on this machine.
//!
//! It speaks the protocol of commands ([`super::command::protocol`]) with a container: what that is made
//! of is said in [`container`], which one it is in [`identity`], how it is come by in [`place`], how it is
//! followed in [`running`]. It decides neither retries nor timeouts, and fetches no images.
//!
//! A container outlives a worker that is killed. Whoever then calls for the same attempt adopts it; what
//! nobody adopts is removed ([`orphans`]).

mod container;
mod engine;
mod exit;
mod held;
mod identity;
mod orphans;
mod place;
mod running;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::adapters::command::argv::Template;
use crate::adapters::command::child::{Ended, Listen, Pieces};
use crate::adapters::command::protocol;
use crate::adapters::command::source::{File, NotRun, Sources};
use crate::core::class::Failure;
use crate::core::item::Input as ItemInput;
use crate::core::job::{DockerSpec, OutputMode};
use crate::ports::executor::{Call, CallItem, CallReport, Executor, ItemReport, Stop};
use crate::ports::objects::Objects;
use container::Task;
use engine::Engine;
use identity::Identity;
use orphans::{ADOPT_WITHIN, Sweeper};
use place::{Place, Places, Wanted};
use running::{Input, Running, Stopping};
use worker::Worker;

/// How long an engine that has much to do may take to make and start a container.
const START_WAIT_MAX: Duration = Duration::from_mins(2);

/// Runs a container for each call.
pub struct DockerExecutor {
    spec: DockerSpec,
    template: Template,
    sources: Sources,
    timeout: Option<Duration>,
    places: Places,
    _sweeper: Sweeper,
}

impl DockerExecutor {
    /// Within a runtime of tokio's. `input` is where object items lie: none for jobs over values. `retaken_within`
    /// is how long the ledger needs until a dead worker's pages are called again: its containers are left alone
    /// for that time. Whether the engine is there, the calls find out.
    pub fn new(
        spec: DockerSpec,
        input: Option<Arc<dyn Objects>>,
        retaken_within: Duration,
    ) -> Self {
        Self::adopting_within(retaken_within + ADOPT_WITHIN, spec, input)
    }

    /// Ends containers that run for longer than the lane's timeout: since their start, whoever started them.
    #[must_use]
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    fn adopting_within(
        adopt_within: Duration,
        spec: DockerSpec,
        input: Option<Arc<dyn Objects>>,
    ) -> Self {
        let places = Places {
            engine: Engine::default(),
            worker: Worker::own(),
        };
        Self {
            template: Template::new(&spec.argv),
            spec,
            sources: Sources::new(input),
            timeout: None,
            _sweeper: Sweeper::start(places.clone(), adopt_within),
            places,
        }
    }

    /// Carries out a call of items whose sources are as they were listed.
    async fn execute(&self, call: &Call, items: &[&CallItem], stop: &Stop) -> Vec<ItemReport> {
        if call.is_batch() {
            return self.execute_batch(call, items, stop).await;
        }
        let [item] = items else {
            unreachable!("a call of more items is a batch");
        };
        let report = match self.run_single(call, item, stop).await {
            Ok(ended) => protocol::read_single(&ended, self.spec.output),
            Err(NotRun::Stopped) => ItemReport::Undecided(protocol::stopped()),
            Err(NotRun::Failed(failure)) => ItemReport::Failed(failure),
        };
        vec![report]
    }

    async fn execute_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Vec<ItemReport> {
        let report = match self.run_batch(call, items, stop).await {
            Ok(ended) => return protocol::read_batch(&ended, items, self.spec.output),
            Err(NotRun::Stopped) => ItemReport::Undecided(protocol::stopped()),
            Err(NotRun::Failed(failure)) => protocol::unanswered(failure, items.len()),
        };
        vec![report; items.len()]
    }

    async fn run_single(&self, call: &Call, item: &CallItem, stop: &Stop) -> Result<Ended, NotRun> {
        // Held until the container is over: the file goes with it.
        let file = self.file_for(item, stop).await?;
        let (task, input) = self.single(call, item, &file)?;
        let listen = match self.spec.output {
            OutputMode::Keep => Listen::All,
            OutputMode::None => Listen::Nothing,
        };
        let attempt = Attempt {
            call,
            items: &[item],
            task,
            input,
            listen,
        };
        self.run(attempt, stop).await
    }

    /// What a container of one item is to do.
    fn single(
        &self,
        call: &Call,
        item: &CallItem,
        file: &File,
    ) -> Result<(Task, Input<'static>), Failure> {
        let inside = match &*item.input {
            ItemInput::Object(object) => container::path_inside(&object.key),
            ItemInput::Value(_) => Path::new("").to_owned(),
        };
        let arguments = self.template.fill_for(item, &inside)?;
        let mut task = Task::new(&self.spec, arguments, &[item])?;
        task.variables = protocol::single_variables(&call.run, item).into();
        task.mount = match file {
            File::None => None,
            File::InStore(_) | File::Copy(_) => Some(container::mount(file.path(), &inside)?),
        };
        let input = Box::new(std::iter::once(protocol::single_input(item)));
        Ok((task, Input::new(input)))
    }

    async fn run_batch(
        &self,
        call: &Call,
        items: &[&CallItem],
        stop: &Stop,
    ) -> Result<Ended, NotRun> {
        let arguments = self.template.fill_for_batch()?;
        let mut task = Task::new(&self.spec, arguments, items)?;
        task.variables = protocol::batch_variables(&call.run, items).into();
        let lines: Pieces<'_> = Box::new(protocol::batch_input(&call.run, items)?);
        let attempt = Attempt {
            call,
            items,
            task,
            input: Input::new(lines),
            listen: Listen::All,
        };
        self.run(attempt, stop).await
    }

    /// Follows one container from wherever it is to its end, and removes it.
    async fn run(&self, attempt: Attempt<'_>, stop: &Stop) -> Result<Ended, NotRun> {
        let Attempt {
            call,
            items,
            task,
            input,
            listen,
        } = attempt;
        let identity = Identity::of(call, items);
        let mut body = container::body(&self.spec, task);
        container::mark(&mut body, &identity, &self.places.worker, input.fed());
        let wanted = Wanted {
            identity: &identity,
            body,
        };
        let stopping = Stopping {
            stop,
            grace: call.grace,
            timeout: self.timeout,
        };
        let place = self.places.take(&wanted, stop).await?;
        let engine = &self.places.engine;
        // Given up before its end, it is removed by force all the same.
        let (held, ended) = match place {
            Place::New(held) => {
                let running = Running::start(engine, held.id(), input, listen).await?;
                let ended = running.end(stopping).await;
                (held, ended)
            }
            Place::Adopted(held) => {
                let running = Running::adopt(engine, held.id(), listen).await?;
                let ended = running.end(stopping).await;
                (held, ended)
            }
        };
        held.release().await;
        Ok(ended?)
    }

    /// The file for `{path}`, if the container asks for one.
    async fn file_for(&self, item: &CallItem, stop: &Stop) -> Result<File, NotRun> {
        if !self.template.needs_path() {
            return Ok(File::None);
        }
        self.sources.file_for(item, stop).await
    }
}

/// One call, and what its container is to do.
struct Attempt<'a> {
    call: &'a Call,
    items: &'a [&'a CallItem],
    task: Task,
    input: Input<'a>,
    listen: Listen,
}

#[async_trait]
impl Executor for DockerExecutor {
    fn start_wait_max(&self) -> Duration {
        START_WAIT_MAX
    }

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

#[cfg(test)]
mod tests;
