//! Parts and pages are as full as they may be, and no fuller: what is held in memory is bounded, and no row is written
//! for less than it could hold ("L7").

use std::collections::BTreeMap;

use trommel::core::lane::Lane;
use trommel::core::part::Part;
use trommel::ledger::Held;

use crate::scenario::Scenario;

/// How full something is.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    items: u64,
    bytes: u64,
    /// Of its last item.
    last: u64,
}

/// What something holds at most: so many items, and so many bytes but for the last of them.
struct Bound {
    items: u64,
    bytes: u64,
}

const PART: Bound = Bound {
    items: 10_000,
    bytes: 2_097_152,
};

const PAGE: Bound = Bound {
    items: 100,
    bytes: 1_048_576,
};

impl Bound {
    fn is_full(&self, load: Load) -> bool {
        load.items >= self.items || load.bytes >= self.bytes
    }

    fn is_over(&self, load: Load) -> bool {
        load.items > self.items || load.bytes.saturating_sub(load.last) >= self.bytes
    }
}

/// So many items, each of so many bytes.
fn load(items: u64, each: u64) -> Load {
    Load {
        items,
        bytes: items * each,
        last: each,
    }
}

/// What is wrong with the sizes of parts and pages, in a sentence.
pub(crate) fn wrong(scenario: &Scenario, parts: &[Part], pages: &[Held]) -> Option<String> {
    let workload = &scenario.workload;
    // Lines differ by the digits of their numbers; an object takes the room of its name and state, some hundred.
    let each = match workload.lines {
        true => workload.line(10).len() as u64,
        false => 100,
    };
    let slack = |bound: &Bound, load: Load| Load {
        // What is nearly full may be full by the bytes as they are.
        bytes: match load.bytes + load.items * 4 >= bound.bytes {
            true => load.bytes + load.items * 4,
            false => load.bytes,
        },
        ..load
    };
    // One that a slow listing fills is closed when it is old; one that seemed the last is not, if an object comes back.
    let by_time = workload.listed_at_once > 0 && !workload.lines || scenario.changes_input();
    for part in parts {
        let holds = load(u64::from(part.items), each);
        let is_last = part.number as usize + 1 == parts.len();
        let empty = !is_last && !by_time && !PART.is_full(slack(&PART, holds));
        let small = holds.bytes.saturating_sub(holds.items * 4);
        let least = Load {
            bytes: small,
            ..holds
        };
        if empty || PART.is_over(least) {
            return Some(format!("part {} holds {holds:?}", part.number));
        }
    }
    // A page is closed where the lane changes, if the order is kept.
    let in_order = scenario.tuning.max_concurrency <= 1 && !workload.lines;
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    let fines = |held: &&Held| held.page.lane == Lane::Function;
    for held in pages.iter().filter(fines) {
        let number = last.entry(held.page.id.part).or_default();
        *number = held.page.id.number.max(*number);
    }
    for held in pages.iter().filter(fines) {
        let id = held.page.id;
        let holds = load(held.page.items.len() as u64, each);
        let is_last = last.get(&id.part) == Some(&id.number);
        let empty = !is_last && !in_order && !PAGE.is_full(slack(&PAGE, holds));
        let small = holds.bytes.saturating_sub(holds.items * 4);
        let least = Load {
            bytes: small,
            ..holds
        };
        if empty || PAGE.is_over(least) {
            return Some(format!("page {id} holds {holds:?}"));
        }
    }
    None
}
