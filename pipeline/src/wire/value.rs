//! One JSON value: is it one, where is it broken, and how does it fit on a line.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::record::InputError;

/// Arrays and objects may stand in each other this deep: serde_json's own limit, so that every handler
/// that reads a value with it can.
pub const NESTING_MAX: usize = 128;

/// Where a text begins in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// The line, from 1.
    pub(super) line: u64,
    /// The byte in that line, from 1, if known.
    pub(super) column: Option<u64>,
}

impl Spot {
    /// The place of `bytes[index]`, where `bytes` begin here.
    fn of(self, bytes: &[u8], index: usize) -> Self {
        let before = &bytes[..index];
        match memchr::memrchr(b'\n', before) {
            None => Self {
                line: self.line,
                column: self.column.map(|column| column + index as u64),
            },
            Some(newline) => Self {
                line: self.line + memchr::memchr_iter(b'\n', before).count() as u64,
                column: Some((index - newline) as u64),
            },
        }
    }

    fn error(self, problem: impl Into<String>, help: impl Into<String>) -> InputError {
        InputError {
            line: self.line,
            column: self.column,
            problem: problem.into(),
            help: help.into(),
        }
    }
}

/// The bytes as text, if they are exactly one JSON value (with white space around it).
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    spot: Spot,
    help: &'static str,
) -> Result<&'a str, InputError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        spot.of(bytes, error.valid_up_to())
            .error("this is not UTF-8", NOT_UTF8_HELP)
    })?;
    if let Some(index) = too_deep(bytes) {
        let problem = format!("arrays and objects are nested deeper than {NESTING_MAX} levels");
        return Err(spot.of(bytes, index).error(problem, "flatten the value"));
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(text),
        Err(error) => Err(explain(&error, spot, help)),
    }
}

/// What to do about bytes that are not UTF-8.
pub(super) const NOT_UTF8_HELP: &str = "save the file as UTF-8 (is it UTF-16, Latin-1 or binary?)";

fn explain(error: &serde_json::Error, spot: Spot, help: &'static str) -> InputError {
    let column = error.column().max(1) as u64;
    let place = match error.line() {
        0 | 1 => Spot {
            line: spot.line,
            column: spot.column.map(|first| first + column - 1),
        },
        line => Spot {
            line: spot.line + line as u64 - 1,
            column: Some(column),
        },
    };
    if error.is_eof() {
        return place.error("the JSON value is cut short", help);
    }
    let full = error.to_string();
    let what = full
        .rsplit_once(" at line ")
        .map_or(&*full, |(what, _)| what);
    place.error(format!("this is not JSON: {what}"), help)
}

/// The index of the first bracket that opens a level too many.
fn too_deep(bytes: &[u8]) -> Option<usize> {
    // Bit 0x20 is all that tells '[' from '{'. Counting is far cheaper than looking at strings, and
    // hardly any value has more brackets than levels are allowed.
    let brackets: usize = bytes.iter().map(|&b| usize::from(b | 0x20 == b'{')).sum();
    if brackets <= NESTING_MAX {
        return None;
    }
    let mut depth = 0_usize;
    let mut text = Text::Outside;
    for (index, &byte) in bytes.iter().enumerate() {
        text = text.after(byte);
        match (text, byte) {
            (Text::Outside, b'[' | b'{') => depth += 1,
            (Text::Outside, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Some(index);
        }
    }
    None
}

/// Whether a byte of JSON belongs to a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// Not in a string (the closing quote counts as outside).
    Outside,
    /// In a string.
    Inside,
    /// In a string, right after a backslash.
    Escaped,
}

impl Text {
    /// The state after one byte more.
    pub(super) fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Outside, b'"') | (Self::Escaped, _) => Self::Inside,
            (Self::Inside, b'\\') => Self::Escaped,
            (Self::Inside, b'"') | (Self::Outside, _) => Self::Outside,
            (Self::Inside, _) => Self::Inside,
        }
    }
}

/// A valid JSON text on one line: as it is, or without white space if it spans several lines. (Line
/// ends cannot be part of a string: JSON escapes them there.)
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    let mut state = Text::Outside;
    for c in text.chars() {
        // Bytes of wider characters are never a quote or a backslash.
        state = state.after(u8::try_from(c).unwrap_or(b'x'));
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        if !(state == Text::Outside && space) {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: Spot = Spot {
        line: 5,
        column: Some(3),
    };

    fn problem(text: &str) -> String {
        parse(text.as_bytes(), SPOT, "help")
            .expect_err("it is broken")
            .to_string()
    }

    #[test]
    fn a_value_that_spans_lines_is_put_on_one_and_stays_the_same_value() {
        let text = "{\n  \"a b\": [1,\r\n\t2.50],\n \"c\": \"x \\\" y\" }";
        assert_eq!(one_line(text), r#"{"a b":[1,2.50],"c":"x \" y"}"#);
        assert_eq!(one_line("[1, 2]"), "[1, 2]");
    }

    #[test]
    fn a_fault_is_placed_in_the_file() {
        assert_eq!(
            problem("{\"a\" 1}"),
            "line 5, column 8: this is not JSON: expected `:`; help"
        );
        assert_eq!(
            problem("[1,\n x]"),
            "line 6, column 2: this is not JSON: expected value; help"
        );
        assert!(problem("[1,").starts_with("line 5, column 5: the JSON value is cut short"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_placed_too() {
        let error = parse(b"\"a\n\xff\"", SPOT, "help").expect_err("it is not UTF-8");
        assert_eq!((error.line, error.column), (6, Some(1)));
        assert_eq!(error.problem, "this is not UTF-8");
    }

    #[test]
    fn a_hundred_and_twenty_eight_levels_are_read_and_one_more_is_not() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        parse(nested(NESTING_MAX).as_bytes(), SPOT, "help").expect("this is the bound");
        let over = nested(NESTING_MAX + 1);
        let error = parse(over.as_bytes(), SPOT, "help");
        let error = error.expect_err("this is over the bound");
        assert_eq!(error.column, Some(3 + NESTING_MAX as u64));
        assert!(error.problem.contains("nested deeper than 128 levels"));
        let flat = format!("[{}\"]]\\\"\"]", "[],{},\"[{\",".repeat(100));
        parse(flat.as_bytes(), SPOT, "help").expect("many brackets are not depth");
    }
}
