//! JSON Lines: one value a line; blank lines are no items.

use super::record::{InputError, Position, Record};
use super::value::{self, Spot};
use crate::core::item::ITEM_BYTES_MAX;

const HELP: &str = "each line must hold one whole JSON value";

/// Reads JSON Lines as they arrive. Holds one line at most; after an error it is used up.
#[derive(Debug)]
pub struct JsonlParser {
    /// The start of the line that is being read.
    at: Position,
    /// The line's bytes from former feeds.
    carry: Vec<u8>,
}

impl JsonlParser {
    /// Reads on at the start of a line.
    #[must_use]
    pub fn new(at: Position) -> Self {
        Self {
            at,
            carry: Vec::new(),
        }
    }

    /// Moves the start of the file, past a byte order mark.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.at.offset += bytes;
    }

    /// Takes the next bytes and adds the records that they complete.
    ///
    /// # Errors
    /// The first broken line; `out` has the records before it.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        let mut rest = bytes;
        while let Some(newline) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(newline + 1);
            rest = after;
            if self.carry.is_empty() {
                self.line(line, out)?;
                continue;
            }
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(line);
            self.line(&whole, out)?;
            whole.clear();
            self.carry = whole;
        }
        self.carry.extend_from_slice(rest);
        if self.carry.len() > ITEM_BYTES_MAX {
            return Err(InputError::too_long(self.at.line, "line"));
        }
        Ok(())
    }

    /// The file has ended: its last line may lack a line end.
    ///
    /// # Errors
    /// The last line is broken.
    pub fn finish(&mut self, out: &mut Vec<Record>) -> Result<(), InputError> {
        let last = std::mem::take(&mut self.carry);
        if last.is_empty() {
            return Ok(());
        }
        self.line(&last, out)
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<Record>) -> Result<(), InputError> {
        let Position {
            offset,
            line: number,
        } = self.at;
        let ended = line.ends_with(b"\n");
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        if content.len() > ITEM_BYTES_MAX {
            return Err(InputError::too_long(number, "line"));
        }
        self.at = Position {
            offset: offset + line.len() as u64,
            line: number + u64::from(ended),
        };
        let value = content.trim_ascii();
        if value.is_empty() {
            return Ok(());
        }
        let lead = (content.len() - content.trim_ascii_start().len()) as u64;
        let spot = Spot {
            line: number,
            column: Some(lead + 1),
        };
        let text = value::parse(value, spot, HELP)?;
        out.push(Record {
            json: text.into(),
            start: offset + lead,
            end: self.at.offset,
            line: number,
            end_line: self.at.line,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Record>, Option<String>) {
        let mut parser = JsonlParser::new(Position::START);
        let mut out = Vec::new();
        let result = parser
            .feed(bytes, &mut out)
            .and_then(|()| parser.finish(&mut out));
        (out, result.err().map(|e| e.to_string()))
    }

    #[test]
    fn lines_become_items_and_blank_lines_do_not() {
        let (records, error) = read(b"{\"a\":1}\r\n\n  \t\n [2] \n\"last\"");
        assert_eq!(error, None);
        let values: Vec<&str> = records.iter().map(|r| &*r.json).collect();
        assert_eq!(values, [r#"{"a":1}"#, "[2]", "\"last\""]);
        let places: Vec<_> = records.iter().map(|r| (r.start, r.end, r.line)).collect();
        assert_eq!(places, [(0, 9, 1), (15, 20, 4), (20, 26, 5)]);
    }

    #[test]
    fn an_empty_file_has_no_items() {
        assert_eq!(read(b""), (Vec::new(), None));
    }

    #[test]
    fn a_broken_line_is_named_and_those_before_it_are_kept() {
        let (records, error) = read(b"1\n2\n {\"a\":tru}\n4\n");
        assert_eq!(records.len(), 2);
        assert_eq!(
            error.expect("line 3 is broken"),
            "line 3, column 10: this is not JSON: expected ident; each line must hold one whole JSON value"
        );
    }

    #[test]
    fn a_line_cut_short_says_so() {
        let (_, error) = read(b"{\"a\":");
        assert_eq!(
            error.expect("it is cut short"),
            "line 1, column 5: the JSON value is cut short; each line must hold one whole JSON value"
        );
    }

    #[test]
    fn a_line_with_two_values_is_an_error() {
        let (_, error) = read(b"{} {}\n");
        let error = error.expect("two values on a line");
        assert!(error.starts_with("line 1, column 4: this is not JSON: trailing characters"));
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error() {
        let (_, error) = read(b"1\n\"caf\xe9\"\n");
        let error = error.expect("Latin-1");
        assert!(error.starts_with("line 2, column 5: this is not UTF-8; save the file as UTF-8"));
    }

    #[test]
    fn a_line_over_the_bound_is_refused_before_it_is_held() {
        let mut parser = JsonlParser::new(Position::START);
        let mut out = Vec::new();
        let chunk = vec![b'1'; 1 << 20];
        let error = (0..10)
            .find_map(|_| parser.feed(&chunk, &mut out).err())
            .expect("the ninth megabyte is over the bound");
        assert_eq!(
            error.to_string(),
            "line 1: the line is longer than 8 MiB; store the large content as an object and list its key"
        );
    }
}
