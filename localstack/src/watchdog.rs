//! Small helper processes that outlive a test process by a moment, to clear up after it.
//!
//! A helper reads a pipe whose other end we alone hold. However we end (return, panic, `kill -9`) the
//! kernel closes our end, the helper reads end-of-file, clears up and ends. Destructors could not do
//! this: what tests share is a static, and statics are not dropped.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Removes a container by name, when told by end-of-file. Twice, because a container that was just
/// being created when we died may appear after the first try. Without the docker command it asks
/// the engine itself.
const REMOVE_CONTAINER: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
for pause in 1 0; do
  docker rm -f -v "$1" ||
    curl -s --unix-socket /var/run/docker.sock -X DELETE "http://docker/containers/$1?force=1&v=1"
  sleep $pause
done
"#;

/// Holds the pipe: while this lives, so does what it guards.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Never read or written: it is there to be closed.
    _pipe: ChildStdin,
    child: Child,
}

impl Guard {
    /// Whether the helper is gone before its time.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

/// Starts a helper that sees our end. It is in a process group of its own, so that Ctrl-C at the
/// terminal does not reach it before it has cleared up.
pub(crate) fn start(mut command: Command) -> io::Result<Guard> {
    let mut child = command.stdin(Stdio::piped()).process_group(0).spawn()?;
    let pipe = child.stdin.take().expect("stdin was asked to be a pipe");
    Ok(Guard { _pipe: pipe, child })
}

/// Removes the container of that name once we are gone.
pub(crate) fn remove_container(name: &str) -> io::Result<Guard> {
    let mut command = Command::new("sh");
    command
        .args(["-c", REMOVE_CONTAINER, "remove-container", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    start(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Long enough for a shell to start and end on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_helper_acts_when_its_pipe_closes_and_not_before() {
        let dir = std::env::temp_dir().join(format!("trommel-watchdog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let ready = dir.join("ready");
        let done = dir.join("done");
        let mut command = Command::new("sh");
        command
            .args(["-c", "touch ready; cat >/dev/null; touch done"])
            .current_dir(&dir);
        let mut guard = start(command).expect("there is a shell");
        let appears = |path: &std::path::Path| {
            let begun = Instant::now();
            while !path.exists() {
                assert!(begun.elapsed() < DEADLINE, "{} never came", path.display());
                std::thread::yield_now();
            }
        };
        appears(&ready);
        assert!(!guard.has_ended());
        assert!(!done.exists());
        let Guard {
            _pipe: pipe,
            mut child,
        } = guard;
        drop(pipe);
        child.wait().expect("the helper is our child");
        assert!(done.exists());
        std::fs::remove_dir_all(&dir).expect("it is ours");
    }
}
