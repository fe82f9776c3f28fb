//! One JSON document, element by element: those of its array, or the pairs of its object.
//!
//! Only one element is ever held. A stretch cut out of the document is read the same way: elements
//! with commas between them, without the brackets.

use super::record::{InputError, Position, Record};
use super::value::{self, Spot, Text};
use crate::core::item::ITEM_BYTES_MAX;
use crate::core::part::JsonShape;

const HELP: &str = "the file must hold one whole JSON array or object";

/// Where the document is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Document,
    /// After the opening bracket: an element, or the end.
    First,
    /// After a comma: an element.
    Element,
    /// In a pair's key.
    Key,
    /// After a pair's key.
    Colon,
    /// After the colon.
    BeforeValue,
    /// In an element, or in the value of a pair.
    Value,
    /// After an element: a comma, or the end.
    After,
    /// After the closing bracket.
    End,
}

/// How a value ends.
#[derive(Clone, Copy, Debug)]
enum Scan {
    /// Number, `true`, `false`, `null` (or junk): at white space, a comma, a bracket.
    Word,
    /// String, array, object: where its own bracket closes. What stands in between is checked later.
    Nested { depth: u32, text: Text },
}

/// Which bytes a parser gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The document to its end.
    Document,
    /// Whole elements out of its middle.
    Stretch,
}

/// Reads a JSON document as it arrives. Holds one element at most; after an error it is used up.
#[derive(Debug)]
pub struct JsonParser {
    shape: Option<JsonShape>,
    extent: Extent,
    state: State,
    scan: Scan,
    /// The next byte.
    at: Position,
    /// Where its line begins, if that was seen.
    line_start: Option<u64>,
    /// Where the element begins.
    element: Position,
    /// Where the key or value begins, for errors.
    spot: Spot,
    /// A pair's key, as JSON.
    key: String,
    /// The key or value so far.
    text: Vec<u8>,
}

impl JsonParser {
    /// Reads a document from its start.
    #[must_use]
    pub fn document() -> Self {
        Self {
            shape: None,
            extent: Extent::Document,
            state: State::Document,
            scan: Scan::Word,
            at: Position::START,
            line_start: Some(0),
            element: Position::START,
            spot: Spot {
                line: 1,
                column: Some(1),
            },
            key: String::new(),
            text: Vec::new(),
        }
    }

    /// Reads the rest of a document from the end of one of its elements on.
    #[must_use]
    pub fn after_element(shape: JsonShape, at: Position) -> Self {
        Self {
            shape: Some(shape),
            state: State::After,
            at,
            line_start: None,
            ..Self::document()
        }
    }

    /// Reads a stretch from the start of one element to the end of another.
    #[must_use]
    pub fn stretch(shape: JsonShape, at: Position) -> Self {
        Self {
            extent: Extent::Stretch,
            state: State::Element,
            ..Self::after_element(shape, at)
        }
    }

    /// What the document is, once it is known.
    #[must_use]
    pub fn shape(&self) -> Option<JsonShape> {
        self.shape
    }

