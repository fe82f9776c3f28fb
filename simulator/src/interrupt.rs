//! Ctrl-C in a long search: the first stops it, and what was found by then is told; the second leaves at once.

#![expect(
    clippy::disallowed_methods,
    reason = "signals are the real process's, and no simulation hears of them"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::INTERRUPTED;

/// Whether somebody asked to stop. Of the whole process, as signals are.
static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on the first Ctrl-C only asks.
///
/// # Errors
/// Signals cannot be caught.
pub(crate) fn listen() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("signals cannot be caught: {error}");
    let runtime = Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(failed)?;
    let guard = runtime.enter();
    let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            interrupts.recv().await;
            ASKED.store(true, Ordering::Relaxed);
            eprintln!("\nstopping; once more leaves at once");
            interrupts.recv().await;
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
    Ok(())
}

/// Whether to stop.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
