//! What carries out a lane's calls: exactly one of `command`, `handler`, `lambda`, `docker`, `ecs`.
//!
//! Whether a program, function or image is there is not looked at here.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeTable;

use crate::core::job::{
    DockerSpec, EcsSpec, ExecutorSpec, HandlerSpec, LambdaSpec, NETWORK_DEFAULT, Network,
    OutputMode,
};

use super::error::Code;
use super::reading::{Fields, Problem, Reading, kind};
use super::{Executors, events, lanes, places};

/// The executors, as a lane's table names them.
pub(super) const KEYS: [&str; 5] = ["command", "handler", "lambda", "docker", "ecs"];

pub(super) const COMMAND_EXAMPLE: &str = "[\"./thumbnail\", \"{path}\"]";
const HANDLER_EXAMPLE: &str = "[\"python3\", \"-m\", \"awslambdaric\", \"app.handler\"]";
const LAMBDA_EXAMPLE: &str = "\"thumbnails\"";
const DOCKER_EXAMPLE: &str = "\"thumbnails:latest\"";
const ECS_EXAMPLE: &str = "{ cluster = \"media\", task_definition = \"thumbnails\", container = \"work\", subnets = [\"subnet-1\"] }";
const EVENTS_QUEUE_EXAMPLE: &str = "\"sqs:media-tasks\"";
const ENVIRONMENT_EXAMPLE: &str = "{ LOG_LEVEL = \"info\" }";

const HANDLER_KEYS: [&str; 3] = ["command", "environment", "memory"];
const DOCKER_KEYS: [&str; 6] = [
    "image",
    "command",
    "environment",
    "memory",
    "cpus",
    "network",
];
const ECS_KEYS: [&str; 8] = [
    "cluster",
    "task_definition",
    "container",
    "subnets",
    "security_groups",
    "capacity_provider",
    "events_queue",
    "environment",
];

/// More cores than any machine has.
const CPUS_MAX: f64 = 4096.0;

/// Docker's least ("Runtime options with Memory, CPUs, and GPUs"): less does not start anything.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// The value is there and was refused; the errors say why.
struct Refused;

/// Reads the one executor of a lane.
pub(super) fn read(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    executors: Executors,
    output: OutputMode,
) -> Option<ExecutorSpec> {
    let mut named = KEYS.into_iter().filter(|key| fields.get(key).is_some());
    let Some(first) = named.next() else {
        if executors == Executors::InProcess {
            return Some(ExecutorSpec::InProcess);
        }
        let help = format!("say what to run: command = {COMMAND_EXAMPLE}");
        reading.require(fields, "command", &help);
        return None;
    };
    if let Some(second) = named.next() {
        let message = format!("{} has both `{first}` and `{second}`", fields.title);
        let help = "keep one of them; a lane has exactly one executor";
        reading.refuse_at(
            fields.key_span(second),
            Problem::new(Code::Conflict, message, help),
        );
        return None;
    }
    match first {
        "command" => Some(ExecutorSpec::Command {
            argv: argv(reading, fields, "command", COMMAND_EXAMPLE)?,
            cwd: reading.base.to_path_buf(),
        }),
        "handler" => handler(reading, fields).map(ExecutorSpec::Handler),
        "lambda" => lambda(reading, fields).map(ExecutorSpec::Lambda),
        "docker" => docker(reading, fields, output).map(ExecutorSpec::Docker),
        _ => ecs(reading, fields).map(ExecutorSpec::Ecs),
    }
}

fn handler(reading: &mut Reading<'_>, lane: &Fields<'_>) -> Option<HandlerSpec> {
    let cwd = reading.base.to_path_buf();
    let Some(table) = table_of(lane, "handler") else {
        return Some(HandlerSpec {
            argv: argv(reading, lane, "handler", HANDLER_EXAMPLE)?,
            cwd,
            environment: BTreeMap::new(),
            memory_bytes: None,
        });
    };
    let fields = reading.open("handler", table, &HANDLER_KEYS);
    reading.require(
        &fields,
        "command",
        &format!("say what to run: command = {HANDLER_EXAMPLE}"),
    );
    let argv = argv(reading, &fields, "command", HANDLER_EXAMPLE);
    let environment = environment(reading, &fields);
    let memory_bytes = memory(reading, &fields);
    Some(HandlerSpec {
        argv: argv?,
        cwd,
        environment: environment?,
        memory_bytes: memory_bytes.ok()?,
    })
}

fn lambda(reading: &mut Reading<'_>, lane: &Fields<'_>) -> Option<LambdaSpec> {
    let function = words(reading, lane, "lambda", LAMBDA_EXAMPLE)?;
    Some(LambdaSpec { function })
}

