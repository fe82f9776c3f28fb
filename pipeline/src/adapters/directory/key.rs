//! Which keys are files below the root, and how a file's state is told as a pin.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::item::{Object, Pin};
use crate::ports::objects::ObjectsError;

/// Names of files being written begin so: they are in no listing, and cannot be keys.
pub(super) const TEMPORARY: &[u8] = b".trommel-tmp-";

/// The file of a key: refuses what would lie elsewhere, or could be said in two ways.
pub(super) fn file(root: &Path, key: &[u8]) -> Result<PathBuf, ObjectsError> {
    let refused = |why: &str| {
        let key = String::from_utf8_lossy(key);
        Err(ObjectsError::Refused(format!(
            "{key:?} cannot be a file in {}: {why}",
            root.display()
        )))
    };
    if key.contains(&0) {
        return refused("it holds a zero byte");
    }
    for segment in key.split(|byte| *byte == b'/') {
        if segment.is_empty() {
            return refused("a part of it is empty");
        }
        if segment == b"." || segment == b".." {
            return refused("a part of it is . or ..");
        }
        if segment.starts_with(TEMPORARY) {
            return refused("such names are kept for files being written");
        }
    }
    Ok(root.join(OsStr::from_bytes(key)))
}

/// Time of change, size and inode: a file that is replaced or written differs in one of them.
pub(super) fn pin(metadata: &Metadata) -> Pin {
    let nanoseconds =
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let etag = format!("{nanoseconds:x}-{:x}-{:x}", metadata.len(), metadata.ino());
    Pin {
        etag: etag.into(),
        version: None,
    }
}

/// A file as an object.
pub(super) fn object(key: Arc<[u8]>, metadata: &Metadata) -> Object {
    Object {
        bucket: None,
        key,
        size_bytes: metadata.len(),
        pin: pin(metadata),
    }
}

/// What a failed file operation means for the caller.
pub(super) fn error(path: &Path, error: &io::Error) -> ObjectsError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => ObjectsError::NotFound(path.display().to_string()),
        io::ErrorKind::AlreadyExists => ObjectsError::Exists(path.display().to_string()),
        io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::TimedOut
        | io::ErrorKind::ResourceBusy
        | io::ErrorKind::OutOfMemory => ObjectsError::Unavailable(text),
        // Too many open files passes; the standard library has no name for it.
        _ if is_short_of_handles(error) => ObjectsError::Unavailable(text),
        _ => ObjectsError::Refused(text),
    }
}

fn is_short_of_handles(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(nix::libc::EMFILE) || code == Some(nix::libc::ENFILE)
}

/// Adds the path to a failed file operation.
pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> ObjectsError {
    move |failure| error(path, &failure)
}

/// As [`error`], where nothing is made: below a file there is nothing.
pub(super) fn error_of_reading(path: &Path, failure: &io::Error) -> ObjectsError {
    if failure.kind() == io::ErrorKind::NotADirectory {
        return ObjectsError::NotFound(path.display().to_string());
    }
    error(path, failure)
}
