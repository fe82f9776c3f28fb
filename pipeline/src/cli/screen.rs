//! The one block of a terminal that shows how a run stands, drawn again in its place.
//!
//! [`render`] is pure and says what there is to see; [`Screen`] draws it, or, where standard error is
//! no terminal, prints a plain line now and then. What is counted is not known here.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::{Color, Tone, clock, escape, fit, grouped, rate, share};
use super::view::{RunStatus, Snapshot};

/// Drawn at most so often: smooth for the eye, nothing for the machine.
const DRAWS_PER_SECOND: u8 = 10;

/// In a pipe or a log a line comes at most so often, unless the status changes.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// More classes of failures than this are summed up.
const CLASSES_SHOWN_MAX: usize = 5;

/// A terminal whose width is not known, or is absurd, is taken for one of this.
const WIDTH_DEFAULT: usize = 80;

/// The block for a terminal of so many columns; lines end with a newline and never exceed the width.
#[must_use]
pub fn render(snapshot: &Snapshot, width: usize, color: Color) -> String {
    let width = width.max(WIDTH_MIN);
    let mut out = String::new();
    let mut line = |pieces: &[(Option<Tone>, String)]| {
        let text = paint_line(pieces, width, color);
        writeln!(out, "{text}").expect("a String takes everything");
    };
    line(&title(snapshot));
    for count in counts(snapshot, width) {
        line(&count);
    }
    let room = width.saturating_sub(LABEL + 2);
    line(&[plain(LABEL, "tolerance"), (None, tolerance(snapshot))]);
    line(&[
        plain(LABEL, "speed"),
        (None, joined(&speed(snapshot), room)),
    ]);
    if !snapshot.classes.is_empty() {
        line(&[plain(LABEL, "failures"), (None, classes(snapshot, room))]);
    }
    for (index, text) in reason(snapshot, room).into_iter().enumerate() {
        let label = if index == 0 { "because" } else { "" };
        line(&[plain(LABEL, label), (None, text)]);
    }
    for (what, command) in hints(snapshot) {
        line(&[
            (Some(Tone::Dim), format!("  {what:<LABEL$}")),
            (None, command),
        ]);
    }
    out
}

/// Below this nothing can be laid out; lines are cut.
const WIDTH_MIN: usize = 24;

/// Width of the words at the left.
const LABEL: usize = 12;

type Piece = (Option<Tone>, String);

fn plain(width: usize, text: &str) -> Piece {
    (None, format!("  {text:<width$}"))
}

/// The pieces one after the other, cut at the width, painted after the cut.
fn paint_line(pieces: &[Piece], width: usize, color: Color) -> String {
    let mut room = width;
    let mut out = String::new();
    for (tone, text) in pieces {
        let shown = fit(text, room);
        room -= shown.chars().count();
        match tone {
            Some(tone) => out.push_str(&color.paint(*tone, &shown)),
            None => out.push_str(&shown),
        }
    }
    out.trim_end().to_owned()
}

fn status_tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Running => Tone::Busy,
        RunStatus::Paused => Tone::Warn,
        RunStatus::Succeeded => Tone::Good,
        RunStatus::Failed | RunStatus::Aborted => Tone::Bad,
    }
}

fn title(snapshot: &Snapshot) -> Vec<Piece> {
    let mut pieces = vec![
        (Some(Tone::Strong), snapshot.run.to_string()),
        (None, "  ".to_owned()),
        (
            Some(status_tone(snapshot.status)),
            snapshot.status.as_str().to_owned(),
        ),
        (None, format!("  {}", clock(snapshot.elapsed))),
        (Some(Tone::Dim), format!("  {}", snapshot.job)),
    ];
    if snapshot.generation > 0 {
        pieces.push((None, format!("  redriven {}×", snapshot.generation)));
    }
    pieces
}

