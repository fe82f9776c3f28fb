use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::adapters::memory::{EMBEDDED_PROFILE, MemoryTable};
use crate::core::time::{Tick, Timestamp};
use crate::ports::queue::{Outgoing, Queue as _};
use crate::ports::runtime::BoxFuture;
use crate::ports::table::{
    Change, Condition, Consistency, Key, Query, Row, Table, TableError, Update, Write,
};

/// A clock that stands still: no test here waits.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(1_000)
    }

    fn tick(&self) -> Tick {
        Tick(0)
    }

    fn sleep_until(&self, _: Tick) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

fn open(path: &Path, access: Access) -> Result<SqliteLedger, OpenError> {
    SqliteLedger::open(path, access, Arc::new(Still))
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn add_one(sk: &str) -> Write {
    let key = Key::new("p", sk);
    Write::update(key, Vec::new(), vec![Update::Add("n".into(), 1)])
}

async fn count(table: &dyn Table, sk: &str) -> Option<i64> {
    let row = table.get(&Key::new("p", sk), Consistency::Strong).await;
    row.expect("the ledger is readable")?.num("n")
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening_and_readable_with_sql() {
    let directory = directory();
    let path = directory.path().join("deep/er/ledger.db");
    let ledger = open(&path, Access::Write).expect("a new ledger");
    let row = ledger.table().write(add_one("a")).await.expect("done");
    assert_eq!(row.and_then(|row| row.num("n")), Some(1));
    // The former one is still open, as if it had been killed: nothing is flushed at its end.
    let again = open(&path, Access::Read).expect("it is a ledger");
    assert_eq!(count(&again.table(), "a").await, Some(1));
    let shell = Connection::open(&path).expect("any SQLite opens it");
    let data: String = shell
        .query_row("SELECT data FROM rows WHERE pk = 'p'", [], |row| row.get(0))
        .expect("one row");
    assert_eq!(data, r#"{"n":1}"#);
}

#[tokio::test]
async fn the_files_of_a_killed_process_hold_every_answered_write() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path, Access::Write).expect("a new ledger");
    for _ in 0..10 {
        ledger.table().write(add_one("a")).await.expect("done");
    }
    // What a kill leaves: the file and its log as they are, and nobody to tidy up.
    let left = directory.path().join("left.db");
    std::fs::copy(&path, &left).expect("copied");
    let log = |path: &Path| path.with_extension("db-wal");
    std::fs::copy(log(&path), log(&left)).expect("the log is there");
    for access in [Access::Read, Access::Write] {
        let found = open(&left, access).expect("it is a ledger");
        assert_eq!(count(&found.table(), "a").await, Some(10));
    }
}

#[test]
fn many_may_open_a_new_ledger_at_once() {
    for _ in 0..10 {
        let directory = directory();
        let path = directory.path().join("ledger.db");
        let open_it = || open(&path, Access::Write).map(drop);
        std::thread::scope(|scope| {
            let opened: Vec<_> = (0..4).map(|_| scope.spawn(open_it)).collect();
            for one in opened {
                assert_eq!(one.join().expect("no panic"), Ok(()));
            }
        });
    }
}

#[tokio::test]
async fn a_reader_beside_a_writer_sees_new_rows_and_may_not_write() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    assert_eq!(
        open(&path, Access::Read).err(),
        Some(OpenError::Missing(path.clone()))
    );
    let writer = open(&path, Access::Write).expect("a new ledger");
    let reader = open(&path, Access::Read).expect("it is a ledger");
    for n in 1..=3 {
        writer.table().write(add_one("a")).await.expect("done");
        assert_eq!(count(&reader.table(), "a").await, Some(n));
    }
    let refusal = reader.table().write(add_one("a")).await;
    assert!(matches!(refusal, Err(TableError::Refused(_))));
    let refusal = reader.queue("q").send(vec![Outgoing::now("m")]).await;
    assert!(refusal.is_err());
}

#[tokio::test]
async fn a_write_of_another_process_is_seen_by_the_next_condition() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let one = open(&path, Access::Write).expect("a new ledger").table();
    let other = open(&path, Access::Write).expect("it is a ledger").table();
    for n in 0..20 {
        let table = if n % 3 == 0 { &other } else { &one };
        let mut write = add_one("a");
        if n > 0 {
            write.when = vec![Condition::Equals("n".into(), n.into())];
        }
        table.write(write).await.expect("both see the same row");
    }
    assert_eq!(count(&one, "a").await, Some(20));
}

