//! Ledgers that cannot be used: newer, damaged, read-only, run by another, on a full disk.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trommel-cli");

const JOB: &str =
    "name = \"numbers\"\ninput = { range = \"0..3\" }\n[function]\ncommand = [\"cat\"]\n";

fn command(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .current_dir(place)
        .env("TROMMEL_LEDGER", "")
        .stdin(Stdio::null());
    command
}

fn trommel(place: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(place, arguments)
        .output()
        .expect("the program runs");
    (output.status.code(), complaint(&output))
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A place with a run that has ended.
fn with_a_run() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join("job.toml"), JOB).expect("written");
    let (code, said) = trommel(place.path(), &["run", "job.toml"]);
    assert_eq!(code, Some(0), "{said}");
    place
}

/// Every kind of opening: to look, to write, to run.
const OPENINGS: [&[&str]; 4] = [&["status"], &["runs"], &["redrive"], &["run", "job.toml"]];

#[test]
fn a_newer_ledger_is_refused_and_left_as_it_is() {
    let place = with_a_run();
    let ledger = place.path().join(".trommel/ledger.db");
    let layout = |version: Option<i64>| -> i64 {
        let db = rusqlite::Connection::open(&ledger).expect("SQLite");
        if let Some(version) = version {
            db.pragma_update(None, "user_version", version)
                .expect("written");
        }
        db.pragma_query_value(None, "user_version", |row| row.get(0))
            .expect("read")
    };
    layout(Some(99));
    for opening in OPENINGS {
        let (code, said) = trommel(place.path(), opening);
        assert_eq!(code, Some(2), "{opening:?}: {said}");
        assert!(
            said.starts_with("error[E0208]") && said.contains("newer trommel"),
            "{said}"
        );
    }
    assert_eq!(layout(None), 99);
}

#[test]
fn a_file_that_is_no_ledger_is_refused_and_left_as_it_is() {
    let place = with_a_run();
    let directory = place.path().join(".trommel");
    fs::remove_dir_all(&directory).expect("removed");
    fs::create_dir(&directory).expect("made");
    let garbage = b"once upon a time ".repeat(1000);
    fs::write(directory.join("ledger.db"), &garbage).expect("written");
    for opening in OPENINGS {
        let (code, said) = trommel(place.path(), opening);
        assert_eq!(code, Some(1), "{opening:?}: {said}");
        assert!(
            said.starts_with("error[E0214]") && said.contains("is not a ledger"),
            "{said}"
        );
    }
    assert_eq!(
        fs::read(directory.join("ledger.db")).expect("read"),
        garbage
    );
}

#[test]
fn a_second_runner_is_told_who_the_first_is_and_looking_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let pipe = |name: &str| {
        let made = Command::new("mkfifo").arg(place.path().join(name)).status();
        assert!(made.expect("mkfifo runs").success());
    };
    pipe("started");
    pipe("go");
    let job = "name = \"waits\"\ninput = { range = \"0..1\" }\n[function]\n\
               command = [\"sh\", \"-c\", \"echo now > started; cat go\"]\n";
    fs::write(place.path().join("job.toml"), job).expect("written");
    let first = command(place.path(), &["run", "job.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // Opening a pipe waits for the other end: from here on the item runs.
    let mut word = String::new();
    let started = fs::File::open(place.path().join("started"));
    started
        .expect("opened")
        .read_to_string(&mut word)
        .expect("read");

    let (code, said) = trommel(place.path(), &["run", "job.toml"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("error[E0207]"), "{said}");
    assert!(
        said.contains(&first.id().to_string()),
        "{said} should name {}",
        first.id()
    );
    let (code, said) = trommel(place.path(), &["status"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = trommel(place.path(), &["redrive"]);
    assert_eq!(
        (code, said.contains("is RUNNING")),
        (Some(2), true),
        "{said}"
    );

    let go = fs::OpenOptions::new()
        .write(true)
        .open(place.path().join("go"));
    go.expect("opened").write_all(b"1").expect("written");
    let first = first.wait_with_output().expect("it ends");
    assert_eq!(first.status.code(), Some(0), "{}", complaint(&first));
}

/// A file system of its own, gone with the value; none where this user may not mount.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn tmpfs(at: &'a Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(at))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(self.0)
            .status();
        assert!(status.expect("mount runs").success());
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Nothing better can be done where it fails; the directory is a temporary one.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Past the harness, which keeps the words of a test that passes.
fn left_out(what: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "LEFT OUT: {what}: this user may not mount a tmpfs");
}

/// The last who leaves a ledger takes its log away.
fn close_whole(ledger: &Path) {
    let last = rusqlite::Connection::open(ledger).expect("it is there");
    let rows = last.query_row("SELECT count(*) FROM rows", [], |row| row.get(0));
    let rows: i64 = rows.expect("it has rows");
    assert!(rows > 0);
    last.close().expect("nobody else has it open");
    assert!(!ledger.with_extension("db-wal").exists());
}

#[test]
fn a_ledger_that_may_only_be_read_can_be_looked_at() {
    let place = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::tmpfs(place.path(), "size=16m") else {
        left_out("a ledger on a read-only file system");
        return;
    };
    fs::write(place.path().join("job.toml"), JOB).expect("written");
    assert_eq!(trommel(place.path(), &["run", "job.toml"]).0, Some(0));
    let looks = || {
        for look in [
            &["status"][..],
            &["runs"],
            &["items"],
            &["show", "0-0-1"],
            &["audit"],
        ] {
            let (code, said) = trommel(place.path(), look);
            assert_eq!(code, Some(0), "{look:?}: {said}");
        }
    };
    // As the process left it; and closed whole, without a log.
    mount.remount("ro");
    looks();
    mount.remount("rw");
    close_whole(&place.path().join(".trommel/ledger.db"));
    mount.remount("ro");
    looks();
    for write in [
        &["run", "job.toml"][..],
        &["redrive", "--state", "failed"],
        &["pause"],
    ] {
        let (code, said) = trommel(place.path(), write);
        assert_eq!(code, Some(2), "{write:?}: {said}");
        assert!(said.starts_with("error[E0202]"), "{write:?}: {said}");
    }
}

#[test]
fn on_a_full_disk_a_run_stops_and_goes_on_once_there_is_room() {
    let place = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::tmpfs(place.path(), "size=1m") else {
        left_out("a full disk");
        return;
    };
    let job = "name = \"fills\"\ninput = { range = \"0..1000\" }\n[function]\n\
               command = [\"sh\", \"-c\", \"head -c 4000 /dev/zero | tr '\\\\0' x\"]\n";
    fs::write(place.path().join("job.toml"), job).expect("written");
    let (code, said) = trommel(place.path(), &["run", "job.toml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("error[E0215]") && said.contains("make room, then resume"),
        "{said}"
    );
    let (code, said) = trommel(place.path(), &["status"]);
    assert_eq!(code, Some(0), "{said}");

    mount.remount("size=64m");
    let (code, said) = trommel(place.path(), &["resume"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = trommel(place.path(), &["audit"]);
    assert_eq!(code, Some(0), "{said}");
}
