//! Event mode: a bucket that people write to while processes take in what it tells, and what must hold of it.
//!
//! The bucket's notifications come as S3's do: at least once, late, in no order, several in a message, in any of three
//! envelopes, with junk among them. What was written is known here, so that nothing may be lost or taken twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trommel::core::event::{Keys, store_key};
use trommel::core::id::RunId;
use trommel::core::item::Input;
use trommel::core::job::{Dedupe, EventsSpec, Missing};
use trommel::core::mark::Sequencer;
use trommel::core::outcome::Outcome;
use trommel::core::page::Mark;
use trommel::core::run::RunStatus;
use trommel::core::time::Tick;
use trommel::ports::queue::Outgoing;
use trommel::shell::report::{RunReader, audit};

use crate::cluster::Cluster;
use crate::entropy::Stream;
use crate::exec::lock;
use crate::halt::Halt;
use crate::oracle::Oracle;
use crate::probe::Probe;
use crate::scenario::{Scenario, object};
use crate::simulation::Simulation;

/// The bucket's name.
pub const BUCKET: &str = "bucket";

/// What keys begin with; others are written too, and are no work.
const PREFIX: &str = "in/";

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
    Written { etag: String },
    Removed,
}

#[derive(Default)]
struct Log {
    /// All states of each object, in order.
    states: BTreeMap<String, Vec<State>>,
    junk: u64,
    done: bool,
}

/// The bucket.
#[derive(Clone)]
pub struct Bucket {
    cluster: Cluster,
    mode: EventMode,
    small: u64,
    log: Arc<Mutex<Log>>,
}

