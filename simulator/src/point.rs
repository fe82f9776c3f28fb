//! Where a fault strikes: a call, named so that the name survives other faults being left out.
//!
//! A point is an operation, the entity it is about and how many times that entity was asked before. Whether
//! a fault strikes there, which, and how long the call takes, follow from the seed and the point alone: a
//! plan with one fault less leaves the rest of a run as much alike as can be. That is what makes shrinking
//! work.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entropy::Seed;

/// Everything that the pipeline asks of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// One row.
    TableGet,
    /// A range of rows.
    TableQuery,
    /// One conditional write.
    TableWrite,
    /// Several, together.
    TableTransact,
    /// Messages of a lane.
    QueueReceive,
    /// One message of a batch that is sent.
    QueueSend,
    /// Spent messages.
    QueueDelete,
    /// Messages that shall come back earlier or later.
    QueueChangeVisibility,
    /// How many messages there are.
    QueueDepth,
    /// A page of a listing.
    ObjectsList,
    /// An object's size and pin.
    ObjectsHead,
    /// An object's bytes.
    ObjectsGet,
    /// An object as a whole.
    ObjectsPut,
    /// An object, if there is none.
    ObjectsPutIfAbsent,
    /// An object in pieces.
    ObjectsUpload,
    /// Bytes behind an object's.
    ObjectsAppend,
    /// An object's end.
    ObjectsDelete,
    /// A handler's call for one item.
    Call,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::TableGet,
        Self::TableQuery,
        Self::TableWrite,
        Self::TableTransact,
        Self::QueueReceive,
        Self::QueueSend,
        Self::QueueDelete,
        Self::QueueChangeVisibility,
        Self::QueueDepth,
        Self::ObjectsList,
        Self::ObjectsHead,
        Self::ObjectsGet,
        Self::ObjectsPut,
        Self::ObjectsPutIfAbsent,
        Self::ObjectsUpload,
        Self::ObjectsAppend,
        Self::ObjectsDelete,
        Self::Call,
    ];

    /// The kinds of fault that its service documents.
    pub fn faults(self) -> &'static [Kind] {
        use Kind::{
            Conflict, CrashAfter, CrashBefore, Dies, Doubled, Ghost, Hangs, Late, Lost, NoCapacity,
            NoResult, OutOfMemory, Partial, Rejected, ReplyLost, RequestLost, Slow, Throttled,
        };
        match self {
            Self::TableGet
            | Self::TableQuery
            | Self::QueueDepth
            | Self::ObjectsList
            | Self::ObjectsHead
            | Self::ObjectsGet => &[RequestLost, Slow, CrashBefore, CrashAfter],
            Self::TableWrite => &[
                RequestLost,
                ReplyLost,
                Late,
                Hangs,
                Throttled,
                Slow,
                CrashBefore,
                CrashAfter,
            ],
            Self::TableTransact => &[
                RequestLost,
                ReplyLost,
                Late,
                Hangs,
                Throttled,
                Conflict,
                Slow,
                CrashBefore,
                CrashAfter,
            ],
            Self::QueueReceive => &[RequestLost, ReplyLost, Slow, CrashBefore, CrashAfter],
            Self::QueueSend => &[
                RequestLost,
                ReplyLost,
                Lost,
                Doubled,
                Late,
                Rejected,
                CrashBefore,
                CrashAfter,
            ],
            Self::QueueDelete => &[
                RequestLost,
                ReplyLost,
                Ghost,
                Rejected,
                CrashBefore,
                CrashAfter,
            ],
            Self::QueueChangeVisibility => {
                &[RequestLost, ReplyLost, Rejected, CrashBefore, CrashAfter]
            }
            Self::ObjectsPut
            | Self::ObjectsPutIfAbsent
            | Self::ObjectsUpload
            | Self::ObjectsAppend
            | Self::ObjectsDelete => &[RequestLost, ReplyLost, Slow, CrashBefore, CrashAfter],
            Self::Call => &[
                ReplyLost,
                Throttled,
                NoCapacity,
                Slow,
                Partial,
                NoResult,
                OutOfMemory,
                Dies,
                CrashBefore,
                CrashAfter,
            ],
        }
    }

    /// Its name, as in a scenario file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TableGet => "table-get",
            Self::TableQuery => "table-query",
            Self::TableWrite => "table-write",
            Self::TableTransact => "table-transact",
            Self::QueueReceive => "queue-receive",
            Self::QueueSend => "queue-send",
            Self::QueueDelete => "queue-delete",
            Self::QueueChangeVisibility => "queue-change-visibility",
            Self::QueueDepth => "queue-depth",
            Self::ObjectsList => "objects-list",
            Self::ObjectsHead => "objects-head",
            Self::ObjectsGet => "objects-get",
            Self::ObjectsPut => "objects-put",
            Self::ObjectsPutIfAbsent => "objects-put-if-absent",
            Self::ObjectsUpload => "objects-upload",
            Self::ObjectsAppend => "objects-append",
            Self::ObjectsDelete => "objects-delete",
            Self::Call => "call",
        }
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Not done, and no answer.
    RequestLost,
    /// Done, and no answer.
    ReplyLost,
    /// No answer; done later. A message arrives later.
    Late,
    /// No answer for longer than a session may be silent; not done.
    Hangs,
    /// Refused as too fast. A call: its class is `Throttled`.
    Throttled,
    /// Refused, as another transaction was at it.
    Conflict,
    /// Done and answered, late.
    Slow,
    /// A message that never arrives, though its sending succeeded.
    Lost,
    /// A message that arrives twice.
    Doubled,
    /// A message that comes back although its deletion succeeded.
    Ghost,
    /// An entry of a batch that is refused while the batch succeeds.
    Rejected,
    /// A call that finds no room to run in.
    NoCapacity,
    /// A call that says nothing of some of its items.
    Partial,
    /// A call that ends well and says nothing.
    NoResult,
    /// A call that is ended for its memory, after its effect.
    OutOfMemory,
    /// A call that dies, after its effect.
    Dies,
    /// The process dies before the call reaches the service.
    CrashBefore,
    /// The process dies after the service did it.
    CrashAfter,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::RequestLost,
        Self::ReplyLost,
        Self::Late,
        Self::Hangs,
        Self::Throttled,
        Self::Conflict,
        Self::Slow,
        Self::Lost,
        Self::Doubled,
        Self::Ghost,
        Self::Rejected,
        Self::NoCapacity,
        Self::Partial,
        Self::NoResult,
        Self::OutOfMemory,
        Self::Dies,
        Self::CrashBefore,
        Self::CrashAfter,
    ];

    /// Whether the process that calls dies of it.
    pub fn is_crash(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter)
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::RequestLost => "not done, and no answer",
            Self::ReplyLost => "done, and no answer",
            Self::Late => "no answer, and done later",
            Self::Hangs => "no answer for longer than a session may be silent",
            Self::Throttled => "refused as too fast",
            Self::Conflict => "refused, as another transaction was at it",
            Self::Slow => "done and answered, late",
            Self::Lost => "said to be done, and never done",
            Self::Doubled => "done twice",
            Self::Ghost => "said to be done, and undone",
            Self::Rejected => "refused, though its batch succeeded",
            Self::NoCapacity => "no room to run in",
            Self::Partial => "done, and nothing said of some of it",
            Self::NoResult => "done, and nothing said",
            Self::OutOfMemory => "done, then ended for its memory",
            Self::Dies => "done, then dead before it answered",
            Self::CrashBefore => "the process died before it was asked",
            Self::CrashAfter => "the process died once it was done",
        }
    }

    /// Its name, as in a scenario file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestLost => "request-lost",
            Self::ReplyLost => "reply-lost",
            Self::Late => "late",
            Self::Hangs => "hangs",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Slow => "slow",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Ghost => "ghost",
            Self::Rejected => "rejected",
            Self::NoCapacity => "no-capacity",
            Self::Partial => "partial",
            Self::NoResult => "no-result",
            Self::OutOfMemory => "out-of-memory",
            Self::Dies => "dies",
            Self::CrashBefore => "crash-before",
            Self::CrashAfter => "crash-after",
        }
    }
}

