//! A file that is not there until it is finished.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking;
use super::key::{self, TEMPORARY, at};
use crate::core::item::Pin;
use crate::ports::objects::{ObjectsError, Upload};

/// Makes names differ within the process; the process id makes them differ between processes.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file under a temporary name, in the directory of its place; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    place: PathBuf,
}

/// How a finished file takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    /// A former file goes.
    Replace,
    /// Only if there is none.
    IfAbsent,
}

impl Temporary {
    /// Begins a file that shall stand at `place`; makes the directories on the way.
    pub(super) fn begin(place: &Path) -> Result<Self, ObjectsError> {
        let directory = place.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(at(directory))?;
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let prefix = String::from_utf8_lossy(TEMPORARY);
            let path = directory.join(format!("{prefix}{}-{number}", std::process::id()));
            let opened = OpenOptions::new().write(true).create_new(true).open(&path);
            match opened {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        path,
                        place: place.to_owned(),
                    });
                }
                // Left behind by a dead process of the same id: numbers only grow, so this ends.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(key::error(&path, &error)),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectsError> {
        self.file.write_all(bytes).map_err(at(&self.place))
    }

    /// Makes it durable, then visible, then its name durable.
    pub(super) fn publish(self, how: Publish) -> Result<Pin, ObjectsError> {
        self.file.sync_all().map_err(at(&self.place))?;
        let published = match how {
            Publish::Replace => std::fs::rename(&self.path, &self.place),
            Publish::IfAbsent => std::fs::hard_link(&self.path, &self.place),
        };
        published.map_err(at(&self.place))?;
        sync_directory(&self.place)?;
        let metadata = self.file.metadata().map_err(at(&self.place))?;
        Ok(key::pin(&metadata))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Makes a new name durable.
pub(super) fn sync_directory(place: &Path) -> Result<(), ObjectsError> {
    let directory = place.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(at(directory))
}

/// A large file being written.
#[derive(Debug)]
pub(super) struct FileUpload {
    /// `None` only while a piece is being written, or after that was given up half way.
    file: Option<Temporary>,
    place: PathBuf,
}

impl FileUpload {
    pub(super) fn begin(place: PathBuf) -> Result<Self, ObjectsError> {
        Ok(Self {
            file: Some(Temporary::begin(&place)?),
            place,
        })
    }

    fn take(&mut self) -> Result<Temporary, ObjectsError> {
        self.file.take().ok_or_else(|| {
            ObjectsError::Refused(format!(
                "{}: a piece of it was not written, begin again",
                self.place.display()
            ))
        })
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectsError> {
        let mut file = self.take()?;
        let written = blocking(move || file.write(&bytes).map(|()| file)).await?;
        self.file = Some(written);
        Ok(())
    }

    async fn complete(mut self: Box<Self>) -> Result<Pin, ObjectsError> {
        let file = self.take()?;
        blocking(move || file.publish(Publish::Replace)).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), ObjectsError> {
        let file = self.file.take();
        blocking(move || {
            drop(file);
            Ok(())
        })
        .await
    }
}
