//! Whether what is settled together goes in as few transactions as the endpoint takes ("L7"): each is as full as it
//! can be, and none is larger than it may be.

use std::collections::{BTreeMap, BTreeSet};

use trommel::core::time::Tick;
use trommel::ports::{Condition, Write};

/// Two groups may follow each other at one moment; four that could be one do not.
const APART_MAX: u32 = 3;

/// The last settle of each process.
#[derive(Default)]
pub(super) struct Batching {
    last: BTreeMap<(String, u32), Last>,
}

/// A settle, and when its answer came.
struct Last {
    settle: Settle,
    at: Tick,
    /// How many before it could have taken what followed them at once, in a row.
    apart: u32,
}

/// A transaction that records pages.
#[derive(Clone, Debug)]
pub(super) struct Settle {
    writes: usize,
    pages: BTreeSet<String>,
    /// Its generation, as all its pages'.
    generation: i64,
    /// Writes that its first page takes, with the pages that its items move to.
    first: usize,
}

impl Settle {
    /// What this transaction records; none: it does something else.
    pub(super) fn of(writes: &[Write]) -> Option<Self> {
        let is_page = |write: &&Write| write.key.pk.starts_with("page#");
        let is_new = |write: &Write| write.when.contains(&Condition::Absent);
        let pages: Vec<&Write> = writes.iter().filter(is_page).collect();
        let first = pages.first().filter(|write| !is_new(write))?;
        let more = pages[1..].iter().take_while(|write| is_new(write)).count();
        let trommel::ports::table::Change::Put(row) = &first.change else {
            return None;
        };
        // A redrive reopens pages one by one, and so are pages of the dead taken over.
        let status = row.text("status");
        if status == Some("ready") || row.num("deaths").is_some() {
            return None;
        }
        Some(Self {
            writes: writes.len(),
            generation: row.num("gen")?,
            first: 1 + more,
            pages: pages.iter().map(|write| write.key.sk.clone()).collect(),
        })
    }
}

impl Batching {
    /// What is wrong with this transaction, in a sentence; else how many before it could have taken what followed.
    pub(super) fn begins(
        &self,
        (who, incarnation): (&str, u32),
        settle: &Settle,
        now: Tick,
        writes_max: usize,
    ) -> Result<u32, String> {
        let writes = settle.writes;
        if writes > writes_max && settle.pages.len() > settle.first {
            return Err(format!(
                "L7: {who} settles by {writes} writes, {writes_max} may go together"
            ));
        }
        let Some(last) = self.last.get(&(who.to_owned(), incarnation)) else {
            return Ok(0);
        };
        // What follows at once is most often of the same group.
        let goes_on = last.at == now && last.settle.generation == settle.generation;
        let fits = last.settle.writes + settle.first <= writes_max;
        let is_new = last.settle.pages.is_disjoint(&settle.pages);
        if !(goes_on && fits && is_new) {
            return Ok(0);
        }
        let apart = last.apart + 1;
        if apart < APART_MAX {
            return Ok(apart);
        }
        let last = &last.settle;
        Err(format!(
            "L7: {who} settles {settle:?} apart from {last:?}, {writes_max} writes may go together"
        ))
    }

    /// It is recorded.
    pub(super) fn ends(
        &mut self,
        (who, incarnation): (&str, u32),
        settle: Settle,
        at: Tick,
        apart: u32,
    ) {
        let last = Last { settle, at, apart };
        self.last.insert((who.to_owned(), incarnation), last);
    }
}
