//! Job files with something wrong, and what that is.

use super::with;

/// Bad files: what is wrong, and the text.
pub(super) fn bad_files() -> Vec<(&'static str, String)> {
    let lane = |text: &str| format!("input = {{ objects = \"in\" }}\n[function]\n{text}\n");
    let container = "\n[function]\ncommand = [\"true\"]\nmax_object = \"1 MiB\"\n[container]\n";
    let input = |text: &str| format!("input = {text}\nfunction.command = [\"true\"]\n");
    let rules = (0..10).map(|n| format!("[[retry]]\nerrors = [\"Class{n}\"]\n"));
    let ten_rules = rules.collect::<Vec<_>>().concat();
    vec![
        ("an empty file", String::new()),
        (
            "no TOML",
            "input = { objects = in }\nname = \"x\nmax_concurrency = 4\n".to_owned(),
        ),
        ("a key twice", with("name = \"a\"\nname = \"b\"")),
        ("a misspelt key", with("max_concurency = 64")),
        ("a misspelt key in a lane", lane("comand = [\"true\"]")),
        ("a key of nowhere", with("colour = \"red\"")),
        ("a number as text", with("max_concurrency = \"64\"")),
        ("no concurrency", with("max_concurrency = 0")),
        (
            "less than no failures",
            with("tolerated_failure_count = -1"),
        ),
        (
            "a percentage above a hundred",
            with("tolerated_failure_percentage = 100.5"),
        ),
        (
            "a percentage with its sign",
            with("tolerated_failure_percentage = \"5%\""),
        ),
        ("an unreadable brake", with("fail_fast = \"10 of 100\"")),
        ("a misspelt breach", with("on_breach = \"pausse\"")),
        ("a bad name", with("name = \"My Photos\"")),
        ("input as text", input("\"in\"")),
        ("input that says nothing", input("{}")),
        ("two inputs", input("{ objects = \"in\", csv = \"a.csv\" }")),
        (
            "a CSV option on objects",
            input("{ objects = \"in\", delimiter = \";\" }"),
        ),
        ("a directory as CSV", input("{ csv = \"tables/\" }")),
        (
            "a wide delimiter and a double header",
            input("{ csv = \"a\", delimiter = \"||\", headers = [\"a\", \"a\"] }"),
        ),
        ("a closed range", input("{ range = \"0..=9\" }")),
        (
            "a number JSON has not",
            input("{ inline = [1, { x = nan }] }"),
        ),
        (
            "events",
            input("{ events = \"inbox\", window = \"1ms\", dedupe = \"yes\" }"),
        ),
        ("an unset variable", input("{ objects = \"${BUCKET}/in\" }")),
        (
            "a strange scheme",
            input("{ objects = \"gs://bucket/in\" }"),
        ),
        ("no function", "input = { objects = \"in\" }\n".to_owned()),
        ("no executor", lane("timeout = \"1min\"")),
        (
            "two executors",
            lane("command = [\"true\"]\nlambda = \"thumbnail\""),
        ),
        (
            "a handler's misspelt key",
            lane("handler = { comand = [\"./bootstrap\"], memory = \"1 KiB\" }"),
        ),
        (
            "a handler as a line",
            lane("handler = \"python3 -m awslambdaric app.handler\""),
        ),
        ("a function without a name", lane("lambda = \"\"")),
        (
            "a container's impossible bounds",
            lane(
                "docker = { image = \"x\", cpus = \"two\", environment = { TROMMEL_RUN = \"x\" } }",
            ),
        ),
        (
            "a variable that is no text",
            lane("docker = { image = \"x\", environment = { DEBUG = 1 } }"),
        ),
        (
            "half a task",
            lane("ecs = { cluster = \"media\", task_definition = \"x\" }"),
        ),
        (
            "events of tasks in no queue",
            lane(
                "ecs = { cluster = \"c\", task_definition = \"t\", container = \"w\", subnets = [\"s\"], events_queue = \"media\" }",
            ),
        ),
        (
            "events of tasks where those of objects are",
            "input = { events = \"sqs:inbox\" }\nledger = \"dynamodb:trommel\"\nscratch = \"s3://parts/p\"\n[function]\n\
             ecs = { cluster = \"c\", task_definition = \"t\", container = \"w\", subnets = [\"s\"], events_queue = \"sqs:inbox\" }\n"
                .to_owned(),
        ),
        (
            "events of tasks where those of objects are, by its URL",
            "input = { events = \"sqs:inbox\" }\nledger = \"dynamodb:trommel\"\nscratch = \"s3://parts/p\"\n[function]\n\
             ecs = { cluster = \"c\", task_definition = \"t\", container = \"w\", subnets = [\"s\"], events_queue = \"sqs:https://sqs.eu-west-1.amazonaws.com/123456789012/inbox\" }\n"
                .to_owned(),
        ),
        (
            "events of tasks where the lane's hints are",
            "name = \"n\"\ninput = { inline = [1] }\nledger = \"dynamodb:trommel\"\nscratch = \"s3://parts/p\"\n[function]\n\
             ecs = { cluster = \"c\", task_definition = \"t\", container = \"w\", subnets = [\"s\"], events_queue = \"sqs:trommel-n-function\" }\n"
                .to_owned(),
        ),
        (
            "tasks for batches",
            lane(
                "max_items_per_batch = 9\necs = { cluster = \"c\", task_definition = \"t\", container = \"w\", subnets = [\"s\"] }",
            ),
        ),
        (
            "a command line",
            lane("command = \"convert -resize 50% {path}\""),
        ),
        ("an empty command", lane("command = []")),
        (
            "a bad size",
            lane("command = [\"true\"]\nmax_object = \"64 Mibs\""),
        ),
        (
            "a duration without unit",
            lane("command = [\"true\"]\ntimeout = 60"),
        ),
        (
            "a bad and a zero duration",
            lane("command = [\"true\"]\ntimeout = \"0s\"\ngrace = \"soon\""),
        ),
        (
            "a batch of none",
            lane("command = [\"true\"]\nmax_items_per_batch = 0"),
        ),
        (
            "a batch too large",
            lane("command = [\"true\"]\nmax_items_per_batch = 101"),
        ),
        (
            "a path in a batch",
            lane("command = [\"cat\", \"{path}\"]\nmax_items_per_batch = 2"),
        ),
        (
            "a container never reached",
            format!("{}[container]\ncommand = [\"true\"]\n", with("")),
        ),
        (
            "a container no larger",
            format!(
                "input.objects = \"in\"{container}command = [\"true\"]\nmax_object = \"1 MiB\"\n"
            ),
        ),
        (
            "a batch of containers",
            format!(
                "input.objects = \"in\"{container}command = [\"true\"]\nmax_items_per_batch = 5\n"
            ),
        ),
        ("too many retry rules", format!("{}{ten_rules}", with(""))),
        (
            "too many attempts, a rate below 1",
            with("[[retry]]\nerrors = [\"ALL\"]\nmax_attempts = 36\nbackoff_rate = 0.5"),
        ),
        (
            "a cap below the first wait",
            with("[[retry]]\nerrors = [\"ALL\"]\ninterval = \"10s\"\nmax_delay = \"1s\""),
        ),
        (
            "classes of elsewhere",
            with(
                "[[retry]]\nerrors = [\"States.Timeout\"]\n[[retry]]\nerrors = [\"outofmemory\"]\n[[retry]]\nerrors = [\"States.TaskFailed\"]",
            ),
        ),
        (
            "a rule after ALL",
            with("[[retry]]\nerrors = [\"ALL\"]\n[[retry]]\nerrors = [\"Timeout\"]"),
        ),
        ("one bracket too few", with("[retry]\nerrors = [\"ALL\"]")),
        ("no errors, no then", with("[[catch]]")),
        (
            "catch without container",
            with("[[catch]]\nerrors = [\"Timeout\"]\nthen = \"container\""),
        ),
        (
            "a table without scratch",
            with("ledger = \"dynamodb:trommel\""),
        ),
        (
            "a local scratch for a table",
            with("ledger = \"dynamodb:trommel\"\nscratch = \"./scratch\""),
        ),
        (
            "a table's name too long",
            with(&format!(
                "ledger = \"dynamodb:{}\"\nscratch = \"s3://bucket\"",
                "t".repeat(70)
            )),
        ),
        ("a ledger of nowhere", with("ledger = \"./ledger.db\"")),
        ("results in the input", with("results = \"./in/out\"")),
        ("everything in the input", input("{ objects = \".\" }")),
        (
            "control characters",
            "input = { objects = \"in\" }\n\"\\u001b[31m\" = 1\n\t\tname = 5 # \u{1b}".to_owned(),
        ),
    ]
}