#[tokio::test]
async fn a_request_that_fails_leaves_its_group_alone() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let table = open(&path, Access::Write).expect("a new ledger").table();
    let writes = (0..500).map(|n| {
        let mut write = add_one(&format!("{}", n % 50));
        if n % 5 == 0 {
            write.when = vec![Condition::Missing("n".into()), Condition::Present];
        }
        table.write(write)
    });
    let failed = join_all(writes).await.into_iter().filter(Result::is_err);
    assert_eq!(failed.count(), 100);
    for sk in 0..50 {
        let expected = if sk % 5 == 0 { None } else { Some(10) };
        assert_eq!(count(&table, &sk.to_string()).await, expected, "row {sk}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_group_and_harms_nothing() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path, Access::Write).expect("a new ledger");
    ledger.table().write(add_one("a")).await.expect("done");

    let connection = open_for_writing(&path).expect("it is a ledger");
    connection
        .pragma_update(None, "max_page_count", 20)
        .expect("a bound on the file");
    let (sender, requests) = mpsc::channel(writer::WAITING_MAX);
    let writer = writer::Writer::new(connection, EMBEDDED_PROFILE);
    start(&path, "small", move || writer.run(requests)).expect("a thread");
    let small = SqliteTable {
        writer: Some(sender),
        ..ledger.table()
    };
    let row = Row::new().with("text", "x".repeat(300_000));
    let refusal = small.write(Write::create(Key::new("p", "big"), row)).await;
    let Err(TableError::Refused(why)) = refusal else {
        panic!("{refusal:?}");
    };
    assert!(why.contains("disk of the ledger is full"), "{why}");
    assert_eq!(count(&small, "big").await, None);
    small.write(add_one("a")).await.expect("a small write fits");
    assert_eq!(count(&ledger.table(), "a").await, Some(2));
}

#[tokio::test]
async fn a_row_that_nobody_can_read_is_named_and_stops_no_other() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let table = open(&path, Access::Write).expect("a new ledger").table();
    Connection::open(&path)
        .and_then(|shell| shell.execute("INSERT INTO rows VALUES ('p', 'bad', '[1]')", []))
        .expect("a row from the shell");
    let refusal = table.write(add_one("bad")).await;
    assert!(
        matches!(&refusal, Err(TableError::Refused(why)) if why.contains("p / bad")),
        "{refusal:?}"
    );
    table.write(add_one("good")).await.expect("done");
}

#[test]
fn a_file_that_is_no_ledger_is_refused_in_plain_words() {
    let directory = directory();
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "not a database ".repeat(100)).expect("written");
    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign)
        .and_then(|other| other.execute_batch("CREATE TABLE t (a); PRAGMA user_version = 7"))
        .expect("another program's database");
    for access in [Access::Write, Access::Read] {
        for path in [&text, &foreign] {
            assert_eq!(
                open(path, access).err(),
                Some(OpenError::NotALedger(path.clone()))
            );
        }
    }
    let at_a_directory = open(directory.path(), Access::Write);
    assert!(matches!(at_a_directory, Err(OpenError::Failed { .. })));
    let below_a_file = open(&text.join("ledger.db"), Access::Write);
    assert!(matches!(below_a_file, Err(OpenError::Directory { .. })));
    assert!(text.exists() && foreign.exists());
}

#[test]
fn a_newer_ledger_is_left_to_the_newer_program() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    drop(open(&path, Access::Write).expect("a new ledger"));
    Connection::open(&path)
        .and_then(|newer| newer.pragma_update(None, "user_version", 99))
        .expect("a newer program was here");
    for access in [Access::Write, Access::Read] {
        let refusal = open(&path, access).expect_err("it is newer");
        assert!(refusal.to_string().contains("newer trommel"), "{refusal}");
    }
}

