//! Promises of the ledger that show in single writes: epochs only grow, outcomes stay, permits add up.
//!
//! It reads rows as an operator would, and knows nothing of the code that writes them.

use std::collections::BTreeMap;

use trommel::core::time::Timestamp;
use trommel::ports::table::Change;
use trommel::ports::{Key, Row, Update};

/// Rows that a generation's counts lie in, at most: a look reads them all.
const TALLY_SLOTS: u32 = 16;

/// A queue keeps a message for so long at most ("Amazon SQS message quotas"), and it may come twice until its last moment.
const MESSAGES_KEPT_SECONDS: i64 = 14 * 24 * 60 * 60;

/// What a mark's write broke: one that goes before its messages do lets them in again. `now` is the world's.
pub(super) fn of_mark(key: &Key, after: Option<&Row>, now: Timestamp) -> Option<String> {
    let expires = after?.num("expires");
    let latest_message = now.0 / 1000 + MESSAGES_KEPT_SECONDS;
    if expires.is_some_and(|expires| expires > latest_message) {
        return None;
    }
    Some(format!(
        "S12: {key} expires at {expires:?}, before its messages do"
    ))
}

/// What a page's write broke, in a sentence; none: all is well.
///
/// `clock` is its writer's, where that is known.
pub(super) fn of_page(
    key: &Key,
    before: Option<&Row>,
    after: Option<&Row>,
    clock: Option<i64>,
) -> Option<String> {
    let (before, after) = match (before, after) {
        (Some(_), None) => return Some(format!("{key} was deleted")),
        (None, _) => return None,
        (Some(before), Some(after)) => (before, after),
    };
    let epochs = (before.num("epoch"), after.num("epoch"));
    if epochs.1 < epochs.0 {
        return Some(format!(
            "S1: {key}: epoch went from {:?} to {:?}",
            epochs.0, epochs.1
        ));
    }
    let same_generation = before.num("gen") == after.num("gen");
    let (from, to) = (before.text("status")?, after.text("status")?);
    let moves = match (from, to) {
        ("settled", "ready") => !same_generation,
        ("ready" | "waiting", "leased") => true,
        ("leased", "ready" | "waiting" | "settled") => true,
        // A redrive reopens what had not settled too.
        ("waiting" | "ready", "ready") => !same_generation || from == to,
        (from, to) => from == to,
    };
    if !moves {
        return Some(format!("S4: {key} went from {from} to {to}"));
    }
    if from != "leased" && to == "leased" && epochs.1 == epochs.0 {
        return Some(format!("S1: {key} changed hands at epoch {:?}", epochs.0));
    }
    if let Some(broken) = of_waiting(before, after, clock) {
        return Some(format!("S4: {key} {broken}"));
    }
    if let Some(broken) = of_death(before, after) {
        return Some(format!("S1: {key} {broken}"));
    }
    let (was, is) = (before.text("items")?, after.text("items")?);
    if was.len() != is.len() {
        return Some(format!("S3: {key}: items went from {was} to {is}"));
    }
    for (index, (was, is)) in was.chars().zip(is.chars()).enumerate() {
        let stays = match was {
            '.' => true,
            'S' | 'M' => is == was,
            _ => is == was || !same_generation,
        };
        if !stays {
            return Some(format!("S1: {key}: item {index} went from {was} to {is}"));
        }
    }
    None
}

/// Numbers by the index of their items: `3:17,8:0`.
fn by_index(row: &Row, name: &str) -> BTreeMap<usize, i64> {
    let entries = row.text(name).unwrap_or("").split(',');
    let number = |entry: &str| {
        let (index, number) = entry.split_once(':')?;
        Some((index.parse().ok()?, number.parse().ok()?))
    };
    entries.filter_map(number).collect()
}

/// The indexes of items without an outcome.
fn pending(row: &Row) -> Vec<usize> {
    let items = row.text("items").unwrap_or("").chars().enumerate();
    items
        .filter_map(|(index, letter)| (letter == '.').then_some(index))
        .collect()
}

/// A page waits exactly for the first of its retries, and is not leased before.
fn of_waiting(before: &Row, after: &Row, clock: Option<i64>) -> Option<String> {
    let dues = by_index(after, "dues");
    let dues: Vec<Option<i64>> = pending(after)
        .iter()
        .map(|index| dues.get(index).copied())
        .collect();
    let first = dues.iter().min().copied().flatten();
    let (from, to) = (before.text("status")?, after.text("status")?);
    let released = from == "leased" && before.num("deaths") == after.num("deaths");
    if to == "waiting" && after.num("due") != first {
        let due = after.num("due");
        return Some(format!(
            "waits for {due:?}, its first retry is due at {first:?}"
        ));
    }
    if to == "ready" && released && first.zip(clock).is_some_and(|(due, now)| due > now) {
        return Some(format!(
            "was given back as ready, its first retry is due at {first:?}"
        ));
    }
    let due = before.num("due").filter(|_| from == "waiting");
    let early = to == "leased" && due.zip(clock).is_some_and(|(due, now)| due > now);
    early.then(|| format!("was leased at {clock:?}, and waits for {due:?}"))
}

