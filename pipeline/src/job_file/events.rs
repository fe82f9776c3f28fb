//! Events as input: the options of `input = { events = "sqs:…" }`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::core::class::Class;
use crate::core::event::Keys;
use crate::core::job::{Dedupe, EventsSpec, Missing, PENDING_MAX_DEFAULT, WINDOW_DEFAULT};
use crate::core::mark::Sequencer;
use crate::core::retry::{CatchRule, Errors, Jitter, RETRY_RULES_MAX, RetryRule, Then};

use super::error::Code;
use super::lanes::duration;
use super::reading::{Fields, Problem, Reading};

pub(super) const OPTIONS: [&str; 8] = [
    "bucket",
    "prefix",
    "window",
    "dedupe",
    "sequencer",
    "keys",
    "missing",
    "max_pending",
];

const EXAMPLE: &str = "\"sqs:photos-inbox\"";

/// Shorter windows would be runs of next to nothing; longer ones would never be judged.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 86_400);

/// How an object that is not there yet, or no more, is looked for again: some two minutes in all.
const MISSING_RETRIES: u32 = 6;
const MISSING_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the queue and what belongs to it.
pub(super) fn read(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Option<EventsSpec> {
    let queue = queue(reading, fields, "events", EXAMPLE)?;
    let text = |reading: &mut Reading<'_>, key: &str, example: &str| {
        let text = reading.text(fields, key, example);
        text.map(|text| (*text.get_ref()).to_owned())
    };
    let bucket = text(reading, "bucket", "\"photos\"");
    let prefix = text(reading, "prefix", "\"in/\"").unwrap_or_default();
    let sequencers = [
        ("trusted", Sequencer::Trusted),
        ("ignored", Sequencer::Ignored),
    ];
    let keys = [
        ("aws", Keys::Aws),
        ("form", Keys::Form),
        ("plain", Keys::Plain),
    ];
    let missing = [
        ("fail", Missing::Fail),
        ("skip", Missing::Skip),
        ("retry", Missing::Retry),
    ];
    Some(EventsSpec {
        queue,
        bucket,
        prefix,
        window: window(reading, fields),
        dedupe: dedupe(reading, fields),
        sequencer: reading.word(fields, "sequencer", &sequencers),
        keys: reading.word(fields, "keys", &keys).unwrap_or_default(),
        missing: reading
            .word(fields, "missing", &missing)
            .unwrap_or(Missing::Fail),
        pending_max: reading
            .whole(fields, "max_pending", 1..=u64::from(u32::MAX))
            .unwrap_or(PENDING_MAX_DEFAULT),
    })
}

/// A queue by its name or URL, as `sqs:…`.
pub(super) fn queue(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    key: &str,
    example: &str,
) -> Option<String> {
    let text = reading.text(fields, key, example)?;
    match text.get_ref().strip_prefix("sqs:") {
        Some(name) if !name.is_empty() => Some(name.to_owned()),
        Some(_) | None => {
            let message = format!("{:?} names no queue", text.get_ref());
            let help = format!("write it like this: {key} = {example}, or \"sqs:https://…\"");
            reading.refuse_at(text.span(), Problem::new(Code::BadPlace, message, help));
            None
        }
    }
}

fn window(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Duration {
    let Some(window) = duration(reading, fields, "window") else {
        return WINDOW_DEFAULT;
    };
    let whole = window.subsec_nanos() == 0;
    if !WINDOW.contains(&window) || !whole {
        let message = "`window` must be whole seconds, from 1s to 31days";
        let problem = Problem::new(Code::OutOfBounds, message, "write window = \"1h\"");
        reading.refuse_at(fields.key_span("window"), problem);
    }
    window
}

fn dedupe(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Dedupe {
    let Some(value) = fields.get("dedupe") else {
        return Dedupe::On;
    };
    match value.get_ref().as_bool() {
        Some(true) => Dedupe::On,
        Some(false) => Dedupe::Off,
        None => {
            let message = "`dedupe` must be true or false";
            let problem = Problem::new(Code::WrongType, message, "write dedupe = true");
            reading.refuse_at(value.span(), problem);
            Dedupe::On
        }
    }
}

/// The rules that events bring with them, before the job's own, unless those name the class themselves: what was
/// overwritten meanwhile is superseded, as its newer state has an event of its own; what is gone is a policy.
pub(super) fn add_rules(
    events: &EventsSpec,
    retries: &mut Vec<RetryRule>,
    catches: &mut Vec<CatchRule>,
) {
    let named = |errors: &Errors, class: &Class| match errors {
        Errors::All => false,
        Errors::Any(classes) => classes.contains(class),
    };
    let mut skip = |class: Class| {
        if !catches.iter().any(|rule| named(&rule.errors, &class)) {
            let errors = Errors::Any(vec![class]);
            let then = Then::Skip;
            catches.insert(0, CatchRule { errors, then });
        }
    };
    skip(Class::SourceChanged);
    let again = |attempts: u32, class: Class| RetryRule {
        errors: Errors::Any(vec![class]),
        max_attempts: attempts,
        interval: MISSING_INTERVAL,
        backoff_rate: 2.0,
        max_delay: None,
        jitter: Jitter::None,
    };
    match events.missing {
        Missing::Fail => {}
        Missing::Skip => skip(Class::Gone),
        Missing::Retry => {
            let own = retries.iter().any(|rule| named(&rule.errors, &Class::Gone));
            if !own && retries.len() < RETRY_RULES_MAX {
                retries.insert(0, again(MISSING_RETRIES, Class::Gone));
            }
        }
    }
}
