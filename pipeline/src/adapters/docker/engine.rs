//! Docker's engine, as this executor uses it: few requests, each bounded in time, with few kinds of errors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerState, ContainerSummary};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::adapters::command::child::Listen;
use crate::core::class::{Class, Failure};

/// How long the engine may take for a request: to make and start a container on a busy machine takes
/// seconds, and the engine's own clients wait so long.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(120);

/// What was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EngineError {
    /// There is no such container, image or network.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the container is in a state that forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The engine does not do that.
    #[error("{0}")]
    Refused(String),
    /// It does not answer.
    #[error(
        "Docker's engine does not answer: {0}; is dockerd running, and may this user open its socket \
         (DOCKER_HOST=unix://… names another)?"
    )]
    Unreachable(String),
}

impl EngineError {
    /// What it means for a call.
    pub(super) fn failure(&self) -> Failure {
        let too_long = match self {
            // execve(2), as runc passes it on: the item is too long for an argument.
            Self::Refused(words) => words.contains("argument list too long"),
            Self::NotFound(_) | Self::Conflict(_) | Self::Unreachable(_) => false,
        };
        let class = if too_long {
            Class::BadInput
        } else {
            Class::Unavailable
        };
        Failure::new(class, self.to_string())
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            // Status codes as in "Docker Engine API", responses of each operation.
            Error::DockerResponseServerError {
                status_code,
                message,
            } => match status_code {
                404 => Self::NotFound(message),
                409 => Self::Conflict(message),
                _ => Self::Refused(message),
            },
            error => Self::Unreachable(error.to_string()),
        }
    }
}

pub(super) type Output = BoxStream<'static, Result<LogOutput, EngineError>>;

/// A connection, shared by all calls; made when it is first used. It goes to a socket of this machine, since
/// files are mounted and processes looked at.
#[derive(Clone, Default)]
pub(super) struct Engine {
    docker: Arc<OnceCell<Docker>>,
}

impl Engine {
    #[cfg(test)]
    pub(super) fn at(docker: Docker) -> Self {
        Self {
            docker: Arc::new(OnceCell::new_with(Some(docker))),
        }
    }

    async fn docker(&self) -> Result<&Docker, EngineError> {
        let connect = || async {
            let docker = Docker::connect_with_defaults()?.with_timeout(REQUEST_WAIT_MAX);
            docker.negotiate_version().await
        };
        Ok(self.docker.get_or_try_init(connect).await?)
    }

    /// Makes a container; its identifier.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let docker = self.docker().await?;
        let made = docker.create_container(Some(options), body).await?;
        Ok(made.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        Ok(self.docker().await?.start_container(id, None).await?)
    }

    /// Its three streams, from before its start on.
    pub(super) async fn attach(
        &self,
        id: &str,
        listen: Listen,
    ) -> Result<AttachContainerResults, EngineError> {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(listen == Listen::All)
            .stderr(true)
            .build();
        Ok(self
            .docker()
            .await?
            .attach_container(id, Some(options))
            .await?)
    }

    /// All it has said, and what it will say until its end.
    pub(super) async fn log(&self, id: &str, listen: Listen) -> Result<Output, EngineError> {
        let options = LogsOptionsBuilder::new()
            .follow(true)
            .stdout(listen == Listen::All)
            .stderr(true)
            .build();
        let log = self.docker().await?.logs(id, Some(options));
        Ok(log.map_err(EngineError::from).boxed())
    }

    /// Returns when it has ended, whatever its exit code.
    pub(super) async fn wait(&self, id: &str) -> Result<(), EngineError> {
        let mut waiting = Box::pin(self.docker().await?.wait_container(id, None));
        match waiting.next().await {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(error.into()),
            None => Err(EngineError::Unreachable("no end of a wait".to_owned())),
        }
    }

