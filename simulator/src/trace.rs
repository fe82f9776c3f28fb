//! What happened, one line an event, with a hash over all of it.
//!
//! Two runs are the same exactly when their traces are; the hash says so without keeping them.

use std::fmt;
use std::fmt::Write as _;

use trommel::core::time::Tick;

/// Where the hash of nothing stands: the offset basis of FNV-1a with 64 bits.
pub(crate) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The prime of FNV-1a with 64 bits.
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Text beyond this is hashed but not kept: a run that talks so much is read by its hash.
pub const TRACE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The hash of what came before, followed by these bytes.
pub(crate) fn fnv1a(before: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(before, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    })
}

/// Hashes text as it is written.
pub(crate) struct Fnv(pub(crate) u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = fnv1a(self.0, text.bytes());
        Ok(())
    }
}

/// Hashes values, eight bytes at a time.
#[derive(Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl std::hash::Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }
}

/// The events of one simulation.
#[derive(Clone, Debug)]
pub struct Trace {
    text: String,
    hash: u64,
    events: u64,
    line: String,
    forgets: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            text: String::new(),
            hash: FNV_START,
            events: 0,
            line: String::new(),
            forgets: false,
        }
    }
}

impl Trace {
    /// Adds an event: nanoseconds of virtual time, who, what. Line breaks in it are written as `\n`.
    pub fn event(&mut self, at: Tick, who: &str, what: &dyn fmt::Display) {
        self.line.clear();
        write!(self.line, "{} {who} {what}", at.0).expect("a string takes all text");
        if self.line.contains('\n') {
            self.line = self.line.replace('\n', "\\n");
        }
        self.line.push('\n');
        self.hash = fnv1a(self.hash, self.line.bytes());
        self.events += 1;
        if !self.forgets && self.text.len() + self.line.len() <= TRACE_BYTES_MAX {
            self.text.push_str(&self.line);
        }
    }

    /// Keeps no text from now on, only the hash.
    pub fn forget_text(&mut self) {
        self.forgets = true;
    }

    /// The lines, up to [`TRACE_BYTES_MAX`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The hash of all lines, kept or not.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many there were.
    pub fn events(&self) -> u64 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_of_the_text() {
        // Known value: FNV-1a of "a".
        assert_eq!(
            fnv1a(FNV_START, b"a".iter().copied()),
            0xaf63_dc4c_8601_ec8c
        );
        let mut trace = Trace::default();
        trace.event(Tick(5), "w", &"took 1-0-0");
        trace.event(Tick(9), "w", &"two\nlines");
        assert_eq!(trace.text(), "5 w took 1-0-0\n9 w two\\nlines\n");
        assert_eq!(trace.hash(), fnv1a(FNV_START, trace.text().bytes()));
        assert_eq!(trace.events(), 2);
    }
}
