//! A command line with holes: finding the program once, filling in `{path}`, `{key}` and `{size}` for
//! each item. Nothing here goes through a shell: a key with spaces or quotes is one argument.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::core::class::{Class, Failure};
use crate::core::item::Input;
use crate::ports::executor::CallItem;

/// Why a command cannot be run at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no program in it.
    #[error("the command is empty; write it as a list: [\"./program\", \"{{path}}\"]")]
    Empty,
    /// The program is not a fixed name.
    #[error(
        "the program {0:?} depends on the item; only its arguments may hold {{path}}, {{key}} or {{size}}"
    )]
    Placeholder(String),
    /// There is no file of that name.
    #[error("there is no program {program:?}; {}", searched_in(searched))]
    NotFound {
        /// As written.
        program: String,
        /// The directories that were looked into, or the one file.
        searched: Vec<PathBuf>,
    },
    /// There is, but it may not be run.
    #[error("{} is not an executable file; chmod +x it, or name its interpreter first", .0.display())]
    NotExecutable(PathBuf),
}

fn searched_in(searched: &[PathBuf]) -> String {
    let mut text = "looked for it in ".to_owned();
    for (index, directory) in searched.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(text, "{comma}{}", directory.display()).expect("a string takes all text");
    }
    if searched.is_empty() {
        text.push_str("no directory: PATH is empty");
    }
    text
}

/// The file that `program` names: with a slash relative to `cwd`, else the first executable of that name
/// in the directories of `search` (as in PATH; an empty one is `cwd`).
///
/// # Errors
/// [`ResolveError`], which says where it was looked for.
pub fn resolve(program: &str, cwd: &Path, search: Option<&OsStr>) -> Result<PathBuf, ResolveError> {
    if program.is_empty() {
        return Err(ResolveError::Empty);
    }
    if pieces_of(program)
        .iter()
        .any(|piece| !matches!(piece, Piece::Text(_)))
    {
        return Err(ResolveError::Placeholder(program.to_owned()));
    }
    if program.contains('/') {
        let file = cwd.join(program);
        return match look_at(&file) {
            Found::Program => Ok(file),
            Found::Other => Err(ResolveError::NotExecutable(file)),
            Found::Nothing => Err(ResolveError::NotFound {
                program: program.to_owned(),
                searched: vec![file],
            }),
        };
    }
    let searched: Vec<PathBuf> = search
        .map(|path| {
            env::split_paths(path)
                .map(|entry| cwd.join(entry))
                .collect()
        })
        .unwrap_or_default();
    let mut other = None;
    for directory in &searched {
        let file = directory.join(program);
        match look_at(&file) {
            Found::Program => return Ok(file),
            Found::Other => other = other.or(Some(file)),
            Found::Nothing => {}
        }
    }
    match other {
        Some(file) => Err(ResolveError::NotExecutable(file)),
        None => Err(ResolveError::NotFound {
            program: program.to_owned(),
            searched,
        }),
    }
}

enum Found {
    Program,
    Other,
    Nothing,
}

fn look_at(file: &Path) -> Found {
    /// Execute permission of anybody; who exactly may run it, the kernel says at the first call.
    const EXECUTE: u32 = 0o111;
    match file.metadata() {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & EXECUTE != 0 => Found::Program,
        Ok(_) => Found::Other,
        Err(_) => Found::Nothing,
    }
}

/// A stretch of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Path,
    Key,
    Size,
}

/// Arguments with holes.
#[derive(Clone, Debug)]
pub(in crate::adapters) struct Template {
    arguments: Vec<Vec<Piece>>,
}

/// What goes into the holes.
struct Holes<'a> {
    path: &'a Path,
    key: &'a [u8],
    size: u64,
}

impl Holes<'_> {
    /// For arguments without any.
    fn nothing() -> Self {
        Self {
            path: Path::new(""),
            key: b"",
            size: 0,
        }
    }
}

impl Template {
    pub(in crate::adapters) fn new(arguments: &[String]) -> Self {
        Self {
            arguments: arguments.iter().map(|text| pieces_of(text)).collect(),
        }
    }

