//! Which writes no row takes, and how a row changes. Conditions are not judged here: [`Row::meets`]
//! does that.

use std::collections::BTreeSet;

use crate::ports::table::{
    Change, Key, NUM_BYTES, Query, Row, TableError, TableProfile, Update, Value, Write,
};

/// The longest partition key ("Service, account, and table quotas": partition key length).
pub(crate) const PK_BYTES_MAX: usize = 2048;

/// The longest sort key ("Service, account, and table quotas": sort key length).
pub(crate) const SK_BYTES_MAX: usize = 1024;

/// The largest row ("Service, account, and table quotas": item size).
pub(crate) const ROW_BYTES_MAX: usize = 400 * 1024;

/// The most writes in one transaction ("TransactWriteItems").
pub(crate) const TRANSACT_WRITES_MAX: usize = 100;

fn refused(key: &Key, what: impl std::fmt::Display) -> TableError {
    TableError::Refused(format!("row {key}: {what}"))
}

/// Refuses a key that is empty or too long.
pub(crate) fn check_key(key: &Key) -> Result<(), TableError> {
    if key.pk.is_empty() || key.sk.is_empty() {
        return Err(refused(key, "a key may not be empty"));
    }
    if key.pk.len() > PK_BYTES_MAX || key.sk.len() > SK_BYTES_MAX {
        return Err(refused(key, "the key is too long"));
    }
    Ok(())
}

/// Refuses a lone write that no row could make good: a bad key, a mere check.
pub(crate) fn check_write(write: &Write) -> Result<(), TableError> {
    check_key(&write.key)?;
    match write.change {
        Change::Check => Err(refused(&write.key, "a check belongs in a transaction")),
        Change::Put(_) | Change::Update(_) | Change::Delete => Ok(()),
    }
}

/// Refuses a transaction that is empty or too large, or names a row twice.
pub(crate) fn check_transaction(profile: TableProfile, writes: &[Write]) -> Result<(), TableError> {
    if writes.is_empty() || writes.len() > profile.transact_writes_max {
        return Err(TableError::Refused(format!(
            "a transaction has 1 to {} writes, this one {}",
            profile.transact_writes_max,
            writes.len()
        )));
    }
    let mut seen = BTreeSet::new();
    for write in writes {
        check_key(&write.key)?;
        if !seen.insert(&write.key) {
            return Err(refused(&write.key, "named twice in one transaction"));
        }
    }
    Ok(())
}

/// Refuses a query for nothing.
pub(crate) fn check_query(query: &Query) -> Result<(), TableError> {
    if query.limit == 0 {
        return Err(TableError::Refused(format!(
            "a query of {} asks for 0 rows, and needs at least 1",
            query.pk
        )));
    }
    Ok(())
}

/// Refuses a change that this row cannot take: an attribute named twice, a sum over a text or past the
/// number's range, a row that would be too large. After it, [`apply`] cannot fail.
pub(crate) fn check_change(
    profile: TableProfile,
    before: Option<&Row>,
    write: &Write,
) -> Result<(), TableError> {
    let key = &write.key;
    let bytes = match &write.change {
        Change::Put(row) => row.bytes(),
        Change::Update(updates) => {
            check_updates(key, before, updates)?;
            updated_bytes(before, updates)
        }
        Change::Delete | Change::Check => return Ok(()),
    };
    let bytes = bytes + key.pk.len() + key.sk.len();
    if bytes > profile.row_bytes_max {
        return Err(refused(
            key,
            format_args!(
                "{bytes} bytes, more than the {} it may have",
                profile.row_bytes_max
            ),
        ));
    }
    Ok(())
}

