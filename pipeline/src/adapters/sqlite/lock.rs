//! One process runs an embedded ledger. Whoever holds this lock knows that the former owner is dead.
//!
//! It is for runners: readers and writers of wishes never ask for it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Longer than any process id.
const PID_CHARS_MAX: u64 = 20;

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct RunnerLock {
    file: File,
}

/// Why the lock was not had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Another process runs this ledger.
    #[error(
        "the ledger {} is run by another process ({}): wait for it, or use `pause` or `stop`",
        ledger.display(),
        holder(*pid)
    )]
    Held {
        /// The ledger.
        ledger: PathBuf,
        /// The holder, if it has said so already.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}: {reason}", path.display())]
    Failed {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("pid {pid}"),
        None => "just starting".to_owned(),
    }
}

impl RunnerLock {
    /// Takes the lock of this ledger (`<ledger>.lock`, which stays behind as an empty file), and
    /// writes this process's id into it. Makes the directory if there is none.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(ledger: &Path) -> Result<Self, LockError> {
        let mut path = ledger.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error: std::io::Error| LockError::Failed {
            path: path.clone(),
            reason: error.to_string(),
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    ledger: ledger.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for RunnerLock {
    fn drop(&mut self) {
        // A reader must not take our id for a holder's. If it fails, the lock is free all the same.
        drop(self.file.set_len(0));
        drop(self.file.unlock());
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_CHARS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_runner_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = directory.path().join("new/ledger.db");
        let held = RunnerLock::acquire(&ledger).expect("nobody holds it");
        let refusal = RunnerLock::acquire(&ledger).expect_err("it is held");
        assert_eq!(
            refusal,
            LockError::Held {
                ledger: ledger.clone(),
                pid: Some(std::process::id())
            }
        );
        assert!(
            refusal
                .to_string()
                .contains(&std::process::id().to_string())
        );
        drop(held);
        RunnerLock::acquire(&ledger).expect("it was given back");
    }
}
