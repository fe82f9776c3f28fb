//! How a Lambda-style function is asked and how it answers, wherever it runs. Pure.
//!
//! It is asked as Step Functions' Distributed Map asks it: one item is the event itself, several come as
//! `{"BatchInput": …, "Items": […]}`. Who the items are, which a plain event does not say, stands in the client context
//! and in `BatchInput`. Answers of batches may name the failed, as with an SQS event source (`batchItemFailures`), or
//! give an output for each item.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::class::{CAUSE_BYTES_MAX, Class, Failure};
use crate::core::job::OutputMode;
use crate::ports::executor::{Call, CallItem, ItemReport, OUTPUT_BYTES_MAX, Output};

/// The longest event of a synchronous call ("Lambda quotas", invocation payload).
pub(crate) const EVENT_BYTES_MAX: usize = 6 * 1024 * 1024;

/// How much of an answer that cannot be read an error shows.
const JUNK_CHARS_SHOWN: usize = 120;

/// What a function is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// The event.
    pub(crate) event: String,
    /// The client context, as JSON: `custom` holds the variables that a command gets in its environment.
    pub(crate) context: String,
}

impl Invocation {
    /// Why the event is too long to be sent; none if it is not.
    pub(crate) fn excess(&self) -> Option<String> {
        let bytes = self.event.len();
        (bytes > EVENT_BYTES_MAX).then(|| {
            format!("the event would be {bytes} bytes, and a function takes {EVENT_BYTES_MAX}")
        })
    }
}

#[derive(Serialize)]
struct Context<'a> {
    custom: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct Batch<'a> {
    #[serde(rename = "BatchInput")]
    input: BatchInput<'a>,
    #[serde(rename = "Items")]
    items: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct BatchInput<'a> {
    run: &'a str,
    items: Vec<BatchItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchItem {
    item: String,
    attempt: u32,
    epoch: String,
    idempotency_key: String,
}

/// What to ask for these items of the call, for whoever can carry no more than one event may hold.
///
/// # Errors
/// An input is no JSON; or all together are more than one event may hold.
#[cfg(any(feature = "local", test))]
pub(crate) fn invocation(call: &Call, items: &[&CallItem]) -> Result<Invocation, Failure> {
    let invocation = unbounded_invocation(call, items)?;
    match invocation.excess() {
        Some(cause) => Err(Failure::new(Class::BadInput, cause)),
        None => Ok(invocation),
    }
}

/// [`invocation`], for whoever can carry an event of any length.
///
/// # Errors
/// An input is no JSON.
pub(crate) fn unbounded_invocation(
    call: &Call,
    items: &[&CallItem],
) -> Result<Invocation, Failure> {
    let mut custom = BTreeMap::from([("TROMMEL_RUN", call.run.to_string())]);
    let event = match items {
        [item] if !call.is_batch() => {
            custom.insert("TROMMEL_ITEM", item.id.to_string());
            custom.insert("TROMMEL_ATTEMPT", item.attempt.to_string());
            custom.insert("TROMMEL_EPOCH", item.epoch.to_string());
            custom.insert("TROMMEL_IDEMPOTENCY_KEY", item.idempotency_key(&call.run));
            item.input.to_json()
        }
        _ => batch_event(call, items)?,
    };
    let context = serde_json::to_string(&Context { custom }).expect("strings always serialise");
    Ok(Invocation { event, context })
}

fn batch_event(call: &Call, items: &[&CallItem]) -> Result<String, Failure> {
    let inputs: Vec<String> = items.iter().map(|item| item.input.to_json()).collect();
    let mut raw = Vec::with_capacity(inputs.len());
    for (item, input) in items.iter().zip(&inputs) {
        let input = serde_json::from_str::<&RawValue>(input).map_err(|error| {
            let cause = format!("the input of item {} is no JSON: {error}", item.id);
            Failure::new(Class::BadInput, cause)
        })?;
        raw.push(input);
    }
    let names = items.iter().map(|item| BatchItem {
        item: item.id.to_string(),
        attempt: item.attempt,
        epoch: item.epoch.to_string(),
        idempotency_key: item.idempotency_key(&call.run),
    });
    let batch = Batch {
        input: BatchInput {
            run: call.run.as_str(),
            items: names.collect(),
        },
        items: raw,
    };
    Ok(serde_json::to_string(&batch).expect("strings and numbers always serialise"))
}

