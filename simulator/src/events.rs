//! Event mode: a bucket that people write to while processes take in what it tells, and what must hold of it.
//!
//! The bucket's notifications come as S3's do: at least once, late, in no order, several in a message, in any of three
//! envelopes, with junk among them. What was written is known here, so that nothing may be lost or taken twice.

mod at_rest;
mod listing;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trommel::core::event::{Keys, store_key};
use trommel::core::id::RunId;
use trommel::core::item::Pin;
use trommel::core::job::{Dedupe, EventsSpec, Missing};
use trommel::core::mark::Sequencer;
use trommel::core::time::{Tick, Timestamp};

pub use at_rest::at_rest;

use crate::cluster::Cluster;
use crate::entropy::Stream;
use crate::exec::lock;
use crate::scenario::{Scenario, object};
use crate::simulation::Simulation;
use telling::Record;

/// The bucket's name.
pub const BUCKET: &str = "bucket";

/// What keys begin with; others are written too, and are no work.
const PREFIX: &str = "in/";

/// What keys end with, in turn: spellings differ in these.
const TAILS: [&str; 4] = ["", " +%.jpg", "/%41=\u{fc}", ""];

/// Nearly as long as a key may be: S3 takes 1,024 bytes.
const LONG_BYTES: usize = 1_010;

/// Sorts of messages that nobody can read.
const JUNK_SORTS: u64 = 5;

/// How a bucket is used. Chances are of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventMode {
    /// How long a window is, in seconds.
    pub window_seconds: u32,
    /// Sequencers are there and believed.
    pub sequencers: bool,
    /// All is written within so long, in milliseconds.
    pub spread_ms: u64,
    /// Objects that are written again.
    pub overwrites: u32,
    /// Objects that are removed.
    pub removals: u32,
    /// Objects of another prefix.
    pub others: u32,
    /// Messages that nobody can read.
    pub junk: u32,
    /// A notification comes twice, or three times.
    pub doubled: u32,
    /// A notification comes late.
    pub late: u32,
    /// With so many items pending, nothing is received.
    pub pending_max: u32,
    /// A notification never comes; at the end a reconcile finds what it told.
    #[serde(default)]
    pub lost: u32,
    /// Reconciles while all goes on.
    #[serde(default)]
    pub reconciles: u32,
    /// The bucket keeps versions.
    #[serde(default)]
    pub versions: bool,
}

impl EventMode {
    /// Drawn from a seed.
    pub fn generate(chance: &Stream) -> Self {
        let some = |most: u64| {
            if chance.chance(500_000) {
                chance.below(most) as u32
            } else {
                0
            }
        };
        Self {
            window_seconds: [10, 20, 20, 60][chance.below(4) as usize],
            sequencers: chance.chance(500_000),
            spread_ms: 1 + chance.below(45_000),
            overwrites: some(8),
            removals: some(4),
            others: some(3),
            junk: some(3),
            doubled: some(400_000),
            late: some(300_000),
            pending_max: if chance.chance(200_000) { 5 } else { 100_000 },
            lost: some(300_000),
            reconciles: some(4),
            versions: chance.chance(250_000),
        }
    }

    /// The job's input.
    pub fn spec(&self) -> EventsSpec {
        EventsSpec {
            queue: "ingest".to_owned(),
            bucket: Some(BUCKET.to_owned()),
            prefix: PREFIX.to_owned(),
            window: Duration::from_secs(u64::from(self.window_seconds.max(1))),
            dedupe: Dedupe::On,
            sequencer: Some(self.sequencer()),
            keys: Keys::Aws,
            missing: Missing::Fail,
            pending_max: u64::from(self.pending_max.max(1)),
        }
    }

    /// Whether sequencers are believed.
    pub fn sequencer(&self) -> Sequencer {
        if self.sequencers {
            Sequencer::Trusted
        } else {
            Sequencer::Ignored
        }
    }
}

/// What happens to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Put(u64),
    Remove(u64),
    PutOther(u64),
    Junk(u64),
}

/// A state that an object had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Written { pin: Pin, at: Timestamp },
    Removed,
}

#[derive(Default)]
struct Log {
    /// All states of each object, in order.
    states: BTreeMap<String, Vec<State>>,
    /// The states, by their eTags, that no notification tells of.
    untold: BTreeSet<Arc<str>>,
    /// Records that were sent, each as often as it was.
    sent: u64,
    junk: u64,
    done: bool,
}

/// The bucket.
#[derive(Clone)]
pub struct Bucket {
    cluster: Cluster,
    mode: EventMode,
    small: u64,
    /// Nothing goes wrong but what events do.
    is_calm: bool,
    log: Arc<Mutex<Log>>,
}

impl Bucket {
    /// Nothing written yet.
    pub fn new(cluster: &Cluster, scenario: &Scenario, mode: EventMode) -> Self {
        Self {
            cluster: cluster.clone(),
            mode,
            small: scenario.workload.small,
            is_calm: scenario.is_calm(),
            log: Arc::default(),
        }
    }

