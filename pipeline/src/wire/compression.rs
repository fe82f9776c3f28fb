//! Compressed input: what it is, and its bytes without the compression.
//!
//! The first bytes of a file decide, whatever its name says: stores and clients often unpack a file and
//! leave its name. The name counts only where there are no bytes to look at, or where zstd begins with
//! a frame that other formats may begin with, too.

use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

/// Bytes as they come: the form that the port of stores gives them in.
type Reader = StdPin<Box<dyn AsyncRead + Send>>;

/// As many of a file's first bytes as [`Compression::sniff`] wants to see.
pub const SNIFF_BYTES: usize = 4;

/// A compressed file may expand by this factor …
///
/// Text of rows seldom expands by more than 30, gzip cannot do more than 1,032, zstd some 30,000.
pub const EXPANSION_MAX: u64 = 250;

/// … beyond this much, which costs a second or two whatever it was made of.
pub const EXPANSION_FREE_BYTES: u64 = 1024 * 1024 * 1024;

/// Bytes read from the store at a time.
const CHUNK_BYTES: usize = 128 * 1024;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    Plain,
    /// gzip, any number of members.
    Gzip,
    /// Zstandard, any number of frames, windows up to 128 MiB.
    Zstd,
}

impl Compression {
    /// What a name ends in says.
    #[must_use]
    pub fn of_name(name: &[u8]) -> Self {
        let lower = name.to_ascii_lowercase();
        let ends = |ending: &[u8]| lower.ends_with(ending);
        if ends(b".gz") || ends(b".gzip") {
            return Self::Gzip;
        }
        if ends(b".zst") || ends(b".zstd") {
            return Self::Zstd;
        }
        Self::Plain
    }

