//! Real containers: every promise of the executor, against the engine of this machine.
//!
//! The image is made here, of one static busybox, so that no registry is asked. Without engine or busybox
//! these tests fail and say what to install: a test that passes unseen proves nothing.

#![expect(
    clippy::disallowed_methods,
    reason = "they wait for real containers, in real time"
)]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig};

use super::*;
use crate::adapters::command::child::Exit;
use crate::core::id::{Epoch, Generation, PageId, RunId};
use crate::core::item::Input as ItemInput;
use crate::core::job::Network;
use crate::ports::executor::{OUTPUT_BYTES_MAX, Output};

mod adoption;
mod files;

/// Made once on a machine; what goes into it decides the number.
const IMAGE: &str = "trommel-test-busybox:1";

/// Where Debian's `busybox-static` puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// Nothing here should take so long, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any test runs.
const SLEEP: &str = "sleep 1000";

/// Imports the image, if it is not there.
fn image() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(make_image);
    IMAGE
}

fn make_image() {
    let known = Command::new("docker")
        .args(["image", "inspect", IMAGE])
        .output();
    if known.is_ok_and(|known| known.status.success()) {
        return;
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    let bin = root.path().join("bin");
    fs::create_dir(&bin).expect("just made");
    // A link has the program's bytes copied, wherever they lie.
    fs::copy(BUSYBOX, bin.join("busybox")).unwrap_or_else(|error| {
        panic!("{BUSYBOX}: {error}; install it: apt-get install busybox-static")
    });
    for name in [
        "sh", "cat", "sleep", "echo", "tail", "head", "wc", "yes", "id", "ls", "grep", "tr",
    ] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a new name");
    }
    let tar = Command::new("tar")
        .arg("-C")
        .arg(root.path())
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .spawn();
    let tar = tar.expect("every Debian has tar").stdout.expect("piped");
    let import = Command::new("docker")
        .args([
            "import",
            "-c",
            "CMD [\"echo\", \"its own command\"]",
            "-",
            IMAGE,
        ])
        .stdin(tar)
        .output()
        .unwrap_or_else(|error| panic!("docker: {error}; install docker.io and docker-cli"));
    let words = String::from_utf8_lossy(&import.stderr);
    assert!(
        import.status.success(),
        "{words}; start Docker's engine: dockerd"
    );
}

fn spec(argv: &[&str]) -> DockerSpec {
    DockerSpec {
        image: image().to_owned(),
        argv: argv.iter().map(ToString::to_string).collect(),
        environment: BTreeMap::new(),
        memory_bytes: None,
        cpu_millis: None,
        network: Network::None,
        output: OutputMode::Keep,
    }
}

fn script(text: &str) -> DockerSpec {
    spec(&["sh", "-c", text])
}

/// One that never sweeps: what is left behind is for the tests of adoption, which run beside this one.
fn executor(spec: DockerSpec) -> DockerExecutor {
    DockerExecutor::adopting_within(Duration::MAX, spec, None)
}

fn shell(text: &str) -> DockerExecutor {
    executor(script(text))
}

fn item(index: u8, input: ItemInput) -> CallItem {
    CallItem {
        id: PageId::new(0, 1).origin(index),
        attempt: 2,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(input),
    }
}

/// A run of its own for each call: tests run side by side, and beside other workers.
fn call_of(items: Vec<CallItem>) -> Call {
    Call {
        run: RunId::new(format!("test-{:016x}", rand::random::<u64>())),
        batch: items.len() > 1,
        items,
        grace: PATIENCE,
    }
}

fn value(json: &str) -> Call {
    call_of(vec![item(0, ItemInput::Value(json.into()))])
}

fn batch(items: u8) -> Call {
    let input = |index: u8| ItemInput::Value(index.to_string().into());
    let mut call = call_of((0..items).map(|index| item(index, input(index))).collect());
    call.batch = true;
    call
}

async fn reports_of(executor: &DockerExecutor, call: Call) -> Vec<String> {
    let run = call.run.clone();
    let calling = executor.call(call, Stop::new());
    let report = tokio::time::timeout(PATIENCE, calling).await;
    let words = report
        .expect("calls end")
        .items
        .iter()
        .map(words_of)
        .collect();
    assert_eq!(
        names_of(&run).await,
        [""; 0],
        "containers of finished calls are removed"
    );
    words
}

