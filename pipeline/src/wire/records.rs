//! The parser for the file that a job names, at its start, in its middle, or for a stretch of it.

use super::csv::{CsvParser, Header};
use super::json::JsonParser;
use super::jsonl::JsonlParser;
use super::record::{InputError, Position, Record};
use crate::core::job::{CsvHeaders, InputSpec};
use crate::core::part::{Cursor, JsonShape};

/// A byte order mark says "this is UTF-8" and is no content.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Pushed the bytes of a file, gives its records.
#[derive(Debug)]
pub struct RecordParser {
    /// Bytes at the start of the file that may yet become a byte order mark; `None` once decided.
    mark: Option<Vec<u8>>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Jsonl(JsonlParser),
    Csv(CsvParser),
    Json(JsonParser),
}

impl RecordParser {
    /// For the bytes from the cursor's offset to the end of the file. `None` if the input is no file.
    ///
    /// # Errors
    /// The job describes the file in a way that cannot be.
    pub fn at(spec: &InputSpec, cursor: &Cursor) -> Result<Option<Self>, InputError> {
        let at = Position {
            offset: cursor.offset,
            line: cursor.line.max(1),
        };
        let format = match spec {
            InputSpec::Jsonl(_) => Format::Jsonl(JsonlParser::new(at)),
            InputSpec::Csv {
                headers, delimiter, ..
            } => Format::Csv(CsvParser::new(*delimiter, header(headers, cursor), at)?),
            InputSpec::Json(_) => Format::Json(match cursor.shape {
                Some(shape) if at.offset > 0 => JsonParser::after_element(shape, at),
                Some(_) | None => JsonParser::document(),
            }),
            InputSpec::Objects(_)
            | InputSpec::Events(_)
            | InputSpec::Inline(_)
            | InputSpec::Range { .. } => {
                return Ok(None);
            }
        };
        let mark = (at.offset == 0).then(Vec::new);
        Ok(Some(Self { mark, format }))
    }

    /// For the bytes from the start of one record to the end of another; header and shape are those of a
    /// cursor behind it. `None` if the input is no file.
    ///
    /// # Errors
    /// The job describes the file in a way that cannot be.
    pub fn stretch(
        spec: &InputSpec,
        cursor: &Cursor,
        at: Position,
    ) -> Result<Option<Self>, InputError> {
        let format = match spec {
            InputSpec::Jsonl(_) => Format::Jsonl(JsonlParser::new(at)),
            InputSpec::Csv {
                headers, delimiter, ..
            } => Format::Csv(CsvParser::new(*delimiter, header(headers, cursor), at)?),
            InputSpec::Json(_) => {
                let shape = cursor.shape.unwrap_or(JsonShape::Array);
                Format::Json(JsonParser::stretch(shape, at))
            }
            InputSpec::Objects(_)
            | InputSpec::Events(_)
            | InputSpec::Inline(_)
            | InputSpec::Range { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(Self { mark: None, format }))
    }

    /// CSV: the header, once it is known.
    #[must_use]
    pub fn header(&self) -> Option<&[String]> {
        match &self.format {
            Format::Csv(csv) => csv.header(),
            Format::Jsonl(_) | Format::Json(_) => None,
        }
    }

    /// JSON: what the document is, once it is known.
    #[must_use]
    pub fn shape(&self) -> Option<JsonShape> {
        match &self.format {
            Format::Json(json) => json.shape(),
            Format::Jsonl(_) | Format::Csv(_) => None,
        }
    }

    /// Takes the next bytes, cut anywhere, and adds the records that they complete.
    ///
    /// # Errors
    /// The first fault; `out` has the records before it. The parser is then used up.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        let Some(mut held) = self.mark.take() else {
            return self.format.feed(bytes, out);
        };
        let fits = |held: &[u8], byte: u8| MARK.get(held.len()) == Some(&byte);
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first().filter(|(b, _)| fits(&held, **b)) {
            held.push(byte);
            rest = after;
        }
        if held == MARK {
            self.format.skip(MARK.len() as u64);
            return self.format.feed(rest, out);
        }
        if rest.is_empty() {
            self.mark = Some(held);
            return Ok(());
        }
        self.format.feed(&held, out)?;
        self.format.feed(rest, out)
    }

    /// The file or stretch has ended.
    ///
    /// # Errors
    /// It ended in the middle of something.
    pub fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        if let Some(held) = self.mark.take() {
            self.format.feed(&held, out)?;
        }
        match &mut self.format {
            Format::Jsonl(parser) => parser.finish(out),
            Format::Csv(parser) => parser.finish(out),
            Format::Json(parser) => parser.finish(out),
        }
    }
}

