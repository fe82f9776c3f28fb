//! "Did you mean": the nearest of the words that would have been right.

/// The word of `known` that `word` most likely stands for, if one is near enough.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Below this, Jaro-Winkler finds words that share no more than a few letters.
    const SIMILAR_MIN: f64 = 0.8;
    /// A longer word is no slip of the keyboard, and comparing costs length × length.
    const CHARS_MAX: usize = 64;
    if word.chars().count() > CHARS_MAX {
        return None;
    }
    let plain = word.to_lowercase().replace('-', "_");
    let score = |candidate: &str| strsim::jaro_winkler(&plain, &candidate.to_lowercase());
    known
        .iter()
        .map(|candidate| (score(candidate), *candidate))
        .filter(|(score, _)| *score >= SIMILAR_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` or `c`, each in backticks.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_strangers_do_not() {
        let known = ["max_concurrency", "results", "retry", "on_breach"];
        assert_eq!(nearest("max_concurency", &known), Some("max_concurrency"));
        assert_eq!(nearest("Max-Concurrency", &known), Some("max_concurrency"));
        assert_eq!(nearest("result", &known), Some("results"));
        assert_eq!(nearest("zebra", &known), None);
        assert_eq!(nearest(&"r".repeat(10_000), &known), None);
    }

    #[test]
    fn a_choice_reads_as_a_sentence() {
        assert_eq!(one_of(&["a"]), "`a`");
        assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