/// The report of a call with one item, in words.
async fn report_of(executor: &DockerExecutor, call: Call) -> String {
    let mut reports = reports_of(executor, call).await;
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

fn words_of(report: &ItemReport) -> String {
    match report {
        ItemReport::Succeeded(Output::None) => "nothing".to_owned(),
        ItemReport::Succeeded(Output::Json(json)) => json.to_string(),
        ItemReport::Failed(Failure { class, cause }) => format!("failed {class}: {cause}"),
        ItemReport::Undecided(Failure { class, cause }) => format!("undecided {class}: {cause}"),
    }
}

async fn run(text: &str) -> String {
    report_of(&shell(text), value("1")).await
}

async fn containers_of(run: &RunId) -> Vec<ContainerSummary> {
    let label = format!("{}={run}", identity::RUN_LABEL);
    let listed = Engine::default().list(&label).await;
    listed.expect("the engine answers")
}

async fn names_of(run: &RunId) -> Vec<String> {
    let containers = containers_of(run).await.into_iter();
    containers
        .flat_map(|it| it.names.unwrap_or_default())
        .collect()
}

async fn is_running(run: &RunId) -> bool {
    let containers = containers_of(run).await;
    containers.iter().any(|it| {
        it.status
            .as_deref()
            .is_some_and(|words| words.starts_with("Up"))
    })
}

/// Waits until a run has so many containers.
async fn until_containers(run: &RunId, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let names = names_of(run).await;
        if names.len() == count {
            return;
        }
        assert!(Instant::now() < until, "{names:?} instead of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_running(run: &RunId) {
    let until = Instant::now() + PATIENCE;
    while !is_running(run).await {
        assert!(Instant::now() < until, "nothing of {run} runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn the_item_comes_on_stdin_and_the_answer_on_stdout() {
    assert_eq!(
        report_of(&shell("cat"), value("{\"a\":[1,2]}")).await,
        "{\"a\":[1,2]}"
    );
    assert_eq!(
        run("read line; echo got $line; echo noise >&2").await,
        "\"got 1\""
    );
    assert_eq!(run("exit 0").await, "nothing");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn an_image_runs_its_own_command_if_the_job_names_none() {
    let executor = executor(spec(&[]));
    assert_eq!(
        report_of(&executor, value("1")).await,
        "\"its own command\""
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn the_environment_names_the_item_beside_the_jobs_own_variables() {
    let mut spec = script(
        "echo $LEVEL $TROMMEL_ITEM $TROMMEL_ATTEMPT $TROMMEL_EPOCH ${TROMMEL_IDEMPOTENCY_KEY#$TROMMEL_RUN}",
    );
    spec.environment
        .insert("LEVEL".to_owned(), "info".to_owned());
    let report = report_of(&executor(spec), value("1")).await;
    assert_eq!(report, "\"info 0-1-0 2 5 /0-1-0\"");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn input_larger_than_a_socket_holds_arrives_whole_and_need_not_be_read() {
    let long = format!("\"{}\"", "x".repeat(3_000_000));
    assert_eq!(report_of(&shell("wc -c"), value(&long)).await, "3000003");
    assert_eq!(
        report_of(&shell("echo fine"), value(&long)).await,
        "\"fine\""
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn failures_are_told_by_code_word_or_signal() {
    assert_eq!(run("echo oh no >&2; exit 3").await, "failed Exit3: oh no");
    let named = "echo '{\"error\":\"NotAnImage\",\"cause\":\"no header\"}' >&2; exit 1";
    assert_eq!(run(named).await, "failed NotAnImage: no header");
    // Number 1 of its container does not die of its own signals: a shell around it says how it died.
    let killed = run("sh -c 'kill -SEGV $$'; exit $?").await;
    let expected = "failed Crashed: killed by signal 11 (SIGSEGV): Segmentation fault";
    assert_eq!(killed, expected);
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_container_that_needs_more_memory_than_it_may_have_is_out_of_memory() {
    let mut spec = script("exec tail /dev/zero");
    spec.memory_bytes = Some(16 << 20);
    let report = report_of(&executor(spec), value("1")).await;
    assert!(
        report.starts_with("failed OutOfMemory: it needed more memory"),
        "{report}"
    );
}

/// Many at once keep the engine busy, so that it hears of some ends before it hears what they came of.
#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn containers_out_of_memory_say_so_also_when_the_engine_hears_of_it_late() {
    let mut spec = script("tail /dev/zero");
    spec.memory_bytes = Some(16 << 20);
    let executor = executor(spec);
    let calls = (0..24).map(|_| report_of(&executor, value("1")));
    for report in futures_util::future::join_all(calls).await {
        assert!(report.starts_with("failed OutOfMemory"), "{report}");
    }
}

/// How a container was killed, as far as the engine does not say that it was for memory.
async fn killed(script: &str, memory: Option<i64>, signal: Option<&str>) -> Exit {
    let engine = Engine::default();
    let body = ContainerCreateBody {
        image: Some(image().to_owned()),
        cmd: Some(["sh", "-c", script].map(str::to_owned).into()),
        host_config: Some(HostConfig {
            memory,
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let name = format!("trommel-test-{:016x}", rand::random::<u64>());
    let id = engine.create(&name, body).await.expect("made");
    engine.start(&id).await.expect("started");
    if let Some(signal) = signal {
        let sent = Command::new("docker")
            .args(["kill", "-s", signal, &id])
            .output();
        assert!(sent.expect("docker is there").status.success());
    }
    engine.wait(&id).await.expect("it ends");
    let state = engine.state(&id).await.expect("it is there");
    assert_eq!(state.exit_code, Some(137), "{script}");
    let why = running::killed(&engine, &id, &state).await;
    engine.remove(&id).await.expect("it is over");
    why.expect("the engine answers")
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn one_with_a_limit_that_nobody_had_killed_was_out_of_memory() {
    let (limit, sent) = (Some(16 << 20), Some("KILL"));
    assert_eq!(
        killed("tail /dev/zero", limit, None).await,
        Exit::OutOfMemory
    );
    let by_hand = Exit::Signal(exit::SIGKILL);
    assert_eq!(killed(SLEEP, limit, sent).await, by_hand);
    assert_eq!(killed(SLEEP, None, sent).await, by_hand);
    assert_eq!(killed("exit 137", None, None).await, by_hand);
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn processors_are_limited() {
    // cgroups(7): the second version says quota and period in one file, the first in two.
    let mut spec = script(
        "cd /sys/fs/cgroup; cat cpu.max 2>/dev/null || \
         echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us)",
    );
    spec.cpu_millis = Some(500);
    let report = report_of(&executor(spec), value("1")).await;
    assert_eq!(report, "\"50000 100000\"");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn much_output_is_bounded_and_ends_the_call() {
    let report = run("yes; sleep 1000").await;
    let bound = format!("more than {OUTPUT_BYTES_MAX} bytes");
    assert!(
        report.starts_with("failed BadOutput") && report.contains(&bound),
        "{report}"
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn as_much_output_as_is_allowed_arrives_and_of_noise_only_the_end() {
    // Two quotes make it JSON.
    let bytes = OUTPUT_BYTES_MAX - 2;
    let report = run(&format!("yes | tr -d '\\n' | head -c {bytes}")).await;
    assert_eq!(report.len(), OUTPUT_BYTES_MAX, "{}", &report[..100]);
    let noisy = run("yes noise | head -c 5000000 >&2; echo the end >&2; exit 1").await;
    assert!(
        noisy.ends_with("the end") && noisy.len() < 5_000,
        "{}",
        noisy.len()
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn stdout_can_be_discarded() {
    let mut spec = script("yes | head -c 20000000; echo why >&2; exit 4");
    spec.output = OutputMode::None;
    let executor = executor(spec);
    assert_eq!(report_of(&executor, value("1")).await, "failed Exit4: why");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn without_a_network_there_is_only_the_loopback() {
    assert_eq!(run("ls /sys/class/net").await, "\"lo\"");
    let mut spec = script("ls /sys/class/net | grep -c eth0");
    spec.network = Network::Named("bridge".to_owned());
    let executor = executor(spec);
    assert_eq!(report_of(&executor, value("1")).await, "1");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn nothing_in_it_gains_privileges() {
    assert_eq!(
        run("grep NoNewPrivs /proc/self/status").await,
        "\"NoNewPrivs:\\t1\""
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_batch_answers_for_each_and_what_it_leaves_unsaid_is_undecided() {
    let answers = "while read line; do :; done; \
        echo '{\"item\":\"0-1-0\",\"output\":7}'; \
        echo '{\"item\":\"0-1-1\",\"error\":\"Odd\",\"cause\":\"one\"}'";
    let reports = reports_of(&shell(answers), batch(3)).await;
    assert_eq!(reports, ["7", "failed Odd: one", "nothing"]);
    let dies = format!("{answers}; exit 9");
    let reports = reports_of(&shell(&dies), batch(3)).await;
    assert_eq!(reports[..2], ["7", "failed Odd: one"]);
    assert!(reports[2].starts_with("undecided Exit9"), "{}", reports[2]);
    let echoed = reports_of(&shell("wc -l >&2; exit 1"), batch(2)).await;
    assert_eq!(echoed[0], "undecided Exit1: 2");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_missing_image_or_program_is_unavailable_and_says_what_to_do() {
    let mut spec = script("true");
    spec.image = "trommel-test-no-such-image:1".to_owned();
    let report = report_of(&executor(spec), value("1")).await;
    assert!(
        report.starts_with("failed Unavailable: No such image"),
        "{report}"
    );
    assert!(
        report.contains("`docker pull trommel-test-no-such-image:1`"),
        "{report}"
    );
    let executor = executor(self::spec(&["/no/such/program"]));
    let report = report_of_released(&executor, value("1")).await;
    assert!(
        report.starts_with("failed Unavailable") && report.contains("/no/such/program"),
        "{report}"
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn an_engine_that_does_not_answer_is_unavailable_and_says_what_to_look_at() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("docker.sock");
    // Its file stays, and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a new name"));
    let address = format!("unix://{}", socket.display());
    let docker = bollard::Docker::connect_with_host(&address).expect("a socket's address");
    let mut executor = shell("true");
    executor.places.engine = Engine::at(docker);
    let report = executor.call(value("1"), Stop::new()).await;
    let words = words_of(&report.items[0]);
    assert!(
        words.starts_with("failed Unavailable: Docker's engine does not answer"),
        "{words}"
    );
    assert!(words.contains("is dockerd running"), "{words}");
}

/// As [`report_of`], for calls that end while their container is still being removed.
async fn report_of_released(executor: &DockerExecutor, call: Call) -> String {
    let run = call.run.clone();
    let report = executor.call(call, Stop::new()).await;
    until_containers(&run, 0).await;
    words_of(&report.items[0])
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_stopped_container_may_end_by_itself_and_is_killed_after_its_grace() {
    for (text, grace, least) in [
        (
            "trap 'exit 0' TERM; while :; do sleep 0.1; done",
            PATIENCE,
            Duration::ZERO,
        ),
        (SLEEP, Duration::from_secs(1), Duration::from_secs(1)),
    ] {
        let executor = shell(text);
        let mut call = value("1");
        call.grace = grace;
        let (run, stop) = (call.run.clone(), Stop::new());
        let stopping = async {
            until_running(&run).await;
            stop.cancel();
            Instant::now()
        };
        let (report, asked) = tokio::join!(executor.call(call, stop.clone()), stopping);
        let took = asked.elapsed();
        assert!(least <= took && took < PATIENCE, "{took:?}");
        match &report.items[0] {
            // It said that it is done, whatever it was asked.
            ItemReport::Succeeded(Output::None) => assert_eq!(grace, PATIENCE),
            other => assert_eq!(words_of(other), "undecided Crashed: stopped"),
        }
        assert_eq!(names_of(&run).await, [""; 0]);
    }
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_call_that_is_dropped_takes_its_container_with_it() {
    let executor = shell(SLEEP);
    let call = value("1");
    let run = call.run.clone();
    tokio::select! {
        _ = executor.call(call, Stop::new()) => panic!("it sleeps"),
        () = until_running(&run) => {}
    }
    until_containers(&run, 0).await;
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_call_that_is_dropped_while_its_container_is_made_leaves_none() {
    let executor = shell(SLEEP);
    for after_ms in [1, 5, 10, 20, 40, 80, 160] {
        let call = value("1");
        let run = call.run.clone();
        let dropped = tokio::time::timeout(
            Duration::from_millis(after_ms),
            executor.call(call, Stop::new()),
        );
        assert!(dropped.await.is_err(), "it sleeps");
        // What was still being made is there for a moment.
        tokio::time::sleep(Duration::from_millis(500)).await;
        until_containers(&run, 0).await;
    }
}
