//! What goes in and out of a command as text, and what its end means for its items. Pure.
//!
//! One item: its JSON on stdin; stdout is the output. A batch: a JSON line an item in both directions.
//! In a batch the first answer for an item counts. Every line that answers nothing (no JSON, an unknown
//! item, a second answer) is junk: if the command then claims success, it is not believed for the items
//! it did not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::child::{Ended, Exit};
use crate::core::class::{CAUSE_BYTES_MAX, Class, Failure};
use crate::core::id::RunId;
use crate::core::job::OutputMode;
use crate::ports::executor::{CallItem, ItemReport, OUTPUT_BYTES_MAX, Output};

/// How much of a junk line an error shows.
const JUNK_BYTES_SHOWN: usize = 120;

/// The stdin of a call with one item.
pub(in crate::adapters) fn single_input(item: &CallItem) -> String {
    let mut json = item.input.to_json();
    json.push('\n');
    json
}

/// What a call with one item finds in its environment.
pub(in crate::adapters) fn single_variables(
    run: &RunId,
    item: &CallItem,
) -> [(&'static str, String); 5] {
    [
        ("TROMMEL_RUN", run.to_string()),
        ("TROMMEL_ITEM", item.id.to_string()),
        ("TROMMEL_ATTEMPT", item.attempt.to_string()),
        ("TROMMEL_EPOCH", item.epoch.to_string()),
        ("TROMMEL_IDEMPOTENCY_KEY", item.idempotency_key(run)),
    ]
}

/// What a batch finds in its environment: nothing that would name one item.
pub(in crate::adapters) fn batch_variables(
    run: &RunId,
    items: &[&CallItem],
) -> [(&'static str, String); 3] {
    let attempt = items.iter().map(|item| item.attempt).max().unwrap_or(1);
    let epoch = items.iter().map(|item| item.epoch).max();
    [
        ("TROMMEL_RUN", run.to_string()),
        ("TROMMEL_ATTEMPT", attempt.to_string()),
        ("TROMMEL_EPOCH", epoch.unwrap_or_default().to_string()),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InputLine<'a> {
    item: &'a str,
    attempt: u32,
    idempotency_key: &'a str,
    input: &'a RawValue,
}

/// The stdin of a batch: a line an item, each made as it is asked for, so that a batch is never whole in memory twice.
///
/// # Errors
/// Names the item whose input is no JSON.
pub(in crate::adapters) fn batch_input<'a>(
    run: &'a RunId,
    items: &'a [&CallItem],
) -> Result<impl Iterator<Item = String> + Send + 'a, Failure> {
    for item in items {
        serde_json::from_str::<&RawValue>(&item.input.to_json()).map_err(|error| {
            let cause = format!("the input of item {} is no JSON: {error}", item.id);
            Failure::new(Class::BadInput, cause)
        })?;
    }
    Ok(items.iter().map(move |item| input_line(run, item)))
}

fn input_line(run: &RunId, item: &CallItem) -> String {
    let input = RawValue::from_string(on_one_line(item.input.to_json()));
    let line = InputLine {
        item: &item.id.to_string(),
        attempt: item.attempt,
        idempotency_key: &item.idempotency_key(run),
        input: &input.expect("it was looked at before"),
    };
    let line = serde_json::to_string(&line).expect("strings and numbers always serialise");
    line + "\n"
}

/// JSON text without line breaks: between its tokens they are only space, and in strings they are escaped.
fn on_one_line(json: String) -> String {
    if json.contains(['\n', '\r']) {
        return json.replace(['\n', '\r'], " ");
    }
    json
}

/// The failure of a call that was told to stop.
pub(in crate::adapters) fn stopped() -> Failure {
    Failure::new(Class::Crashed, "stopped")
}

/// Why the process as a whole failed, or nothing if it exited with 0.
fn failure_of(ended: &Ended) -> Option<Failure> {
    let signal_cause = |signal: i32| match signal {
        9 => "killed by signal 9 (out of memory?)".to_owned(),
        _ => format!("killed by signal {signal}{}", signal_name(signal)),
    };
    match ended.exit {
        Exit::Code(0) => None,
        Exit::Code(code) => Some(exit_failure(code, &ended.stderr)),
        Exit::Signal(signal) => {
            let cause = signal_cause(signal);
            let cause = with_last_words(&cause, &ended.stderr);
            Some(Failure::new(Class::Crashed, cause))
        }
        Exit::TooLong(timeout) => {
            let cause = with_last_words(&format!("ran longer than {timeout:?}"), &ended.stderr);
            Some(Failure::new(Class::Timeout, cause))
        }
        Exit::OutOfMemory => {
            let cause = "it needed more memory than it may have, and was ended";
            let cause = with_last_words(cause, &ended.stderr);
            Some(Failure::new(Class::OutOfMemory, cause))
        }
        Exit::TooMuchOutput => {
            let cause =
                format!("it wrote more than {OUTPUT_BYTES_MAX} bytes to stdout, and was ended");
            Some(Failure::new(Class::BadOutput, cause))
        }
        Exit::Unknown => Some(Failure::new(
            Class::Crashed,
            "it was killed, and nobody knows whether it ended",
        )),
    }
}

fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!(" ({name})"),
        Err(_) => String::new(),
    }
}

#[derive(Deserialize)]
struct LastLine {
    error: String,
    #[serde(default)]
    cause: String,
}

