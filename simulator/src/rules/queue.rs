//! The rules of a queue, as a judge: whether what was answered fits what was asked before.
//!
//! A queue that delivers at least once may answer almost anything. So the judge knows a plain queue, which
//! gives each message once until its visibility ends, and names what goes beyond that: a [`Liberty`]. Those of
//! the model are what the simulated queue does on purpose; the others are nobody's rule, and need a reason.

use std::collections::BTreeMap;
use std::time::Duration;

use trommel::core::time::Tick;
use trommel::ports::Message;
use trommel::ports::queue::{Depth, Handle, Outgoing, Rejected};

use super::Illegal;

/// So much earlier than asked a queue may show a message: services round to their own clocks.
const SLACK: Duration = Duration::from_millis(250);

/// What a queue does beyond the plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liberty {
    /// A message comes while another delivery of it is hidden, or under a second name.
    Doubled,
    /// A message comes back although its deletion succeeded.
    Ghost,
    /// A message that can be received does not come.
    Withheld,
    /// A message never came, though nothing deleted it.
    Lost,
    /// An entry is refused that could have been done.
    Rejected,
    /// Deletion by a handle that was good once is refused.
    FormerHandleRefused,
    /// Deletion by the handle of a former delivery deletes.
    FormerHandleDeletes,
    /// The handle of a former delivery, or of a deleted message, changes a visibility.
    FormerHandleHides,
    /// The count of deliveries is another than that of the deliveries.
    Miscounted,
    /// The depth is not that of what was sent and not deleted.
    DepthOff,
}

impl Liberty {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Doubled,
        Self::Ghost,
        Self::Withheld,
        Self::Lost,
        Self::Rejected,
        Self::FormerHandleRefused,
        Self::FormerHandleDeletes,
        Self::FormerHandleHides,
        Self::Miscounted,
        Self::DepthOff,
    ];

    /// Whether the simulated queue takes it, by one of its faults. The others are no rule at all.
    pub fn is_of_the_model(self) -> bool {
        match self {
            Self::Doubled
            | Self::Ghost
            | Self::Withheld
            | Self::Lost
            | Self::Rejected
            | Self::FormerHandleRefused
            | Self::DepthOff => true,
            Self::FormerHandleDeletes | Self::FormerHandleHides | Self::Miscounted => false,
        }
    }

    /// What it is, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Doubled => "a message comes while another delivery of it is hidden",
            Self::Ghost => "a message comes back after its deletion",
            Self::Withheld => "a message that can be received does not come",
            Self::Lost => "a message never comes",
            Self::Rejected => "an entry is refused that could have been done",
            Self::FormerHandleRefused => "deletion by a handle that was good once is refused",
            Self::FormerHandleDeletes => "deletion by the handle of a former delivery deletes",
            Self::FormerHandleHides => "a former handle changes a visibility",
            Self::Miscounted => "a count of deliveries is wrong",
            Self::DepthOff => "a depth is wrong",
        }
    }
}

/// When a call began and ended: what it did, it did in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Before it was sent.
    pub began: Tick,
    /// After it was answered.
    pub ended: Tick,
}

/// Whether a message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    There,
    /// Deleted by a handle of before: it may be there or not.
    MaybeGone,
    Gone,
}

/// A message that was sent.
#[derive(Clone, Debug)]
struct Kept {
    body: String,
    /// As the service calls it, once it was received.
    id: Option<String>,
    fate: Fate,
    /// It is hidden until then …
    not_before: Tick,
    /// … and can surely be received from then on.
    surely_from: Tick,
    deliveries: u32,
}

/// What was sent and what became of it.
#[derive(Clone, Debug, Default)]
pub struct QueueRules {
    kept: Vec<Kept>,
    /// Deliveries in the order in which they came: of which message, and its how many-th.
    deliveries: Vec<(Handle, usize, u32)>,
    taken: BTreeMap<Liberty, u64>,
}

impl QueueRules {
    /// Of an empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often each liberty was taken.
    pub fn taken(&self) -> &BTreeMap<Liberty, u64> {
        &self.taken
    }

