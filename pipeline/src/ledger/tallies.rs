//! Tally rows: ADDs only, in the transaction that settles or reopens.

use crate::core::id::{Generation, RunId, SessionId, TALLY_SLOTS};
use crate::core::outcome::{Outcome, Settled};
use crate::core::planted::{Bug, is_planted};
use crate::core::tally::{Tallies, Tally};
use crate::ports::{Key, Query, Row, Update, Write};

use super::error::{LedgerError, damaged};
use super::{Ledger, SCHEMA_VERSION, keys};

/// The slot that a session's settles go to: one group in flight a session, so sessions rarely meet.
pub(super) fn slot_of(session: &SessionId) -> u32 {
    let sum = session.as_str().bytes().fold(7u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    sum % TALLY_SLOTS
}

/// The write that adds to a tally.
pub(super) fn add(run: &RunId, slot: u32, generation: Generation, tally: &Tally) -> Write {
    let generation = if is_planted(Bug::TallyOfFirstGeneration) {
        Generation(0)
    } else {
        generation
    };
    let mut updates = vec![Update::Set("v".into(), SCHEMA_VERSION.into())];
    let mut add = |name: std::borrow::Cow<'static, str>, number: u64| {
        if number > 0 {
            updates.push(Update::Add(name, i64::try_from(number).unwrap_or(i64::MAX)));
        }
    };
    for outcome in Outcome::ALL {
        let name = if is_planted(Bug::FailureTalliedAsSuccess) {
            Outcome::Succeeded
        } else {
            outcome
        };
        add(name.as_str().into(), tally.settled.of(outcome));
        add(reopened(outcome).into(), tally.reopened.of(outcome));
    }
    add("opened".into(), tally.opened);
    add("pages".into(), tally.pages);
    for (class, items) in &tally.classes {
        add(format!("{CLASS_PREFIX}{class}").into(), *items);
    }
    Write::update(keys::tally(run, slot, generation), Vec::new(), updates)
}

const CLASS_PREFIX: &str = "class ";

fn reopened(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "reopenedSucceeded",
        Outcome::Failed => "reopenedFailed",
        Outcome::TimedOut => "reopenedTimedOut",
        Outcome::Aborted => "reopenedAborted",
        Outcome::Skipped => "reopenedSkipped",
    }
}

fn decode(row: &Row) -> Tally {
    let number = |name: &str| {
        row.num(name)
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(0)
    };
    let mut settled = Settled::default();
    let mut was = Settled::default();
    for outcome in Outcome::ALL {
        settled.add(outcome, number(outcome.as_str()));
        was.add(outcome, number(reopened(outcome)));
    }
    let class = |name: &str| name.strip_prefix(CLASS_PREFIX).map(str::to_owned);
    let classes = row
        .iter()
        .filter_map(|(name, _)| Some((class(name)?, number(name))))
        .collect();
    Tally {
        settled,
        reopened: was,
        opened: number("opened"),
        pages: number("pages"),
        classes,
    }
}

impl Ledger {
    /// All tallies of a run, summed over the slots. Not one moment's picture, but each number was true at
    /// some moment after the call began, and they only grow.
    pub async fn tallies(&self, run: &RunId) -> Result<Tallies, LedgerError> {
        /// Some ten generations in one answer; paging goes on beyond.
        const ROWS: usize = 200;
        let pk = keys::tallies(run);
        let mut tallies = Tallies::default();
        for (sk, row) in self.query_all(Query::all(&pk, ROWS), usize::MAX).await? {
            let name = sk.split_once('#');
            let number = |text: &str| text.parse::<u32>().ok();
            let Some((generation, slot)) =
                name.and_then(|(generation, slot)| Some((number(generation)?, number(slot)?)))
            else {
                let key = Key::new(&pk, &sk);
                return Err(damaged(&key, "its name is no generation and slot"));
            };
            if is_planted(Bug::VerdictOfOneSlot) && slot != 0 {
                continue;
            }
            let of_generation = tallies.by_generation.entry(generation).or_default();
            of_generation.add(&decode(&row));
        }
        Ok(tallies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_reads_back_what_was_added() {
        let mut tally = Tally {
            opened: 3,
            pages: 2,
            ..Tally::default()
        };
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            tally.settled.add(outcome, number as u64 + 1);
        }
        tally.reopened.add(Outcome::Failed, 9);
        tally.classes.insert("Not An Image".into(), 4);
        let write = add(&RunId::new("r"), 0, Generation(0), &tally);
        let crate::ports::table::Change::Update(updates) = write.change else {
            panic!("a tally is only added to")
        };
        let mut row = Row::new();
        row.apply(updates);
        assert_eq!(decode(&row), tally);
    }
}
