//! Tolerance: how many failures a run may have and still succeed.
//!
//! The test is strict: a run fails when failures *exceed* the value ("Setting failure thresholds for
//! Distributed Map states in Step Functions"; Amazon States Language, Map State). Failures are failed plus
//! timed-out items; aborted and skipped ones are not in the formula. The count is judged at once, the
//! percentage once the total is final, in whole numbers, so that no rounding decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A percentage kept as a whole number of millionths of a percent: `0.5` is 500,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent {
    millionths: u64,
}

/// A text that is no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no percentage: a number from 0 to 100 with at most 6 decimals")]
pub struct BadPercent(pub String);

impl Percent {
    const ONE: u64 = 1_000_000;

    /// All of it.
    pub const HUNDRED: Self = Self {
        millionths: 100 * Self::ONE,
    };

    /// Whether `part` of `whole` is more than this. Nothing of nothing is not.
    pub fn is_exceeded(self, part: u64, whole: u64) -> bool {
        // 100 × part / whole > millionths / 1,000,000, without division.
        u128::from(part) * 100 * u128::from(Self::ONE)
            > u128::from(self.millionths) * u128::from(whole)
    }
}

impl FromStr for Percent {
    type Err = BadPercent;

    fn from_str(text: &str) -> Result<Self, BadPercent> {
        let bad = || BadPercent(text.to_owned());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let decimals: u64 = format!("{decimals:0<6}").parse().map_err(|_| bad())?;
        let millionths = whole
            .checked_mul(Self::ONE)
            .and_then(|w| w.checked_add(decimals))
            .ok_or_else(bad)?;
        let percent = Self { millionths };
        if percent > Self::HUNDRED {
            Err(bad())
        } else {
            Ok(percent)
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.millionths % Self::ONE);
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{}", self.millionths / Self::ONE)?;
        if decimals.is_empty() {
            Ok(())
        } else {
            write!(f, ".{decimals}")
        }
    }
}

/// How many failures a run may have. Both set: it fails when either is exceeded. Neither: zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tolerance {
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// At most this share of the total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

/// What was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Breach {
    /// More failures than tolerated.
    Count {
        /// Failures so far.
        failures: u64,
        /// The most there may be.
        tolerated: u64,
    },
    /// A larger share of failures than tolerated.
    Percent {
        /// Failures so far.
        failures: u64,
        /// Of so many.
        total: u64,
        /// The largest share there may be.
        tolerated: Percent,
    },
    /// Too many failures among the last items settled.
    FailFast {
        /// Failures among them.
        failures: u64,
        /// How many were looked at.
        last: u64,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count {
                failures,
                tolerated,
            } => {
                let verb = if *failures == 1 {
                    "failure exceeds"
                } else {
                    "failures exceed"
                };
                write!(f, "{failures} {verb} the {tolerated} tolerated")
            }
            Self::Percent {
                failures,
                total,
                tolerated,
            } => {
                write!(
                    f,
                    "{failures} failures of {total} exceed the {tolerated} % tolerated"
                )
            }
            Self::FailFast { failures, last } => {
                write!(
                    f,
                    "{failures} failures among the last {last} items: fail_fast"
                )
            }
        }
    }
}

impl Tolerance {
    /// The breach, if there is one. `total_final` is the number of items once it can no longer grow.
    pub fn breach(&self, failures: u64, total_final: Option<u64>) -> Option<Breach> {
        let count = match (self.count, self.percent) {
            (None, None) => Some(0),
            (count, _) => count,
        };
        if let Some(tolerated) = count
            && failures > tolerated
        {
            return Some(Breach::Count {
                failures,
                tolerated,
            });
        }
        let (tolerated, total) = (self.percent?, total_final?);
        let exceeded = tolerated.is_exceeded(failures, total);
        exceeded.then_some(Breach::Percent {
            failures,
            total,
            tolerated,
        })
    }

    /// How many failures the run may have in all, once the total is known; none while the
    /// percentage alone decides and the total is still growing.
    pub fn failures_max(&self, total_final: Option<u64>) -> Option<u64> {
        let by_percent = match (self.percent, total_final) {
            (Some(percent), Some(total)) => {
                let exact = u128::from(percent.millionths) * u128::from(total);
                Some(u64::try_from(exact / (100 * u128::from(Percent::ONE))).unwrap_or(u64::MAX))
            }
            _ => None,
        };
        match (self.count, self.percent) {
            (None, None) => Some(0),
            (Some(count), _) => Some(by_percent.map_or(count, |by_percent| count.min(by_percent))),
            (None, Some(_)) => by_percent,
        }
    }
}

