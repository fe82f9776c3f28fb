//! The README and the command line hold to what they say: their blocks are run, their output compared.
//!
//! The README shows real output; names of runs, clocks and speeds differ each time, so they are elided
//! here, in the copy that is compared, not there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use trycmd::TestCases;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PROGRAM: &str = env!("CARGO_BIN_EXE_trommel-cli");

fn cases() -> TestCases {
    let cases = TestCases::new();
    cases.register_bin("trommel", Path::new(PROGRAM));
    cases.register_bin("sh", Path::new("/bin/sh"));
    // What the machine sets must not lead a test to another ledger; an empty variable is none.
    for name in ["TROMMEL_LEDGER", "TROMMEL_LOG", "RUST_LOG"] {
        cases.env(name, "");
    }
    cases
}

/// A command of a console block, and what stands below it.
struct Step {
    command: String,
    output: Vec<String>,
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Vec<String>)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info == language, Vec::new())),
            (Some(_), Some(_)) => {
                let (wanted, lines) = open.take().expect("it is open");
                blocks.extend(wanted.then_some(lines));
            }
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

fn steps(blocks: &[Vec<String>]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks.iter().flatten() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                output: Vec::new(),
            });
            continue;
        }
        let step = steps.last_mut().expect("a command comes first");
        step.output.push(line.clone());
    }
    steps
}

/// The steps as trycmd reads them: shell commands through a shell, `echo $?` as the status of the step
/// before, the lines that a pipe gets while a run is worked on allowed for.
fn scenario(steps: &[Step]) -> String {
    let mut text = String::from("```console\n");
    let mut steps = steps.iter().peekable();
    while let Some(step) = steps.next() {
        match step.command.split(' ').next() {
            Some("trommel") => writeln!(text, "$ {}", step.command),
            _ => writeln!(text, "$ sh -c '{}'", step.command),
        }
        .expect("a String takes everything");
        if let Some(status) = steps.next_if(|next| next.command == "echo $?") {
            writeln!(text, "? {}", status.output.join("")).expect("a String takes everything");
        }
        for line in &step.output {
            if line.split("  ").next().is_some_and(is_run) {
                text.push_str("...\n");
            }
            text.push_str(&elided(line));
            text.push('\n');
        }
        // Without a blank line below it, trycmd takes the last line for one without an end.
        if !step.output.is_empty() {
            text.push('\n');
        }
    }
    text.push_str("```\n");
    text
}

/// The line with what differs from run to run as `[..]`.
fn elided(line: &str) -> String {
    let line = match (line.find("at most "), line.find(" calls at once")) {
        (Some(start), Some(end)) => format!("{}at most [..]{}", &line[..start], &line[end..]),
        _ => line.to_owned(),
    };
    line.split(' ')
        .map(|word| {
            if is_clock(word) || is_rate(word) {
                return "[..]".to_owned();
            }
            let pieces = word
                .split('/')
                .map(|piece| if is_run(piece) { "[..]" } else { piece });
            pieces.collect::<Vec<_>>().join("/")
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn is_clock(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    parts.len() == 3
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_rate(word: &str) -> bool {
    word.strip_suffix("/s")
        .is_some_and(|number| number.parse::<f64>().is_ok())
}

/// `brave-heron-4f2a`.
fn is_run(word: &str) -> bool {
    let parts: Vec<&str> = word.split('-').collect();
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
    match parts[..] {
        [first, second, draw] => {
            let is_draw = draw.len() == 4 && draw.bytes().all(|b| b.is_ascii_hexdigit());
            is_word(first) && is_word(second) && is_draw
        }
        _ => false,
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory can be made");
    for entry in fs::read_dir(from).expect("the directory can be read") {
        let entry = entry.expect("the directory can be read");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target);
        } else {
            fs::copy(&source, &target).expect("the file can be copied");
        }
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).expect("there is a README")
}

#[test]
fn the_readme_shows_what_happens() {
    let readme = readme();
    let steps = steps(&blocks(&readme, "console"));
    // The first command is run by the whole check: it takes the real crates of the machine.
    let steps: Vec<Step> = steps
        .into_iter()
        .filter(|step| !step.command.starts_with("cargo ") && !step.command.starts_with("alias "))
        .collect();
    assert!(steps.len() >= 4, "run, look, repair, redrive");

    let place = tempfile::tempdir().expect("a directory");
    let case: PathBuf = place.path().join("readme.trycmd");
    fs::write(&case, scenario(&steps)).expect("written");
    // The directory beside the case is its sandbox; one for expected files makes it writable.
    let examples = Path::new("pipeline/examples");
    copy_tree(
        &Path::new(ROOT).join(examples),
        &place.path().join("readme.in").join(examples),
    );
    fs::create_dir(place.path().join("readme.out")).expect("a directory");
    cases().case(&case);
}

#[test]
fn the_jobs_of_the_readme_are_jobs() {
    use trommel::job_file::{Executors, Overrides, ParseOptions, parse};
    let readme = readme();
    let jobs = blocks(&readme, "toml");
    assert_eq!(
        jobs.len(),
        4,
        "the README has a job of files, one of events, one of handlers, and one whose calls AWS carries out"
    );
    let options = ParseOptions {
        executors: Executors::Commands,
        cores: 2,
        overrides: Overrides::default(),
    };
    for job in jobs {
        let text = job.join("\n");
        let base = Path::new("/");
        if let Err(errors) = parse(&text, "README.md", base, &|_: &str| None, &options) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_command_line_says_what_is_wrong_and_what_to_do() {
    cases().case(concat!(env!("CARGO_MANIFEST_DIR"), "/cli/*.trycmd"));
}
