//! The contract of [`Table`].

use std::future::Future;

use futures_util::future::join_all;
use trommel::ports::table::{
    Change, Condition, Consistency, Key, Query, Row, Table, TableError, Update, Value, Write,
};

/// How often a write that lost against another one is tried; with 50 at one row each try has at
/// least one winner.
const TRIES_MAX: usize = 200;

/// How many act at once in the checks of concurrency.
const RIVALS: usize = 50;

fn put(key: &Key, row: Row) -> Write {
    Write {
        key: key.clone(),
        when: Vec::new(),
        change: Change::Put(row),
    }
}

fn add(key: &Key, number: i64) -> Write {
    Write::update(
        key.clone(),
        Vec::new(),
        vec![Update::Add("n".into(), number)],
    )
}

fn guarded(key: &Key, when: Vec<Condition>, change: Change) -> Write {
    Write {
        key: key.clone(),
        when,
        change,
    }
}

async fn done(table: &dyn Table, write: Write) -> Option<Row> {
    retried(|| table.write(write.clone()))
        .await
        .expect("written")
}

async fn get(table: &dyn Table, key: &Key) -> Option<Row> {
    table.get(key, Consistency::Strong).await.expect("read")
}

/// Tries again what may be tried again without a look.
async fn retried<T, F>(attempt: impl Fn() -> F) -> Result<T, TableError>
where
    F: Future<Output = Result<T, TableError>>,
{
    for _ in 0..TRIES_MAX {
        match attempt().await {
            Err(TableError::Conflict | TableError::Throttled(_)) => {}
            other => return other,
        }
    }
    panic!("no success in {TRIES_MAX} tries");
}

fn assert_refused<T: std::fmt::Debug>(result: &Result<T, TableError>) {
    assert!(matches!(result, Err(TableError::Refused(_))), "{result:?}");
}

fn failed(writes: &[usize]) -> TableError {
    TableError::ConditionFailed {
        failed: writes.to_vec(),
    }
}

/// All rows of a range, page by page; no page is longer than asked for.
async fn all(table: &dyn Table, mut query: Query) -> Vec<(String, Row)> {
    let mut rows = Vec::new();
    loop {
        let page = table.query(query.clone()).await.expect("read");
        assert!(page.rows.len() <= query.limit);
        rows.extend(page.rows);
        let Some(next) = page.next else {
            return rows;
        };
        assert!(query.after.as_ref() < Some(&next), "pages go forward");
        query.after = Some(next);
    }
}

/// Values of every kind and size come back as they went in, and the write answers the row.
pub async fn a_row_is_got_as_it_was_put(table: &dyn Table) {
    let key = Key::new("contract-whole", "row");
    let row = Row::new()
        .with("zero", 0)
        .with("least", i64::MIN)
        .with("most", i64::MAX)
        .with("empty", "")
        .with(
            "text",
            "quote \" backslash \\ newline \n zero \u{1} é 漢 🥁",
        )
        .with("long", "x".repeat(200_000))
        .with("odd name: é \"", 1);
    assert_eq!(done(table, put(&key, row.clone())).await, Some(row.clone()));
    assert_eq!(get(table, &key).await, Some(row));
}

/// A missing row is no error.
pub async fn a_row_that_is_not_there_is_none(table: &dyn Table) {
    let key = Key::new("contract-none", "row");
    assert_eq!(get(table, &key).await, None);
    let eventual = table.get(&key, Consistency::Eventual).await;
    assert_eq!(eventual.expect("read"), None);
}

/// `Put`: it becomes exactly this, whatever it was.
pub async fn a_put_replaces_the_whole_row(table: &dyn Table) {
    let key = Key::new("contract-put", "row");
    done(table, put(&key, Row::new().with("a", 1).with("b", "x"))).await;
    let row = Row::new().with("b", 2);
    assert_eq!(done(table, put(&key, row.clone())).await, Some(row.clone()));
    assert_eq!(get(table, &key).await, Some(row));
}

