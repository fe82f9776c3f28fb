//! MiniStack from PyPI, in a Python process of its own that ends when we do.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::python;
use crate::watchdog::{self, Guard};

/// The release that the profile speaks of, and what it runs tasks on ECS with.
const PACKAGES: [&str; 2] = ["ministack==1.5.33", "docker==7.1.0"];

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
    let packages = python::packages("ministack", &PACKAGES)?;
    let port = free_port().map_err(|e| format!("no free port: {e}"))?;
    let log = log_file(&packages).map_err(|e| format!("no log file: {e}"))?;
    let copy = |log: &File| log.try_clone().map_err(|e| format!("no log file: {e}"));
    let mut command = Command::new("python3");
    command
        .args(["-c", WRAPPER])
        .env("PYTHONPATH", &packages)
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        .env("SERVICES", "s3,sqs,dynamodb,lambda,ecs")
        // Functions stay processes: their language's image would come from a registry.
        .env("LAMBDA_EXECUTOR", "local")
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
