//! One process an item, beside `xargs -P2` and GNU parallel in the same run; and how soon a crashed run goes on.
//!
//! `cargo bench -p trommel --bench commands -- [ITEMS] [ROUNDS]`
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TROMMEL: &str = env!("CARGO_BIN_EXE_trommel");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let items = numbers.first().copied().unwrap_or(5_000);
    let rounds = numbers.get(1).copied().unwrap_or(5);
    let (mut ours, mut xargs, mut parallel) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(run_trommel(items)?);
        xargs.push(run_peer("xargs", &["-P2", "-n1", "/bin/true"], items)?);
        // GNU parallel is slow enough for a tenth of the items to tell.
        parallel.push(run_peer("parallel", &["-j2", "/bin/true"], items / 10)?);
    }
    let (ours, xargs, parallel) = (median(ours), median(xargs), median(parallel));
    println!("{items} × /bin/true, 2 at a time, medians of {rounds} rounds:");
    println!("  trommel, output captured, state durable  {ours:>7.0}/s");
    println!(
        "  xargs -P2 -n1                            {xargs:>7.0}/s   trommel is {:.2} ×",
        ours / xargs
    );
    println!(
        "  GNU parallel -j2                         {parallel:>7.0}/s   trommel is {:.2} ×",
        ours / parallel
    );
    println!(
        "first call after a crash: {:.2?} after `resume` was typed",
        take_over()?
    );
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn job(directory: &Path, items: u64, rest: &str) -> std::io::Result<()> {
    let text = format!("name = \"bench\"\ninput = {{ range = \"0..{items}\" }}\n{rest}\n");
    std::fs::write(directory.join("job.toml"), text)
}

fn run_trommel(items: u64) -> Result<f64, Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    job(
        directory.path(),
        items,
        "max_concurrency = 2\n[function]\ncommand = [\"/bin/true\"]",
    )?;
    let begun = Instant::now();
    let status = Command::new(TROMMEL)
        .args(["-q", "run", "job.toml"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .status()?;
    assert!(status.success(), "the run succeeds");
    Ok(items as f64 / begun.elapsed().as_secs_f64())
}

fn run_peer(program: &str, args: &[&str], items: u64) -> Result<f64, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            println!("{program} is not here ({error}): left out");
            return Ok(f64::NAN);
        }
    };
    let mut numbers = String::new();
    for number in 0..items {
        writeln!(numbers, "{number}")?;
    }
    let mut stdin = child.stdin.take().ok_or("a pipe was asked for")?;
    stdin.write_all(numbers.as_bytes())?;
    drop(stdin);
    assert!(child.wait()?.success(), "{program} succeeds");
    Ok(items as f64 / begun.elapsed().as_secs_f64())
}

/// Kills a run, and measures from `resume` to the first call.
fn take_over() -> Result<Duration, Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let command =
        "max_concurrency = 4\n[function]\ncommand = [\"sh\", \"-c\", \"echo >> log; sleep 0.2\"]";
    job(directory.path(), 400, command)?;
    let start = |args: &[&str]| {
        Command::new(TROMMEL)
            .args(args)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    let lines = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut first = start(&["run", "job.toml"])?;
    wait_for(|| lines() >= 20);
    first.kill()?;
    first.wait()?;
    std::thread::sleep(Duration::from_millis(500));
    let before = lines();
    let begun = Instant::now();
    let mut second = start(&["resume"])?;
    wait_for(|| lines() > before);
    let took = begun.elapsed();
    second.kill()?;
    second.wait()?;
    Ok(took)
}

fn wait_for(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}