    /// Moves the start of the file, past a byte order mark.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.at.offset += bytes;
        self.line_start = Some(self.at.offset);
    }

    /// Takes the next bytes and adds the records that they complete.
    ///
    /// # Errors
    /// The first fault; `out` has the records before it.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Key | State::Value => self.take_value(rest, out)?,
                State::Document
                | State::First
                | State::Element
                | State::Colon
                | State::BeforeValue
                | State::After
                | State::End => self.take_between(rest)?,
            };
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// The file has ended.
    ///
    /// # Errors
    /// The document has not.
    pub fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        if self.state == State::Value && matches!(self.scan, Scan::Word) {
            self.end_value(out)?;
        }
        let ended = match self.extent {
            Extent::Document => State::End,
            Extent::Stretch => State::After,
        };
        if self.state != ended {
            return Err(self.error("the JSON is cut short here"));
        }
        Ok(())
    }

    /// White space and punctuation; answers how many bytes it took, possibly none where a value begins.
    fn take_between(&mut self, bytes: &[u8]) -> Result<usize, InputError> {
        let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        let spaces = bytes.iter().take_while(|b| space(b)).count();
        self.advance(&bytes[..spaces]);
        let Some(&byte) = bytes.get(spaces) else {
            return Ok(spaces);
        };
        match (self.state, byte) {
            (State::Document, b'[') => self.open(JsonShape::Array),
            (State::Document, b'{') => self.open(JsonShape::Object),
            (State::Document, _) => {
                let mut error = self.error("this is a single value, not an array or object");
                "put it in brackets, or read one value a line with `jsonl`"
                    .clone_into(&mut error.help);
                return Err(error);
            }
            (State::First | State::After, b']' | b'}') => self.close(byte)?,
            (State::After, b',') => self.state = State::Element,
            (State::Colon, b':') => self.state = State::BeforeValue,
            (State::First | State::Element, byte) => {
                self.begin_element(byte)?;
                return Ok(spaces);
            }
            (State::BeforeValue, b',' | b']' | b'}' | b':') => {
                return Err(self.error("a value is missing here"));
            }
            (State::BeforeValue, byte) => {
                self.begin_value(byte, State::Value);
                return Ok(spaces);
            }
            (State::Colon, _) => return Err(self.error("a colon is missing after the key")),
            (State::After, _) => {
                return Err(self.error("a comma or the closing bracket is missing before this"));
            }
            (State::End, _) => {
                let mut error = self.error("something follows the end of the JSON document");
                "if the file holds one value a line, read it with `jsonl`"
                    .clone_into(&mut error.help);
                return Err(error);
            }
            (State::Key | State::Value, _) => unreachable!("values are taken elsewhere"),
        }
        self.advance(&bytes[spaces..=spaces]);
        Ok(spaces + 1)
    }

    fn open(&mut self, shape: JsonShape) {
        self.shape = Some(shape);
        self.state = State::First;
    }

    fn close(&mut self, byte: u8) -> Result<(), InputError> {
        let right = match self.shape() {
            Some(JsonShape::Object) => b'}',
            Some(JsonShape::Array) | None => b']',
        };
        if byte != right || self.extent == Extent::Stretch {
            return Err(self.error("this bracket closes nothing"));
        }
        self.state = State::End;
        Ok(())
    }

    fn begin_element(&mut self, byte: u8) -> Result<(), InputError> {
        self.element = self.at;
        match self.shape() {
            Some(JsonShape::Object) if byte != b'"' => {
                Err(self.error("a key in double quotes is missing here"))
            }
            Some(JsonShape::Object) => {
                self.begin_value(byte, State::Key);
                Ok(())
            }
            Some(JsonShape::Array) | None if matches!(byte, b',' | b']' | b'}' | b':') => {
                Err(self.error("a value is missing here"))
            }
            Some(JsonShape::Array) | None => {
                self.begin_value(byte, State::Value);
                Ok(())
            }
        }
    }

    fn begin_value(&mut self, byte: u8, state: State) {
        self.state = state;
        self.scan = match byte {
            b'"' | b'[' | b'{' => Scan::Nested {
                depth: 0,
                text: Text::Outside,
            },
            _ => Scan::Word,
        };
        self.spot = self.spot_here();
        self.text.clear();
    }

    fn take_value(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<usize, InputError> {
        let end = self.scan.end(bytes);
        let taken = end.unwrap_or(bytes.len());
        self.text.extend_from_slice(&bytes[..taken]);
        self.advance(&bytes[..taken]);
        if self.text.len() + self.key.len() > ITEM_BYTES_MAX {
            return Err(InputError::too_long(self.element.line, "element"));
        }
        if end.is_some() {
            self.end_value(out)?;
        }
        Ok(taken)
    }

    fn end_value(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        let text = value::parse(&self.text, self.spot, HELP)?;
        if self.state == State::Key {
            text.clone_into(&mut self.key);
            self.state = State::Colon;
            return Ok(());
        }
        let line = value::one_line(text);
        let json = match self.shape {
            Some(JsonShape::Object) => format!(r#"{{"key":{},"value":{line}}}"#, self.key).into(),
            Some(JsonShape::Array) | None => (&*line).into(),
        };
        out.push(Record {
            json,
            start: self.element.offset,
            end: self.at.offset,
            line: self.element.line,
            end_line: self.at.line,
        });
        self.key.clear();
        self.state = State::After;
        Ok(())
    }

    fn advance(&mut self, bytes: &[u8]) {
        if let Some(last) = memchr::memrchr(b'\n', bytes) {
            self.at.line += memchr::memchr_iter(b'\n', bytes).count() as u64;
            self.line_start = Some(self.at.offset + last as u64 + 1);
        }
        self.at.offset += bytes.len() as u64;
    }

    fn spot_here(&self) -> Spot {
        Spot {
            line: self.at.line,
            column: self.line_start.map(|start| self.at.offset - start + 1),
        }
    }

    fn error(&self, problem: &str) -> InputError {
        let spot = self.spot_here();
        InputError {
            line: spot.line,
            column: spot.column,
            problem: problem.to_owned(),
            help: HELP.to_owned(),
        }
    }
}

impl Scan {
    /// One past the value's last byte, if it is among these.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Word => bytes.iter().position(|b| {
                matches!(b, b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\n' | b'\r')
            }),
            Self::Nested { depth, text } => {
                let mut index = 0;
                while index < bytes.len() {
                    if *text == Text::Inside {
                        // Most bytes are in strings: pass over them quickly.
                        index += memchr::memchr2(b'"', b'\\', &bytes[index..])?;
                    }
                    let byte = bytes[index];
                    index += 1;
                    let before = *text;
                    *text = before.after(byte);
                    let closed = match (before, *text, byte) {
                        (Text::Outside, Text::Outside, b'[' | b'{') => {
                            *depth += 1;
                            false
                        }
                        (Text::Outside, Text::Outside, b']' | b'}') => {
                            *depth = depth.saturating_sub(1);
                            true
                        }
                        (Text::Inside, Text::Outside, _) => true,
                        _ => false,
                    };
                    if closed && *depth == 0 {
                        return Some(index);
                    }
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<String>, Option<String>) {
        let mut parser = JsonParser::document();
        let mut out = Vec::new();
        let result = parser
            .feed(bytes, &mut out)
            .and_then(|()| parser.finish(&mut out));
        let values = out.iter().map(|r| r.json.to_string()).collect();
        (values, result.err().map(|e| e.to_string()))
    }

    fn error(bytes: &[u8]) -> String {
        read(bytes).1.expect("the input is broken")
    }

    #[test]
    fn the_elements_of_an_array_become_items_each_on_one_line() {
        let (values, error) = read(b" [1, \"a]\\\"\",\r\n{\"b\": [\n {}]}, null,-2.5e3 , []]\n ");
        assert_eq!(error, None);
        assert_eq!(
            values,
            ["1", r#""a]\"""#, r#"{"b":[{}]}"#, "null", "-2.5e3", "[]"]
        );
    }

    #[test]
    fn the_pairs_of_an_object_become_items() {
        let (values, error) = read(br#"{"a": 1, "b\n" : {"c": 2}}"#);
        assert_eq!(error, None);
        assert_eq!(
            values,
            [
                r#"{"key":"a","value":1}"#,
                r#"{"key":"b\n","value":{"c": 2}}"#
            ]
        );
    }

    #[test]
    fn an_empty_array_or_object_has_no_items() {
        assert_eq!(read(b"[ ]"), (Vec::new(), None));
        assert_eq!(read(b"{}"), (Vec::new(), None));
    }

    #[test]
    fn a_single_value_is_an_error() {
        assert_eq!(
            error(b" 12 "),
            "line 1, column 2: this is a single value, not an array or object; put it in brackets, or read one value a line with `jsonl`"
        );
    }

    #[test]
    fn a_document_cut_short_anywhere_is_an_error() {
        let whole = br#"[1, "a", {"b": [2]}]"#;
        for length in 0..whole.len() {
            let error = error(&whole[..length]);
            assert!(error.contains("cut short"), "{length}: {error}");
        }
        assert!(error(b"").starts_with("line 1, column 1: the JSON is cut short here"));
        assert!(error(br#"{"a""#).contains("cut short"));
    }

    #[test]
    fn one_value_a_line_is_an_error_that_names_the_right_input() {
        let error = error(b"{\"a\":1}\n{\"a\":2}\n");
        assert!(error.starts_with("line 2, column 1: something follows the end"));
        assert!(error.ends_with("read it with `jsonl`"));
    }

    #[test]
    fn faults_between_and_in_elements_are_placed() {
        assert!(error(b"[1 2]").starts_with("line 1, column 4: a comma or the closing bracket"));
        assert!(error(b"[1,]").starts_with("line 1, column 4: a value is missing here"));
        assert!(error(b"[1}").starts_with("line 1, column 3: this bracket closes nothing"));
        assert!(error(b"{1:2}").starts_with("line 1, column 2: a key in double quotes"));
        assert!(error(b"{\"a\" 2}").starts_with("line 1, column 6: a colon is missing"));
        assert!(error(b"{\"a\":}").starts_with("line 1, column 6: a value is missing here"));
        assert!(error(b"[1,\n  {\"a\"}]").starts_with("line 2, column 7: this is not JSON"));
        assert!(error(b"[\"\xff\"]").starts_with("line 1, column 3: this is not UTF-8"));
    }

    #[test]
    fn an_element_nested_too_deep_is_an_error() {
        let deep = format!("[{}{}]", "[".repeat(129), "]".repeat(129));
        assert!(error(deep.as_bytes()).contains("nested deeper than 128 levels"));
    }

    #[test]
    fn an_element_over_the_bound_is_refused_before_it_is_held() {
        let mut long = b"[\"".to_vec();
        long.resize(ITEM_BYTES_MAX + 16, b'x');
        assert!(error(&long).starts_with("line 1: the element is longer than 8 MiB"));
    }
}
