//! A frozen part: a stretch of the input whose items will never change again.
//!
//! The reader freezes part by part; a part and the cursor behind it are durable before its first item
//! is dispatched. So an interrupted reading goes on where it stopped, and a redrive finds the same items.

use serde::{Deserialize, Serialize};

use super::item::Pin;

/// A part holds at most this many items …
pub const PART_ITEMS_MAX: u32 = 10_000;

/// … and at most about this many bytes of them (the last item may go over): a few parts are in memory at
/// once. Items of up to 200 bytes fill a part by their number first.
pub const PART_BYTES_MAX: usize = 2 << 20;

/// Where the items of a part lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// Consecutive numbers from `first`; nothing is stored.
    Numbers {
        /// The first item's value.
        first: i64,
    },
    /// Bytes `start..end` of the input file, which must still have this pin.
    Slice {
        /// First byte of the first record.
        start: u64,
        /// One past the last byte of the last record.
        end: u64,
        /// The line that `start` lies in, from 1.
        line: u64,
        /// The file's state when it was read.
        pin: Pin,
    },
    /// A file of JSON Lines, zstd-compressed, in the run's scratch place.
    Frozen {
        /// Its name there.
        name: String,
    },
}

/// How far the reader has come: enough to go on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cursor {
    /// Parts frozen so far; the next part's number.
    pub parts: u32,
    /// Items frozen so far.
    pub items: u64,
    /// Files: bytes read so far of the (decompressed) stream, up to the end of a record.
    pub offset: u64,
    /// Files: the line that `offset` lies in, from 1.
    pub line: u64,
    /// Files: the state of the file when reading began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// CSV: the header that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// JSON: what the document is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<JsonShape>,
    /// Listings: the last key listed, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_key: Option<String>,
}

/// What a JSON document is, and so what its items are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JsonShape {
    /// An array; its elements.
    Array,
    /// An object; its pairs.
    Object,
}

/// A part as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Its number, from 0.
    pub number: u32,
    /// How many items it holds.
    pub items: u32,
    /// Where they lie.
    pub place: Place,
}

/// A stretch of a part's items: the unit in which a page names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Index in the part of the first item.
    pub first: u32,
    /// How many follow each other.
    pub items: u32,
}
