//! What no single table can tell: lanes that nothing reaches, output that lies in the input, names
//! that grow too long together.

use crate::core::id::JobName;
use crate::core::job::{ExecutorSpec, InputSpec, LedgerUri, Location};
use crate::core::lane::Lane;

use super::error::Code;
use super::lanes::ReadLane;
use super::places;
use super::reading::{Origin, Problem, Reading};

/// SQS queue names have at most 80 characters ("Amazon SQS message quotas").
const QUEUE_NAME_CHARS_MAX: usize = 80;

/// A value, and where it came from.
pub(super) type Placed<T> = (T, Origin);

pub(super) fn lanes(
    reading: &mut Reading<'_>,
    function: &ReadLane,
    container: &ReadLane,
    input: &InputSpec,
) {
    if !input.is_objects() {
        // Rows and values always come to the function lane; the container lane takes what escalates.
        return;
    }
    let Some(function_max) = function.spec.object_bytes_max else {
        let message = "[function] takes objects of any size, so that none ever reaches [container]";
        let help = "add max_object = \"64 MiB\" to [function]: larger ones go to [container]";
        let problem = Problem::new(Code::Unreachable, message, help);
        reading.refuse(function.max_object.clone(), problem);
        return;
    };
    if let Some(container_max) = container.spec.object_bytes_max
        && container_max <= function_max
    {
        let message = "[container] takes no larger objects than [function] already does";
        let help = "make its max_object larger than [function]'s, or remove it: any size";
        let problem = Problem::new(Code::Unreachable, message, help);
        reading.refuse(container.max_object.clone(), problem);
    }
}

/// A call with many items has no one path to fill in.
pub(super) fn batch_arguments(reading: &mut Reading<'_>, function: &ReadLane, input: &InputSpec) {
    let argv = match &function.spec.executor {
        ExecutorSpec::Command { argv, .. } => argv,
        ExecutorSpec::Docker(docker) => &docker.argv,
        ExecutorSpec::Ecs(_) if function.spec.max_items_per_batch > 1 => {
            let message = "a task on ECS carries one item";
            let help = "set max_items_per_batch = 1";
            let problem = Problem::new(Code::Conflict, message, help);
            reading.refuse(function.origin.clone(), problem);
            return;
        }
        ExecutorSpec::Ecs(_)
        | ExecutorSpec::Handler(_)
        | ExecutorSpec::Lambda(_)
        | ExecutorSpec::InProcess => return,
    };
    let names_path = argv.iter().any(|argument| argument.contains("{path}"));
    if input.is_objects() && names_path && function.spec.max_items_per_batch > 1 {
        let message = "a call that carries many items has no one `{path}`";
        let help =
            "read the items from standard input, one JSON a line, or set max_items_per_batch = 1";
        reading.refuse(
            function.origin.clone(),
            Problem::new(Code::Conflict, message, help),
        );
    }
}

/// A worker deletes from the queue of its tasks' events what is none: nothing else may come into it. Queues are compared by
/// name, as each may be written as a URL.
pub(super) fn task_events(
    reading: &mut Reading<'_>,
    lane: &ReadLane,
    input: Option<&InputSpec>,
    job: Option<(&JobName, &LedgerUri)>,
) {
    let ExecutorSpec::Ecs(ecs) = &lane.spec.executor else {
        return;
    };
    let Some(tasks) = ecs.events_queue.as_deref().map(queue_name) else {
        return;
    };
    let objects = match input {
        Some(InputSpec::Events(events)) => Some(queue_name(&events.queue)),
        Some(_) | None => None,
    };
    let is_of_objects = |queue: &str| queue == tasks || format!("{queue}-dead-letters") == tasks;
    let message = if objects.is_some_and(is_of_objects) {
        "events of tasks and of objects would come into one queue"
    } else if job.is_some_and(|job| is_of_lane(job, tasks)) {
        "events of tasks and the job's own messages would come into one queue"
    } else {
        return;
    };
    let help = "name another queue in events_queue; `trommel provision --apply` makes it";
    let problem = Problem::new(Code::Conflict, message, help);
    reading.refuse(lane.origin.clone(), problem);
}

