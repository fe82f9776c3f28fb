//! What Docker says of a container that is over, as the end of a process. Pure.

use bollard::models::ContainerState;

use crate::adapters::command::child::Exit;

/// A process that a signal ended has 128 and its number as exit code (bash(1), EXIT STATUS; the engine
/// does as shells do).
const SIGNAL_BASE: i64 = 128;

/// The highest of the signals that mean something (signal(7)); codes above are the program's own.
const SIGNAL_MAX: i64 = 31;

/// The signal that the kernel ends a container with whose memory is used up, and that nobody survives.
pub(super) const SIGKILL: i32 = 9;

/// How it ended.
pub(super) fn exit_of(state: &ContainerState) -> Exit {
    let Some(code) = state.exit_code else {
        return Exit::Unknown;
    };
    // A child may have been killed for its memory, and its parent have gone on and succeeded.
    if state.oom_killed == Some(true) && code != 0 {
        return Exit::OutOfMemory;
    }
    let signal = code - SIGNAL_BASE;
    if (1..=SIGNAL_MAX).contains(&signal) {
        return Exit::Signal(signal as i32);
    }
    Exit::Code(code as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i64, oom_killed: bool) -> Exit {
        exit_of(&ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom_killed),
            ..ContainerState::default()
        })
    }

    #[test]
    fn codes_stay_and_those_of_signals_are_signals() {
        for (code, meant) in [
            (0, Exit::Code(0)),
            (3, Exit::Code(3)),
            (127, Exit::Code(127)),
            (128, Exit::Code(128)),
            (137, Exit::Signal(9)),
            (143, Exit::Signal(15)),
            (159, Exit::Signal(31)),
            (160, Exit::Code(160)),
            (255, Exit::Code(255)),
        ] {
            assert_eq!(exit(code, false), meant);
        }
        assert_eq!(exit_of(&ContainerState::default()), Exit::Unknown);
    }

    #[test]
    fn a_container_that_failed_for_memory_says_so_and_one_that_succeeded_all_the_same_did() {
        assert_eq!(exit(137, true), Exit::OutOfMemory);
        assert_eq!(exit(1, true), Exit::OutOfMemory);
        assert_eq!(exit(0, true), Exit::Code(0));
    }
}
