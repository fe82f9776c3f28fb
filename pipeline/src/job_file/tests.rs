//! The whole file: good ones field by field, bad ones by the texts that users see.

mod bad_files;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::class::Class;
use crate::core::job::{
    CsvHeaders, DockerSpec, EcsSpec, HandlerSpec, LambdaSpec, LaneSpec, Network, OutputMode,
};
use crate::core::retry::{Errors, Jitter, Then};
use bad_files::bad_files;

fn options() -> ParseOptions {
    ParseOptions {
        executors: Executors::Commands,
        cores: 2,
        // The command was given in the directory of the job file.
        overrides: Overrides {
            dir: "/jobs/photos".into(),
            ..Overrides::default()
        },
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/ada".to_owned()),
        "YEAR" => Some("2026".to_owned()),
        _ => None,
    }
}

fn parsed(text: &str) -> Result<Job, JobErrors> {
    parse(
        text,
        "thumbnails.toml",
        Path::new("/jobs/photos"),
        &env,
        &options(),
    )
}

/// The smallest job with one more stretch of text before its lane.
fn with(text: &str) -> String {
    format!("input = {{ objects = \"in\" }}\n{text}\n[function]\ncommand = [\"true\"]\n")
}

fn good(text: &str) -> Job {
    parsed(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_smallest_job_has_the_defaults_of_the_documentation() {
    let job = good(&with(""));
    let expected = Job {
        name: JobName::new("thumbnails"),
        input: InputSpec::Objects(Location::Path("/jobs/photos/in".into())),
        max_concurrency: 2,
        tolerance: crate::core::tolerance::Tolerance::default(),
        fail_fast: None,
        on_breach: OnBreach::Fail,
        results: None,
        ledger: LedgerUri::Sqlite("/jobs/photos/.trommel/ledger.db".into()),
        scratch: None,
        function: LaneSpec {
            executor: ExecutorSpec::Command {
                argv: vec!["true".to_owned()],
                cwd: "/jobs/photos".into(),
            },
            object_bytes_max: None,
            max_items_per_batch: 1,
            timeout: Some(Duration::from_mins(15)),
            grace: Duration::from_secs(30),
            output: OutputMode::Keep,
        },
        container: None,
        retry: vec![],
        catch: vec![],
    };
    assert_eq!(job, expected);
}

#[test]
fn every_key_is_read() {
    let job = good(
        r#"
        name = "shrink"
        input = { objects = "s3://photos/${YEAR}/" }
        max_concurrency = 1_000
        tolerated_failure_count = 7
        tolerated_failure_percentage = 0.500001
        fail_fast = "10 % of last 1000"
        on_breach = "pause"
        results = "~/out"
        ledger = "dynamodb:trommel"
        scratch = "s3://scratch/${RUNS:-runs}"

        [function]
        command = ["${TOOL:-./thumbnail}", "{path}", "${KEPT}"]
        max_object = "64 MiB"
        timeout = "1min"
        grace = "0s"
        output = "none"

        [container]
        command = ["./big"]
        max_object = "1 GiB"

        [[retry]]
        errors = ["Timeout", "NotAnImage"]
        max_attempts = 0
        interval = "250ms"
        backoff_rate = 1
        max_delay = "1min"
        jitter = "none"

        [[retry]]
        errors = ["ALL"]

        [[catch]]
        errors = ["Gone"]
        then = "skip"
        "#,
    );
    assert_eq!(job.name.as_str(), "shrink");
    let source = Location::S3 {
        bucket: "photos".to_owned(),
        key: "2026/".to_owned(),
    };
    assert_eq!(job.input, InputSpec::Objects(source));
    assert_eq!(job.max_concurrency, 1000);
    assert_eq!(job.tolerance.count, Some(7));
    assert_eq!(
        job.tolerance.percent.expect("it is set").to_string(),
        "0.500001"
    );
    assert_eq!(job.fail_fast.expect("it is set").last, 1000);
    assert_eq!(job.on_breach, OnBreach::Pause);
    assert_eq!(job.results, Some(Location::Path("/home/ada/out".into())));
    assert_eq!(job.ledger, LedgerUri::DynamoDb("trommel".to_owned()));
    let scratch = Location::S3 {
        bucket: "scratch".to_owned(),
        key: "runs".to_owned(),
    };
    assert_eq!(job.scratch, Some(scratch));
    let ExecutorSpec::Command { argv, .. } = &job.function.executor else {
        panic!("a command, not {:?}", job.function.executor);
    };
    assert_eq!(
        argv,
        &["./thumbnail", "{path}", "${KEPT}"],
        "only the program is filled in"
    );
    assert_eq!(job.function.object_bytes_max, Some(64 << 20));
    assert_eq!(job.function.timeout, Some(Duration::from_mins(1)));
    assert_eq!(job.function.grace, Duration::ZERO);
    assert_eq!(job.function.output, OutputMode::None);
    let container = job.container.as_ref().expect("there is one");
    assert_eq!(
        (container.object_bytes_max, container.timeout),
        (Some(1 << 30), None)
    );
    let first = &job.retry[0];
    let classes = vec![Class::Timeout, Class::Named("NotAnImage".to_owned())];
    assert_eq!(first.errors, Errors::Any(classes));
    assert_eq!((first.max_attempts, first.jitter), (0, Jitter::None));
    assert_eq!(first.max_delay, Some(Duration::from_mins(1)));
    let second = &job.retry[1];
    assert_eq!((second.max_attempts, second.jitter), (3, Jitter::Full));
    assert_eq!(second.interval, Duration::from_secs(1));
    assert!((second.backoff_rate - 2.0).abs() < f64::EPSILON);
    assert_eq!(job.catch[0].then, Then::Skip);
}

#[test]
fn every_kind_of_input_is_read() {
    let input = |text: &str| good(&format!("input = {text}\nfunction.command = [\"true\"]")).input;
    let file = |name: &str| Location::Path(Path::new("/jobs/photos").join(name));
    assert_eq!(
        input(r#"{ jsonl = "a.jsonl" }"#),
        InputSpec::Jsonl(file("a.jsonl"))
    );
    assert_eq!(
        input(r#"{ json = "a.json" }"#),
        InputSpec::Json(file("a.json"))
    );
    let headers = CsvHeaders::FirstRow;
    let csv = InputSpec::Csv {
        file: file("a.csv"),
        headers,
        delimiter: b',',
    };
    assert_eq!(input(r#"{ csv = "a.csv" }"#), csv);
    assert_eq!(input(r#"{ csv = "a.csv", headers = "first_row" }"#), csv);
    let headers = CsvHeaders::Given(vec!["id".to_owned(), "name".to_owned()]);
    assert_eq!(
        input(r#"{ csv = "a.csv", headers = ["id", "name"], delimiter = "\t" }"#),
        InputSpec::Csv {
            file: file("a.csv"),
            headers,
            delimiter: b'\t'
        }
    );
    let range = InputSpec::Range {
        start: 0,
        end: 1_000_000,
    };
    assert_eq!(input(r#"{ range = "0..1_000_000" }"#), range);
    let values = r#"{ inline = [1, "a\n", { z = true, a = [0x10, 1.50] }, 2026-01-02] }"#;
    let texts = [
        "1",
        r#""a\n""#,
        r#"{"z":true,"a":[16,1.5]}"#,
        r#""2026-01-02""#,
    ];
    assert_eq!(
        input(values),
        InputSpec::Inline(texts.map(str::to_owned).to_vec())
    );
}

#[test]
fn percentages_are_exact_in_every_spelling() {
    for (written, read) in [
        ("5", "5"),
        ("0.5", "0.5"),
        ("\"12.000001\"", "12.000001"),
        ("0", "0"),
    ] {
        let job = good(&with(&format!("tolerated_failure_percentage = {written}")));
        assert_eq!(job.tolerance.percent.expect("it is set").to_string(), read);
    }
}

#[test]
fn a_job_without_a_name_is_called_after_its_file_or_directory() {
    let named = |file: &str| {
        let job = parse(
            &with(""),
            file,
            Path::new("/jobs/My Photos"),
            &env,
            &options(),
        );
        job.expect("a good job").name
    };
    assert_eq!(
        named("jobs/Shrink them_all.toml").as_str(),
        "shrink-them-all"
    );
    assert_eq!(named("job.toml").as_str(), "my-photos");
    assert_eq!(named("trommel.toml").as_str(), "my-photos");
    assert_eq!(named("ö.toml").as_str(), "job");
    assert_eq!(named(&"x".repeat(99)).as_str().len(), JobName::CHARS_MAX);
}

#[test]
fn an_embedding_program_needs_no_command() {
    let options = ParseOptions {
        executors: Executors::InProcess,
        ..options()
    };
    let parsed = |text: &str| parse(text, "a.toml", Path::new("/jobs"), &env, &options);
    let job = parsed("input = { range = \"0..9\" }").expect("a good job");
    assert_eq!(job.function.executor, ExecutorSpec::InProcess);
    assert_eq!(job.max_concurrency, MAX_CONCURRENCY_DEFAULT);
    let job =
        parsed("input = { range = \"0..9\" }\n[function]\ntimeout = \"none\"").expect("a good job");
    assert_eq!(
        (job.function.executor, job.function.timeout),
        (ExecutorSpec::InProcess, None)
    );
}

#[test]
fn the_command_line_replaces_what_the_file_says() {
    let overrides = Overrides {
        dir: "/elsewhere".into(),
        input: Some("other".to_owned()),
        results: Some("s3://results/x".to_owned()),
        ledger: Some("sqlite:l.db".to_owned()),
        max_concurrency: Some(9),
    };
    let stored = serde_json::to_string(&overrides).expect("it serialises");
    assert_eq!(
        serde_json::from_str::<Overrides>(&stored).expect("it reads back"),
        overrides
    );
    let options = ParseOptions {
        overrides,
        ..options()
    };
    let text = with("max_concurrency = 4\nledger = \"dynamodb:trommel\"");
    let job = parse(&text, "a.toml", Path::new("/jobs"), &env, &options).expect("a good job");
    assert_eq!(
        job.input,
        InputSpec::Objects(Location::Path("/elsewhere/other".into()))
    );
    assert_eq!(job.ledger, LedgerUri::Sqlite("/elsewhere/l.db".into()));
    assert_eq!(job.max_concurrency, 9);
    let results = Location::S3 {
        bucket: "results".to_owned(),
        key: "x".to_owned(),
    };
    assert_eq!(job.results, Some(results));
}

#[test]
fn what_the_command_line_says_wrong_is_told_as_its_option() {
    let overrides = Overrides {
        dir: "/elsewhere".into(),
        input: Some("other".to_owned()),
        results: Some("ftp://x".to_owned()),
        ledger: Some("ledger.db".to_owned()),
        max_concurrency: Some(0),
    };
    let options = ParseOptions {
        overrides,
        ..options()
    };
    let text = "input = { range = \"0..9\" }\nfunction.command = [\"true\"]";
    let errors = parse(text, "a.toml", Path::new("/jobs"), &env, &options).expect_err("four");
    insta::assert_snapshot!("wrong_options", errors.to_string());
    let error = parse_ledger("postgres:x", Path::new("/"), &env).expect_err("no such ledger");
    insta::assert_snapshot!(error.to_string(), @r#"
    error[E0110]: there is no kind of ledger called "postgres"
      --> --ledger or TROMMEL_LEDGER
      help: write "sqlite:PATH" or "dynamodb:TABLE"
    "#);
}

/// The executor of a function lane that says this.
fn executor(text: &str) -> ExecutorSpec {
    good(&format!(
        "input = {{ range = \"0..9\" }}\n[function]\n{text}\n"
    ))
    .function
    .executor
}

fn variables(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

#[test]
fn a_handler_is_a_program_or_a_table() {
    let short = HandlerSpec {
        argv: vec!["/home/ada/bootstrap".to_owned()],
        cwd: "/jobs/photos".into(),
        environment: BTreeMap::new(),
        memory_bytes: None,
    };
    let said = executor("handler = [\"~/bootstrap\"]");
    assert_eq!(said, ExecutorSpec::Handler(short.clone()));
    let long = HandlerSpec {
        environment: variables("YEAR", "of 2026"),
        memory_bytes: Some(512 << 20),
        ..short
    };
    let said = executor(
        "[function.handler]\ncommand = [\"~/bootstrap\"]\nmemory = \"512 MiB\"\nenvironment = { YEAR = \"of ${YEAR}\" }",
    );
    assert_eq!(said, ExecutorSpec::Handler(long));
}

#[test]
fn a_lambda_is_a_name() {
    let function = "arn:aws:lambda:eu-west-1:123456789012:function:thumbnails:live".to_owned();
    let said = executor(&format!("lambda = \"{function}\""));
    assert_eq!(said, ExecutorSpec::Lambda(LambdaSpec { function }));
}

#[test]
fn a_container_is_an_image_or_a_table() {
    let short = DockerSpec {
        image: "work:latest".to_owned(),
        argv: Vec::new(),
        environment: BTreeMap::new(),
        memory_bytes: None,
        cpu_millis: None,
        network: Network::Named("bridge".to_owned()),
        output: OutputMode::Keep,
    };
    assert_eq!(
        executor("docker = \"work:latest\""),
        ExecutorSpec::Docker(short.clone())
    );
    let long = DockerSpec {
        argv: ["cat", "{path}", "${KEPT}"].map(str::to_owned).to_vec(),
        environment: variables("A", "b"),
        memory_bytes: Some(64 << 20),
        cpu_millis: Some(1500),
        network: Network::None,
        output: OutputMode::None,
        ..short
    };
    let said = executor(
        "output = \"none\"\ndocker = { image = \"work:latest\", command = [\"cat\", \"{path}\", \"${KEPT}\"], \
         memory = \"64 MiB\", cpus = 1.5, network = \"none\", environment = { A = \"b\" } }",
    );
    assert_eq!(said, ExecutorSpec::Docker(long));
}

#[test]
fn a_task_names_where_it_runs() {
    let said = executor(
        "ecs = { cluster = \"media\", task_definition = \"work:3\", container = \"work\", subnets = [\"a\", \"b\"], \
         capacity_provider = \"FARGATE_SPOT\", events_queue = \"sqs:media-tasks\" }",
    );
    let wanted = EcsSpec {
        events_queue: Some("media-tasks".to_owned()),
        cluster: "media".to_owned(),
        task_definition: "work:3".to_owned(),
        container: "work".to_owned(),
        subnets: vec!["a".to_owned(), "b".to_owned()],
        security_groups: Vec::new(),
        capacity_provider: Some("FARGATE_SPOT".to_owned()),
        environment: BTreeMap::new(),
    };
    assert_eq!(said, ExecutorSpec::Ecs(wanted));
}

#[test]
fn what_computes_here_has_as_many_calls_as_cores_and_what_computes_elsewhere_many() {
    let at_one_time = |text: &str| {
        let text = format!("input = {{ range = \"0..9\" }}\n[function]\n{text}\n");
        good(&text).max_concurrency
    };
    assert_eq!(at_one_time("handler = [\"true\"]"), 2);
    assert_eq!(at_one_time("docker = \"x\""), 2);
    assert_eq!(at_one_time("lambda = \"x\""), MAX_CONCURRENCY_DEFAULT);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let errors = parsed(
        "nam = \"x\"\ninput = { objects = \"in\" }\nmax_concurrency = 0\n[function]\ntimeout = \"1 hor\"\n",
    )
    .expect_err("four errors");
    let codes: Vec<&str> = errors.0.iter().map(|error| error.code.as_str()).collect();
    assert_eq!(codes, ["E0102", "E0106", "E0103", "E0105"]);
    let json = serde_json::to_value(&errors).expect("it serialises");
    assert_eq!(json[1]["code"], "E0106");
    assert_eq!(
        (&json[1]["line"], &json[1]["column"]),
        (&3.into(), &19.into())
    );
}

#[test]
fn bad_files_are_told_with_place_and_way_out() {
    let mut told = String::new();
    for (what, text) in bad_files() {
        let errors = parsed(&text).expect_err(what);
        assert!(!errors.0.is_empty(), "{what}");
        write!(told, "=== {what}\n{errors}\n\n").expect("a String takes everything");
    }
    assert!(
        !told.contains('\u{1b}'),
        "a job file cannot drive the terminal"
    );
    insta::assert_snapshot!("bad_files", told);
}

#[test]
fn a_file_too_large_to_store_is_refused_before_it_is_read() {
    let text = format!("{}# {}", with(""), "x".repeat(JOB_BYTES_MAX));
    let errors = parsed(&text).expect_err("too large");
    assert_eq!(errors.0[0].code, Code::TooMuch);
}

#[test]
fn every_code_is_told_by_some_bad_file() {
    let told: Vec<Code> = bad_files()
        .iter()
        .flat_map(|(what, text)| parsed(text).expect_err(what).0)
        .map(|error| error.code)
        .collect();
    for code in Code::ALL {
        assert!(told.contains(code), "{code}");
    }
}

/// Lines that a job file may have, good and bad ones alike.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(
        KEYS.iter()
            .chain(&[
                "objects",
                "csv",
                "inline",
                "range",
                "command",
                "timeout",
                "max_object",
            ])
            .chain(&[
                "errors",
                "then",
                "interval",
                "headers",
                "delimiter",
                "zebra",
                "events",
            ])
            .copied()
            .collect::<Vec<_>>(),
    );
    let value = prop_oneof![
        Just("\"x\"".to_owned()),
        Just("[\"ALL\"]".to_owned()),
        Just("{ objects = \"${A:-in}\" }".to_owned()),
        Just("\"1 MiB\"".to_owned()),
        Just("\"10s\"".to_owned()),
        Just("\"s3://abc/d\"".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f32>().prop_map(|n| n.to_string()),
        "\\PC{0,12}",
    ];
    let header = prop::sample::select(vec![
        "[function]",
        "[container]",
        "[[retry]]",
        "[[catch]]",
        "[input]",
    ]);
    prop_oneof![
        6 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => header.prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        if let Err(errors) = parsed(&text) {
            prop_assert!(!errors.0.is_empty());
        }
    }

    #[test]
    fn no_job_file_panics_and_every_refusal_is_told(lines in prop::collection::vec(line(), 0..14)) {
        match parsed(&lines.join("\n")) {
            Ok(job) => prop_assert!(job.max_concurrency > 0 && job.retry.len() <= 8),
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                prop_assert!(errors.0.iter().all(|error| !error.help.is_empty()));
            }
        }
    }
}
