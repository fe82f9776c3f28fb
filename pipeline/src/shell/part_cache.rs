//! The parts read lately: a part's pages come one after the other, and should not each read it anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::item::Input;
use crate::core::part::Cursor;

/// A part's items.
pub(super) type Inputs = Arc<[Arc<Input>]>;

/// Parts are at most 2 MB of text, so this many are some 10 MB in memory with their overhead.
const PARTS_MAX: usize = 4;

/// The last few parts.
#[derive(Debug, Default)]
pub struct PartCache {
    state: Mutex<State>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    cursor: Option<Cursor>,
    wanted_below: u32,
    parts: BTreeMap<u32, (u64, Inputs)>,
    uses: u64,
}

impl PartCache {
    /// The part's items, if they are here.
    pub fn get(&self, part: u32) -> Option<Inputs> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let uses = state.uses;
        let (last, inputs) = state.parts.get_mut(&part)?;
        *last = uses;
        Some(inputs.clone())
    }

    /// Held by whoever reads a part that is not here.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Parts with smaller numbers will be asked for soon: the reader hands them over.
    pub fn wanted_below(&self) -> u32 {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wanted_below
    }

    /// The router comes to the part before this one next.
    pub fn want_below(&self, part: u32) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wanted_below = part;
    }

    /// A cursor behind the first part, once it was looked up.
    pub fn cursor(&self) -> Option<Cursor> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cursor
            .clone()
    }

    /// Keeps a cursor.
    pub fn set_cursor(&self, cursor: Cursor) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cursor = Some(cursor);
    }

    /// Keeps a part's items; the one unused for longest goes.
    pub fn put(&self, part: u32, inputs: Inputs) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let uses = state.uses;
        state.parts.insert(part, (uses, inputs));
        if state.parts.len() > PARTS_MAX {
            let oldest = state.parts.iter().min_by_key(|(_, (last, _))| *last);
            if let Some(part) = oldest.map(|(part, _)| *part) {
                state.parts.remove(&part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_unused_for_longest_goes() {
        let cache = PartCache::default();
        for part in 0..PARTS_MAX as u32 {
            cache.put(part, Arc::from([]));
        }
        assert!(cache.get(0).is_some());
        cache.put(99, Arc::from([]));
        assert!(cache.get(0).is_some(), "it was used just now");
        assert!(cache.get(1).is_none());
    }
}
