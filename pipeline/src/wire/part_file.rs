//! A frozen part's file: one item a line, as JSON, the whole compressed with zstd, or as it is where it is small.
//!
//! Objects stand as handlers get them; values stand verbatim, on one line.

use std::sync::Arc;

use std::io::Read as _;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::compression::{Compression, UnpackError};
use super::value::one_line;
use crate::core::item::{ITEM_BYTES_MAX, Input, Object};
use crate::core::part::{PART_BYTES_MAX, PART_ITEMS_MAX};

/// The longest a part's text may be: its bytes and one item more, and eight times that for keys
/// whose every byte is escaped (at most six characters) and stands in base64 too.
const TEXT_BYTES_MAX: usize = 8 * (PART_BYTES_MAX + ITEM_BYTES_MAX);

/// zstd's own default: text of rows to a fifth, at some 200 MB/s.
const LEVEL: i32 = 3;

/// Below that nothing is saved, on disk or on the way.
const PACKED_BYTES_MIN: usize = 2048;

/// What the lines of a part are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Objects of a listing.
    Objects,
    /// Values.
    Values,
}

/// Why a part's file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartFileError {
    /// Its bytes did not come, or are broken.
    #[error(transparent)]
    Read(#[from] UnpackError),
    /// It is not a part's file.
    #[error("it is longer than a part can be")]
    TooLong,
    /// It is not a part's file.
    #[error("it is not UTF-8")]
    NotText,
    /// A line is not what was written.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The file's bytes.
pub fn encode(inputs: &[Arc<Input>]) -> Vec<u8> {
    let mut text = String::new();
    for input in inputs {
        match &**input {
            Input::Object(object) => text.push_str(&object.to_json()),
            Input::Value(json) => text.push_str(&one_line(json)),
        }
        text.push('\n');
    }
    if text.len() < PACKED_BYTES_MIN {
        return text.into_bytes();
    }
    // Packed as a whole, the frame knows its size: whoever unpacks it needs no more memory than that.
    zstd::bulk::compress(text.as_bytes(), LEVEL).expect("a vector takes all bytes")
}

/// The items, read back.
///
/// # Errors
/// The bytes do not come, or are not such a file.
pub async fn decode(
    reader: impl AsyncRead + Send,
    lines: Lines,
) -> Result<Arc<[Arc<Input>]>, PartFileError> {
    let mut packed = Vec::new();
    let mut bounded = std::pin::pin!(reader.take(TEXT_BYTES_MAX as u64));
    let read = bounded.read_to_end(&mut packed).await;
    read.map_err(|error| UnpackError::Store(error.to_string()))?;
    let text = match Compression::sniff(b"", &packed) {
        Compression::Zstd => unpack(&packed)?,
        Compression::Plain | Compression::Gzip => {
            check_plain(&packed)?;
            packed
        }
    };
    let text = std::str::from_utf8(&text).map_err(|_| PartFileError::NotText)?;
    if memchr::memchr_iter(b'\n', text.as_bytes()).count() > PART_ITEMS_MAX as usize {
        return Err(PartFileError::TooLong);
    }
    let item = |(index, line): (usize, &str)| {
        let input =
            match lines {
                Lines::Values => Input::Value(line.into()),
                Lines::Objects => Input::Object(Object::from_json(line).map_err(|problem| {
                    PartFileError::Line {
                        line: index + 1,
                        problem,
                    }
                })?),
            };
        Ok(Arc::new(input))
    };
    text.lines().enumerate().map(item).collect()
}

/// What is not packed has no frame that would show that it was cut short, or is something else.
fn check_plain(text: &[u8]) -> Result<(), PartFileError> {
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let problem = |problem: String| PartFileError::Line {
            line: index + 1,
            problem,
        };
        let json = line
            .strip_suffix(b"\n")
            .ok_or_else(|| problem("it is cut short".to_owned()))?;
        serde_json::from_slice::<serde::de::IgnoredAny>(json)
            .map_err(|error| problem(error.to_string()))?;
    }
    Ok(())
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, PartFileError> {
    let broken = |error: std::io::Error| UnpackError::Broken(error.to_string());
    let unpacked = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
    let mut text = Vec::new();
    let mut bounded = unpacked.take(TEXT_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut text).map_err(broken)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(PartFileError::TooLong);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::item::Pin;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    fn read(bytes: Vec<u8>, lines: Lines) -> Result<Arc<[Arc<Input>]>, PartFileError> {
        decode(std::io::Cursor::new(bytes), lines)
            .now_or_never()
            .expect("memory never waits")
    }

    fn written(inputs: &[Arc<Input>]) -> Vec<u8> {
        encode(inputs)
    }

    proptest! {
        #[test]
        fn objects_of_any_key_read_back(
            keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..20),
        ) {
            let object = |(n, key): (usize, Vec<u8>)| {
                Arc::new(Input::Object(Object {
                    bucket: None,
                    key: key.into(),
                    size_bytes: n as u64,
                    pin: Pin { etag: "\"e\"".into(), version: (n % 2 == 0).then(|| "v".into()) },
                }))
            };
            let inputs: Vec<Arc<Input>> = keys.into_iter().enumerate().map(object).collect();
            let again = read(written(&inputs), Lines::Objects);
            prop_assert_eq!(again.expect("it was written so"), inputs.into());
        }

        #[test]
        fn values_read_back(texts in proptest::collection::vec(".{0,20}", 0..20)) {
            let value = |text| serde_json::to_string(text).expect("text");
            let inputs: Vec<Arc<Input>> =
                texts.iter().map(|text| Arc::new(Input::Value(value(text).into()))).collect();
            let again = read(written(&inputs), Lines::Values);
            prop_assert_eq!(again.expect("it was written so"), inputs.into());
        }
    }

    #[test]
    fn a_value_on_several_lines_takes_one() {
        let inputs = [Arc::new(Input::Value("{\n \"a\": 1\n}".into()))];
        let again = read(written(&inputs), Lines::Values).expect("it was written so");
        assert_eq!(*again[0], Input::Value("{\"a\":1}".into()));
    }

    #[test]
    fn a_file_cut_short_or_of_junk_is_an_error() {
        let one = || Arc::new(Input::Value("1".into()));
        let inputs: Vec<_> = std::iter::repeat_with(one).take(PACKED_BYTES_MIN).collect();
        let mut bytes = written(&inputs);
        bytes.truncate(bytes.len() - 1);
        assert!(matches!(
            read(bytes, Lines::Values),
            Err(PartFileError::Read(_))
        ));
        let error = read(written(&inputs), Lines::Objects).expect_err("1 is no object");
        assert!(
            error.to_string().starts_with("line 1: invalid type"),
            "{error}"
        );
    }
}
