//! The `ecs` executor against a cluster of our own that honours tokens as AWS documents it ("Ensuring idempotency"): no
//! emulator at hand does, and none can lose an answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use trommel::adapters::aws::{Clients, Cluster, EcsExecutor, Endpoint};
use trommel::core::class::Class;
use trommel::core::id::{Epoch, Generation, ItemId, RunId};
use trommel::core::item::Input;
use trommel::core::job::EcsSpec;
use trommel::ports::Executor as _;
use trommel::ports::executor::{Call, CallItem, ItemReport, Output, Stop};

use crate::stub::{Reply, Request, Stub};

/// The tasks of the cluster.
#[derive(Default)]
pub(crate) struct Tasks {
    /// By token: the request without its token, and the task's number.
    tokens: BTreeMap<String, (Value, usize)>,
    pub(crate) stopped: Vec<Stopped>,
    /// Answers of RunTask that get lost, though the task is started.
    lost: usize,
    /// Answers instead of the next tasks.
    refusals: Vec<Value>,
}

/// How a task ends, or has been ended.
#[derive(Clone, Debug)]
pub(crate) enum Stopped {
    /// It is being provisioned.
    Never,
    /// It runs since then.
    Not(SystemTime),
    With(Value),
}

pub(crate) fn exited(code: i32) -> Stopped {
    Stopped::With(json!({
        "stopCode": "EssentialContainerExited",
        "containers": [{ "name": "work", "exitCode": code }],
    }))
}

pub(crate) fn arn(number: usize) -> String {
    format!("arn:aws:ecs:us-east-1:123456789012:task/media/{number}")
}

/// A cluster, and what was asked of it.
pub(crate) struct Ground {
    pub(crate) stub: Stub,
    tasks: Arc<Mutex<Tasks>>,
}

impl Ground {
    /// Tasks end as `end` says, by their number from 0.
    pub(crate) async fn new(end: impl Fn(usize) -> Stopped + Send + Sync + 'static) -> Self {
        let tasks = Arc::new(Mutex::new(Tasks::default()));
        let theirs = tasks.clone();
        let stub = Stub::start(move |request| {
            let mut tasks = theirs.lock().expect("nobody panics holding it");
            tasks.answer(request, &end)
        });
        Self {
            stub: stub.await,
            tasks,
        }
    }

    pub(crate) fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect("nobody panics holding it")
    }

    pub(crate) async fn executor(&self) -> EcsExecutor {
        EcsExecutor::new(Arc::new(self.cluster().await), &spec(), None)
    }

    /// The cluster, as a worker process of its own has it.
    pub(crate) async fn cluster(&self) -> Cluster {
        let clients = Clients::open(Endpoint::emulator(&self.stub.url)).await;
        Cluster::new(&clients, "media")
    }

    pub(crate) fn asked(&self, operation: &str) -> Vec<Value> {
        let asked = self.stub.asked();
        let these = asked.iter().filter(|one| target(one) == operation);
        these.map(Request::json).collect()
    }
}

fn target(request: &Request) -> String {
    let target = request.header("x-amz-target").unwrap_or_default();
    target.rsplit('.').next().unwrap_or_default().to_owned()
}

impl Tasks {
    fn answer(&mut self, request: &Request, end: &dyn Fn(usize) -> Stopped) -> Reply {
        match target(request).as_str() {
            "RunTask" => self.run(request.json(), end),
            "DescribeTasks" => self.describe(&request.json()),
            "StopTask" => self.stop(&request.json()),
            other => panic!("{other} is not the executor's to ask"),
        }
    }