    /// Asks it to end (SIGTERM, if its image names no other signal), and kills it after the grace.
    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        // Whole seconds ("docker container stop", --timeout); none may mean at once only if it is none.
        let seconds = grace.as_millis().div_ceil(1000);
        let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let docker = self.docker().await?.clone();
        // The engine answers when the container has ended.
        let docker = docker.with_timeout(REQUEST_WAIT_MAX.saturating_add(grace));
        Ok(docker.stop_container(id, Some(options)).await?)
    }

    /// Removes it with what it wrote, by force if it runs.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let docker = self.docker().await?;
        let removed = docker.remove_container(id, Some(options.build())).await;
        match removed.map_err(EngineError::from) {
            // Gone, or going: "removal of container … is already in progress".
            Ok(()) | Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(()),
            Err(error @ (EngineError::Refused(_) | EngineError::Unreachable(_))) => Err(error),
        }
    }

    pub(super) async fn state(&self, id: &str) -> Result<ContainerState, EngineError> {
        let container = self.docker().await?.inspect_container(id, None).await?;
        Ok(container.state.unwrap_or_default())
    }

    /// Whether its memory has a limit.
    pub(super) async fn is_bounded(&self, id: &str) -> Result<bool, EngineError> {
        let container = self.docker().await?.inspect_container(id, None).await?;
        let limit = container.host_config.and_then(|config| config.memory);
        Ok(limit.is_some_and(|bytes| bytes > 0))
    }

    /// Whether it is certain that the engine sent it no signal since it was started at that time. The engine tells
    /// a signal before the end it leads to, and remembers a few hundred events, none of before its own start: if
    /// it still knows the container's start, it knows what came after.
    pub(super) async fn sent_no_signal(
        &self,
        id: &str,
        started: Timestamp,
    ) -> Result<bool, EngineError> {
        let now = Timestamp::now();
        let filters = HashMap::from([("container", vec![id]), ("event", vec!["start", "kill"])]);
        let options = EventsOptionsBuilder::new()
            .since(&started.as_second().to_string())
            .until(&format!(
                "{}.{:09}",
                now.as_second(),
                now.subsec_nanosecond()
            ))
            .filters(&filters)
            .build();
        let events = self.docker().await?.events(Some(options));
        let events: Vec<_> = events.try_collect().await?;
        let actions: Vec<_> = events
            .iter()
            .filter_map(|event| event.action.as_deref())
            .collect();
        Ok(actions == ["start"])
    }

    /// The labels of one container, by identifier or name.
    pub(super) async fn labels(
        &self,
        id: &str,
    ) -> Result<(String, HashMap<String, String>), EngineError> {
        let container = self.docker().await?.inspect_container(id, None).await?;
        let labels = container.config.and_then(|config| config.labels);
        Ok((container.id.unwrap_or_default(), labels.unwrap_or_default()))
    }

    /// All containers with a label, `name` or `name=value`, whether they run or not.
    pub(super) async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let docker = self.docker().await?;
        Ok(docker.list_containers(Some(options.build())).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> EngineError {
        let message = message.to_owned();
        Error::DockerResponseServerError {
            status_code,
            message,
        }
        .into()
    }

    #[test]
    fn answers_of_the_engine_are_told_apart_by_their_status() {
        let words = || "words".to_owned();
        assert_eq!(answer(404, "words"), EngineError::NotFound(words()));
        assert_eq!(answer(409, "words"), EngineError::Conflict(words()));
        assert_eq!(answer(400, "words"), EngineError::Refused(words()));
        assert_eq!(answer(500, "words"), EngineError::Refused(words()));
    }

    #[test]
    fn only_an_argument_that_is_too_long_is_the_items_fault() {
        let too_long = answer(500, "exec /bin/x: argument list too long: unknown");
        assert_eq!(too_long.failure().class, Class::BadInput);
        assert_eq!(answer(500, "no space").failure().class, Class::Unavailable);
        let silent = EngineError::Unreachable("refused".to_owned()).failure();
        assert_eq!(silent.class, Class::Unavailable);
        assert!(
            silent.cause.contains("is dockerd running"),
            "{}",
            silent.cause
        );
    }
}
