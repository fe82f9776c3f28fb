//! What a worker that was killed leaves behind: a process of its own is started for each test, and killed as
//! `kill -9` does.

use std::env;
use std::process::Child;

use tokio::sync::{Mutex, MutexGuard};

use super::container::Fed;
use super::place::{CLAIM_LABEL, Places};
use super::*;

/// To the worker: the run, the script of its container, the items of its call, and how long the first is.
const RUN: &str = "TROMMEL_TEST_RUN";
const SCRIPT: &str = "TROMMEL_TEST_SCRIPT";
const ITEMS: &str = "TROMMEL_TEST_ITEMS";
const INPUT: &str = "TROMMEL_TEST_INPUT_BYTES";

/// Says which container it is, after a while.
const WHO: &str = "sleep 3; cat /etc/hostname";

/// Ends when it is asked to.
const OBEYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// A sweep is of all dead workers: these tests run one after the other.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// What the worker and its heir both call for.
struct Work {
    run: RunId,
    script: &'static str,
    items: u8,
    input_bytes: usize,
}

impl Work {
    fn new(script: &'static str) -> Self {
        Self {
            run: call_of(Vec::new()).run,
            script,
            items: 1,
            input_bytes: 1,
        }
    }

    fn call(&self) -> Call {
        let mut call = call_of(
            (0..self.items)
                .map(|index| item(index, self.input()))
                .collect(),
        );
        call.run = self.run.clone();
        call
    }

    fn input(&self) -> ItemInput {
        ItemInput::Value("7".repeat(self.input_bytes).into())
    }

    /// A worker begins, and is killed as soon as its container runs; the container's identifier.
    async fn die(&self) -> String {
        let mut worker = self.worker();
        until_running(&self.run).await;
        // The worker's feeding begins with the start.
        tokio::time::sleep(Duration::from_millis(200)).await;
        worker.kill().expect("our own child");
        worker.wait().expect("just killed");
        let containers = containers_of(&self.run).await;
        assert_eq!(containers.len(), 1);
        containers[0].id.clone().expect("every container has one")
    }

