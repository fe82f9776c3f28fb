//! Reads result files as their users do: the manifest, then the files that it names.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use trommel::core::page::Mark;
use trommel::ledger::{Held, RunRow};
use trommel::shell::finalizer::Manifest;

use crate::cluster::{Cluster, FILLING, RUN};
use crate::places::Places;
use crate::scenario;

/// What stands of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The kind of file it stands in.
    kind: String,
    output: Option<String>,
    /// The key of its object, or the number of its line.
    input: Option<String>,
}

/// Items by their names.
pub(crate) type Items = BTreeMap<String, Line>;

/// What stands in result files.
pub(crate) struct Found {
    manifest: Manifest,
    items: Items,
    /// What cannot be: an item that stands there twice, a file that is named and not there.
    problems: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    item: String,
    #[serde(default)]
    output: Option<String>,
    #[serde(default)]
    output_key: Option<String>,
    #[serde(default)]
    input: Option<Input>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Object { key: String },
    Line { number: u64 },
    Other(serde::de::IgnoredAny),
}

impl Input {
    fn name(self) -> Option<String> {
        match self {
            Self::Object { key } => Some(key),
            Self::Line { number } => Some(scenario::object(number)),
            Self::Other(_) => None,
        }
    }
}

async fn text_of(cluster: &Cluster, key: &str) -> Option<String> {
    let mut reader = cluster
        .results()
        .get(key.as_bytes(), 0, None, None)
        .await
        .ok()?;
    let mut text = String::new();
    let read = reader.read_to_string(&mut text).await;
    read.expect("memory is read to its end");
    Some(text)
}

/// The files, if a manifest names any.
pub(crate) async fn read(cluster: &Cluster) -> Option<Found> {
    let text = text_of(cluster, &format!("{RUN}/manifest.json")).await?;
    let manifest: Manifest = serde_json::from_str(&text).expect("the pipeline wrote it");
    let (mut items, mut problems) = (Items::new(), Vec::new());
    for (kind, files) in &manifest.result_files {
        for file in files {
            let Some(text) = text_of(cluster, &file.key).await else {
                problems.push(format!("{} is named and not there", file.key));
                continue;
            };
            for line in text.lines() {
                let record: Record = serde_json::from_str(line).expect("the pipeline wrote it");
                let mut output = record.output;
                if let Some(key) = &record.output_key {
                    let text = text_of(cluster, key).await;
                    output = text.and_then(|text| serde_json::from_str(&text).ok());
                }
                let said = output.map(|text| text.trim_end_matches(FILLING).to_owned());
                let stands = Line {
                    kind: kind.clone(),
                    output: said,
                    input: record.input.and_then(Input::name),
                };
                let former = items.insert(record.item.clone(), stands);
                if former.is_some() {
                    problems.push(format!("{} stands there twice", record.item));
                }
            }
        }
    }
    Some(Found {
        manifest,
        items,
        problems,
    })
}

impl Found {
    /// Leaves out which object an item is.
    pub(crate) fn forget_inputs(&mut self) {
        forget_inputs(&mut self.items);
    }

    /// Leaves out what only the simulated job has.
    pub(crate) fn forget_data(&mut self) {
        forget_data(&mut self.items);
    }
}

/// Leaves out inputs.
pub(crate) fn forget_inputs(items: &mut Items) {
    for line in items.values_mut() {
        line.input = None;
    }
}

/// Leaves out inputs and outputs.
pub(crate) fn forget_data(items: &mut Items) {
    for line in items.values_mut() {
        (line.output, line.input) = (None, None);
    }
}

/// What must stand there, by the pages.
pub(crate) fn wanted(pages: &[Held], places: &Places) -> Items {
    let mut items = Items::new();
    for held in pages {
        let places = places.of_page(&held.page);
        for (index, item) in held.page.items.iter().enumerate() {
            let place = places.get(index).copied().map(u64::from);
            let index = u8::try_from(index).expect("a page has 100 items");
            let id = held.page.id.origin(index).to_string();
            let (kind, output) = match item.mark {
                Mark::Moved => continue,
                Mark::Pending => ("PENDING", None),
                Mark::Done(outcome) => match outcome {
                    trommel::core::outcome::Outcome::Succeeded => {
                        ("SUCCEEDED", Some(format!("{RUN}/{id}")))
                    }
                    trommel::core::outcome::Outcome::Skipped => ("SKIPPED", None),
                    trommel::core::outcome::Outcome::Failed
                    | trommel::core::outcome::Outcome::TimedOut
                    | trommel::core::outcome::Outcome::Aborted => ("FAILED", None),
                },
            };
            let stands = Line {
                kind: kind.to_owned(),
                output,
                input: place.map(scenario::object),
            };
            items.insert(id, stands);
        }
    }
    items
}

/// The first difference. Items of parts without pages are pending, and stand nowhere else.
pub(crate) fn difference(wanted: &Items, found: &Found, row: &RunRow) -> Option<String> {
    if let Some(problem) = found.problems.first() {
        return Some(problem.clone());
    }
    let generation = row.state.generation.0;
    if found.manifest.generation != generation {
        let of = found.manifest.generation;
        return Some(format!(
            "the manifest is of generation {of}, the run's is {generation}"
        ));
    }
    for (item, must) in wanted {
        match found.items.get(item) {
            None => return Some(format!("{item} stands in no file, it is {}", must.kind)),
            Some(is) if is != must => {
                return Some(format!("{item} must be {must:?}, the files say {is:?}"));
            }
            Some(_) => {}
        }
    }
    let (all, total) = (found.items.len() as u64, row.total);
    if all != total {
        return Some(format!("the files name {all} items of {total}"));
    }
    let made_up = |item: &&String| {
        let pending = found
            .items
            .get(*item)
            .is_some_and(|line| line.kind == "PENDING");
        !pending && !wanted.contains_key(*item)
    };
    found
        .items
        .keys()
        .find(made_up)
        .map(|item| format!("{item} stands in a file, and no page knows it"))
}
