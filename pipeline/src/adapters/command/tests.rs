//! Real processes: every promise of the executor, against `/bin/sh`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;
use crate::core::id::{Epoch, Generation, PageId, RunId};
use crate::core::item::Input;
use crate::ports::executor::{OUTPUT_BYTES_MAX, Output};

mod sources;

/// Nothing here should take so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than any test runs, for processes that are to be killed.
const SLEEP: &str = "sleep 1000";

fn spec(argv: &[&str]) -> CommandSpec {
    CommandSpec {
        argv: argv.iter().map(ToString::to_string).collect(),
        cwd: PathBuf::from("/"),
        output: OutputMode::Keep,
    }
}

fn shell(script: &str) -> CommandExecutor {
    let spec = spec(&["sh", "-c", script, "sh"]);
    CommandExecutor::new(&spec, None, None).expect("every system has a shell")
}

fn item(index: u8, input: Input) -> CallItem {
    CallItem {
        id: PageId::new(0, 1).origin(index),
        attempt: 2,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(input),
    }
}

fn call_of(items: Vec<CallItem>) -> Call {
    Call {
        run: RunId::new("run-1"),
        batch: items.len() > 1,
        items,
        grace: PATIENCE,
    }
}

fn value(json: &str) -> Call {
    call_of(vec![item(0, Input::Value(json.into()))])
}

fn batch(items: u8) -> Call {
    let input = |index: u8| Input::Value(index.to_string().into());
    let mut call = call_of((0..items).map(|index| item(index, input(index))).collect());
    call.batch = true;
    call
}

/// The report of a call with one item, in words.
async fn report_of(executor: &CommandExecutor, call: Call) -> String {
    let reports = reports_of(executor, call).await;
    assert_eq!(reports.len(), 1);
    reports.into_iter().next().expect("just counted")
}

async fn reports_of(executor: &CommandExecutor, call: Call) -> Vec<String> {
    let calling = executor.call(call, Stop::new());
    let report = tokio::time::timeout(PATIENCE, calling)
        .await
        .expect("calls end");
    report.items.iter().map(words_of).collect()
}

fn words_of(report: &ItemReport) -> String {
    match report {
        ItemReport::Succeeded(Output::None) => "nothing".to_owned(),
        ItemReport::Succeeded(Output::Json(json)) => json.to_string(),
        ItemReport::Failed(Failure { class, cause }) => format!("failed {class}: {cause}"),
        ItemReport::Undecided(Failure { class, cause }) => format!("undecided {class}: {cause}"),
    }
}

async fn run(script: &str) -> String {
    report_of(&shell(script), value("1")).await
}

/// Waits until it holds, or fails.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process runs; one that is dead and not yet waited for does not.
fn runs(process: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return cfg!(not(target_os = "linux")) && kill(Pid::from_raw(process), None).is_ok();
    };
    !stat.contains(") Z ")
}

fn number_in(file: &Path) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Waits for the number of a process that writes it into this file.
async fn process_in(file: &Path) -> i32 {
    eventually("a process says its number", || number_in(file).is_some()).await;
    number_in(file).expect("just read")
}

#[tokio::test]
async fn the_item_comes_on_stdin_and_the_answer_on_stdout() {
    assert_eq!(
        report_of(&shell("cat"), value("{\"a\":[1,2]}")).await,
        "{\"a\":[1,2]}"
    );
    assert_eq!(run("read line; echo got $line").await, "\"got 1\"");
    assert_eq!(run("true").await, "nothing");
}

#[tokio::test]
async fn the_environment_names_run_item_attempt_epoch_and_key() {
    let script =
        "echo $TROMMEL_RUN $TROMMEL_ITEM $TROMMEL_ATTEMPT $TROMMEL_EPOCH $TROMMEL_IDEMPOTENCY_KEY";
    assert_eq!(run(script).await, "\"run-1 0-1-0 2 5 run-1/0-1-0\"");
    let script = "echo \"{\\\"item\\\":\\\"0-1-0\\\",\\\"output\\\":\\\"$TROMMEL_RUN:$TROMMEL_ATTEMPT:$TROMMEL_ITEM:\\\"}\"";
    assert_eq!(report_of(&shell(script), batch(1)).await, "\"run-1:2::\"");
}

#[tokio::test]
async fn input_larger_than_a_pipe_arrives_whole() {
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    assert_eq!(report_of(&shell("wc -c"), value(&long)).await, "1000003");
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let long = format!("\"{}\"", "x".repeat(1_000_000));
    let executor = shell("exec 0<&-; echo fine");
    assert_eq!(report_of(&executor, value(&long)).await, "\"fine\"");
    assert_eq!(report_of(&executor, value("1")).await, "\"fine\"");
}