/// Who takes a page over from the dead charges the item that ran alone, and no other; it fails of the second death.
fn of_death(before: &Row, after: &Row) -> Option<String> {
    let deaths = |row: &Row| row.num("deaths").unwrap_or(0);
    let same_generation = before.num("gen") == after.num("gen");
    if !same_generation || deaths(after) <= deaths(before) {
        return None;
    }
    let mut alones = by_index(before, "alones");
    let mut items: Vec<char> = before.text("items")?.chars().collect();
    if let Some(index) = before
        .num("alone")
        .and_then(|index| usize::try_from(index).ok())
    {
        let deaths = alones.entry(index).or_default();
        *deaths += 1;
        if *deaths == 2 && items[index] == '.' {
            items[index] = 'F';
        }
    }
    let items: String = items.into_iter().collect();
    let as_charged = after.text("items") == Some(&items) && by_index(after, "alones") == alones;
    let one_more = deaths(after) == deaths(before) + 1;
    (!as_charged || !one_more).then(|| format!("was taken over: {before:?} became {after:?}"))
}

/// What is wrong with the name of a tally's row, such as `00000#03`, or with what is added there.
pub(super) fn of_tally(name: &str, change: &Change) -> Option<String> {
    let slot = name.split_once('#').and_then(|(_, slot)| slot.parse().ok());
    let is_there = slot.is_some_and(|slot: u32| slot < TALLY_SLOTS);
    if !is_there {
        return Some(format!(
            "L7: a tally lies at {name}, which every judge would have to read"
        ));
    }
    let adds = |update: &Update| matches!(update, Update::Add(_, number) if *number > 0);
    let Change::Update(updates) = change else {
        return Some(format!("S3: the tally {name} is written, not added to"));
    };
    (!updates.iter().any(adds)).then(|| format!("L7: nothing is added to the tally {name}"))
}

/// What a run's write broke.
pub(super) fn of_run(key: &Key, before: Option<&Row>, after: Option<&Row>) -> Option<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return None;
    };
    let (from, to) = (before.text("status")?, after.text("status")?);
    let generations = (before.num("gen")?, after.num("gen")?);
    let redriven = generations.1 == generations.0 + 1;
    let moves = match (from, to) {
        ("RUNNING", _) => !redriven,
        ("PAUSED", "RUNNING") => true,
        ("PAUSED", "ABORTED") => !redriven,
        (_, "RUNNING") => redriven,
        (from, to) => from == to && !redriven,
    };
    let (was, is) = generations;
    if !moves || (was != is && !redriven) {
        return Some(format!(
            "S4: {key} went from {from}, generation {was}, to {to}, generation {is}"
        ));
    }
    let totals = (before.num("total")?, after.num("total")?);
    (totals.1 < totals.0).then(|| format!("S3: the total went from {} to {}", totals.0, totals.1))
}

/// What is wrong with a pool and the permits of a job's sessions.
pub(super) fn of_permits(pool: &Row, held: i64) -> Option<String> {
    let (max, lent) = (pool.num("max")?, pool.num("lent")?);
    if lent != held {
        return Some(format!(
            "S10: the pool lent {lent} permits, sessions hold {held}"
        ));
    }
    (lent > max || lent < 0).then(|| format!("S10: {lent} permits of {max} are lent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("p", "s")
    }

    fn page(epoch: i64, generation: i64, items: &str) -> Row {
        Row::new()
            .with("epoch", epoch)
            .with("gen", generation)
            .with("status", "leased")
            .with("items", items)
    }

    #[test]
    fn outcomes_stay_within_a_generation_and_successes_for_ever() {
        let broken =
            |before: Row, after: Row| of_page(&key(), Some(&before), Some(&after), None).is_some();
        assert!(!broken(page(1, 0, "..F"), page(1, 0, "S.F")));
        assert!(broken(page(1, 0, "S.F"), page(1, 0, "F.F")));
        assert!(broken(page(2, 0, "S"), page(1, 0, "S")));
        assert!(!broken(page(2, 0, "SF"), page(3, 1, "S.")));
        assert!(broken(page(2, 0, "SF"), page(3, 1, ".F")));
    }

    #[test]
    fn a_run_moves_along_its_graph() {
        let run = |status: &str, generation: i64| {
            Row::new()
                .with("status", status)
                .with("gen", generation)
                .with("total", 7)
        };
        let broken =
            |before: Row, after: Row| of_run(&key(), Some(&before), Some(&after)).is_some();
        assert!(!broken(run("RUNNING", 0), run("FAILED", 0)));
        assert!(!broken(run("FAILED", 0), run("RUNNING", 1)));
        assert!(!broken(run("PAUSED", 1), run("RUNNING", 1)));
        assert!(broken(run("FAILED", 0), run("RUNNING", 0)));
        assert!(broken(run("SUCCEEDED", 0), run("FAILED", 0)));
        assert!(broken(run("RUNNING", 0), run("RUNNING", 1)));
    }

    #[test]
    fn what_is_lent_is_held() {
        let pool = Row::new().with("max", 4).with("lent", 3);
        assert_eq!(of_permits(&pool, 3), None);
        assert!(of_permits(&pool, 4).is_some());
    }
}