fn docker(reading: &mut Reading<'_>, lane: &Fields<'_>, output: OutputMode) -> Option<DockerSpec> {
    let Some(table) = table_of(lane, "docker") else {
        return Some(DockerSpec {
            image: words(reading, lane, "docker", DOCKER_EXAMPLE)?,
            argv: Vec::new(),
            environment: BTreeMap::new(),
            memory_bytes: None,
            cpu_millis: None,
            network: Network::Named(NETWORK_DEFAULT.to_owned()),
            output,
        });
    };
    let fields = reading.open("docker", table, &DOCKER_KEYS);
    reading.require(
        &fields,
        "image",
        &format!("say which image: image = {DOCKER_EXAMPLE}"),
    );
    let image = words(reading, &fields, "image", DOCKER_EXAMPLE);
    let argv = match fields.get("command") {
        Some(_) => plain_words(reading, &fields, "command", COMMAND_EXAMPLE),
        None => Some(Vec::new()),
    };
    let environment = environment(reading, &fields);
    let memory_bytes = memory(reading, &fields);
    let cpu_millis = cpus(reading, &fields);
    let network = match fields.get("network") {
        Some(_) => words(reading, &fields, "network", "\"none\""),
        None => Some(NETWORK_DEFAULT.to_owned()),
    };
    Some(DockerSpec {
        image: image?,
        argv: argv?,
        environment: environment?,
        memory_bytes: memory_bytes.ok()?,
        cpu_millis: cpu_millis.ok()?,
        network: match network? {
            name if name == "none" => Network::None,
            name => Network::Named(name),
        },
        output,
    })
}

fn ecs(reading: &mut Reading<'_>, lane: &Fields<'_>) -> Option<EcsSpec> {
    let table = reading.table(lane, "ecs", ECS_EXAMPLE)?;
    let fields = reading.open("ecs", table, &ECS_KEYS);
    let mut text = |key: &str| {
        reading.require(
            &fields,
            key,
            &format!("write it like this: ecs = {ECS_EXAMPLE}"),
        );
        words(reading, &fields, key, "\"…\"")
    };
    let (cluster, task_definition, container) =
        (text("cluster"), text("task_definition"), text("container"));
    reading.require(
        &fields,
        "subnets",
        "name at least one: subnets = [\"subnet-1\"]",
    );
    let subnets = plain_words(reading, &fields, "subnets", "[\"subnet-1\"]");
    let security_groups = match fields.get("security_groups") {
        Some(_) => plain_words(reading, &fields, "security_groups", "[\"sg-1\"]"),
        None => Some(Vec::new()),
    };
    let capacity_provider = match fields.get("capacity_provider") {
        Some(_) => words(reading, &fields, "capacity_provider", "\"FARGATE_SPOT\"").map(Some),
        None => Some(None),
    };
    let events_queue = match fields.get("events_queue") {
        Some(_) => events::queue(reading, &fields, "events_queue", EVENTS_QUEUE_EXAMPLE).map(Some),
        None => Some(None),
    };
    let environment = environment(reading, &fields);
    Some(EcsSpec {
        cluster: cluster?,
        task_definition: task_definition?,
        container: container?,
        subnets: subnets?,
        security_groups: security_groups?,
        capacity_provider: capacity_provider?,
        events_queue: events_queue?,
        environment: environment?,
    })
}

/// The key's value, if it is a table.
fn table_of<'t>(
    fields: &Fields<'t>,
    key: &str,
) -> Option<(&'t DeTable<'t>, std::ops::Range<usize>)> {
    let value = fields.get(key)?;
    Some((value.get_ref().as_table()?, value.span()))
}

/// A text that says something, with its `${…}` filled in.
fn words(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
) -> Option<String> {
    let text = reading.text(fields, key, example)?;
    let filled = places::expand(text.get_ref(), reading.env);
    let filled = reading.take(text.span(), filled)?;
    if filled.is_empty() {
        let problem = Problem::new(
            Code::BadForm,
            format!("`{key}` is empty"),
            format!("write it like this: {key} = {example}"),
        );
        reading.refuse_at(text.span(), problem);
        return None;
    }
    Some(filled)
}

/// argv as it is written; only the program's own path is filled in: `${…}` in an argument may be
/// meant for a shell that the program is.
fn argv(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
) -> Option<Vec<String>> {
    refuse_line(reading, fields, key)?;
    let words = reading.texts(fields, key, example)?;
    let (program, arguments) = words.get_ref().split_first()?;
    let filled = places::expand(program.get_ref(), reading.env);
    let mut argv = vec![reading.take(program.span(), filled)?];
    argv.extend(arguments.iter().map(|word| (*word.get_ref()).to_owned()));
    for (word, text) in words.get_ref().iter().zip(&argv) {
        check_word(reading, word, text)?;
    }
    if argv[0].is_empty() {
        let problem = Problem::new(Code::BadForm, "the program has no name", "name a program");
        reading.refuse_at(program.span(), problem);
        return None;
    }
    Some(argv)
}

