//! Parsers: bytes from outside become items, or an error that says where and what to do.
//!
//! Everything here is pure: no files, no clock, no tasks of its own. Parsers of files are pushed the bytes
//! as they arrive ([`records`]), so memory stays flat whatever the size of the file.

pub mod compression;
pub mod csv;
pub mod events;
pub mod json;
pub mod jsonl;
pub mod part_file;
pub mod record;
pub mod records;
pub mod value;
