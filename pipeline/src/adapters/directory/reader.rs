//! Reads a stretch of a file, in the state that was asked for, from the first byte to the last.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin as StdPin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, Take};

use super::key::{self, at};
use crate::core::item::Pin;
use crate::ports::objects::{ObjectsError, Reader};

/// Opens the file for the bytes from `start` up to `end`. With a pin, its state is compared now, and
/// again when the last byte was read: a file that was written in between fails there.
pub(super) fn open(
    path: &Path,
    start: u64,
    end: Option<u64>,
    pin: Option<Pin>,
) -> Result<Reader, ObjectsError> {
    // Not blocking, or a pipe of that name would hold us until somebody writes into it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| key::error_of_reading(path, &error))?;
    let metadata = file.metadata().map_err(at(path))?;
    if !metadata.is_file() {
        return Err(ObjectsError::NotFound(path.display().to_string()));
    }
    if pin.as_ref().is_some_and(|pin| *pin != key::pin(&metadata)) {
        return Err(ObjectsError::Changed(path.display().to_string()));
    }
    file.seek(SeekFrom::Start(start)).map_err(at(path))?;
    let length = end.map_or(u64::MAX, |end| end.saturating_sub(start));
    let watched = match pin {
        Some(pin) => Some(Watched {
            file: file.try_clone().map_err(at(path))?,
            path: path.to_owned(),
            pin,
        }),
        None => None,
    };
    let bytes = tokio::fs::File::from_std(file).take(length);
    Ok(Box::pin(FileReader { bytes, watched }))
}

struct FileReader {
    bytes: Take<tokio::fs::File>,
    watched: Option<Watched>,
}

struct Watched {
    file: File,
    path: PathBuf,
    pin: Pin,
}

impl Watched {
    /// One call of the system on an open file: short enough for an async thread.
    fn check(&self) -> io::Result<()> {
        if key::pin(&self.file.metadata()?) == self.pin {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} was changed while it was read",
            self.path.display()
        )))
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: StdPin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let full = buffer.remaining() == 0;
        ready!(StdPin::new(&mut self.bytes).poll_read(context, buffer))?;
        let at_end = buffer.filled().len() == before && !full;
        match &self.watched {
            Some(watched) if at_end => Poll::Ready(watched.check()),
            Some(_) | None => Poll::Ready(Ok(())),
        }
    }
}