/// `Update`: set, add, remove; missing attributes count as 0; the rest stays; the row is made.
pub async fn an_update_changes_what_it_names_and_makes_the_row(table: &dyn Table) {
    let key = Key::new("contract-update", "row");
    let update = |updates| Write::update(key.clone(), Vec::new(), updates);
    let first = update(vec![
        Update::Set("text".into(), "x".into()),
        Update::Add("sum".into(), -3),
        Update::Remove("none".into()),
    ]);
    let row = Row::new().with("text", "x").with("sum", -3);
    assert_eq!(done(table, first).await, Some(row));
    let second = update(vec![
        Update::Remove("text".into()),
        Update::Add("sum".into(), 10),
        Update::Set("other".into(), 1.into()),
    ]);
    let row = Row::new().with("sum", 7).with("other", 1);
    assert_eq!(done(table, second).await, Some(row.clone()));
    assert_eq!(get(table, &key).await, Some(row));
}

/// A row without attributes is a row.
pub async fn an_update_of_nothing_makes_an_empty_row(table: &dyn Table) {
    let key = Key::new("contract-empty", "row");
    let nothing = Write::update(key.clone(), Vec::new(), Vec::new());
    assert_eq!(done(table, nothing).await, Some(Row::new()));
    assert_eq!(get(table, &key).await, Some(Row::new()));
}

/// `Delete`: no error if it was not there, and the answer is `None`.
pub async fn a_delete_may_be_repeated(table: &dyn Table) {
    let key = Key::new("contract-delete", "row");
    done(table, put(&key, Row::new().with("a", 1))).await;
    for _ in 0..2 {
        let delete = guarded(&key, Vec::new(), Change::Delete);
        assert_eq!(done(table, delete).await, None);
        assert_eq!(get(table, &key).await, None);
    }
}

/// All conditions, alone and in pairs, on all kinds of rows, against [`Condition::holds`].
pub async fn conditions_hold_by_the_rule(table: &dyn Table) {
    let rows = [
        None,
        Some(Row::new()),
        Some(Row::new().with("n", 4)),
        Some(Row::new().with("n", 5)),
        Some(Row::new().with("n", 6)),
        Some(Row::new().with("n", "5")),
        Some(Row::new().with("n", "").with("other", 5)),
    ];
    let name = || "n".into();
    let conditions = [
        Condition::Absent,
        Condition::Present,
        Condition::Equals(name(), Value::Num(5)),
        Condition::Equals(name(), "5".into()),
        Condition::Equals(name(), "".into()),
        Condition::Missing(name()),
        Condition::AtMost(name(), 5),
        Condition::AtLeast(name(), 5),
    ];
    for (r, row) in rows.iter().enumerate() {
        for (i, first) in conditions.iter().enumerate() {
            let cases = conditions[i..].iter().enumerate().map(|(j, second)| {
                let key = Key::new("contract-conditions", format!("{r}-{i}-{j}"));
                // The first pairing of each is with itself: the condition alone.
                let mut when = vec![first.clone(), second.clone()];
                when.dedup();
                holds_by_the_rule(table, key, row.clone(), when)
            });
            join_all(cases).await;
        }
    }
}

async fn holds_by_the_rule(table: &dyn Table, key: Key, row: Option<Row>, when: Vec<Condition>) {
    if let Some(row) = &row {
        done(table, put(&key, row.clone())).await;
    }
    let expected = Row::meets(row.as_ref(), &when);
    let probe = Change::Update(vec![Update::Add("probe".into(), 1)]);
    let result = retried(|| table.write(guarded(&key, when.clone(), probe.clone()))).await;
    let after = get(table, &key).await;
    if expected {
        let probed = row.clone().unwrap_or_default().with("probe", 1);
        assert_eq!(result, Ok(Some(probed.clone())), "{row:?} {when:?}");
        assert_eq!(after, Some(probed));
    } else {
        assert_eq!(result, Err(failed(&[0])), "{row:?} {when:?}");
        assert_eq!(after, row, "nothing was written");
    }
}

/// Conditions stop a put, an update and a delete alike.
pub async fn conditions_guard_every_change(table: &dyn Table) {
    let key = Key::new("contract-guard", "row");
    let row = Row::new().with("n", 1);
    done(table, put(&key, row.clone())).await;
    let changes = [
        Change::Put(Row::new()),
        Change::Update(vec![Update::Add("n".into(), 1)]),
        Change::Delete,
    ];
    for change in changes {
        let wrong = vec![Condition::Present, Condition::Equals("n".into(), 2.into())];
        let result = table.write(guarded(&key, wrong, change.clone())).await;
        assert_eq!(result, Err(failed(&[0])), "{change:?}");
        assert_eq!(get(table, &key).await.as_ref(), Some(&row));
    }
    let right = vec![Condition::Equals("n".into(), 1.into())];
    assert_eq!(
        done(table, guarded(&key, right, Change::Delete)).await,
        None
    );
    assert_eq!(get(table, &key).await, None);
}

