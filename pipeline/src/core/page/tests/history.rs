//! Random histories of one page: sessions lease it, forget, die, come back as zombies and write what
//! they knew long ago. Whatever happens, the promises hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SESSIONS: usize = 3;
const ITEMS: usize = 4;

/// What a session does next.
#[derive(Clone, Debug)]
enum Step {
    /// Reads the page.
    Look,
    Lease,
    /// Gives outcomes to items it believes pending: bits of this.
    Record(u8, Mark),
    Note(u8),
    Release,
    /// Somebody marks it dead. It does not know.
    Die,
    /// The page is taken from it, though it lives. It does not know.
    Revoke,
    /// A redrive takes items by these bits.
    Reopen(u8),
    /// Time goes on.
    Pass(u16),
}

fn any_mark() -> impl Strategy<Value = Mark> {
    prop_oneof![
        1 => Just(Mark::Moved),
        6 => proptest::sample::select(Outcome::ALL.to_vec()).prop_map(Mark::Done),
    ]
}

fn any_step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        2 => Just(Step::Look),
        4 => Just(Step::Lease),
        5 => (any::<u8>(), any_mark()).prop_map(|(bits, mark)| Step::Record(bits, mark)),
        2 => (0..ITEMS as u8).prop_map(Step::Note),
        2 => Just(Step::Release),
        2 => Just(Step::Die),
        1 => Just(Step::Revoke),
        2 => any::<u8>().prop_map(Step::Reopen),
        1 => any::<u16>().prop_map(Step::Pass),
    ];
    (0..SESSIONS, step)
}

struct History {
    page: Page,
    /// What each session believes.
    known: Vec<Page>,
    now: i64,
    /// Outcomes seen, by item and generation.
    outcomes: BTreeMap<(usize, Generation), Outcome>,
    sum: Tally,
}

impl History {
    fn new() -> Self {
        let page = Page {
            epoch: Epoch(0),
            generation: Generation(0),
            ..page(&".".repeat(ITEMS), PageStatus::Ready)
        };
        Self {
            known: vec![page.clone(); SESSIONS],
            page,
            now: 0,
            outcomes: BTreeMap::new(),
            sum: Tally::default(),
        }
    }

    /// The event that a session makes of what it believes.
    fn event(&mut self, who: usize, step: &Step) -> Option<PageEvent> {
        let session = session(&format!("s{who}"));
        let known = &self.known[who];
        let epoch = known.epoch;
        match step {
            Step::Look => {
                self.known[who] = self.page.clone();
                None
            }
            Step::Pass(millis) => {
                self.now += i64::from(*millis);
                None
            }
            Step::Lease => Some(PageEvent::Lease {
                session,
                now: Timestamp(self.now),
            }),
            Step::Record(bits, mark) => {
                let mut items = known.items.clone();
                for (index, item) in items.iter_mut().enumerate() {
                    if item.mark != Mark::Pending {
                        continue;
                    }
                    if bits & (1 << index) == 0 {
                        item.due = Some(Timestamp(self.now + i64::from(*bits)));
                    } else {
                        item.mark = *mark;
                    }
                }
                Some(PageEvent::Record {
                    session,
                    epoch,
                    items,
                    outputs: None,
                })
            }
            Step::Note(index) => Some(PageEvent::Note {
                session,
                epoch,
                index: *index,
            }),
            Step::Release => Some(PageEvent::Release {
                session,
                epoch,
                now: Timestamp(self.now),
            }),
            Step::Die => Some(PageEvent::HolderDied { session }),
            Step::Revoke => Some(PageEvent::Revoke {
                session,
                now: Timestamp(self.now),
            }),
            Step::Reopen(bits) => Some(PageEvent::Reopen {
                generation: known.generation.next(),
                items: (0..ITEMS as u8).filter(|i| bits & (1 << i) != 0).collect(),
            }),
        }
    }

