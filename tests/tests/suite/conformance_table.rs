//! The table's rules, held to what DynamoDB emulators answer.
//!
//! The simulated table is the rules themselves: it needs no test of its own here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use trommel::adapters::aws::{Blueprint, DynamoTable};
use trommel::adapters::tokio_runtime;
use trommel::ports::table::Change;
use trommel::ports::{Clock, Condition, Consistency, Key, Query, Row, Table, Update, Value, Write};
use trommel_simulator::rules::{Request, TableWorlds};

use crate::conformance::{cases, play, runtime, say, stage};
use crate::emulator_arms::fresh;

/// Repeated transactions of one case: each doubles the histories that may fit.
const REPEATS_MAX: usize = 5;

/// Where rules and every emulator differ, so that it is not asked for; with the reason it is borne.
const WAIVERS: [(&str, &str); 2] = [
    (
        "an update of nothing in a transaction",
        "DynamoDB takes no Update without an expression there, and no transaction of the ledger holds one",
    ),
    (
        "a sum beyond 64 bits",
        "DynamoDB writes it, and the adapter refuses to read it; the ledger's sums count items and calls",
    ),
];

/// Sort keys, in the order of their bytes.
const SORT_KEYS: [&str; 4] = ["a", "b#1", "b#2", "é"];

/// One call.
#[derive(Clone, Debug)]
enum Step {
    Get(Key),
    Query(Query),
    Write(Write),
    /// All writes or none; its token is its own.
    Transact(Vec<Write>),
    /// The transaction so many before the latest once more, with its token.
    Again(usize),
}

/// What calls are chosen by.
#[derive(Clone, Debug, Default)]
struct Plan {
    transactions: usize,
    repeats: usize,
}

fn key() -> impl Strategy<Value = Key> {
    let sk = prop::sample::select(&SORT_KEYS[..]);
    (0..2_u8, sk).prop_map(|(partition, sk)| Key::new(format!("p{partition}"), sk))
}

fn number() -> impl Strategy<Value = i64> {
    // No sum of a case goes past the ends.
    let near = 1_000;
    prop_oneof![8 => -2..4_i64, 1 => Just(i64::MAX - near), 1 => Just(i64::MIN + near)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("x".to_owned()),
        Just("ü 漢".to_owned())
    ]
}

/// An attribute: `n` and `m` are numbers, `t` is text, as the ledger never mixes them.
fn attribute() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        number().prop_map(|n| ("n", Value::Num(n))),
        number().prop_map(|n| ("m", Value::Num(n))),
        text().prop_map(|text| ("t", Value::from(text))),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let name = || prop::sample::select(&["n", "m", "t"][..]);
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        attribute().prop_map(|(name, value)| Condition::Equals(name.into(), value)),
        name().prop_map(|name| Condition::Missing(name.into())),
        (name(), number()).prop_map(|(name, most)| Condition::AtMost(name.into(), most)),
        (name(), number()).prop_map(|(name, least)| Condition::AtLeast(name.into(), least)),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    let numeric = prop::sample::select(&["n", "m"][..]);
    prop_oneof![
        attribute().prop_map(|(name, value)| Update::Set(name.into(), value)),
        (numeric, -2..4_i64).prop_map(|(name, by)| Update::Add(name.into(), by)),
        attribute().prop_map(|(name, _)| Update::Remove(name.into())),
    ]
}

fn named(update: &Update) -> String {
    match update {
        Update::Set(name, _) | Update::Add(name, _) | Update::Remove(name) => name.to_string(),
    }
}