impl Bucket {
    /// Nothing written yet.
    pub fn new(cluster: &Cluster, scenario: &Scenario, mode: EventMode) -> Self {
        Self {
            cluster: cluster.clone(),
            mode,
            small: scenario.workload.small,
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
        let mut told: Vec<Value> = Vec::new();
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
    async fn act(&self, act: Act, number: u64) -> Option<Value> {
        let store = &self.cluster.stores().input;
        match act {
            Act::Put(of) => {
                let bytes = if of < self.small { 10 } else { 1000 };
                let key = format!("{PREFIX}{}", object(of));
                Some(self.put(key, bytes, number, "ObjectCreated:Put").await)
            }
            Act::PutOther(of) => {
                let key = format!("elsewhere/{}", object(of));
                Some(self.put(key, 10, number, "ObjectCreated:Copy").await)
            }
            Act::Remove(of) => {
                let key = format!("{PREFIX}{}", object(of));
                let removed = store.delete(&store_key(BUCKET, key.as_bytes())).await;
                removed.expect("memory removes all");
                let states = &mut lock(&self.log).states;
                states.entry(key.clone()).or_default().push(State::Removed);
                Some(self.record("ObjectRemoved:Delete", &key, (None, None), number))
            }
            Act::Junk(of) => {
                let junk =
                    ["[]", "{}", "not JSON", "{\"Records\":[{\"s3\":5}]}"][(of % 4) as usize];
                lock(&self.log).junk += 1;
                self.deliver(junk.to_owned(), Duration::ZERO).await;
                None
            }
        }
    }

    async fn put(&self, key: String, bytes: usize, number: u64, what: &str) -> Value {
        let store = &self.cluster.stores().input;
        let stored_as = store_key(BUCKET, key.as_bytes());
        let stored = store.put(&stored_as, vec![0; bytes].into());
        let etag = stored.await.expect("memory takes all").etag.to_string();
        let record = self.record(what, &key, (Some(bytes), Some(&etag)), number);
        let states = &mut lock(&self.log).states;
        states.entry(key).or_default().push(State::Written { etag });
        record
    }

    fn record(
        &self,
        what: &str,
        key: &str,
        (size, etag): (Option<usize>, Option<&str>),
        number: u64,
    ) -> Value {
        let at = self.cluster.service().runtime().clock.now();
        let mut object = json!({ "key": key });
        if let (Some(size), Some(etag)) = (size, etag) {
            object["size"] = json!(size);
            object["eTag"] = json!(etag.trim_matches('"'));
        }
        if self.mode.sequencers {
            // The shorter of two is to be padded on its right.
            object["sequencer"] = json!(format!("{number:012X}").trim_end_matches('0'));
        }
        json!({
            "eventVersion": "2.3",
            "eventTime": at.rfc3339(),
            "eventName": what,
            "s3": { "bucket": { "name": BUCKET }, "object": object },
        })
    }

    /// Sends what is to be told, as S3 does.
    async fn tell(&self, chance: &Stream, records: &[Value]) {
        if records.is_empty() {
            return;
        }
        let direct = json!({ "Records": records }).to_string();
        let body = match chance.below(8) {
            0 => json!({ "Type": "Notification", "Message": direct }).to_string(),
            1 if records.len() == 1 => bridged(&records[0]).to_string(),
            _ => direct,
        };
        let times = 1 + u64::from(chance.chance(self.mode.doubled)) * (1 + chance.below(2));
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

    async fn deliver(&self, body: String, delay: Duration) {
        let sent = self
            .cluster
            .ingest()
            .deliver(Outgoing { body, delay })
            .await;
        sent.expect("the queue takes all");
    }
}

/// The same event in EventBridge's shape.
fn bridged(record: &Value) -> Value {
    let object = &record["s3"]["object"];
    let name = record["eventName"].as_str().unwrap_or_default();
    let kind = if name.starts_with("ObjectCreated") {
        "Object Created"
    } else {
        "Object Deleted"
    };
    let mut detail = json!({ "key": object["key"] });
    for (theirs, ours) in [
        ("size", "size"),
        ("eTag", "etag"),
        ("sequencer", "sequencer"),
    ] {
        if !object[theirs].is_null() {
            detail[ours] = object[theirs].clone();
        }
    }
    json!({
        "source": "aws.s3",
        "detail-type": kind,
        "time": record["eventTime"],
        "detail": { "bucket": { "name": BUCKET }, "object": detail },
    })
}

/// An item as some window has it.
struct Taken {
    run: RunId,
    status: RunStatus,
    mark: Mark,
}

/// What must hold once all is quiet: each event that was news is one item, and nothing else is.
pub fn at_rest(oracle: &mut Oracle<'_>, sim: &Simulation, bucket: &Bucket) -> Result<(), Halt> {
    let cluster = &bucket.cluster;
    let looked = sim.block_on(async { look(cluster).await })?;
    let Looked {
        items,
        problems,
        quarantined,
        windows,
    } = match looked {
        Ok(looked) => looked,
        Err(problem) => {
            oracle.note("S3", Some(problem));
            return Ok(());
        }
    };
    if windows > 1 {
        sim.sometimes(Probe::Windows);
    }
    for problem in problems {
        oracle.note("S3", Some(problem));
    }
    let log = lock(&bucket.log);
    oracle.counted("S3", windows);
    for ((key, etag), taken) in &items {
        let known = log.states.get(key).is_some_and(|states| {
            let is = |state: &State| matches!(state, State::Written { etag: written } if written == etag);
            states.iter().any(is)
        });
        let runs: Vec<&RunId> = taken.iter().map(|taken| &taken.run).collect();
        let broken = if !known || !key.starts_with(PREFIX) {
            Some(format!(
                "{key} in the state {etag} is an item, and nobody wrote it so"
            ))
        } else if taken.len() > 1 {
            Some(format!(
                "{key} in the state {etag} was taken {} times, in {runs:?}",
                taken.len()
            ))
        } else {
            None
        };
        oracle.note("S12", broken);
    }
    for (key, states) in log.states.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        if states.len() > 1 {
            sim.sometimes(Probe::Overwritten);
        }
        let Some(State::Written { etag }) = states.last() else {
            sim.sometimes(Probe::Deleted);
            continue;
        };
        let taken = items.get(&(key.clone(), etag.clone()));
        let broken = match taken.and_then(|taken| taken.first()) {
            None => Some(format!(
                "{key} in its last state {etag} is in no window, and no message tells of it"
            )),
            Some(taken) => match taken.mark.outcome() {
                Some(Outcome::Skipped) => {
                    Some(format!("{key} in its last state {etag} was skipped"))
                }
                None if taken.status == RunStatus::Succeeded => Some(format!(
                    "{key} is pending in {}, which succeeded",
                    taken.run
                )),
                Some(_) | None => None,
            },
        };
        oracle.note("S5", broken);
    }
    let broken = (quarantined != log.junk).then(|| {
        format!(
            "{} messages could not be read, {quarantined} are in quarantine",
            log.junk
        )
    });
    oracle.note("S5", broken);
    Ok(())
}

struct Looked {
    items: BTreeMap<(String, String), Vec<Taken>>,
    problems: Vec<String>,
    quarantined: u64,
    windows: u64,
}

async fn look(cluster: &Cluster) -> Result<Looked, String> {
    let ledger = cluster.ledger();
    let mut looked = Looked {
        items: BTreeMap::new(),
        problems: Vec::new(),
        quarantined: 0,
        windows: 0,
    };
    let words = |error: &dyn std::fmt::Display| error.to_string();
    for summary in ledger.runs().await.map_err(|error| words(&error))? {
        looked.windows += 1;
        let row = ledger
            .run(&summary.id)
            .await
            .map_err(|error| words(&error))?;
        let status = row.state.status;
        let (_, met) = ledger
            .total_and_met(&row)
            .await
            .map_err(|error| words(&error))?;
        let kept = ledger
            .quarantined(&row.job, usize::MAX)
            .await
            .map_err(|error| words(&error))?;
        let counted = met.unwrap_or_default().quarantined;
        let kept = kept.iter().filter(|(run, _)| *run == row.id).count();
        if counted != kept as u64 {
            looked.problems.push(format!(
                "{}: {counted} quarantined by count, {kept} are there",
                row.id
            ));
        }
        looked.quarantined += counted;
        let audit = audit(&ledger, &row.id)
            .await
            .map_err(|error| words(&error))?;
        for problem in audit.problems {
            looked.problems.push(format!("{}: {problem}", row.id));
        }
        let reader = RunReader {
            ledger: ledger.clone(),
            job: cluster.job().clone(),
            stores: cluster.stores_of(&row.id),
            row,
        };
        let mut next = 0;
        loop {
            let parts = reader.parts(next).await.map_err(|error| words(&error))?;
            let Some(last) = parts.last() else { break };
            next = last.number + 1;
            for part in parts {
                let view = reader.part(part).await.map_err(|error| words(&error))?;
                if let Err(error) = &view.inputs {
                    looked
                        .problems
                        .push(format!("{}: a part cannot be read: {error}", reader.row.id));
                }
                for item in reader.items(&view).await.map_err(|error| words(&error))? {
                    let Some(Input::Object(object)) = item.input.as_deref() else {
                        continue;
                    };
                    let name = String::from_utf8_lossy(&object.key).into_owned();
                    let taken = Taken {
                        run: reader.row.id.clone(),
                        status,
                        mark: item.mark,
                    };
                    let state = (name, object.pin.etag.to_string());
                    looked.items.entry(state).or_default().push(taken);
                }
            }
        }
    }
    Ok(looked)
}

/// The runs of windows that are not done with.
pub async fn open_runs(cluster: &Cluster) -> BTreeSet<RunId> {
    let windows = cluster.ledger().open_windows(&cluster.job().name).await;
    let windows = windows.unwrap_or_default();
    windows.into_iter().map(|open| open.row.id).collect()
}
