//! Marks: what was last taken in of an object, so that a duplicate is known and a late event is not news.
//!
//! In a versioned bucket each version has its mark: all versions are work. Else a key has one mark, with its order.
//! S3 delivers at least once and in no order ("Amazon S3 event notifications", delivery).

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{EventKind, ObjectEvent};
use super::planted::{Bug, is_planted};
use super::time::Timestamp;

/// Events of one key and millisecond that a mark remembers beside the last: more than a bucket can write.
pub const TWINS_MAX: usize = 8;

/// How long a mark is kept: twice as long as a queue keeps a message, 14 days ("Amazon SQS message quotas").
pub const MARK_KEPT: Duration = Duration::from_secs(28 * 86_400);

/// Whether sequencers can be believed. No emulator gives one that can: they are constant or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequencer {
    /// As S3 gives it.
    Trusted,
    /// Order is by the event's time alone.
    Ignored,
}

/// Names one intake of a session: what it takes in becomes ready at once or never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntakeId(pub Arc<str>);

impl IntakeId {
    /// The intake of that text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(text.as_ref().into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for IntakeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one event of an intake: the same event may be in it twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The intake.
    pub intake: IntakeId,
    /// Which of its events, from 0.
    pub index: u32,
}

/// One event as a mark holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The sequencer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequencer: Option<Arc<str>>,
    /// When it happened.
    pub at: Timestamp,
    /// What distinguishes events of one time: eTag, or what happened where there is none.
    pub etag: Arc<str>,
    /// Who took it.
    pub by: Claim,
}

impl Taken {
    /// Whether it is a removal: nothing has to become ready for it to be known.
    pub fn is_removal(&self) -> bool {
        *self.etag == *EventKind::Removed.as_str()
    }

    /// An event, taken by an intake.
    pub fn of(event: &ObjectEvent, by: &Claim) -> Self {
        let etag = event.etag.clone();
        Self {
            sequencer: event.sequencer.clone(),
            at: event.at,
            etag: etag.unwrap_or_else(|| event.kind.as_str().into()),
            by: by.clone(),
        }
    }
}

/// What was last taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The last.
    pub last: Taken,
    /// Others of the same time: which of them was the last nobody can tell, so all were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<Taken>,
}

/// What an event is to a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Later than the mark: take it, and mark it so.
    News(Mark),
    /// It was taken before, by this one: a duplicate, if that intake became ready.
    Same(Claim),
    /// Something later was taken: this is superseded.
    Late,
}

impl Mark {
    /// The mark of a first event.
    pub fn first(taken: Taken) -> Self {
        Self {
            last: taken,
            twins: Vec::new(),
        }
    }

    /// Compares an event with the mark of its key.
    pub fn compare(&self, event: Taken, sequencer: Sequencer) -> Compared {
        if let Some(by) = self.holds(&event, sequencer) {
            return Compared::Same(by);
        }
        self.ordered(event, sequencer)
    }

    /// Compares a state that a listing showed: it has no sequencer and stands at the end of its second, so that what
    /// was taken is known by the state alone.
    pub fn compare_listed(&self, listed: Taken) -> Compared {
        match self.of_state(&listed.etag) {
            Some(taken) if !is_planted(Bug::ListedAsNews) => Compared::Same(taken.by.clone()),
            Some(_) | None => self.ordered(listed, Sequencer::Ignored),
        }
    }

    fn ordered(&self, event: Taken, sequencer: Sequencer) -> Compared {
        match order(&event, &self.last, sequencer) {
            Ordering::Less => Compared::Late,
            Ordering::Greater => Compared::News(Self::first(event)),
            // The same time and another content: both are taken.
            Ordering::Equal => {
                let mut twins = self.twins.clone();
                twins.push(self.last.clone());
                if twins.len() > TWINS_MAX {
                    twins.remove(0);
                }
                Compared::News(Self { last: event, twins })
            }
        }
    }

    /// What was taken of an object in the state that a listing shows: that very state, or one that is later. A listing
    /// has no sequencer, and times in whole seconds: `event` stands at the end of its second.
    pub fn taken_of_listed(&self, event: &ObjectEvent) -> Option<&Taken> {
        if event.version.is_some() {
            return Some(&self.last);
        }
        let same = event.etag.as_ref().and_then(|etag| self.of_state(etag));
        let is_later = self.last.at > event.at;
        same.or_else(|| is_later.then_some(&self.last))
    }

