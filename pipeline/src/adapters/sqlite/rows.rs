//! The writer's view of the rows: what it read or wrote lately, so that most conditions are judged
//! without asking SQLite, and each row is written once a commit however often it changed in it.
//!
//! Two generations of equal bound: what is used moves to the young one, and when that is full the old
//! one is forgotten. Another process's commit empties both.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::Fault;
use super::row;
use crate::ports::table::{Key, Row, TableError};

/// What a generation holds before it grows old, in JSON bytes; in memory about three times that. Enough for the pages
/// at work, but not for all that wait: a page that was made long ago is read again when it is leased, out of SQLite's
/// own cache. More made nothing faster, and a long run's memory grew by all of it.
const GENERATION_BYTES_MAX: usize = 512 * 1024;

/// What a row costs beside its text.
const SLOT_BYTES: usize = 256;

/// A row as the next commit will leave it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// `None`: there is none.
    pub(super) row: Option<Row>,
    changed: bool,
}

type Slots = HashMap<Key, Slot, BuildHasherDefault<KeyHasher>>;

/// Mixes a word at a time. The keys are the ledger's own, so nobody can choose them to collide, and
/// the standard hasher, which guards against that, was a tenth of the writer's time.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl KeyHasher {
    /// Odd, with bits all over: 2^64 divided by the golden ratio.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(Self::SPREAD);
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// The high bits are the well mixed ones; the map looks at the low ones too.
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rows {
    young: Slots,
    young_bytes: usize,
    old: Slots,
    changed: Vec<Key>,
    buffer: Vec<u8>,
}

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Stop {
    /// The database cannot be read.
    Fault(Fault),
    /// This request cannot be done; others of its group can.
    Refused(TableError),
}

impl From<TableError> for Stop {
    fn from(error: TableError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Fault(error.into())
    }
}

const SELECT: &str = "SELECT data FROM rows WHERE pk = ?1 AND sk = ?2";
const UPSERT: &str = "INSERT INTO rows (pk, sk, data) VALUES (?1, ?2, ?3)
    ON CONFLICT (pk, sk) DO UPDATE SET data = excluded.data";
const DELETE: &str = "DELETE FROM rows WHERE pk = ?1 AND sk = ?2";

/// Reads one row's text.
pub(super) fn select(connection: &Connection, key: &Key) -> Result<Option<Row>, Stop> {
    let found = connection
        .prepare_cached(SELECT)?
        .query_row([&key.pk, &key.sk], |found| {
            Ok(row::decode(found.get_ref(0)?.as_str()?))
        })
        .optional()?;
    found
        .transpose()
        .map_err(|what| unreadable(&key.pk, &key.sk, &what))
}

/// Says which row it is that cannot be understood.
pub(super) fn unreadable(pk: &str, sk: &str, what: &str) -> Stop {
    Stop::Refused(TableError::Refused(format!(
        "row {pk} / {sk} is not readable: {what}"
    )))
}

impl Rows {
    /// Has the row in the young generation from here on.
    pub(super) fn load(&mut self, connection: &Connection, key: &Key) -> Result<(), Stop> {
        if self.young.contains_key(key) {
            return Ok(());
        }
        let slot = match self.old.remove(key) {
            Some(slot) => slot,
            None => Slot {
                row: select(connection, key)?,
                changed: false,
            },
        };
        self.young_bytes += SLOT_BYTES;
        self.young.insert(key.clone(), slot);
        Ok(())
    }

    /// The row, which was loaded before.
    pub(super) fn get(&self, key: &Key) -> Option<&Row> {
        self.young.get(key)?.row.as_ref()
    }

    /// The row, which was loaded before, to be changed and written at the next flush.
    pub(super) fn change(&mut self, key: Key) -> &mut Option<Row> {
        let slot = self.young.get_mut(&key).expect("it was loaded");
        if !slot.changed {
            slot.changed = true;
            self.changed.push(key);
        }
        &mut slot.row
    }

    /// Writes what has changed, in the order of keys: neighbours share a page.
    pub(super) fn flush(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        self.changed.sort_unstable();
        let mut upsert = connection.prepare_cached(UPSERT)?;
        let mut delete = connection.prepare_cached(DELETE)?;
        for key in self.changed.drain(..) {
            let Some(slot) = self.young.get_mut(&key) else {
                continue;
            };
            slot.changed = false;
            let Some(row) = &slot.row else {
                delete.execute([&key.pk, &key.sk])?;
                continue;
            };
            row::encode(row, &mut self.buffer);
            self.young_bytes += self.buffer.len();
            let text = std::str::from_utf8(&self.buffer).expect("JSON is UTF-8");
            upsert.execute(params![key.pk, key.sk, text])?;
        }
        Ok(())
    }

    /// Between commits: forgets what was not used for long.
    pub(super) fn age(&mut self) {
        if self.young_bytes <= GENERATION_BYTES_MAX {
            return;
        }
        self.young_bytes = 0;
        self.old = mem::take(&mut self.young);
    }

    /// Forgets everything, changes too.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl From<Stop> for TableError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fault(fault) => fault.into(),
            Stop::Refused(error) => error,
        }
    }
}
