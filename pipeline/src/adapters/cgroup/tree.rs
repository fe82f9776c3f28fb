//! The cgroup file system, as much of it as is used: five verbs, so that a test can play the kernel.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Folders are cgroups, files are their settings.
pub(super) trait Tree: Send + Sync {
    /// What a file says.
    fn read(&self, file: &Path) -> io::Result<String>;
    /// Writes to a file that is there.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;
    /// Makes a cgroup.
    fn make(&self, folder: &Path) -> io::Result<()>;
    /// Removes a cgroup; while a process lives in it, or another cgroup lies in it, that fails as busy.
    fn remove(&self, folder: &Path) -> io::Result<()>;
    /// The names of the cgroups in one.
    fn children(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Whose a folder or file is.
    fn owner(&self, path: &Path) -> io::Result<u32>;
}

/// The kernel's own.
pub(super) struct Kernel;

impl Tree for Kernel {
    fn read(&self, file: &Path) -> io::Result<String> {
        fs::read_to_string(file)
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        // One write: the kernel takes each for a command of its own.
        let mut file = OpenOptions::new().write(true).open(file)?;
        file.write_all(text.as_bytes())
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder)
    }

    fn children(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn owner(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.uid())
    }
}
