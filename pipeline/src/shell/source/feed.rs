//! One item after the other, from whatever the job names as input.

use std::sync::Arc;

use super::error::SourceError;
use super::file::FileFeed;
use super::listing::ListingFeed;
use super::{Stores, load};
use crate::core::item::Input;
use crate::core::job::InputSpec;
use crate::core::part::{Cursor, Place};
use crate::wire::record::Position;
use crate::wire::value::one_line;

/// One item, and where it stands.
pub(super) struct Fed {
    pub(super) input: Input,
    pub(super) mark: Mark,
}

/// Where an item stands in its input.
#[derive(Clone)]
pub(super) enum Mark {
    /// Its place is its index.
    Index,
    /// In a file.
    Record { start: Position, end: Position },
    /// In a listing.
    Key(Arc<[u8]>),
}

/// The input, from its cursor on.
pub(super) enum Feed {
    Numbers { start: i64, next: i64, end: i64 },
    Inline(std::vec::IntoIter<String>),
    Listing(ListingFeed),
    File(Box<FileFeed>),
}

impl Feed {
    pub(super) async fn open(
        spec: &InputSpec,
        stores: &Stores,
        cursor: &Cursor,
    ) -> Result<Self, SourceError> {
        match spec {
            InputSpec::Objects(_) => Ok(Self::Listing(ListingFeed::open(stores, cursor)?)),
            InputSpec::Jsonl(_) | InputSpec::Csv { .. } | InputSpec::Json(_) => Ok(Self::File(
                Box::new(FileFeed::open(spec, stores, cursor).await?),
            )),
            InputSpec::Inline(values) => {
                let done = usize::try_from(cursor.items).unwrap_or(usize::MAX);
                let rest: Vec<String> = values.iter().skip(done).cloned().collect();
                Ok(Self::Inline(rest.into_iter()))
            }
            InputSpec::Events(events) => Err(SourceError::Refused {
                what: format!("the queue {}", events.queue),
                why: "events are taken in by `trommel serve`, not read".to_owned(),
            }),
            InputSpec::Range { start, end } => Ok(Self::Numbers {
                start: *start,
                next: load::number(*start, cursor.items),
                end: *end,
            }),
        }
    }

    /// The next item. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Fed>, SourceError> {
        match self {
            Self::Numbers { next, end, .. } => {
                if *next >= *end {
                    return Ok(None);
                }
                let input = Input::Value(next.to_string().into());
                *next += 1;
                let mark = Mark::Index;
                Ok(Some(Fed { input, mark }))
            }
            Self::Inline(values) => Ok(values.next().map(|value| Fed {
                input: Input::Value((&*one_line(&value)).into()),
                mark: Mark::Index,
            })),
            Self::Listing(listing) => listing.next().await,
            Self::File(file) => file.next().await,
        }
    }

    /// Where items `first` to `last` lie, if they can be read from the input again.
    pub(super) fn place(
        &self,
        cursor: &Cursor,
        first: Option<&Mark>,
        last: &Mark,
    ) -> Option<Place> {
        match self {
            Self::Numbers { start, .. } => Some(Place::Numbers {
                first: load::number(*start, cursor.items),
            }),
            Self::Inline(_) | Self::Listing(_) => None,
            Self::File(file) => match (first, last) {
                (Some(Mark::Record { start, .. }), Mark::Record { end, .. }) => {
                    file.place(*start, *end)
                }
                (Some(Mark::Index | Mark::Key(_) | Mark::Record { .. }) | None, _) => None,
            },
        }
    }

    /// Moves the cursor behind the item at `mark`.
    pub(super) fn mark(&self, mark: Mark, cursor: &mut Cursor) {
        match mark {
            Mark::Index => {}
            Mark::Key(key) => cursor.last_key = Some(load::encode_key(&key)),
            Mark::Record { end, .. } => {
                cursor.offset = end.offset;
                cursor.line = end.line;
                if let Self::File(file) = self {
                    file.learned(cursor);
                }
            }
        }
    }
}
