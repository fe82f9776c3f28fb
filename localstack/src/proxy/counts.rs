//! What went through the proxy, and what it did to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use trommel::core::bill::Calls;

use super::fault::Fault;
use super::operation::Call;

/// Requests and faults since the proxy began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that came.
    pub received: BTreeMap<Call, u64>,
    /// Those that were sent on.
    pub forwarded: BTreeMap<Call, u64>,
    /// Faults that struck.
    pub fired: BTreeMap<(Call, Fault), u64>,
    /// Requests sent on that the emulator did not answer; their connections were reset. Not our doing: with
    /// a sound emulator there are none.
    pub unanswered: u64,
}

impl Counts {
    /// What came since then.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            received: less(&self.received, &earlier.received),
            forwarded: less(&self.forwarded, &earlier.forwarded),
            fired: less(&self.fired, &earlier.fired),
            unanswered: self.unanswered - earlier.unanswered,
        }
    }

    /// Requests that came, in the form of a bill.
    pub fn calls(&self) -> Calls {
        let mut calls = Calls::new();
        for (call, times) in &self.received {
            let operations = calls.entry(call.service).or_default();
            operations.insert(call.operation.clone(), *times);
        }
        calls
    }

    /// How often this struck, whatever the operation.
    pub fn fired_times(&self, fault: Fault) -> u64 {
        let fired = self.fired.iter();
        fired
            .filter(|((_, kind), _)| *kind == fault)
            .map(|(_, times)| times)
            .sum()
    }

    /// A table: an operation a line, a fault a column.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, cells: Vec<String>| {
            let cells = cells.iter().zip(widths());
            let cells = cells.map(|(cell, width)| format!("  {cell:>width$}"));
            let cells: String = cells.collect();
            writeln!(text, "{name:<36}{cells}").expect("a text takes all text");
        };
        let heads = ["requests", "sent on"].into_iter().map(str::to_owned);
        let faults = Fault::ALL.into_iter().map(|fault| fault.to_string());
        line("operation", heads.chain(faults).collect());
        for call in self.received.keys() {
            let of =
                |counts: &BTreeMap<Call, u64>| counts.get(call).copied().unwrap_or(0).to_string();
            let fired = Fault::ALL.into_iter().map(|fault| {
                let times = self.fired.get(&(call.clone(), fault));
                times.copied().unwrap_or(0).to_string()
            });
            let cells = [of(&self.received), of(&self.forwarded)].into_iter();
            line(&call.to_string(), cells.chain(fired).collect());
        }
        let sum = |counts: &BTreeMap<Call, u64>| counts.values().sum::<u64>().to_string();
        let fired = Fault::ALL
            .into_iter()
            .map(|fault| self.fired_times(fault).to_string());
        let cells = [sum(&self.received), sum(&self.forwarded)].into_iter();
        line("all", cells.chain(fired).collect());
        if self.unanswered > 0 {
            writeln!(text, "left unanswered by the emulator: {}", self.unanswered)
                .expect("a text takes all text");
        }
        text
    }
}

/// The width of each column.
fn widths() -> impl Iterator<Item = usize> {
    let faults = Fault::ALL.into_iter().map(|fault| fault.as_str().len());
    [8, 8].into_iter().chain(faults)
}

fn less<K: Ord + Clone>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let grown = now.iter().map(|(key, times)| {
        let before = then.get(key).copied().unwrap_or(0);
        (key.clone(), times - before)
    });
    grown.filter(|(_, times)| *times > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trommel::core::bill::Service;

    fn counts(times: u64) -> Counts {
        let call = Call::new(Service::Sqs, "SendMessageBatch");
        Counts {
            received: BTreeMap::from([(call.clone(), times)]),
            forwarded: BTreeMap::from([(call.clone(), times - 1)]),
            fired: BTreeMap::from([((call, Fault::RequestLost), 1)]),
            unanswered: 0,
        }
    }

    #[test]
    fn counts_since_then_leave_out_what_did_not_grow() {
        let since = counts(5).since(&counts(3));
        assert_eq!(since.received.values().collect::<Vec<_>>(), [&2]);
        assert_eq!(since.fired, BTreeMap::new());
    }

    #[test]
    fn the_table_has_a_line_for_each_operation_and_a_sum() {
        let report = counts(5).report();
        let lines: Vec<Vec<&str>> = report
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines.len(), 3, "{report}");
        let cells = ["5", "4", "0", "1", "0", "0", "0", "0"];
        assert_eq!(lines[1][..2], ["sqs", "SendMessageBatch"]);
        assert_eq!(lines[1][2..], cells);
        assert_eq!(lines[2][1..], cells);
    }
}
