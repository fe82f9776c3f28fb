//! Walks the tables of a job file and gathers what is wrong with them, all of it.
//!
//! A getter gives nothing in two cases: the key is not there, or its value was refused, and then the
//! refusal is already among the errors. What keys mean is not known here.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{Code, JobError, JobErrors, Place};
use super::suggest;

/// How the environment is asked for a variable.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A refusal that does not know its place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// These bytes of the file.
    File(Range<usize>),
    /// An option of the command line.
    Flag(&'static str),
    /// Nothing was written: the file as a whole, or a default.
    Whole,
}

/// A table whose keys are known to be among those it may have.
#[derive(Clone)]
pub(super) struct Fields<'t> {
    /// As users know it, for messages: `[function]`, `input`, `the job`.
    pub(super) title: String,
    table: &'t DeTable<'t>,
    /// The whole of it; empty for the file as a whole.
    pub(super) span: Range<usize>,
    /// Keys that misspelt ones were taken for.
    meant: Vec<String>,
}

impl<'t> Fields<'t> {
    pub(super) fn get(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    /// Where the key itself stands.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        let entry = self.table.get_key_value(key);
        entry.map_or(self.span.clone(), |(key, _)| key.span())
    }
}

/// The file being read, and what was found wrong with it so far.
pub(super) struct Reading<'a> {
    text: &'a str,
    file: &'a str,
    /// The directory that paths are relative to.
    pub(super) base: &'a Path,
    /// The environment.
    pub(super) env: &'a Env<'a>,
    errors: Vec<(usize, JobError)>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(text: &'a str, file: &'a str, base: &'a Path, env: &'a Env<'a>) -> Self {
        Self {
            text,
            file,
            base,
            env,
            errors: Vec::new(),
        }
    }

    /// The file as the user named it.
    pub(super) fn file_name(&self) -> &'a str {
        self.file
    }

    /// Notes an error.
    pub(super) fn refuse(&mut self, origin: Origin, problem: Problem) {
        let (at, file, place) = match origin {
            Origin::File(span) => (span.start, self.file, Some(Place::of(self.text, &span))),
            Origin::Flag(flag) => (usize::MAX, flag, None),
            Origin::Whole => (usize::MAX, self.file, None),
        };
        let Problem {
            code,
            message,
            help,
        } = problem;
        let error = JobError {
            code,
            message,
            file: file.to_owned(),
            place,
            help,
        };
        self.errors.push((at, error));
    }

    /// Notes an error at a place of the file.
    pub(super) fn refuse_at(&mut self, span: Range<usize>, problem: Problem) {
        self.refuse(Origin::File(span), problem);
    }

    /// The value, or nothing and a note.
    pub(super) fn take<T>(&mut self, span: Range<usize>, value: Result<T, Problem>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(problem) => {
                self.refuse_at(span, problem);
                None
            }
        }
    }

    /// Everything noted, in the order of the file; none if nothing was.
    pub(super) fn finish(mut self) -> Option<JobErrors> {
        if self.errors.is_empty() {
            return None;
        }
        self.errors.sort_by_key(|(at, error)| (*at, error.code));
        self.errors.dedup();
        let has_broken_syntax = self
            .errors
            .iter()
            .any(|(_, error)| error.code == Code::Syntax);
        let broken: Vec<usize> = self
            .errors
            .iter()
            .filter(|(_, error)| error.code == Code::Syntax)
            .filter_map(|(_, error)| error.place.as_ref().map(|place| place.line))
            .collect();
        // What a broken line seems to say, and what seems to be missing beside it, is guesswork.
        let is_guess = |error: &JobError| match (&error.place, error.code) {
            (_, Code::Syntax) => false,
            (None, _) | (_, Code::Missing) => has_broken_syntax,
            (Some(place), _) => broken.contains(&place.line),
        };
        let errors = self.errors.iter().map(|(_, error)| error);
        Some(JobErrors(
            errors.filter(|error| !is_guess(error)).cloned().collect(),
        ))
    }

    /// Opens a table; a key that it may not have is an error with the nearest one that it may.
    pub(super) fn open<'t>(
        &mut self,
        title: &str,
        (table, span): (&'t DeTable<'t>, Range<usize>),
        known: &[&str],
    ) -> Fields<'t> {
        let mut meant = Vec::new();
        for (key, _) in table
            .iter()
            .filter(|(key, _)| !known.contains(&key.get_ref().as_ref()))
        {
            let near = suggest::nearest(key.get_ref(), known);
            meant.extend(near.map(str::to_owned));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{title} may have {}", suggest::one_of(known)),
            };
            let message = format!("{title} has no key `{}`", key.get_ref().escape_debug());
            self.refuse_at(key.span(), Problem::new(Code::UnknownKey, message, help));
        }
        Fields {
            title: title.to_owned(),
            table,
            span,
            meant,
        }
    }

    fn wrong_type(&mut self, fields: &Fields<'_>, key: &str, wanted: &str, example: &str) {
        let Some(value) = fields.get(key) else { return };
        let message = format!("`{key}` must be {wanted}, not {}", kind(value.get_ref()));
        let help = format!("write it like this: {key} = {example}");
        self.refuse_at(value.span(), Problem::new(Code::WrongType, message, help));
    }

    /// A text.
    pub(super) fn text<'t>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        example: &str,
    ) -> Option<Spanned<&'t str>> {
        let value = fields.get(key)?;
        if let Some(text) = value.get_ref().as_str() {
            return Some(Spanned::new(value.span(), text));
        }
        self.wrong_type(fields, key, "a text", example);
        None
    }

    /// A table within a table.
    pub(super) fn table<'t>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        example: &str,
    ) -> Option<(&'t DeTable<'t>, Range<usize>)> {
        let value = fields.get(key)?;
        if let Some(table) = value.get_ref().as_table() {
            return Some((table, value.span()));
        }
        self.wrong_type(fields, key, "a table", example);
        None
    }

    /// A list.
    pub(super) fn list<'t>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        example: &str,
    ) -> Option<Spanned<&'t DeArray<'t>>> {
        let value = fields.get(key)?;
        if let Some(list) = value.get_ref().as_array() {
            return Some(Spanned::new(value.span(), list));
        }
        self.wrong_type(fields, key, "a list", example);
        None
    }

    /// A list of texts that is not empty.
    pub(super) fn texts<'t>(
        &mut self,
        fields: &Fields<'t>,
        key: &str,
        example: &str,
    ) -> Option<Spanned<Vec<Spanned<&'t str>>>> {
        let list = self.list(fields, key, example)?;
        let mut texts = Vec::new();
        for value in *list.get_ref() {
            let Some(text) = value.get_ref().as_str() else {
                let message = format!("`{key}` lists texts, not {}", kind(value.get_ref()));
                let help = format!("write it like this: {key} = {example}");
                self.refuse_at(value.span(), Problem::new(Code::WrongType, message, help));
                return None;
            };
            texts.push(Spanned::new(value.span(), text));
        }
        if texts.is_empty() {
            let message = format!("`{key}` is empty");
            let help = format!("write it like this: {key} = {example}");
            self.refuse_at(list.span(), Problem::new(Code::OutOfBounds, message, help));
            return None;
        }
        Some(Spanned::new(list.span(), texts))
    }

    /// A whole number within bounds.
    pub(super) fn whole(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = fields.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(
                fields,
                key,
                "a whole number",
                &bounds.start().max(&1).to_string(),
            );
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let within = number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| bounds.contains(number));
        if within.is_none() {
            let message = format!("`{key}` cannot be {}", shown(self.text, &value.span()));
            let help = match *bounds.end() {
                u64::MAX => format!("write a whole number of at least {}", bounds.start()),
                most => format!("write a whole number from {} to {most}", bounds.start()),
            };
            self.refuse_at(value.span(), Problem::new(Code::OutOfBounds, message, help));
        }
        within
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let example = format!("\"{}\"", words.first().map_or("", |(word, _)| word));
        let text = self.text(fields, key, &example)?;
        let found = words.iter().find(|(word, _)| word == text.get_ref());
        if let Some((_, value)) = found {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = match suggest::nearest(text.get_ref(), &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it can be {}", suggest::one_of(&names)),
        };
        let message = format!("`{key}` cannot be {:?}", text.get_ref());
        self.refuse_at(text.span(), Problem::new(Code::BadWord, message, help));
        None
    }

    /// A key that must be there; a misspelt one is an error already.
    pub(super) fn require(&mut self, fields: &Fields<'_>, key: &str, help: &str) {
        let is_misspelt = fields.meant.iter().any(|meant| meant == key);
        if fields.get(key).is_none() && !is_misspelt {
            let message = format!("{} has no `{key}`", fields.title);
            let origin = if fields.span.is_empty() {
                Origin::Whole
            } else {
                Origin::File(head(self.text, &fields.span))
            };
            self.refuse(origin, Problem::new(Code::Missing, message, help));
        }
    }
}

/// The first line of a span: enough to point at a table.
fn head(text: &str, span: &Range<usize>) -> Range<usize> {
    let whole = text.get(span.clone()).unwrap_or_default();
    span.start..span.start + whole.lines().next().unwrap_or_default().len()
}

/// The text of a short value, for a message.
fn shown(text: &str, span: &Range<usize>) -> String {
    const CHARS_MAX: usize = 40;
    let value = text.get(span.clone()).unwrap_or_default();
    value
        .chars()
        .take(CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

/// What a value is, in words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