#[tokio::test]
async fn an_old_handle_deletes_nothing_and_numbers_are_not_used_again() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let ledger = open(&path, Access::Write).expect("a new ledger");
    let queue = ledger.queue("q");
    queue.send(vec![Outgoing::now("one")]).await.expect("sent");
    let receive = || queue.receive(1, Duration::ZERO, Duration::ZERO);
    let first = receive().await.expect("received").remove(0);
    let second = receive().await.expect("received").remove(0);
    assert_ne!(first.handle, second.handle);
    queue.delete(vec![first.handle]).await.expect("answered");
    let third = receive().await.expect("received").remove(0);
    assert_eq!((third.body.as_str(), third.receive_count), ("one", 3));
    queue
        .delete(vec![third.handle.clone()])
        .await
        .expect("done");
    queue.send(vec![Outgoing::now("two")]).await.expect("sent");
    let next = receive().await.expect("received").remove(0);
    assert_ne!(next.handle, third.handle);
    assert!(
        ledger
            .queue("other")
            .receive(1, Duration::ZERO, Duration::ZERO)
            .await
            .expect("answered")
            .is_empty()
    );
}

fn key() -> impl Strategy<Value = Key> {
    ("[ab]", "[a-c#~]{1,2}").prop_map(|(pk, sk)| Key::new(pk, sk))
}

fn name() -> impl Strategy<Value = crate::ports::table::Name> {
    prop_oneof![Just("x".into()), Just("y".into()), Just("z\"é".into())]
}

fn value() -> impl Strategy<Value = crate::ports::table::Value> {
    prop_oneof![
        (-2_i64..3).prop_map(Into::into),
        "[a\\\\\"]?".prop_map(Into::into)
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Present),
        (name(), value()).prop_map(|(name, value)| Condition::Equals(name, value)),
        name().prop_map(Condition::Missing),
        (name(), -2_i64..3).prop_map(|(name, most)| Condition::AtMost(name, most)),
        (name(), -2_i64..3).prop_map(|(name, least)| Condition::AtLeast(name, least)),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Update::Set(name, value)),
        (name(), -2_i64..3).prop_map(|(name, number)| Update::Add(name, number)),
        name().prop_map(Update::Remove),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let row = proptest::collection::btree_map(name(), value(), 0..3);
    prop_oneof![
        row.prop_map(|attributes| Change::Put(attributes.into_iter().collect())),
        proptest::collection::vec(update(), 0..3).prop_map(Change::Update),
        Just(Change::Delete),
        Just(Change::Check),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let when = proptest::collection::vec(condition(), 0..2);
    (key(), when, change()).prop_map(|(key, when, change)| Write { key, when, change })
}

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    Transact(Vec<Write>),
    Get(Key),
    Query(Query),
}

fn step() -> impl Strategy<Value = Step> {
    let query = (key(), key(), proptest::option::of(key()), 1_usize..4).prop_map(
        |(from, to, after, limit)| Query {
            pk: from.pk,
            from: from.sk,
            to: to.sk,
            after: after.map(|key| key.sk),
            limit,
            consistency: Consistency::Strong,
        },
    );
    prop_oneof![
        4 => write().prop_map(Step::Write),
        3 => proptest::collection::vec(write(), 0..4).prop_map(Step::Transact),
        1 => key().prop_map(Step::Get),
        2 => query.prop_map(Step::Query),
    ]
}

/// What a table answers, as text, so that answers of all kinds can be compared.
async fn answer(table: &dyn Table, step: Step) -> String {
    match step {
        Step::Write(write) => format!("{:?}", table.write(write).await),
        Step::Transact(writes) => format!("{:?}", table.transact("token", writes).await),
        Step::Get(key) => format!("{:?}", table.get(&key, Consistency::Strong).await),
        Step::Query(query) => format!("{:?}", table.query(query).await),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sqlite_and_memory_give_the_same_answers(steps in proptest::collection::vec(step(), 1..60)) {
        let directory = directory();
        let ledger = open(&directory.path().join("ledger.db"), Access::Write).expect("a new ledger");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let memory = MemoryTable::new(EMBEDDED_PROFILE);
        let sqlite = ledger.table();
        for step in steps {
            let expected = runtime.block_on(answer(&memory, step.clone()));
            let found = runtime.block_on(answer(&sqlite, step.clone()));
            prop_assert_eq!(found, expected, "{:?}", step);
        }
    }
}
