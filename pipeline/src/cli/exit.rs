//! What the process tells the shell when it ends.

use std::process::ExitCode;

use super::view::RunStatus;

/// Exit codes. Scripts decide by them, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// All items succeeded, or the command did what it should.
    Success,
    /// The run FAILED or was ABORTED.
    Failed,
    /// The command line, the job file or a file it names is not right; nothing was started.
    Usage,
    /// The run succeeded with failures that it tolerates.
    Tolerated,
    /// An endpoint cannot be reached, or does not accept the credentials.
    Unreachable,
    /// The run is PAUSED: it was asked to, or a breach pauses it.
    Paused,
    /// The audit counted something else than the ledger says.
    AuditDisagrees,
    /// Ended after Ctrl-C; work in hand was given back (128 + SIGINT's number, as shells have it).
    Sigint,
    /// Ended after SIGTERM; work in hand was given back (128 + SIGTERM's number).
    Sigterm,
}

impl Exit {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::Tolerated,
        Self::Unreachable,
        Self::Paused,
        Self::AuditDisagrees,
        Self::Sigint,
        Self::Sigterm,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Tolerated => 3,
            Self::Unreachable => 4,
            Self::Paused => 5,
            Self::AuditDisagrees => 6,
            Self::Sigint => 130,
            Self::Sigterm => 143,
        }
    }

    /// How a command ends that watched a run until it came to this status, with so many failures.
    /// A run that still runs was left running on purpose.
    #[must_use]
    pub fn of_run(status: RunStatus, failures: u64) -> Self {
        match (status, failures) {
            (RunStatus::Running, _) | (RunStatus::Succeeded, 0) => Self::Success,
            (RunStatus::Succeeded, _) => Self::Tolerated,
            (RunStatus::Failed | RunStatus::Aborted, _) => Self::Failed,
            (RunStatus::Paused, _) => Self::Paused,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_documentation() {
        let numbers = Exit::ALL.map(Exit::code);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 130, 143]);
    }

    #[test]
    fn tolerated_failures_are_not_quite_success() {
        assert_eq!(Exit::of_run(RunStatus::Succeeded, 0), Exit::Success);
        assert_eq!(Exit::of_run(RunStatus::Succeeded, 1), Exit::Tolerated);
        assert_eq!(Exit::of_run(RunStatus::Aborted, 0), Exit::Failed);
        assert_eq!(Exit::of_run(RunStatus::Paused, 9), Exit::Paused);
    }
}
