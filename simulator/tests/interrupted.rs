//! Ctrl-C in a long search, as a person meets it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

#[test]
fn a_search_that_is_interrupted_tells_what_it_found() {
    let mut search = Command::new(env!("CARGO_BIN_EXE_trommel-sim"))
        .args(["run", "--seeds", "1000000000", "--jobs", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut said = BufReader::new(search.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says something");
    assert!(line.contains("Ctrl-C"), "{line}");
    let id = search.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &id]).status();
    assert!(interrupted.expect("kill is there").success());
    let mut told = String::new();
    let mut out = search.stdout.take().expect("piped");
    out.read_to_string(&mut told).expect("text");
    let status = search.wait().expect("it ended");
    assert_eq!(status.code(), Some(130), "{told}");
    assert!(told.contains("scenarios in"), "{told}");
}