/// What the answer of a function that succeeded means for each item.
pub(crate) fn read_answer(
    call: &Call,
    items: &[&CallItem],
    answer: &[u8],
    mode: OutputMode,
) -> Vec<ItemReport> {
    if answer.len() > OUTPUT_BYTES_MAX {
        let cause = format!(
            "it answered {} bytes, more than {OUTPUT_BYTES_MAX}",
            answer.len()
        );
        return not_said(items.len(), &Failure::new(Class::BadOutput, cause));
    }
    let answer = match answer.trim_ascii() {
        b"" => b"null",
        answer => answer,
    };
    let Ok(json) = serde_json::from_slice::<&RawValue>(answer) else {
        let shown: String = String::from_utf8_lossy(answer)
            .chars()
            .take(JUNK_CHARS_SHOWN)
            .collect();
        let failure = Failure::new(Class::BadOutput, format!("its answer is no JSON: {shown}"));
        return not_said(items.len(), &failure);
    };
    match items {
        [_] if !call.is_batch() => vec![succeeded(json, mode)],
        _ => read_batch(items, json, mode),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchAnswer<'a> {
    #[serde(default)]
    batch_item_failures: Option<Vec<ItemFailure>>,
    #[serde(borrow, default)]
    outputs: Option<BTreeMap<String, &'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    #[serde(default)]
    item_identifier: Option<String>,
    #[serde(default)]
    error_type: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

/// A list as long as the batch is an output for each. An object may name outputs and failures by item. An answer that names
/// neither (nothing, or a status) says that all succeeded.
fn read_batch(items: &[&CallItem], json: &RawValue, mode: OutputMode) -> Vec<ItemReport> {
    if json.get().starts_with('[') {
        let outputs: Vec<&RawValue> = serde_json::from_str(json.get()).unwrap_or_default();
        if outputs.len() != items.len() {
            let (said, asked) = (outputs.len(), items.len());
            let cause = format!("it answered a list of {said} for {asked} items");
            return not_said(items.len(), &Failure::new(Class::BadOutput, cause));
        }
        return outputs
            .into_iter()
            .map(|output| succeeded(output, mode))
            .collect();
    }
    if !json.get().starts_with('{') {
        return vec![ItemReport::Succeeded(Output::None); items.len()];
    }
    let answer: BatchAnswer<'_> = match serde_json::from_str(json.get()) {
        Ok(answer) => answer,
        Err(error) => {
            let cause = format!("what it says of its items cannot be read: {error}");
            return not_said(items.len(), &Failure::new(Class::BadOutput, cause));
        }
    };
    let places: BTreeMap<String, usize> = items
        .iter()
        .enumerate()
        .map(|(place, item)| (item.id.to_string(), place))
        .collect();
    let mut reports = vec![None; items.len()];
    let mut junk = None;
    for failure in answer.batch_item_failures.unwrap_or_default() {
        let name = failure.item_identifier.unwrap_or_default();
        let Some(place) = places.get(&name) else {
            junk.get_or_insert(name);
            continue;
        };
        let class = failure
            .error_type
            .map_or(Class::HandlerError, |name| class_of(&name));
        let cause = failure
            .error_message
            .unwrap_or_else(|| "it is among the batchItemFailures".to_owned());
        reports[*place] = Some(ItemReport::Failed(Failure::new(class, cause)));
    }
    for (name, output) in answer.outputs.unwrap_or_default() {
        let Some(place) = places.get(&name) else {
            junk.get_or_insert(name);
            continue;
        };
        reports[*place].get_or_insert_with(|| succeeded(output, mode));
    }
    // Lambda takes such a batch for failed as a whole ("Reporting batch item failures").
    let rest = match junk {
        Some(name) => {
            let cause = format!("it names an item that was not in the batch: {name:?}");
            unanswered(Failure::new(Class::BadOutput, cause), items.len())
        }
        None => ItemReport::Succeeded(Output::None),
    };
    reports
        .into_iter()
        .map(|report| report.unwrap_or_else(|| rest.clone()))
        .collect()
}

fn succeeded(json: &RawValue, mode: OutputMode) -> ItemReport {
    match mode {
        OutputMode::Keep if json.get() != "null" => {
            ItemReport::Succeeded(Output::Json(json.get().to_owned().into()))
        }
        OutputMode::Keep | OutputMode::None => ItemReport::Succeeded(Output::None),
    }
}

/// What runtimes report of a function that failed.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FunctionError {
    error_type: Option<String>,
    error_message: Option<String>,
    stack_trace: Option<serde_json::Value>,
    trace: Option<serde_json::Value>,
}

