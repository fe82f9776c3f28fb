//! Which process a container belongs to, so that others can tell whether it is gone.
//!
//! A number of a process is used again. So a worker is named by boot, process namespace, number and start
//! time (proc(5)). Where that cannot be read or compared (no `/proc`, another namespace), a worker is taken
//! to be alive: what is left alone costs room, what is ended wrongly costs work.

use std::fs;
use std::str::FromStr;

/// One worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    boot: String,
    namespace: String,
    process: u32,
    start_ticks: u64,
}

/// What can be said of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs, or nobody here can tell.
    MayLive,
    /// It does not run any more.
    Gone,
}

impl Worker {
    /// This process.
    pub(super) fn own() -> Self {
        Self::of(std::process::id())
    }

    /// A process of this machine, as it is now.
    pub(super) fn of(process: u32) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            boot: boot.trim_end().to_owned(),
            namespace: namespace.to_string_lossy().into_owned(),
            process,
            start_ticks: start_of(process).unwrap_or_default(),
        }
    }

    /// How a worker stands, seen from this one.
    pub(super) fn look_at(&self, other: &Self) -> Standing {
        self.judge(other, start_of(other.process))
    }

    /// `now` is when the process that has the other's number here was started.
    fn judge(&self, other: &Self, now: Option<u64>) -> Standing {
        if self.boot.is_empty() || other.boot.is_empty() {
            return Standing::MayLive;
        }
        if self.boot != other.boot {
            return Standing::Gone;
        }
        if self.namespace != other.namespace || now == Some(other.start_ticks) {
            return Standing::MayLive;
        }
        Standing::Gone
    }

    /// As the label that [`FromStr`] reads.
    pub(super) fn label(&self) -> String {
        let (boot, namespace) = (&self.boot, &self.namespace);
        format!("{boot}/{namespace}/{}/{}", self.process, self.start_ticks)
    }
}

impl FromStr for Worker {
    type Err = NoWorker;

    fn from_str(text: &str) -> Result<Self, NoWorker> {
        let fields: Vec<&str> = text.split('/').collect();
        let [boot, namespace, process, start] = *fields else {
            return Err(NoWorker);
        };
        Ok(Self {
            boot: boot.to_owned(),
            namespace: namespace.to_owned(),
            process: process.parse().map_err(|_| NoWorker)?,
            start_ticks: start.parse().map_err(|_| NoWorker)?,
        })
    }
}

/// A label that names no worker.
#[derive(Debug)]
pub(super) struct NoWorker;

/// When a process was started; nothing if it does not run.
fn start_of(process: u32) -> Option<u64> {
    start_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Reads `/proc/[pid]/stat`: the name, in parentheses, may hold anything; the state is the next field, the
/// start time the twentieth from there.
fn start_in(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    match fields.next()? {
        // Dead, and not waited for yet.
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(boot: &str, namespace: &str, start_ticks: u64) -> Worker {
        Worker {
            boot: boot.to_owned(),
            namespace: namespace.to_owned(),
            process: 7,
            start_ticks,
        }
    }

    #[test]
    fn a_worker_is_gone_if_the_machine_or_the_process_is_another() {
        let own = worker("boot", "pid:[1]", 1);
        let other = worker("boot", "pid:[1]", 50);
        assert_eq!(own.judge(&other, Some(50)), Standing::MayLive);
        assert_eq!(
            own.judge(&other, Some(51)),
            Standing::Gone,
            "number used again"
        );
        assert_eq!(own.judge(&other, None), Standing::Gone);
        let earlier = worker("earlier boot", "pid:[1]", 50);
        assert_eq!(own.judge(&earlier, Some(50)), Standing::Gone);
    }

    #[test]
    fn a_worker_that_cannot_be_seen_from_here_may_live() {
        let own = worker("boot", "pid:[1]", 1);
        let contained = worker("boot", "pid:[2]", 50);
        assert_eq!(own.judge(&contained, None), Standing::MayLive);
        let blind = worker("", "", 0);
        assert_eq!(own.judge(&blind, None), Standing::MayLive);
        assert_eq!(blind.judge(&own, None), Standing::MayLive);
    }

    #[test]
    fn this_process_lives_and_its_label_is_read_back() {
        let own = Worker::own();
        assert_eq!(own.look_at(&own), Standing::MayLive);
        let read: Worker = own.label().parse().expect("just written");
        assert_eq!(read, own);
        assert!("boot/1/2".parse::<Worker>().is_err());
        assert!("boot/ns/pid/2".parse::<Worker>().is_err());
    }

    #[test]
    fn a_start_time_is_found_behind_any_name_and_the_dead_have_none() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 999 1";
        assert_eq!(start_in(stat), Some(4242));
        assert_eq!(start_in(&stat.replace(" S ", " Z ")), None);
        assert_eq!(start_in("nonsense"), None);
    }
}