fn check_updates(key: &Key, before: Option<&Row>, updates: &[Update]) -> Result<(), TableError> {
    for (index, update) in updates.iter().enumerate() {
        let name = name_of(update);
        if updates[..index].iter().any(|other| name_of(other) == name) {
            return Err(refused(key, format_args!("{name} is updated twice")));
        }
        let Update::Add(_, number) = update else {
            continue;
        };
        match before.and_then(|row| row.get(name)) {
            Some(Value::Text(_)) => {
                return Err(refused(key, format_args!("{name} is a text, not a sum")));
            }
            Some(Value::Num(sum)) if sum.checked_add(*number).is_none() => {
                return Err(refused(key, format_args!("{name} would overflow")));
            }
            None | Some(Value::Num(_)) => {}
        }
    }
    Ok(())
}

/// Makes the change; [`check_change`] has passed.
pub(crate) fn apply(row: &mut Option<Row>, change: Change) {
    match change {
        Change::Put(new) => *row = Some(new),
        Change::Update(updates) => row.get_or_insert_default().apply(updates),
        Change::Delete => *row = None,
        Change::Check => {}
    }
}

fn name_of(update: &Update) -> &str {
    match update {
        Update::Set(name, _) | Update::Add(name, _) | Update::Remove(name) => name,
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Num(_) => NUM_BYTES,
        Value::Text(text) => text.len(),
    }
}

fn attribute_bytes(name: &str, value: &Value) -> usize {
    name.len() + value_bytes(value)
}

fn updated_bytes(before: Option<&Row>, updates: &[Update]) -> usize {
    let mut bytes = before.map_or(0, Row::bytes);
    for update in updates {
        let name = name_of(update);
        let former = before.and_then(|row| row.get(name));
        bytes -= former.map_or(0, |value| attribute_bytes(name, value));
        bytes += match update {
            Update::Set(name, value) => attribute_bytes(name, value),
            Update::Add(name, _) => name.len() + NUM_BYTES,
            Update::Remove(_) => 0,
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PROFILE: TableProfile = TableProfile {
        transact_writes_max: 2,
        row_bytes_max: 100,
        settle_within: Duration::ZERO,
    };

    fn key(sk: &str) -> Key {
        Key::new("p", sk)
    }

    fn update(updates: Vec<Update>) -> Write {
        Write::update(key("s"), Vec::new(), updates)
    }

    #[test]
    fn the_size_of_an_update_is_that_of_the_row_it_leaves() {
        let before = Row::new().with("a", "x".repeat(90));
        let grow = update(vec![Update::Set("b".into(), "y".repeat(20).into())]);
        assert!(check_change(PROFILE, Some(&before), &grow).is_err());
        let swap = update(vec![
            Update::Remove("a".into()),
            Update::Set("b".into(), "y".repeat(20).into()),
        ]);
        assert_eq!(check_change(PROFILE, Some(&before), &swap), Ok(()));
    }

    #[test]
    fn a_sum_over_a_text_or_past_the_range_is_refused() {
        let before = Row::new().with("t", "x").with("n", i64::MAX);
        for name in ["t", "n"] {
            let add = update(vec![Update::Add(name.into(), 1)]);
            let refusal = check_change(PROFILE, Some(&before), &add);
            assert!(matches!(refusal, Err(TableError::Refused(_))), "{name}");
        }
    }

    #[test]
    fn an_attribute_is_updated_at_most_once() {
        let twice = update(vec![Update::Add("n".into(), 1), Update::Remove("n".into())]);
        assert!(check_change(PROFILE, None, &twice).is_err());
    }

    #[test]
    fn a_transaction_names_each_row_once_and_has_a_bound() {
        let check = |sk: &str| Write {
            key: key(sk),
            when: Vec::new(),
            change: Change::Check,
        };
        assert!(check_transaction(PROFILE, &[]).is_err());
        assert!(check_transaction(PROFILE, &[check("a"), check("a")]).is_err());
        assert!(check_transaction(PROFILE, &[check("a"), check("b"), check("c")]).is_err());
        assert_eq!(
            check_transaction(PROFILE, &[check("a"), check("b")]),
            Ok(())
        );
        assert!(check_write(&check("a")).is_err());
        assert!(check_key(&key("")).is_err());
    }
}
