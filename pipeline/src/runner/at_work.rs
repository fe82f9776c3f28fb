//! The session that is at work in this process, for those who look on: protection and health. It keeps none alive.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::shell::Env;

/// The session that is at work, or was last.
#[derive(Default)]
pub struct AtWork(Mutex<Weak<Env>>);

impl AtWork {
    /// From now on it is this one.
    pub(super) fn begin(&self, env: &Arc<Env>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(env);
    }

    /// It, if there is one yet, and still.
    pub fn session(&self) -> Option<Arc<Env>> {
        let session = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        session.upgrade()
    }

    /// Its calls that run.
    pub(super) fn running(&self) -> u32 {
        self.session().map_or(0, |env| env.permits.used())
    }
}
