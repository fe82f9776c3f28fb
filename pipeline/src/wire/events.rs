//! The bodies of notifications: direct from S3, wrapped by SNS, in EventBridge's shape, or passed through raw.
//!
//! What is not understood is said so, never guessed; what S3 adds in later versions of its format is passed over.
//! ("Event message structure" of S3; "Amazon S3 event notifications to EventBridge"; "SNS raw message delivery".)

use std::sync::Arc;

use serde::Deserialize;

use crate::core::event::{EventKind, Keys, ObjectEvent};
use crate::core::form;
use crate::core::time::Timestamp;

/// SNS wraps once, and EventBridge may send through SNS: more layers are no notification.
const LAYERS_MAX: u32 = 3;

/// The name of what a listing showed. S3 sends none such; `reconcile` does.
const LISTED: &str = "ObjectListed:Reconcile";

/// What a message holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Events, each with its own fate. Those of kinds that concern no content (tags, lifecycle) are left out.
    Events(Vec<ObjectEvent>),
    /// S3 tried the configuration.
    Test,
}

/// Reads a message's body.
///
/// # Errors
/// Why it is no notification, in words.
pub fn decode(body: &str, keys: Keys) -> Result<Notification, String> {
    unwrap(body, keys, LAYERS_MAX)
}

/// A direct notification of an event, as S3 would write it; `keys` says how its readers take keys to be spelled.
pub fn encode(event: &ObjectEvent, keys: Keys) -> String {
    let key = match keys {
        Keys::Aws | Keys::Form => form::encoded(&event.key),
        Keys::Plain => String::from_utf8_lossy(&event.key).into_owned(),
    };
    let name = match event.kind {
        EventKind::Created => "ObjectCreated:Put",
        EventKind::Restored => "ObjectRestore:Completed",
        EventKind::Removed => "ObjectRemoved:Delete",
        EventKind::Listed => LISTED,
    };
    let mut object = serde_json::json!({ "key": key });
    let etag = event.etag.as_deref().map(|etag| etag.trim_matches('"'));
    for (field, value) in [
        ("size", event.size_bytes.map(Into::into)),
        ("eTag", etag.map(Into::into)),
        ("versionId", event.version.as_deref().map(Into::into)),
        ("sequencer", event.sequencer.as_deref().map(Into::into)),
    ] {
        if let Some(value) = value {
            object[field] = value;
        }
    }
    serde_json::json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": event.at.rfc3339(),
        "eventName": name,
        "s3": { "s3SchemaVersion": "1.0", "bucket": { "name": &*event.bucket }, "object": object },
    }]})
    .to_string()
}

fn unwrap(body: &str, keys: Keys, layers: u32) -> Result<Notification, String> {
    let Some(layers) = layers.checked_sub(1) else {
        return Err("wrapped too often".to_owned());
    };
    let outer: Outer =
        serde_json::from_str(body).map_err(|error| format!("not a notification: {error}"))?;
    match outer {
        Outer {
            records: Some(records),
            ..
        } => direct(records, keys),
        Outer {
            detail_type: Some(kind),
            detail: Some(detail),
            time,
            ..
        } => bridge(&kind, detail, time.as_deref(), keys).map(Notification::Events),
        Outer {
            event: Some(event), ..
        } if event == "s3:TestEvent" => Ok(Notification::Test),
        Outer {
            message: Some(message),
            ..
        } => unwrap(&message, keys, layers),
        Outer { .. } => Err("it has no Records, no detail and no Message".to_owned()),
    }
}

#[derive(Deserialize)]
struct Outer {
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    detail: Option<Detail>,
    time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    event_time: String,
    s3: S3,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: RecordObject,
}

