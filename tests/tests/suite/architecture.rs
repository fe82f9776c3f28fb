//! The dependency rule: who may use whom among the pipeline's modules, read from the source.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the pipeline, and the modules of ours that it may use beside itself.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("core", &[]),
    ("ports", &["core"]),
    ("ledger", &["core", "ports"]),
    ("wire", &["core"]),
    ("shell", &["core", "ports", "ledger", "wire"]),
    ("adapters", &["core", "ports", "wire"]),
    ("job_file", &["core"]),
    (
        "runner",
        &["core", "ports", "ledger", "shell", "adapters", "job_file"],
    ),
    (
        "cli",
        &[
            "core", "ports", "ledger", "shell", "adapters", "job_file", "runner",
        ],
    ),
];

fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/src")
}

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).expect("the source is there") {
        sources(&entry.expect("the source can be read").path(), found);
    }
}

/// The modules of ours that a line of source names.
fn named(line: &str) -> Vec<&str> {
    let after = line.split("crate::").skip(1);
    after
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_lowercase() && c != '_')
                .next()
                .unwrap_or("")
        })
        .collect()
}

#[test]
fn every_module_uses_only_what_it_may() {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for (module, allowed) in MAY_USE {
        let mut files = Vec::new();
        for path in [
            pipeline().join(module),
            pipeline().join(format!("{module}.rs")),
        ] {
            if path.exists() {
                sources(&path, &mut files);
            }
        }
        for file in &files {
            let within = file
                .strip_prefix(pipeline())
                .expect("a source lies in the pipeline");
            if within.to_string_lossy().contains("test") {
                continue;
            }
            let text = fs::read_to_string(file).expect("a source is text");
            // Tests at the end of a file may use what they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                looked_at += 1;
                for used in named(line) {
                    let known = MAY_USE.iter().any(|(name, _)| *name == used);
                    if known && used != module && !allowed.contains(&used) {
                        wrong.push(format!("{}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(looked_at > 5_000, "only {looked_at} lines were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_knows_no_clock_no_chance_no_task() {
    let mut files = Vec::new();
    sources(&pipeline().join("core"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("a source is text");
        for banned in [
            "async fn",
            "tokio",
            "SystemTime",
            "Instant",
            "rand::",
            "HashMap",
            "std::fs",
            "std::net",
        ] {
            assert!(!text.contains(banned), "{} names {banned}", file.display());
        }
    }
}

/// These wake their receivers in an order that tokio draws by itself: two simulations of one seed would differ.
#[test]
fn what_the_simulator_runs_is_woken_in_no_order_of_tokios_own() {
    for folder in ["shell", "ledger"] {
        let mut files = Vec::new();
        sources(&pipeline().join(folder), &mut files);
        for file in files
            .iter()
            .filter(|file| !file.iter().any(|part| part == "tests"))
        {
            let text = fs::read_to_string(file).expect("a source is text");
            for banned in ["sync::watch", "watch::Sender", "sync::broadcast"] {
                assert!(!text.contains(banned), "{} names {banned}", file.display());
            }
        }
    }
}

/// It must build in a minute and run anywhere. The feature `localstack`, which brings the SDK, is nobody's default.
#[test]
fn the_simulator_alone_compiles_no_sdk() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "trommel-simulator"])
        .args(["-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("trommel v"), "{tree}");
    let sdk: Vec<&str> = tree
        .lines()
        .filter(|line| line.starts_with("aws-"))
        .collect();
    assert!(sdk.is_empty(), "{sdk:?}");
}

#[test]
fn no_file_of_the_suite_is_forgotten() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let main = fs::read_to_string(suite.join("main.rs")).expect("the suite has a root");
    for entry in fs::read_dir(&suite).expect("the suite is there") {
        let name = entry
            .expect("it can be read")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") else {
            continue;
        };
        assert!(
            main.contains(&format!("mod {module};")),
            "{name} is in no `mod` line"
        );
    }
}
