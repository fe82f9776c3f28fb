//! The runner is killed again and again; the run ends as if it had not been.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::support::{Place, figure, now, scaled, wait_for, wait_until};

const CONCURRENCY: usize = 8;

/// Outcomes that a killed runner may not have written yet, beside the calls under way.
const UNWRITTEN_MAX: usize = 64;

/// Items settle within this time after a start, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// Killed a random time after its start, it may not even have begun.
const START_MAX_MS: u64 = 400;

fn seed() -> u64 {
    let given = std::env::var("TROMMEL_JOURNEY_SEED").ok();
    given.map_or_else(
        || RandomState::new().build_hasher().finish(),
        |seed| seed.parse().expect("TROMMEL_JOURNEY_SEED is a number"),
    )
}

#[test]
fn a_runner_killed_again_and_again_loses_nothing_and_repeats_little() {
    let kills: usize = scaled(5, 20);
    let items: usize = scaled(400, 2_000);
    let seed = seed();
    figure(&format!("kills: TROMMEL_JOURNEY_SEED={seed}"));
    let mut chance = ChaCha8Rng::seed_from_u64(seed);

    let place = Place::with_job(&format!(
        r#"
        name = "killed"
        input = {{ range = "0..{items}" }}
        max_concurrency = {CONCURRENCY}
        tolerated_failure_percentage = 100
        results = "out"
        [function]
        command = ["./work"]
        "#
    ));
    place.script(
        "work",
        r#"read value; note start "$value"; sleep 0.01; note end "$value""#,
    );
    let mut runner = place.start(&["run", "job.toml"]);
    wait_for("the run begins", PROGRESS_WITHIN, || place.maybe_status());
    let mut killed = 0;
    while killed < kills {
        // The moment: after some more items, or some time after the start.
        let ended = place.log().tally("end").len();
        let target = chance.random_range(1..=items / kills) + ended;
        let pause = Duration::from_millis(chance.random_range(0..START_MAX_MS));
        let by_time = chance.random_bool(0.3);
        let begun = now();
        wait_until("the moment to kill", PROGRESS_WITHIN, || {
            let is_time = begun.elapsed() >= pause;
            let by_items = place.log().tally("end").len() >= target;
            (by_time && is_time) || by_items || !runner.is_running()
        });
        if !runner.is_running() {
            break;
        }
        runner.kill();
        killed += 1;
        runner = place.start(&["resume", "latest"]);
    }
    let code = runner.wait().code();

    let status = place.status();
    assert_eq!(status.status, "SUCCEEDED", "{:?}", status.reason);
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    place.audit();
    let outcomes = place.items(&[]);
    let names: BTreeSet<&str> = outcomes.iter().map(|item| item.item.as_str()).collect();
    assert_eq!((outcomes.len(), names.len()), (items, items));
    // Alone at the death of its worker twice: an item may be taken for the killer.
    let suspected = outcomes.iter().filter(|item| item.state == "failed");
    let suspected: Vec<_> = suspected.map(|item| item.class.as_deref()).collect();
    assert!(
        suspected.iter().all(|class| *class == Some("WorkerDied")),
        "{suspected:?}"
    );
    let succeeded = outcomes
        .iter()
        .filter(|item| item.state == "succeeded")
        .count();
    assert_eq!(succeeded + suspected.len(), items);
    let log = place.log();
    assert!(log.tally("end").len() >= succeeded);
    let again = log.started_again();
    let bound = killed * (CONCURRENCY + UNWRITTEN_MAX);
    assert!(
        again <= bound,
        "{again} items ran again, the bound is {bound}"
    );
    assert_eq!(place.results("SUCCEEDED").len(), succeeded);
    figure(&format!(
        "kills: {killed} of {items} items, {again} completed items started again (bound {bound}), {} taken for killers",
        suspected.len()
    ));
}
