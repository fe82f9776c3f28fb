//! How often links to services go wrong, and how.

use std::time::Duration;

use crate::entropy::Stream;

/// Chances of faults, each of a million calls (of a million messages, where it says so).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The request is lost: not done, no answer.
    pub request_lost: u32,
    /// It is done, the answer is lost.
    pub reply_lost: u32,
    /// No answer, and it is done later, up to [`LATE_MAX`].
    pub late: u32,
    /// No answer for [`HANG`], and not done.
    pub hangs: u32,
    /// Refused as too fast.
    pub throttled: u32,
    /// Refused, as another transaction was at it.
    pub conflict: u32,
    /// Reads without an answer.
    pub read_lost: u32,
    /// Messages that are never sent.
    pub hint_lost: u32,
    /// Messages that are sent twice.
    pub hint_doubled: u32,
    /// Messages that arrive up to [`LATE_MAX`] later.
    pub hint_late: u32,
}

/// The latest that a request or a message arrives.
pub const LATE_MAX: Duration = Duration::from_secs(90);

/// How long a hanging call gives no answer: longer than a session may be silent.
pub const HANG: Duration = Duration::from_mins(1);

/// One way of a call: up to so long.
const WAY_MAX: Duration = Duration::from_millis(8);

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        request_lost: 0,
        reply_lost: 0,
        late: 0,
        hangs: 0,
        throttled: 0,
        conflict: 0,
        read_lost: 0,
        hint_lost: 0,
        hint_doubled: 0,
        hint_late: 0,
    };

    /// The same chance for everything but hanging calls, which are a tenth as likely.
    pub const fn all(of_million: u32) -> Self {
        Self {
            request_lost: of_million,
            reply_lost: of_million,
            late: of_million,
            hangs: of_million / 10,
            throttled: of_million,
            conflict: of_million,
            read_lost: of_million,
            hint_lost: of_million,
            hint_doubled: of_million,
            hint_late: of_million,
        }
    }

    /// What becomes of the next write.
    pub(super) fn of_write(self, chance: &Stream) -> Fate {
        let of_million = [
            (self.request_lost, Fate::RequestLost),
            (self.reply_lost, Fate::ReplyLost),
            (self.late, Fate::Late),
            (self.hangs, Fate::Hangs),
            (self.throttled, Fate::Throttled),
            (self.conflict, Fate::Conflict),
        ];
        pick(&of_million, chance).unwrap_or(Fate::Done)
    }

    /// What becomes of the next message.
    pub(super) fn of_message(self, chance: &Stream) -> MessageFate {
        let of_million = [
            (self.hint_lost, MessageFate::Lost),
            (self.hint_doubled, MessageFate::Doubled),
            (self.hint_late, MessageFate::Late),
        ];
        pick(&of_million, chance).unwrap_or(MessageFate::Sent)
    }
}

fn pick<F: Copy>(of_million: &[(u32, F)], chance: &Stream) -> Option<F> {
    let mut draw = chance.below(1_000_000);
    for (likely, fate) in of_million {
        match draw.checked_sub(u64::from(*likely)) {
            Some(rest) => draw = rest,
            None => return Some(*fate),
        }
    }
    None
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    RequestLost,
    ReplyLost,
    Late,
    Hangs,
    Throttled,
    Conflict,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageFate {
    Sent,
    Lost,
    Doubled,
    Late,
}

/// A duration from nothing up to `longest`.
pub(super) fn up_to(longest: Duration, chance: &Stream) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(chance.below(nanos.max(1)))
}

/// How long a call is under way to the service.
pub(super) fn way(chance: &Stream) -> Duration {
    up_to(WAY_MAX, chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Seed;

    #[test]
    fn without_faults_everything_is_done_and_with_them_each_kind_comes() {
        let chance = Seed(1).stream("faults");
        assert!((0..1_000).all(|_| Faults::NONE.of_write(&chance) == Fate::Done));
        let faults = Faults::all(100_000);
        let fates: Vec<Fate> = (0..2_000).map(|_| faults.of_write(&chance)).collect();
        for fate in [
            Fate::Done,
            Fate::RequestLost,
            Fate::ReplyLost,
            Fate::Late,
            Fate::Hangs,
            Fate::Throttled,
            Fate::Conflict,
        ] {
            assert!(fates.contains(&fate), "{fate:?} never came");
        }
    }
}