fn change() -> impl Strategy<Value = Change> {
    let row = prop::collection::vec(attribute(), 0..3).prop_map(|attributes| {
        let named = attributes.into_iter();
        named.fold(Row::new(), |row, (name, value)| row.with(name, value))
    });
    let updates = prop::collection::vec(update(), 0..4).prop_map(|mut updates| {
        // Each attribute is named at most once.
        updates.sort_by_key(named);
        updates.dedup_by_key(|update| named(update));
        Change::Update(updates)
    });
    prop_oneof![
        2 => row.prop_map(Change::Put),
        4 => updates,
        1 => Just(Change::Delete),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let when = prop_oneof![
        3 => Just(Vec::new()),
        4 => prop::collection::vec(condition(), 1..3),
    ];
    (key(), when, change()).prop_map(|(key, when, change)| Write { key, when, change })
}

fn transaction() -> impl Strategy<Value = Vec<Write>> {
    let checked = (key(), condition()).prop_map(|(key, condition)| Write {
        key,
        when: vec![condition],
        change: Change::Check,
    });
    let says_something = |write: &Write| match &write.change {
        Change::Update(updates) => !updates.is_empty(),
        Change::Put(_) | Change::Delete | Change::Check => true,
    };
    let written = write().prop_filter("a waiver", says_something);
    let one = prop_oneof![5 => written, 1 => checked];
    prop::collection::vec(one, 1..4).prop_map(|mut writes| {
        // No row stands twice in a transaction.
        writes.sort_by(|a, b| a.key.cmp(&b.key));
        writes.dedup_by(|a, b| a.key == b.key);
        writes
    })
}

fn query() -> impl Strategy<Value = Query> {
    let place = || 0..SORT_KEYS.len();
    let after = prop::option::of(place());
    (0..2_u8, place(), place(), after, 1..4_usize).prop_map(
        |(partition, one, other, after, limit)| {
            let of = |place: usize| SORT_KEYS[place].to_owned();
            Query {
                pk: format!("p{partition}"),
                from: of(one.min(other)),
                to: of(one.max(other)),
                after: after.map(of),
                limit,
                consistency: Consistency::Strong,
            }
        },
    )
}

impl ReferenceStateMachine for Plan {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        prop_oneof![
            2 => key().prop_map(Step::Get),
            2 => query().prop_map(Step::Query),
            5 => write().prop_map(Step::Write),
            5 => transaction().prop_map(Step::Transact),
            2 => (0..3_usize).prop_map(Step::Again),
        ]
        .boxed()
    }

    fn preconditions(plan: &Self, step: &Step) -> bool {
        match step {
            Step::Again(_) => plan.transactions > 0 && plan.repeats < REPEATS_MAX,
            Step::Get(_) | Step::Query(_) | Step::Write(_) | Step::Transact(_) => true,
        }
    }

    fn apply(mut plan: Self, step: &Step) -> Self {
        match step {
            Step::Transact(_) => plan.transactions += 1,
            Step::Again(_) => plan.repeats += 1,
            Step::Get(_) | Step::Query(_) | Step::Write(_) => {}
        }
        plan
    }
}

/// A table under test, beside the histories that fit what it did. Cases share it, each with partitions of its
/// own.
struct Case {
    table: Arc<dyn Table>,
    clock: Arc<dyn Clock>,
    worlds: TableWorlds,
    /// Put before all its partition keys and tokens.
    name: String,
    transactions: Vec<Request>,
}

/// Calls by what they came to, and repeated transactions by what was made of them.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    read: AtomicU64,
    repeated: AtomicU64,
}

static COUNTS: Counts = Counts {
    done: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    read: AtomicU64::new(0),
    repeated: AtomicU64::new(0),
};

impl Case {
    fn own(&self, write: Write) -> Write {
        Write {
            key: self.own_key(write.key),
            ..write
        }
    }

    fn own_key(&self, key: Key) -> Key {
        Key::new(format!("{}-{}", self.name, key.pk), key.sk)
    }

