//! Whose a container is: a name that follows from run, items, generation and attempts alone, and labels
//! that say the same to read. Pure.
//!
//! The engine gives a name to one container at a time. So the name is what keeps a second container from
//! being started for one attempt, whoever asks.

use std::collections::HashMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::ports::executor::{Call, CallItem};

/// A longer name is a digest: so every name is a label of DNS as well (RFC 1035), by which networks of
/// Docker's find containers.
const NAME_CHARS_MAX: usize = 63;

/// Of a digest in hexadecimal, enough that no two calls share it.
const DIGEST_CHARS: usize = 32;

pub(super) const RUN_LABEL: &str = "trommel.run";
pub(super) const WORKER_LABEL: &str = "trommel.worker";
const ITEM_LABEL: &str = "trommel.item";
const GENERATION_LABEL: &str = "trommel.generation";
const ATTEMPT_LABEL: &str = "trommel.attempt";

/// What a call is known by. In labels the items of a batch stand side by side, and so do their attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    run: String,
    items: Vec<String>,
    generation: String,
    attempts: Vec<String>,
}

impl Identity {
    /// That of these items of a call; of one page, so of one generation.
    pub(super) fn of(call: &Call, items: &[&CallItem]) -> Self {
        let generation = items.iter().map(|item| item.generation).max();
        Self {
            run: call.run.to_string(),
            items: items.iter().map(|item| item.id.to_string()).collect(),
            generation: generation.unwrap_or_default().to_string(),
            attempts: items.iter().map(|item| item.attempt.to_string()).collect(),
        }
    }

    /// Reads what [`Self::labels`] wrote.
    pub(super) fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        let words = |name| -> Option<Vec<String>> {
            let label: &String = labels.get(name)?;
            Some(label.split(' ').map(str::to_owned).collect())
        };
        Some(Self {
            run: labels.get(RUN_LABEL)?.clone(),
            items: words(ITEM_LABEL)?,
            generation: labels.get(GENERATION_LABEL)?.clone(),
            attempts: words(ATTEMPT_LABEL)?,
        })
    }

    pub(super) fn labels(&self) -> [(&'static str, String); 4] {
        [
            (RUN_LABEL, self.run.clone()),
            (ITEM_LABEL, self.items.join(" ")),
            (GENERATION_LABEL, self.generation.clone()),
            (ATTEMPT_LABEL, self.attempts.join(" ")),
        ]
    }

    /// The run's label as a filter of lists.
    pub(super) fn run_filter(&self) -> String {
        format!("{RUN_LABEL}={}", self.run)
    }

    /// Whether they carry an item in common: then they must not run side by side.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.run == other.run && self.items.iter().any(|item| other.items.contains(item))
    }

    /// The container's name.
    pub(super) fn name(&self) -> String {
        if let ([item], [attempt]) = (&*self.items, &*self.attempts) {
            let (run, generation) = (&self.run, &self.generation);
            let name = format!("trommel-{run}-{item}-g{generation}-a{attempt}");
            if is_name(&name) {
                return name;
            }
        }
        let mut digest = Sha256::new();
        for (_, label) in self.labels() {
            digest.update(label);
            digest.update([0]);
        }
        format!("trommel-{}", &hexadecimal(digest)[..DIGEST_CHARS])
    }
}

/// What Docker takes for a name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+` ("docker container create", name).
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.len() <= NAME_CHARS_MAX && text.bytes().all(plain)
}

pub(super) fn hexadecimal(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes all text");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(run: &str, items: &[(&str, &str)]) -> Identity {
        Identity {
            run: run.to_owned(),
            items: items.iter().map(|(item, _)| (*item).to_owned()).collect(),
            generation: "0".to_owned(),
            attempts: items.iter().map(|(_, at)| (*at).to_owned()).collect(),
        }
    }

    fn labels_of(identity: &Identity) -> HashMap<String, String> {
        let labels = identity.labels().into_iter();
        labels
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    #[test]
    fn a_name_says_run_item_generation_and_attempt() {
        let one = identity("brave-heron-4f2a", &[("0-1-2", "3")]);
        assert_eq!(one.name(), "trommel-brave-heron-4f2a-0-1-2-g0-a3");
    }

    #[test]
    fn batches_long_names_and_odd_characters_are_named_by_a_digest() {
        let long = "x".repeat(80);
        for odd in [
            identity("run", &[("0-1-2", "1"), ("0-1-3", "1")]),
            identity(&long, &[("0-1-2", "1")]),
            identity("a run", &[("0-1-2", "1")]),
        ] {
            let name = odd.name();
            assert!(is_name(&name), "{name}");
            assert_eq!(name.len(), "trommel-".len() + DIGEST_CHARS);
            assert_eq!(name, odd.clone().name(), "the same at each call");
        }
    }

    #[test]
    fn no_two_calls_share_a_name() {
        let names = [
            identity("run", &[("0-1-2", "1"), ("0-1-3", "1")]).name(),
            identity("run", &[("0-1-2", "1"), ("0-1-3", "2")]).name(),
            identity("run", &[("0-1-2", "1"), ("0-1-4", "1")]).name(),
            identity("run", &[("0-1-2", "1")]).name(),
            identity("run", &[("0-1-2", "2")]).name(),
            identity("run-0", &[("1-2-3", "1")]).name(),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }

    #[test]
    fn labels_are_read_back_and_others_are_nobodys() {
        for identity in [
            identity("run", &[("0-1-2", "1")]),
            identity("run", &[("0-1-2", "1"), ("0-1-3", "4")]),
        ] {
            assert_eq!(Identity::from_labels(&labels_of(&identity)), Some(identity));
        }
        assert_eq!(Identity::from_labels(&HashMap::new()), None);
    }

    #[test]
    fn calls_overlap_if_they_share_an_item_of_one_run_whatever_the_attempt() {
        let batch = identity("run", &[("0-1-2", "1"), ("0-1-3", "1")]);
        assert!(batch.overlaps(&identity("run", &[("0-1-3", "2")])));
        assert!(!batch.overlaps(&identity("run", &[("0-1-30", "1")])));
        assert!(!batch.overlaps(&identity("other", &[("0-1-3", "1")])));
    }
}
