//! MiniStack from PyPI, in a Python process of its own that ends when we do.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::endpoint::say;
use crate::watchdog::{self, Guard};

/// The release that the profile speaks of.
const VERSION: &str = "1.5.33";

/// Runs MiniStack in the very process that watches the pipe: there is no second one to forget. Its
/// files (it writes one with its process id) go into a directory that goes with it.
const WRAPPER: &str = r#"
import os, shutil, sys, tempfile, threading
scratch = tempfile.mkdtemp(prefix="trommel-ministack-")
tempfile.tempdir = os.environ["TMPDIR"] = scratch
def end_with_the_pipe():
    sys.stdin.buffer.read()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)
threading.Thread(target=end_with_the_pipe, daemon=True).start()
sys.argv = ["ministack"]
from ministack.app import main
try:
    main()
finally:
    shutil.rmtree(scratch, ignore_errors=True)
"#;

/// What it said last is enough to know why it ended.
const LAST_WORDS_BYTES: u64 = 2000;

/// A started MiniStack; it may yet fail to come up.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) url: String,
    pub(crate) guard: Guard,
    log: File,
}

impl Started {
    /// The end of what it wrote.
    pub(crate) fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        let length = self.log.metadata().map_or(0, |data| data.len());
        let from = SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES));
        let read = self.log.seek(from);
        if read.and_then(|_| self.log.read_to_end(&mut words)).is_err() {
            return "and its log cannot be read".to_owned();
        }
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Starts MiniStack on a free port of the loopback interface, installing it first if need be.
pub(crate) fn start() -> Result<Started, String> {
    let packages = installed()?;
    let port = free_port().map_err(|e| format!("no free port: {e}"))?;
    let log = log_file(&packages).map_err(|e| format!("no log file: {e}"))?;
    let copy = |log: &File| log.try_clone().map_err(|e| format!("no log file: {e}"));
    let mut command = Command::new("python3");
    command
        .args(["-c", WRAPPER])
        .env("PYTHONPATH", &packages)
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        .env("SERVICES", "s3,sqs,dynamodb,lambda")
        // It would open one more port, on every interface.
        .env("IOT_MTLS_ENABLED", "0")
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("PERSIST_STATE")
        .stdout(Stdio::from(copy(&log)?))
        .stderr(Stdio::from(copy(&log)?));
    let guard = watchdog::start(command).map_err(|e| format!("no python3: {e}"))?;
    let url = format!("http://127.0.0.1:{port}");
    Ok(Started { url, guard, log })
}

/// The directory with MiniStack and what it needs; made at the first time.
fn installed() -> Result<PathBuf, String> {
    let python =
        run(Command::new("python3")
            .args(["-c", "import sys; print('%d%d' % sys.version_info[:2])"]))?;
    let cache = cache_dir()?;
    let name = format!("ministack-{VERSION}-py{}", python.trim());
    let packages = cache.join(&name);
    if packages.is_dir() {
        return Ok(packages);
    }
    say(&format!("installing MiniStack {VERSION} from PyPI, once"));
    fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    // Under a name of our own first, so that nobody finds half of it.
    let mine = cache.join(format!("{name}.{}", std::process::id()));
    let done = install(&mine);
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
fn install(target: &Path) -> Result<(), String> {
    let pip_is_there = run(Command::new("python3").args(["-m", "pip", "--version"])).is_ok();
    if pip_is_there {
        return pip_install(Path::new("python3"), target);
    }
    let environment = target.with_extension("venv");
    let made = run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment));
    let done = made.and_then(|_| pip_install(&environment.join("bin/python"), target));
    fs::remove_dir_all(&environment).ok();
    done
}

fn pip_install(python: &Path, target: &Path) -> Result<(), String> {
    let package = format!("ministack=={VERSION}");
    run(Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--target"])
        .arg(target)
        .arg(package))
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

/// Free now; whoever takes it in between makes the start fail, not the test wrong.
fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

/// A file without a name: it goes when the last who has it open goes.
fn log_file(beside: &Path) -> std::io::Result<File> {
    let path = beside.with_extension(format!("{}.log", std::process::id()));
    let log = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .append(false)
        .write(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(log)
}
