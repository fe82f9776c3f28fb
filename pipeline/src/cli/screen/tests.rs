//! The block at three widths, and what no block may do.

use super::*;
use crate::core::id::{JobName, RunId};
use crate::core::outcome::{ItemCounts, Settled};
use crate::core::tolerance::Tolerance;
use proptest::prelude::*;

fn running() -> Snapshot {
    let settled = Settled {
        succeeded: 9_120,
        failed: 77,
        timed_out: 19,
        ..Settled::default()
    };
    let tolerance = Tolerance {
        count: None,
        percent: "3".parse().ok(),
    };
    Snapshot {
        run: RunId::new("brave-heron-4f2a"),
        job: JobName::new("thumbnails"),
        status: RunStatus::Running,
        reason: None,
        generation: 1,
        elapsed: Duration::from_secs(252),
        item_counts: ItemCounts::new(12_000, settled, 240),
        total_is_final: true,
        oldest_message: None,
        quarantined: 0,
        intake: None,
        tolerance,
        failures: 96,
        failures_max: tolerance.failures_max(Some(12_000)),
        rate_per_second: 48.1,
        eta: Some(Duration::from_secs(58)),
        classes: [("NotAnImage", 71), ("Timeout", 19), ("Exit\u{1b}[2J", 6)]
            .map(|(class, count)| (class.to_owned(), count))
            .to_vec(),
        max_concurrency: 256,
    }
}

fn beginning() -> Snapshot {
    Snapshot {
        generation: 0,
        elapsed: Duration::from_secs(1),
        item_counts: ItemCounts::new(10_000, Settled::default(), 2),
        total_is_final: false,
        failures: 0,
        failures_max: None,
        rate_per_second: 0.0,
        eta: None,
        classes: Vec::new(),
        max_concurrency: 2,
        ..running()
    }
}

fn failed() -> Snapshot {
    let settled = Settled {
        succeeded: 9_120,
        failed: 361,
        aborted: 240,
        skipped: 3,
        ..Settled::default()
    };
    Snapshot {
        status: RunStatus::Failed,
        reason: Some("361 failures of 12000 exceed the 3 % tolerated".to_owned()),
        item_counts: ItemCounts::new(12_000, settled, 0),
        failures: 361,
        classes: (0..9).map(|n| (format!("Exit{n}"), 100 - n)).collect(),
        oldest_message: None,
        quarantined: 4,
        ..running()
    }
}

fn done() -> Snapshot {
    let settled = Settled {
        succeeded: 12_000,
        ..Settled::default()
    };
    Snapshot {
        status: RunStatus::Succeeded,
        generation: 0,
        item_counts: ItemCounts::new(12_000, settled, 0),
        tolerance: Tolerance::default(),
        failures: 0,
        failures_max: Some(0),
        classes: Vec::new(),
        ..running()
    }
}

#[test]
fn the_block_is_reviewed_at_three_widths() {
    for width in [60, 80, 120] {
        let snapshots = [beginning(), running(), failed(), done()];
        let blocks = snapshots.map(|snapshot| render(&snapshot, width, Color::Off));
        insta::assert_snapshot!(format!("block_{width}"), blocks.join("\n"));
    }
}

#[test]
fn how_long_messages_have_waited_is_shown() {
    let snapshot = Snapshot {
        oldest_message: Some(Duration::from_secs(3 * 86_400 + 62)),
        ..running()
    };
    let block = render(&snapshot, 80, Color::Off);
    assert!(
        block.contains("  waiting     the oldest message may be 3d 00:01:02 old\n"),
        "{block}"
    );
    let json = crate::cli::view::json_line(&snapshot);
    assert!(
        json.contains(r#""oldestMessageSeconds":259262.0"#),
        "{json}"
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let painted = render(&running(), 80, Color::On);
    assert!(painted.contains("\u{1b}[32m"));
    let mut bare = String::new();
    for piece in painted.split('\u{1b}') {
        let rest = piece
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'));
        bare.push_str(rest.map_or(piece, |(_, rest)| rest));
    }
    let trimmed = |text: &str| {
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(trimmed(&bare), trimmed(&render(&running(), 80, Color::Off)));
}

#[test]
fn json_of_a_run_has_the_names_of_describe_map_run() {
    insta::assert_snapshot!("status_json", crate::cli::view::json_line(&running()));
}

#[test]
fn a_pipe_gets_a_line_now_and_then() {
    insta::assert_snapshot!(render_line(&running()), @"brave-heron-4f2a RUNNING 00:04:12, 9120/12000 succeeded, 240 running, 2544 pending, 77 failed, 19 timed out, 48.1/s, ETA 00:00:58");
    let last = running();
    assert!(is_due(None, &running()));
    let later = |seconds: u64| Snapshot {
        elapsed: Duration::from_secs(seconds),
        ..running()
    };
    assert!(!is_due(Some(&last), &later(400)), "nothing changed");
    let mut changed = later(254);
    changed.item_counts.succeeded += 1;
    assert!(!is_due(Some(&last), &changed), "too soon");
    changed.elapsed = Duration::from_secs(257);
    assert!(is_due(Some(&last), &changed));
    let paused = Snapshot {
        status: RunStatus::Paused,
        ..later(252)
    };
    assert!(
        !is_due(Some(&last), &paused),
        "the block at the end tells it"
    );
    let begun = Snapshot {
        item_counts: ItemCounts::default(),
        total_is_final: false,
        ..running()
    };
    insta::assert_snapshot!(render_line(&begun), @"brave-heron-4f2a RUNNING 00:04:12, reading the input");
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_bar_is_never_too_long(
        numbers in prop::array::uniform5(prop_oneof![Just(0_u64), 0..10_u64, 0..1_000_000_000_u64]),
        pending in 0..1_000_000_u64,
        running in 0..1_000_u64,
        width in 24_usize..200,
    ) {
        let [succeeded, failed, timed_out, aborted, skipped] = numbers;
        let settled = Settled { succeeded, failed, timed_out, aborted, skipped };
        let counts = ItemCounts::new(settled.total() + pending + running, settled, running);
        let snapshot = Snapshot { item_counts: counts, ..failed_with_long_names() };
        for line in render(&snapshot, width, Color::Off).lines() {
            prop_assert!(line.chars().count() <= width, "{}", line);
        }
        let cells: usize = bar(&snapshot, 20).iter().map(|(_, text)| text.chars().count()).sum();
        prop_assert_eq!(cells, 20);
    }
}

fn failed_with_long_names() -> Snapshot {
    Snapshot {
        classes: vec![("x".repeat(500), 1)],
        reason: Some("y".repeat(500)),
        ..failed()
    }
}
