//! `Table` as a map of maps under one lock: the plainest reading of the contract, which the other
//! implementations are compared with.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::lock;
use crate::adapters::bounds::table as bounds;
use crate::ports::table::{
    Consistency, Key, Query, QueryPage, Row, Table, TableError, TableProfile, Write,
};

/// What an embedded store can do: DynamoDB's bounds, but outcomes are settled within 20 ms, because
/// a commit costs a local fsync at most.
pub const EMBEDDED_PROFILE: TableProfile = TableProfile {
    transact_writes_max: bounds::TRANSACT_WRITES_MAX,
    row_bytes_max: bounds::ROW_BYTES_MAX,
    settle_within: Duration::from_millis(20),
};

type Partitions = BTreeMap<String, BTreeMap<String, Row>>;

/// A table in memory. A transaction's token is ignored: its conditions decide, as the port allows.
#[derive(Debug)]
pub struct MemoryTable {
    profile: TableProfile,
    partitions: Mutex<Partitions>,
}

impl Clone for MemoryTable {
    /// Another table, with the same rows.
    fn clone(&self) -> Self {
        Self {
            profile: self.profile,
            partitions: Mutex::new(lock(&self.partitions).clone()),
        }
    }
}

/// A row before and after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// As it was; none: there was none.
    pub before: Option<Row>,
    /// As it is.
    pub after: Option<Row>,
}

/// What the port does, without waiting, and told with the rows as they were: for those who watch.
impl MemoryTable {
    /// An empty table that claims and keeps to this profile.
    pub fn new(profile: TableProfile) -> Self {
        Self {
            profile,
            partitions: Mutex::default(),
        }
    }

    /// The row, if there is one.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn row(&self, key: &Key) -> Result<Option<Row>, TableError> {
        bounds::check_key(key)?;
        Ok(find(&lock(&self.partitions), key).cloned())
    }

    /// Does one write.
    ///
    /// # Errors
    /// As [`Table::write`].
    pub fn change(&self, write: &Write) -> Result<RowChange, TableError> {
        bounds::check_write(write)?;
        let mut partitions = lock(&self.partitions);
        let before = find(&partitions, &write.key);
        if !Row::meets(before, &write.when) {
            return Err(TableError::ConditionFailed { failed: vec![0] });
        }
        bounds::check_change(self.profile, before, write)?;
        Ok(store(&mut partitions, write))
    }

    /// Does all writes or none.
    ///
    /// # Errors
    /// As [`Table::transact`].
    pub fn change_all(&self, writes: &[Write]) -> Result<Vec<RowChange>, TableError> {
        bounds::check_transaction(self.profile, writes)?;
        let mut partitions = lock(&self.partitions);
        let failed: Vec<usize> = writes
            .iter()
            .enumerate()
            .filter(|(_, write)| !Row::meets(find(&partitions, &write.key), &write.when))
            .map(|(index, _)| index)
            .collect();
        if !failed.is_empty() {
            return Err(TableError::ConditionFailed { failed });
        }
        for write in writes {
            bounds::check_change(self.profile, find(&partitions, &write.key), write)?;
        }
        let stored = writes.iter().map(|write| store(&mut partitions, write));
        Ok(stored.collect())
    }

    /// Rows of one partition.
    ///
    /// # Errors
    /// As [`Table::query`].
    pub fn rows(&self, query: &Query) -> Result<QueryPage, TableError> {
        bounds::check_query(query)?;
        let start = match query.after.as_deref() {
            Some(after) if after >= query.from.as_str() => Bound::Excluded(after),
            Some(_) | None => Bound::Included(query.from.as_str()),
        };
        let partitions = lock(&self.partitions);
        let Some(partition) = partitions.get(&query.pk) else {
            return Ok(QueryPage::default());
        };
        let mut found = partition
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(sk, _)| **sk <= query.to);
        let rows: Vec<(String, Row)> = found
            .by_ref()
            .take(query.limit)
            .map(|(sk, row)| (sk.clone(), row.clone()))
            .collect();
        let next = match found.next() {
            Some(_) => rows.last().map(|(sk, _)| sk.clone()),
            None => None,
        };
        Ok(QueryPage { rows, next })
    }
}

fn find<'a>(partitions: &'a Partitions, key: &Key) -> Option<&'a Row> {
    partitions.get(&key.pk)?.get(&key.sk)
}

fn store(partitions: &mut Partitions, write: &Write) -> RowChange {
    let Key { pk, sk } = &write.key;
    if !partitions.contains_key(pk) {
        partitions.insert(pk.clone(), BTreeMap::new());
    }
    let partition = partitions.get_mut(pk).expect("it is there now");
    let before = partition.get(sk).cloned();
    let mut after = before.clone();
    bounds::apply(&mut after, write.change.clone());
    match &after {
        Some(row) => match partition.get_mut(sk) {
            Some(place) => *place = row.clone(),
            None => drop(partition.insert(sk.clone(), row.clone())),
        },
        None => drop(partition.remove(sk)),
    }
    RowChange { before, after }
}

#[async_trait]
impl Table for MemoryTable {
    fn profile(&self) -> TableProfile {
        self.profile
    }

    async fn get(&self, key: &Key, _: Consistency) -> Result<Option<Row>, TableError> {
        self.row(key)
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        Ok(self.change(&write)?.after)
    }

    async fn transact(&self, _token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        self.change_all(&writes).map(|_| ())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        self.rows(&query)
    }
}