    fn run(&mut self, mut request: Value, end: &dyn Fn(usize) -> Stopped) -> Reply {
        if let Some(refusal) = self.refusals.pop() {
            return Reply::json(200, &refusal);
        }
        let token = request["clientToken"].take();
        let token = token.as_str().expect("a task has a token").to_owned();
        let known = self.tokens.get(&token).cloned();
        let number = match known {
            Some((former, number)) if former == request => number,
            Some((_, number)) => {
                let conflict = json!({
                    "__type": "ConflictException",
                    "message": "the token is in use",
                    "resourceIds": [arn(number)],
                });
                return Reply::json(400, &conflict);
            }
            None => {
                let number = self.stopped.len();
                self.stopped.push(end(number));
                self.tokens.insert(token, (request, number));
                number
            }
        };
        if self.lost > 0 {
            self.lost -= 1;
            return Reply::Lost;
        }
        let task = json!({ "taskArn": arn(number), "lastStatus": "PROVISIONING" });
        Reply::json(200, &json!({ "tasks": [task], "failures": [] }))
    }

    fn describe(&self, request: &Value) -> Reply {
        let asked = request["tasks"].as_array().expect("a list");
        assert!(asked.len() <= 100, "DescribeTasks takes a hundred");
        let task = |(number, stopped): (usize, &Stopped)| {
            let arn = arn(number);
            asked.contains(&json!(arn)).then(|| match stopped {
                Stopped::Never => json!({ "taskArn": arn, "lastStatus": "PROVISIONING" }),
                Stopped::Not(since) => {
                    let since = since.duration_since(UNIX_EPOCH).expect("it is past 1970");
                    json!({ "taskArn": arn, "lastStatus": "RUNNING", "startedAt": since.as_secs_f64() })
                }
                Stopped::With(end) => {
                    let mut task = end.clone();
                    task["taskArn"] = json!(arn);
                    task["lastStatus"] = json!("STOPPED");
                    task
                }
            })
        };
        let tasks: Vec<Value> = self.stopped.iter().enumerate().filter_map(task).collect();
        Reply::json(200, &json!({ "tasks": tasks, "failures": [] }))
    }

    fn stop(&mut self, request: &Value) -> Reply {
        let asked = request["task"].as_str().expect("a task");
        let number = (0..self.stopped.len()).find(|number| arn(*number) == asked);
        let number = number.expect("it was started");
        match self.stopped[number] {
            Stopped::Never | Stopped::Not(_) => {
                self.stopped[number] = Stopped::With(json!({
                    "stopCode": "UserInitiated",
                    "stoppedReason": request["reason"],
                    "containers": [{ "name": "work", "exitCode": 143 }],
                }));
            }
            Stopped::With(_) => {}
        }
        Reply::json(200, &json!({ "task": { "taskArn": asked } }))
    }
}

