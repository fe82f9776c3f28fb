//! What to read: the `input` table.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::core::job::{CsvHeaders, InputSpec, Location};

use super::error::Code;
use super::reading::{Fields, Origin, Problem, Reading, Value};
use super::{events, places, suggest, units};

const SOURCES: [&str; 7] = [
    "objects", "csv", "json", "jsonl", "inline", "range", "events",
];
const CSV_OPTIONS: [&str; 2] = ["headers", "delimiter"];
const EXAMPLE: &str = "{ objects = \"./in\" }";

/// Reads the `input` of a job.
pub(super) fn read(reading: &mut Reading<'_>, job: &Fields<'_>) -> Option<InputSpec> {
    let table = reading.table(job, "input", EXAMPLE)?;
    let options = [("csv", &CSV_OPTIONS[..]), ("events", &events::OPTIONS[..])];
    let known: Vec<&str> = SOURCES
        .iter()
        .chain(options.iter().flat_map(|(_, keys)| *keys))
        .copied()
        .collect();
    let fields = reading.open("input", table, &known);
    let source = only_source(reading, &fields)?;
    for (of, keys) in options.iter().filter(|(of, _)| *of != source) {
        for option in keys.iter().filter(|key| fields.get(key).is_some()) {
            let message = format!("`{option}` goes with `{of}`, not with `{source}`");
            let help = format!("remove it, or read {}", described(of));
            let problem = Problem::new(Code::Conflict, message, help);
            reading.refuse_at(fields.key_span(option), problem);
        }
    }
    match source {
        "objects" => place(reading, &fields, "objects").map(InputSpec::Objects),
        "jsonl" => file(reading, &fields, "jsonl").map(InputSpec::Jsonl),
        "json" => file(reading, &fields, "json").map(InputSpec::Json),
        "csv" => csv(reading, &fields),
        "inline" => inline(reading, &fields),
        "events" => events::read(reading, &fields).map(InputSpec::Events),
        _ => range(reading, &fields),
    }
}

fn described(source: &str) -> &'static str {
    match source {
        "csv" => "a CSV file",
        _ => "events",
    }
}

/// Puts the place given by `--input` where the job's own was.
pub(super) fn replace(
    reading: &mut Reading<'_>,
    input: InputSpec,
    location: Location,
) -> InputSpec {
    match input {
        InputSpec::Objects(_) => InputSpec::Objects(location),
        InputSpec::Jsonl(_) => InputSpec::Jsonl(location),
        InputSpec::Json(_) => InputSpec::Json(location),
        InputSpec::Csv {
            headers, delimiter, ..
        } => InputSpec::Csv {
            file: location,
            headers,
            delimiter,
        },
        InputSpec::Inline(_) | InputSpec::Range { .. } | InputSpec::Events(_) => {
            let message =
                "the job's input is written in the job file, so --input has nothing to replace";
            let help = "leave --input out, or let the job read a file or a directory";
            reading.refuse(
                Origin::Flag("--input"),
                Problem::new(Code::Conflict, message, help),
            );
            input
        }
    }
}

fn only_source(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<&'static str> {
    let mut sources = SOURCES.into_iter().filter(|key| fields.get(key).is_some());
    let Some(first) = sources.next() else {
        let message = "input says not what to read";
        let help = format!(
            "give it {}, for example input = {EXAMPLE}",
            suggest::one_of(&SOURCES)
        );
        reading.refuse_at(
            fields.span.clone(),
            Problem::new(Code::Missing, message, help),
        );
        return None;
    };
    for other in sources {
        let message = format!("input has both `{first}` and `{other}`");
        let problem = Problem::new(Code::Conflict, message, "keep one of them");
        reading.refuse_at(fields.key_span(other), problem);
    }
    Some(first)
}

fn place(reading: &mut Reading<'_>, fields: &Fields<'_>, key: &str) -> Option<Location> {
    let text = reading.text(fields, key, "\"./in\"")?;
    let location = places::location(text.get_ref(), reading.base, reading.env);
    reading.take(text.span(), location)
}

