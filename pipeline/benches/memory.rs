//! Whether a run's memory grows with its input: the peak over a long JSON Lines file beside that over a short one.
//!
//! `cargo bench -p trommel --bench memory -- [LONG_MB] [MAX_CONCURRENCY] [ROUNDS]`. The long file is written first, next
//! to the target folder's temporary files; 10000 MB take some minutes.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures a real process"
)]

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const TROMMEL: &str = env!("CARGO_BIN_EXE_trommel");

/// As in the budget.
const SHORT_MB: u64 = 64;

/// A line is about as long as this.
const LINE_BYTES: u64 = 7_620;

/// Between two looks at a process's peak.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let long_mb = numbers.first().copied().unwrap_or(1_000);
    let max = numbers.get(1).copied().unwrap_or(4);
    let rounds = numbers.get(2).copied().unwrap_or(3);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!(
        "JSON Lines of {LINE_BYTES} bytes, batches of 100, max concurrency {max}, medians of {rounds} rounds:"
    );
    let mut peaks = Vec::new();
    for mb in [SHORT_MB, long_mb] {
        let file = directory.path().join(format!("{mb}.jsonl"));
        write_lines(&file, mb)?;
        let measured: Result<Vec<u64>, _> = (0..rounds).map(|_| peak_kb(&file, max)).collect();
        let mut measured = measured?;
        measured.sort_unstable();
        let peak = measured[measured.len() / 2] as f64 / 1024.0;
        println!("  {mb:>6} MB  peak {peak:>6.1} MB");
        peaks.push(peak);
        std::fs::remove_file(file)?;
    }
    println!("  difference  {:>6.1} MB", peaks[1] - peaks[0]);
    Ok(())
}

fn write_lines(file: &Path, mb: u64) -> std::io::Result<()> {
    let padding = "x".repeat(7_600);
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    for number in 0..mb * 1_000_000 / LINE_BYTES {
        writeln!(out, "{{\"id\":{number},\"pad\":\"{padding}\"}}")?;
    }
    out.flush()
}

/// The most memory that a run over the file took.
fn peak_kb(file: &Path, max: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let job = format!(
        "name = \"memory\"\ninput = {{ jsonl = \"{}\" }}\nmax_concurrency = {max}\n[function]\n\
         command = [\"perl\", \"-e\", \"1 while <STDIN>\"]\nmax_items_per_batch = 100\noutput = \"none\"\n",
        file.display()
    );
    std::fs::write(directory.path().join("job.toml"), job)?;
    let mut run = Command::new(TROMMEL)
        .args(["-q", "run", "job.toml"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0;
    loop {
        // Of a process that is over nothing is told any more.
        peak = high_water_kb(&status).unwrap_or(peak);
        if let Some(ended) = run.try_wait()? {
            assert!(ended.success(), "every item succeeds");
            return Ok(peak);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn high_water_kb(status: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
