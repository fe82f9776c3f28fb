//! The names of rows. One place, so that no two kinds of row can ever collide.

use crate::core::id::{Generation, ItemId, JobName, PageId, RunId, SHARDS, SessionId};
use crate::ports::Key;

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
/// session adds to its slot once a second at most: 500 sessions make it hot, in a transaction of two units each.
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