/// `Check`: in a transaction only.
pub async fn a_check_alone_is_refused(table: &dyn Table) {
    let key = Key::new("contract-check", "row");
    assert_refused(&table.write(guarded(&key, Vec::new(), Change::Check)).await);
}

/// The profile's bound on a row, by put and by update.
pub async fn a_row_that_is_too_large_is_refused(table: &dyn Table) {
    let key = Key::new("contract-large", "row");
    let bytes_max = table.profile().row_bytes_max;
    let whole = Row::new().with("a", "x".repeat(bytes_max));
    assert_refused(&table.write(put(&key, whole)).await);
    assert_eq!(get(table, &key).await, None);
    let half: Value = "x".repeat(bytes_max / 2).into();
    let set = |name: &'static str| {
        let updates = vec![Update::Set(name.into(), half.clone())];
        Write::update(key.clone(), Vec::new(), updates)
    };
    done(table, set("a")).await;
    assert_refused(&table.write(set("b")).await);
    assert_eq!(get(table, &key).await.map(|row| row.len()), Some(1));
}

/// Nothing is written where one condition fails, and the answer names the failed, ascending.
pub async fn a_transaction_does_all_or_nothing(table: &dyn Table) {
    let keys: Vec<Key> = (0..4)
        .map(|n| Key::new("contract-transaction", n.to_string()))
        .collect();
    done(table, put(&keys[1], Row::new())).await;
    let create = |n: usize| Write::create(keys[n].clone(), Row::new().with("new", 1));
    let mut writes: Vec<Write> = (0..3).map(create).collect();
    let missing = vec![Condition::Present];
    writes.push(guarded(&keys[3], missing, Change::Check));
    let result = retried(|| table.transact("all-or-nothing-1", writes.clone())).await;
    assert_eq!(result, Err(failed(&[1, 3])));
    let rows = all(table, Query::all("contract-transaction", 10)).await;
    assert_eq!(rows, [("1".to_owned(), Row::new())]);

    let writes = vec![create(0), create(2)];
    let result = retried(|| table.transact("all-or-nothing-2", writes.clone())).await;
    assert_eq!(result, Ok(()));
    let rows = all(table, Query::all("contract-transaction", 10)).await;
    let keys: Vec<&str> = rows.iter().map(|(sk, _)| sk.as_str()).collect();
    assert_eq!(keys, ["0", "1", "2"]);
}