/// `fail_fast = "10 % of last 1000"`: a brake beside the tolerance, for when everything goes wrong
/// at once and the total is not yet known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailFast {
    /// The largest share …
    pub percent: Percent,
    /// … of so many items settled last. Nothing is judged before so many are settled.
    pub last: u64,
}

impl FromStr for FailFast {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not of the form \"10 % of last 1000\"");
        let (percent, rest) = text.split_once('%').ok_or_else(bad)?;
        let last = rest.trim().strip_prefix("of last").ok_or_else(bad)?;
        let last = last.trim().replace('_', "").parse().map_err(|_| bad())?;
        let percent = percent
            .trim()
            .parse()
            .map_err(|e: BadPercent| e.to_string())?;
        if last == 0 {
            return Err("fail_fast must look at 1 item or more".to_owned());
        }
        Ok(Self { percent, last })
    }
}

impl FailFast {
    /// The breach among the items settled since a former sample, if there is one.
    /// `settled` and `failures` are this generation's sums now; `then` the same at the sample that
    /// lies at least `last` items back.
    pub fn breach(&self, now: (u64, u64), then: (u64, u64)) -> Option<Breach> {
        let (last, failures) = (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
        let enough = last >= self.last;
        (enough && self.percent.is_exceeded(failures, last))
            .then_some(Breach::FailFast { failures, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(text: &str) -> Percent {
        text.parse().expect("a percentage")
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of plain rows")]
    fn count_percent_both_neither_and_equality() {
        // (count, percent, failures, total once final, breached)
        let table: [(Option<u64>, Option<&str>, u64, Option<u64>, bool); 22] = [
            (None, None, 0, Some(10), false),
            (None, None, 1, None, true),
            (None, None, 1, Some(10), true),
            (Some(0), None, 0, Some(0), false),
            (Some(0), None, 1, None, true),
            (Some(2), None, 2, None, false),
            (Some(2), None, 3, None, true),
            (None, Some("0"), 0, Some(10), false),
            (None, Some("0"), 1, None, false),
            (None, Some("0"), 1, Some(10), true),
            (None, Some("100"), 10, Some(10), false),
            (None, Some("100"), 0, Some(0), false),
            (None, Some("50"), 5, Some(10), false),
            (None, Some("50"), 6, Some(10), true),
            (None, Some("0.5"), 5, Some(1000), false),
            (None, Some("0.4"), 4, Some(1000), false),
            (None, Some("0.4"), 5, Some(1000), true),
            (Some(3), Some("10"), 3, Some(100), false),
            (Some(3), Some("10"), 4, Some(100), true),
            (Some(50), Some("10"), 11, Some(100), true),
            (Some(50), Some("10"), 11, None, false),
            (Some(0), Some("100"), 1, Some(100), true),
        ];
        for (count, share, failures, total, breached) in table {
            let tolerance = Tolerance {
                count,
                percent: share.map(percent),
            };
            let is = tolerance.breach(failures, total).is_some();
            assert_eq!(is, breached, "{count:?} {share:?} {failures} of {total:?}");
        }
    }

    #[test]
    fn a_third_is_compared_without_rounding() {
        let third = percent("33.333333");
        assert!(third.is_exceeded(1, 3));
        assert!(!percent("33.333334").is_exceeded(1, 3));
        assert!(!Percent::HUNDRED.is_exceeded(u64::MAX, u64::MAX));
    }

    #[test]
    fn percentages_print_as_they_were_written() {
        for text in ["0", "0.5", "12.000001", "100"] {
            assert_eq!(percent(text).to_string(), text);
        }
        for text in ["", "-1", "100.1", "1.0000001", "5%", "1e2", "."] {
            assert!(text.parse::<Percent>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn fail_fast_waits_for_enough_items() {
        let brake: FailFast = "10 % of last 1000".parse().expect("a brake");
        assert_eq!(brake.breach((999, 999), (0, 0)), None);
        assert_eq!(
            brake.breach((2000, 150), (1000, 50)),
            None,
            "10 % is not more than 10 %"
        );
        assert!(brake.breach((2000, 151), (1000, 50)).is_some());
        assert!("10 of last 5".parse::<FailFast>().is_err());
    }

    #[test]
    fn the_budget_shown_is_the_budget_judged() {
        for total in [0, 1, 3, 99, 1000] {
            for share in ["0", "0.4", "0.5", "33.333333", "100"] {
                let tolerance = Tolerance {
                    count: None,
                    percent: Some(percent(share)),
                };
                let max = tolerance
                    .failures_max(Some(total))
                    .expect("the total is final");
                assert_eq!(tolerance.breach(max, Some(total)), None);
                assert!(tolerance.breach(max + 1, Some(total)).is_some() || share == "100");
            }
        }
    }
}
