//! Whether one seed gives the same bytes: at one thread and at several, in another process, and while everything
//! that the pipeline logs is listened to.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::search::{Days, Search, Until, search};

/// The hidden command that prints the hashes of this many seeds.
pub(crate) const COMMAND: &str = "__hashes";

/// Hashes of whole traces, by seed.
type Hashes = BTreeMap<u64, u64>;

/// The traces' hashes of the first seeds.
pub(crate) fn hashes(seeds: u64, jobs: usize) -> Hashes {
    let wanted = Search {
        first: 0,
        seeds,
        jobs,
        time_max: None,
        days: Days::All,
        until: Until::End,
        bug: None,
    };
    search(&wanted, &|_| {}).hashes
}

/// The same in a process of its own, with logging on.
///
/// # Errors
/// It does not run.
fn elsewhere(seeds: u64) -> Result<Hashes, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let done = Command::new(program)
        .args([COMMAND, &seeds.to_string()])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    let pair = |line: &str| {
        let (seed, hash) = line.split_once(' ')?;
        Some((seed.parse().ok()?, u64::from_str_radix(hash, 16).ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// What [`COMMAND`] prints.
pub(crate) fn print_with_logging(seeds: u64, jobs: usize) {
    let heard = Listener::listen();
    for (seed, hash) in hashes(seeds, jobs) {
        println!("{seed} {hash:016x}");
    }
    eprintln!("{} events were logged", heard.load(Ordering::Relaxed));
}

/// Seeds whose traces are not the same everywhere, and in how many ways they were run.
///
/// # Errors
/// The other process does not run.
pub(crate) fn differing(seeds: u64, jobs: usize) -> Result<Vec<u64>, String> {
    let one = hashes(seeds, 1);
    let others = [hashes(seeds, jobs), elsewhere(seeds)?];
    let differs = |seed: &u64| others.iter().any(|other| other.get(seed) != one.get(seed));
    Ok((0..seeds).filter(differs).collect())
}

/// Takes every event and forms its text, as a log would.
struct Listener {
    heard: &'static AtomicU64,
}

impl Listener {
    /// From now on, in all threads.
    fn listen() -> &'static AtomicU64 {
        static HEARD: AtomicU64 = AtomicU64::new(0);
        let listener = Self { heard: &HEARD };
        // It is the only one: this process does nothing else.
        let _ = tracing::subscriber::set_global_default(listener);
        &HEARD
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        write!(self.0, "{field}={value:?} ").expect("a string takes all text");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