    /// The handle of the so many-th delivery of all, from 0.
    pub fn handle(&self, delivery: usize) -> Option<&Handle> {
        self.deliveries.get(delivery).map(|(handle, _, _)| handle)
    }

    /// How many deliveries there were.
    pub fn delivered(&self) -> usize {
        self.deliveries.len()
    }

    /// The latest handles of all messages that may be there.
    pub fn latest_handles(&self) -> Vec<Handle> {
        let latest = self.deliveries.iter().filter(|(_, message, number)| {
            let kept = &self.kept[*message];
            kept.fate != Fate::Gone && kept.deliveries == *number
        });
        latest.map(|(handle, _, _)| handle.clone()).collect()
    }

    /// When all that may be there can surely be received.
    pub fn all_visible_from(&self) -> Tick {
        let there = self.kept.iter().filter(|kept| kept.fate != Fate::Gone);
        there.map(|kept| kept.surely_from).max().unwrap_or_default()
    }

    /// Whether something is there that was not deleted.
    pub fn is_empty(&self) -> bool {
        self.kept.iter().all(|kept| kept.fate != Fate::There)
    }

    fn take(&mut self, liberty: Liberty) {
        *self.taken.entry(liberty).or_default() += 1;
    }

    /// A batch was sent, and these entries were said not to be.
    ///
    /// # Errors
    /// An entry that no queue takes was taken.
    pub fn saw_send(
        &mut self,
        batch: &[Outgoing],
        rejected: &[Rejected],
        span: Span,
    ) -> Result<(), Illegal> {
        for (index, outgoing) in batch.iter().enumerate() {
            let refused = rejected.iter().any(|entry| entry.index == index);
            match (outgoing.body.is_empty(), refused) {
                (true, true) => continue,
                (true, false) => return Err(Illegal("an empty message was sent".to_owned())),
                (false, true) => {
                    self.take(Liberty::Rejected);
                    continue;
                }
                (false, false) => {}
            }
            self.kept.push(Kept {
                body: outgoing.body.clone(),
                id: None,
                fate: Fate::There,
                not_before: span.began + outgoing.delay,
                surely_from: span.ended + outgoing.delay,
                deliveries: 0,
            });
        }
        Ok(())
    }

    /// Messages were received.
    ///
    /// # Errors
    /// Too many, or such as were never sent.
    pub fn saw_receive(
        &mut self,
        max: usize,
        visibility: Duration,
        messages: &[Message],
        span: Span,
    ) -> Result<(), Illegal> {
        if messages.len() > max {
            let count = messages.len();
            return Err(Illegal(format!("{count} messages came, {max} were wanted")));
        }
        let could_come =
            |kept: &&Kept| kept.fate == Fate::There && kept.surely_from + SLACK < span.ended;
        let ready = self.kept.iter().filter(could_come).count();
        if messages.len() < ready.min(max) {
            self.take(Liberty::Withheld);
        }
        for message in messages {
            self.saw_message(message, visibility, span)?;
        }
        Ok(())
    }

