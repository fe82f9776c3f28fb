//! Promises of the ledger that show in single writes: epochs only grow, outcomes stay, permits add up.
//!
//! It reads rows as an operator would, and knows nothing of the code that writes them.

use trommel::ports::Row;

/// What a page's write broke, in a sentence; none: all is well.
pub(super) fn of_page(key: &str, before: Option<&Row>, after: Option<&Row>) -> Option<String> {
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

/// What a run's write broke.
pub(super) fn of_run(key: &str, before: Option<&Row>, after: Option<&Row>) -> Option<String> {
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

    fn page(epoch: i64, generation: i64, items: &str) -> Row {
        Row::new()
            .with("epoch", epoch)
            .with("gen", generation)
            .with("status", "leased")
            .with("items", items)
    }

    #[test]
    fn outcomes_stay_within_a_generation_and_successes_for_ever() {
        let broken = |before: Row, after: Row| of_page("p", Some(&before), Some(&after)).is_some();
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
        let broken = |before: Row, after: Row| of_run("r", Some(&before), Some(&after)).is_some();
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
