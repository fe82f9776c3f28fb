//! Ties the protection of an ECS task to the calls of the session that is at work. Nothing is decided here.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::adapters::task_protection::TaskProtection;
use crate::ports::Runtime;
use crate::shell::Env;

/// Whether a process's task is protected while its calls run; by default it is not.
#[derive(Default)]
pub struct Protection {
    task: Option<TaskProtection>,
    /// The session that is at work, or was last.
    session: Mutex<Weak<Env>>,
}

impl Protection {
    /// Of the task that this process is, if it is one. For the one that works here: two would give up what the other
    /// needs.
    pub fn of_this_task(runtime: &Runtime) -> Self {
        Self {
            task: TaskProtection::from_env(runtime),
            session: Mutex::default(),
        }
    }

    /// From now on the calls of this session count.
    pub(super) fn watch(&self, env: &Arc<Env>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(env);
    }

    /// Does the work, protected while calls run.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let work = Box::pin(work);
        match &self.task {
            Some(task) => task.during(|| self.running(), work).await,
            None => work.await,
        }
    }

    fn running(&self) -> u32 {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.upgrade().map_or(0, |env| env.permits.used())
    }
}
