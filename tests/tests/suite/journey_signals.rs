//! Ctrl-C and SIGTERM: what runs is finished, the rest is kept, and a second signal is obeyed at once.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Place, is_alive, wait_until};

const ITEMS: u64 = 60;

/// The children do something within this time, however busy the machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// "At once", on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

fn slow_job() -> Place {
    let place = Place::with_job(&format!(
        r#"
        name = "slow"
        input = {{ range = "0..{ITEMS}" }}
        max_concurrency = 4
        results = "out"
        [function]
        command = ["./work"]
        "#
    ));
    place.script(
        "work",
        r#"read value; note start "$value"; sleep 0.2; note end "$value""#,
    );
    place
}

fn drains_and_resumes(signal: Signal, code: i32) {
    let place = slow_job();
    let runner = place.start(&["run", "job.toml"]);
    wait_until("some items end", PROGRESS_WITHIN, || {
        place.log().count("end") >= 6
    });
    runner.signal(signal);
    let done = runner.wait().exits(code);
    let status = place.status();
    let resume = format!("trommel resume {}", status.run);
    assert!(done.stderr.contains(&resume), "{}", done.stderr);
    assert_eq!(status.status, "PAUSED");
    assert_eq!(status.reason.as_deref(), Some("interrupted"));
    let log = place.log();
    assert_eq!(
        log.count("start"),
        log.count("end"),
        "what ran was finished"
    );
    let counts = status.item_counts;
    assert!(counts.add_up());
    assert_eq!(counts.succeeded, log.count("end") as u64, "and recorded");
    assert!(counts.pending > 0, "{counts:?}");
    place.audit();

    place.trommel(&["resume", "latest"]).exits(0);
    let log = place.log();
    let ends = log.tally("end");
    assert_eq!(ends.len() as u64, ITEMS);
    assert!(ends.values().all(|times| *times == 1), "nothing ran twice");
    assert_eq!(place.status().item_counts.list(), [0, 0, ITEMS, 0, 0, 0, 0]);
    assert_eq!(place.results("SUCCEEDED").len() as u64, ITEMS);
    place.audit();
}

#[test]
fn ctrl_c_finishes_what_runs_and_resume_does_the_rest() {
    drains_and_resumes(Signal::SIGINT, 130);
}

#[test]
fn sigterm_finishes_what_runs_and_resume_does_the_rest() {
    drains_and_resumes(Signal::SIGTERM, 143);
}

/// Calls that neither end nor listen, as long as the file `stubborn` is there.
fn stubborn_job(grace: &str) -> Place {
    let place = Place::with_job(&format!(
        r#"
        name = "stubborn"
        input = {{ range = "0..20" }}
        max_concurrency = 4
        [function]
        command = ["./work"]
        grace = "{grace}"
        "#
    ));
    place.write("stubborn", "");
    place.script(
        "work",
        r#"read value; note start "$value" $$
        if [ -e stubborn ]; then trap '' TERM INT HUP; (sleep 3600) & note helper "$!"; wait; sleep 3600; fi
        note end "$value""#,
    );
    place
}

fn children(place: &Place) -> Vec<String> {
    let log = place.log();
    let shells = log.lines.iter().filter(|line| line[0] == "start");
    let shells = shells.map(|line| line[2].clone());
    shells.chain(log.of("helper")).collect()
}

fn go_on(place: &Place) {
    std::fs::remove_file(place.path("stubborn")).expect("it is there");
    place.trommel(&["resume", "latest"]).exits(0);
    let ends = place.log().tally("end");
    assert_eq!(ends.len(), 20);
    assert!(ends.values().all(|times| *times == 1));
    place.audit();
}

fn leaves_at_once(first: Signal, second: Signal, code: i32) {
    let place = stubborn_job("10min");
    let runner = place.start(&["run", "job.toml"]);
    wait_until("the children hang", PROGRESS_WITHIN, || {
        place.log().count("helper") == 4
    });
    runner.signal(first);
    wait_until("it drains", PROGRESS_WITHIN, || {
        runner.said().contains("finishing")
    });
    let children = children(&place);
    assert!(children.iter().all(|child| is_alive(child)), "{children:?}");
    runner.signal(second);
    runner.wait_within(AT_ONCE).exits(code);
    wait_until("no child survives", AT_ONCE, || {
        !children.iter().any(|child| is_alive(child))
    });
    go_on(&place);
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_no_child_survives() {
    leaves_at_once(Signal::SIGINT, Signal::SIGINT, 130);
}

#[test]
fn sigterm_after_ctrl_c_leaves_at_once_and_no_child_survives() {
    leaves_at_once(Signal::SIGINT, Signal::SIGTERM, 143);
}

#[test]
fn calls_that_outlast_the_grace_are_stopped_and_given_back() {
    let place = stubborn_job("500ms");
    let runner = place.start(&["run", "job.toml"]);
    wait_until("the children hang", PROGRESS_WITHIN, || {
        place.log().count("helper") == 4
    });
    let children = children(&place);
    runner.signal(Signal::SIGTERM);
    runner.wait().exits(143);
    wait_until("no child survives", AT_ONCE, || {
        !children.iter().any(|child| is_alive(child))
    });
    let status = place.status();
    assert_eq!(status.status, "PAUSED");
    assert_eq!(
        status.item_counts.list(),
        [20, 0, 0, 0, 0, 0, 0],
        "given back, not failed"
    );
    go_on(&place);
}

#[test]
fn no_child_survives_a_runner_that_is_killed() {
    let place = stubborn_job("10min");
    let runner = place.start(&["run", "job.toml"]);
    wait_until("the children hang", PROGRESS_WITHIN, || {
        place.log().count("helper") == 4
    });
    let children = children(&place);
    assert!(children.iter().all(|child| is_alive(child)), "{children:?}");
    runner.kill();
    wait_until("no child survives", AT_ONCE, || {
        !children.iter().any(|child| is_alive(child))
    });
    go_on(&place);
}
