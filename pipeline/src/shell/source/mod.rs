//! The source of a run's parts: reads the input in one pass and freezes it part by part.
//!
//! A part's items never change again. What can be read again from the input itself (numbers, a stretch of a
//! pinned plain file) is only named; everything else is copied into the run's scratch place before it is
//! handed out. Writing parts and cursors into the ledger is the reader's job, not done here.

mod error;
mod feed;
mod file;
mod listing;
mod load;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use error::SourceError;
pub use load::load_part;

use crate::core::item::Input;
use crate::core::job::InputSpec;
use crate::core::part::{Cursor, PART_BYTES_MAX, PART_ITEMS_MAX, Part, Place};
use crate::ports::objects::Objects;
use crate::ports::runtime::{BoxFuture, Runtime};
use crate::wire::part_file;
use feed::{Fed, Feed, Mark};

/// A part closes so long after its first item was read, full or not: with the ledger's writes the first
/// item of any input is dispatched within 2 s.
pub const PART_OPEN_MAX: Duration = Duration::from_secs(1);

/// The stores that a run reads and freezes into.
#[derive(Clone)]
pub struct Stores {
    /// Where the input lies. Inputs without a file do not use it.
    pub input: Arc<dyn Objects>,
    /// The key of the input file, or the prefix of the listing, in `input`.
    pub input_prefix: Vec<u8>,
    /// Where frozen parts go.
    pub scratch: Arc<dyn Objects>,
    /// What their keys begin with.
    pub scratch_prefix: Vec<u8>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores")
            .field("input_prefix", &String::from_utf8_lossy(&self.input_prefix))
            .field(
                "scratch_prefix",
                &String::from_utf8_lossy(&self.scratch_prefix),
            )
            .finish_non_exhaustive()
    }
}

/// A part that is frozen: what it copies is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The part.
    pub part: Part,
    /// Its items.
    pub inputs: Arc<[Arc<Input>]>,
    /// Where the next part begins.
    pub cursor: Cursor,
}

/// Reads an input from a cursor on.
pub struct Source {
    stores: Stores,
    runtime: Runtime,
    cursor: Cursor,
    limits: Limits,
    feed: Feed,
    /// What ended the reading, once the items before it are handed out.
    failed: Option<SourceError>,
}

impl Source {
    /// Opens the input at a cursor; [`Cursor::default`] is its start.
    ///
    /// # Errors
    /// It is not there, has changed since the cursor was made, or cannot be read.
    pub async fn open(
        spec: &InputSpec,
        stores: &Stores,
        cursor: Cursor,
        runtime: Runtime,
    ) -> Result<Self, SourceError> {
        let feed = Feed::open(spec, stores, &cursor).await?;
        let mut source = Self {
            stores: stores.clone(),
            runtime,
            cursor,
            limits: Limits::PART,
            feed,
            failed: None,
        };
        if let Feed::File(file) = &source.feed {
            source.cursor.pin = Some(file.pin().clone());
        }
        Ok(source)
    }

    /// Where the next part begins; final once [`Source::next_part`] has answered `None`.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The next part, or `None` at the end of the input.
    ///
    /// After an error, and if the future is dropped, open the input again at the last part's cursor.
    ///
    /// # Errors
    /// The items before a fault are handed out first.
    pub async fn next_part(&mut self) -> Result<Option<Draft>, SourceError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let gathered = self.gather().await;
        let Some(last) = gathered.last else {
            return match &self.failed {
                Some(error) => Err(error.clone()),
                None => Ok(None),
            };
        };
        let inputs: Arc<[Arc<Input>]> = gathered.inputs.into();
        let first = gathered.first.as_ref();
        let place = if let Some(place) = self.feed.place(&self.cursor, first, &last) {
            place
        } else {
            // A name of its own: another reader of the run may freeze another cut of the input
            // under the same number, and the ledger takes only one of the two.
            let draw = self.runtime.entropy.next_u64();
            let name = format!("{:08}-{draw:016x}.jsonl.zst", self.cursor.parts);
            freeze(&self.stores, name, &inputs).await?
        };
        let number = self.cursor.parts;
        let items = inputs.len() as u32;
        self.cursor.parts += 1;
        self.cursor.items += u64::from(items);
        self.feed.mark(last, &mut self.cursor);
        let part = Part {
            number,
            items,
            place,
        };
        Ok(Some(Draft {
            part,
            inputs,
            cursor: self.cursor.clone(),
        }))
    }

    /// Items until the part is full, late, or the input ends or fails.
    async fn gather(&mut self) -> Gathered {
        let mut gathered = Gathered::default();
        let mut due = None;
        let mut late: BoxFuture<'static, ()> = Box::pin(std::future::pending());
        loop {
            let fed = tokio::select! {
                biased;
                fed = self.feed.next() => fed,
                () = &mut late => return gathered,
            };
            match fed {
                Ok(Some(fed)) => gathered.push(fed),
                Ok(None) => return gathered,
                Err(error) => {
                    self.failed = Some(error);
                    return gathered;
                }
            }
            if gathered.is_full(self.limits) {
                return gathered;
            }
            let clock = &self.runtime.clock;
            let Some(due) = due else {
                let at = clock.tick() + PART_OPEN_MAX;
                due = Some(at);
                late = clock.sleep_until(at);
                continue;
            };
            // An input that always has more at once never lets the sleep above come to its turn.
            if gathered.inputs.len().is_multiple_of(CLOCK_EVERY) && clock.tick() >= due {
                return gathered;
            }
        }
    }
}

/// Copies a part into the scratch place. (No method: a source's streams may not be shared between
/// threads, so a future that borrows it all could not be moved between them.)
pub(in crate::shell) async fn freeze(
    stores: &Stores,
    name: String,
    inputs: &[Arc<Input>],
) -> Result<Place, SourceError> {
    let key = load::scratch_key(stores, &name);
    let bytes = Bytes::from(part_file::encode(inputs));
    let put = stores.scratch.put(&key, bytes).await;
    put.map_err(|error| SourceError::of_scratch(&name, error))?;
    Ok(Place::Frozen { name })
}

/// How many items are taken between two looks at the clock.
const CLOCK_EVERY: usize = 256;

/// When a part is full.
#[derive(Clone, Copy)]
struct Limits {
    items: usize,
    bytes: usize,
}

impl Limits {
    const PART: Self = Self {
        items: PART_ITEMS_MAX as usize,
        bytes: PART_BYTES_MAX,
    };
}

/// The items of the part that is being read.
#[derive(Default)]
struct Gathered {
    inputs: Vec<Arc<Input>>,
    bytes: usize,
    /// Where the first item begins.
    first: Option<Mark>,
    /// Where the last item ends; none: there are no items.
    last: Option<Mark>,
}

impl Gathered {
    fn push(&mut self, fed: Fed) {
        self.bytes += fed.input.payload_bytes();
        self.inputs.push(Arc::new(fed.input));
        self.first.get_or_insert_with(|| fed.mark.clone());
        self.last = Some(fed.mark);
    }

    fn is_full(&self, limits: Limits) -> bool {
        self.inputs.len() >= limits.items || self.bytes >= limits.bytes
    }
}
