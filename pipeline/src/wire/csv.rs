//! CSV: rows become objects of strings, keyed by the header.
//!
//! RFC 4180, with LF or CRLF, and strict: a file that could be read in two ways is an error that names the
//! place, never a guess. That is why the states are our own: csv-core mends broken quotes in silence
//! (`"a"b` is read as `ab`), and an error needs line and column. A backslash is a plain character; Distributed Map drops some of them.
//!
//! Blank lines are no items (an empty value in a single column is written `""`). A row with fewer fields
//! than the header gets empty strings, as in Distributed Map; one with more is an error, where
//! Distributed Map would drop what is in them.

use super::record::{InputError, Position, Record};
use super::value::NOT_UTF8_HELP;
use crate::core::item::ITEM_BYTES_MAX;

const QUOTE_HELP: &str =
    "put a field that holds a quote in double quotes, and write each quote in it twice";

/// Where the names of the fields come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The next row.
    NextRow,
    /// These.
    Known(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first byte of a field.
    Start,
    /// In a field without quotes.
    Bare,
    /// In a field in quotes.
    Quoted,
    /// After a quote in a field in quotes: its end, or half of a doubled quote.
    Closed,
    /// After a carriage return that ends a row.
    Return,
}

/// Reads CSV as it arrives. Holds one row at most; after an error it is used up.
#[derive(Debug)]
pub struct CsvParser {
    delimiter: u8,
    header: Option<Names>,
    state: State,
    /// The next byte.
    at: Position,
    /// Where the line of `at` begins.
    line_start: u64,
    row_start: Position,
    /// Where the last quoted field was opened: line and column.
    opened: (u64, u64),
    /// The row's fields so far, without quotes, one after the other …
    text: Vec<u8>,
    /// … and where each ends.
    ends: Vec<usize>,
}

/// The header, with each name also as it stands in the objects: `{"a":` and `,"b":`.
#[derive(Debug)]
struct Names {
    names: Vec<String>,
    keys: Vec<String>,
}

impl Names {
    fn new(names: Vec<String>, line: u64) -> Result<Self, InputError> {
        let error = |problem: String, help: &str| InputError {
            line,
            column: None,
            problem,
            help: help.to_owned(),
        };
        if names.is_empty() {
            let problem = "the CSV header is empty".to_owned();
            return Err(error(problem, "name at least one field"));
        }
        let mut seen = std::collections::BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            if let Some(first) = seen.insert(name, index) {
                let (first, second) = (first + 1, index + 1);
                let problem =
                    format!("the CSV header has {name:?} twice, as fields {first} and {second}");
                return Err(error(problem, "give each field a name of its own"));
            }
        }
        let key = |(index, name): (usize, &String)| {
            let mark = if index == 0 { '{' } else { ',' };
            format!("{mark}{}:", quoted(name))
        };
        let keys = names.iter().enumerate().map(key).collect();
        Ok(Self { names, keys })
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings always serialise")
}

impl CsvParser {
    /// Reads on at the start of a row.
    ///
    /// # Errors
    /// A delimiter that cannot be one, or a header that is empty or has a name twice.
    pub fn new(delimiter: u8, header: Header, at: Position) -> Result<Self, InputError> {
        if !delimiter.is_ascii() || matches!(delimiter, b'"' | b'\n' | b'\r') {
            let problem = format!("{:?} cannot separate fields", char::from(delimiter));
            let help = "take a comma, a semicolon, a tab, a pipe or a space";
            return Err(InputError::of_job(problem, help));
        }
        let header = match header {
            Header::NextRow => None,
            Header::Known(names) => Some(Names::new(names, 0)?),
        };
        Ok(Self {
            delimiter,
            header,
            state: State::Start,
            at,
            line_start: at.offset,
            row_start: at,
            opened: (0, 0),
            text: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// The header, once it is known.
    #[must_use]
    pub fn header(&self) -> Option<&[String]> {
        self.header.as_ref().map(|header| &*header.names)
    }

    /// Moves the start of the file, past a byte order mark.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.at.offset += bytes;
        self.line_start = self.at.offset;
        self.row_start = self.at;
    }

    /// Takes the next bytes and adds the records that they complete.
    ///
    /// # Errors
    /// The first broken row; `out` has the records before it.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let run = self.plain_run(rest);
            if run > 0 {
                self.text.extend_from_slice(&rest[..run]);
                self.advance(&rest[..run]);
                rest = &rest[run..];
                continue;
            }
            let byte = rest[0];
            let row_ended = self.step(byte)?;
            self.advance(&rest[..1]);
            rest = &rest[1..];
            if row_ended {
                self.end_row(out)?;
            }
        }
        self.check_length()
    }