/// What a function's error means: `kind` is the type that stood in a header, `log` its last words.
pub(crate) fn read_error(body: &[u8], kind: Option<&str>, log: &[u8]) -> Failure {
    let error: FunctionError = serde_json::from_slice(body).unwrap_or_default();
    let name = error
        .error_type
        .as_deref()
        .or(kind)
        .filter(|name| !name.is_empty());
    let message = error.error_message.as_deref().unwrap_or_default();
    let class = platform_class(name, message, log)
        .unwrap_or_else(|| name.map_or(Class::HandlerError, class_of));
    let mut cause = match &error.error_message {
        Some(message) => message.clone(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    for trace in [error.stack_trace, error.trace].into_iter().flatten() {
        for line in lines_of(&trace) {
            cause.push('\n');
            cause.push_str(line.trim_end());
        }
    }
    Failure::new(class, with_log(&cause, log))
}

fn lines_of(trace: &serde_json::Value) -> Vec<&str> {
    match trace {
        serde_json::Value::Array(lines) => {
            lines.iter().filter_map(serde_json::Value::as_str).collect()
        }
        serde_json::Value::String(text) => vec![text],
        _ => Vec::new(),
    }
}

/// A cause, and the last words of the log as far as they fit behind it.
pub(crate) fn with_log(cause: &str, log: &[u8]) -> String {
    /// What is said first is kept at least, however long the log.
    const CAUSE_BYTES_KEPT: usize = CAUSE_BYTES_MAX / 2;
    const BETWEEN: &str = "\nlog: ";
    let log = String::from_utf8_lossy(log);
    let log = log.trim();
    if log.is_empty() {
        return cause.to_owned();
    }
    let cause = crate::core::class::cut(cause, CAUSE_BYTES_KEPT);
    let room = CAUSE_BYTES_MAX - cause.len() - BETWEEN.len();
    let from = log.ceil_char_boundary(log.len().saturating_sub(room));
    format!("{cause}{BETWEEN}{}", &log[from..])
}

/// The class of what Lambda itself reports of a function that it ended. Its type is missing or says no more than that the
/// runtime is gone, and the reason stands in words ("Troubleshoot execution issues in Lambda"). A handler's own type is
/// believed, whatever its words.
fn platform_class(name: Option<&str>, message: &str, log: &[u8]) -> Option<Class> {
    match name {
        None | Some("Runtime.ExitError" | "Runtime.Unknown" | "Unhandled") => {}
        Some(_) => return None,
    }
    let logged = |words: &str| memchr::memmem::find(log, words.as_bytes()).is_some();
    if message.contains("Task timed out after ") {
        return Some(Class::Timeout);
    }
    let was_killed = message.contains("Runtime exited with error: signal: killed");
    if was_killed || logged("Error Type: Runtime.OutOfMemory") {
        return Some(Class::OutOfMemory);
    }
    None
}

/// The class of an error's type. What Lambda itself reports has our names; a handler's own stay as they are.
pub(crate) fn class_of(name: &str) -> Class {
    match name {
        // "Troubleshoot execution issues in Lambda"; the names are those of Lambda's own reports.
        "Sandbox.Timedout" | "Function.Timeout" => Class::Timeout,
        "Runtime.OutOfMemory" | "Function.OutOfMemory" => Class::OutOfMemory,
        "Runtime.ExitError" | "Runtime.Unknown" | "Extension.Crash" => Class::Crashed,
        "Function.ResponseSizeTooLarge" | "Runtime.MarshalError" => Class::BadOutput,
        "MemoryError" => Class::OutOfMemory,
        _ => Class::from_name(name),
    }
}

/// The same failure for all: known of the one item of a call, of many nobody knows whose it is.
pub(crate) fn not_said(items: usize, failure: &Failure) -> Vec<ItemReport> {
    vec![unanswered(failure.clone(), items); items]
}

fn unanswered(failure: Failure, items: usize) -> ItemReport {
    match items {
        1 => ItemReport::Failed(failure),
        _ => ItemReport::Undecided(failure),
    }
}

#[cfg(test)]
mod tests;
