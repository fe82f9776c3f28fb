//! Retry and catch: which failure is tried again, after how long, and what happens when it is not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::class::Class;

/// The most retry rules a job may have: a page keeps one counter an item and rule.
pub const RETRY_RULES_MAX: usize = 8;

/// The most retries one rule may grant; a counter is one character in a page's row.
pub const MAX_ATTEMPTS_MAX: u32 = 35;

/// Throttles are charged to infrastructure, not to the item's rules; after this many an item fails.
pub const THROTTLES_MAX: u32 = 20;

/// The default of Amazon States Language retriers ("Retrying after an error").
pub const MAX_ATTEMPTS_DEFAULT: u32 = 3;

/// Which classes a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errors {
    /// `ALL`.
    All,
    /// Any of these.
    Any(Vec<Class>),
}

impl Errors {
    /// Whether the class is among them.
    pub fn contain(&self, class: &Class) -> bool {
        match self {
            Self::All => true,
            Self::Any(classes) => classes.contains(class),
        }
    }
}

/// One retry rule: the names and defaults of an Amazon States Language retrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryRule {
    /// What it matches.
    pub errors: Errors,
    /// How many retries it grants an item: 0 is never.
    pub max_attempts: u32,
    /// The wait before the first retry.
    pub interval: Duration,
    /// What each further wait is multiplied by, at least 1.
    pub backoff_rate: f64,
    /// No wait is longer than this.
    pub max_delay: Option<Duration>,
    /// Whether the wait is drawn from zero to its full length.
    pub jitter: Jitter,
}

/// How a wait is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Jitter {
    /// Anything from zero to the full wait.
    Full,
    /// The full wait.
    None,
}

/// What becomes of an item whose retries are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It fails.
    Fail,
    /// It is skipped: neither success nor failure.
    Skip,
    /// It moves to the container lane.
    Container,
}

/// One catch rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchRule {
    /// What it matches.
    pub errors: Errors,
    /// What happens then.
    pub then: Then,
}

impl RetryRule {
    /// The wait before retry number `retry` (from 1). `draw` is a random number, used by full jitter.
    pub fn delay(&self, retry: u32, draw: u64) -> Duration {
        /// No wait is longer than a year, whatever the rate; keeps the arithmetic finite.
        const DELAY_MAX: Duration = Duration::from_secs(31_536_000);
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.interval.as_secs_f64() * self.backoff_rate.powi(exponent);
        let longest = self.max_delay.unwrap_or(DELAY_MAX).min(DELAY_MAX);
        let full = Duration::try_from_secs_f64(seconds)
            .unwrap_or(longest)
            .min(longest);
        match self.jitter {
            Jitter::None => full,
            Jitter::Full => full.mul_f64(draw as f64 / u64::MAX as f64),
        }
    }
}

/// What to do about one failure of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Again after the wait, charged to this rule.
    Retry {
        /// Index of the rule.
        rule: usize,
        /// How long to wait.
        delay: Duration,
    },
    /// Again after the wait, charged to infrastructure.
    Throttle {
        /// How long to wait.
        delay: Duration,
    },
    /// No more tries: this is what happens.
    End(Then),
}

/// Decides about one failure: the first rule that matches counts, and only that one.
///
/// `charged` holds the retries charged so far, one number a rule; `throttles` those charged to
/// infrastructure.
pub fn decide(
    rules: &[RetryRule],
    catches: &[CatchRule],
    class: &Class,
    charged: &[u32],
    throttles: u32,
    draw: u64,
) -> Decision {
    if *class == Class::Throttled && throttles < THROTTLES_MAX {
        return Decision::Throttle {
            delay: throttle_delay(throttles, draw),
        };
    }
    let first = rules.iter().position(|rule| rule.errors.contain(class));
    if let Some(rule) = first {
        let so_far = charged.get(rule).copied().unwrap_or(0);
        if so_far < rules[rule].max_attempts {
            return Decision::Retry {
                rule,
                delay: rules[rule].delay(so_far + 1, draw),
            };
        }
    }
    match catches.iter().find(|catch| catch.errors.contain(class)) {
        Some(catch) => Decision::End(catch.then),
        None => Decision::End(Then::Fail),
    }
}

/// Doubling from 100 ms to 20 s, with full jitter: what AWS advises against throttles
/// ("Timeouts, retries and backoff with jitter", Amazon Builders' Library).
fn throttle_delay(throttles: u32, draw: u64) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(20);
    let full = FIRST.saturating_mul(1 << throttles.min(10)).min(LONGEST);
    full.mul_f64(draw as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(errors: Errors, max_attempts: u32) -> RetryRule {
        RetryRule {
            errors,
            max_attempts,
            interval: Duration::from_secs(1),
            backoff_rate: 2.0,
            max_delay: Some(Duration::from_secs(5)),
            jitter: Jitter::None,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let rule = rule(Errors::All, 9);
        let waits: Vec<u64> = (1..=5).map(|n| rule.delay(n, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(rule.delay(4000, 0), Duration::from_secs(5), "no overflow");
    }

    #[test]
    fn full_jitter_draws_from_zero_to_the_whole_wait() {
        let rule = RetryRule {
            jitter: Jitter::Full,
            ..rule(Errors::All, 9)
        };
        assert_eq!(rule.delay(2, 0), Duration::ZERO);
        assert_eq!(rule.delay(2, u64::MAX), Duration::from_secs(2));
    }

    #[test]
    fn only_the_first_matching_rule_counts() {
        let rules = [
            rule(Errors::Any(vec![Class::Timeout]), 0),
            rule(Errors::All, 5),
        ];
        let end = decide(&rules, &[], &Class::Timeout, &[0, 0], 0, 0);
        assert_eq!(
            end,
            Decision::End(Then::Fail),
            "0 attempts: never, though ALL would match"
        );
        let retry = decide(&rules, &[], &Class::Crashed, &[0, 4], 0, 0);
        assert!(matches!(retry, Decision::Retry { rule: 1, .. }));
        let used_up = decide(&rules, &[], &Class::Crashed, &[0, 5], 0, 0);
        assert_eq!(used_up, Decision::End(Then::Fail));
    }

    #[test]
    fn throttles_are_free_until_twenty_then_like_any_class() {
        let rules = [rule(Errors::All, 1)];
        let free = decide(
            &rules,
            &[],
            &Class::Throttled,
            &[1],
            THROTTLES_MAX - 1,
            u64::MAX,
        );
        assert_eq!(
            free,
            Decision::Throttle {
                delay: Duration::from_secs(20)
            }
        );
        let charged = decide(&rules, &[], &Class::Throttled, &[1], THROTTLES_MAX, 0);
        assert_eq!(charged, Decision::End(Then::Fail));
    }

    #[test]
    fn catch_comes_after_the_retries() {
        let catches = [CatchRule {
            errors: Errors::Any(vec![Class::Gone]),
            then: Then::Skip,
        }];
        assert_eq!(
            decide(&[], &catches, &Class::Gone, &[], 0, 0),
            Decision::End(Then::Skip)
        );
        assert_eq!(
            decide(&[], &catches, &Class::Crashed, &[], 0, 0),
            Decision::End(Then::Fail)
        );
    }
}