    fn saw_message(
        &mut self,
        message: &Message,
        visibility: Duration,
        span: Span,
    ) -> Result<(), Illegal> {
        let known = |kept: &Kept| kept.body == message.body;
        let is_it =
            |kept: &Kept| known(kept) && kept.id.as_ref().is_none_or(|id| *id == message.id);
        let found = self.kept.iter().position(is_it);
        let place = match found {
            Some(place) => place,
            None if self.kept.iter().any(known) => {
                self.take(Liberty::Doubled);
                self.kept.push(Kept {
                    body: message.body.clone(),
                    id: None,
                    fate: Fate::There,
                    not_before: span.began,
                    surely_from: span.ended,
                    deliveries: 0,
                });
                self.kept.len() - 1
            }
            None => return Err(Illegal(format!("{message:?} was never sent"))),
        };
        let repeats = |(handle, _, _): &(Handle, usize, u32)| *handle == message.handle;
        if message.id.is_empty() || self.deliveries.iter().any(repeats) {
            return Err(Illegal(format!("{message:?} has a name of before or none")));
        }
        let kept = &mut self.kept[place];
        let mut taken = Vec::new();
        match kept.fate {
            Fate::There | Fate::MaybeGone => {
                // A service may count from the other end of its answer.
                if span.ended + SLACK < kept.not_before {
                    taken.push(Liberty::Doubled);
                }
            }
            Fate::Gone => taken.push(Liberty::Ghost),
        }
        kept.fate = Fate::There;
        kept.id = Some(message.id.clone());
        kept.deliveries += 1;
        if message.receive_count != kept.deliveries {
            taken.push(Liberty::Miscounted);
        }
        kept.not_before = span.began + visibility;
        kept.surely_from = span.ended + visibility;
        let number = kept.deliveries;
        self.deliveries
            .push((message.handle.clone(), place, number));
        for liberty in taken {
            self.take(liberty);
        }
        Ok(())
    }

    /// The message of a handle, and whether it names the latest delivery.
    fn of(&self, handle: &Handle) -> Option<(usize, bool)> {
        let of = |(known, _, _): &&(Handle, usize, u32)| known == handle;
        let (_, message, number) = self.deliveries.iter().find(of)?;
        Some((*message, self.kept[*message].deliveries == *number))
    }

    /// Messages were deleted, but for these entries.
    ///
    /// # Errors
    /// A handle that never was one was taken.
    pub fn saw_delete(&mut self, handles: &[Handle], rejected: &[Rejected]) -> Result<(), Illegal> {
        for (index, handle) in handles.iter().enumerate() {
            let refused = rejected.iter().any(|entry| entry.index == index);
            let Some((message, is_latest)) = self.of(handle) else {
                if refused {
                    continue;
                }
                return Err(Illegal(format!("{handle:?} never was a handle")));
            };
            let fate = self.kept[message].fate;
            let plain = is_latest && fate != Fate::Gone;
            match (plain, refused) {
                (true, true) => self.take(Liberty::Rejected),
                (false, true) => self.take(Liberty::FormerHandleRefused),
                (true, false) => self.kept[message].fate = Fate::Gone,
                (false, false) if fate == Fate::There => {
                    self.kept[message].fate = Fate::MaybeGone;
                }
                (false, false) => {}
            }
        }
        Ok(())
    }

    /// Visibilities were changed, but for these entries.
    ///
    /// # Errors
    /// A handle that never was one was taken.
    pub fn saw_change(
        &mut self,
        entries: &[(Handle, Duration)],
        rejected: &[Rejected],
        span: Span,
    ) -> Result<(), Illegal> {
        for (index, (handle, visibility)) in entries.iter().enumerate() {
            let refused = rejected.iter().any(|entry| entry.index == index);
            let Some((message, is_latest)) = self.of(handle) else {
                if refused {
                    continue;
                }
                return Err(Illegal(format!("{handle:?} never was a handle")));
            };
            let kept = &mut self.kept[message];
            match (is_latest && kept.fate != Fate::Gone, refused) {
                // Whoever changes what can be received already comes too late, or not: both are known.
                (true, true)
                    if kept.fate == Fate::There && span.ended + SLACK < kept.not_before =>
                {
                    self.take(Liberty::Rejected);
                }
                (_, true) => {}
                (true, false) => {
                    kept.not_before = span.began + *visibility;
                    kept.surely_from = span.ended + *visibility;
                }
                (false, false) if is_latest => {
                    kept.not_before = span.began + *visibility;
                    self.take(Liberty::Ghost);
                }
                (false, false) => {
                    kept.not_before = kept.not_before.min(span.began + *visibility);
                    kept.surely_from = kept.surely_from.max(span.ended + *visibility);
                    self.take(Liberty::FormerHandleHides);
                }
            }
        }
        Ok(())
    }

