//! Lambda handlers as they are, in a job: Python, Rust, Node and a shell script give what a command gives, and whatever they
//! do wrong is told apart.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use trommel::adapters::handler::{HandlerItem, handler};
use trommel::runner::Embedded;
use trommel_localstack::python;

use crate::support::{Place, figure, wait_until};

/// The runtime client that Lambda's own Python images bring.
pub(crate) const AWSLAMBDARIC: &str = "awslambdaric==4.2.2";

const HANDLERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/handlers");
const RUST: &str = env!("CARGO_BIN_EXE_lambda-work");

/// As the value of `handler` or `command` in a job file.
fn python_handler() -> String {
    let packages = python::packages("awslambdaric", &[AWSLAMBDARIC]);
    let packages = packages
        .expect("awslambdaric is installed from PyPI; it needs python3 and a package index");
    let path = format!("{}:{HANDLERS}", packages.display());
    format!(
        "handler = {{ command = [\"python3\", \"-m\", \"awslambdaric\", \"work.work\"], memory = \"200 MiB\", \
         environment = {{ PYTHONPATH = \"{path}\", THE_MARK = \"MARK\" }} }}"
    )
}

fn rust_handler() -> String {
    format!(
        "handler = {{ command = [\"{RUST}\"], memory = \"200 MiB\", environment = {{ THE_MARK = \"MARK\" }} }}"
    )
}

