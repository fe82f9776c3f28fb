//! What a person reads as text: a failure in at most twelve lines, coverage, a trace's lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use trommel::core::price::Prices;

use crate::oracle::Violation;
use crate::probe::Probe;
use crate::run::Outcome;
use crate::scenario::{FaultSource, Scenario};
use crate::search::Found;
use crate::shrink::Shrunk;
use crate::trace::{FNV_START, fnv1a};

/// Lines of a failure's report at most.
pub const LINES_MAX: usize = 12;

/// Lines of the time line in it.
const TIME_LINE_MAX: usize = 6;

/// Faults that it names.
const FAULTS_MAX: usize = 2;

/// A line is cut at so many characters.
const WIDTH_MAX: usize = 160;

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(WIDTH_MAX - 1).collect();
    short.push('…');
    short
}

/// A failure that was made small.
pub fn failure(shrunk: &Shrunk, outcome: &Outcome, again: &str) -> Vec<String> {
    let mut lines = broken(&shrunk.scenario, &shrunk.violation, outcome, again);
    let (before, after) = (shrunk.size_before, shrunk.scenario.size());
    let replays = shrunk.replays;
    let last = lines.len().saturating_sub(1);
    lines.insert(
        last,
        format!("shrunk: {before} faults and troubles to {after}, in {replays} replays"),
    );
    lines
}

/// A failure.
pub fn broken(
    scenario: &Scenario,
    violation: &Violation,
    outcome: &Outcome,
    again: &str,
) -> Vec<String> {
    let Violation { oracle, seen } = violation;
    let mut lines = vec![cut(&format!("{oracle} is broken: {seen}"))];
    let workload = scenario.workload;
    lines.push(format!(
        "seed {}, {} workers, {} small and {} large items, trace {:016x}",
        scenario.seed, scenario.workers, workload.small, workload.large, outcome.trace_hash
    ));
    let mut causes: Vec<String> = scenario
        .troubles
        .iter()
        .map(|trouble| {
            let (at, long) = (trouble.at_ms, trouble.for_ms);
            format!(
                "{:?} of {} at {at} ms for {long} ms",
                trouble.what, trouble.node
            )
        })
        .collect();
    if let FaultSource::Plan(plan) = &scenario.faults {
        let faults = plan.iter();
        causes.extend(faults.map(|(point, kind)| {
            let (name, meaning) = (kind.as_str(), kind.meaning());
            format!("{name}: {point} ({meaning})")
        }));
    } else {
        causes.push(format!("{} faults by chance", outcome.fired.len()));
    }
    if causes.is_empty() {
        lines.push("without any fault".to_owned());
    }
    let more = causes.len().saturating_sub(FAULTS_MAX);
    for cause in causes.iter().take(FAULTS_MAX) {
        lines.push(cut(&format!("fault  {cause}")));
    }
    if more > 0 {
        lines.push(format!("fault  … and {more} more"));
    }
    lines.extend(time_line(scenario, &outcome.trace));
    // The verdict's own line stands first.
    lines.retain(|line| !line.contains("BROKEN"));
    lines.truncate(LINES_MAX - 2);
    lines.push(format!("again: {again}"));
    lines
}

/// The shortest line of events that tells it: the faults and what became of the items they struck; where
/// they are too many, the first and the last.
fn time_line(scenario: &Scenario, trace: &str) -> Vec<String> {
    let struck: Vec<&str> = match &scenario.faults {
        FaultSource::Plan(plan) => {
            let entities = plan.iter().map(|(point, _)| point.entity.as_str());
            entities
                .filter_map(|entity| entity.rsplit(' ').next())
                .collect()
        }
        FaultSource::Swarm(_) => Vec::new(),
    };
    let of_struck = |line: &str| {
        let is_call = line.contains(" calls ") || line.contains(" ends ");
        let mut words = line.split([' ', ':']);
        is_call && (struck.is_empty() || words.any(|word| struck.contains(&word)))
    };
    let tells = |line: &&str| EVENTS.iter().any(|word| line.contains(word)) || of_struck(line);
    let told: Vec<&str> = trace.lines().filter(tells).collect();
    let first = told.len().min(TIME_LINE_MAX.div_ceil(2));
    let last = told.len().saturating_sub(TIME_LINE_MAX / 2).max(first);
    let shown = told[..first].iter().chain(&told[last..]);
    shown.map(|line| cut(&event(line))).collect()
}

/// Words of events that always tell.
const EVENTS: [&str; 5] = ["FAULT", "BROKEN", " crashed", " frozen", " redriven"];

fn event(line: &str) -> String {
    let (at, rest) = line.split_once(' ').unwrap_or(("0", line));
    let nanos: u64 = at.parse().unwrap_or(0);
    let seconds = Duration::from_nanos(nanos).as_secs_f64();
    format!("{seconds:>9.3} s  {rest}")
}