pub(crate) fn spec() -> EcsSpec {
    EcsSpec {
        cluster: "media".to_owned(),
        task_definition: "thumbnails:7".to_owned(),
        container: "work".to_owned(),
        subnets: vec!["subnet-1".to_owned(), "subnet-2".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        capacity_provider: Some("FARGATE_SPOT".to_owned()),
        events_queue: None,
        environment: BTreeMap::from([("LOG_LEVEL".to_owned(), "info".to_owned())]),
    }
}

pub(crate) fn call(index: u8) -> Call {
    let item = CallItem {
        id: ItemId {
            part: 3,
            number: 17,
            index,
        },
        attempt: 1,
        epoch: Epoch(5),
        generation: Generation(0),
        input: Arc::new(Input::Value(r#"{"a":1}"#.into())),
    };
    Call {
        run: RunId::new("brave-heron-4f2a"),
        items: vec![item],
        batch: false,
        grace: Duration::from_secs(20),
    }
}

pub(crate) const SUCCEEDED: ItemReport = ItemReport::Succeeded(Output::None);

#[tokio::test]
async fn a_task_is_started_where_the_job_says_with_its_item_and_read_by_its_exit() {
    let ground = Ground::new(|_| exited(0)).await;
    let executor = ground.executor().await;
    let report = executor.call(call(1), Stop::new()).await;
    assert_eq!(report.items, [SUCCEEDED]);
    let [asked] = &ground.asked("RunTask")[..] else {
        panic!("one task");
    };
    assert_eq!(asked["cluster"], "media");
    assert_eq!(asked["taskDefinition"], "thumbnails:7");
    assert_eq!(asked["startedBy"], "trommel/brave-heron-4f2a/3-17-1");
    let provider = &asked["capacityProviderStrategy"][0]["capacityProvider"];
    assert_eq!(provider, "FARGATE_SPOT");
    let network = &asked["networkConfiguration"]["awsvpcConfiguration"];
    assert_eq!(network["subnets"], json!(["subnet-1", "subnet-2"]));
    assert_eq!(network["securityGroups"], json!(["sg-1"]));
    let container = &asked["overrides"]["containerOverrides"][0];
    assert_eq!(container["name"], "work");
    let variables = container["environment"].as_array().expect("a list");
    let has = |name: &str, value: &str| {
        let pair = json!({ "name": name, "value": value });
        assert!(variables.contains(&pair), "{name}: {variables:?}");
    };
    has("LOG_LEVEL", "info");
    has("TROMMEL_INPUT", r#"{"a":1}"#);
    has("TROMMEL_ATTEMPT", "1");
    has("TROMMEL_IDEMPOTENCY_KEY", "brave-heron-4f2a/3-17-1");
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_starts_no_second_task() {
    let ground = Ground::new(|_| exited(0)).await;
    ground.tasks().lost = 2;
    let executor = ground.executor().await;
    let report = executor.call(call(1), Stop::new()).await;
    assert_eq!(report.items, [SUCCEEDED]);
    assert_eq!(ground.asked("RunTask").len(), 3, "it was asked again");
    assert_eq!(ground.tasks().stopped.len(), 1, "and started once");
}

#[tokio::test]
async fn who_takes_an_item_over_finds_its_task_by_the_token_though_the_lease_is_another() {
    let ground = Ground::new(|_| Stopped::Never).await;
    let first = ground.executor().await;
    // Its process dies while the task runs.
    let died = tokio::time::timeout(Duration::from_millis(500), first.call(call(1), Stop::new()));
    assert!(died.await.is_err());
    ground.tasks().stopped[0] = exited(0);
    let mut taken_over = call(1);
    taken_over.items[0].epoch = Epoch(6);
    let heir = ground.executor().await;
    let report = heir.call(taken_over, Stop::new()).await;
    assert_eq!(report.items, [SUCCEEDED]);
    assert_eq!(ground.tasks().stopped.len(), 1);

    let mut next = call(1);
    next.items[0].attempt = 2;
    let next = tokio::time::timeout(Duration::from_millis(500), heir.call(next, Stop::new()));
    assert!(next.await.is_err(), "another attempt is another task");
    assert_eq!(ground.tasks().stopped.len(), 2);
}

#[tokio::test]
async fn a_stopped_call_stops_its_task_and_waits_until_it_has_ended() {
    let ground = Ground::new(|_| Stopped::Never).await;
    let executor = ground.executor().await;
    let stop = Stop::new();
    let stopping = async {
        while ground.tasks().stopped.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
    };
    let (report, ()) = tokio::join!(executor.call(call(1), stop.clone()), stopping);
    let [ItemReport::Undecided(failure)] = &report.items[..] else {
        panic!("a stopped task says nothing of its item: {report:?}");
    };
    assert!(failure.cause.contains("UserInitiated"), "{}", failure.cause);
    let [asked] = &ground.asked("StopTask")[..] else {
        panic!("it is stopped once");
    };
    assert_eq!(asked["reason"], "trommel: brave-heron-4f2a");
}

const TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_timeout_counts_from_the_start_of_the_task_and_not_from_its_order() {
    let ground = Ground::new(|_| Stopped::Never).await;
    let executor = ground.executor().await.with_timeout(Some(TIMEOUT));
    let starting = async {
        tokio::time::sleep(TIMEOUT * 2).await;
        assert_eq!(ground.asked("StopTask"), Vec::<Value>::new());
        ground.tasks().stopped[0] = Stopped::Not(SystemTime::now());
    };
    let (report, ()) = tokio::join!(executor.call(call(1), Stop::new()), starting);
    let [ItemReport::Failed(failure)] = &report.items[..] else {
        panic!("it ran too long: {report:?}");
    };
    assert_eq!(failure.class, Class::Timeout);
    assert!(failure.cause.ends_with("ran longer than 1s"), "{failure:?}");
    assert_eq!(ground.asked("StopTask").len(), 1);
}

#[tokio::test]
async fn the_time_of_a_task_that_is_taken_over_began_with_the_task() {
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    let ground = Ground::new(move |_| Stopped::Not(long_ago)).await;
    let executor = ground.executor().await;
    let executor = executor.with_timeout(Some(Duration::from_mins(30)));
    let report = executor.call(call(1), Stop::new()).await;
    let [ItemReport::Failed(failure)] = &report.items[..] else {
        panic!("it ran too long: {report:?}");
    };
    assert_eq!(failure.class, Class::Timeout);
}

#[tokio::test]
async fn a_task_that_has_ended_when_it_is_stopped_for_its_time_is_read_as_it_ended() {
    let ground = Ground::new(|_| Stopped::Not(SystemTime::now())).await;
    let executor = ground.executor().await.with_timeout(Some(TIMEOUT));
    let ending = async {
        while ground.asked("DescribeTasks").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Seen to run; the next look comes as late as the timeout.
        ground.tasks().stopped[0] = exited(3);
    };
    let (report, ()) = tokio::join!(executor.call(call(1), Stop::new()), ending);
    let [ItemReport::Failed(failure)] = &report.items[..] else {
        panic!("it failed: {report:?}");
    };
    assert_eq!(failure.class, Class::named("Exit3"));
}

#[tokio::test]
async fn no_room_is_a_throttle_and_a_missing_definition_is_not() {
    for (reason, class) in [
        ("RESOURCE:CPU", Class::Throttled),
        ("MISSING", Class::Unavailable),
    ] {
        let ground = Ground::new(|_| exited(0)).await;
        let refusal = json!({ "tasks": [], "failures": [{ "reason": reason }] });
        ground.tasks().refusals.push(refusal);
        let executor = ground.executor().await;
        let report = executor.call(call(1), Stop::new()).await;
        let [ItemReport::Failed(failure)] = &report.items[..] else {
            panic!("no task was started: {report:?}");
        };
        assert_eq!(failure.class, class);
    }
}

#[tokio::test]
async fn many_tasks_are_looked_at_together_a_hundred_at_a_time() {
    const CALLS: u8 = 120;
    // Those of even numbers succeed.
    let ground = Ground::new(|number| exited(i32::from(number % 2 == 1))).await;
    let executor = ground.executor().await;
    let calls = (0..CALLS).map(|index| executor.call(call(index), Stop::new()));
    let begun = crate::support::now();
    let reports = futures_util::future::join_all(calls).await;
    let took = begun.elapsed();
    let succeeded = reports.iter().filter(|report| report.items == [SUCCEEDED]);
    assert_eq!(succeeded.count(), usize::from(CALLS / 2));
    let exit_one = |report: &&trommel::ports::executor::CallReport| matches!(&report.items[..], [ItemReport::Failed(failure)] if failure.class == Class::named("Exit1"));
    assert_eq!(
        reports.iter().filter(exit_one).count(),
        usize::from(CALLS / 2)
    );
    // Twenty at once, then twenty a second.
    assert!(took >= Duration::from_millis(4_500), "{took:?}");
    let looks = ground.asked("DescribeTasks").len();
    assert!(looks <= 30, "{looks} looks for {CALLS} tasks");
}

#[tokio::test]
async fn an_item_too_long_for_variables_fails_with_a_way_out_where_there_is_no_scratch_in_s3() {
    let ground = Ground::new(|_| exited(0)).await;
    let executor = ground.executor().await;
    let mut long = call(1);
    let text = format!("\"{}\"", "x".repeat(9_000));
    long.items[0].input = Arc::new(Input::Value(text.as_str().into()));
    let report = executor.call(long, Stop::new()).await;
    let [ItemReport::Failed(failure)] = &report.items[..] else {
        panic!("it cannot be sent: {report:?}");
    };
    assert_eq!(failure.class, Class::BadInput);
    assert!(failure.cause.contains("scratch = "), "{}", failure.cause);
    assert_eq!(ground.asked("RunTask"), Vec::<Value>::new());
}
