//! A frozen part's items, again: for workers, and for a redrive.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt;

use super::Stores;
use super::error::{SourceError, label};
use crate::core::item::{Input, Pin};
use crate::core::job::InputSpec;
use crate::core::part::{Cursor, PART_ITEMS_MAX, Part, Place};
use crate::wire::compression::UnpackError;
use crate::wire::part_file::{self, Lines, PartFileError};
use crate::wire::record::{InputError, Position};
use crate::wire::records::RecordParser;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// The items of a part, the same as when it was frozen. `cursor` is any cursor of the run behind the part:
/// it says what the beginning of the file said about the rest.
///
/// # Errors
/// The file has changed, or the part cannot be read.
pub async fn load_part(
    spec: &InputSpec,
    stores: &Stores,
    cursor: &Cursor,
    part: &Part,
) -> Result<Arc<[Arc<Input>]>, SourceError> {
    let (what, inputs) = match &part.place {
        Place::Numbers { first } => {
            let items = u64::from(part.items.min(PART_ITEMS_MAX));
            let value = |index| Input::Value(number(*first, index).to_string().into());
            let inputs = (0..items).map(|index| Arc::new(value(index))).collect();
            (String::from("the range"), inputs)
        }
        Place::Slice {
            start,
            end,
            line,
            pin,
        } => {
            let at = Position {
                offset: *start,
                line: *line,
            };
            let parser = RecordParser::stretch(spec, cursor, at);
            let inputs = load_slice(parser, stores, (*start, *end), pin).await?;
            (label(&stores.input_prefix), inputs)
        }
        Place::Frozen { name } => {
            let inputs = load_frozen(spec, stores, name).await?;
            (format!("the frozen part {name}"), inputs)
        }
    };
    if inputs.len() != part.items as usize {
        let why = format!("it gives {} items, and had {}", inputs.len(), part.items);
        return Err(SourceError::Refused { what, why });
    }
    Ok(inputs)
}

async fn load_slice(
    parser: Result<Option<RecordParser>, InputError>,
    stores: &Stores,
    (start, end): (u64, u64),
    pin: &Pin,
) -> Result<Arc<[Arc<Input>]>, SourceError> {
    let name = label(&stores.input_prefix);
    let bad = |error| SourceError::Bad {
        file: name.clone(),
        error,
    };
    let mut parser = parser.map_err(bad)?.ok_or_else(|| SourceError::Refused {
        what: name.clone(),
        why: "the part is a stretch of a file, the job's input is none".to_owned(),
    })?;
    let key = &stores.input_prefix;
    let reader = stores.input.get(key, start, Some(end), Some(pin)).await;
    let mut reader = reader.map_err(|error| SourceError::of_input(&name, error))?;

    let unavailable = |why: String| SourceError::Unavailable {
        what: name.clone(),
        why,
    };
    let mut inputs = Vec::new();
    let mut records = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = start;
    while offset < end {
        let count = reader.read(&mut chunk).await;
        let count = count.map_err(|error| unavailable(error.to_string()))?;
        if count == 0 {
            let (came, asked) = (offset - start, end - start);
            return Err(unavailable(format!("only {came} of {asked} bytes came")));
        }
        offset += count as u64;
        parser.feed(&chunk[..count], &mut records).map_err(bad)?;
        if offset >= end {
            parser.finish(&mut records).map_err(bad)?;
        }
        let values = records.drain(..).map(|record| Input::Value(record.json));
        inputs.extend(values.map(Arc::new));
    }
    Ok(inputs.into())
}

async fn load_frozen(
    spec: &InputSpec,
    stores: &Stores,
    name: &str,
) -> Result<Arc<[Arc<Input>]>, SourceError> {
    let lines = match spec {
        InputSpec::Objects(_) | InputSpec::Events(_) => Lines::Objects,
        InputSpec::Jsonl(_)
        | InputSpec::Csv { .. }
        | InputSpec::Json(_)
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => Lines::Values,
    };
    let key = scratch_key(stores, name);
    let reader = stores.scratch.get(&key, 0, None, None).await;
    let reader = reader.map_err(|error| SourceError::of_scratch(name, error))?;
    let inputs = part_file::decode(reader, lines).await;
    let what = format!("the frozen part {name}");
    inputs.map_err(|error| match error {
        PartFileError::Read(UnpackError::Store(why)) => SourceError::Unavailable { what, why },
        error => SourceError::Refused {
            what,
            why: error.to_string(),
        },
    })
}

/// Where a frozen part of this name lies.
pub(super) fn scratch_key(stores: &Stores, name: &str) -> Vec<u8> {
    [&*stores.scratch_prefix, name.as_bytes()].concat()
}

/// The number `index` places after `first`; at the end of all numbers it stays there.
pub(super) fn number(first: i64, index: u64) -> i64 {
    let number = i128::from(first) + i128::from(index);
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A key as the cursor keeps it.
pub(super) fn encode_key(key: &[u8]) -> String {
    STANDARD.encode(key)
}

/// Reads [`encode_key`] back.
pub(super) fn decode_key(text: &str) -> Result<Vec<u8>, SourceError> {
    STANDARD.decode(text).map_err(|error| SourceError::Refused {
        what: "the run's cursor".to_owned(),
        why: format!("its last key is not base64: {error}"),
    })
}