fn exit_failure(code: i32, stderr: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(stderr);
    let words = text.trim_end();
    let last = words.lines().next_back().unwrap_or_default();
    if let Ok(said) = serde_json::from_str::<LastLine>(last)
        && !said.error.is_empty()
    {
        return Failure::new(Class::from_name(&said.error), said.cause);
    }
    let class = Class::from_name(&format!("Exit{code}"));
    if words.is_empty() {
        return Failure::new(
            class,
            format!("exit status {code}, without a word on stderr"),
        );
    }
    Failure::new(class, end_of(words))
}

/// A cause that ends with what stderr said last.
fn with_last_words(cause: &str, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    match end_of(text.trim_end()) {
        "" => cause.to_owned(),
        words => format!("{cause}: {words}"),
    }
}

/// The end of a text, as long as a cause may be.
fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(CAUSE_BYTES_MAX);
    &text[text.ceil_char_boundary(from)..]
}

/// What the end of a process means for its one item.
pub(in crate::adapters) fn read_single(ended: &Ended, mode: OutputMode) -> ItemReport {
    match failure_of(ended) {
        Some(_) if ended.stopped => ItemReport::Undecided(stopped()),
        Some(failure) => ItemReport::Failed(failure),
        None => match mode {
            OutputMode::None => ItemReport::Succeeded(Output::None),
            OutputMode::Keep => match output_of(&ended.stdout) {
                Ok(output) => ItemReport::Succeeded(output),
                Err(failure) => ItemReport::Failed(failure),
            },
        },
    }
}

/// Stdout as an output: JSON as it is (on one line), other text as a JSON string.
fn output_of(stdout: &[u8]) -> Result<Output, Failure> {
    let text = String::from_utf8_lossy(stdout);
    let trimmed = text.trim_ascii();
    if trimmed.is_empty() {
        return Ok(Output::None);
    }
    if serde_json::from_str::<&RawValue>(trimmed).is_ok() {
        return Ok(Output::Json(on_one_line(trimmed.to_owned()).into()));
    }
    let text = text.trim_end_matches(['\n', '\r']);
    let json = serde_json::to_string(text).expect("text always serialises");
    if json.len() > OUTPUT_BYTES_MAX {
        let cause = format!("its output is longer than {OUTPUT_BYTES_MAX} bytes as JSON text");
        return Err(Failure::new(Class::BadOutput, cause));
    }
    Ok(Output::Json(json.into()))
}

#[derive(Deserialize)]
struct AnswerLine<'a> {
    item: String,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    cause: String,
}

impl AnswerLine<'_> {
    fn report(self, mode: OutputMode) -> ItemReport {
        if let Some(error) = self.error {
            return ItemReport::Failed(Failure::new(Class::from_name(&error), self.cause));
        }
        match (mode, self.output) {
            (OutputMode::Keep, Some(json)) => {
                ItemReport::Succeeded(Output::Json(json.get().to_owned().into()))
            }
            (OutputMode::Keep, None) | (OutputMode::None, _) => ItemReport::Succeeded(Output::None),
        }
    }
}

/// What the end of a process means for each item of its batch.
pub(in crate::adapters) fn read_batch(
    ended: &Ended,
    items: &[&CallItem],
    mode: OutputMode,
) -> Vec<ItemReport> {
    let answers = Answers::read(&ended.stdout, items, mode);
    let rest = match (failure_of(ended), answers.junk) {
        (Some(_), _) if ended.stopped => ItemReport::Undecided(stopped()),
        // A process may die within a line: what it left unsaid is explained by its death.
        (Some(failure), _) => unanswered(failure, items.len()),
        (None, Some(junk)) => unanswered(Failure::new(Class::BadOutput, junk), items.len()),
        (None, None) => ItemReport::Succeeded(Output::None),
    };
    answers
        .reports
        .into_iter()
        .map(|report| report.unwrap_or_else(|| rest.clone()))
        .collect()
}

/// The failure of a call that carries one item is known of that item.
pub(in crate::adapters) fn unanswered(failure: Failure, items: usize) -> ItemReport {
    if items == 1 {
        ItemReport::Failed(failure)
    } else {
        ItemReport::Undecided(failure)
    }
}

/// What a batch command said.
struct Answers {
    reports: Vec<Option<ItemReport>>,
    /// The first line that answers nothing.
    junk: Option<String>,
}

impl Answers {
    fn read(stdout: &[u8], items: &[&CallItem], mode: OutputMode) -> Self {
        let places: BTreeMap<String, usize> = items
            .iter()
            .enumerate()
            .map(|(index, item)| (item.id.to_string(), index))
            .collect();
        let mut answers = Self {
            reports: vec![None; items.len()],
            junk: None,
        };
        for line in stdout.split(|byte| *byte == b'\n') {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(problem) = answers.take(line, &places, mode) {
                answers.junk.get_or_insert_with(|| {
                    let shown = &line[..line.len().min(JUNK_BYTES_SHOWN)];
                    format!("{problem}: {}", String::from_utf8_lossy(shown))
                });
            }
        }
        answers
    }

    fn take(
        &mut self,
        line: &[u8],
        places: &BTreeMap<String, usize>,
        mode: OutputMode,
    ) -> Result<(), String> {
        let answer: AnswerLine<'_> = serde_json::from_slice(line)
            .map_err(|error| format!("a line on stdout is no answer ({error})"))?;
        let Some(place) = places.get(&answer.item) else {
            return Err("an answer for an item that is not in the batch".to_owned());
        };
        let report = &mut self.reports[*place];
        if report.is_some() {
            return Err("a second answer for one item".to_owned());
        }
        *report = Some(answer.report(mode));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
