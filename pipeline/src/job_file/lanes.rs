//! What runs the items: the `[function]` and `[container]` tables.

use std::time::Duration;

use toml::Spanned;

use crate::core::job::{
    BATCH_ITEMS_MAX, ExecutorSpec, FUNCTION_TIMEOUT_DEFAULT, GRACE_DEFAULT, LaneSpec, OutputMode,
};
use crate::core::lane::Lane;

use super::error::Code;
use super::reading::{Fields, Origin, Problem, Reading};
use super::{Executors, executors as kinds, units};

/// What a lane may say beside its executor.
const OWN_KEYS: [&str; 5] = [
    "max_object",
    "max_items_per_batch",
    "timeout",
    "grace",
    "output",
];

/// The value is there and was refused; the errors say why.
struct Refused;

/// A lane, and where its table stands.
pub(super) struct ReadLane {
    pub(super) spec: LaneSpec,
    pub(super) origin: Origin,
    /// Where its `max_object` stands, or its table if it has none.
    pub(super) max_object: Origin,
}

/// Reads a lane's table; nothing if it is not there or was refused.
pub(super) fn read(
    reading: &mut Reading<'_>,
    job: &Fields<'_>,
    lane: Lane,
    executors: Executors,
) -> Option<ReadLane> {
    let title = format!("[{lane}]");
    let Some(_) = job.get(lane.as_str()) else {
        return absent(reading, lane, executors);
    };
    let (table, span) = reading.table(job, lane.as_str(), "{ command = [\"./work\"] }")?;
    let known = [&kinds::KEYS[..], &OWN_KEYS[..]].concat();
    let fields = reading.open(&title, (table, span.clone()), &known);

    let object_bytes_max = max_object(reading, &fields);
    let batch = batch(reading, &fields, lane);
    let timeout_default = match lane {
        Lane::Function => Some(FUNCTION_TIMEOUT_DEFAULT),
        Lane::Container => None,
    };
    let timeout = timeout(reading, &fields, timeout_default);
    let grace = match fields.get("grace") {
        Some(_) => duration(reading, &fields, "grace"),
        None => Some(GRACE_DEFAULT),
    };
    let output = match fields.get("output") {
        Some(_) => {
            let words = [("keep", OutputMode::Keep), ("none", OutputMode::None)];
            reading.word(&fields, "output", &words)
        }
        None => Some(OutputMode::Keep),
    };
    let executor = kinds::read(
        reading,
        &fields,
        executors,
        output.unwrap_or(OutputMode::Keep),
    );
    let max_object_origin = match fields.get("max_object") {
        Some(value) => Origin::File(value.span()),
        None => Origin::File(span.clone()),
    };
    let spec = LaneSpec {
        executor: executor?,
        object_bytes_max: object_bytes_max.ok()?,
        max_items_per_batch: batch?,
        timeout: timeout.ok()?,
        grace: grace?,
        output: output?,
    };
    Some(ReadLane {
        spec,
        origin: Origin::File(span),
        max_object: max_object_origin,
    })
}

fn absent(reading: &mut Reading<'_>, lane: Lane, executors: Executors) -> Option<ReadLane> {
    match (lane, executors) {
        (Lane::Container, _) => None,
        (Lane::Function, Executors::InProcess) => Some(ReadLane {
            spec: LaneSpec {
                executor: ExecutorSpec::InProcess,
                object_bytes_max: None,
                max_items_per_batch: 1,
                timeout: Some(FUNCTION_TIMEOUT_DEFAULT),
                grace: GRACE_DEFAULT,
                output: OutputMode::Keep,
            },
            origin: Origin::Whole,
            max_object: Origin::Whole,
        }),
        (Lane::Function, Executors::Commands) => {
            let message = "the job says not what to run: it has no [function]";
            let help = format!("add [function] with command = {}", kinds::COMMAND_EXAMPLE);
            reading.refuse(Origin::Whole, Problem::new(Code::Missing, message, help));
            None
        }
    }
}

fn max_object(reading: &mut Reading<'_>, fields: &Fields<'_>) -> Result<Option<u64>, Refused> {
    const KEY: &str = "max_object";
    let Some(value) = fields.get(KEY) else {
        return Ok(None);
    };
    if value.get_ref().is_integer() {
        let bytes = reading.whole(fields, KEY, 0..=i64::MAX as u64);
        return bytes.map(Some).ok_or(Refused);
    }
    size(reading, fields, KEY).map(Some).ok_or(Refused)
}

/// A size with a unit that is there.
pub(super) fn size(reading: &mut Reading<'_>, fields: &Fields<'_>, key: &str) -> Option<u64> {
    let text = reading.text(fields, key, "\"64 MiB\"")?;
    let size = units::size(text.get_ref()).map_err(|message| {
        let help = "write a number with a unit, such as \"64 MiB\", \"500 KB\" or \"2 GiB\"";
        Problem::new(Code::BadUnit, message, help)
    });
    reading.take(text.span(), size)
}

fn batch(reading: &mut Reading<'_>, fields: &Fields<'_>, lane: Lane) -> Option<u32> {
    const KEY: &str = "max_items_per_batch";
    let Some(value) = fields.get(KEY) else {
        return Some(1);
    };
    let items = reading.whole(fields, KEY, 1..=u64::from(BATCH_ITEMS_MAX))?;
    if lane == Lane::Container && items > 1 {
        let message = "an item of the container lane goes alone";
        let help = "remove it here; [function] may have it";
        reading.refuse_at(value.span(), Problem::new(Code::Conflict, message, help));
        return None;
    }
    Some(u32::try_from(items).expect("at most BATCH_ITEMS_MAX"))
}

fn timeout(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Refused> {
    let Some(value) = fields.get("timeout") else {
        return Ok(default);
    };
    if value.get_ref().as_str() == Some("none") {
        return Ok(None);
    }
    let timeout = duration(reading, fields, "timeout").ok_or(Refused)?;
    if timeout.is_zero() {
        let message = "no call ends within no time";
        let help = "write a longer one, or \"none\" for calls that may run as long as they like";
        let problem = Problem::new(Code::OutOfBounds, message, help);
        reading.refuse_at(value.span(), problem);
        return Err(Refused);
    }
    Ok(Some(timeout))
}

/// A duration that is there.
pub(super) fn duration(
    reading: &mut Reading<'_>,
    fields: &Fields<'_>,
    key: &str,
) -> Option<Duration> {
    const HELP: &str = "write a number with a unit, such as \"30s\", \"5min\" or \"2h\"";
    let value = fields.get(key)?;
    if let Some(integer) = value.get_ref().as_integer() {
        let message = format!("`{key}` has no unit");
        let help = format!(
            "write {key} = \"{}s\" if seconds are meant",
            integer.as_str()
        );
        reading.refuse_at(value.span(), Problem::new(Code::BadUnit, message, help));
        return None;
    }
    let text: Spanned<&str> = reading.text(fields, key, "\"30s\"")?;
    let duration = units::duration(text.get_ref())
        .map_err(|message| Problem::new(Code::BadUnit, message, HELP));
    reading.take(text.span(), duration)
}
