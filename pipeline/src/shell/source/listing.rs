//! The objects under a prefix, a page of the listing at a time.

use std::collections::VecDeque;

use super::error::{SourceError, label};
use super::feed::{Fed, Mark};
use super::{Stores, load};
use crate::core::item::{Input, Object};
use crate::core::part::Cursor;
use crate::ports::objects::{Listing, ObjectsError};
use crate::ports::runtime::BoxFuture;

/// Objects asked for at a time: S3 gives no more ("ListObjectsV2", MaxKeys).
const LISTING_PAGE: usize = 1_000;

pub(super) struct ListingFeed {
    stores: Stores,
    /// The last key of the last page.
    after: Option<Vec<u8>>,
    ready: VecDeque<Object>,
    more: bool,
    /// The page on its way: it is kept while a part closes, so that a slow page is asked for once.
    asked: Option<BoxFuture<'static, Result<Listing, ObjectsError>>>,
}

impl ListingFeed {
    pub(super) fn open(stores: &Stores, cursor: &Cursor) -> Result<Self, SourceError> {
        let after = match &cursor.last_key {
            Some(text) => Some(load::decode_key(text)?),
            None => None,
        };
        Ok(Self {
            stores: stores.clone(),
            after,
            ready: VecDeque::new(),
            more: true,
            asked: None,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Fed>, SourceError> {
        loop {
            if let Some(object) = self.ready.pop_front() {
                let mark = Mark::Key(object.key.clone());
                let input = Input::Object(object);
                return Ok(Some(Fed { input, mark }));
            }
            if !self.more {
                return Ok(None);
            }
            let page = self.asked.get_or_insert_with(|| {
                let stores = self.stores.clone();
                let after = self.after.clone();
                Box::pin(async move {
                    let (input, prefix) = (&stores.input, &stores.input_prefix);
                    input.list(prefix, after.as_deref(), LISTING_PAGE).await
                })
            });
            let page = page.await;
            self.asked = None;
            let what = label(&self.stores.input_prefix);
            self.take(page.map_err(|error| SourceError::of_input(&what, error))?)?;
        }
    }

    fn take(&mut self, page: Listing) -> Result<(), SourceError> {
        match page.objects.last() {
            Some(last) => self.after = Some(last.key.to_vec()),
            None if page.more => {
                return Err(SourceError::Unavailable {
                    what: label(&self.stores.input_prefix),
                    why: "the listing says there is more, but gives nothing".to_owned(),
                });
            }
            None => {}
        }
        self.more = page.more;
        let objects = page.objects.into_iter();
        self.ready
            .extend(objects.filter(|object| !is_folder(object)));
        Ok(())
    }
}

/// Whether it is what consoles put to show an empty folder: no content, a name that ends in a slash.
fn is_folder(object: &Object) -> bool {
    object.size_bytes == 0 && object.key.ends_with(b"/")
}