/// The lines of the counts: the first with the bar, those that are zero and rare left out.
fn counts(snapshot: &Snapshot, width: usize) -> Vec<Vec<Piece>> {
    let counts = &snapshot.item_counts;
    let number_width = grouped(counts.total).chars().count();
    let bar_width = width.saturating_sub(LABEL + number_width + 16).clamp(8, 40);
    let bar = bar(snapshot, bar_width);
    let blank = || vec![(None, " ".repeat(bar_width))];
    let rows = [
        ("succeeded", counts.succeeded, Some(Tone::Good), bar),
        ("running", counts.running, Some(Tone::Busy), blank()),
        ("pending", counts.pending, None, blank()),
        ("failed", counts.failed, Some(Tone::Bad), blank()),
        ("timed out", counts.timed_out, Some(Tone::Bad), blank()),
        ("aborted", counts.aborted, Some(Tone::Warn), blank()),
        ("skipped", counts.skipped, Some(Tone::Warn), blank()),
    ];
    let always: &[&str] = match snapshot.status {
        RunStatus::Running | RunStatus::Paused => &["succeeded", "running", "pending", "failed"],
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => &["succeeded", "failed"],
    };
    let mut lines: Vec<Vec<Piece>> = rows
        .into_iter()
        .filter(|(name, number, _, _)| *number > 0 || always.contains(name))
        .map(|(name, number, tone, middle)| {
            let mut pieces = vec![plain(LABEL, name)];
            pieces.extend(middle);
            let text = format!("  {:>number_width$}", grouped(number));
            pieces.push((tone.filter(|_| number > 0), text));
            pieces.push((None, format!("  {:>7}", share(number, counts.total))));
            pieces
        })
        .collect();
    let mut total = vec![plain(LABEL, "total")];
    total.extend(blank());
    total.push((None, format!("  {:>number_width$}", grouped(counts.total))));
    if !snapshot.total_is_final {
        total.push((Some(Tone::Dim), "  so far".to_owned()));
    }
    lines.push(total);
    if snapshot.quarantined > 0 {
        let text = format!(
            "{} messages that cannot be read",
            grouped(snapshot.quarantined)
        );
        lines.push(vec![plain(LABEL, "quarantined"), (Some(Tone::Warn), text)]);
    }
    if let Some(age) = snapshot.oldest_message {
        let text = format!("the oldest message may be {} old", clock(age));
        lines.push(vec![plain(LABEL, "waiting"), (None, text)]);
    }
    lines
}

/// Succeeded, failed and running as stretches of one bar. What is not none is at least one cell, so
/// that the first failure is seen; what is not all leaves a cell empty.
fn bar(snapshot: &Snapshot, width: usize) -> Vec<Piece> {
    let counts = &snapshot.item_counts;
    let cells = |items: u64, room: usize| {
        let exact = u128::from(items) * width as u128 / u128::from(counts.total.max(1));
        usize::try_from(exact)
            .unwrap_or(width)
            .max(usize::from(items > 0))
            .min(room)
    };
    let failures = cells(counts.failed + counts.timed_out, width);
    let running = cells(counts.running, width - failures);
    let others = counts.aborted + counts.skipped + counts.pending;
    let kept = usize::from(others > 0).min(width - failures - running);
    let room = width - failures - running - kept;
    let is_all_settled_well = counts.total > 0 && others == 0;
    let succeeded = if is_all_settled_well {
        room
    } else {
        cells(counts.succeeded, room)
    };
    let rest = width - succeeded - failures - running;
    vec![
        (Some(Tone::Good), "█".repeat(succeeded)),
        (Some(Tone::Bad), "▓".repeat(failures)),
        (Some(Tone::Busy), "▒".repeat(running)),
        (Some(Tone::Dim), "░".repeat(rest)),
    ]
}

fn tolerance(snapshot: &Snapshot) -> String {
    let failures = grouped(snapshot.failures);
    let tolerance = &snapshot.tolerance;
    let share = tolerance.percent.map(|percent| format!("{percent} %"));
    let rule = match (tolerance.count, share) {
        (None, None) => return format!("{failures} failures, none tolerated"),
        (Some(count), None) => return format!("{failures} of {} failures used", grouped(count)),
        (None, Some(share)) => share,
        (Some(count), Some(share)) => format!("{} and {share}", grouped(count)),
    };
    match snapshot.failures_max {
        Some(most) => format!("{failures} of {} failures used ({rule})", grouped(most)),
        None => format!("{failures} failures, {rule} tolerated, judged at the end"),
    }
}

