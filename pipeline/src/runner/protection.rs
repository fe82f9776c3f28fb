//! Ties the protection of an ECS task to the calls of the session that is at work. Nothing is decided here.

use super::at_work::AtWork;
use crate::adapters::task_protection::TaskProtection;
use crate::ports::Runtime;

/// Whether a process's task is protected while its calls run; by default it is not.
#[derive(Default)]
pub struct Protection {
    task: Option<TaskProtection>,
}

impl Protection {
    /// Of the task that this process is, if it is one. For the one that works here: two would give up what the other
    /// needs.
    pub fn of_this_task(runtime: &Runtime) -> Self {
        Self {
            task: TaskProtection::from_env(runtime),
        }
    }

    /// Does the work, protected while calls of the session at work run.
    pub(super) async fn during<T>(&self, at_work: &AtWork, work: impl Future<Output = T>) -> T {
        let work = Box::pin(work);
        match &self.task {
            Some(task) => task.during(|| at_work.running(), work).await,
            None => work.await,
        }
    }
}