/// Ten writes, put, update, delete and check together: what every endpoint takes.
pub async fn a_transaction_of_ten_takes_every_change(table: &dyn Table) {
    assert!(table.profile().transact_writes_max >= 10);
    let key = |n: usize| Key::new("contract-ten", n.to_string());
    for n in [1, 2] {
        done(table, put(&key(n), Row::new().with("n", 1))).await;
    }
    let there = || vec![Condition::Equals("n".into(), 1.into())];
    let mut writes = vec![
        Write::create(key(0), Row::new().with("n", 1)),
        guarded(&key(1), there(), Change::Delete),
        guarded(&key(2), there(), Change::Check),
    ];
    writes.extend((3..10).map(|n| add(&key(n), 1)));
    let result = retried(|| table.transact("ten", writes.clone())).await;
    assert_eq!(result, Ok(()));
    let rows = all(table, Query::all("contract-ten", 20)).await;
    let keys: Vec<&str> = rows.iter().map(|(sk, _)| sk.as_str()).collect();
    assert_eq!(keys, ["0", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(rows.iter().all(|(_, row)| *row == Row::new().with("n", 1)));
}

/// More writes than the profile says, or two for one row, are refused and not done.
pub async fn a_transaction_is_bounded_and_names_a_row_once(table: &dyn Table) {
    let key = |n: usize| Key::new("contract-bounds", format!("{n:04}"));
    let most = table.profile().transact_writes_max;
    let too_many: Vec<Write> = (0..=most).map(|n| add(&key(n), 1)).collect();
    assert_refused(&table.transact("too-many", too_many).await);
    let twice = vec![add(&key(0), 1), add(&key(1), 1), add(&key(0), 1)];
    assert_refused(&table.transact("twice", twice).await);
    assert_eq!(all(table, Query::all("contract-bounds", 10)).await, []);
    let full: Vec<Write> = (0..most).map(|n| add(&key(n), 1)).collect();
    let result = retried(|| table.transact("full", full.clone())).await;
    assert_eq!(result, Ok(()));
}

/// The same transaction with the same token: either recognised, or judged by its conditions.
pub async fn a_repeated_transaction_is_not_done_twice(table: &dyn Table) {
    let keys = [0, 1].map(|n: usize| Key::new("contract-token", n.to_string()));
    done(table, put(&keys[0], Row::new().with("epoch", 1))).await;
    let writes = vec![
        Write::update(
            keys[0].clone(),
            vec![Condition::Equals("epoch".into(), 1.into())],
            vec![Update::Set("epoch".into(), 2.into())],
        ),
        add(&keys[1], 5),
    ];
    let transact = || retried(|| table.transact("contract-token-1", writes.clone()));
    assert_eq!(transact().await, Ok(()));
    let again = transact().await;
    assert!(again == Ok(()) || again == Err(failed(&[0])), "{again:?}");
    assert_eq!(get(table, &keys[1]).await, Some(Row::new().with("n", 5)));
}

/// Bytes decide, not letters: capitals before small ones, two-byte characters last.
pub async fn rows_come_in_the_byte_order_of_sort_keys(table: &dyn Table) {
    let sorted = [
        "!", "#", "10", "9", "A", "a", "a!", "a#1", "a-", "a.b", "aa", "b", "z~", "~",
    ];
    for index in [7, 0, 13, 3, 9, 1, 12, 5, 2, 11, 4, 8, 6, 10] {
        let key = Key::new("contract-order", sorted[index]);
        done(table, put(&key, Row::new().with("n", index as i64))).await;
    }
    let beyond = Key::new("contract-order", "é");
    done(table, put(&beyond, Row::new())).await;
    let rows = all(table, Query::all("contract-order", 4)).await;
    let keys: Vec<&str> = rows.iter().map(|(sk, _)| sk.as_str()).collect();
    assert_eq!(keys, sorted, "the last is past `Query::LAST`");
    let numbers: Vec<Option<i64>> = rows.iter().map(|(_, row)| row.num("n")).collect();
    assert_eq!(numbers, (0..14).map(Some).collect::<Vec<_>>());
}

/// `from` and `to` are inclusive; other partitions, also of like names, are not in it.
pub async fn a_range_includes_both_ends_and_no_other_partition(table: &dyn Table) {
    for pk in ["contract-range", "contract-range#", "contract-rang"] {
        for sk in ["a", "b", "b#", "c", "d"] {
            done(table, put(&Key::new(pk, sk), Row::new())).await;
        }
    }
    let range = |from: &str, to: &str| Query::all("contract-range", 10).between(from, to);
    for (from, to, expected) in [
        ("b", "c", vec!["b", "b#", "c"]),
        ("b", "b", vec!["b"]),
        ("b!", "b~", vec!["b#"]),
        ("e", "f", vec![]),
        ("!", "a", vec!["a"]),
    ] {
        let rows = all(table, range(from, to)).await;
        let keys: Vec<&str> = rows.iter().map(|(sk, _)| sk.as_str()).collect();
        assert_eq!(keys, expected, "{from} to {to}");
    }
    assert_eq!(all(table, Query::all("contract-none-such", 10)).await, []);
}

/// Whatever the limit, following `next` to its end gives each row once.
pub async fn pages_follow_each_other(table: &dyn Table) {
    let expected: Vec<String> = (0..12).map(|n| format!("{n:02}")).collect();
    for sk in &expected {
        done(table, put(&Key::new("contract-pages", sk), Row::new())).await;
    }
    for limit in [1, 2, 3, 5, 11, 12, 13] {
        let rows = all(table, Query::all("contract-pages", limit)).await;
        let keys: Vec<String> = rows.into_iter().map(|(sk, _)| sk).collect();
        assert_eq!(keys, expected, "limit {limit}");
    }
}

/// A page may be short, but a range is whole, also where it is longer than one answer can be.
pub async fn a_long_range_of_large_rows_comes_whole(table: &dyn Table) {
    let text = "x".repeat(300_000);
    for n in 0..8 {
        let key = Key::new("contract-long", n.to_string());
        done(table, put(&key, Row::new().with("text", text.as_str()))).await;
    }
    let rows = all(table, Query::all("contract-long", 100)).await;
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|(_, row)| row.text("text") == Some(&text)));
}

