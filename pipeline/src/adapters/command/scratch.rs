//! A copy of an object in a temporary directory of its own, for commands that want a file where the store
//! has none. It goes when the call is over.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;

use crate::core::class::{Class, Failure};
use crate::core::item::Object;
use crate::ports::objects::{Objects, ObjectsError};

/// File systems take names of up to 255 bytes; a longer one is replaced.
const NAME_BYTES_MAX: usize = 255;

/// The copy, removed when this is dropped.
pub(in crate::adapters) struct Scratch {
    directory: PathBuf,
    file: PathBuf,
}

impl Scratch {
    /// Downloads exactly the state that was listed.
    ///
    /// # Errors
    /// `Gone` or `SourceChanged` if it is not there any more; `Unavailable` if it cannot be read now or the
    /// temporary directory cannot be written.
    pub(super) async fn download(objects: &dyn Objects, object: &Object) -> Result<Self, Failure> {
        let scratch = Self::create(&object.key).map_err(|error| cannot_write(&error))?;
        let mut bytes = objects
            .get(&object.store_key(), 0, None, Some(&object.pin))
            .await
            .map_err(|error| failure_of(&error))?;
        let mut file = tokio::fs::File::create_new(&scratch.file)
            .await
            .map_err(|error| cannot_write(&error))?;
        let copied = tokio::io::copy(&mut bytes, &mut file)
            .await
            .map_err(|error| Failure::new(Class::Unavailable, format!("copying it: {error}")))?;
        file.flush().await.map_err(|error| cannot_write(&error))?;
        if copied != object.size_bytes {
            let listed = object.size_bytes;
            let cause = format!("it was listed with {listed} bytes, and {copied} came");
            return Err(Failure::new(Class::SourceChanged, cause));
        }
        Ok(scratch)
    }

    fn create(key: &[u8]) -> io::Result<Self> {
        let directory = env::temp_dir().join(format!("trommel-{}", super::random_name()));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let file = directory.join(file_name(key));
        Ok(Self { directory, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let directory = self.directory.display();
            tracing::warn!(%error, %directory, "a scratch copy could not be removed");
        }
    }
}

/// The end of the key, so that programs that go by a file's extension find it; `object` where a file
/// cannot have that name.
pub(in crate::adapters) fn file_name(key: &[u8]) -> &OsStr {
    let last = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let is_name =
        !matches!(last, b"" | b"." | b"..") && last.len() <= NAME_BYTES_MAX && !last.contains(&0);
    OsStr::from_bytes(if is_name { last } else { b"object" })
}

fn cannot_write(error: &io::Error) -> Failure {
    let directory = env::temp_dir();
    let cause = format!("no scratch copy in {}: {error}", directory.display());
    Failure::new(Class::Unavailable, cause)
}

/// What a store's refusal means for the item.
pub(super) fn failure_of(error: &ObjectsError) -> Failure {
    let class = match error {
        ObjectsError::NotFound(_) => Class::Gone,
        ObjectsError::Changed(_) | ObjectsError::Exists(_) => Class::SourceChanged,
        ObjectsError::Unavailable(_) => Class::Unavailable,
        ObjectsError::Refused(_) => Class::BadInput,
    };
    Failure::new(class, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_its_extension_and_never_leaves_its_directory() {
        for (key, name) in [
            (b"a/b.png".as_slice(), "b.png"),
            (b"b.png", "b.png"),
            (b"a/..", "object"),
            (b"a/", "object"),
            (b"nul\0", "object"),
        ] {
            assert_eq!(file_name(key), OsStr::new(name));
        }
        assert_eq!(file_name(&[b'x'; 300]), OsStr::new("object"));
    }
}
