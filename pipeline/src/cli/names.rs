//! Names for runs that people can remember, say and type.

use crate::core::id::RunId;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "apt", "ashen", "bold", "brave", "brisk", "calm", "civil", "clear",
    "clever", "cosy", "crisp", "dapper", "deft", "eager", "early", "fair", "fancy", "fleet",
    "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy", "happy", "hardy",
    "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry",
    "mild", "misty", "neat", "nimble", "noble", "patient", "placid", "plucky", "proud", "quick",
    "quiet", "rapid", "ready", "rosy", "silver", "sleek", "smart", "snowy", "steady", "sunny",
    "swift", "tidy", "witty",
];

const ANIMALS: [&str; 64] = [
    "alpaca", "badger", "bear", "beaver", "bee", "bison", "camel", "carp", "cat", "cicada",
    "condor", "crane", "cricket", "crow", "deer", "dingo", "dolphin", "dove", "duck", "eagle",
    "egret", "elk", "falcon", "ferret", "finch", "fox", "frog", "gecko", "goat", "goose", "hare",
    "hawk", "heron", "horse", "ibex", "ibis", "jay", "kiwi", "koala", "lark", "lemur", "lion",
    "llama", "lynx", "marten", "mole", "moose", "moth", "newt", "otter", "owl", "panda", "puffin",
    "quail", "rabbit", "raven", "robin", "seal", "sparrow", "stork", "swan", "tapir", "toad",
    "wren",
];

/// A name such as `brave-heron-4f2a`. There are 2^28; two runs of one ledger that draw the same are
/// told apart by the write that creates the run, which is refused, and then another is drawn.
#[must_use]
pub fn run_name(draw: u64) -> RunId {
    let adjective = ADJECTIVES[(draw % 64) as usize];
    let animal = ANIMALS[(draw >> 6) as usize % 64];
    let number = (draw >> 12) & 0xffff;
    RunId::new(format!("{adjective}-{animal}-{number:04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_sorted_and_there_once() {
        for words in [ADJECTIVES, ANIMALS] {
            assert!(words.is_sorted_by(|a, b| a < b), "{words:?}");
            for word in words {
                assert!(
                    word.len() <= 8 && word.chars().all(|c| c.is_ascii_lowercase()),
                    "{word}"
                );
            }
        }
    }

    #[test]
    fn each_bit_of_a_draw_that_counts_gives_another_name() {
        assert_eq!(run_name(0).as_str(), "able-alpaca-0000");
        let names: std::collections::BTreeSet<RunId> =
            (0..28).map(|bit| run_name(1 << bit)).collect();
        assert_eq!(names.len(), 28);
        assert_eq!(run_name(u64::MAX).as_str(), "witty-wren-ffff");
    }
}
