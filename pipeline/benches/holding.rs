//! One process holding 10,000 calls: peak memory, and whether max concurrency is exact.
//!
//! `cargo bench -p trommel --bench holding -- [MAX_CONCURRENCY]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trommel::adapters::handler::{HandlerItem, handler};
use trommel::runner::Embedded;

/// Calls are allocated on one thread and freed on another, which this allocator is made for. The `trommel`
/// program does without: it is slower there than a process's start, and holds more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "the calls of a benchmark wait in real time"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let max = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(10_000u64);
    let items = max * 3;
    let directory = tempfile::tempdir()?;
    let job = format!(
        "name = \"holding\"\ninput = {{ range = \"0..{items}\" }}\nmax_concurrency = {max}\n\
         ledger = \"sqlite:{}\"\n",
        directory.path().join("ledger.db").display()
    );
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = most.clone();
    let wait = handler(move |_: HandlerItem| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(3)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let report = Embedded::new(job, wait)?.run().await?;
    assert_eq!(report.counts.succeeded, items, "every item succeeds");
    let most = seen.load(Ordering::SeqCst);
    println!(
        "max concurrency {max}: at most {most} calls at once, peak memory {} MB",
        peak_mb()
    );
    assert_eq!(most, max, "max concurrency is exact");
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
