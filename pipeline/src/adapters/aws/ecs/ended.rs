//! What it means how a task ended. Pure.

use aws_sdk_ecs::types::{Container, Task, TaskStopCode};

use crate::core::class::{Class, Failure};
use crate::ports::executor::{ItemReport, Output};

/// Ended by SIGKILL: for its memory, or because it did not end when it was told to.
const EXIT_KILLED: i32 = 137;

/// Somebody asked for it by StopTask ("Task", stopCode).
const ON_REQUEST: &str = "UserInitiated";

/// A task that has stopped, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Why the task stopped, in ECS's word: `EssentialContainerExited`.
    code: String,
    /// The same, for people.
    reason: String,
    /// What the container that does the work exited with; none if it never ran, or its end was not seen.
    exit: Option<i32>,
    /// What is said of that container.
    container_reason: String,
}

impl Ended {
    /// None as long as the task runs.
    pub(super) fn of(task: &Task, container: &str) -> Option<Self> {
        if task.last_status() != Some("STOPPED") {
            return None;
        }
        let mut all = task.containers().iter();
        let work = all.find(|one| one.name() == Some(container));
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Some(Self {
            code: text(task.stop_code().map(TaskStopCode::as_str)),
            reason: text(task.stopped_reason()),
            exit: work.and_then(Container::exit_code),
            container_reason: text(work.and_then(|work| work.reason())),
        })
    }

    /// Whether it was stopped by a request, as ours are.
    pub(super) fn is_on_request(&self) -> bool {
        self.code == ON_REQUEST
    }

    /// What became of its item.
    pub(super) fn report(&self) -> ItemReport {
        match self.code.as_str() {
            // Taken away by AWS, for reasons of its own: no attempt of the item ("Task", stopCode).
            "SpotInterruption" | "TerminationNotice" | "InfrastructureHealth" => {
                ItemReport::Undecided(self.failure(Class::Throttled))
            }
            ON_REQUEST | "ServiceSchedulerInitiated" => {
                ItemReport::Undecided(self.failure(Class::Crashed))
            }
            "TaskFailedToStart" => ItemReport::Failed(self.failure(not_started(&self.reason))),
            // `EssentialContainerExited`, a word that is yet to come, or none at all.
            _ => self.exited(),
        }
    }

    fn exited(&self) -> ItemReport {
        if self.container_reason.contains("OutOfMemory") {
            return ItemReport::Failed(self.failure(Class::OutOfMemory));
        }
        match self.exit {
            Some(0) => ItemReport::Succeeded(Output::None),
            Some(EXIT_KILLED) => ItemReport::Failed(self.failure(Class::OutOfMemory)),
            Some(exit) => ItemReport::Failed(self.failure(Class::Named(format!("Exit{exit}")))),
            None => ItemReport::Undecided(self.failure(Class::Crashed)),
        }
    }

    fn failure(&self, class: Class) -> Failure {
        let exit = self.exit.map(|exit| format!("exit code {exit}"));
        let all = [&*self.code, &*self.reason, &*self.container_reason];
        let told = all.into_iter().filter(|text| !text.is_empty());
        let told: Vec<&str> = exit.as_deref().into_iter().chain(told).collect();
        Failure::new(class, told.join("; "))
    }
}

/// Why a task did not start is told in words only ("Amazon ECS stopped tasks error messages").
fn not_started(reason: &str) -> Class {
    if is_capacity(reason) {
        Class::Throttled
    } else {
        Class::Unavailable
    }
}

/// Whether there is only no room now, or not yet the network: charged to infrastructure, and tried again.
pub(super) fn is_capacity(reason: &str) -> bool {
    [
        "Capacity is unavailable",
        "RESOURCE:",
        "EMPTY CAPACITY PROVIDER",
        "NO ACTIVE INSTANCES",
        "Timeout waiting for network interface provisioning",
        "reached the limit",
    ]
    .iter()
    .any(|words| reason.contains(words))
        || reason == "AGENT"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: &str, reason: &str, exit: Option<i32>, said: &str) -> Ended {
        Ended {
            code: code.to_owned(),
            reason: reason.to_owned(),
            exit,
            container_reason: said.to_owned(),
        }
    }

    const EXITED: &str = "EssentialContainerExited";

    /// The report in words: what, and the class.
    fn told(ended: &Ended) -> String {
        match ended.report() {
            ItemReport::Succeeded(_) => "succeeded".to_owned(),
            ItemReport::Failed(failure) => failure.class.to_string(),
            ItemReport::Undecided(failure) => format!("undecided {}", failure.class),
        }
    }

    #[test]
    fn every_end_of_a_task_has_its_class() {
        let pull = "CannotPullContainerError: pull image manifest has been retried 7 time(s)";
        let room = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
        let secrets = "ResourceInitializationError: unable to pull secrets or registry auth";
        for (ended, expected) in [
            (ended(EXITED, "", Some(0), ""), "succeeded"),
            (ended(EXITED, "", Some(3), ""), "Exit3"),
            (ended(EXITED, "", Some(137), ""), "OutOfMemory"),
            (
                ended(
                    EXITED,
                    "",
                    Some(1),
                    "OutOfMemoryError: Container killed due to memory usage",
                ),
                "OutOfMemory",
            ),
            (ended(EXITED, "", None, ""), "undecided Crashed"),
            (ended("", "", Some(0), ""), "succeeded"),
            (
                ended(
                    "SpotInterruption",
                    "Your Spot Task was interrupted.",
                    Some(137),
                    "",
                ),
                "undecided Throttled",
            ),
            (
                ended("TerminationNotice", "", None, ""),
                "undecided Throttled",
            ),
            (
                ended("InfrastructureHealth", "", None, ""),
                "undecided Throttled",
            ),
            (ended("UserInitiated", "", Some(0), ""), "undecided Crashed"),
            (ended("TaskFailedToStart", pull, None, ""), "Unavailable"),
            (ended("TaskFailedToStart", secrets, None, ""), "Unavailable"),
            (ended("TaskFailedToStart", room, None, ""), "Throttled"),
        ] {
            assert_eq!(told(&ended), expected, "{ended:?}");
        }
    }

    #[test]
    fn the_cause_has_all_that_ecs_said() {
        let ended = ended(
            EXITED,
            "Essential container in task exited",
            Some(3),
            "no reason",
        );
        let ItemReport::Failed(failure) = ended.report() else {
            panic!("it failed");
        };
        let all =
            "exit code 3; EssentialContainerExited; Essential container in task exited; no reason";
        assert_eq!(failure.cause, all);
    }

    #[test]
    fn only_the_container_that_does_the_work_counts_and_only_when_the_task_has_stopped() {
        let container = |name: &str, exit| Container::builder().name(name).exit_code(exit).build();
        let task = Task::builder()
            .containers(container("sidecar", 1))
            .containers(container("work", 0))
            .stop_code(TaskStopCode::EssentialContainerExited);
        assert_eq!(
            Ended::of(&task.clone().last_status("RUNNING").build(), "work"),
            None
        );
        let ended = Ended::of(&task.last_status("STOPPED").build(), "work");
        assert_eq!(told(&ended.expect("it has stopped")), "succeeded");
    }
}