/// A scenario that broke nothing.
pub fn passed(scenario: &Scenario, outcome: &Outcome) -> Vec<String> {
    let status = outcome
        .status
        .map_or("unknown", trommel::core::run::RunStatus::as_str);
    let calls: u64 = outcome.calls.values().sum();
    let compared: u64 = outcome.compared.values().sum();
    vec![
        format!(
            "seed {}: every promise held; the run ended as {status}",
            scenario.seed
        ),
        format!(
            "{} faults struck {calls} calls in {:.1?} of virtual time; {compared} comparisons; trace {:016x}",
            outcome.fired.len(),
            outcome.virtual_time,
            outcome.trace_hash
        ),
    ]
}

/// How much a search covered; what was never hit comes first.
pub fn coverage(found: &Found) -> String {
    let mut text = String::new();
    let missed = found.pairs_missed();
    let all = missed.len() + found.pairs.len();
    if !missed.is_empty() && found.scenarios > 0 {
        let names: Vec<String> = missed
            .iter()
            .map(|(operation, kind)| format!("{} of {}", kind.as_str(), operation.as_str()))
            .collect();
        let _ = writeln!(text, "never struck: {}", names.join(", "));
    }
    let _ = writeln!(text, "faults × operations: {} of {all}", found.pairs.len());
    for probe in found.probes_missed() {
        let _ = writeln!(text, "never happened: {}", probe.as_str());
    }
    let probes: Vec<String> = found
        .probes
        .iter()
        .map(|(probe, times)| format!("{} {times}", probe.as_str()))
        .collect();
    let _ = writeln!(text, "sometimes: {}", probes.join(", "));
    let compared: Vec<String> = found
        .compared
        .iter()
        .map(|(oracle, times)| format!("{oracle} {times}"))
        .collect();
    let _ = writeln!(text, "compared: {}", compared.join(", "));
    for (oracle, (times, seed)) in &found.by_oracle {
        let _ = writeln!(
            text,
            "{oracle} was broken {times} times, first by seed {seed}"
        );
    }
    let calls: Vec<String> = found
        .calls
        .iter()
        .map(|(operation, times)| format!("{} {times}", operation.as_str()))
        .collect();
    let _ = writeln!(text, "calls: {}", calls.join(", "));
    let usage = found.usage;
    let _ = writeln!(
        text,
        "billed: {} write units, {} read units, {} requests to SQS, {} puts and {} gets of S3: {:.2} USD a million scenarios",
        usage.write_units,
        usage.read_half_units / 2,
        usage.sqs_requests,
        usage.s3_puts,
        usage.s3_gets,
        usage.usd(&Prices::LIST) * 1e6 / found.scenarios.max(1) as f64
    );
    let _ = writeln!(text, "{}", speed(found));
    text
}

/// How fast a search was.
pub fn speed(found: &Found) -> String {
    let seconds = found.took.as_secs_f64().max(1e-9);
    let faults: u64 = found.pairs.values().sum();
    let scenarios = found.scenarios.max(1);
    let calls: u64 = found.calls.values().sum();
    format!(
        "{} scenarios in {seconds:.1} s: {:.0} a second, {:.0} service calls a second; {:.0} faults, {:.0} calls and {:.0} polls each; {:.0} × real time; {} failed",
        found.scenarios,
        found.scenarios as f64 / seconds,
        calls as f64 / seconds,
        faults as f64 / scenarios as f64,
        calls as f64 / scenarios as f64,
        found.steps as f64 / scenarios as f64,
        found.virtual_time.as_secs_f64() / seconds,
        found.failures
    )
}

/// The same as JSON.
pub fn json(found: &Found) -> String {
    let missed: Vec<_> = found
        .pairs_missed()
        .into_iter()
        .map(|(operation, kind)| json!([operation, kind]))
        .collect();
    let failing = found.failing.as_ref().map(|(scenario, outcome)| {
        let violation = outcome.violation.as_ref();
        json!({
            "seed": scenario.seed,
            "oracle": violation.map(|violation| violation.oracle.as_str()),
            "seen": violation.map(|violation| violation.seen.as_str()),
        })
    });
    json!({
        "scenarios": found.scenarios,
        "failures": found.failures,
        "failing": failing,
        "pairsHit": found.pairs.len(),
        "pairsMissed": missed,
        "probes": found.probes.iter().map(|(probe, times)| (probe.as_str(), times)).collect::<BTreeMap<_, _>>(),
        "probesMissed": found.probes_missed().into_iter().map(Probe::as_str).collect::<Vec<_>>(),
        "compared": found.compared,
        "calls": found.calls,
        "seconds": found.took.as_secs_f64(),
    })
    .to_string()
}

/// The trace as JSON Lines; `hash` is that of all lines up to and with this one.
pub fn json_lines(trace: &str) -> String {
    let mut text = String::new();
    let mut hash = FNV_START;
    for line in trace.lines() {
        hash = fnv1a(hash, line.bytes().chain([b'\n']));
        let mut parts = line.splitn(3, ' ');
        let at: u64 = parts.next().and_then(|at| at.parse().ok()).unwrap_or(0);
        let (who, what) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let event =
            json!({"atNanos": at, "who": who, "what": what, "hash": format!("{hash:016x}")});
        let _ = writeln!(text, "{event}");
    }
    text
}
