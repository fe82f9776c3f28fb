//! Items a second and peak memory of an embedded run: in-process no-op handler, one call an item.
//!
//! `cargo bench -p trommel --bench throughput -- [ITEMS] [MAX_CONCURRENCY] [JSONL_FILE]`: numbers, or the
//! lines of a file.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

/// Calls are allocated on one thread and freed on another, which this allocator is made for. The `trommel`
/// program does without: it is slower there than a process's start, and holds more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use trommel::adapters::handler::{HandlerItem, handler};
use trommel::runner::Embedded;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let items = numbers.first().copied().unwrap_or(1_000_000);
    let max = numbers.get(1).copied().unwrap_or(64);
    let file = std::env::args()
        .skip(1)
        .find(|arg| arg.parse::<u64>().is_err() && !arg.starts_with('-'));
    let input = match &file {
        Some(file) => format!("{{ jsonl = \"{file}\" }}"),
        None => format!("{{ range = \"0..{items}\" }}"),
    };
    let directory = tempfile::tempdir()?;
    let ledger = directory.path().join("ledger.db");
    let job = format!(
        "name = \"throughput\"\ninput = {input}\nmax_concurrency = {max}\n\
         ledger = \"sqlite:{}\"\n",
        ledger.display()
    );
    let noop = handler(|_: HandlerItem| async move { Ok(()) });
    let begun = std::time::Instant::now();
    let report = Embedded::new(job, noop)?.run().await?;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(
        report.counts.succeeded, report.counts.total,
        "every item succeeds"
    );
    let items = report.counts.total;
    let rate = items as f64 / seconds;
    println!(
        "{items} items, max concurrency {max}: {seconds:.2} s, {rate:.0} items/s, peak memory {} MB",
        peak_mb()
    );
    Ok(())
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    let kb = line
        .split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}
