//! Windows: an endless job's runs. Each begins at a multiple of the window's length, and is a run like any other
//! once it is sealed: then its total is final.

use std::time::Duration;

use super::id::{JobName, RunId};
use super::time::Timestamp;

/// How long after its end a window is sealed: what was about to be made ready in it by then is.
pub const GRACE: Duration = Duration::from_secs(2);

/// A stretch of time whose events are one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

impl Window {
    /// The window that a moment lies in. `length` is at least a second.
    pub fn at(now: Timestamp, length: Duration) -> Self {
        let length = i64::try_from(length.as_millis())
            .unwrap_or(i64::MAX)
            .max(1000);
        let start = now.0.div_euclid(length) * length;
        Self {
            start: Timestamp(start),
            end: Timestamp(start.saturating_add(length)),
        }
    }

    /// The one after it, of the same length.
    #[must_use]
    pub fn next(self) -> Self {
        let length = self.end.0 - self.start.0;
        Self {
            start: self.end,
            end: Timestamp(self.end.0.saturating_add(length)),
        }
    }

    /// The name of its run: `<job>-<yyyymmddThhmmss>` in UTC, so that every process names it alike.
    pub fn run(self, job: &JobName) -> RunId {
        /// A window whose start has no date is of a clock that is broken: any one name will do.
        const NEVER: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;
        let start = jiff::Timestamp::from_millisecond(self.start.0).unwrap_or(NEVER);
        RunId::new(format!("{job}-{}", start.strftime("%Y%m%dt%H%M%S")))
    }

    /// Whether nobody takes anything into it any more.
    pub fn is_over(self, now: Timestamp) -> bool {
        now >= self.end.after(GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_window_is_aligned_and_named_by_its_start() {
        // 2026-11-25T19:47:03Z.
        let now = Timestamp(1_795_636_023_000);
        let window = Window::at(now, HOUR);
        assert_eq!(
            window.run(&JobName::new("thumbs")).as_str(),
            "thumbs-20261125t190000"
        );
        assert_eq!(window.end.since(window.start), HOUR);
        assert_eq!(
            window.next().run(&JobName::new("thumbs")).as_str(),
            "thumbs-20261125t200000"
        );
        assert!(!window.is_over(window.end));
        assert!(window.is_over(window.end.after(GRACE)));
    }
}