    fn worker(&self) -> Child {
        image();
        Command::new(env::current_exe().expect("this test"))
            .args(["--ignored", "--exact"])
            .arg("adapters::docker::tests::adoption::a_worker_that_is_killed")
            .env(RUN, self.run.as_str())
            .env(SCRIPT, self.script)
            .env(ITEMS, self.items.to_string())
            .env(INPUT, self.input_bytes.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test starts again")
    }
}

#[tokio::test]
#[ignore = "is no test: the tests beside it start and kill it"]
async fn a_worker_that_is_killed() {
    if env::var_os(RUN).is_none() {
        return;
    }
    let variable = |name| env::var(name).expect("whoever starts this says it all");
    let script = variable(SCRIPT);
    let work = Work {
        run: RunId::new(variable(RUN)),
        script: "",
        items: variable(ITEMS).parse().expect("a number"),
        input_bytes: variable(INPUT).parse().expect("a number"),
    };
    shell(&script).call(work.call(), Stop::new()).await;
}

/// What a container says of itself: the first twelve digits of its identifier.
fn name_of(id: &str) -> String {
    format!("\"{}\"", &id[..12])
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_running_container_of_a_dead_worker_is_waited_for_and_no_second_one_started() {
    let _alone = alone().await;
    let work = Work::new(WHO);
    let id = work.die().await;
    assert_eq!(report_of(&shell(WHO), work.call()).await, name_of(&id));
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn the_result_of_one_that_has_ended_meanwhile_is_read() {
    let _alone = alone().await;
    let script = "sleep 2; cat; echo why >&2; exit 5";
    let work = Work::new(script);
    work.die().await;
    let until = Instant::now() + PATIENCE;
    while is_running(&work.run).await {
        assert!(Instant::now() < until, "it ends after 2 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        report_of(&shell(script), work.call()).await,
        "failed Exit5: why"
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn an_adopted_container_has_had_all_of_its_input() {
    let _alone = alone().await;
    let script = "sleep 2; wc -c";
    let mut work = Work::new(script);
    // With its line break, as much as goes in before a start.
    work.input_bytes = 64 * 1024 - 1;
    work.die().await;
    assert_eq!(report_of(&shell(script), work.call()).await, "65536");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn one_that_may_have_lacked_input_is_ended_and_its_result_not_believed() {
    let _alone = alone().await;
    let script = "sleep 2; wc -c";
    let mut work = Work::new(script);
    work.input_bytes = 3_000_000;
    work.die().await;
    let report = report_of(&shell(script), work.call()).await;
    assert!(
        report.starts_with("failed Crashed: its worker died before"),
        "{report}"
    );
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_batch_is_adopted_as_a_whole() {
    let _alone = alone().await;
    let script = "sleep 2; wc -l >&2; exit 6";
    let mut work = Work::new(script);
    work.items = 3;
    work.die().await;
    let reports = reports_of(&shell(script), work.call()).await;
    assert_eq!(reports, ["undecided Exit6: 3"; 3]);
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn what_shares_an_item_with_a_call_is_gone_before_the_call_begins() {
    let _alone = alone().await;
    let mut work = Work::new(WHO);
    work.items = 2;
    let id = work.die().await;
    work.items = 1;
    let report = report_of(&shell(WHO), work.call()).await;
    assert_ne!(report, name_of(&id));
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn the_next_attempt_ends_what_the_one_before_it_left() {
    let _alone = alone().await;
    let work = Work::new(WHO);
    let id = work.die().await;
    let mut call = work.call();
    call.items[0].attempt += 1;
    assert_ne!(report_of(&shell(WHO), call).await, name_of(&id));
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn one_that_was_made_and_never_started_is_made_again() {
    let _alone = alone().await;
    let work = Work::new("echo fine");
    let executor = shell(work.script);
    let mut places = executor.places.clone();
    places.worker = dead_worker();
    let call = work.call();
    let items = [&call.items[0]];
    let identity = Identity::of(&call, &items);
    let task = Task::new(&executor.spec, Vec::new(), &items).expect("no arguments");
    let mut body = container::body(&executor.spec, task);
    container::mark(&mut body, &identity, &places.worker, Fed::BeforeStart);
    let identity = &identity;
    let made = places.take(&Wanted { identity, body }, &Stop::new()).await;
    // The dead remove nothing.
    std::mem::forget(made);
    assert_eq!(names_of(&work.run).await, [format!("/{}", identity.name())]);
    assert_eq!(report_of(&executor, call).await, "\"fine\"");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn one_that_does_other_work_under_the_same_name_is_not_adopted() {
    let _alone = alone().await;
    let work = Work::new(SLEEP);
    work.die().await;
    assert_eq!(report_of(&shell("cat"), work.call()).await, "7");
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_stopped_call_ends_what_it_has_adopted() {
    let _alone = alone().await;
    let work = Work::new(SLEEP);
    work.die().await;
    let stop = Stop::new();
    let executor = shell(SLEEP);
    let mut call = work.call();
    call.grace = Duration::from_secs(1);
    let stopping = async {
        // The container and the claim.
        until_claimed(&executor.places).await;
        stop.cancel();
    };
    let (report, ()) = tokio::join!(executor.call(call, stop.clone()), stopping);
    assert_eq!(words_of(&report.items[0]), "undecided Crashed: stopped");
    until_containers(&work.run, 0).await;
    assert_eq!(claims(&executor.places).await, 0);
}

async fn claims(places: &Places) -> usize {
    let listed = places.engine.list(CLAIM_LABEL).await;
    listed.expect("the engine answers").len()
}

async fn until_claimed(places: &Places) {
    let until = Instant::now() + PATIENCE;
    while claims(places).await == 0 {
        assert!(Instant::now() < until, "nobody adopts it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn what_one_worker_has_adopted_no_other_sweeps() {
    let _alone = alone().await;
    let script = "sleep 5; cat /etc/hostname";
    let work = Work::new(script);
    let id = work.die().await;
    let executor = shell(script);
    let sweeping = async {
        until_claimed(&executor.places).await;
        let sweeping = DockerExecutor::adopting_within(Duration::ZERO, spec(&[]), None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(sweeping);
    };
    let (report, ()) = tokio::join!(report_of(&executor, work.call()), sweeping);
    assert_eq!(report, name_of(&id));
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn of_two_who_claim_one_gets_it_until_it_lets_go_or_dies() {
    let _alone = alone().await;
    let work = Work::new(SLEEP);
    let id = work.die().await;
    let mut places = shell(SLEEP).places.clone();
    let first = places.claim(&id, IMAGE).await.expect("the engine answers");
    let first = first.expect("nobody else has it");
    let second = places.claim(&id, IMAGE).await.expect("the engine answers");
    assert!(second.is_none(), "it is taken");
    first.release().await;
    places.worker = dead_worker();
    let dead = places.claim(&id, IMAGE).await.expect("the engine answers");
    let dead = dead.expect("it was let go");
    places.worker = Worker::own();
    let heir = places.claim(&id, IMAGE).await.expect("the engine answers");
    heir.expect("the dead hold nothing").release().await;
    dead.release().await;
    places.engine.remove(&id).await.expect("ours to remove");
}

/// A process that was, and is not any more.
fn dead_worker() -> Worker {
    let mut child = Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("every system has it");
    let worker = Worker::of(child.id());
    child.kill().expect("our own child");
    child.wait().expect("just killed");
    worker
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn what_nobody_adopts_is_removed_and_what_others_hold_is_left_alone() {
    let _alone = alone().await;
    let work = Work::new(OBEYS);
    work.die().await;
    let living = Work::new(OBEYS);
    let mut worker = living.worker();
    until_running(&living.run).await;
    let _sweeping = DockerExecutor::adopting_within(Duration::ZERO, script("true"), None);
    until_containers(&work.run, 0).await;
    assert!(is_running(&living.run).await, "its worker lives");
    worker.kill().expect("our own child");
    worker.wait().expect("just killed");
    let _sweeping = DockerExecutor::adopting_within(Duration::ZERO, script("true"), None);
    until_containers(&living.run, 0).await;
}

#[tokio::test]
#[ignore = "needs Docker's engine: cargo test --workspace docker -- --include-ignored"]
async fn a_second_call_for_an_attempt_waits_until_the_first_is_over() {
    let executor = shell("sleep 1");
    let work = Work::new("sleep 1");
    let begun = Instant::now();
    let most = async {
        let mut most = 0;
        for _ in 0..20 {
            most = most.max(names_of(&work.run).await.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        most
    };
    let (one, other, most) = tokio::join!(
        executor.call(work.call(), Stop::new()),
        executor.call(work.call(), Stop::new()),
        most
    );
    assert_eq!(words_of(&one.items[0]), "nothing");
    assert_eq!(words_of(&other.items[0]), "nothing");
    assert_eq!(most, 1, "never two at a time");
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "one after the other"
    );
}
