//! Memory of processes bounded by the kernel: where this process's cgroup was handed over to it, it divides it, and each process
//! gets a part of its own.
//!
//! ```text
//! the cgroup that was handed over      memory is handed down; it must hold no process itself
//! ├── trommel-41x5eed0001              this process (41) and its helper, which moved here
//! ├── trommel-41x5eed0001.0            a bounded process and all that it starts: memory.max
//! └── trommel-41x5eed0001.1
//! ```
//!
//! The kernel sees every page as it is asked for, so nothing grows beyond its bound, however fast. What was divided is joined again
//! when nobody uses it any more, by this process, else by the helper that outlives it, else by the next one that
//! divides the same cgroup. Whether a cgroup was handed over is decided in [`texts`]. Where it was not, or where there are none
//! (on other systems than Linux), whoever asks is refused, and watches memory itself: that is not done here.

#![expect(
    clippy::disallowed_methods,
    reason = "it waits for the kernel, which no simulated clock can hurry, and its names must be nobody else's"
)]

mod texts;
mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub(super) use texts::Want;
use texts::{Refusal, Session, Sight};
use tree::{Kernel, Tree};

/// Between two looks whether a killed process is gone.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// So many looks: a process of some gigabytes needs a tenth of a second to die. What lives longer hangs in the kernel.
const LOOKS_MAX: u32 = 1000;

/// How deep the cgroups of a bounded process are looked for: it may be a Trommel that divided its own, and so on.
const DEPTH_MAX: u32 = 8;

/// ESRCH: there is no such process any more (errno(3)).
const NO_SUCH_PROCESS: i32 = 3;

/// What this process has divided, while anybody uses it. There is one cgroup, so there is one of these.
static OWN: Mutex<Weak<Divided>> = Mutex::new(Weak::new());

/// A cgroup and whose parts of it are meant.
struct Ground {
    folder: PathBuf,
    session: Session,
}

/// This process's cgroup, divided. When it is dropped, all is as it was before.
pub(super) struct Divided {
    tree: Box<dyn Tree>,
    ground: Ground,
    next: AtomicU64,
    /// Parts whose processes were killed, and have not died yet.
    dying: Mutex<Vec<PathBuf>>,
}

impl Divided {
    /// Divides this process's cgroup, or shares what it has divided already. `helper` is a process that lives as long as this one,
    /// and goes where it goes.
    ///
    /// # Errors
    /// Why that may not or cannot be, in words.
    pub(super) fn of_this_process(helper: Option<u32>) -> Result<Arc<Self>, String> {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(divided) = own.upgrade() {
            return Ok(divided);
        }
        let divided = Self::claim(helper).map_err(|refusal| refusal.to_string())?;
        let divided = Arc::new(divided);
        *own = Arc::downgrade(&divided);
        Ok(divided)
    }

    fn claim(helper: Option<u32>) -> Result<Self, Refusal> {
        let process = std::process::id();
        let ours: Vec<u32> = std::iter::once(process).chain(helper).collect();
        let (path, folder) = here()?;
        look(&Kernel, &path, &folder, &ours)?;
        let session = Session::new(process, rand::random());
        Self::new(Box::new(Kernel), Ground { folder, session }, &ours)
    }

    /// Moves `ours` into a leaf and has memory handed down. The kernel's refusal is the last word: others may have come
    /// since they were looked for.
    fn new(tree: Box<dyn Tree>, ground: Ground, ours: &[u32]) -> Result<Self, Refusal> {
        let leaf = ground.leaf();
        let failed = |what| move |error| Refusal::Failed(what, error);
        tree.make(&leaf)
            .map_err(failed("no cgroup can be made in its own"))?;
        let moved = ours.iter().try_for_each(|process| {
            tree.write(&leaf.join("cgroup.procs"), &process.to_string())
                .map_err(failed("it cannot move into a part of its cgroup"))
        });
        let divided = moved.and_then(|()| {
            tree.write(&ground.folder.join("cgroup.subtree_control"), "+memory")
                .map_err(failed("memory cannot be handed down in its cgroup"))
        });
        if let Err(refusal) = divided {
            ground.leave_leaf(&*tree);
            return Err(refusal);
        }
        ground.remove_dead_sessions(&*tree);
        Ok(Self {
            tree,
            ground,
            next: AtomicU64::new(0),
            dying: Mutex::default(),
        })
    }

