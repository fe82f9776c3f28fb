//! Packages of Python for tests, installed once from PyPI into a folder of their own under the user's cache.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::endpoint::say;

/// The directory with these packages (as pip names them, each with its version), for `PYTHONPATH`; made at the first time.
///
/// # Errors
/// There is no Python, no pip or no PyPI, in words.
pub fn packages(name: &str, wanted: &[&str]) -> Result<PathBuf, String> {
    let python =
        run(Command::new("python3")
            .args(["-c", "import sys; print('%d%d' % sys.version_info[:2])"]))?;
    let mut hash = DefaultHasher::new();
    wanted.hash(&mut hash);
    let cache = cache_dir()?;
    let name = format!("{name}-{:016x}-py{}", hash.finish(), python.trim());
    let packages = cache.join(&name);
    if packages.is_dir() {
        return Ok(packages);
    }
    say(&format!("installing {} from PyPI, once", wanted.join(" ")));
    fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    // Under a name of our own first, so that nobody finds half of it.
    let mine = cache.join(format!("{name}.{}", std::process::id()));
    let done = install(&mine, wanted);
    if done.is_ok() && fs::rename(&mine, &packages).is_ok() {
        return Ok(packages);
    }
    // Too late, or not at all: either way ours is of no more use.
    fs::remove_dir_all(&mine).ok();
    if packages.is_dir() {
        return Ok(packages);
    }
    done.and(Err(format!("{} cannot be made", packages.display())))
}

/// Installs the packages into a directory; without a pip at hand, by the one that a virtual
/// environment brings along.
fn install(target: &Path, wanted: &[&str]) -> Result<(), String> {
    let pip_is_there = run(Command::new("python3").args(["-m", "pip", "--version"])).is_ok();
    if pip_is_there {
        return pip_install(Path::new("python3"), target, wanted);
    }
    let environment = target.with_extension("venv");
    let made = run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment));
    let done = made.and_then(|_| pip_install(&environment.join("bin/python"), target, wanted));
    fs::remove_dir_all(&environment).ok();
    done
}

fn pip_install(python: &Path, target: &Path, wanted: &[&str]) -> Result<(), String> {
    run(Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--target"])
        .arg(target)
        .args(wanted))
    .map(|_| ())
}

/// Runs a command to its end and answers what it wrote, or the last line of its complaint.
fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty());
    Err(format!("{program}: {}", last.unwrap_or("failed")))
}

fn cache_dir() -> Result<PathBuf, String> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = var("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let cache = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("trommel"))
}
