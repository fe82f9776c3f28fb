//! Paths, S3 addresses and ledger addresses: `~` and `${VAR}` filled in, made absolute.
//!
//! Nothing is looked up on disk or in a bucket: a text means the same on every machine that has the
//! same environment and base directory.

use std::path::{Component, Path, PathBuf};

use crate::core::job::{LedgerUri, Location};

use super::error::Code;
use super::reading::{Env, Problem};

/// The ledger of a job that names none, in the directory where the command is given.
pub const LEDGER_DEFAULT: &str = "sqlite:.trommel/ledger.db";

/// Fills in `~`, `${VAR}` and `${VAR:-default}` (the default also stands in for an empty variable, and
/// may begin with `~`, as in a shell). `$${` is a literal `${`; any other `$` stays as it is.
pub(super) fn expand(text: &str, env: &Env<'_>) -> Result<String, Problem> {
    let mut out = String::with_capacity(text.len());
    let mut rest = from_home(text, env, &mut out)?;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let (inner, after) = rest[at + 2..].split_once('}').ok_or_else(|| {
            let help = "close it with `}`, or write `$${` for the two characters themselves";
            Problem::new(Code::Unset, "`${` is never closed", help)
        })?;
        out.push_str(&variable(inner, env)?);
        rest = after;
    }
    out.push_str(rest);
    if out.contains('\0') {
        return Err(Problem::new(
            Code::BadPlace,
            "a path cannot hold a NUL character",
            "remove it",
        ));
    }
    Ok(out)
}

/// Writes the home directory for a leading `~`; answers what follows it.
fn from_home<'a>(text: &'a str, env: &Env<'_>, out: &mut String) -> Result<&'a str, Problem> {
    if text != "~" && !text.starts_with("~/") {
        return Ok(text);
    }
    let home = env("HOME").filter(|home| !home.is_empty()).ok_or_else(|| {
        Problem::new(
            Code::Unset,
            "`~` cannot be filled in: HOME is not set",
            "write the whole path",
        )
    })?;
    out.push_str(&home);
    Ok(&text[1..])
}

fn variable(inner: &str, env: &Env<'_>) -> Result<String, Problem> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        let message = format!("`${{{}}}` names no variable", inner.escape_debug());
        let help = "write ${NAME} or ${NAME:-default}, with a name of letters, digits and `_`";
        return Err(Problem::new(Code::Unset, message, help));
    }
    let value = env(name).filter(|value| default.is_none() || !value.is_empty());
    match (value, default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => {
            let mut out = String::new();
            let rest = from_home(default, env, &mut out)?;
            out.push_str(rest);
            Ok(out)
        }
        (None, None) => {
            let message = format!("the variable {name} is not set");
            let help = format!("set it, or write ${{{name}:-default}}");
            Err(Problem::new(Code::Unset, message, help))
        }
    }
}

/// Reads a directory, a file or an `s3://bucket/key`.
pub(super) fn location(text: &str, base: &Path, env: &Env<'_>) -> Result<Location, Problem> {
    let text = expand(text, env)?;
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(problem) = bucket_problem(bucket) {
            let message = format!("{bucket:?} {problem}");
            let help = "write s3://BUCKET/PREFIX, the bucket as S3 names it";
            return Err(Problem::new(Code::BadPlace, message, help));
        }
        return Ok(Location::S3 {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        });
    }
    if let Some((scheme, _)) = text.split_once("://") {
        let message = format!("{scheme}:// is not something that can be read or written");
        return Err(Problem::new(
            Code::BadPlace,
            message,
            "write a path, or s3://BUCKET/PREFIX",
        ));
    }
    if text.is_empty() {
        return Err(Problem::new(
            Code::BadPlace,
            "the path is empty",
            "write `.` for the job file's directory",
        ));
    }
    Ok(Location::Path(absolute(&text, base)))
}

/// Why a text names no bucket ("General purpose bucket naming rules": 3 to 63 characters of a-z, 0-9,
/// `.` and `-`; old buckets also have capitals and `_`).
fn bucket_problem(bucket: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bucket.len() < 3 || bucket.len() > 63 {
        return Some("is no bucket: a name has 3 to 63 characters");
    }
    (!bucket.chars().all(plain)).then_some("is no bucket: a name has letters, digits, `.` and `-`")
}

/// Reads `sqlite:PATH` or `dynamodb:TABLE`.
pub(super) fn ledger_uri(text: &str, base: &Path, env: &Env<'_>) -> Result<LedgerUri, Problem> {
    const HELP: &str = "write \"sqlite:PATH\" or \"dynamodb:TABLE\"";
    let text = expand(text, env)?;
    let bad = |message: String| Problem::new(Code::BadPlace, message, HELP);
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(bad(format!("{text:?} is no ledger")));
    };
    match scheme {
        "sqlite" if rest.is_empty() || rest.ends_with('/') => {
            Err(bad(format!("{text:?} names no file")))
        }
        "sqlite" => Ok(LedgerUri::Sqlite(absolute(&expand(rest, env)?, base))),
        "dynamodb" => match table_problem(rest) {
            Some(problem) => Err(bad(format!("the table {rest:?} {problem}"))),
            None => Ok(LedgerUri::DynamoDb(rest.to_owned())),
        },
        _ => Err(bad(format!("there is no kind of ledger called {scheme:?}"))),
    }
}