impl Format {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        match self {
            Self::Jsonl(parser) => parser.feed(bytes, out),
            Self::Csv(parser) => parser.feed(bytes, out),
            Self::Json(parser) => parser.feed(bytes, out),
        }
    }

    fn skip(&mut self, bytes: u64) {
        match self {
            Self::Jsonl(parser) => parser.skip(bytes),
            Self::Csv(parser) => parser.skip(bytes),
            Self::Json(parser) => parser.skip(bytes),
        }
    }
}

fn header(headers: &CsvHeaders, cursor: &Cursor) -> Header {
    match (headers, &cursor.headers) {
        (CsvHeaders::Given(names), _) | (CsvHeaders::FirstRow, Some(names)) => {
            Header::Known(names.clone())
        }
        (CsvHeaders::FirstRow, None) => Header::NextRow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::job::Location;
    use proptest::prelude::*;

    fn file() -> Location {
        Location::Path("/file".into())
    }

    fn csv() -> InputSpec {
        InputSpec::Csv {
            file: file(),
            headers: CsvHeaders::FirstRow,
            delimiter: b',',
        }
    }

    /// The records and the cursor's lasting fields, with the bytes cut into chunks of these sizes.
    fn read(
        spec: &InputSpec,
        bytes: &[u8],
        sizes: &[usize],
    ) -> Result<(Vec<Record>, Cursor), InputError> {
        let parser = RecordParser::at(spec, &Cursor::default())?;
        let mut parser = parser.expect("the input is a file");
        let mut out = Vec::new();
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*size).clamp(1, rest.len()));
            parser.feed(chunk, &mut out)?;
            rest = after;
        }
        parser.finish(&mut out)?;
        let cursor = Cursor {
            headers: parser.header().map(<[String]>::to_vec),
            shape: parser.shape(),
            ..Cursor::default()
        };
        Ok((out, cursor))
    }

    /// Any value, with white space that a writer may put in; `\u{1}` stands for a line end.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i32>().prop_map(|n| n.to_string()),
            "[a-zé,\\[\\]{}: ]{0,8}".prop_map(|text| serde_json::to_string(&text).expect("text")),
            Just(r#""\"\\\n""#.to_owned()),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let space = prop_oneof![Just(""), Just(" "), Just("\u{1}\t")];
            (proptest::collection::vec(inner, 0..3), space, any::<bool>()).prop_map(
                |(values, space, object)| {
                    if object {
                        let pairs: Vec<String> =
                            values.iter().map(|v| format!("\"k\"{space}:{v}")).collect();
                        format!("{{{}{space}}}", pairs.join(","))
                    } else {
                        format!("[{space}{}]", values.join(&format!("{space},")))
                    }
                },
            )
        })
    }

    fn jsonl_file() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            4 => value().prop_map(|v| v.replace('\u{1}', " ")),
            1 => Just("  ".to_owned()),
        ];
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        (
            proptest::collection::vec(line, 0..12),
            end,
            any::<[bool; 2]>(),
        )
            .prop_map(|(lines, end, [mark, last])| {
                let mut text = lines.join(end);
                if last {
                    text.push_str(end);
                }
                marked(mark, &text)
            })
    }

    fn json_file() -> impl Strategy<Value = Vec<u8>> {
        let values = proptest::collection::vec(value(), 0..12);
        let gap = prop_oneof![Just(""), Just("\n  "), Just("\r\n")];
        (values, gap, any::<[bool; 2]>()).prop_map(|(values, gap, [mark, object])| {
            let values: Vec<String> = values.iter().map(|v| v.replace('\u{1}', "\n")).collect();
            let (values, open, close) = if object {
                let pairs = values.iter().enumerate();
                let pairs = pairs.map(|(n, v)| format!("\"k{n}\"{gap}: {v}")).collect();
                (pairs, '{', '}')
            } else {
                (values, '[', ']')
            };
            let between = format!("{gap},{gap}");
            marked(
                mark,
                &format!("{gap}{open}{gap}{}{gap}{close}{gap}", values.join(&between)),
            )
        })
    }

    fn csv_file() -> impl Strategy<Value = Vec<u8>> {
        let field = prop_oneof![
            "[a-zé ]{0,6}",
            "[a-z,\n\r\"]{0,6}".prop_map(|text| format!("\"{}\"", text.replace('"', "\"\""))),
        ];
        let row = proptest::collection::vec(field, 0..4).prop_map(|fields| fields.join(","));
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        (
            proptest::collection::vec(row, 0..12),
            end,
            any::<[bool; 2]>(),
        )
            .prop_map(|(rows, end, [mark, last])| {
                let mut text = format!("a,\"b\"\"\",{end}{}", rows.join(end));
                if last {
                    text.push_str(end);
                }
                marked(mark, &text)
            })
    }

    fn marked(mark: bool, text: &str) -> Vec<u8> {
        let mut bytes = if mark { MARK.to_vec() } else { Vec::new() };
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn any_file() -> impl Strategy<Value = (InputSpec, Vec<u8>)> {
        prop_oneof![
            jsonl_file().prop_map(|bytes| (InputSpec::Jsonl(file()), bytes)),
            json_file().prop_map(|bytes| (InputSpec::Json(file()), bytes)),
            csv_file().prop_map(|bytes| (csv(), bytes)),
        ]
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_records_are_the_same(
            (spec, bytes) in any_file(),
            sizes in proptest::collection::vec(1_usize..9, 1..6),
        ) {
            let whole = read(&spec, &bytes, &[usize::MAX]).expect("the file is good");
            let cut = read(&spec, &bytes, &sizes).expect("the file is good");
            prop_assert_eq!(&whole, &cut);
            for record in &whole.0 {
                serde_json::from_str::<serde_json::Value>(&record.json).expect("each is JSON");
                prop_assert!(!record.json.contains('\n'));
            }
        }

        #[test]
        fn a_stretch_read_again_gives_the_same_records(
            (spec, bytes) in any_file(),
            ends: [proptest::sample::Index; 2],
        ) {
            let (records, cursor) = read(&spec, &bytes, &[usize::MAX]).expect("the file is good");
            prop_assume!(!records.is_empty());
            let mut ends = ends.map(|end| end.index(records.len()));
            ends.sort_unstable();
            let expected = &records[ends[0]..=ends[1]];
            let (first, last) = (&expected[0], &records[ends[1]]);

            let at = Position { offset: first.start, line: first.line };
            let parser = RecordParser::stretch(&spec, &cursor, at).expect("it was read before");
            let mut parser = parser.expect("the input is a file");
            let mut again = Vec::new();
            let slice = &bytes[first.start as usize..last.end as usize];
            parser.feed(slice, &mut again).expect("it was read before");
            parser.finish(&mut again).expect("it was read before");
            prop_assert_eq!(expected, &again);

            let behind = Cursor { offset: last.end, line: last.end_line, ..cursor };
            let parser = RecordParser::at(&spec, &behind).expect("it was read before");
            let mut parser = parser.expect("the input is a file");
            let mut rest = Vec::new();
            parser.feed(&bytes[last.end as usize..], &mut rest).expect("it was read before");
            parser.finish(&mut rest).expect("it was read before");
            prop_assert_eq!(&records[ends[1] + 1..], &rest);
        }

        #[test]
        fn junk_is_an_error_or_read_but_never_a_panic(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(&b"[]{}\",:\r\n\\1"[..])],
                0..64,
            ),
            sizes in proptest::collection::vec(1_usize..9, 1..6),
        ) {
            for spec in [InputSpec::Jsonl(file()), InputSpec::Json(file()), csv()] {
                let whole = read(&spec, &bytes, &[usize::MAX]);
                prop_assert_eq!(&whole, &read(&spec, &bytes, &sizes));
                if let Err(error) = whole {
                    prop_assert!(error.line >= 1 && !error.help.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_one_cut_short_is_junk() {
        let spec = InputSpec::Jsonl(file());
        let (records, _) = read(&spec, b"\xef\xbb\xbf1\n", &[1]).expect("marked");
        assert_eq!((&*records[0].json, records[0].start), ("1", 3));
        let (records, _) = read(&spec, MARK, &[1]).expect("an empty file");
        assert_eq!(records, []);
        let error = read(&spec, b"\xef\xbb", &[1]).expect_err("half a mark");
        assert_eq!(error.problem, "this is not UTF-8");
    }
}