    fn of_state(&self, etag: &str) -> Option<&Taken> {
        let mut all = std::iter::once(&self.last).chain(&self.twins);
        all.find(|taken| *taken.etag == *etag)
    }

    /// The mark of a version: whatever comes again is the same.
    pub fn compare_version(&self) -> Compared {
        Compared::Same(self.last.by.clone())
    }

    /// Who took this very event, if the mark remembers it.
    fn holds(&self, event: &Taken, sequencer: Sequencer) -> Option<Claim> {
        let mut all = std::iter::once(&self.last).chain(&self.twins);
        let same = |taken: &&Taken| {
            order(event, taken, sequencer) == Ordering::Equal && event.etag == taken.etag
        };
        all.find(same).map(|taken| taken.by.clone())
    }

    /// The mark with what `from` took given to `to`.
    #[must_use]
    pub fn given(&self, from: &Claim, to: &Claim) -> Self {
        let mut mark = self.clone();
        for taken in std::iter::once(&mut mark.last).chain(&mut mark.twins) {
            if taken.by == *from {
                taken.by = to.clone();
            }
        }
        mark
    }
}

/// The order of two events of one key: by sequencer where both have one that is believed, else by time.
fn order(a: &Taken, b: &Taken, sequencer: Sequencer) -> Ordering {
    match (sequencer, &a.sequencer, &b.sequencer) {
        (Sequencer::Trusted, Some(a), Some(b)) => compare_sequencers(a, b),
        (Sequencer::Trusted | Sequencer::Ignored, _, _) => a.at.cmp(&b.at),
    }
}

/// Hexadecimal numbers of which the shorter is to be padded with zeros on its right ("Event message structure",
/// sequencer).
fn compare_sequencers(a: &str, b: &str) -> Ordering {
    let longest = a.len().max(b.len());
    let padded = |text: &str| {
        let digits = text.bytes().map(|digit| digit.to_ascii_uppercase());
        let zeros = std::iter::repeat_n(b'0', longest - text.len());
        digits.chain(zeros).collect::<Vec<u8>>()
    };
    padded(a).cmp(&padded(b))
}

/// Where a mark lies: one a version in a versioned bucket, else one a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkOf {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key.
    pub key: Arc<[u8]>,
    /// The version, in a versioned bucket.
    pub version: Option<Arc<str>>,
}