    /// What the file is, by its first bytes (all of them, if it has fewer than [`SNIFF_BYTES`]), and by
    /// its name where they say nothing.
    #[must_use]
    pub fn sniff(name: &[u8], first: &[u8]) -> Self {
        let by_name = Self::of_name(name);
        match first {
            [] => by_name,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame ("Zstandard Compression Format", 3.1.2), as parallel writers begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] if by_name == Self::Zstd => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Why bytes did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The store failed in the middle: reading again may help.
    #[error("the file stopped coming: {0}")]
    Store(String),
    /// The compressed bytes are broken or cut short.
    #[error("the compressed file is broken or cut short: {0}")]
    Broken(String),
    /// It expands beyond the bound.
    #[error("the compressed file expands more than {EXPANSION_MAX} times")]
    Bomb,
}

/// A file's bytes without its compression, and the count of what they were made of.
pub struct Unpacked {
    reader: Reader,
    meter: Arc<Meter>,
    free_bytes: u64,
    out_bytes: u64,
}

#[derive(Default)]
struct Meter {
    /// Bytes that came from the store.
    bytes: AtomicU64,
    /// Whether the store failed.
    failed: AtomicBool,
    /// Whether the store said that there is no more.
    ended: AtomicBool,
}

struct Metered {
    reader: Reader,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: StdPin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining();
        let poll = self.reader.as_mut().poll_read(cx, buffer);
        let came = (buffer.filled().len() - before) as u64;
        self.meter.bytes.fetch_add(came, Ordering::Relaxed);
        match &poll {
            Poll::Ready(Err(_)) => self.meter.failed.store(true, Ordering::Relaxed),
            Poll::Ready(Ok(())) if came == 0 && room > 0 => {
                self.meter.ended.store(true, Ordering::Relaxed);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        poll
    }
}

impl Unpacked {
    /// Unpacks what `reader` gives.
    #[must_use]
    pub fn new(reader: impl AsyncRead + Send + 'static, compression: Compression) -> Self {
        let meter = Arc::new(Meter::default());
        let metered = Metered {
            reader: Box::pin(reader),
            meter: meter.clone(),
        };
        let reader: Reader = match compression {
            Compression::Plain => Box::pin(metered),
            Compression::Gzip => {
                let mut decoder = GzipDecoder::new(BufReader::with_capacity(CHUNK_BYTES, metered));
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            Compression::Zstd => {
                let mut decoder = ZstdDecoder::new(BufReader::with_capacity(CHUNK_BYTES, metered));
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
        };
        Self {
            reader,
            meter,
            free_bytes: EXPANSION_FREE_BYTES,
            out_bytes: 0,
        }
    }

    /// Bytes that came from the store so far.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.meter.bytes.load(Ordering::Relaxed)
    }

    /// Whether the store has given its last byte.
    #[must_use]
    pub fn store_ended(&self) -> bool {
        self.meter.ended.load(Ordering::Relaxed)
    }

    /// Reads some bytes into `buffer`, which is not empty; 0 at the end. Dropping the future loses none.
    ///
    /// # Errors
    /// See [`UnpackError`].
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let count = match self.reader.read(buffer).await {
            Ok(count) => count,
            Err(error) if self.meter.failed.load(Ordering::Relaxed) => {
                return Err(UnpackError::Store(error.to_string()));
            }
            Err(error) => return Err(UnpackError::Broken(error.to_string())),
        };
        self.out_bytes += count as u64;
        let bound = self.free_bytes + EXPANSION_MAX * self.stored_bytes();
        if self.out_bytes > bound {
            return Err(UnpackError::Bomb);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let packed = async {
            match compression {
                Compression::Plain => bytes.to_vec(),
                Compression::Gzip => {
                    let mut encoder = GzipEncoder::new(Vec::new());
                    encoder.write_all(bytes).await.expect("memory");
                    encoder.shutdown().await.expect("memory");
                    encoder.into_inner()
                }
                Compression::Zstd => {
                    let mut encoder = ZstdEncoder::new(Vec::new());
                    encoder.write_all(bytes).await.expect("memory");
                    encoder.shutdown().await.expect("memory");
                    encoder.into_inner()
                }
            }
        };
        packed.now_or_never().expect("memory never waits")
    }

    fn unpack(mut unpacked: Unpacked) -> Result<Vec<u8>, UnpackError> {
        let all = async {
            let mut all = Vec::new();
            let mut buffer = vec![0; 4096];
            loop {
                match unpacked.read(&mut buffer).await? {
                    0 => return Ok(all),
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        };
        all.now_or_never().expect("memory never waits")
    }

    fn open(bytes: Vec<u8>, name: &str) -> Unpacked {
        let compression = Compression::sniff(name.as_bytes(), &bytes);
        Unpacked::new(std::io::Cursor::new(bytes), compression)
    }

    #[test]
    fn the_first_bytes_win_over_the_name() {
        let gzip = pack(Compression::Gzip, b"x");
        assert_eq!(Compression::sniff(b"a.zst", &gzip), Compression::Gzip);
        assert_eq!(Compression::sniff(b"a.csv", &gzip), Compression::Gzip);
        assert_eq!(Compression::sniff(b"a.GZ", b"{}\n"), Compression::Plain);
        assert_eq!(Compression::sniff(b"a.gzip", b""), Compression::Gzip);
        let skippable = [0x50, 0x2a, 0x4d, 0x18];
        assert_eq!(Compression::sniff(b"a.zstd", &skippable), Compression::Zstd);
        assert_eq!(Compression::sniff(b"a", &skippable), Compression::Plain);
    }

    #[test]
    fn files_of_several_members_are_read_to_their_end() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut bytes = pack(compression, b"one\n");
            bytes.extend(pack(compression, b"two\n"));
            let length = bytes.len() as u64;
            let mut unpacked = open(bytes, "x");
            let mut buffer = [0; 64];
            let first = unpacked.read(&mut buffer).now_or_never();
            let first = first.expect("memory").expect("good");
            let rest = unpack(unpacked).expect("good");
            assert_eq!([&buffer[..first], &rest].concat(), b"one\ntwo\n");
            assert!(length > 0);
        }
    }

    #[test]
    fn a_compressed_file_cut_short_is_broken() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut bytes = pack(compression, &[7; 10_000]);
            bytes.truncate(bytes.len() - 3);
            let result = unpack(open(bytes, "x"));
            assert!(matches!(result, Err(UnpackError::Broken(_))), "{result:?}");
        }
        let empty = unpack(open(Vec::new(), "x.gz"));
        assert!(matches!(empty, Err(UnpackError::Broken(_))), "{empty:?}");
    }

    #[test]
    fn a_bomb_is_stopped() {
        let bytes = pack(Compression::Zstd, &vec![0; 4 << 20]);
        let mut unpacked = open(bytes, "x");
        unpacked.free_bytes = 1 << 20;
        assert_eq!(unpack(unpacked), Err(UnpackError::Bomb));
    }

    #[test]
    fn a_store_that_fails_is_not_a_broken_file() {
        struct Failing;
        impl AsyncRead for Failing {
            fn poll_read(
                self: StdPin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<std::io::Result<()>> {
                Poll::Ready(Err(std::io::Error::other("reset")))
            }
        }
        for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            let result = unpack(Unpacked::new(Failing, compression));
            assert_eq!(result, Err(UnpackError::Store("reset".to_owned())));
        }
    }
}
