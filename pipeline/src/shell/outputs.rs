//! Output parts: what handlers answered, written before the settle that counts on it.
//!
//! A part is JSON Lines, `{"item":"3-17-42","output":…}`. A page's row names the stretches that hold its
//! outputs, so lines that no settle confirmed are never read. Where the store can append, a session adds to
//! one part until it is full; where it cannot (S3), each group of settles writes a part of its own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use crate::core::id::{Generation, ItemId, SessionId};
use crate::core::lane::Lane;
use crate::core::planted::{Bug, is_planted};
use crate::ports::ObjectsError;

use super::source::Stores;

/// A part holds about this many bytes.
const OUTPUT_PART_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// One engine's output parts of one run.
#[derive(Debug)]
pub(super) struct OutputWriter {
    session: SessionId,
    lane: Lane,
    number: u32,
    bytes: u64,
}

#[derive(Serialize)]
struct LineOut<'a> {
    item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    large: Option<&'a Large>,
}

/// One line of an output part.
#[derive(Debug, Deserialize)]
pub(super) struct OutputLine {
    /// The item's name.
    pub item: String,
    /// What its handler answered, as JSON; if it is small enough to be kept here.
    #[serde(default)]
    pub output: Option<Box<RawValue>>,
    /// Where it is kept otherwise.
    #[serde(default)]
    pub large: Option<Large>,
}

/// An output too long to be kept inline: an object of its own, under the run's scratch place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Large {
    /// Its name there.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Writes a large output, durably.
pub(super) async fn write_large(
    stores: &Stores,
    item: ItemId,
    generation: Generation,
    (session, output): (&SessionId, &str),
) -> Result<Large, ObjectsError> {
    // Of this session alone: who is fenced later must not change what another's settle counts on.
    let name = format!("{item}-{generation}-{session}");
    let bytes = output.len() as u64;
    stores
        .scratch
        .put(
            &key(stores, &name),
            Bytes::copy_from_slice(output.as_bytes()),
        )
        .await?;
    Ok(Large { name, bytes })
}

/// Reads a large output.
///
/// # Errors
/// It cannot be read, in words.
pub(super) async fn read_large(stores: &Stores, large: &Large) -> Result<String, String> {
    let reader = stores
        .scratch
        .get(&key(stores, &large.name), 0, None, None)
        .await;
    let mut text = String::new();
    let mut reader = reader.map_err(|e| e.to_string())?;
    reader
        .read_to_string(&mut text)
        .await
        .map_err(|e| format!("output {}: {e}", large.name))?;
    Ok(text)
}

/// Adds a line that points at a large output.
pub(super) fn encode_large(lines: &mut Vec<u8>, item: ItemId, large: &Large) {
    let line = LineOut {
        item: item.to_string(),
        output: None,
        large: Some(large),
    };
    serde_json::to_writer(&mut *lines, &line).expect("plain data serialises");
    lines.push(b'\n');
}

/// Adds one line to `lines`.
///
/// # Errors
/// The output is not JSON.
pub(super) fn encode(
    lines: &mut Vec<u8>,
    item: ItemId,
    output: &str,
) -> Result<(), serde_json::Error> {
    let output: &RawValue = serde_json::from_str(output)?;
    let before = lines.len();
    serde_json::to_writer(
        &mut *lines,
        &LineOut {
            item: item.to_string(),
            output: Some(output),
            large: None,
        },
    )?;
    // JSON allows line breaks between tokens; a line must be one line.
    for byte in &mut lines[before..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
    Ok(())
}

impl OutputWriter {
    /// Nothing written yet.
    pub(super) fn new(session: SessionId, lane: Lane) -> Self {
        Self {
            session,
            lane,
            number: 0,
            bytes: 0,
        }
    }

    /// Writes `bytes`, durably; answers the part's name and the offset at which they begin.
    pub(super) async fn write(
        &mut self,
        stores: &Stores,
        bytes: Bytes,
    ) -> Result<(String, u64), ObjectsError> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > OUTPUT_PART_BYTES_MAX {
            self.next_part();
        }
        if stores.scratch.profile().append {
            let name = self.name();
            let length = bytes.len() as u64;
            let offset = stores.scratch.append(&key(stores, &name), bytes).await?;
            self.bytes = offset + length;
            return Ok((name, offset));
        }
        loop {
            let name = self.name();
            let key = key(stores, &name);
            let put = if is_planted(Bug::OutputsOverwritten) {
                stores.scratch.put(&key, bytes.clone()).await
            } else {
                stores.scratch.put_if_absent(&key, bytes.clone()).await
            };
            self.next_part();
            match put {
                Ok(_) => return Ok((name, 0)),
                // A former engine's, or this one's after a lost reply: what a settle may count on stays as it is.
                Err(ObjectsError::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn name(&self) -> String {
        if is_planted(Bug::OutputsOverwritten) {
            return format!("{}-{}", self.session, self.number);
        }
        format!("{}-{}-{}", self.session, self.lane, self.number)
    }

    fn next_part(&mut self) {
        self.number += 1;
        self.bytes = 0;
    }
}

fn key(stores: &Stores, name: &str) -> Vec<u8> {
    let mut key = stores.scratch_prefix.clone();
    key.extend_from_slice(format!("outputs/{name}.jsonl").as_bytes());
    key
}

/// A stretch of an output part, as page rows hold it.
pub(super) fn stretch(name: &str, offset: u64, length: usize) -> String {
    format!("{name}@{offset}+{length}")
}

/// The lines of a stretch.
///
/// # Errors
/// The part cannot be read, or is not what the row says.
pub(super) async fn read(stores: &Stores, stretch: &str) -> Result<Vec<OutputLine>, String> {
    let bad = || format!("{stretch:?} names no stretch of an output part");
    let (name, place) = stretch.rsplit_once('@').ok_or_else(bad)?;
    let (offset, length) = place.split_once('+').ok_or_else(bad)?;
    let offset: u64 = offset.parse().map_err(|_| bad())?;
    let length: u64 = length.parse().map_err(|_| bad())?;
    let key = key(stores, name);
    let reader = stores
        .scratch
        .get(&key, offset, Some(offset + length), None)
        .await;
    let mut reader = reader.map_err(|e| e.to_string())?;
    let mut text = String::new();
    reader
        .read_to_string(&mut text)
        .await
        .map_err(|e| format!("output part {name}: {e}"))?;
    if text.len() as u64 != length {
        return Err(format!("output part {name} ends before {stretch}"));
    }
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(serde_json::from_str(line).map_err(|e| format!("output part {name}: {e}"))?);
    }
    Ok(lines)
}
