//! Walks a directory in the byte order of full keys, a level at a time.
//!
//! Within a level a directory counts as its name and a slash, for so its keys begin: `a.txt` comes
//! before `a/b`, although `a` comes before `a.txt`. Only the levels above the next key are held in
//! memory, as one block of names each.
#![expect(
    clippy::disallowed_methods,
    reason = "an adapter touches the real clock and real threads"
)]

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::key::{self, TEMPORARY};
use crate::core::item::Object;
use crate::ports::objects::ObjectsError;

/// A change within this time after a directory's last one may leave the same time of change behind:
/// the file systems we know tick every 4 to 10 ms, some network ones every second or two.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(2);

/// A listing under way.
#[derive(Debug)]
pub(super) struct Walk {
    root: Arc<Path>,
    prefix: Vec<u8>,
    last: Option<Vec<u8>>,
    /// From the root down to where the next key is looked for.
    levels: Vec<Level>,
}

/// The names of one directory, sorted, those before `next` done with.
#[derive(Debug)]
struct Level {
    /// The keys' common beginning: empty, or ending with a slash.
    base: Vec<u8>,
    /// All names in one block; directories end with a slash.
    names: Vec<u8>,
    /// Start and end of each name in the block, in order.
    order: Vec<(u32, u32)>,
    next: usize,
    stamp: Stamp,
}

/// Tells whether a directory has changed since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    /// It was read long enough after its last change for the next to show.
    Settled(State),
    /// It was being changed.
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    changed: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Stamp {
    /// Taken before the directory is read.
    fn take(metadata: &Metadata) -> Self {
        let age = metadata
            .modified()
            .ok()
            .and_then(|changed| SystemTime::now().duration_since(changed).ok());
        match age {
            Some(age) if age > CLOCK_STEP_MAX => Self::Settled(State::of(metadata)),
            Some(_) | None => Self::Fresh,
        }
    }

    fn still_holds(self, path: &Path) -> bool {
        match self {
            Self::Fresh => false,
            Self::Settled(state) => std::fs::metadata(path).is_ok_and(|m| State::of(&m) == state),
        }
    }
}

/// The path of a key, or of a level's base.
fn place(root: &Path, key: &[u8]) -> PathBuf {
    if key.is_empty() {
        return root.to_owned();
    }
    root.join(OsStr::from_bytes(key.strip_suffix(b"/").unwrap_or(key)))
}

impl Level {
    fn read(root: &Path, base: Vec<u8>) -> Result<Self, ObjectsError> {
        let path = place(root, &base);
        let failed = |error: io::Error| key::error(&path, &error);
        let stamp = Stamp::take(&std::fs::metadata(&path).map_err(failed)?);
        let mut names = Vec::new();
        let mut order = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let listed = kind.is_file() || kind.is_dir() || kind.is_symlink();
            let name = entry.file_name();
            if !listed || name.as_bytes().starts_with(TEMPORARY) {
                continue;
            }
            let start = names.len();
            names.extend_from_slice(name.as_bytes());
            if kind.is_dir() {
                names.push(b'/');
            }
            order.push((offset(start, &path)?, offset(names.len(), &path)?));
        }
        let name = |&(start, end): &(u32, u32)| &names[start as usize..end as usize];
        order.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        names.shrink_to_fit();
        order.shrink_to_fit();
        Ok(Self {
            base,
            names,
            order,
            next: 0,
            stamp,
        })
    }

    fn name(&self, index: usize) -> &[u8] {
        let (start, end) = self.order[index];
        &self.names[start as usize..end as usize]
    }

    /// Passes over what lies before `target`, a key with this level's base; a directory that
    /// `target` lies in is still to come.
    fn skip_to(&mut self, target: &[u8]) {
        let rest = &target[self.base.len()..];
        let names = &self.names;
        let before = |&(start, end): &(u32, u32)| &names[start as usize..end as usize] < rest;
        let index = self.order.partition_point(before);
        // Between `a/` and `a/b` there can be no other name: they would begin with `a/` too.
        let inside = index > 0 && {
            let name = self.name(index - 1);
            name.ends_with(b"/") && rest.starts_with(name)
        };
        self.next = if inside { index - 1 } else { index };
    }
}