fn is_of_lane((job, ledger): (&JobName, &LedgerUri), queue: &str) -> bool {
    let LedgerUri::DynamoDb(table) = ledger else {
        return false;
    };
    let mut lanes = Lane::ALL.into_iter();
    lanes.any(|lane| format!("{table}-{job}-{lane}") == queue)
}

/// A queue's name, also where it is named by its URL.
fn queue_name(place: &str) -> &str {
    place.rsplit('/').next().unwrap_or(place)
}

/// What the job writes must not lie in what it reads, and with a ledger on AWS its parts need S3.
pub(super) fn written(
    reading: &mut Reading<'_>,
    input: Option<&InputSpec>,
    (ledger, ledger_origin): &Placed<LedgerUri>,
    written: [(&str, &Option<Placed<Location>>); 2],
) {
    if let Some(source) = input.and_then(read_from) {
        for (what, place) in written {
            let Some((location, origin)) = place else {
                continue;
            };
            if places::lies_in(location, &source) {
                refuse_endless(reading, origin.clone(), &format!("`{what}` lies"));
            }
        }
        if let LedgerUri::Sqlite(file) = ledger
            && places::lies_in(&Location::Path(file.clone()), &source)
        {
            refuse_endless(
                reading,
                ledger_origin.clone(),
                &format!("the ledger {} lies", file.display()),
            );
        }
    }
    let is_s3 = |place: &Option<Placed<Location>>| matches!(place, Some((Location::S3 { .. }, _)));
    let [(_, results), (_, scratch)] = written;
    match (ledger, scratch) {
        (LedgerUri::DynamoDb(_), Some((Location::Path(_), origin))) => {
            let message = "`scratch` must be in S3: every process of the job reads it";
            let problem = Problem::new(
                Code::Conflict,
                message,
                "write scratch = \"s3://BUCKET/PREFIX\"",
            );
            reading.refuse(origin.clone(), problem);
        }
        (LedgerUri::DynamoDb(_), None) if !is_s3(results) => {
            let message = "with its ledger in DynamoDB the job needs a place in S3 for its parts";
            let help = "add scratch = \"s3://BUCKET/PREFIX\", or let `results` be in S3";
            reading.refuse(
                ledger_origin.clone(),
                Problem::new(Code::Missing, message, help),
            );
        }
        (LedgerUri::Sqlite(_), _)
        | (LedgerUri::DynamoDb(_), Some((Location::S3 { .. }, _)) | None) => {}
    }
}

/// The tree that the job reads, if it reads one.
fn read_from(input: &InputSpec) -> Option<Location> {
    match input {
        InputSpec::Objects(source) => Some(source.clone()),
        InputSpec::Events(events) => Some(Location::S3 {
            bucket: events.bucket.clone()?,
            key: events.prefix.clone(),
        }),
        InputSpec::Jsonl(_)
        | InputSpec::Csv { .. }
        | InputSpec::Json(_)
        | InputSpec::Inline(_)
        | InputSpec::Range { .. } => None,
    }
}

fn refuse_endless(reading: &mut Reading<'_>, origin: Origin, subject: &str) {
    let message = format!("{subject} in the input: the run would read what it writes, without end");
    let help = "put it elsewhere, or read a subdirectory that holds nothing but the input";
    reading.refuse(origin, Problem::new(Code::Endless, message, help));
}

pub(super) fn queue_names(
    reading: &mut Reading<'_>,
    name: &JobName,
    (ledger, origin): &Placed<LedgerUri>,
) {
    let LedgerUri::DynamoDb(table) = ledger else {
        return;
    };
    let longest = format!("{table}-{name}-{}", Lane::Container);
    if longest.len() > QUEUE_NAME_CHARS_MAX {
        let message =
            format!("the queue {longest:?} would have more than {QUEUE_NAME_CHARS_MAX} characters");
        let help = "shorten the table's name or the job's: SQS allows no more";
        reading.refuse(origin.clone(), Problem::new(Code::BadPlace, message, help));
    }
}
