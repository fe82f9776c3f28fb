//! A process and all that it starts, as far as they stay in its group: ended together, at the latest with the worker.

use std::io;
use std::sync::Arc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::reaper::{Note, Reaper};

/// The processes of one call; killed together, at the latest when this is dropped.
pub(in crate::adapters) struct Group {
    id: Pid,
    is_ours: bool,
    note: Option<Note>,
}

impl Group {
    /// The group that this process leads, noted with the reaper.
    ///
    /// # Errors
    /// It could not be noted; the group is ended.
    pub(in crate::adapters) fn of(process: u32, reaper: Option<&Arc<Reaper>>) -> io::Result<Self> {
        let mut group = Self {
            id: Pid::from_raw(process as i32),
            is_ours: true,
            note: None,
        };
        if let Some(reaper) = reaper {
            group.note = Some(reaper.note(group.id)?);
        }
        Ok(group)
    }

    pub(super) fn signal(&self, signal: Signal) {
        if !self.is_ours {
            return;
        }
        // It fails if all of them have ended, which is as good.
        let _ = killpg(self.id, signal);
    }

    /// Kills what is left. From then on the number may become another's, and is not used again.
    pub(in crate::adapters) fn end(&mut self) {
        self.signal(Signal::SIGKILL);
        self.is_ours = false;
        self.note = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}