/// A place that must be one file or object.
fn file(reading: &mut Reading<'_>, fields: &Fields<'_>, key: &str) -> Option<Location> {
    let text = reading.text(fields, key, &format!("\"./items.{key}\""))?;
    let location = places::location(text.get_ref(), reading.base, reading.env);
    let location = reading.take(text.span(), location)?;
    let is_file = match &location {
        Location::Path(_) => !text.get_ref().ends_with('/'),
        Location::S3 { key, .. } => !key.is_empty() && !key.ends_with('/'),
    };
    if !is_file {
        let message = format!("`{key}` must name one file, not a directory");
        let help = "name the file; to run every file of a directory, use `objects`";
        reading.refuse_at(text.span(), Problem::new(Code::BadPlace, message, help));
        return None;
    }
    Some(location)
}

fn csv(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<InputSpec> {
    let file = file(reading, fields, "csv");
    let headers = headers(reading, fields);
    let delimiter = delimiter(reading, fields);
    Some(InputSpec::Csv {
        file: file?,
        headers: headers?,
        delimiter: delimiter?,
    })
}

fn headers(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<CsvHeaders> {
    let is_text = fields
        .get("headers")
        .is_none_or(|value| value.get_ref().is_str());
    if is_text {
        let word = reading.word(fields, "headers", &[("first_row", ())]);
        return (word.is_some() || fields.get("headers").is_none()).then_some(CsvHeaders::FirstRow);
    }
    let names = reading.texts(fields, "headers", "[\"id\", \"name\"]")?;
    let mut seen: Vec<&str> = Vec::new();
    for name in names.get_ref() {
        if seen.contains(name.get_ref()) {
            let message = format!("the header {:?} is there twice", name.get_ref());
            let help = "give every column its own name: rows become objects with these keys";
            reading.refuse_at(name.span(), Problem::new(Code::Conflict, message, help));
            return None;
        }
        seen.push(name.get_ref());
    }
    Some(CsvHeaders::Given(
        seen.into_iter().map(str::to_owned).collect(),
    ))
}

fn delimiter(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<u8> {
    if fields.get("delimiter").is_none() {
        return Some(b',');
    }
    let text = reading.text(fields, "delimiter", "\",\"")?;
    match text.get_ref().as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r' | 0) => Some(*byte),
        _ => {
            let message = format!("{:?} cannot separate fields", text.get_ref());
            let help = "write one ASCII character, such as \",\", \";\" or \"\\t\"";
            reading.refuse_at(text.span(), Problem::new(Code::BadForm, message, help));
            None
        }
    }
}

fn range(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<InputSpec> {
    let text = reading.text(fields, "range", "\"0..1000\"")?;
    let range = units::range(text.get_ref()).map_err(|message| {
        let help = "write \"START..END\": the first number, and one past the last";
        Problem::new(Code::BadForm, message, help)
    });
    let (start, end) = reading.take(text.span(), range)?;
    Some(InputSpec::Range { start, end })
}

fn inline(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<InputSpec> {
    let list = reading.list(fields, "inline", "[1, \"two\", { three = 3 }]")?;
    let mut texts = Vec::new();
    for value in *list.get_ref() {
        match json(value) {
            Ok(text) => texts.push(text),
            Err((span, problem)) => {
                reading.refuse_at(span, problem);
                return None;
            }
        }
    }
    Some(InputSpec::Inline(texts))
}

type Misplaced = (std::ops::Range<usize>, Problem);

/// The JSON text of a TOML value: keys in the order of the file, dates as texts.
fn json(value: &Value<'_>) -> Result<String, Misplaced> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let bad =
        |message: &str, help: &str| (value.span(), Problem::new(Code::OutOfBounds, message, help));
    match value.get_ref() {
        DeValue::String(text) => Ok(quote(text)),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Datetime(date) => Ok(quote(&date.to_string())),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(|number| number.to_string())
            .map_err(|_| bad("the number is larger than 64 bits", "write it as a text")),
        DeValue::Float(float) => float
            .as_str()
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(|number| number.to_string())
            .ok_or_else(|| bad("JSON has no such number", "write it as a text")),
        DeValue::Array(list) => {
            let items: Result<Vec<String>, Misplaced> = list.iter().map(json).collect();
            Ok(format!("[{}]", items?.join(",")))
        }
        DeValue::Table(table) => json_object(table),
    }
}

fn json_object(table: &DeTable<'_>) -> Result<String, Misplaced> {
    let mut pairs: Vec<(&Spanned<_>, &Value<'_>)> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let mut texts = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let key: &str = key.get_ref();
        texts.push(format!("{}:{}", serde_json::Value::from(key), json(value)?));
    }
    Ok(format!("{{{}}}", texts.join(",")))
}