    /// From now on things happen to it, as the seed says.
    pub fn open(&self, sim: &Simulation, items: u64) {
        let chance = sim.seed().stream("bucket");
        let mut acts: Vec<(u64, Act)> = Vec::new();
        let spread = self.mode.spread_ms.max(1);
        for number in 0..items {
            acts.push((chance.below(spread), Act::Put(number)));
        }
        let some = |count: u32, act: fn(u64) -> Act| {
            let at = |_| {
                (
                    chance.below(spread + 2_000),
                    act(chance.below(items.max(1))),
                )
            };
            (0..count).map(at).collect::<Vec<_>>()
        };
        if items > 0 {
            acts.extend(some(self.mode.overwrites, Act::Put));
            acts.extend(some(self.mode.removals, Act::Remove));
        }
        acts.extend(some(self.mode.others, Act::PutOther));
        acts.extend(some(self.mode.junk, Act::Junk));
        acts.sort_unstable();
        self.reconciles(sim, &chance);
        let this = self.clone();
        self.cluster.service().spawn("bucket", async move {
            this.live(&chance, acts).await;
            lock(&this.log).done = true;
        });
    }

    /// Whether all has been written that will be.
    pub fn is_done(&self) -> bool {
        lock(&self.log).done
    }

    async fn live(&self, chance: &Stream, acts: Vec<(u64, Act)>) {
        let clock = self.cluster.service().runtime().clock;
        let mut told: Vec<Record> = Vec::new();
        let mut number = 0x10_0000;
        for (at_ms, act) in acts {
            // Some of the next happens in the same moment.
            if !chance.chance(150_000) {
                clock
                    .sleep_until(Tick::default() + Duration::from_millis(at_ms))
                    .await;
            }
            number += 1 + chance.below(16);
            if let Some(record) = self.act(act, number).await {
                told.push(record);
            }
            if !chance.chance(200_000) {
                self.tell(chance, &std::mem::take(&mut told)).await;
            }
        }
        self.tell(chance, &told).await;
    }

    /// Does it; answers what is to be told of it.
    async fn act(&self, act: Act, number: u64) -> Option<Record> {
        let store = &self.cluster.stores().input;
        match act {
            Act::Put(of) => {
                let bytes = if of < self.small { 10 } else { 1000 };
                Some(
                    self.put(key(PREFIX, of), bytes, number, "ObjectCreated:Put")
                        .await,
                )
            }
            Act::PutOther(of) => {
                let key = key("elsewhere/", of);
                Some(self.put(key, 10, number, "ObjectCreated:Copy").await)
            }
            Act::Remove(of) => {
                let key = key(PREFIX, of);
                let removed = store.delete(&store_key(BUCKET, key.as_bytes())).await;
                removed.expect("memory removes all");
                let states = &mut lock(&self.log).states;
                states.entry(key.clone()).or_default().push(State::Removed);
                let mut record = self.record("ObjectRemoved:Delete", key, number);
                if self.mode.versions {
                    // The marker is a version too.
                    record.name = "ObjectRemoved:DeleteMarkerCreated";
                    record.version = Some(format!("d{number}").into());
                }
                Some(record)
            }
            Act::Junk(of) => {
                lock(&self.log).junk += 1;
                self.deliver(junk(of), Duration::ZERO).await;
                None
            }
        }
    }

    async fn put(&self, key: String, bytes: usize, number: u64, name: &'static str) -> Record {
        let store = &self.cluster.stores().input;
        let stored_as = store_key(BUCKET, key.as_bytes());
        let stored = store.put(&stored_as, vec![0; bytes].into());
        let pin = stored.await.expect("memory takes all");
        let record = Record {
            bytes: Some(bytes),
            etag: Some(pin.etag.clone()),
            version: pin.version.clone(),
            ..self.record(name, key.clone(), number)
        };
        let at = record.at;
        let states = &mut lock(&self.log).states;
        states
            .entry(key)
            .or_default()
            .push(State::Written { pin, at });
        record
    }

    fn record(&self, name: &'static str, key: String, number: u64) -> Record {
        // The shorter of two is to be padded on its right.
        let sequencer = || format!("{number:012X}").trim_end_matches('0').to_owned();
        Record {
            name,
            key,
            at: self.cluster.service().runtime().clock.now(),
            bytes: None,
            etag: None,
            version: None,
            sequencer: self.mode.sequencers.then(sequencer),
        }
    }
}

/// What nobody can read; the last is as long as notifications may be.
fn junk(of: u64) -> String {
    let short = ["[]", "{}", "not JSON", "{\"Records\":[{\"s3\":5}]}"];
    let number = (of % JUNK_SORTS) as usize;
    short
        .get(number)
        .map_or_else(|| "?".repeat(64 * 1024), |text| (*text).to_owned())
}

/// The key of an object's number.
fn key(prefix: &str, of: u64) -> String {
    let tail = TAILS[(of % TAILS.len() as u64) as usize];
    let mut key = format!("{prefix}{}{tail}", object(of));
    if of % 16 == 15 {
        key.push_str(&"~".repeat(LONG_BYTES - key.len()));
    }
    key
}

/// The runs of windows that are not done with.
pub async fn open_runs(cluster: &Cluster) -> BTreeSet<RunId> {
    let windows = cluster.ledger().open_windows(&cluster.job().name).await;
    let windows = windows.unwrap_or_default();
    windows.into_iter().map(|open| open.row.id).collect()
}