    /// The file has ended: its last row may lack a line end.
    ///
    /// # Errors
    /// The last row is broken, or the file has no header.
    pub fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        match self.state {
            State::Quoted => {
                let (line, column) = self.opened;
                return Err(InputError {
                    line,
                    column: Some(column),
                    problem: "the quote that opens here is never closed".to_owned(),
                    help: QUOTE_HELP.to_owned(),
                });
            }
            State::Start if self.ends.is_empty() => {}
            State::Start | State::Bare | State::Closed => self.end_field(),
            State::Return => {}
        }
        self.end_row(out)?;
        // A file without a byte (or with a mark only) is an empty input; one with blank lines lost its header.
        if self.header.is_none() && self.at.line > 1 {
            return Err(InputError {
                line: 1,
                column: None,
                problem: "the CSV header is missing: all lines are blank".to_owned(),
                help: "put the names of the fields into the first row, or give them in the job"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// How many of the first bytes belong to the field as they are.
    fn plain_run(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Quoted => memchr::memchr(b'"', bytes).unwrap_or(bytes.len()),
            State::Start | State::Bare => {
                let special = |&b: &u8| b == self.delimiter || matches!(b, b'"' | b'\n' | b'\r');
                let run = bytes.iter().position(special).unwrap_or(bytes.len());
                if run > 0 {
                    self.state = State::Bare;
                }
                run
            }
            State::Closed | State::Return => 0,
        }
    }

    /// Takes one byte that is not plain; answers whether it ends the row.
    fn step(&mut self, byte: u8) -> Result<bool, InputError> {
        match (self.state, byte) {
            (State::Start, b'"') => {
                self.opened = (self.at.line, self.column());
                self.state = State::Quoted;
            }
            (State::Quoted, _) => self.state = State::Closed,
            (State::Closed, b'"') => {
                self.text.push(b'"');
                self.state = State::Quoted;
            }
            (State::Return, b'\n') => return Ok(true),
            (State::Start | State::Bare | State::Closed, b'\n') => {
                self.end_last_field();
                return Ok(true);
            }
            (State::Start | State::Bare | State::Closed, b'\r') => {
                self.end_last_field();
                self.state = State::Return;
            }
            (State::Start | State::Bare | State::Closed, byte) if byte == self.delimiter => {
                self.end_field();
            }
            (State::Start | State::Bare, _) => {
                return Err(self.error("a quote stands inside a field without quotes", QUOTE_HELP));
            }
            (State::Closed, _) => {
                return Err(self.error("the field goes on after its closing quote", QUOTE_HELP));
            }
            (State::Return, _) => {
                let help = "save the file with LF or CRLF, or put the field in double quotes";
                return Err(self.error("a carriage return stands alone before this", help));
            }
        }
        Ok(false)
    }

    /// Ends the field before a line end, unless the line is blank.
    fn end_last_field(&mut self) {
        let blank = self.state == State::Start && self.ends.is_empty();
        if !blank {
            self.end_field();
        }
    }

    fn end_field(&mut self) {
        self.ends.push(self.text.len());
        self.state = State::Start;
    }

    fn end_row(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        self.state = State::Start;
        if !self.ends.is_empty() {
            self.check_length()?;
            self.take_row(out)?;
            self.text.clear();
            self.ends.clear();
        }
        self.row_start = self.at;
        Ok(())
    }

    fn take_row(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        let line = self.row_start.line;
        let Some(header) = &self.header else {
            let fields = (0..self.ends.len()).map(|index| self.field(index).map(str::to_owned));
            let names = fields.collect::<Result<Vec<_>, _>>()?;
            self.header = Some(Names::new(names, line)?);
            return Ok(());
        };
        if self.ends.len() > header.keys.len() {
            return Err(InputError {
                line,
                column: None,
                problem: format!(
                    "the row has {} fields, the header has {}",
                    self.ends.len(),
                    header.keys.len()
                ),
                help: "put a field that holds the delimiter in double quotes, or name all fields"
                    .to_owned(),
            });
        }
        let mut json = Vec::with_capacity(self.text.len() + 16 * header.keys.len());
        for (index, key) in header.keys.iter().enumerate() {
            json.extend_from_slice(key.as_bytes());
            if index < self.ends.len() {
                serde_json::to_writer(&mut json, self.field(index)?)
                    .expect("strings always serialise, and a vector takes them");
            } else {
                json.extend_from_slice(b"\"\"");
            }
        }
        json.push(b'}');
        if json.len() > ITEM_BYTES_MAX {
            return Err(InputError::too_long(line, "row as JSON"));
        }
        let json = std::str::from_utf8(&json).expect("it was put together from texts");
        out.push(Record {
            json: json.into(),
            start: self.row_start.offset,
            end: self.at.offset,
            line,
            end_line: self.at.line,
        });
        Ok(())
    }

    fn field(&self, index: usize) -> Result<&str, InputError> {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        std::str::from_utf8(&self.text[start..self.ends[index]]).map_err(|_| InputError {
            line: self.row_start.line,
            column: None,
            problem: format!("field {} is not UTF-8", index + 1),
            help: NOT_UTF8_HELP.to_owned(),
        })
    }

    fn check_length(&self) -> Result<(), InputError> {
        if self.at.offset - self.row_start.offset > ITEM_BYTES_MAX as u64 {
            return Err(InputError::too_long(self.row_start.line, "row"));
        }
        Ok(())
    }

    fn advance(&mut self, bytes: &[u8]) {
        if let Some(last) = memchr::memrchr(b'\n', bytes) {
            self.at.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
            self.line_start = self.at.offset + last as u64 + 1;
        }
        self.at.offset += bytes.len() as u64;
    }

    fn column(&self) -> u64 {
        self.at.offset - self.line_start + 1
    }

    fn error(&self, problem: &str, help: &str) -> InputError {
        InputError {
            line: self.at.line,
            column: Some(self.column()),
            problem: problem.to_owned(),
            help: help.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<String>, Option<String>) {
        read_with(Header::NextRow, bytes)
    }

    fn read_with(header: Header, bytes: &[u8]) -> (Vec<String>, Option<String>) {
        let mut out = Vec::new();
        let result = CsvParser::new(b',', header, Position::START).and_then(|mut parser| {
            parser.feed(bytes, &mut out)?;
            parser.finish(&mut out)
        });
        let values = out.iter().map(|r| r.json.to_string()).collect();
        (values, result.err().map(|e| e.to_string()))
    }

    fn error(bytes: &[u8]) -> String {
        read(bytes).1.expect("the input is broken")
    }

    #[test]
    fn rows_become_objects_in_the_order_of_the_header() {
        let (rows, error) = read(b"b,a\r\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n   ,\n,\n2");
        assert_eq!(error, None);
        assert_eq!(
            rows,
            [
                r#"{"b":"1","a":"x, \"y\"\nz"}"#,
                r#"{"b":"   ","a":""}"#,
                r#"{"b":"","a":""}"#,
                r#"{"b":"2","a":""}"#,
            ]
        );
    }

    #[test]
    fn an_empty_file_and_a_header_alone_have_no_items() {
        assert_eq!(read(b""), (Vec::new(), None));
        assert_eq!(read(b"a,b\n"), (Vec::new(), None));
    }

    #[test]
    fn an_empty_value_in_a_single_column_is_written_in_quotes() {
        assert_eq!(read(b"a\n\n\"\"\n").0, [r#"{"a":""}"#]);
    }

    #[test]
    fn a_given_header_leaves_the_first_row_as_data() {
        let header = Header::Known(vec!["n".into(), String::new()]);
        assert_eq!(read_with(header, b"1,2\n").0, [r#"{"n":"1","":"2"}"#]);
    }

    #[test]
    fn a_backslash_is_a_plain_character() {
        assert_eq!(read(b"a\nC:\\x\n").0, [r#"{"a":"C:\\x"}"#]);
    }

    #[test]
    fn a_name_that_stands_twice_in_the_header_is_an_error() {
        assert_eq!(
            error(b"a,b,a\n1,2,3\n"),
            "line 1: the CSV header has \"a\" twice, as fields 1 and 3; give each field a name of its own"
        );
        assert!(error(b"a,,\n").contains("has \"\" twice, as fields 2 and 3"));
        let given = read_with(Header::Known(vec!["a".into(), "a".into()]), b"");
        assert!(
            given
                .1
                .expect("twice")
                .starts_with("the CSV header has \"a\" twice")
        );
    }

    #[test]
    fn a_header_that_is_missing_is_an_error() {
        assert!(error(b"\n\r\n").starts_with("line 1: the CSV header is missing"));
        let given = read_with(Header::Known(Vec::new()), b"1\n").1;
        assert_eq!(
            given.expect("no names"),
            "the CSV header is empty; name at least one field"
        );
    }

    #[test]
    fn a_row_with_more_fields_than_the_header_is_an_error() {
        assert_eq!(
            error(b"a,b\n1,2\n\n1,2,3\n"),
            "line 4: the row has 3 fields, the header has 2; put a field that holds the delimiter in double quotes, or name all fields"
        );
    }

    #[test]
    fn broken_quotes_are_errors_with_their_place() {
        assert!(
            error(b"a\n1\n\"x\ny\n")
                .starts_with("line 3, column 1: the quote that opens here is never closed")
        );
        assert!(
            error(b"a,b\n1,\"x\"y\n")
                .starts_with("line 2, column 6: the field goes on after its closing quote")
        );
        assert!(
            error(b"a\n5\" pipe\n")
                .starts_with("line 2, column 2: a quote stands inside a field without quotes")
        );
    }

    #[test]
    fn a_lone_carriage_return_is_an_error() {
        assert!(error(b"a\rb\r").starts_with("line 1, column 3: a carriage return stands alone"));
    }

    #[test]
    fn a_field_that_is_not_utf8_is_an_error_even_where_two_fields_together_would_be() {
        assert!(error(b"a,b\n\xc3,\xa9\n").starts_with("line 2: field 1 is not UTF-8"));
    }

    #[test]
    fn a_row_over_the_bound_is_refused() {
        let mut row = b"a\n".to_vec();
        row.resize(ITEM_BYTES_MAX + 16, b'x');
        assert!(error(&row).starts_with("line 2: the row is longer than 8 MiB"));
    }

    #[test]
    fn a_delimiter_that_cannot_be_one_is_refused() {
        let error = CsvParser::new(b'"', Header::NextRow, Position::START);
        let error = error.expect_err("a quote is no delimiter").to_string();
        assert!(error.starts_with("'\"' cannot separate fields"), "{error}");
    }
}