#[tokio::test]
async fn failures_are_told_by_code_word_or_signal() {
    assert_eq!(run("echo oh no >&2; exit 7").await, "failed Exit7: oh no");
    let named = "echo '{\"error\":\"NotAnImage\",\"cause\":\"no header\"}' >&2; exit 1";
    assert_eq!(run(named).await, "failed NotAnImage: no header");
    assert_eq!(
        run("kill -SEGV $$").await,
        "failed Crashed: killed by signal 11 (SIGSEGV)"
    );
    assert_eq!(
        run("kill -KILL $$").await,
        "failed Crashed: killed by signal 9 (out of memory?)"
    );
}

#[tokio::test]
async fn much_output_is_bounded_and_ends_the_call() {
    let report = run("head -c 100000000 /dev/zero; sleep 1000").await;
    let bound = format!("more than {OUTPUT_BYTES_MAX} bytes");
    assert!(
        report.starts_with("failed BadOutput") && report.contains(&bound),
        "{report}"
    );
    let reports = reports_of(&shell("yes; sleep 1000"), batch(2)).await;
    assert!(
        reports
            .iter()
            .all(|report| report.starts_with("undecided BadOutput"))
    );
}

#[tokio::test]
async fn much_noise_on_stderr_is_drained_and_only_its_end_kept() {
    assert_eq!(
        run("head -c 100000000 /dev/zero >&2; echo done").await,
        "\"done\""
    );
    let report = run("head -c 10000000 /dev/zero >&2; echo the end >&2; exit 1").await;
    assert!(
        report.ends_with("the end") && report.len() < 5_000,
        "{}",
        report.len()
    );
}

#[tokio::test]
async fn stdout_can_be_discarded() {
    let mut spec = spec(&["sh", "-c", "head -c 100000000 /dev/zero"]);
    spec.output = OutputMode::None;
    let executor = CommandExecutor::new(&spec, None, None).expect("every system has a shell");
    assert_eq!(report_of(&executor, value("1")).await, "nothing");
}

/// Stops a call once it has written its number; answers its report.
async fn stopped_after_start(script: &str, grace: Duration) -> String {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("pid");
    let executor = shell(&script.replace("FILE", &file.display().to_string()));
    let mut call = value("1");
    call.grace = grace;
    let stop = Stop::new();
    let calling = executor.call(call, stop.clone());
    let stopping = async {
        let process = process_in(&file).await;
        stop.cancel();
        process
    };
    let (report, process) = tokio::join!(tokio::time::timeout(PATIENCE, calling), stopping);
    eventually("it is gone", || !runs(process)).await;
    words_of(&report.expect("it ends in time").items[0])
}

#[tokio::test]
async fn a_stopped_call_ends_politely_or_by_force() {
    let hangs = format!("echo $$ > FILE; {SLEEP}; true");
    assert_eq!(
        stopped_after_start(&hangs, PATIENCE).await,
        "undecided Crashed: stopped"
    );
    let deaf = format!("trap '' TERM; echo $$ > FILE; {SLEEP}; {SLEEP}");
    let short = Duration::from_millis(50);
    assert_eq!(
        stopped_after_start(&deaf, short).await,
        "undecided Crashed: stopped"
    );
    let tidy = "trap 'echo finished; exit 0' TERM; echo $$ > FILE; while :; do sleep 0.01; done";
    assert_eq!(stopped_after_start(tidy, PATIENCE).await, "\"finished\"");
}

#[tokio::test]
async fn a_call_that_is_stopped_before_it_begins_does_not_begin() {
    let stop = Stop::new();
    stop.cancel();
    let report = shell("echo began").call(value("1"), stop).await;
    assert_eq!(words_of(&report.items[0]), "undecided Crashed: stopped");
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_ended_with_it() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("pid");
    let script = format!("{SLEEP} & echo $! > {}; echo done", file.display());
    assert_eq!(run(&script).await, "\"done\"");
    let process = process_in(&file).await;
    eventually("the process left behind ends", || !runs(process)).await;
}

#[tokio::test]
async fn one_that_left_the_group_with_our_pipe_does_not_hold_up_the_call() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("pid");
    let path = file.display();
    let script = format!(
        "setsid sh -c 'echo $$ > {path}; exec {SLEEP}' & while [ ! -s {path} ]; do :; done; echo done"
    );
    let begun = Instant::now();
    assert_eq!(run(&script).await, "\"done\"");
    assert!(begun.elapsed() < PATIENCE / 2);
    let process = process_in(&file).await;
    kill(Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL).expect("it still runs");
}