#[derive(Deserialize)]
struct Bucket {
    name: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordObject {
    key: String,
    size: Option<u64>,
    e_tag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct Detail {
    bucket: Bucket,
    object: DetailObject,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DetailObject {
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    version_id: Option<String>,
    sequencer: Option<Arc<str>>,
}

fn direct(records: Vec<Record>, keys: Keys) -> Result<Notification, String> {
    let mut events = Vec::new();
    for record in records {
        let Some(kind) = record_kind(&record.event_name) else {
            continue;
        };
        let object = record.s3.object;
        let key = match keys {
            Keys::Aws | Keys::Form => form::decoded(&object.key),
            Keys::Plain => object.key.into_bytes(),
        };
        events.push(event(
            record.s3.bucket.name,
            (key, kind),
            (object.size, object.e_tag, object.version_id),
            (object.sequencer, timestamp(&record.event_time)?),
        )?);
    }
    Ok(Notification::Events(events))
}

/// The kind of a record's event; none: it concerns no content. Senders differ in the prefix `s3:`.
fn record_kind(name: &str) -> Option<EventKind> {
    let name = name.strip_prefix("s3:").unwrap_or(name);
    match name.split_once(':')?.0 {
        "ObjectCreated" => Some(EventKind::Created),
        // `Post` is the wish to restore, `Completed` that it can be read.
        "ObjectRestore" if name.ends_with(":Completed") => Some(EventKind::Restored),
        "ObjectRemoved" => Some(EventKind::Removed),
        _ if name == LISTED => Some(EventKind::Listed),
        _ => None,
    }
}

fn bridge(
    kind: &str,
    detail: Detail,
    time: Option<&str>,
    keys: Keys,
) -> Result<Vec<ObjectEvent>, String> {
    let kind = match kind {
        "Object Created" => EventKind::Created,
        "Object Restore Completed" => EventKind::Restored,
        "Object Deleted" => EventKind::Removed,
        _ => return Ok(Vec::new()),
    };
    let object = detail.object;
    let key = match keys {
        Keys::Form => form::decoded(&object.key),
        Keys::Aws | Keys::Plain => object.key.into_bytes(),
    };
    let time = time.ok_or("it has no time")?;
    let event = event(
        detail.bucket.name,
        (key, kind),
        (object.size, object.etag, object.version_id),
        (object.sequencer, timestamp(time)?),
    )?;
    Ok(vec![event])
}

fn event(
    bucket: Arc<str>,
    (key, kind): (Vec<u8>, EventKind),
    (size_bytes, etag, version): (Option<u64>, Option<String>, Option<String>),
    (sequencer, at): (Option<Arc<str>>, Timestamp),
) -> Result<ObjectEvent, String> {
    if key.is_empty() || bucket.is_empty() {
        return Err("it names no object".to_owned());
    }
    Ok(ObjectEvent {
        bucket,
        key: key.into(),
        kind,
        size_bytes,
        etag: etag
            .filter(|etag| !etag.is_empty())
            .map(|etag| quoted(&etag)),
        // "null" is the version of objects from before versions were turned on.
        version: version
            .filter(|version| !version.is_empty() && version != "null")
            .map(Into::into),
        sequencer: sequencer.filter(|text| !text.is_empty()),
        at,
    })
}

/// Events leave out the quotes that HTTP has.
fn quoted(etag: &str) -> Arc<str> {
    format!("\"{}\"", etag.trim_matches('"')).into()
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Timestamp(time.as_millisecond())),
        Err(error) => Err(format!("its time {text:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: &str = r#"{"Records":[{"eventVersion":"2.3","eventSource":"aws:s3","awsRegion":"eu-west-1",
        "eventTime":"2026-11-25T19:00:00.250Z","eventName":"ObjectCreated:Put","s3":{"s3SchemaVersion":"1.0",
        "bucket":{"name":"photos","arn":"arn:aws:s3:::photos"},"object":{"key":"in/a+b%2Bc%25.jpg","size":12,
        "eTag":"abc","versionId":"v1","sequencer":"0055AED6DCD90281E5"}}}]}"#;

    fn only(body: &str, keys: Keys) -> ObjectEvent {
        match decode(body, keys) {
            Ok(Notification::Events(mut events)) if events.len() == 1 => events.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_direct_event_is_read_with_its_key_decoded() {
        let event = only(DIRECT, Keys::Aws);
        assert_eq!(&*event.key, b"in/a b+c%.jpg");
        assert_eq!(
            (event.size_bytes, event.etag.as_deref()),
            (Some(12), Some("\"abc\""))
        );
        assert_eq!(event.version.as_deref(), Some("v1"));
        assert_eq!(event.sequencer.as_deref(), Some("0055AED6DCD90281E5"));
        assert_eq!(event.at, Timestamp(1_795_633_200_250));
        assert_eq!(&*only(DIRECT, Keys::Plain).key, b"in/a+b%2Bc%25.jpg");
    }

    #[test]
    fn what_is_written_reads_back_in_each_spelling() {
        for keys in [Keys::Aws, Keys::Form, Keys::Plain] {
            let mut event = only(DIRECT, Keys::Aws);
            for kind in EventKind::ALL {
                event.kind = kind;
                assert_eq!(only(&encode(&event, keys), keys).kind, kind);
            }
            event.kind = EventKind::Created;
            assert_eq!(only(&encode(&event, keys), keys), event);
            event.version = None;
            event.sequencer = None;
            event.key = "in/ä +%.jpg".as_bytes().into();
            assert_eq!(only(&encode(&event, keys), keys), event);
        }
    }

    #[test]
    fn sns_wraps_a_direct_event() {
        let wrapped =
            serde_json::json!({"Type": "Notification", "TopicArn": "arn", "Message": DIRECT})
                .to_string();
        assert_eq!(only(&wrapped, Keys::Aws), only(DIRECT, Keys::Aws));
    }

    #[test]
    fn an_event_of_the_bridge_has_a_plain_key() {
        let body = r#"{"version":"0","id":"x","detail-type":"Object Created","source":"aws.s3",
            "time":"2026-11-25T19:00:00Z","detail":{"version":"0","bucket":{"name":"photos"},
            "object":{"key":"in/a+b%2B.jpg","size":5,"etag":"abc","version-id":"v1","sequencer":"00"},
            "reason":"PutObject"}}"#;
        let event = only(body, Keys::Aws);
        assert_eq!(&*event.key, b"in/a+b%2B.jpg");
        assert_eq!(event.kind, EventKind::Created);
        assert_eq!(event.version.as_deref(), Some("v1"));
        assert_eq!(&*only(body, Keys::Form).key, b"in/a b+.jpg");
    }

    #[test]
    fn the_test_event_is_known_also_through_sns() {
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-25T19:00:00Z","Bucket":"b"}"#;
        assert_eq!(decode(test, Keys::Aws), Ok(Notification::Test));
        let wrapped = serde_json::json!({"Message": test}).to_string();
        assert_eq!(decode(&wrapped, Keys::Aws), Ok(Notification::Test));
    }

    #[test]
    fn all_records_are_read_and_those_of_no_content_left_out() {
        let name = |name: &str| DIRECT.replace("ObjectCreated:Put", name);
        for (event, kind) in [
            ("s3:ObjectCreated:Copy", Some(EventKind::Created)),
            (
                "ObjectRemoved:DeleteMarkerCreated",
                Some(EventKind::Removed),
            ),
            ("ObjectRestore:Completed", Some(EventKind::Restored)),
            ("ObjectRestore:Post", None),
            ("ObjectTagging:Put", None),
        ] {
            let Ok(Notification::Events(events)) = decode(&name(event), Keys::Aws) else {
                panic!("{event} is a notification")
            };
            assert_eq!(events.first().map(|event| event.kind), kind, "{event}");
        }
    }

    #[test]
    fn junk_is_refused_with_a_reason_and_nothing_is_unwrapped_for_ever() {
        for body in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"Records":[{}]}"#,
            r#"{"Records":5}"#,
        ] {
            assert!(decode(body, Keys::Aws).is_err(), "{body}");
        }
        let mut deep = DIRECT.to_owned();
        for _ in 0..5 {
            deep = serde_json::json!({"Message": deep}).to_string();
        }
        assert_eq!(
            decode(&deep, Keys::Aws),
            Err("wrapped too often".to_owned())
        );
    }
}
