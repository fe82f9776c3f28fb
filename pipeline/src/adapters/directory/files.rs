//! The operations on single files. All block.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::key::{self, at};
use super::temporary::{Publish, Temporary, sync_directory};
use crate::core::item::{Object, Pin};
use crate::ports::objects::ObjectsError;

pub(super) fn head(path: &Path, key: Arc<[u8]>) -> Result<Object, ObjectsError> {
    let metadata = std::fs::metadata(path).map_err(|error| key::error_of_reading(path, &error))?;
    if !metadata.is_file() {
        return Err(ObjectsError::NotFound(path.display().to_string()));
    }
    Ok(key::object(key, &metadata))
}

pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<Pin, ObjectsError> {
    let mut file = Temporary::begin(path)?;
    file.write(bytes)?;
    file.publish(Publish::Replace)
}

pub(super) fn put_if_absent(path: &Path, bytes: &[u8]) -> Result<Pin, ObjectsError> {
    // Saves the write where the answer is known; the link decides.
    if path.symlink_metadata().is_ok() {
        return Err(ObjectsError::Exists(path.display().to_string()));
    }
    let mut file = Temporary::begin(path)?;
    file.write(bytes)?;
    file.publish(Publish::IfAbsent)
}

pub(super) fn append(path: &Path, bytes: &[u8]) -> Result<u64, ObjectsError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(at(directory))?;
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(at(path))?;
    let offset = file.metadata().map_err(at(path))?.len();
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Half a piece would be taken for content by the next reader. If even this fails, the caller
        // knows the length it had been told, and reads no further.
        drop(file.set_len(offset));
        return Err(key::error(path, &error));
    }
    if offset == 0 {
        sync_directory(path)?;
    }
    Ok(offset)
}

pub(super) fn delete(path: &Path) -> Result<(), ObjectsError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) => match key::error_of_reading(path, &error) {
            ObjectsError::NotFound(_) => Ok(()),
            other => Err(other),
        },
    }
}