/// Names of one directory beyond 4 GiB are refused.
fn offset(at: usize, path: &Path) -> Result<u32, ObjectsError> {
    u32::try_from(at).map_err(|_| {
        ObjectsError::Refused(format!("{} has too many files to list", path.display()))
    })
}

impl Walk {
    /// Begins at the first key with this prefix that lies after `after`.
    pub(super) fn begin(
        root: &Arc<Path>,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Result<Self, ObjectsError> {
        let mut walk = Self {
            root: root.clone(),
            prefix: prefix.to_vec(),
            last: after.map(<[u8]>::to_vec),
            levels: vec![Level::read(root, Vec::new())?],
        };
        let target = match after {
            Some(after) if after > prefix => after,
            Some(_) | None => prefix,
        };
        walk.descend_to(target)?;
        Ok(walk)
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The last key that was answered, or the one it began after.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    /// Whether the directories are as they were read: else a file made since could be missed.
    pub(super) fn is_current(&self) -> bool {
        let unchanged = |level: &Level| level.stamp.still_holds(&place(&self.root, &level.base));
        self.levels.iter().all(unchanged)
    }

    /// Opens the directories that `target` lies in, each skipped forward to it.
    fn descend_to(&mut self, target: &[u8]) -> Result<(), ObjectsError> {
        while let Some(level) = self.levels.last_mut() {
            level.skip_to(target);
            let Some(key) = self.upcoming() else {
                return Ok(());
            };
            if !(key.ends_with(b"/") && target.starts_with(&key)) {
                return Ok(());
            }
            if !self.enter(key)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The key (or with a slash, directory) that the deepest level stands at.
    fn upcoming(&self) -> Option<Vec<u8>> {
        let level = self.levels.last()?;
        if level.next >= level.order.len() {
            return None;
        }
        let mut key = level.base.clone();
        key.extend_from_slice(level.name(level.next));
        Some(key)
    }

    fn advance(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.next += 1;
        }
    }

    /// Goes into a directory; `false` if it has gone.
    fn enter(&mut self, base: Vec<u8>) -> Result<bool, ObjectsError> {
        self.advance();
        match Level::read(&self.root, base) {
            Ok(level) => {
                self.levels.push(level);
                Ok(true)
            }
            Err(ObjectsError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves to the next key that may be a file within the bounds; leaves it to be taken.
    fn seek(&mut self) -> Result<Option<Vec<u8>>, ObjectsError> {
        while !self.levels.is_empty() {
            let Some(key) = self.upcoming() else {
                self.levels.pop();
                continue;
            };
            let below = key.ends_with(b"/");
            let within = key.starts_with(&self.prefix) || (below && self.prefix.starts_with(&key));
            if !within {
                if key > self.prefix {
                    self.levels.clear();
                    return Ok(None);
                }
                self.advance();
            } else if below {
                self.enter(key)?;
            } else if self.last.as_deref().is_some_and(|last| *key <= *last) {
                self.advance();
            } else {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Whether a key seems to be left; a broken link counts.
    pub(super) fn has_more(&mut self) -> Result<bool, ObjectsError> {
        Ok(self.seek()?.is_some())
    }

    /// The next object.
    pub(super) fn next(&mut self) -> Result<Option<Object>, ObjectsError> {
        while let Some(key) = self.seek()? {
            self.advance();
            let path = place(&self.root, &key);
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) => metadata,
                // Deleted since, or a link to nothing or in a circle.
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(key::error(&path, &error)),
            };
            if !metadata.is_file() {
                continue;
            }
            let object = key::object(key.as_slice().into(), &metadata);
            self.last = Some(key);
            return Ok(Some(object));
        }
        Ok(None)
    }
}

fn is_nothing(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound
        || kind == io::ErrorKind::NotADirectory
        || error.raw_os_error() == Some(nix::libc::ELOOP)
}