/// Why a text cannot name the ledger's table. DynamoDB allows 3 to 255 characters, also `.`; the
/// table's name begins the names of the lanes' queues, and SQS allows no `.` there.
fn table_problem(table: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if table.len() < 3 {
        return Some("has a name of fewer than 3 characters");
    }
    (!table.chars().all(plain)).then_some("has other characters than letters, digits, `-` and `_`")
}

/// The path made absolute, with `.` and `..` taken out by name alone.
fn absolute(text: &str, base: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in base.join(text).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                path.push(component);
            }
        }
    }
    path
}

/// Whether `inner` is `outer` or lies in it.
pub(super) fn lies_in(inner: &Location, outer: &Location) -> bool {
    match (inner, outer) {
        (Location::Path(inner), Location::Path(outer)) => inner.starts_with(outer),
        (
            Location::S3 {
                bucket: inner_bucket,
                key: inner,
            },
            Location::S3 {
                bucket: outer_bucket,
                key: outer,
            },
        ) => {
            // A prefix is text: `photos` holds `photos-out/` too. What is written goes under `inner/`.
            let inner = format!("{}/", inner.trim_end_matches('/'));
            inner_bucket == outer_bucket
                && inner.trim_start_matches('/').starts_with(outer.as_str())
        }
        (Location::Path(_), Location::S3 { .. }) | (Location::S3 { .. }, Location::Path(_)) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/ada".to_owned()),
            "EMPTY" => Some(String::new()),
            "YEAR" => Some("2026".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in_as_a_shell_does() {
        let expanded = |text| expand(text, &env).map_err(|problem| problem.message);
        assert_eq!(expanded("~/in").as_deref(), Ok("/home/ada/in"));
        assert_eq!(expanded("a~/in").as_deref(), Ok("a~/in"));
        assert_eq!(
            expanded("in/${YEAR}/${MONTH:-01}").as_deref(),
            Ok("in/2026/01")
        );
        assert_eq!(expanded("${EMPTY:-x}${EMPTY}").as_deref(), Ok("x"));
        assert_eq!(
            expanded("${CARGO_HOME:-~/.cargo}/src").as_deref(),
            Ok("/home/ada/.cargo/src")
        );
        assert_eq!(expanded("$${YEAR} $YEAR").as_deref(), Ok("${YEAR} $YEAR"));
        assert!(expanded("${NONE}").is_err());
        assert!(expanded("${").is_err());
        assert!(expanded("${a b}").is_err());
        assert!(expand("~/in", &|_: &str| None).is_err());
    }

    #[test]
    fn paths_are_relative_to_the_base_and_lose_their_dots() {
        let place = |text| location(text, Path::new("/jobs/a"), &env);
        assert_eq!(place("./in"), Ok(Location::Path("/jobs/a/in".into())));
        assert_eq!(place("../b/../c/"), Ok(Location::Path("/jobs/c".into())));
        assert_eq!(place("/abs"), Ok(Location::Path("/abs".into())));
        let (bucket, key) = ("photos".to_owned(), "2026/a//b".to_owned());
        assert_eq!(
            place("s3://photos/${YEAR}/a//b"),
            Ok(Location::S3 { bucket, key })
        );
        for bad in ["", "s3://", "s3://a/b", "http://x/y", "s3://a b c/d"] {
            assert!(place(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_holds_what_its_text_begins() {
        let place = |text| location(text, Path::new("/jobs"), &env).expect("a place");
        assert!(lies_in(&place("in/out"), &place("in")));
        assert!(lies_in(&place("in"), &place("in")));
        assert!(!lies_in(&place("in-out"), &place("in")));
        assert!(lies_in(
            &place("s3://photos/in-out"),
            &place("s3://photos/in")
        ));
        assert!(!lies_in(
            &place("s3://photos/in-out"),
            &place("s3://photos/in/")
        ));
        assert!(lies_in(&place("s3://photos/in"), &place("s3://photos/in/")));
        assert!(!lies_in(&place("s3://others/in"), &place("s3://photos")));
    }

    #[test]
    fn a_ledger_is_a_file_or_a_table() {
        let ledger = |text| ledger_uri(text, Path::new("/jobs"), &env);
        assert_eq!(
            ledger(LEDGER_DEFAULT),
            Ok(LedgerUri::Sqlite("/jobs/.trommel/ledger.db".into()))
        );
        assert_eq!(
            ledger("sqlite:~/l.db"),
            Ok(LedgerUri::Sqlite("/home/ada/l.db".into()))
        );
        assert_eq!(
            ledger("dynamodb:trommel"),
            Ok(LedgerUri::DynamoDb("trommel".into()))
        );
        for bad in [
            "ledger.db",
            "sqlite:",
            "dynamodb:a",
            "dynamodb:a.b.c",
            "postgres:x",
            "sqlite:x/",
        ] {
            assert!(ledger(bad).is_err(), "{bad:?}");
        }
    }
}