    /// Bounds a process and all that it will start. What it took before is its bound's no part of, nor are children that it has
    /// by then: so this is called at once after its start, and those are to be taken in.
    ///
    /// # Errors
    /// The kernel's word; then it is not bounded.
    pub(super) fn hold(self: &Arc<Self>, process: u32, bytes_max: u64) -> io::Result<Held> {
        self.bury();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.ground.folder.join(self.ground.session.bounded(number));
        self.tree.make(&folder)?;
        let held = Held {
            divided: Arc::clone(self),
            folder,
            bytes_max,
        };
        held.write("memory.max", &bytes_max.to_string())?;
        match held.write("memory.swap.max", "0") {
            // A kernel without swap: there is nothing to bound.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written?,
        }
        // All or none: half a handler answers nothing, or waits for ever.
        held.write("memory.oom.group", "1")?;
        match held.write("cgroup.procs", &process.to_string()) {
            // Whoever waits for it learns how it ended.
            Err(error) if error.raw_os_error() == Some(NO_SUCH_PROCESS) => {}
            written => written?,
        }
        Ok(held)
    }

    /// Removes a part whose processes are dead, or soon will be.
    fn remove(&self, folder: PathBuf) {
        self.dying().push(folder);
        self.bury();
    }

    /// Removes what has died meanwhile; whether that was all.
    fn bury(&self) -> bool {
        let mut dying = self.dying();
        dying.retain(|folder| remove_tree(&*self.tree, folder, DEPTH_MAX).is_err());
        dying.is_empty()
    }