/// As many of the pieces as have room, at least the first.
fn joined(pieces: &[String], room: usize) -> String {
    let fits = |count: &usize| pieces[..*count].join(SEPARATOR).chars().count() <= room;
    let count = (1..=pieces.len()).rev().find(fits).unwrap_or(1);
    pieces[..count.min(pieces.len())].join(SEPARATOR)
}

/// Between pieces of one line.
const SEPARATOR: &str = " · ";

fn speed(snapshot: &Snapshot) -> Vec<String> {
    let calls = format!(
        "at most {} calls at once",
        grouped(u64::from(snapshot.max_concurrency))
    );
    match snapshot.status {
        RunStatus::Running => {
            let eta = match snapshot.eta {
                Some(eta) => format!("ETA {}", clock(eta)),
                None if snapshot.total_is_final => "ETA unknown".to_owned(),
                None => "still reading the input".to_owned(),
            };
            vec![rate(snapshot.rate_per_second), eta, calls]
        }
        // The time since it was started holds the time until somebody redrove it.
        RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted
            if snapshot.generation > 0 =>
        {
            vec![calls]
        }
        RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
            let settled = snapshot.item_counts.settled().total();
            let seconds = snapshot.elapsed.as_secs_f64();
            let average = if seconds > 0.0 {
                settled as f64 / seconds
            } else {
                f64::NAN
            };
            vec![format!("{} on average", rate(average)), calls]
        }
    }
}

/// The most frequent classes that have room, and how many items the others have.
fn classes(snapshot: &Snapshot, room: usize) -> String {
    let text = |shown: usize| {
        let (shown, rest) = snapshot.classes.split_at(shown);
        let mut texts: Vec<String> = shown
            .iter()
            .map(|(class, count)| format!("{} {}", grouped(*count), fit(&escape(class), 30)))
            .collect();
        if !rest.is_empty() {
            let items: u64 = rest.iter().map(|(_, count)| count).sum();
            texts.push(format!("{} others", grouped(items)));
        }
        texts.join(SEPARATOR)
    };
    let most = snapshot.classes.len().min(CLASSES_SHOWN_MAX);
    let fits = |shown: &usize| text(*shown).chars().count() <= room;
    text((1..=most).rev().find(fits).unwrap_or(1.min(most)))
}

/// Why it stands as it does: it says what to do, so all of it is shown, on as many lines as it takes.
fn reason(snapshot: &Snapshot, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let reason = snapshot.reason.as_deref().map(escape).unwrap_or_default();
    for word in reason.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 1 + word.chars().count() <= room => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What one may want to do next.
fn hints(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let run = &snapshot.run;
    let counts = &snapshot.item_counts;
    let mut hints = Vec::new();
    if counts.settled().failures() > 0 {
        hints.push(("why", format!("trommel items {run} --group")));
    }
    let is_all_done = counts.succeeded + counts.skipped == counts.total;
    match snapshot.status {
        RunStatus::Running => {}
        RunStatus::Paused => hints.push(("go on", format!("trommel resume {run}"))),
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted if is_all_done => {}
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted => {
            hints.push(("again", format!("trommel redrive {run}")));
        }
    }
    hints
}

/// The same in one line, for a pipe or a log.
#[must_use]
pub fn render_line(snapshot: &Snapshot) -> String {
    let counts = &snapshot.item_counts;
    let mut pieces = vec![
        format!(
            "{} {} {}",
            snapshot.run,
            snapshot.status.as_str(),
            clock(snapshot.elapsed)
        ),
        match (counts.total, snapshot.total_is_final) {
            (0, false) => "reading the input".to_owned(),
            (total, _) => format!("{}/{total} succeeded", counts.succeeded),
        },
    ];
    let others = [
        ("running", counts.running),
        ("pending", counts.pending),
        ("failed", counts.failed),
        ("timed out", counts.timed_out),
        ("aborted", counts.aborted),
        ("skipped", counts.skipped),
    ];
    let others = others.into_iter().filter(|(_, number)| *number > 0);
    pieces.extend(others.map(|(name, number)| format!("{number} {name}")));
    if snapshot.status == RunStatus::Running && counts.total > 0 {
        pieces.push(rate(snapshot.rate_per_second).replace(' ', ""));
        pieces.extend(snapshot.eta.map(|eta| format!("ETA {}", clock(eta))));
    }
    pieces.join(", ")
}

/// Who draws what.
enum Mode {
    /// Nothing is shown.
    Quiet,
    /// A block in its place.
    Block(ProgressBar, Color),
    /// Lines, and what the last one told.
    Lines(Option<Box<Snapshot>>),
}

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Progress and hints.
    Normal,
    /// Errors only (`-q`).
    Quiet,
}

