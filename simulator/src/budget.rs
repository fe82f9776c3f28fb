//! How a run must be judged: counted here from the job file's own words, in whole numbers, and not by the rule
//! that is under test.

use trommel::core::run::Reason;
use trommel::core::tolerance::Breach;

use crate::scenario::Scenario;

/// What a scenario's job tolerates.
#[derive(Clone, Debug)]
pub struct Budget {
    count: Option<u64>,
    percent: Option<Written>,
    fail_fast: Option<(u32, u64)>,
}

/// A percentage as it is written: `12.50` is 1250 hundredths.
#[derive(Clone, Debug)]
struct Written {
    text: String,
    parts: u128,
    a_percent: u128,
}

impl Written {
    fn new(text: &str) -> Self {
        let decimals = text.split_once('.').map_or("", |(_, decimals)| decimals);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        Self {
            text: text.to_owned(),
            parts: digits.parse().expect("a percentage has digits"),
            a_percent: 10u128.pow(decimals.len() as u32),
        }
    }

    fn is_exceeded(&self, part: u64, whole: u64) -> bool {
        u128::from(part) * 100 * self.a_percent > self.parts * u128::from(whole)
    }

    /// Without zeros that say nothing.
    fn shown(&self) -> &str {
        match self.text.contains('.') {
            true => self.text.trim_end_matches('0').trim_end_matches('.'),
            false => &self.text,
        }
    }
}

impl Budget {
    /// What the scenario's job file says.
    pub fn of(scenario: &Scenario) -> Self {
        let (rules, tuning) = (&scenario.rules, &scenario.tuning);
        let percent = tuning.tolerated_percent.map(|percent| percent.to_string());
        let percent = rules.percent.clone().or(percent);
        Self {
            count: (!rules.percent_alone).then_some(tuning.tolerated),
            percent: percent.as_deref().map(Written::new),
            fail_fast: rules.fail_fast,
        }
    }

    /// Whether so many failures are too many; `total` once it can no longer grow.
    pub fn is_exceeded(&self, failures: u64, total: Option<u64>) -> bool {
        let by_count = self.count.is_some_and(|count| failures > count);
        let by_percent = match (&self.percent, total) {
            (Some(percent), Some(total)) => percent.is_exceeded(failures, total),
            (Some(_), None) => false,
            (None, _) => self.count.is_none() && failures > 0,
        };
        by_count || by_percent
    }

    /// The most failures that a run of so many items may have: counted up, one by one.
    fn most(&self, total: Option<u64>) -> Option<u64> {
        let by_percent_alone = self.count.is_none() && self.percent.is_some();
        if by_percent_alone && total.is_none() {
            return None;
        }
        // Where all may fail, the pipeline names the number that was said, or all of them.
        let bound = self.count.or(total)?;
        (0..=bound)
            .take_while(|failures| !self.is_exceeded(*failures, total))
            .last()
    }

    /// What is wrong with the number of failures that `trommel watch` says are left, in a sentence.
    pub fn is_shown_wrong(&self, shown: Option<u64>, total: Option<u64>) -> Option<String> {
        let most = self.most(total);
        (shown != most).then(|| {
            format!("{shown:?} failures of {total:?} are shown as tolerated, {most:?} are")
        })
    }

    /// What is wrong with the reason that a run gives for its end, in a sentence; by now so many items failed in it.
    pub fn is_reason_wrong(&self, reason: &Reason, failed: u64) -> Option<String> {
        let Reason::Breach { breach } = reason else {
            return None;
        };
        let (holds, says) = match *breach {
            Breach::Count {
                failures,
                tolerated,
            } => {
                let verb = match failures {
                    1 => "failure exceeds",
                    _ => "failures exceed",
                };
                let holds = tolerated == self.count.unwrap_or(0)
                    && (tolerated + 1..=failed).contains(&failures);
                (
                    holds,
                    format!("{failures} {verb} the {tolerated} tolerated"),
                )
            }
            Breach::Percent {
                failures, total, ..
            } => {
                let exceeds = |percent: &Written| percent.is_exceeded(failures, total);
                let percent = self.percent.as_ref();
                let shown = percent.map_or("", Written::shown);
                (
                    percent.is_some_and(exceeds) && failures <= failed,
                    format!("{failures} failures of {total} exceed the {shown} % tolerated"),
                )
            }
            Breach::FailFast { failures, last } => {
                let brakes = |(percent, of): (u32, u64)| {
                    last >= of && 100 * failures > u64::from(percent) * last
                };
                (
                    self.fail_fast.is_some_and(brakes) && failures <= failed,
                    format!("{failures} failures among the last {last} items: fail_fast"),
                )
            }
        };
        let told = reason.to_string();
        let is_right = holds && told == says;
        (!is_right).then(|| format!("the run says {told:?}, {failed} failed in it, {self:?}"))
    }
}
