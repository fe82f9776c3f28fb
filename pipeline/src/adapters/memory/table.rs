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

impl MemoryTable {
    /// An empty table that claims and keeps to this profile.
    pub fn new(profile: TableProfile) -> Self {
        Self {
            profile,
            partitions: Mutex::default(),
        }
    }
}

fn find<'a>(partitions: &'a Partitions, key: &Key) -> Option<&'a Row> {
    partitions.get(&key.pk)?.get(&key.sk)
}

fn store(partitions: &mut Partitions, write: Write) -> Option<Row> {
    let partition = partitions.entry(write.key.pk).or_default();
    let mut row = partition.remove(&write.key.sk);
    bounds::apply(&mut row, write.change);
    if let Some(row) = &row {
        partition.insert(write.key.sk, row.clone());
    }
    row
}

#[async_trait]
impl Table for MemoryTable {
    fn profile(&self) -> TableProfile {
        self.profile
    }

    async fn get(&self, key: &Key, _: Consistency) -> Result<Option<Row>, TableError> {
        bounds::check_key(key)?;
        Ok(find(&lock(&self.partitions), key).cloned())
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        bounds::check_write(&write)?;
        let mut partitions = lock(&self.partitions);
        let before = find(&partitions, &write.key);
        if !Row::meets(before, &write.when) {
            return Err(TableError::ConditionFailed { failed: vec![0] });
        }
        bounds::check_change(self.profile, before, &write)?;
        Ok(store(&mut partitions, write))
    }

    async fn transact(&self, _token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        bounds::check_transaction(self.profile, &writes)?;
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
        for write in &writes {
            bounds::check_change(self.profile, find(&partitions, &write.key), write)?;
        }
        for write in writes {
            store(&mut partitions, write);
        }
        Ok(())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        bounds::check_query(&query)?;
        let Query {
            pk,
            from,
            to,
            after,
            limit,
            consistency: _,
        } = query;
        let start = match after {
            Some(after) if after >= from => Bound::Excluded(after),
            Some(_) | None => Bound::Included(from),
        };
        let partitions = lock(&self.partitions);
        let Some(partition) = partitions.get(&pk) else {
            return Ok(QueryPage::default());
        };
        let mut found = partition
            .range((start, Bound::Unbounded))
            .take_while(|(sk, _)| **sk <= to);
        let rows: Vec<(String, Row)> = found
            .by_ref()
            .take(limit)
            .map(|(sk, row)| (sk.clone(), row.clone()))
            .collect();
        let next = match found.next() {
            Some(_) => rows.last().map(|(sk, _)| sk.clone()),
            None => None,
        };
        Ok(QueryPage { rows, next })
    }
}
