//! Bad input gets a clear error, and nothing is lost: the program as users run it, on what users get wrong.
//!
//! What each parser refuses stands in its own tests; here is what a person sees, and how it goes on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trommel-cli");

/// A directory of its own for a job, its input and its ledger.
struct Place(TempDir);

/// What the program said and how it ended.
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        let path = self.path().join(name.as_ref());
        fs::create_dir_all(path.parent().expect("it lies in the place")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn job(&self, input: &str, command: &str, more: &str) {
        let text = format!(
            "name = \"bad\"\ninput = {{ {input} }}\nresults = \"out\"\n{more}\ncommand = {command}\n"
        );
        self.write("job.toml", text);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.path())
            .env("TROMMEL_LEDGER", "")
            .stdin(Stdio::null());
        command
    }

    fn trommel(&self, arguments: &[&str]) -> Told {
        let output = self.command(arguments).output().expect("the program runs");
        Told {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs the job; the page of the run as JSON.
    fn run(&self) -> (Told, Value) {
        let told = self.trommel(&["--json", "run", "job.toml"]);
        let line = told.stdout.lines().last().unwrap_or_default();
        let page = serde_json::from_str(line).unwrap_or(Value::Null);
        (told, page)
    }

    fn group(&self) -> String {
        self.trommel(&["items", "--group"]).stdout
    }
}

/// The tables of a job whose only lane is `[function]`.
const FUNCTION: &str = "[function]";
const TRUE: &str = r#"["true"]"#;

fn shell(script: &str) -> String {
    format!("[\"sh\", \"-c\", {}]", Value::from(script))
}

#[test]
fn an_input_of_nothing_succeeds() {
    let inputs = [
        ("objects = \"in\"", None),
        ("csv = \"f\"", Some("")),
        ("csv = \"f\"", Some("id,name\n")),
        ("jsonl = \"f\"", Some("")),
        ("json = \"f\"", Some("[]")),
        ("json = \"f\"", Some("{}")),
        ("inline = []", None),
        ("range = \"5..5\"", None),
    ];
    for (input, content) in inputs {
        let place = Place::new();
        fs::create_dir(place.path().join("in")).expect("made");
        if let Some(content) = content {
            place.write("f", content);
        }
        place.job(input, TRUE, FUNCTION);
        let (told, page) = place.run();
        assert_eq!(told.code, Some(0), "{input} {content:?}: {}", told.stderr);
        assert_eq!(page["status"], "SUCCEEDED", "{input} {content:?}");
        assert_eq!(page["itemCounts"]["total"], 0, "{input} {content:?}");
    }
}

/// An input with a fault: how many items stand before it, and what is said of it.
struct Fault {
    input: &'static str,
    content: Vec<u8>,
    before: u64,
    said: &'static str,
}

fn fault(
    input: &'static str,
    content: impl Into<Vec<u8>>,
    before: u64,
    said: &'static str,
) -> Fault {
    Fault {
        input,
        content: content.into(),
        before,
        said,
    }
}

/// One byte more than an item may have.
fn too_long() -> Vec<u8> {
    vec![b'1'; trommel::core::item::ITEM_BYTES_MAX + 1]
}

fn faults() -> Vec<Fault> {
    let csv = "csv = \"f\"";
    let (json, jsonl) = ("json = \"f\"", "jsonl = \"f\"");
    let deep = [vec![b'['; 200], vec![b']'; 200]].concat();
    vec![
        fault(
            csv,
            "a,a\n1,2\n",
            0,
            "f: line 1: the CSV header has \"a\" twice",
        ),
        fault(
            csv,
            "a,b\n1,2\n1,2,3\n",
            1,
            "f: line 3: the row has 3 fields, the header has 2",
        ),
        fault(
            csv,
            "a,b\n1,2\n\"x\"y,2\n",
            1,
            "f: line 3, column 4: the field goes on after its closing quote",
        ),
        fault(
            csv,
            "a,b\n1,2\n\"x,2\n",
            1,
            "f: line 3, column 1: the quote that opens here is never closed",
        ),
        fault(
            csv,
            b"a,b\n1,2\n\xff,2\n".to_vec(),
            1,
            "f: line 3: field 1 is not UTF-8",
        ),
        fault(
            csv,
            [b"a,b\n1,2\n".to_vec(), too_long()].concat(),
            1,
            "f: line 3: the row is longer than 8 MiB",
        ),
        fault(
            json,
            "",
            0,
            "f: line 1, column 1: the JSON is cut short here",
        ),
        fault(json, "5", 0, "f: line 1, column 1: this is a single value"),
        fault(
            json,
            "[1,2",
            2,
            "f: line 1, column 5: the JSON is cut short here",
        ),
        fault(
            json,
            "[1,2,{\"a\": [1,2}]",
            2,
            "f: line 1, column 16: this is not JSON",
        ),
        fault(json, deep.clone(), 0, "nested deeper than 128 levels"),
        fault(jsonl, deep, 0, "nested deeper than 128 levels"),
        fault(
            jsonl,
            "1\n2\nnope\n4\n",
            2,
            "f: line 3, column 2: this is not JSON",
        ),
        fault(
            jsonl,
            b"1\n\xff\n3\n".to_vec(),
            1,
            "f: line 2, column 1: this is not UTF-8",
        ),
        fault(
            jsonl,
            [b"1\n".to_vec(), too_long()].concat(),
            1,
            "f: line 2: the line is longer than 8 MiB",
        ),
    ]
}

#[test]
fn what_stands_before_a_fault_is_processed_and_the_run_fails_by_name() {
    for Fault {
        input,
        content,
        before,
        said,
    } in faults()
    {
        let place = Place::new();
        place.write("f", content);
        place.job(input, TRUE, FUNCTION);
        let (told, page) = place.run();
        assert_eq!(told.code, Some(1), "{said}: {}", told.stderr);
        assert_eq!(page["status"], "FAILED", "{said}");
        let reason = page["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(said), "{reason:?} should say {said:?}");
        assert_eq!(page["itemCounts"]["succeeded"], before, "{said}");
        assert_eq!(page["itemCounts"]["total"], before, "{said}");
    }
}

#[test]
fn after_a_fault_the_way_on_is_told_and_works() {
    let place = Place::new();
    place.write("f", "1\n2\nnope\n4\n");
    place.job("jsonl = \"f\"", TRUE, FUNCTION);
    let told = place.trommel(&["run", "job.toml"]);
    assert_eq!(told.code, Some(1));
    let way = "once the input is repaired, start anew: trommel run job.toml";
    assert!(told.stderr.contains(way), "{}", told.stderr);

    let resumed = place.trommel(&["resume"]);
    assert_eq!(resumed.code, Some(2));
    assert!(
        resumed.stderr.contains("has ended: it is FAILED"),
        "{}",
        resumed.stderr
    );

    place.write("f", "1\n2\n3\n4\n");
    // The run holds to the file that it began to read.
    let redriven = place.trommel(&["redrive"]);
    assert_eq!(redriven.code, Some(1));
    let changed = "f has changed since this run began to read it";
    let told_plainly = redriven
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(told_plainly.contains(changed), "{}", redriven.stderr);
    assert!(redriven.stderr.contains(way), "{}", redriven.stderr);

    let (told, page) = place.run();
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(page["itemCounts"]["succeeded"], 4);
}

#[test]
fn every_name_of_a_file_is_an_item() {
    let place = Place::new();
    let names: [&[u8]; 10] = [
        b"a b",
        b"a+b",
        b"a%20b",
        b"new\nline",
        b"-n",
        b"$HOME;ls",
        b"\"quoted\"",
        b"empty",
        "ü/日本".as_bytes(),
        b"not\xffutf8",
    ];
    for name in names {
        let content: &[u8] = if name == b"empty" { b"" } else { name };
        place.write(OsStr::from_bytes(&[b"in/", name].concat()), content);
    }
    // Each file holds its own name, so that path and key can be compared, byte for byte.
    let script = r#"[ "$2" = empty ] || [ "$(cat "$1")" = "$2" ]"#;
    let command = format!(
        "[\"sh\", \"-c\", {}, \"sh\", \"{{path}}\", \"{{key}}\"]",
        Value::from(script)
    );
    place.job("objects = \"in\"", &command, FUNCTION);
    let (told, page) = place.run();
    assert_eq!(told.code, Some(0), "{}{}", told.stderr, place.group());
    assert_eq!(page["itemCounts"]["succeeded"], names.len());
    let listed: Value =
        serde_json::from_str(&place.trommel(&["items", "--json"]).stdout).expect("JSON");
    let labels: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| item["label"].as_str().expect("a label"))
        .collect();
    assert!(labels.contains(&"new\nline"), "{labels:?}");
    // On a terminal's table a newline stays on its line.
    assert!(place.trommel(&["items"]).stdout.contains("new\\nline"));
}

#[test]
fn a_program_that_is_not_there_is_told_before_anything_starts() {
    for program in [
        "./no-such-program",
        "no-such-program-anywhere",
        "./job.toml",
    ] {
        let place = Place::new();
        place.job("range = \"0..3\"", &format!("[\"{program}\"]"), FUNCTION);
        let told = place.trommel(&["run", "job.toml"]);
        assert_eq!(told.code, Some(2), "{program}");
        assert!(told.stderr.starts_with("error[E0206]"), "{}", told.stderr);
        assert!(told.stderr.contains("help: "), "{}", told.stderr);
        assert!(
            place.trommel(&["runs"]).stdout.contains("no runs yet"),
            "{program}"
        );
    }
}

#[test]
fn a_program_that_misbehaves_fails_its_item_by_class_and_cause() {
    let hang = "timeout = \"1s\"\ngrace = \"1s\"";
    let cases: [(&str, &str, &str); 9] = [
        ("sleep 60", hang, "Timeout: ran longer than #s"),
        (
            "trap : TERM; sleep 60; sleep 60",
            hang,
            "Timeout: ran longer than #s",
        ),
        ("kill -SEGV $$", "", "Crashed: killed by signal # (SIGSEGV)"),
        (
            "kill -KILL $$",
            "",
            "Crashed: killed by signal # (out of memory?)",
        ),
        ("exit 9", "", "Exit9"),
        (
            "yes | head -c 1000000000",
            "",
            "BadOutput: it wrote more than # bytes to stdout, and was ended",
        ),
        (
            "head -c 8388609 /dev/zero | tr '\\0' x",
            "",
            "BadOutput: it wrote more than # bytes",
        ),
        (
            "echo '{\"error\": \"NoRate\", \"cause\": \"none for CHF\"}' >&2; exit 1",
            "",
            "NoRate: none for CHF",
        ),
        (
            "cat >/dev/null; echo junk",
            "max_items_per_batch = 5",
            "BadOutput: a line on stdout is no answer",
        ),
    ];
    for (script, lane, said) in cases {
        let place = Place::new();
        place.job(
            "range = \"0..1\"",
            &shell(script),
            &format!("{FUNCTION}\n{lane}"),
        );
        let (told, page) = place.run();
        assert_eq!(told.code, Some(1), "{script}: {}", told.stderr);
        assert_eq!(page["status"], "FAILED", "{script}");
        let group = place.group();
        assert!(
            group.contains(said),
            "{script}: {group:?} should say {said:?}"
        );
    }
}

#[test]
fn a_program_may_read_little_and_write_much_where_nobody_keeps_it() {
    let cases = [
        ("exec <&-; echo 1", ""),
        ("yes | head -c 1000000000 >&2", ""),
        ("yes | head -c 1000000000", "output = \"none\""),
    ];
    for (script, lane) in cases {
        let place = Place::new();
        // More than a pipe holds, so that the writer notices who does not read.
        place.write("f", format!("\"{}\"\n", "x".repeat(1 << 20)));
        place.job(
            "jsonl = \"f\"",
            &shell(script),
            &format!("{FUNCTION}\n{lane}"),
        );
        let (told, _) = place.run();
        assert_eq!(
            told.code,
            Some(0),
            "{script}: {}{}",
            told.stderr,
            place.group()
        );
    }
}

#[test]
fn a_large_output_is_kept_whole_beside_the_results() {
    for bytes in [1000, 300_000, 7_000_000] {
        let place = Place::new();
        let script = format!("head -c {bytes} /dev/zero | tr '\\0' x");
        place.job("range = \"0..1\"", &shell(&script), FUNCTION);
        let (told, page) = place.run();
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        let out = place.path().join("out");
        let run = out.join(page["run"].as_str().expect("a run"));
        let line = fs::read_to_string(run.join("SUCCEEDED_0.jsonl")).expect("results");
        let record: Value = serde_json::from_str(&line).expect("JSON");
        let output = match record["outputKey"].as_str() {
            Some(key) => {
                let text = fs::read_to_string(out.join(key)).expect("the output's own file");
                serde_json::from_str(&text).expect("JSON")
            }
            None => record["output"].clone(),
        };
        assert_eq!(
            record["outputKey"].is_string(),
            bytes > 256 * 1024,
            "{bytes}"
        );
        assert_eq!(output.as_str().map(str::len), Some(bytes), "{bytes}");
        let shown = place.trommel(&["show", "0-0-0"]).stdout;
        assert!(shown.len() > bytes, "{bytes}: show tells all of it");
    }
}