/// A list of texts as they are written.
fn plain_words(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
) -> Option<Vec<String>> {
    refuse_line(reading, fields, key)?;
    let words = reading.texts(fields, key, example)?;
    let mut plain = Vec::new();
    for word in words.get_ref() {
        check_word(reading, word, word.get_ref())?;
        plain.push((*word.get_ref()).to_owned());
    }
    Some(plain)
}

fn check_word(reading: &mut Reading<'_>, word: &Spanned<&str>, text: &str) -> Option<()> {
    if !text.contains('\0') {
        return Some(());
    }
    let problem = Problem::new(
        Code::BadForm,
        "an argument holds a NUL character",
        "pass plain text",
    );
    reading.refuse_at(word.span(), problem);
    None
}

/// A command line written as one text would need a shell to take it apart.
fn refuse_line(reading: &mut Reading<'_>, fields: &Fields<'_>, key: &str) -> Option<()> {
    let value = fields.get(key)?;
    let Some(line) = value.get_ref().as_str() else {
        return Some(());
    };
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| format!("{word:?}"))
        .collect();
    let message = format!("`{key}` must be a list: the program, then its arguments");
    let help = format!(
        "write {key} = [{}], or {key} = [\"sh\", \"-c\", {line:?}]",
        words.join(", ")
    );
    reading.refuse_at(value.span(), Problem::new(Code::WrongType, message, help));
    None
}

/// Variables by name; `${…}` in their values is filled in when the job is read, so that the stored text holds no secret.
fn environment(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<BTreeMap<String, String>> {
    const KEY: &str = "environment";
    let mut variables = BTreeMap::new();
    if fields.get(KEY).is_none() {
        return Some(variables);
    }
    let (table, _) = reading.table(fields, KEY, ENVIRONMENT_EXAMPLE)?;
    for (name, value) in table {
        let shown = name.get_ref().escape_debug();
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            let message = format!("no variable can be named \"{shown}\"");
            let problem = Problem::new(Code::BadForm, message, "use letters, digits and `_`");
            reading.refuse_at(name.span(), problem);
            return None;
        }
        if name.get_ref().starts_with("TROMMEL_") || name.get_ref() == "AWS_LAMBDA_RUNTIME_API" {
            let message = format!("`{shown}` is set by Trommel itself, for each call");
            let problem = Problem::new(Code::Conflict, message, "use another name");
            reading.refuse_at(name.span(), problem);
            return None;
        }
        let Some(text) = value.get_ref().as_str() else {
            let message = format!(
                "the variable `{shown}` must be a text, not {}",
                kind(value.get_ref())
            );
            let help = format!("write it like this: {KEY} = {ENVIRONMENT_EXAMPLE}");
            reading.refuse_at(value.span(), Problem::new(Code::WrongType, message, help));
            return None;
        };
        let filled = places::expand(text, reading.env);
        let filled = reading.take(value.span(), filled)?;
        variables.insert(name.get_ref().clone().into_owned(), filled);
    }
    Some(variables)
}

/// `memory`, if it is there.
fn memory(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Result<Option<u64>, Refused> {
    const KEY: &str = "memory";
    let Some(value) = fields.get(KEY) else {
        return Ok(None);
    };
    let bytes = lanes::size(reading, fields, KEY).ok_or(Refused)?;
    if bytes < MEMORY_BYTES_MIN {
        let message = "nothing starts with so little memory";
        let help = "write at least \"6 MiB\"; most languages need ten times that";
        reading.refuse_at(value.span(), Problem::new(Code::OutOfBounds, message, help));
        return Err(Refused);
    }
    Ok(Some(bytes))
}

/// `cpus`, if it is there, in thousandths.
fn cpus(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Result<Option<u64>, Refused> {
    let Some(value) = fields.get("cpus") else {
        return Ok(None);
    };
    let text = match (value.get_ref().as_float(), value.get_ref().as_integer()) {
        (Some(float), _) => Some(float.as_str()),
        (None, Some(integer)) => Some(integer.as_str()),
        (None, None) => None,
    };
    let cpus = text.and_then(|text| text.replace('_', "").parse::<f64>().ok());
    match cpus.filter(|cpus| (0.001..=CPUS_MAX).contains(cpus)) {
        Some(cpus) => Ok(Some((cpus * 1000.0).round() as u64)),
        None => {
            let message = "`cpus` must be a number of cores";
            let help = format!("write cpus = 0.5, or any other number up to {CPUS_MAX}");
            reading.refuse_at(value.span(), Problem::new(Code::OutOfBounds, message, help));
            Err(Refused)
        }
    }
}