#[tokio::test]
async fn a_dropped_call_is_killed_with_its_children() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("pid");
    let executor = shell(&format!("{SLEEP} & echo $! > {}; wait", file.display()));
    let process = tokio::select! {
        _ = executor.call(value("1"), Stop::new()) => panic!("it waits for ever"),
        process = process_in(&file) => process,
    };
    eventually("the dropped call's child ends", || !runs(process)).await;
}

#[tokio::test]
async fn a_command_that_cannot_start_says_so() {
    let executor = shell("true");
    let gone = CommandExecutor {
        cwd: PathBuf::from("/no/such/directory"),
        ..executor
    };
    let report = report_of(&gone, value("1")).await;
    assert!(
        report.starts_with("failed Unavailable") && report.contains("/no/such"),
        "{report}"
    );
}

#[tokio::test]
async fn a_batch_is_answered_line_by_line() {
    let script = "sed 's/.*\"item\":\"\\([^\"]*\\)\".*\"input\":\\(.*\\)}/{\"item\":\"\\1\",\"output\":[\\2]}/'";
    assert_eq!(
        reports_of(&shell(script), batch(3)).await,
        ["[0]", "[1]", "[2]"]
    );
    assert_eq!(
        reports_of(&shell("cat > /dev/null"), batch(2)).await,
        ["nothing", "nothing"]
    );
    let partly =
        "echo '{\"item\":\"0-1-1\",\"error\":\"Odd\",\"cause\":\"why\"}'; echo bad >&2; exit 9";
    assert_eq!(
        reports_of(&shell(partly), batch(2)).await,
        ["undecided Exit9: bad", "failed Odd: why"]
    );
    let junk = reports_of(&shell("echo hello"), batch(2)).await;
    assert!(
        junk.iter()
            .all(|report| report.starts_with("undecided BadOutput")),
        "{junk:?}"
    );
}

/// Set for this test binary when it plays a part in the tests of the reaper.
const PART: &str = "TROMMEL_TEST_PART";

fn reaper() -> Arc<Reaper> {
    let program = std::env::current_exe().expect("this test binary");
    let args = [
        "--exact",
        "adapters::command::tests::plays_the_reaper",
        "--nocapture",
    ];
    Reaper::start(&program, &args).expect("it starts")
}

#[test]
fn plays_the_reaper() {
    if std::env::var_os("TROMMEL_REAPER_REGISTER").is_some() {
        assert_eq!(reaper_main(), std::process::ExitCode::SUCCESS);
    }
}

#[tokio::test]
async fn plays_a_worker() {
    let Some(directory) = std::env::var_os(PART) else {
        return;
    };
    let directory = PathBuf::from(directory).display().to_string();
    let script = format!(
        "echo $$ > {directory}/leader; {SLEEP} & echo $! > {directory}/child; \
         setsid sh -c 'echo $$ > {directory}/escaped; {SLEEP}; true' & wait"
    );
    let mut executor = shell(&script);
    executor.reaper = Some(reaper());
    executor.call(value("1"), Stop::new()).await;
}

#[tokio::test]
async fn the_calls_of_a_worker_that_is_killed_die_with_it() {
    let directory = TempDir::new().expect("a temporary directory");
    let program = std::env::current_exe().expect("this test binary");
    let mut worker = Command::new(program)
        .args(["--exact", "adapters::command::tests::plays_a_worker"])
        .env(PART, directory.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let mut processes = Vec::new();
    for name in ["leader", "child", "escaped"] {
        processes.push(process_in(&directory.path().join(name)).await);
    }
    assert!(processes.iter().all(|process| runs(*process)));
    worker.kill().expect("it still runs");
    worker.wait().expect("it is ours");
    if cfg!(not(target_os = "linux")) {
        processes.pop();
    }
    for process in processes {
        eventually("a call ends with its worker", || !runs(process)).await;
    }
}

#[tokio::test]
async fn a_reaper_lets_finished_calls_be_and_leaves_with_its_owner() {
    let mut executor = shell("echo $TROMMEL_SESSION");
    executor.reaper = Some(reaper());
    let mark = report_of(&executor, value("1")).await;
    assert_eq!(mark.len(), 34, "{mark}");
    let begun = Instant::now();
    drop(executor);
    assert!(begun.elapsed() < PATIENCE);
}
