//! Real files through a real program: what Trommel keeps of `sha256sum` is what `sha256sum` says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use trommel::core::item::Object;

use crate::support::{Place, figure, is_full};

/// Names that have broken programs before: each is one file of the tree.
const NAMES: [&[u8]; 20] = [
    b"plain",
    b"two words",
    b" leading and trailing ",
    b"a+b",
    b"100%",
    b"%2F%0A",
    b"line\nbreak",
    b"\n",
    b"back\\slash",
    b"tab\there",
    b"quote\"quote'",
    b"$HOME `id` $(id)",
    b"{path} {key} {size}",
    b"-n",
    b"*?[a]",
    b"\xff\xfe not UTF-8",
    b"half \xe2\x82",
    b"\xf0\x9f\xaa\xa8 \xc3\xa9",
    b"carriage\rreturn",
    b"#&;|<>!~",
];

/// Directories with every name in them, so that there are more than a thousand files.
const DIRECTORIES: usize = 55;

/// Paths that one `sha256sum` takes: far below what the kernel takes as arguments.
const PATHS_AT_ONCE: usize = 200;

fn tree(root: &Path) {
    for number in 0..DIRECTORIES {
        let odd = NAMES[number % NAMES.len()];
        let mut directory = format!("{number:02} ").into_bytes();
        directory.extend_from_slice(odd);
        let directory = root.join(OsString::from_vec(directory));
        fs::create_dir_all(&directory).expect("a directory of ours");
        for (at, name) in NAMES.iter().enumerate() {
            let path = directory.join(OsString::from_vec(name.to_vec()));
            let line = format!("file {at} of directory {number}\n");
            fs::write(path, line.repeat(at * at)).expect("a file of ours");
        }
    }
}

/// The sources of everything that this project is built from.
fn registry() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.expect("cargo has a home").join("registry/src")
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// The line that `sha256sum` itself prints for each file.
fn expected(paths: &[PathBuf]) -> BTreeMap<Vec<u8>, String> {
    let mut lines = BTreeMap::new();
    for paths in paths.chunks(PATHS_AT_ONCE) {
        let done = Command::new("sha256sum").args(paths).output();
        let done = done.expect("sha256sum runs");
        assert!(done.status.success());
        let mut said: Vec<&[u8]> = done.stdout.split(|byte| *byte == b'\n').collect();
        assert_eq!(said.pop(), Some(&b""[..]), "it ends its last line");
        assert_eq!(said.len(), paths.len());
        for (path, line) in paths.iter().zip(said) {
            // An output is text: bytes that are none stand in it as the replacement character.
            let line = String::from_utf8_lossy(line).into_owned();
            lines.insert(path.as_os_str().as_bytes().to_vec(), line);
        }
    }
    lines
}

#[test]
fn checksums_of_real_files_are_those_of_sha256sum() {
    let place = Place::new();
    let root = if is_full() {
        registry()
    } else {
        let root = place.path("tree");
        tree(&root);
        root
    };
    let job = format!(
        r#"
        name = "checksums"
        input = {{ objects = {:?} }}
        max_concurrency = 4
        results = "out"
        [function]
        command = ["sha256sum", "{{path}}"]
        "#,
        root.to_str().expect("a plain path")
    );
    place.write("job.toml", job);
    let done = place.trommel(&["run", "job.toml"]).exits(0);

    let mut paths = Vec::new();
    files(&root, &mut paths);
    assert!(paths.len() >= 1000);
    let expected = expected(&paths);
    let mut actual = BTreeMap::new();
    for record in place.results("SUCCEEDED") {
        let object = Object::from_json(&record["input"].to_string()).expect("an object");
        let path = root.join(OsString::from_vec(object.key.to_vec()));
        let output = record["output"].as_str().expect("text").to_owned();
        let before = actual.insert(path.into_os_string().into_vec(), output);
        assert_eq!(before, None, "each file once");
    }
    let only = |one: &BTreeMap<Vec<u8>, String>, other: &BTreeMap<Vec<u8>, String>| {
        let lines = one
            .iter()
            .filter(|(path, line)| other.get(*path) != Some(line));
        lines.map(|(_, line)| line.clone()).collect::<Vec<_>>()
    };
    let diff = (only(&expected, &actual), only(&actual, &expected));
    assert_eq!(diff, (Vec::new(), Vec::new()));
    place.audit();
    figure(&format!(
        "checksums: {} files in {:.1?}, the diff is empty",
        paths.len(),
        done.waited
    ));
}
