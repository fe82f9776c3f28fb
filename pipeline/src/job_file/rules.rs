//! What happens after a failure: tolerance, `fail_fast`, `[[retry]]` and `[[catch]]`.

use toml::de::DeValue;

use crate::core::class::{BUILT_IN, CLASS_BYTES_MAX, Class};
use crate::core::retry::{
    CatchRule, Errors, Jitter, MAX_ATTEMPTS_DEFAULT, MAX_ATTEMPTS_MAX, RETRY_RULES_MAX, RetryRule,
    Then,
};
use crate::core::tolerance::{FailFast, Percent, Tolerance};

use super::error::Code;
use super::lanes::duration;
use super::reading::{Fields, Problem, Reading, kind};

/// The wait before the first retry, as in the Amazon States Language (IntervalSeconds 1).
const INTERVAL_DEFAULT: std::time::Duration = std::time::Duration::from_secs(1);

/// What further waits are multiplied by, as in the Amazon States Language (BackoffRate 2.0).
const BACKOFF_RATE_DEFAULT: f64 = 2.0;

/// More catch rules than this are a mistake: there are twelve classes of our own.
const CATCH_RULES_MAX: usize = 64;

/// Reads the two tolerances.
pub(super) fn tolerance(reading: &mut Reading<'_>, job: &Fields<'_>) -> Tolerance {
    Tolerance {
        count: reading.whole(job, "tolerated_failure_count", 0..=u64::MAX),
        percent: percent(reading, job),
    }
}

fn percent(reading: &mut Reading<'_>, job: &Fields<'_>) -> Option<Percent> {
    const KEY: &str = "tolerated_failure_percentage";
    let value = job.get(KEY)?;
    // The digits as they are written: going through a float would round them.
    let digits = match value.get_ref() {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        DeValue::Float(float) => float.as_str(),
        DeValue::String(text) => text.as_ref(),
        DeValue::Integer(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            let message = format!("`{KEY}` must be a number, not {}", kind(value.get_ref()));
            let problem = Problem::new(Code::WrongType, message, format!("write {KEY} = 5"));
            reading.refuse_at(value.span(), problem);
            return None;
        }
    };
    let percent = digits
        .trim_start_matches('+')
        .parse::<Percent>()
        .map_err(|error| {
            let help = "write a number such as 5 or 0.5, without a percent sign";
            Problem::new(Code::BadForm, error.to_string(), help)
        });
    reading.take(value.span(), percent)
}

/// Reads the brake.
pub(super) fn fail_fast(reading: &mut Reading<'_>, job: &Fields<'_>) -> Option<FailFast> {
    const EXAMPLE: &str = "\"10 % of last 1000\"";
    let text = reading.text(job, "fail_fast", EXAMPLE)?;
    let brake = text.get_ref().parse::<FailFast>().map_err(|message| {
        Problem::new(
            Code::BadForm,
            message,
            format!("write it like this: fail_fast = {EXAMPLE}"),
        )
    });
    reading.take(text.span(), brake)
}

/// Reads the retry rules.
pub(super) fn retries(reading: &mut Reading<'_>, job: &Fields<'_>) -> Vec<RetryRule> {
    let tables = tables(reading, job, "retry", RETRY_RULES_MAX);
    let mut rules = Vec::new();
    let mut seen = Vec::new();
    for table in tables {
        let keys = [
            "errors",
            "max_attempts",
            "interval",
            "backoff_rate",
            "max_delay",
            "jitter",
        ];
        let fields = reading.open("[[retry]]", table, &keys);
        let errors = errors(reading, &fields, &mut seen);
        let attempts = reading.whole(&fields, "max_attempts", 0..=u64::from(MAX_ATTEMPTS_MAX));
        let interval = duration(reading, &fields, "interval").unwrap_or(INTERVAL_DEFAULT);
        let max_delay = duration(reading, &fields, "max_delay");
        if let Some(max_delay) = max_delay
            && max_delay < interval
        {
            let message = "`max_delay` is shorter than the first wait, `interval`";
            let help = "make it longer, or `interval` shorter";
            let problem = Problem::new(Code::Conflict, message, help);
            reading.refuse_at(fields.key_span("max_delay"), problem);
        }
        let jitters = [("full", Jitter::Full), ("none", Jitter::None)];
        let rule = RetryRule {
            errors: errors.unwrap_or(Errors::All),
            max_attempts: attempts.map_or(MAX_ATTEMPTS_DEFAULT, |n| n as u32),
            interval,
            backoff_rate: backoff_rate(reading, &fields),
            max_delay,
            jitter: reading
                .word(&fields, "jitter", &jitters)
                .unwrap_or(Jitter::Full),
        };
        rules.push(rule);
    }
    rules
}

