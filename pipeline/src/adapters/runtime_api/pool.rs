//! The processes of one handler: started when none is idle, kept for the next call, ended when they were idle for long.
//!
//! There are never more than calls at one time, which the job's max concurrency bounds.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint;
use super::process::{Ready, Start};
use crate::adapters::cgroup::Divided;
use crate::adapters::command::{Reaper, ResolveError, resolve};
use crate::core::class::Failure;
use crate::core::job::HandlerSpec;

/// A process that nobody asked for so long ends when another comes back.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// Cold starts of which the duration is remembered, for the median.
const STARTS_KEPT: usize = 1024;

/// Processes that were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdStarts {
    /// How many.
    pub count: u64,
    /// How long half of them took at most, from start to the first request for work.
    pub median: Duration,
    /// How long the slowest took.
    pub longest: Duration,
}

#[derive(Default)]
struct Starts {
    count: u64,
    latest: VecDeque<Duration>,
    longest: Duration,
}

/// See the module.
pub(super) struct Pool {
    program: PathBuf,
    spec: HandlerSpec,
    arn: Arc<str>,
    /// None: resident sizes are watched. Before the reaper, which is to find nothing left to do when it goes.
    divided: Option<Arc<Divided>>,
    reaper: Option<Arc<Reaper>>,
    /// The one that came back last is at the end, and asked first: it is the warmest.
    idle: Mutex<VecDeque<(Instant, Ready)>>,
    starts: Mutex<Starts>,
}

impl Pool {
    pub(super) fn new(
        spec: HandlerSpec,
        reaper: Option<Arc<Reaper>>,
    ) -> Result<Arc<Self>, ResolveError> {
        let program = spec.argv.first().ok_or(ResolveError::Empty)?;
        let search = std::env::var_os("PATH");
        let program = resolve(program, &spec.cwd, search.as_deref())?;
        let arn = endpoint::arn(&name_of(&program)).into();
        let divided = spec.memory_bytes.and_then(|bytes_max| {
            let helper = reaper.as_ref().map(|reaper| reaper.process());
            let divided = Divided::of_this_process(helper);
            say_who_bounds(&program, bytes_max, divided.as_ref().err());
            divided.ok()
        });
        Ok(Arc::new(Self {
            program,
            spec,
            arn,
            divided,
            reaper,
            idle: Mutex::default(),
            starts: Mutex::default(),
        }))
    }

    /// A process that asked for work: one that is idle, else a new one.
    ///
    /// # Errors
    /// It cannot be started: that is the handler's fault, no item's.
    pub(super) async fn ready(&self) -> Result<Ready, Failure> {
        if let Some(ready) = self.take_idle() {
            return Ok(ready);
        }
        let begun = Instant::now();
        let start = Start {
            program: &self.program,
            spec: &self.spec,
            arn: &self.arn,
            function: &name_of(&self.program),
            divided: self.divided.as_ref(),
            reaper: self.reaper.as_ref(),
        };
        let ready = start.run().await?;
        self.note_start(begun.elapsed());
        Ok(ready)
    }

    fn take_idle(&self) -> Option<Ready> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, ready)) = idle.pop_back() {
            if ready.is_alive() {
                return Some(ready);
            }
        }
        None
    }

    /// A process whose call has ended well.
    pub(super) fn take_back(&self, ready: Ready) {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((now, ready));
        while let Some((_, ready)) = idle.pop_front_if(|(since, _)| now - *since > IDLE_MAX) {
            gone.push(ready);
        }
        drop(idle);
        // Ended here, and not under the lock.
        drop(gone);
    }

    fn note_start(&self, took: Duration) {
        let millis = took.as_millis();
        tracing::debug!(program = %self.program.display(), millis, "a handler's process is ready");
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.count += 1;
        starts.longest = starts.longest.max(took);
        starts.latest.push_back(took);
        if starts.latest.len() > STARTS_KEPT {
            starts.latest.pop_front();
        }
    }

    pub(super) fn cold_starts(&self) -> ColdStarts {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest: Vec<Duration> = starts.latest.iter().copied().collect();
        latest.sort_unstable();
        ColdStarts {
            count: starts.count,
            median: latest.get(latest.len() / 2).copied().unwrap_or_default(),
            longest: starts.longest,
        }
    }
}

/// Once a handler: whether the kernel keeps its processes within their memory, or we do, and why.
fn say_who_bounds(program: &Path, bytes_max: u64, refusal: Option<&String>) {
    let program = program.display();
    match refusal {
        None => {
            tracing::info!(%program, bytes_max, "the kernel bounds the memory of a handler's processes, by cgroups");
        }
        Some(why) => {
            tracing::info!(%program, bytes_max, why, "the memory of a handler's processes is watched, as no cgroup can bound it");
        }
    }
}

/// What the function is called: its program's name.
fn name_of(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}
