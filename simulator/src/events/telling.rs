//! How a bucket tells what happened: at least once, late, in no order, in any of three envelopes, or never.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trommel::core::time::Timestamp;
use trommel::ports::queue::Outgoing;

use super::{BUCKET, Bucket};
use crate::entropy::Stream;
use crate::exec::lock;

/// What is to be told of one act.
pub(super) struct Record {
    pub(super) name: &'static str,
    pub(super) key: String,
    pub(super) at: Timestamp,
    pub(super) bytes: Option<usize>,
    pub(super) etag: Option<Arc<str>>,
    pub(super) version: Option<Arc<str>>,
    pub(super) sequencer: Option<String>,
}

impl Record {
    /// What all envelopes say, with the names that direct events have for it.
    fn object(&self, key: &str, [size, etag, version]: [&str; 3]) -> Value {
        let mut object = json!({ "key": key });
        if let Some(bytes) = self.bytes {
            object[size] = json!(bytes);
        }
        if let Some(of) = &self.etag {
            object[etag] = json!(of.trim_matches('"'));
        }
        if let Some(of) = &self.version {
            object[version] = json!(&**of);
        }
        if let Some(of) = &self.sequencer {
            object["sequencer"] = json!(of);
        }
        object
    }

    fn direct(&self) -> Value {
        json!({
            "eventVersion": "2.3",
            "eventTime": self.at.rfc3339(),
            "eventName": self.name,
            "s3": {
                "bucket": { "name": BUCKET },
                "object": self.object(&spelled(&self.key), ["size", "eTag", "versionId"]),
            },
        })
    }

    /// The same event in EventBridge's shape, where keys are as they are.
    fn bridged(&self) -> Value {
        let kind = if self.name.starts_with("ObjectCreated") {
            "Object Created"
        } else {
            "Object Deleted"
        };
        json!({
            "source": "aws.s3",
            "detail-type": kind,
            "time": self.at.rfc3339(),
            "detail": {
                "bucket": { "name": BUCKET },
                "object": self.object(&self.key, ["size", "etag", "version-id"]),
            },
        })
    }
}

/// As in forms ("Event message structure", key).
fn spelled(key: &str) -> String {
    let mut spelled = String::new();
    for byte in key.bytes() {
        match byte {
            b' ' => spelled.push('+'),
            b'/' | b'-' | b'.' => spelled.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => spelled.push(char::from(byte)),
            _ => write!(spelled, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    spelled
}

impl Bucket {
    /// Sends what is to be told, as S3 does.
    pub(super) async fn tell(&self, chance: &Stream, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        if chance.chance(self.mode.lost) {
            let states = records.iter().filter_map(|record| record.etag.clone());
            lock(&self.log).untold.extend(states);
            return;
        }
        let direct: Vec<Value> = records.iter().map(Record::direct).collect();
        let direct = json!({ "Records": direct }).to_string();
        let body = match chance.below(8) {
            0 => json!({ "Type": "Notification", "Message": direct }).to_string(),
            1 if records.len() == 1 => records[0].bridged().to_string(),
            _ => direct,
        };
        let times = 1 + u64::from(chance.chance(self.mode.doubled)) * (1 + chance.below(2));
        lock(&self.log).sent += times * records.len() as u64;
        let late = self.cluster.injector().lengths().late_max();
        for _ in 0..times {
            let longest = if chance.chance(self.mode.late) {
                late
            } else {
                Duration::from_millis(800)
            };
            let delay = Duration::from_millis(chance.below(longest.as_millis() as u64 + 1));
            self.deliver(body.clone(), delay).await;
        }
    }

    pub(super) async fn deliver(&self, body: String, delay: Duration) {
        let sent = self
            .cluster
            .ingest()
            .deliver(Outgoing { body, delay })
            .await;
        sent.expect("the queue takes all");
    }
}
