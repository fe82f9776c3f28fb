//! What a power cut leaves of an embedded ledger: its log ends anywhere, or in bytes that nobody wrote. Whatever is
//! left is one moment's truth, and the run goes on from there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::support::{Place, figure, scaled, wait_for, wait_until};

const ITEMS: usize = 300;

/// Items settle within this time after a start, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// How a log was damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends here.
    Cut(usize),
    /// From here on it is noise.
    Torn(usize),
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of ours");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has one").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn damage(log: &Path, damage: Damage, chance: &mut ChaCha8Rng) {
    let mut bytes = fs::read(log).expect("the log is there");
    match damage {
        Damage::Cut(at) => bytes.truncate(at),
        Damage::Torn(at) => bytes[at..]
            .iter_mut()
            .for_each(|byte| *byte = chance.random()),
    }
    fs::write(log, bytes).expect("a file of ours");
}

#[test]
fn a_ledger_whose_log_is_cut_or_torn_still_adds_up_and_its_run_goes_on() {
    let place = Place::with_job(&format!(
        r#"
        name = "torn"
        input = {{ range = "0..{ITEMS}" }}
        max_concurrency = 4
        [function]
        command = ["./work"]
        "#
    ));
    place.script("work", "read value; note end \"$value\"; echo \"$value\"");
    let runner = place.start(&["run", "job.toml"]);
    wait_for("the run begins", PROGRESS_WITHIN, || place.maybe_status());
    wait_until("a third is done", PROGRESS_WITHIN, || {
        place.log().count("end") > ITEMS / 3
    });
    runner.kill();

    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let whole = fs::metadata(place.path(".trommel/ledger.db-wal")).expect("the log is there");
    let whole = usize::try_from(whole.len()).expect("it is small");
    let mut settled = Vec::new();
    for number in 0..scaled(8, 40) {
        let at = chance.random_range(whole / 4..whole);
        let kind = if number % 2 == 0 {
            Damage::Cut(at)
        } else {
            Damage::Torn(at)
        };
        let left = Place::new();
        copy(&place.path(""), &left.path(""));
        damage(&left.path(".trommel/ledger.db-wal"), kind, &mut chance);
        let Some(status) = left.maybe_status() else {
            // Cut before the run was made: then there is none, and that is said.
            settled.push(format!("{kind:?}: no run"));
            continue;
        };
        assert!(status.item_counts.add_up(), "{kind:?}: {status:?}");
        left.audit();
        let resumed = left.trommel(&["resume", "latest"]).exits(0);
        let end = left.status();
        assert_eq!(end.status, "SUCCEEDED", "{kind:?}: {}", resumed.stderr);
        assert_eq!(end.item_counts.succeeded as usize, ITEMS, "{kind:?}");
        left.audit();
        settled.push(format!("{kind:?}: {}", status.item_counts.succeeded));
    }
    assert!(!settled.is_empty(), "every cut was before the run began");
    figure(&format!(
        "of a log of {whole} bytes, what was left had settled {settled:?}"
    ));
}