/// Shows how a run stands, on standard error.
pub struct Screen {
    mode: Mode,
}

/// The block being drawn, so that log lines can be written above it.
static BLOCK: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes something to standard error or output without tearing the block that is drawn there.
pub fn above<T>(write: impl FnOnce() -> T) -> T {
    let block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match block {
        Some(block) => block.suspend(write),
        None => write(),
    }
}

/// Writes to standard error, above the block. Where nobody reads there is nobody to tell that to.
pub fn tell(text: &str) {
    use std::io::Write as _;
    let _ = above(|| std::io::stderr().write_all(text.as_bytes()));
}

impl Screen {
    /// A screen for this process's standard error.
    #[must_use]
    pub fn stderr(talk: Talk) -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let mode = match talk {
            Talk::Quiet => Mode::Quiet,
            Talk::Normal if is_terminal && !is_dumb => {
                let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
                let block = ProgressBar::with_draw_target(None, target);
                let style =
                    ProgressStyle::with_template("{msg}").expect("a template without options");
                block.set_style(style);
                *BLOCK.lock().unwrap_or_else(PoisonError::into_inner) = Some(block.clone());
                Mode::Block(block, Color::of_stderr())
            }
            Talk::Normal => Mode::Lines(None),
        };
        Self { mode }
    }

    /// Shows the run as it stands now.
    pub fn update(&mut self, snapshot: &Snapshot) {
        match &mut self.mode {
            Mode::Quiet => {}
            Mode::Block(block, color) => {
                let text = render(snapshot, stderr_width(), *color);
                block.set_message(text.trim_end().to_owned());
                block.tick();
            }
            Mode::Lines(last) => {
                if is_due(last.as_deref(), snapshot) {
                    tell(&format!("{}\n", render_line(snapshot)));
                    *last = Some(Box::new(snapshot.clone()));
                }
            }
        }
    }

    /// Shows how it ended, and leaves that standing.
    pub fn finish(self, snapshot: &Snapshot) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Block(block, color) => {
                block.finish_and_clear();
                tell(&render(snapshot, stderr_width(), *color));
            }
            Mode::Lines(_) => tell(&render(snapshot, WIDTH_DEFAULT, Color::Off)),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Mode::Block(block, _) = &self.mode {
            block.finish_and_clear();
            *BLOCK.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Whether a plain line is due: the run has begun, or something changed and it has been a while. How it
/// ended is told by the block that comes then.
fn is_due(last: Option<&Snapshot>, now: &Snapshot) -> bool {
    if now.status != RunStatus::Running {
        return false;
    }
    let Some(before) = last else {
        return true;
    };
    if before.run != now.run {
        return true;
    }
    let is_changed = before.item_counts != now.item_counts;
    is_changed && now.elapsed.saturating_sub(before.elapsed) >= PLAIN_INTERVAL
}

/// One column is left free: some terminals wrap when the last one is written.
fn stderr_width() -> usize {
    let width = comfy_table::Table::new().use_stderr().width();
    width
        .map_or(WIDTH_DEFAULT, |width| usize::from(width).saturating_sub(1))
        .max(WIDTH_MIN)
}

#[cfg(test)]
mod tests;
