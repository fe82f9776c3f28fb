//! How much memory a process and its children hold.
//!
//! Their resident sizes are summed, so that what they share counts twice; never RLIMIT_AS, which many runtimes cannot bear:
//! they reserve far more than they use. Seen on Linux only.

use std::fs;
use std::time::Duration;

/// Between two looks: a process that takes a gigabyte a second is ended 25 MB late.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Processes summed at most; one that starts more than that has other troubles.
const PROCESSES_MAX: usize = 256;

/// Bytes held by this process and all that it started; none: it cannot be seen.
pub(super) fn held_bytes(process: u32) -> Option<u64> {
    let page_bytes = page_bytes()?;
    let own = resident_pages(process)?;
    // Gone meanwhile is as good as nothing.
    let started = started_by(process).into_iter().filter_map(resident_pages);
    Some((own + started.sum::<u64>()) * page_bytes)
}

/// All that it started, and they.
pub(super) fn started_by(process: u32) -> Vec<u32> {
    let mut ask = children(process);
    let mut started = Vec::new();
    while let Some(child) = ask.pop() {
        if started.len() >= PROCESSES_MAX {
            break;
        }
        started.push(child);
        ask.extend(children(child));
    }
    started
}

fn page_bytes() -> Option<u64> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    u64::try_from(size).ok()
}

/// The second number of statm (proc_pid_statm(5)).
fn resident_pages(process: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The children of its first thread, and of its others where there are some (proc_tid_children(5)).
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(
            text.split_ascii_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    children
}
