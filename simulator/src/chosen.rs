//! What a redrive must take: chosen here by rules of the oracle's own from what the ledger said before it.

use std::collections::{BTreeMap, BTreeSet};

use trommel::core::id::{ItemId, PageId};
use trommel::core::outcome::Outcome;
use trommel::core::page::Mark;
use trommel::core::redrive::Selection;
use trommel::ledger::{FailureRow, Held};

use crate::evidence::Item;
use crate::places::Places;

/// An item before a redrive, as people see it.
pub(crate) struct Seen<'a> {
    /// Its latest evidence.
    pub(crate) row: Option<&'a FailureRow>,
    /// Its key or value.
    pub(crate) key: String,
    /// Its size, if it is an object.
    pub(crate) bytes: Option<u64>,
}

/// What must be taken, and what must be left alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    /// Settled items that are taken.
    pub(crate) taken: BTreeSet<ItemId>,
    /// Settled items that are not, but for successes.
    pub(crate) left: BTreeSet<ItemId>,
    /// Pending items of pages of which nothing is taken.
    pub(crate) untouched: BTreeMap<PageId, BTreeSet<ItemId>>,
}

impl Chosen {
    /// Chooses among all pages.
    pub(crate) fn from<'a>(
        selection: &Selection,
        pages: &[Held],
        places: &Places,
        seen: impl Fn(&Item<'_>) -> Seen<'a>,
    ) -> Self {
        let mut chosen = Self::default();
        let takes_pending = takes_pending(selection);
        for held in pages {
            let page = &held.page;
            let mut pending = BTreeSet::new();
            let mut any = takes_pending;
            for one in Item::all(held, places) {
                let id = one.id;
                match one.state.mark {
                    Mark::Pending => drop(pending.insert(id)),
                    Mark::Done(Outcome::Succeeded) | Mark::Moved => {}
                    Mark::Done(outcome) if takes(selection, (id, outcome), &seen(&one)) => {
                        any = true;
                        chosen.taken.insert(id);
                    }
                    Mark::Done(_) => drop(chosen.left.insert(id)),
                }
            }
            if !any {
                chosen.untouched.insert(page.id, pending);
            }
        }
        chosen
    }
}

/// Whether what is pending goes on: as it says, or else if it says nothing else.
fn takes_pending(selection: &Selection) -> bool {
    let Selection {
        outcomes,
        pending,
        only_pending: _,
        classes,
        fingerprints,
        key,
        larger_bytes,
        smaller_bytes,
        items,
    } = selection;
    let filters = [
        outcomes.len(),
        classes.len(),
        fingerprints.len(),
        key.iter().len(),
        larger_bytes.iter().len(),
        smaller_bytes.iter().len(),
        items.len(),
    ];
    pending.unwrap_or(filters == [0; 7])
}

fn takes(selection: &Selection, (id, outcome): (ItemId, Outcome), seen: &Seen<'_>) -> bool {
    let outcomes = if selection.outcomes.is_empty() {
        &[Outcome::Failed, Outcome::TimedOut, Outcome::Aborted][..]
    } else {
        &selection.outcomes[..]
    };
    let class = seen.row.map(|row| row.failure.class.to_string());
    let print = seen.row.map(|row| row.failure.fingerprint());
    let named = |names: &[String], name: Option<&String>| match (names, name) {
        ([], _) => true,
        (_, None) => false,
        (names, Some(name)) => names.contains(name),
    };
    let rejected = [
        selection.only_pending,
        !outcomes.contains(&outcome),
        !named(&selection.classes, class.as_ref()),
        !named(&selection.fingerprints, print.as_ref()),
        !named(&selection.items, Some(&id.to_string())),
        selection
            .key
            .iter()
            .any(|pattern| !is_like(pattern.as_bytes(), seen.key.as_bytes())),
        selection
            .larger_bytes
            .iter()
            .any(|than| seen.bytes.unwrap_or(0) <= *than),
        selection
            .smaller_bytes
            .iter()
            .any(|than| seen.bytes.unwrap_or(u64::MAX) >= *than),
    ];
    rejected == [false; 8]
}

/// By the definition of `*` and `?`, of ASCII.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        ([b'?', pattern @ ..], [_, text @ ..]) => is_like(pattern, text),
        ([one, pattern @ ..], [same, text @ ..]) => one == same && is_like(pattern, text),
        ([], _) | (_, []) => false,
    }
}
