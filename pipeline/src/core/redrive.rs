//! Redrive: which settled items are taken again.
//!
//! Unlike Step Functions, which redrives only runs that did not succeed ("Redriving Map Runs"), any
//! run that is not RUNNING may be redriven, so that failures tolerated now can be repaired later.
//! Successes are never taken.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// What to take. Every filter that is set must match; without any, all that did not succeed is taken
/// but what was skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Items with one of these outcomes; empty: failed, timed out and aborted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// Whether items that are still pending are taken too; none: exactly if no other filter is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<bool>,
    /// Whether nothing that is settled is taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_pending: bool,
    /// Items whose failure has one of these classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Items whose failure has one of these fingerprints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fingerprints: Vec<String>,
    /// Items whose key (or value) matches this pattern: `*` any text, `?` one character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Objects larger than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_bytes: Option<u64>,
    /// Objects smaller than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smaller_bytes: Option<u64>,
    /// These items, by their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

/// What a selection may look at.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The item's name.
    pub item: &'a str,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its failure's class, if there is evidence of it.
    pub class: Option<&'a str>,
    /// Its failure's fingerprint, if there is evidence of it.
    pub fingerprint: Option<&'a str>,
    /// Its key or value.
    pub key: &'a str,
    /// Its size, if it is an object.
    pub size_bytes: Option<u64>,
}

impl Selection {
    /// Whether anything but outcomes narrows it.
    fn is_narrow(&self) -> bool {
        !self.outcomes.is_empty()
            || !self.classes.is_empty()
            || !self.fingerprints.is_empty()
            || self.needs_input()
            || !self.items.is_empty()
    }

    /// Whether items that are still pending are taken.
    pub fn takes_pending(&self) -> bool {
        self.pending.unwrap_or(!self.is_narrow())
    }

    /// Whether failures must be looked up to decide.
    pub fn needs_failures(&self) -> bool {
        !self.classes.is_empty() || !self.fingerprints.is_empty()
    }

    /// Whether inputs must be looked up to decide.
    pub fn needs_input(&self) -> bool {
        self.key.is_some() || self.larger_bytes.is_some() || self.smaller_bytes.is_some()
    }

    /// Whether a settled item is taken.
    pub fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let by_outcome = match candidate.outcome {
            Outcome::Succeeded => false,
            Outcome::Failed | Outcome::TimedOut | Outcome::Aborted => {
                self.outcomes.is_empty() || self.outcomes.contains(&candidate.outcome)
            }
            Outcome::Skipped => self.outcomes.contains(&Outcome::Skipped),
        };
        let any_class = || {
            self.classes
                .iter()
                .any(|class| Some(class.as_str()) == candidate.class)
        };
        let any_fingerprint = || {
            let has = |print: &String| Some(print.as_str()) == candidate.fingerprint;
            self.fingerprints.iter().any(has)
        };
        by_outcome
            && !self.only_pending
            && (self.classes.is_empty() || any_class())
            && (self.fingerprints.is_empty() || any_fingerprint())
            && self
                .key
                .as_deref()
                .is_none_or(|pattern| matches(pattern, candidate.key))
            && self
                .larger_bytes
                .is_none_or(|min| candidate.size_bytes.is_some_and(|s| s > min))
            && self
                .smaller_bytes
                .is_none_or(|max| candidate.size_bytes.is_some_and(|s| s < max))
            && (self.items.is_empty() || self.items.iter().any(|item| item == candidate.item))
    }
}

/// Whether a text matches a pattern of `*` and `?`. Never more than pattern × text steps.
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            last_star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|c| *c == '?' || *c == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = last_star {
            last_star = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(outcome: Outcome) -> Candidate<'static> {
        Candidate {
            item: "0-0-1",
            outcome,
            class: Some("Timeout"),
            fingerprint: Some("Timeout: after # s"),
            key: "in/2026/a.png",
            size_bytes: Some(100),
        }
    }

    #[test]
    fn by_default_what_did_not_succeed_is_taken_but_not_what_was_skipped() {
        let all = Selection::default();
        let taken: Vec<Outcome> = Outcome::ALL
            .into_iter()
            .filter(|o| all.takes(&candidate(*o)))
            .collect();
        assert_eq!(
            taken,
            [Outcome::Failed, Outcome::TimedOut, Outcome::Aborted]
        );
        assert!(all.takes_pending());
    }

    #[test]
    fn a_success_is_never_taken_even_by_name() {
        let selection = Selection {
            outcomes: Outcome::ALL.to_vec(),
            items: vec!["0-0-1".into()],
            ..Selection::default()
        };
        assert!(!selection.takes(&candidate(Outcome::Succeeded)));
        assert!(selection.takes(&candidate(Outcome::Skipped)));
    }

    #[test]
    fn every_filter_must_match() {
        let base = Selection {
            classes: vec!["Timeout".into()],
            ..Selection::default()
        };
        assert!(base.takes(&candidate(Outcome::Failed)));
        assert!(!base.takes_pending(), "a filter leaves pending items alone");
        let other = Selection {
            classes: vec!["Crashed".into()],
            ..base.clone()
        };
        assert!(!other.takes(&candidate(Outcome::Failed)));
        let key = Selection {
            key: Some("in/*/?.png".into()),
            ..base.clone()
        };
        assert!(key.takes(&candidate(Outcome::Failed)));
        let large = Selection {
            larger_bytes: Some(100),
            ..base
        };
        assert!(
            !large.takes(&candidate(Outcome::Failed)),
            "larger than 100, not equal"
        );
    }

    #[test]
    fn patterns() {
        for (pattern, text, yes) in [
            ("*", "", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("?", "ä", true),
            ("", "a", false),
            ("*.png", "x.png.bak", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }
}