/// One call of one entity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// What is asked.
    pub operation: Operation,
    /// By whom and about what: `a page#run-1#0/…`.
    pub entity: String,
    /// The how many-th time, from 1.
    pub nth: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation.as_str();
        write!(f, "{operation} no. {} of {}", self.nth, self.entity)
    }
}

/// Chance for one point: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one call: the same for the same seed, operation, entity (its hash) and number, whatever
    /// else happened.
    pub fn at(seed: Seed, operation: Operation, entity: u64, nth: u32) -> Self {
        let place = (operation as u64) << 32 | u64::from(nth);
        let mut dice = Self(seed.0 ^ entity.rotate_left(17));
        dice.0 = dice.draw() ^ place;
        Self(dice.draw())
    }

    /// Uniform over all values.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 up to, not including, `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        debug_assert!(end > 0, "there is no number below 0");
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// True in `of_million` of a million draws.
    pub fn chance(&mut self, of_million: u32) -> bool {
        self.below(1_000_000) < u64::from(of_million)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_follow_from_seed_and_point_alone() {
        let write = Operation::TableWrite;
        let first = |seed: u64, nth: u32| Dice::at(Seed(seed), write, 77, nth).draw();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(2, 1));
        assert_ne!(first(1, 1), first(1, 2));
    }

    #[test]
    fn names_are_those_of_the_scenario_file() {
        for operation in Operation::ALL {
            let text = serde_json::to_string(&operation).expect("plain");
            assert_eq!(text, format!("\"{}\"", operation.as_str()));
            assert!(!operation.faults().is_empty());
        }
        for kind in Kind::ALL {
            let text = serde_json::to_string(&kind).expect("plain");
            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            let used = Operation::ALL.iter().any(|op| op.faults().contains(&kind));
            assert!(used, "{kind:?} strikes nowhere");
        }
    }
}
