//! What a call was billed as: the REPORT line at the end of its log. Pure.

/// What stands in a REPORT line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Billed {
    /// How long it is billed for.
    pub(super) millis: u64,
    /// The memory that the function has, in MB.
    pub(super) memory_mb: u64,
}

/// The bill of a call, if its log tells it; the last, since a handler may print what it likes.
pub(super) fn billed(log: &[u8]) -> Option<Billed> {
    let log = String::from_utf8_lossy(log);
    let report = log.lines().rfind(|line| line.starts_with("REPORT "))?;
    Some(Billed {
        millis: number(report, "Billed Duration: ")?,
        memory_mb: number(report, "Memory Size: ")?,
    })
}

fn number(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(name)?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "REPORT RequestId: 79b4f56e\tDuration: 11.50 ms\tBilled Duration: 12 ms\tMemory Size: 256 MB\tMax Memory Used: 66 MB\tInit Duration: 122.53 ms";

    #[test]
    fn the_last_report_tells_time_and_memory() {
        let log = format!("REPORT nothing\nprinted\nEND RequestId: 79b4f56e\n{REPORT}\n");
        let told = Billed {
            millis: 12,
            memory_mb: 256,
        };
        assert_eq!(billed(log.as_bytes()), Some(told));
    }

    #[test]
    fn a_log_without_a_whole_report_tells_nothing() {
        for log in ["", "just words", "REPORT RequestId: 1\tDuration: 1 ms"] {
            assert_eq!(billed(log.as_bytes()), None, "{log}");
        }
    }
}
