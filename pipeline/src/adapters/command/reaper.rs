//! Death with the worker: a helper process that outlives it for a moment and ends what it left running.
//!
//! A worker that is killed with `kill -9` cannot end its calls. So it starts one helper, whose standard
//! input is a pipe that only the worker holds: when it ends, the worker is dead, however it died. Which
//! process groups to end stands in a small unlinked file that the worker writes a number into for each
//! call; a write there wakes nobody, so that a call costs two short system calls and no switch of process.
//!
//! Between the start of a process and the note of its group the worker may die. On Linux every process of
//! a call also carries a mark in its environment, and the helper looks for it; as a child closes the pipe
//! only when it executes its program, the mark can be seen by then. Elsewhere that window of some
//! microseconds remains. On any system a process that leaves its group and clears its environment gets
//! away, and so does everything if the helper itself is killed first.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;

use crate::adapters::cgroup;

/// In the environment of every process of a call: which worker's it is.
pub(in crate::adapters) const SESSION_VARIABLE: &str = "TROMMEL_SESSION";

/// Tells the helper which mark to look for.
const MARK_VARIABLE: &str = "TROMMEL_REAPER_SESSION";

/// Tells the helper where the groups are noted.
const REGISTER_VARIABLE: &str = "TROMMEL_REAPER_REGISTER";

/// Groups noted at one time: a hundred times the largest concurrency that Trommel is made for.
const SLOTS_MAX: u32 = 1 << 20;

/// One group's number in the register.
const SLOT_BYTES: usize = size_of::<i32>();

/// Searches for marked processes at most: one may be born while another is found.
const SEARCHES_MAX: usize = 20;

/// The worker's side: one for the process, shared by its executors.
pub struct Reaper {
    helper: Mutex<Child>,
    register: File,
    slots: Mutex<Slots>,
    session: String,
}

/// Places in the register that are not in use.
#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    made: u32,
}

impl Reaper {
    /// Starts the helper: `program` with `args` must do nothing but call [`reaper_main`]. For the
    /// `trommel` binary that is itself with its hidden subcommand.
    ///
    /// # Errors
    /// The program cannot be started, or the temporary directory cannot be written.
    pub fn start(program: &Path, args: &[&str]) -> io::Result<Arc<Self>> {
        let session = super::random_name();
        let path = env::temp_dir().join(format!("trommel-reaper-{session}"));
        let register = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let started = Command::new(program)
            .args(args)
            // The mark of an outer worker would have its helper end ours before ours has done its work.
            .env_remove(SESSION_VARIABLE)
            .env(MARK_VARIABLE, &session)
            .env(REGISTER_VARIABLE, &path)
            .current_dir("/")
            // A group of its own: Ctrl-C in a terminal goes to the worker's only.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(helper) => Ok(Arc::new(Self {
                helper: Mutex::new(helper),
                register,
                slots: Mutex::default(),
                session,
            })),
            Err(error) => {
                fs::remove_file(&path)?;
                Err(error)
            }
        }
    }

    /// The helper's number.
    pub(in crate::adapters) fn process(&self) -> u32 {
        self.helper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id()
    }

    /// The value of [`SESSION_VARIABLE`] for this worker's calls.
    pub(in crate::adapters) fn session(&self) -> &str {
        &self.session
    }

    /// Notes a group until the note is dropped.
    pub(super) fn note(self: &Arc<Self>, group: Pid) -> io::Result<Note> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.free.pop() {
                Some(slot) => slot,
                None if slots.made == SLOTS_MAX => {
                    return Err(io::Error::other("too many calls at one time"));
                }
                None => {
                    slots.made += 1;
                    slots.made - 1
                }
            }
        };
        let note = Note {
            reaper: Arc::clone(self),
            slot,
        };
        note.write(group.as_raw())?;
        Ok(note)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let helper = self
            .helper
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        drop(helper.stdin.take());
        // It sees the end of the pipe and leaves within milliseconds; this takes its exit status.
        if let Err(error) = helper.wait() {
            tracing::warn!(%error, "the helper process could not be waited for");
        }
    }
}

/// A group that the helper would end.
pub(super) struct Note {
    reaper: Arc<Reaper>,
    slot: u32,
}

impl Note {
    fn write(&self, group: i32) -> io::Result<()> {
        let at = u64::from(self.slot) * SLOT_BYTES as u64;
        self.reaper.register.write_all_at(&group.to_le_bytes(), at)
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Err(error) = self.write(0) {
            // The slot stays taken: nobody else's number may be confused with this one.
            tracing::warn!(%error, "a finished call could not be struck from the register");
            return;
        }
        let slots = &self.reaper.slots;
        let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.free.push(self.slot);
    }
}

/// The helper's whole life: waits until the worker is gone, ends its groups, and leaves. To be called
/// first thing in the process's main thread, before any other thread is started.
pub fn reaper_main() -> ExitCode {
    match reap() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads what it would say.
        Err(_) => ExitCode::FAILURE,
    }
}

fn reap() -> io::Result<()> {
    // Whoever ends the worker politely may ask the helper too; it must see the worker's end first.
    SigSet::all().thread_block()?;
    let variable = |name| env::var_os(name).ok_or(io::ErrorKind::InvalidInput);
    let path = PathBuf::from(variable(REGISTER_VARIABLE)?);
    let register = File::open(&path)?;
    fs::remove_file(&path)?;
    wait_for_end()?;
    end_groups(&register)?;
    let session = variable(MARK_VARIABLE)?;
    let mark = format!("{SESSION_VARIABLE}={}\0", session.to_string_lossy());
    end_marked(mark.as_bytes());
    cgroup::join_for_the_dead();
    Ok(())
}

/// Returns when nobody holds the other end of the pipe.
fn wait_for_end() -> io::Result<()> {
    let mut nothing = [0; 64];
    loop {
        match io::stdin().read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn end_groups(mut register: &File) -> io::Result<()> {
    let mut bytes = Vec::new();
    register.read_to_end(&mut bytes)?;
    for slot in bytes.chunks_exact(SLOT_BYTES) {
        let group = i32::from_le_bytes(slot.try_into().expect("chunks of this length"));
        if group > 1 {
            // Gone already is as good.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Ends every process that carries the mark, where the system shows environments (Linux).
fn end_marked(mark: &[u8]) {
    for _ in 0..SEARCHES_MAX {
        let found = marked(mark);
        if found.is_empty() {
            return;
        }
        for process in found {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
}

fn marked(mark: &[u8]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| *process != own)
        .filter(|process| carries(*process, mark))
        .map(|process| Pid::from_raw(process as i32))
        .collect()
}

/// Whether the process began with the mark in its environment; those of other users cannot be read.
fn carries(process: u32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{process}/environ"))
        .is_ok_and(|environment| memchr::memmem::find(&environment, mark).is_some())
}