impl MarkOf {
    /// The mark of an event's object. A removal in a versioned bucket marks nothing: versions stay work.
    pub fn event(event: &ObjectEvent) -> Option<Self> {
        if event.kind == EventKind::Removed && event.version.is_some() {
            return None;
        }
        Some(Self {
            bucket: event.bucket.clone(),
            key: event.key.clone(),
            version: event.version.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(intake: &str) -> Claim {
        Claim {
            intake: IntakeId::new(intake),
            index: 0,
        }
    }

    fn taken(sequencer: &str, at: i64, etag: &str) -> Taken {
        Taken {
            sequencer: (!sequencer.is_empty()).then(|| sequencer.into()),
            at: Timestamp(at),
            etag: etag.into(),
            by: claim(&format!("i{at}{etag}")),
        }
    }

    #[test]
    fn a_shorter_sequencer_is_padded_on_its_right() {
        assert_eq!(compare_sequencers("A1", "A1000"), Ordering::Equal);
        assert_eq!(compare_sequencers("A2", "A1FFF"), Ordering::Greater);
        assert_eq!(compare_sequencers("a1", "A1"), Ordering::Equal);
        assert_eq!(
            compare_sequencers("0055AED6DCD90281E5", "0055AED6DCD90281E6"),
            Ordering::Less
        );
    }

    #[test]
    fn an_event_of_the_same_time_and_another_content_is_taken_and_both_are_known_again() {
        let mark = Mark::first(taken("", 5, "a"));
        let Compared::News(mark) = mark.compare(taken("", 5, "b"), Sequencer::Ignored) else {
            panic!("a twin is taken")
        };
        for (etag, by) in [("a", "i5a"), ("b", "i5b")] {
            let again = mark.compare(taken("", 5, etag), Sequencer::Ignored);
            assert_eq!(again, Compared::Same(claim(by)));
        }
        assert_eq!(
            mark.compare(taken("", 4, "a"), Sequencer::Ignored),
            Compared::Late
        );
    }

    #[test]
    fn a_constant_sequencer_hides_overwrites_only_if_it_is_trusted() {
        let mark = Mark::first(taken("0055", 5, "a"));
        let overwrite = taken("0055", 6, "b");
        let news = mark.compare(overwrite.clone(), Sequencer::Ignored);
        assert_eq!(news, Compared::News(Mark::first(overwrite)));
        assert_eq!(
            mark.compare(taken("0055", 6, "a"), Sequencer::Trusted),
            Compared::Same(claim("i5a"))
        );
    }

    #[test]
    fn a_listed_state_is_taken_if_it_or_a_later_one_is() {
        let listed = |etag: &str, at: i64| ObjectEvent {
            bucket: "photos".into(),
            key: b"k".as_slice().into(),
            kind: EventKind::Listed,
            size_bytes: Some(1),
            etag: Some(etag.into()),
            version: None,
            sequencer: None,
            at: Timestamp(at),
        };
        let mark = Mark::first(taken("A1", 5_300, "a"));
        let by = |event: &ObjectEvent| mark.taken_of_listed(event).map(|taken| taken.etag.clone());
        assert_eq!(by(&listed("a", 5_999)), Some("a".into()));
        assert_eq!(by(&listed("z", 4_999)), Some("a".into()), "superseded");
        assert_eq!(by(&listed("b", 6_999)), None, "an overwrite nobody told of");
        assert_eq!(by(&listed("b", 5_999)), None, "one within the same second");
        let twin = mark.compare(taken("", 5_300, "b"), Sequencer::Ignored);
        let Compared::News(both) = twin else {
            panic!("a twin is taken")
        };
        assert!(both.taken_of_listed(&listed("a", 5_999)).is_some());
    }

    #[test]
    fn a_listed_state_that_was_taken_meanwhile_is_no_news() {
        let mark = Mark::first(taken("A1", 5_300, "a"));
        let listed = |etag: &str, at: i64| mark.compare_listed(taken("", at, etag));
        assert_eq!(listed("a", 5_999), Compared::Same(claim("i5300a")));
        assert_eq!(listed("z", 4_999), Compared::Late);
        let news = Mark::first(taken("", 6_999, "b"));
        assert_eq!(listed("b", 6_999), Compared::News(news.clone()));
        let own_event = news.compare(taken("A2", 6_100, "b"), Sequencer::Trusted);
        assert_eq!(own_event, Compared::Late, "the event comes after all");
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_delivery_the_last_is_taken_and_nothing_twice(
            times in proptest::collection::vec((0i64..6, 0u8..3), 1..12),
            repeats in proptest::collection::vec(0usize..12, 0..12),
        ) {
            let events: Vec<Taken> = times
                .iter()
                .map(|(at, etag)| taken("", *at, &format!("e{etag}")))
                .collect();
            let delivered = (0..events.len()).chain(repeats.iter().map(|n| n % events.len()));
            let mut mark: Option<Mark> = None;
            let mut done: Vec<(i64, Arc<str>)> = Vec::new();
            for event in delivered.map(|index| events[index].clone()) {
                let name = (event.at.0, event.etag.clone());
                match &mark {
                    None => {
                        done.push(name);
                        mark = Some(Mark::first(event));
                    }
                    Some(seen) => match seen.compare(event, Sequencer::Ignored) {
                        Compared::News(next) => {
                            prop_assert!(!done.contains(&name), "taken twice");
                            done.push(name);
                            mark = Some(next);
                        }
                        Compared::Same(_) => prop_assert!(done.contains(&name)),
                        Compared::Late => prop_assert!(mark.as_ref().is_some_and(|m| m.last.at.0 > name.0)),
                    },
                }
            }
            let last = events.iter().map(|event| event.at.0).max();
            for event in events.iter().filter(|event| Some(event.at.0) == last) {
                prop_assert!(done.contains(&(event.at.0, event.etag.clone())), "the last is missing");
            }
        }
    }
}
