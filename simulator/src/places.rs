//! Where the items of pages stand in the input: the parts before theirs, and the stretches of their page, added up.

use std::collections::BTreeMap;

use trommel::core::id::RunId;
use trommel::core::page::Page;
use trommel::core::part::Part;
use trommel::ledger::Ledger;

/// More parts than a simulated run ever has.
const PARTS_MAX: usize = 10_000;

/// How many items there are before each part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    before: BTreeMap<u32, u32>,
    /// The parts, in order.
    pub(crate) parts: Vec<Part>,
}

impl Places {
    /// Of the parts that are frozen by now.
    pub(crate) async fn of(ledger: &Ledger, run: &RunId) -> Self {
        let parts = ledger.parts_from(run, 0, PARTS_MAX).await;
        let parts = parts.expect("the quiet way has no faults");
        let mut before = BTreeMap::new();
        let mut items = 0;
        for part in &parts {
            before.insert(part.number, items);
            items += part.items;
        }
        Self { before, parts }
    }

    /// The places of a page's items, in the order of their indexes.
    pub(crate) fn of_page(&self, page: &Page) -> Vec<u32> {
        let before = self
            .before
            .get(&page.id.part)
            .copied()
            .unwrap_or(u32::MAX / 2);
        let stretches = page.stretches.iter();
        stretches
            .flat_map(|stretch| stretch.first..stretch.first + stretch.items)
            .map(|place| before + place)
            .collect()
    }
}