fn backoff_rate(reading: &mut Reading<'_>, fields: &Fields<'_>) -> f64 {
    /// A larger one reaches a year at the fifth wait.
    const RATE_MAX: f64 = 100.0;
    let Some(value) = fields.get("backoff_rate") else {
        return BACKOFF_RATE_DEFAULT;
    };
    let number = match value.get_ref() {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(_)
        | DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    match number {
        Some(rate) if (1.0..=RATE_MAX).contains(&rate) => rate,
        Some(_) | None => {
            let message = "`backoff_rate` must be a number from 1 to 100";
            let help = "write 2.0 to double each wait, 1.0 to wait the same each time";
            reading.refuse_at(value.span(), Problem::new(Code::OutOfBounds, message, help));
            BACKOFF_RATE_DEFAULT
        }
    }
}

/// Reads the catch rules.
pub(super) fn catches(
    reading: &mut Reading<'_>,
    job: &Fields<'_>,
    has_container: bool,
) -> Vec<CatchRule> {
    let tables = tables(reading, job, "catch", CATCH_RULES_MAX);
    let mut rules = Vec::new();
    let mut seen = Vec::new();
    for table in tables {
        let fields = reading.open("[[catch]]", table, &["errors", "then"]);
        let errors = errors(reading, &fields, &mut seen);
        let words = [
            ("fail", Then::Fail),
            ("skip", Then::Skip),
            ("container", Then::Container),
        ];
        reading.require(&fields, "then", "say what happens then: then = \"skip\"");
        let then = reading.word(&fields, "then", &words);
        if then == Some(Then::Container) && !has_container {
            let message = "items cannot go to the container lane: the job has none";
            let help = "add [container], or write then = \"fail\" or \"skip\"";
            let problem = Problem::new(Code::Unreachable, message, help);
            reading.refuse_at(fields.key_span("then"), problem);
        }
        if let (Some(errors), Some(then)) = (errors, then) {
            rules.push(CatchRule { errors, then });
        }
    }
    rules
}

type Table<'t> = (&'t toml::de::DeTable<'t>, std::ops::Range<usize>);

/// The tables of a list of tables, at most so many.
fn tables<'t>(
    reading: &mut Reading<'_>,
    job: &Fields<'t>,
    key: &str,
    rules_max: usize,
) -> Vec<Table<'t>> {
    let Some(value) = job.get(key) else {
        return Vec::new();
    };
    if let Some(table) = value.get_ref().as_table() {
        let message = format!("`{key}` is a list of rules, this is one");
        let problem = Problem::new(
            Code::WrongType,
            message,
            format!("write [[{key}]], with two brackets"),
        );
        reading.refuse_at(value.span(), problem);
        return vec![(table, value.span())];
    }
    let Some(list) = reading.list(job, key, "[{ errors = [\"ALL\"] }]") else {
        return Vec::new();
    };
    let mut tables = Vec::new();
    for value in *list.get_ref() {
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("a rule is a table, not {}", kind(value.get_ref()));
            let help = format!("write [[{key}]] and its keys below it");
            reading.refuse_at(value.span(), Problem::new(Code::WrongType, message, help));
            continue;
        };
        if tables.len() == rules_max {
            let message = format!("there are more than {rules_max} [[{key}]] rules");
            let help = "put the classes that are treated alike into one rule";
            reading.refuse_at(value.span(), Problem::new(Code::TooMuch, message, help));
            break;
        }
        tables.push((table, value.span()));
    }
    tables
}

/// The classes of a rule. `seen` holds those of the rules before it.
fn errors(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    seen: &mut Vec<Errors>,
) -> Option<Errors> {
    reading.require(
        fields,
        "errors",
        "say which: errors = [\"Timeout\"], or [\"ALL\"]",
    );
    let names = reading.texts(fields, "errors", "[\"Timeout\", \"Throttled\"]")?;
    let mut classes: Vec<Class> = Vec::new();
    for name in names.get_ref() {
        if *name.get_ref() == "ALL" {
            if names.get_ref().len() > 1 {
                let message = "`ALL` already says every class";
                let problem = Problem::new(
                    Code::Conflict,
                    message,
                    "leave it alone in the list, or remove it",
                );
                reading.refuse_at(name.span(), problem);
            }
            return Some(remember(reading, names.span(), Errors::All, seen));
        }
        let class = reading.take(name.span(), class(name.get_ref()))?;
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    let errors = Errors::Any(classes);
    Some(remember(reading, names.span(), errors, seen))
}

/// Refuses a rule that can never match because earlier ones match all it could.
fn remember(
    reading: &mut Reading<'_>,
    span: std::ops::Range<usize>,
    errors: Errors,
    seen: &mut Vec<Errors>,
) -> Errors {
    let is_covered = match &errors {
        Errors::All => seen.contains(&Errors::All),
        Errors::Any(classes) => classes
            .iter()
            .all(|class| seen.iter().any(|earlier| earlier.contain(class))),
    };
    if is_covered {
        let message = "this rule never matches: the rules above it match all its classes";
        let help = "the first rule that matches counts; move this one up, or remove it";
        reading.refuse_at(span, Problem::new(Code::Unreachable, message, help));
    }
    seen.push(errors.clone());
    errors
}

/// A class by its name. Any name may be a handler's own, so only what is surely meant otherwise is
/// refused: another spelling of a class of ours, or a name of the Amazon States Language.
fn class(name: &str) -> Result<Class, Problem> {
    let bad = |message: String, help: String| Err(Problem::new(Code::BadClass, message, help));
    if name.is_empty() || name.len() > CLASS_BYTES_MAX || name.contains(char::is_control) {
        let message = format!(
            "{:?} is no error class",
            name.chars().take(40).collect::<String>()
        );
        return bad(
            message,
            format!("a class has 1 to {CLASS_BYTES_MAX} printable bytes"),
        );
    }
    let local = name.strip_prefix("States.").unwrap_or(name);
    let squeezed = |text: &str| text.replace(['_', '-', ' '], "").to_lowercase();
    let ours = BUILT_IN.iter().map(Class::as_str).chain(["ALL"]);
    let near = ours
        .into_iter()
        .find(|known| squeezed(known) == squeezed(local));
    match near {
        Some(known) if known != name => bad(
            format!("{name:?} is not how the class is written"),
            format!("did you mean \"{known}\"?"),
        ),
        None if local != name => bad(
            format!("{name:?} is a class of Step Functions, not of Trommel"),
            "write \"ALL\", \"Timeout\", \"HandlerError\" or a class your handler returns"
                .to_owned(),
        ),
        Some(_) | None => Ok(Class::from_name(name)),
    }
}
