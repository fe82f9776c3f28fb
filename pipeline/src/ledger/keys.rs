//! The names of rows. One place, so that no two kinds of row can ever collide.

use std::hash::Hasher as _;

use crate::core::id::{Generation, ItemId, JobName, PageId, RunId, SHARDS, SessionId};
use crate::core::mark::{IntakeId, MarkOf};
use crate::ports::Key;

use super::Fnv;

/// `run#<run>` / `meta`.
pub(super) fn run(run: &RunId) -> Key {
    Key::new(format!("run#{run}"), "meta")
}

/// `runs` / `<created>#<run>`: the index of all runs, in the order of their start.
pub(super) fn run_index(created_ms: i64, run: &RunId) -> Key {
    Key::new(RUNS, format!("{created_ms:015}#{run}"))
}

/// The partition of the index of runs.
pub(super) const RUNS: &str = "runs";

/// `part#<run>` / `<n>`.
pub(super) fn part(run: &RunId, number: u32) -> Key {
    Key::new(parts(run), format!("{number:08}"))
}

/// The partition of a run's parts.
pub(super) fn parts(run: &RunId) -> String {
    format!("part#{run}")
}

/// `page#<run>#<shard>` / `<page>`.
pub(super) fn page(run: &RunId, page: PageId) -> Key {
    Key::new(pages(run, page.shard()), page.to_string())
}

/// The partition of one shard's pages.
pub(super) fn pages(run: &RunId, shard: u32) -> String {
    debug_assert!(shard < SHARDS, "shards are numbered below {SHARDS}");
    format!("page#{run}#{shard:02}")
}

/// `shard#<run>` / `<shard>`: how far each shard is. All in one partition, as they are written once a part
/// and read together by every sweep.
pub(super) fn progress(run: &RunId, shard: u32) -> Key {
    Key::new(all_progress(run), format!("{shard:02}"))
}

/// The partition of the progress of all shards.
pub(super) fn all_progress(run: &RunId) -> String {
    format!("shard#{run}")
}

/// `tally#<run>` / `<generation>#<slot>`. All in one partition, as every look of a judge reads them all, and each
/// busy session adds to its slot once a second: 500 of them make it hot, in a transaction of two units each.
pub(super) fn tally(run: &RunId, slot: u32, generation: Generation) -> Key {
    Key::new(tallies(run), format!("{:05}#{slot:02}", generation.0))
}

/// The partition of a run's tallies.
pub(super) fn tallies(run: &RunId) -> String {
    format!("tally#{run}")
}

/// `failure#<run>#<shard>` / `<page>#<index>#<generation>`, under the page where the item first stood.
pub(super) fn failure(run: &RunId, item: ItemId, generation: Generation) -> Key {
    let page = item.page();
    Key::new(
        failures(run, page.shard()),
        format!("{page}#{:02}#{:05}", item.index, generation.0),
    )
}

/// The partition of one shard's failures.
pub(super) fn failures(run: &RunId, shard: u32) -> String {
    format!("failure#{run}#{shard:02}")
}

/// `session#<job>` / `<id>`.
pub(super) fn session(job: &JobName, session: &SessionId) -> Key {
    Key::new(sessions(job), session.as_str())
}

/// The partition of a job's sessions.
pub(super) fn sessions(job: &JobName) -> String {
    format!("session#{job}")
}

/// `permit#<job>` / `pool`.
pub(super) fn pool(job: &JobName) -> Key {
    Key::new(format!("permit#{job}"), "pool")
}

/// `window#<job>` / `<start>#<run>`: the windows that are not done with, oldest first.
pub(super) fn window(job: &JobName, start_ms: i64, run: &RunId) -> Key {
    Key::new(windows(job), format!("{start_ms:015}#{run}"))
}

/// The partition of a job's windows.
pub(super) fn windows(job: &JobName) -> String {
    format!("window#{job}")
}

/// `object#<bucket>/<key>` / `seen`, or `seen#<version>` in a versioned bucket. A key that is no text stands as its hash,
/// as does a long version: the only rows that are named by what users name. A key of S3 has 1,024 bytes at most
/// ("Creating object key names"), a partition key takes 2,048 ("Naming rules" of DynamoDB).
pub(super) fn mark(at: &MarkOf) -> Key {
    /// A sort key takes 1,024 bytes.
    const PLAIN_BYTES_MAX: usize = 1000;
    let name = match std::str::from_utf8(&at.key) {
        Ok(key) => format!("{}/{key}", at.bucket),
        Err(_) => format!("{}#{}", at.bucket, hashed(&at.key)),
    };
    let sk = match &at.version {
        Some(version) if version.len() > PLAIN_BYTES_MAX => {
            format!("seen#{}", hashed(version.as_bytes()))
        }
        Some(version) => format!("seen#{version}"),
        None => "seen".to_owned(),
    };
    Key::new(format!("object#{name}"), sk)
}

fn hashed(bytes: &[u8]) -> String {
    let mut hash = Fnv::new();
    hash.add(bytes);
    format!("{:032x}", hash.0)
}

/// `intake#<job>#<slot>` / `<intake>`: spread, as each is written once and many a second.
pub(super) fn intake(job: &JobName, id: &IntakeId) -> Key {
    let mut hash = Fnv::new();
    hash.add(id.as_str().as_bytes());
    let slot = hash.finish() % u64::from(SHARDS);
    Key::new(format!("intake#{job}#{slot:02}"), id.as_str())
}

/// `quarantine#<job>` / `<message>`: of the job, as a message that comes again may come into another window.
pub(super) fn quarantine(job: &JobName, message: &str) -> Key {
    Key::new(quarantines(job), message)
}

/// The partition of a job's messages that nobody could read.
pub(super) fn quarantines(job: &JobName) -> String {
    format!("quarantine#{job}")
}
