//! What can be wrong with a job file, said so that it can be put right.
//!
//! Every error has a code that never changes its meaning, the place in the file with the line itself,
//! and a way out. How a terminal shows it (colour, JSON) is the command line's job.

use std::fmt;

use serde::Serialize;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The kinds of errors of a job file. A code that was released is never given to another kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Code {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

codes! {
    /// The text is not TOML.
    Syntax = "E0101",
    /// A key that no job file has.
    UnknownKey = "E0102",
    /// A key that must be there is not.
    Missing = "E0103",
    /// A value of another type than the key takes.
    WrongType = "E0104",
    /// A size or duration that cannot be read.
    BadUnit = "E0105",
    /// A number outside its bounds.
    OutOfBounds = "E0106",
    /// A word that is not one of those possible.
    BadWord = "E0107",
    /// A text of the wrong form: a range, a percentage, a delimiter, a header.
    BadForm = "E0108",
    /// A `${VAR}` or `~` that cannot be filled in.
    Unset = "E0109",
    /// A path, S3 address or ledger address that names nothing.
    BadPlace = "E0110",
    /// Two or more keys of which one excludes the other.
    Conflict = "E0111",
    /// Something the job writes lies in what it reads.
    Endless = "E0112",
    /// A lane that nothing can ever reach, or a rule that can never match.
    Unreachable = "E0113",
    /// The file as a whole is too large, or there are too many rules.
    TooMuch = "E0114",
    /// A name that cannot name a job.
    BadName = "E0115",
    /// An error class that is misspelt.
    BadClass = "E0116",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where in a file something stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line's text, or the part of a long one around the place; control characters replaced.
    pub excerpt: String,
    /// Where in the excerpt the place begins, in characters from 0.
    pub caret: usize,
    /// How many characters are meant, at least 1.
    pub length: usize,
}

impl Place {
    /// The place of the bytes `span` of `text`. Spans beyond the text or inside characters are moved in.
    pub(super) fn of(text: &str, span: &std::ops::Range<usize>) -> Self {
        /// A line longer than this is shown in part.
        const CHARS_MAX: usize = 96;
        /// So much stays before the place then.
        const BEFORE: usize = 32;

        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let column = text[line_start..start].chars().count();
        let line: Vec<char> = text[line_start..line_end]
            .trim_end_matches('\r')
            .chars()
            .collect();
        let meant = text[start..end.min(line_end).max(start)].chars().count();

        let is_long = line.len() > CHARS_MAX;
        let from = if is_long {
            column.saturating_sub(BEFORE)
        } else {
            0
        };
        let shown = &line[from.min(line.len())..(from + CHARS_MAX).min(line.len())];
        let mut excerpt: String = shown
            .iter()
            .map(|c| if c.is_control() { ' ' } else { *c })
            .collect();
        let mut caret = column.saturating_sub(from);
        if from > 0 {
            excerpt.insert(0, '…');
            caret += 1;
        }
        let room = excerpt.chars().count().saturating_sub(caret);
        if from + CHARS_MAX < line.len() {
            excerpt.push('…');
        }
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: column + 1,
            excerpt,
            caret,
            length: meant.min(room).max(1),
        }
    }
}

/// One thing that is wrong with a job file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JobError {
    /// What kind.
    pub code: Code,
    /// What is wrong, as a sentence without its full stop.
    pub message: String,
    /// The file, as the user named it; or the option that was given, such as `--ledger`.
    pub file: String,
    /// Where in it; none for an option, or for what concerns the file as a whole.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, self.message)?;
        match &self.place {
            Some(place) => {
                let margin = place.line.to_string().len();
                writeln!(
                    f,
                    "{:margin$}--> {}:{}:{}",
                    "", self.file, place.line, place.column
                )?;
                writeln!(f, "{:margin$} |", "")?;
                writeln!(f, "{} | {}", place.line, place.excerpt)?;
                let carets = "^".repeat(place.length);
                writeln!(
                    f,
                    "{:margin$} | {:caret$}{carets}",
                    "",
                    "",
                    caret = place.caret
                )?;
            }
            None => writeln!(f, "  --> {}", self.file)?,
        }
        write!(f, "  help: {}", self.help)
    }
}

/// Everything that is wrong with a job file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct JobErrors(pub Vec<JobError>);

impl fmt::Display for JobErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for JobErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_without_gap_or_double() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.as_str(), format!("E{:04}", 101 + index));
        }
    }

    #[test]
    fn a_place_counts_characters_not_bytes() {
        let text = "ä = 1\nöö = \"x\"\n";
        let start = text.find("\"x\"").expect("it is there");
        let place = Place::of(text, &(start..start + 3));
        assert_eq!(
            (place.line, place.column, place.caret, place.length),
            (2, 6, 5, 3)
        );
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("a = [{}X{}]", "1, ".repeat(100), "2, ".repeat(100));
        let start = text.find('X').expect("it is there");
        let place = Place::of(&text, &(start..start + 1));
        assert!(place.excerpt.chars().count() <= 98);
        assert_eq!(place.excerpt.chars().nth(place.caret), Some('X'));
        assert_eq!(place.column, start + 1);
    }

    #[test]
    fn a_span_at_the_end_of_the_text_has_a_place() {
        let place = Place::of("a =", &(3..3));
        assert_eq!((place.line, place.column, place.length), (1, 4, 1));
    }
}
