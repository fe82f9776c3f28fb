//! The records of one file, plain or compressed, read once from front to back.

use std::collections::VecDeque;

use tokio::io::AsyncReadExt;

use super::Stores;
use super::error::{SourceError, label};
use super::feed::{Fed, Mark};
use crate::core::item::{Input, Pin};
use crate::core::job::InputSpec;
use crate::core::part::{Cursor, Place};
use crate::wire::compression::{Compression, SNIFF_BYTES, UnpackError, Unpacked};
use crate::wire::record::{InputError, Position, Record};
use crate::wire::records::RecordParser;

/// Bytes read at a time. Its records are held at once: tiny ones take some 60 times their size.
const CHUNK_BYTES: usize = 128 * 1024;

pub(super) struct FileFeed {
    name: String,
    pin: Pin,
    size_bytes: u64,
    compression: Compression,
    parser: RecordParser,
    stream: Stream,
    chunk: Box<[u8]>,
    /// Of a compressed file: bytes still to be passed over to come to the cursor.
    skip_bytes: u64,
    /// Where the stored bytes were read from.
    start: u64,
    ready: VecDeque<Record>,
    /// Reused from chunk to chunk.
    parsed: Vec<Record>,
    /// What ends the records in `ready`.
    failed: Option<SourceError>,
}

enum Stream {
    Open(Unpacked),
    Ended,
}

impl FileFeed {
    pub(super) async fn open(
        spec: &InputSpec,
        stores: &Stores,
        cursor: &Cursor,
    ) -> Result<Self, SourceError> {
        let key = &stores.input_prefix;
        let name = label(key);
        let of_input = |error| SourceError::of_input(&name, error);
        let head = stores.input.head(key).await.map_err(of_input)?;
        if cursor.pin.as_ref().is_some_and(|pin| *pin != head.pin) {
            return Err(SourceError::Changed { file: name });
        }
        let size = head.size_bytes;
        let read =
            |start: u64, end: Option<u64>| stores.input.get(key, start, end, Some(&head.pin));

        let mut first = Vec::new();
        // Of an empty range no store has bytes to give: S3 refuses it.
        if size > 0 {
            let end = size.min(SNIFF_BYTES as u64);
            let mut reader = read(0, Some(end)).await.map_err(of_input)?;
            let came = reader.read_to_end(&mut first).await;
            came.map_err(|error| SourceError::Unavailable {
                what: name.clone(),
                why: error.to_string(),
            })?;
        }
        let compression = Compression::sniff(key, &first);
        let (start, skip_bytes) = match compression {
            Compression::Plain => (cursor.offset, 0),
            Compression::Gzip | Compression::Zstd => (0, cursor.offset),
        };
        let stream = if start < size {
            let reader = read(start, None).await.map_err(of_input)?;
            Stream::Open(Unpacked::new(reader, compression))
        } else {
            Stream::Open(Unpacked::new(tokio::io::empty(), compression))
        };
        let bad = |error| SourceError::Bad {
            file: name.clone(),
            error,
        };
        let parser = RecordParser::at(spec, cursor).map_err(bad)?;
        Ok(Self {
            parser: parser.expect("only inputs in files are opened here"),
            pin: head.pin.clone(),
            name,
            size_bytes: size,
            compression,
            stream,
            chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
            skip_bytes,
            start,
            ready: VecDeque::new(),
            parsed: Vec::new(),
            failed: None,
        })
    }

    pub(super) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Where these bytes lie, if they can be read again by themselves.
    pub(super) fn place(&self, start: Position, end: Position) -> Option<Place> {
        match self.compression {
            Compression::Plain => Some(Place::Slice {
                start: start.offset,
                end: end.offset,
                line: start.line,
                pin: self.pin.clone(),
            }),
            Compression::Gzip | Compression::Zstd => None,
        }
    }

    /// Notes what the file's beginning said about the rest.
    pub(super) fn learned(&self, cursor: &mut Cursor) {
        cursor.headers = self.parser.header().map(<[String]>::to_vec);
        cursor.shape = self.parser.shape();
    }

    pub(super) async fn next(&mut self) -> Result<Option<Fed>, SourceError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(fed(record)));
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            let Stream::Open(unpacked) = &mut self.stream else {
                return Ok(None);
            };
            let came = unpacked.read(&mut self.chunk).await;
            let stored_bytes = self.start + unpacked.stored_bytes();
            // A connection that was closed early must not pass for the end of the file, nor for a
            // compressed file that is broken.
            let short = unpacked.store_ended() && stored_bytes < self.size_bytes;
            match came {
                Ok(count) if count > 0 => self.take(count),
                Ok(_) | Err(_) if short => self.failed = Some(self.short(stored_bytes)),
                Ok(_) => self.end(),
                Err(error) => self.failed = Some(self.explain(&error)),
            }
            self.ready.extend(self.parsed.drain(..));
        }
    }

    fn take(&mut self, count: usize) {
        let skip = usize::try_from(self.skip_bytes)
            .unwrap_or(usize::MAX)
            .min(count);
        self.skip_bytes -= skip as u64;
        let fed = self.parser.feed(&self.chunk[skip..count], &mut self.parsed);
        self.failed = fed.err().map(|error| self.bad(error));
    }

    fn end(&mut self) {
        self.stream = Stream::Ended;
        let finished = self.parser.finish(&mut self.parsed);
        self.failed = finished.err().map(|error| self.bad(error));
    }

    fn short(&self, stored_bytes: u64) -> SourceError {
        SourceError::Unavailable {
            what: self.name.clone(),
            why: format!("only {stored_bytes} of {} bytes came", self.size_bytes),
        }
    }

    fn bad(&self, error: InputError) -> SourceError {
        SourceError::Bad {
            file: self.name.clone(),
            error,
        }
    }

    fn explain(&self, error: &UnpackError) -> SourceError {
        let help = match error {
            UnpackError::Store(why) => {
                return SourceError::Unavailable {
                    what: self.name.clone(),
                    why: why.clone(),
                };
            }
            UnpackError::Broken(_) => "test it with `gzip -t` or `zstd -t`, and make it again",
            UnpackError::Bomb => "if that is right, unpack it yourself and read the plain file",
        };
        self.bad(InputError {
            line: 0,
            column: None,
            problem: error.to_string(),
            help: help.to_owned(),
        })
    }
}

fn fed(record: Record) -> Fed {
    let start = Position {
        offset: record.start,
        line: record.line,
    };
    let end = Position {
        offset: record.end,
        line: record.end_line,
    };
    Fed {
        input: Input::Value(record.json),
        mark: Mark::Record { start, end },
    }
}