    async fn change(&mut self, request: Request) {
        let answer = match request.clone() {
            Request::Write(write) => self.table.write(write).await,
            Request::Transact { token, writes } => {
                self.table.transact(&token, writes).await.map(|()| None)
            }
        };
        let count = match &answer {
            Ok(_) => &COUNTS.done,
            Err(_) => &COUNTS.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let fits = self.worlds.saw_change(&request, &answer, self.clock.tick());
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Get(key) => self.get(self.own_key(key)).await,
            Step::Query(query) => {
                let pk = format!("{}-{}", self.name, query.pk);
                self.query(Query { pk, ..query }).await;
            }
            Step::Write(write) => self.change(Request::Write(self.own(write))).await,
            Step::Transact(writes) => {
                let number = self.transactions.len();
                let request = Request::Transact {
                    token: format!("{}-{number}", self.name),
                    writes: writes.into_iter().map(|write| self.own(write)).collect(),
                };
                self.transactions.push(request.clone());
                self.change(request).await;
            }
            Step::Again(back) => {
                COUNTS.repeated.fetch_add(1, Ordering::Relaxed);
                let latest = self.transactions.len() - 1;
                let request = self.transactions[latest.saturating_sub(back)].clone();
                self.change(request).await;
            }
        }
    }

    async fn get(&mut self, key: Key) {
        COUNTS.read.fetch_add(1, Ordering::Relaxed);
        let answer = self.table.get(&key, Consistency::Strong).await;
        let fits = self.worlds.saw_get(&key, &answer);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    async fn query(&mut self, query: Query) {
        COUNTS.read.fetch_add(1, Ordering::Relaxed);
        let answer = self.table.query(query.clone()).await;
        let fits = self.worlds.saw_query(&query, &answer);
        fits.unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    /// Reads all there is.
    async fn end(&mut self) {
        for partition in 0..2 {
            let pk = format!("{}-p{partition}", self.name);
            let mut query = Query {
                from: SORT_KEYS[0].to_owned(),
                to: SORT_KEYS[SORT_KEYS.len() - 1].to_owned(),
                ..Query::all(pk, 100)
            };
            query.after = None;
            self.query(query).await;
        }
    }
}

/// On an emulator.
struct OnTheEmulator;

impl StateMachineTest for OnTheEmulator {
    type SystemUnderTest = Case;
    type Reference = Plan;

    fn init_test(_: &Plan) -> Case {
        static TABLE: std::sync::OnceLock<Arc<DynamoTable>> = std::sync::OnceLock::new();
        let table = TABLE.get_or_init(|| {
            let emulator = stage("conformance of the table").expect("looked for before");
            runtime().block_on(async {
                let name = fresh("conformance");
                let blueprint = Blueprint::new(&name).expect("a plain name");
                let (clients, _) = emulator.apply(&blueprint).await.expect("a new table");
                Arc::new(DynamoTable::new(&clients, name))
            })
        });
        let clock = {
            let _within = runtime().enter();
            tokio_runtime::runtime().clock
        };
        Case {
            table: table.clone(),
            clock,
            worlds: TableWorlds::new(table.profile()),
            name: fresh("case"),
            transactions: Vec::new(),
        }
    }

    fn apply(mut case: Case, _: &Plan, step: Step) -> Case {
        runtime().block_on(case.step(step));
        case
    }

    fn teardown(mut case: Case, _: Plan) {
        runtime().block_on(case.end());
    }
}

#[test]
fn what_an_emulators_table_does_is_allowed_by_the_rules() {
    let Some(emulator) = stage("conformance of the table") else {
        return;
    };
    play::<OnTheEmulator>(cases());
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (name, cases) = (emulator.kind().as_str(), cases());
    let (done, refused) = (count(&COUNTS.done), count(&COUNTS.refused));
    let (read, repeated) = (count(&COUNTS.read), count(&COUNTS.repeated));
    say(&format!(
        "{cases} cases of the table on {name}: {done} writes done, {refused} refused, {read} reads, \
         {repeated} transactions repeated"
    ));
    for (what, reason) in WAIVERS {
        say(&format!("waived, never asked: {what}: {reason}"));
    }
    assert!(done > 0 && refused > 0 && read > 0 && repeated > 0);
}