/// Lines of input, some of which ask for something wrong.
fn lines(count: u64, wrong: impl Fn(u64) -> Option<&'static str>) -> String {
    let mut lines = String::new();
    for n in 0..count {
        let mut line = json!({"n": n, "text": format!("item number {n}")});
        if let Some(what) = wrong(n) {
            line["do"] = what.into();
        }
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines
}

fn place(executor: &str, lines: &str, more: &str) -> Place {
    let place = Place::with_job(&format!(
        "name = \"work\"\ninput = {{ jsonl = \"in.jsonl\" }}\nmax_concurrency = 20\nresults = \"out\"\n{more}\n\
         [function]\ntimeout = \"10s\"\n{executor}\n"
    ));
    place.write("in.jsonl", lines);
    place
}

/// What the results say, without who did it and when, in the order of the items.
pub(crate) fn canonical(place: &Place) -> String {
    let records = place.results("SUCCEEDED");
    let mut outputs: Vec<(u64, String)> = records
        .iter()
        .map(|record| {
            let output = &record["output"];
            (
                output["n"].as_u64().expect("a number"),
                format!("{} → {output}\n", record["input"]),
            )
        })
        .collect();
    outputs.sort();
    outputs.into_iter().map(|(_, line)| line).collect()
}

#[test]
fn every_language_gives_what_a_command_gives() {
    const ITEMS: u64 = 200;
    let executors = [
        (
            "command",
            format!("command = [\"python3\", \"{HANDLERS}/work.py\"]"),
        ),
        ("Python", python_handler()),
        ("Rust", rust_handler()),
        (
            "Node",
            format!("handler = [\"node\", \"{HANDLERS}/bootstrap.mjs\"]"),
        ),
        ("shell", format!("handler = [\"{HANDLERS}/bootstrap.sh\"]")),
    ];
    let input = lines(ITEMS, |_| None);
    let mut first = None;
    for (name, executor) in executors {
        let missing = [("Node", "node"), ("shell", "curl")]
            .into_iter()
            .find(|(language, program)| *language == name && !is_there(program));
        if let Some((_, program)) = missing {
            figure(&format!(
                "LEFT OUT: {name}, as there is no `{program}` on this machine"
            ));
            continue;
        }
        let place = place(&executor, &input, "");
        place.trommel(&["run", "job.toml"]).exits(0);
        let told = canonical(&place);
        assert_eq!(told.lines().count() as u64, ITEMS, "{name}");
        match &first {
            None => first = Some(told),
            Some(first) => assert_eq!(&told, first, "{name}"),
        }
    }
}

/// The same work as a handler of this program.
fn in_process(lines: &str) -> Place {
    let place = Place::new();
    let input = place.write("in.jsonl", lines);
    let work = handler(|item: HandlerItem| async move {
        let event: Value = item.json()?;
        let (n, text) = (
            event["n"].as_u64().unwrap_or_default(),
            event["text"].as_str().unwrap_or_default(),
        );
        Ok(json!({"n": n, "square": n * n, "upper": text.to_uppercase()}))
    });
    let job = format!(
        "name = \"work\"\ninput = {{ jsonl = \"{}\" }}\nresults = \"{}\"\nledger = \"sqlite:{}\"\n",
        input.display(),
        place.path("out").display(),
        place.path(".trommel/ledger.db").display()
    );
    let run = async { Embedded::new(job, work)?.run().await };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(run).expect("it runs");
    place
}

#[test]
fn a_handler_in_rust_gives_what_a_command_gives() {
    let input = lines(200, |_| None);
    let command = place(
        &format!("command = [\"python3\", \"{HANDLERS}/work.py\"]"),
        &input,
        "",
    );
    command.trommel(&["run", "job.toml"]).exits(0);
    assert_eq!(canonical(&in_process(&input)), canonical(&command));
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A tenth of the items goes wrong, in four ways; everything else must not notice.
fn a_tenth_goes_wrong(name: &str, executor: &str, junk_is: &str) {
    const ITEMS: u64 = 1000;
    let ways = ["sleep", "exit", "eat", "junk"];
    let wrong = |n: u64| n.is_multiple_of(10).then(|| ways[(n / 10 % 4) as usize]);
    let mark = format!("{name}-{}", std::process::id());
    let executor = executor.replace("= \"MARK\"", &format!("= \"{mark}\""));
    let place = place(
        &executor,
        &lines(ITEMS, wrong),
        "tolerated_failure_count = 100",
    );
    let done = place
        .start(&["run", "job.toml"])
        .wait_within(Duration::from_mins(5));
    let took = done.waited;
    done.exits(3);
    let counts = place.status().item_counts;
    assert_eq!(
        (counts.succeeded, counts.failed, counts.timed_out),
        (900, 75, 25)
    );
    let mut classes: BTreeMap<String, u32> = BTreeMap::new();
    for item in place
        .items(&["--state", "failed"])
        .into_iter()
        .chain(place.items(&["--state", "timed-out"]))
    {
        *classes.entry(item.class.unwrap_or_default()).or_default() += 1;
    }
    let wanted = [
        ("Timeout", 25),
        ("Crashed", 25),
        ("OutOfMemory", 25),
        (junk_is, 25),
    ];
    let wanted = wanted
        .map(|(class, count)| (class.to_owned(), count))
        .into();
    assert_eq!(classes, wanted);
    place.audit();
    wait_until("nobody is left", Duration::from_secs(10), || {
        processes_with(&mark).is_empty()
    });
    figure(&format!(
        "{name}: 1,000 invocations, 100 of them wrong, in {took:.1?}"
    ));
}

/// Processes that carry this mark in their environment.
fn processes_with(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("Linux").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let wanted = format!("THE_MARK={mark}");
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn what_goes_wrong_under_awslambdaric_is_told_apart() {
    a_tenth_goes_wrong("python", &python_handler(), "BadOutput");
}

#[test]
fn what_goes_wrong_under_lambda_runtime_is_told_apart() {
    a_tenth_goes_wrong("rust", &rust_handler(), "BadOutput");
}

#[test]
fn items_that_need_more_memory_than_a_function_has_end_in_the_container_lane() {
    const ITEMS: u64 = 100;
    let wrong = |n: u64| n.is_multiple_of(10).then_some("eat");
    let container = format!("[container]\ncommand = [\"{HANDLERS}/work.sh\"]");
    let place = Place::with_job(&format!(
        "name = \"escalates\"\ninput = {{ jsonl = \"in.jsonl\" }}\nmax_concurrency = 4\nresults = \"out\"\n\
         [function]\nmax_object = \"1 MiB\"\n{}\n{container}\n",
        python_handler()
    ));
    place.write("in.jsonl", lines(ITEMS, wrong));
    place.trommel(&["run", "job.toml"]).exits(0);
    assert_eq!(place.status().item_counts.list(), [0, 0, ITEMS, 0, 0, 0, 0]);
    let items = place.items(&[]);
    let moved: Vec<&str> = items
        .iter()
        .filter(|item| item.lane == "container")
        .map(|item| item.item.as_str())
        .collect();
    assert_eq!(moved.len(), 10);
    let shown: Value = place
        .trommel(&["show", "latest", moved[0], "--json"])
        .exits(0)
        .json();
    assert_eq!(shown["history"][0]["event"], "moved", "{shown}");
    assert_eq!(shown["history"][0]["detail"], "to the container lane");
    place.audit();
}