    /// A depth was told.
    pub fn saw_depth(&mut self, depth: Depth) {
        let count = |fate: Fate| self.kept.iter().filter(|kept| kept.fate == fate).count() as u64;
        let least = count(Fate::There);
        let most = least + count(Fate::MaybeGone);
        if !(least..=most).contains(&(depth.ready + depth.hidden)) {
            self.take(Liberty::DepthOff);
        }
    }

    /// Nothing comes any more, though all was given time to: what is left never came.
    pub fn saw_the_end(&mut self) {
        let fates: Vec<Fate> = self.kept.iter().map(|kept| kept.fate).collect();
        for fate in fates {
            match fate {
                Fate::There => self.take(Liberty::Lost),
                Fate::MaybeGone => self.take(Liberty::FormerHandleDeletes),
                Fate::Gone => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Span {
        let moment = Tick::default() + Duration::from_millis(ms);
        Span {
            began: moment,
            ended: moment,
        }
    }

    fn delivery(handle: &str, count: u32) -> Message {
        Message {
            id: "1".to_owned(),
            body: "m".to_owned(),
            sent: trommel::core::time::Timestamp(0),
            handle: Handle(handle.to_owned()),
            receive_count: count,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn received(rules: &mut QueueRules, ms: u64, message: Message) -> Result<(), Illegal> {
        rules.saw_receive(10, SECOND, &[message], at(ms))
    }

    fn one_sent() -> QueueRules {
        let mut rules = QueueRules::new();
        let sent = rules.saw_send(&[Outgoing::now("m")], &[], at(0));
        assert_eq!(sent, Ok(()));
        rules
    }

    #[test]
    fn a_plain_life_takes_no_liberty() {
        let mut rules = one_sent();
        received(&mut rules, 10, delivery("a", 1)).expect("allowed");
        let nothing = rules.saw_receive(10, SECOND, &[], at(500));
        assert_eq!(nothing, Ok(()));
        received(&mut rules, 1010, delivery("b", 2)).expect("allowed");
        let gone = rules.saw_delete(&[Handle("b".to_owned())], &[]);
        assert_eq!(gone, Ok(()));
        rules.saw_depth(Depth::default());
        rules.saw_the_end();
        assert!(rules.taken().is_empty(), "{:?}", rules.taken());
    }

    #[test]
    fn what_comes_too_early_or_too_late_is_a_liberty() {
        let mut rules = one_sent();
        received(&mut rules, 10, delivery("a", 1)).expect("allowed");
        received(&mut rules, 100, delivery("b", 2)).expect("allowed");
        assert_eq!(rules.taken()[&Liberty::Doubled], 1);
        let gone = rules.saw_delete(&[Handle("b".to_owned())], &[]);
        assert_eq!(gone, Ok(()));
        received(&mut rules, 5000, delivery("c", 3)).expect("allowed");
        assert_eq!(rules.taken()[&Liberty::Ghost], 1);
        let nothing = rules.saw_receive(10, SECOND, &[], at(7000));
        assert_eq!(nothing, Ok(()));
        assert_eq!(rules.taken()[&Liberty::Withheld], 1);
    }

    #[test]
    fn what_was_never_sent_is_allowed_to_nobody() {
        let mut rules = QueueRules::new();
        assert!(received(&mut rules, 10, delivery("a", 1)).is_err());
    }

    #[test]
    fn a_former_handle_may_delete_or_not() {
        let mut rules = one_sent();
        received(&mut rules, 10, delivery("a", 1)).expect("allowed");
        received(&mut rules, 1500, delivery("b", 2)).expect("allowed");
        let maybe = rules.saw_delete(&[Handle("a".to_owned())], &[]);
        assert_eq!(maybe, Ok(()));
        let hidden_until = at(2500).ended;
        assert_eq!(rules.all_visible_from(), hidden_until, "it may be there");
        let mut it_stays = rules.clone();
        received(&mut it_stays, 3000, delivery("c", 3)).expect("allowed");
        assert!(it_stays.taken().is_empty());
        rules.saw_the_end();
        assert_eq!(rules.taken()[&Liberty::FormerHandleDeletes], 1);
    }
}