    pub(in crate::adapters) fn needs_path(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Path)
    }

    /// Whether it can be filled in only for an object.
    fn needs_object(&self) -> bool {
        self.pieces().any(|piece| !matches!(piece, Piece::Text(_)))
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.arguments.iter().flatten()
    }

    /// The arguments for one item, whose object (if it is one) is found at `path`.
    ///
    /// # Errors
    /// `BadInput`: they ask for an object, and it is a value.
    pub(in crate::adapters) fn fill_for(
        &self,
        item: &CallItem,
        path: &Path,
    ) -> Result<Vec<OsString>, Failure> {
        match &*item.input {
            Input::Object(object) => Ok(self.fill(&Holes {
                path,
                key: &object.key,
                size: object.size_bytes,
            })),
            Input::Value(_) if self.needs_object() => {
                let cause = "{path}, {key} and {size} mean an object, and this item is a value; \
                             read it from stdin";
                Err(Failure::new(Class::BadInput, cause))
            }
            Input::Value(_) => Ok(self.fill(&Holes::nothing())),
        }
    }

    /// The arguments for a batch.
    ///
    /// # Errors
    /// `BadInput`: they ask for one object.
    pub(in crate::adapters) fn fill_for_batch(&self) -> Result<Vec<OsString>, Failure> {
        if self.needs_object() {
            let cause = "{path}, {key} and {size} mean one item, and this call carries a batch; \
                         read the items from stdin, or set max_items_per_batch = 1";
            return Err(Failure::new(Class::BadInput, cause));
        }
        Ok(self.fill(&Holes::nothing()))
    }

    fn fill(&self, holes: &Holes<'_>) -> Vec<OsString> {
        self.arguments
            .iter()
            .map(|pieces| fill_one(pieces, holes))
            .collect()
    }
}

fn fill_one(pieces: &[Piece], holes: &Holes<'_>) -> OsString {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Piece::Path => bytes.extend_from_slice(holes.path.as_os_str().as_bytes()),
            Piece::Key => bytes.extend_from_slice(holes.key),
            Piece::Size => bytes.extend_from_slice(holes.size.to_string().as_bytes()),
        }
    }
    OsString::from_vec(bytes)
}

/// Splits an argument at its holes; any other text in braces stays as it is.
fn pieces_of(argument: &str) -> Vec<Piece> {
    const HOLES: [(&str, Piece); 3] = [
        ("{path}", Piece::Path),
        ("{key}", Piece::Key),
        ("{size}", Piece::Size),
    ];
    let mut pieces = Vec::new();
    let mut rest = argument;
    loop {
        let first = HOLES
            .iter()
            .filter_map(|(name, piece)| Some((rest.find(name)?, name.len(), piece)))
            .min_by_key(|(at, _, _)| *at);
        let Some((at, length, piece)) = first else {
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].to_owned()));
        }
        pieces.push(piece.clone());
        rest = &rest[at + length..];
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(arguments: &[&str], key: &[u8]) -> Vec<OsString> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let holes = Holes {
            path: Path::new("/in/a b.png"),
            key,
            size: 17,
        };
        Template::new(&arguments).fill(&holes)
    }

    #[test]
    fn holes_are_filled_as_words_and_inside_of_words() {
        let filled = fill(
            &["{path}", "--k={key}:{size}", "{other}", "", "{{key}}"],
            b"a b.png",
        );
        let expected = ["/in/a b.png", "--k=a b.png:17", "{other}", "", "{a b.png}"];
        assert_eq!(filled, expected);
    }

    #[test]
    fn a_key_is_never_read_as_a_hole_and_keeps_its_bytes() {
        let filled = fill(&["{key}"], b"{size}\xff\n");
        assert_eq!(filled[0].as_bytes(), b"{size}\xff\n");
    }

    #[test]
    fn a_program_is_found_in_path_and_an_error_says_where_it_was_not() {
        let cwd = Path::new("/");
        let sh =
            resolve("sh", cwd, Some(OsStr::new("/nowhere:/bin"))).expect("every system has one");
        assert_eq!(sh, Path::new("/bin/sh"));
        let error = resolve("no-such-program", cwd, Some(OsStr::new("/nowhere:/bin")))
            .expect_err("it does not exist");
        assert_eq!(
            error.to_string(),
            "there is no program \"no-such-program\"; looked for it in /nowhere, /bin"
        );
    }

    #[test]
    fn a_program_with_a_slash_is_relative_to_the_job_and_must_be_executable() {
        let cwd = tempfile::tempdir().expect("a temporary directory");
        let script = cwd.path().join("run.sh");
        std::fs::write(&script, "#!/bin/sh\n").expect("a writable directory");
        assert_eq!(
            resolve("./run.sh", cwd.path(), None),
            Err(ResolveError::NotExecutable(cwd.path().join("./run.sh")))
        );
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, executable).expect("our own file");
        assert!(resolve("./run.sh", cwd.path(), None).is_ok());
        let missing = resolve("./gone.sh", cwd.path(), None);
        assert!(matches!(missing, Err(ResolveError::NotFound { .. })));
        let varying = resolve("./{key}", cwd.path(), None);
        assert_eq!(
            varying,
            Err(ResolveError::Placeholder("./{key}".to_owned()))
        );
    }
}