    fn dying(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.dying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Divided {
    fn drop(&mut self) {
        // Nobody of this process divides it anew meanwhile. Who holds this drops none of these.
        let _own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        wait_until(|| self.bury());
        self.ground.join(&*self.tree);
    }
}

/// A bounded process. When this is dropped, whatever lives in its cgroup is killed, and the cgroup goes.
pub(super) struct Held {
    divided: Arc<Divided>,
    folder: PathBuf,
    pub(super) bytes_max: u64,
}

impl Held {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        self.divided.tree.write(&self.folder.join(file), text)
    }

    /// Puts a process into it that the bounded one had started before it was bounded.
    ///
    /// # Errors
    /// The kernel's word: it is gone, say.
    pub(super) fn take_in(&self, process: u32) -> io::Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// Whether the kernel ended it for want of memory. Counted before the kill (`__oom_kill_process`), so whoever learned
    /// of the process's end finds it here.
    pub(super) fn want(&self) -> Option<Want> {
        let events = self.divided.tree.read(&self.folder.join("memory.events"));
        texts::want(&events.ok()?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Also who left the process's group. Kernels before 5.14 have no such file; there they live on, and their cgroup with them.
        let _ = self.write("cgroup.kill", "1");
        self.divided.remove(std::mem::take(&mut self.folder));
    }
}

/// What the helper of a worker does last: if the worker died without joining its cgroup again, it does.
pub(super) fn join_for_the_dead() {
    let Ok((_, folder)) = here() else { return };
    let Some(ground) = Ground::of_leaf(&folder) else {
        return;
    };
    // The worker's files are closed some moments before it is out of its cgroup.
    let alone = std::process::id().to_string();
    let is_alone = || {
        let processes = Kernel.read(&folder.join("cgroup.procs"));
        processes.is_ok_and(|processes| processes.trim() == alone)
    };
    if wait_until(is_alone) {
        wait_until(|| ground.remove_parts(&Kernel));
        ground.join(&Kernel);
    }
}

impl Ground {
    /// That of a process which is in a leaf.
    fn of_leaf(leaf: &Path) -> Option<Self> {
        let session = Session::of_leaf(leaf.file_name()?.to_str()?)?;
        let folder = leaf.parent()?.to_owned();
        Some(Self { folder, session })
    }

    fn leaf(&self) -> PathBuf {
        self.folder.join(self.session.leaf())
    }

    /// Puts everything back as it was before it was divided, unless others have made cgroups in it: those need what is handed
    /// down.
    fn join(&self, tree: &dyn Tree) {
        let children = tree.children(&self.folder).unwrap_or_default();
        if children != [self.session.leaf()] {
            tracing::debug!(folder = %self.folder.display(), ?children, "cgroups are left");
            return;
        }
        match tree.write(&self.folder.join("cgroup.subtree_control"), "-memory") {
            Ok(()) => self.leave_leaf(tree),
            Err(error) => {
                tracing::debug!(folder = %self.folder.display(), %error, "memory is still handed down");
            }
        }
    }

    /// Moves whoever is in the leaf back, and removes it.
    fn leave_leaf(&self, tree: &dyn Tree) {
        let processes = tree.read(&self.leaf().join("cgroup.procs"));
        for process in processes.unwrap_or_default().lines() {
            // Gone meanwhile is as good.
            let _ = tree.write(&self.folder.join("cgroup.procs"), process);
        }
        if let Err(error) = tree.remove(&self.leaf()) {
            tracing::debug!(folder = %self.leaf().display(), %error, "a cgroup is left");
        }
    }

    /// Removes all bounded parts in which nobody lives any more; whether that was all.
    fn remove_parts(&self, tree: &dyn Tree) -> bool {
        let is_ours = |name: &String| {
            Session::of(name).as_ref() == Some(&self.session) && *name != self.session.leaf()
        };
        let children = tree.children(&self.folder).unwrap_or_default();
        let left = children.iter().filter(|name| is_ours(name)).filter(|name| {
            let part = self.folder.join(name);
            remove_tree(tree, &part, DEPTH_MAX).is_err()
        });
        left.count() == 0
    }

    /// Removes what processes left behind that died with their helpers. A session lives as long as somebody is in its leaf, which the
    /// kernel then does not let go; so does everything in which anybody lives.
    fn remove_dead_sessions(&self, tree: &dyn Tree) {
        let children = tree.children(&self.folder).unwrap_or_default();
        let mut sessions: Vec<Session> = children
            .iter()
            .filter_map(|name| Session::of(name))
            .filter(|session| *session != self.session)
            .collect();
        sessions.sort();
        sessions.dedup();
        for session in sessions {
            let dead = Self {
                folder: self.folder.clone(),
                session,
            };
            if remove_tree(tree, &dead.leaf(), DEPTH_MAX).is_ok() {
                let is_all = dead.remove_parts(tree);
                tracing::debug!(leaf = %dead.leaf().display(), is_all, "a dead process's cgroups were removed");
            }
        }
    }
}

/// The path of this process's cgroup, and the folder in which it is seen.
fn here() -> Result<(String, PathBuf), Refusal> {
    let text = |file| fs::read_to_string(file).map_err(|_| Refusal::NotSeen);
    let cgroup = text("/proc/self/cgroup")?;
    let path = texts::own_path(&cgroup).ok_or(Refusal::NotSeen)?;
    let folder = texts::folder(&text("/proc/self/mountinfo")?, path)?;
    Ok((path.to_owned(), folder))
}

/// Whether this process may divide its cgroup.
fn look(tree: &dyn Tree, path: &str, folder: &Path, ours: &[u32]) -> Result<(), Refusal> {
    let seen = |error| Refusal::Failed("its cgroup cannot be looked at", error);
    let read = |file: &str| tree.read(&folder.join(file));
    let owner = |file: &str| tree.owner(&folder.join(file)).map_err(seen);
    let kind = match read("cgroup.type") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        kind => Some(kind.map_err(seen)?),
    };
    texts::judge(&Sight {
        path,
        kind: kind.as_deref(),
        controllers: &read("cgroup.controllers").map_err(seen)?,
        owners: &[
            owner("")?,
            owner("cgroup.procs")?,
            owner("cgroup.subtree_control")?,
        ],
        // Whose this process is; procfs tells it without a system call of its own (proc_pid(5)).
        user: tree.owner(Path::new("/proc/self")).map_err(seen)?,
        processes: &read("cgroup.procs").map_err(seen)?,
        ours,
    })
}

/// Removes a cgroup and those in it.
///
/// # Errors
/// Somebody lives in one of them. Gone already is as good.
fn remove_tree(tree: &dyn Tree, folder: &Path, depth_max: u32) -> io::Result<()> {
    let gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    if depth_max > 0 {
        for child in tree.children(folder).unwrap_or_default() {
            remove_tree(tree, &folder.join(child), depth_max - 1)?;
        }
    }
    gone(tree.remove(folder))
}

/// Whether it came true while anybody wanted to wait for it.
fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS_MAX {
        if is_so() {
            return true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

#[cfg(test)]
mod tests;