    /// Lets the page meet an event; checks what must hold of the change.
    fn meet(&mut self, who: usize, event: &PageEvent) -> Result<(), TestCaseError> {
        let Ok((after, effects)) = self.page.apply(event) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut self.page, after.clone());
        // A redrive, a death and a loss are seen to by others: the session learns nothing of them.
        match event {
            PageEvent::HolderDied { .. } | PageEvent::Revoke { .. } | PageEvent::Reopen { .. } => {}
            PageEvent::Lease { .. }
            | PageEvent::Record { .. }
            | PageEvent::Note { .. }
            | PageEvent::Release { .. } => self.known[who] = after.clone(),
        }
        self.sum.add(&effects.tally);
        epochs_grow(&before, &after, event)?;
        moves_along_the_graph(&before, &after, event)?;
        if let PageEvent::Reopen { .. } = event {
            successes_stay(&before, &after)?;
            prop_assert_eq!(effects.tally.opened, after.pending() as u64, "S3: opened");
        }
        for (index, (old, new)) in before.items.iter().zip(&after.items).enumerate() {
            if let (Mark::Pending, Mark::Done(outcome)) = (old.mark, new.mark) {
                let former = self.outcomes.insert((index, after.generation), outcome);
                prop_assert_eq!(former, None, "S1: item {} had an outcome", index);
            }
        }
        let settled = self.sum.settled - self.sum.reopened;
        prop_assert_eq!(settled, after.counts(), "S3: tallies and a recount");
        Ok(())
    }
}

fn epochs_grow(before: &Page, after: &Page, event: &PageEvent) -> Result<(), TestCaseError> {
    let grows = match event {
        PageEvent::Lease { .. }
        | PageEvent::HolderDied { .. }
        | PageEvent::Revoke { .. }
        | PageEvent::Reopen { .. } => true,
        PageEvent::Record { .. } | PageEvent::Note { .. } | PageEvent::Release { .. } => false,
    };
    let expected = if grows {
        before.epoch.next()
    } else {
        before.epoch
    };
    prop_assert_eq!(after.epoch, expected, "S1: the epoch after {:?}", event);
    Ok(())
}

fn moves_along_the_graph(
    before: &Page,
    after: &Page,
    event: &PageEvent,
) -> Result<(), TestCaseError> {
    let (from, to) = (before.status.as_str(), after.status.as_str());
    let declared: &[(&str, &str)] = match event {
        PageEvent::Lease { .. } => &[("ready", "leased"), ("waiting", "leased")],
        PageEvent::Record { .. } => &[("leased", "leased"), ("leased", "settled")],
        PageEvent::Note { .. } => &[("leased", "leased")],
        PageEvent::Release { .. } => &[("leased", "ready"), ("leased", "waiting")],
        PageEvent::HolderDied { .. } => &[("leased", "ready"), ("leased", "settled")],
        PageEvent::Revoke { .. } => &[("leased", "ready"), ("leased", "waiting")],
        PageEvent::Reopen { .. } => &[
            ("settled", "ready"),
            ("ready", "ready"),
            ("waiting", "ready"),
        ],
    };
    prop_assert!(
        declared.contains(&(from, to)),
        "S4: {from} to {to} by {event:?}"
    );
    let is_settled = after.status == PageStatus::Settled;
    prop_assert_eq!(is_settled, after.pending() == 0, "S4: {:?}", after);
    Ok(())
}

fn successes_stay(before: &Page, after: &Page) -> Result<(), TestCaseError> {
    for (old, new) in before.items.iter().zip(&after.items) {
        if matches!(old.mark, Mark::Done(Outcome::Succeeded) | Mark::Moved) {
            prop_assert_eq!(old, new, "S7: a success was reopened");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn promises_hold_whatever_stale_sessions_do(
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        let mut history = History::new();
        for (who, step) in steps {
            if let Some(event) = history.event(who, &step) {
                history.meet(who, &event)?;
            }
        }
    }
}