/// Get and query, strongly consistent, right after each answer.
pub async fn an_answered_write_is_seen_by_a_strong_read(table: &dyn Table) {
    let key = Key::new("contract-strong", "row");
    for n in 1..=20 {
        let written = done(table, add(&key, 1)).await;
        assert_eq!(written, Some(Row::new().with("n", n)));
        assert_eq!(get(table, &key).await, written);
        let rows = all(table, Query::all("contract-strong", 1)).await;
        assert_eq!(rows.first().map(|(_, row)| row), written.as_ref());
    }
}

/// A lease: many take it at once, one has it.
pub async fn of_fifty_conditional_updates_one_wins(table: &dyn Table) {
    let key = Key::new("contract-lease", "row");
    done(table, put(&key, Row::new().with("epoch", 0))).await;
    let takes = (0..RIVALS).map(|rival| {
        let when = vec![Condition::Equals("epoch".into(), 0.into())];
        let updates = vec![
            Update::Add("epoch".into(), 1),
            Update::Set("holder".into(), (rival as i64).into()),
        ];
        let take = Write::update(key.clone(), when, updates);
        async move { retried(|| table.write(take.clone())).await }
    });
    let results = join_all(takes).await;
    let winners: Vec<i64> = (0..)
        .zip(&results)
        .filter(|(_, r)| r.is_ok())
        .map(|(n, _)| n)
        .collect();
    let lost = results
        .iter()
        .filter(|result| **result == Err(failed(&[0])));
    assert_eq!(lost.count(), RIVALS - 1);
    let row = Row::new().with("epoch", 1).with("holder", winners[0]);
    assert_eq!(get(table, &key).await, Some(row));
}

/// A tally: no addition is lost, alone or in transactions.
pub async fn sums_of_many_writers_add_up(table: &dyn Table) {
    let key = Key::new("contract-sum", "row");
    let mut expected = 0;
    let writers = (1..=RIVALS as i64).map(|rival| {
        expected += rival;
        let (write, other) = (
            add(&key, rival),
            Key::new("contract-sum", format!("other-{rival}")),
        );
        async move {
            if rival % 2 == 0 {
                done(table, write).await;
                return;
            }
            let token = format!("contract-sum-{rival}");
            let writes = vec![Write::create(other, Row::new()), write];
            let result = retried(|| table.transact(&token, writes.clone())).await;
            assert_eq!(result, Ok(()));
        }
    });
    join_all(writers).await;
    assert_eq!(get(table, &key).await, Some(Row::new().with("n", expected)));
}

/// Two rows that only ever change together: every transaction sees both as one other left them.
pub async fn transactions_are_isolated(table: &dyn Table) {
    let keys = ["left", "right"].map(|sk| Key::new("contract-isolation", sk));
    for key in &keys {
        done(table, put(key, Row::new().with("n", 0))).await;
    }
    let rivals = (0..10).map(|rival| {
        let keys = &keys;
        async move { step_both(table, keys, rival).await }
    });
    join_all(rivals).await;
    for key in &keys {
        assert_eq!(get(table, key).await, Some(Row::new().with("n", 10)));
    }
}

/// Adds one to both rows, whatever the others do meanwhile.
async fn step_both(table: &dyn Table, keys: &[Key; 2], rival: usize) {
    for attempt in 0..TRIES_MAX {
        let row = get(table, &keys[0]).await.expect("it is there");
        let n = row.num("n").expect("a number");
        let step = |key: &Key| {
            let when = vec![Condition::Equals("n".into(), n.into())];
            Write::update(
                key.clone(),
                when,
                vec![Update::Set("n".into(), (n + 1).into())],
            )
        };
        let token = format!("contract-isolation-{rival}-{attempt}");
        match table
            .transact(&token, keys.iter().map(step).collect())
            .await
        {
            Ok(()) => return,
            Err(TableError::Conflict | TableError::Throttled(_)) => {}
            Err(error) => assert!(
                matches!(error, TableError::ConditionFailed { .. }),
                "{error}"
            ),
        }
    }
    panic!("no success in {TRIES_MAX} tries");
}
