//! The rules of a table: what a write comes to after all that was written before.
//!
//! Rows are those of the plainest table there is, the one in memory. As DynamoDB does, a table knows the
//! tokens of transactions for ten minutes. What it makes of one that it knows is its only choice.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use trommel::adapters::memory::{MemoryTable, RowChange};
use trommel::core::time::Tick;
use trommel::ports::table::{QueryPage, TableProfile};
use trommel::ports::{Key, Query, Row, Table as _, TableError, Write};

use super::Illegal;
use crate::exec::lock;

/// How long DynamoDB knows a transaction's token ("TransactWriteItems", ClientRequestToken).
const TOKENS_LAST: Duration = Duration::from_mins(10);

/// Histories that may fit at one time: each known token doubles them until a read tells them apart.
const WORLDS_MAX: usize = 1024;

/// One request that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One write.
    Write(Write),
    /// Several, together.
    Transact {
        /// Names it: the same token is the same transaction.
        token: String,
        /// The writes.
        writes: Vec<Write>,
    },
}

impl Request {
    /// What it writes.
    pub fn writes(&self) -> &[Write] {
        match self {
            Self::Write(write) => std::slice::from_ref(write),
            Self::Transact { writes, .. } => writes,
        }
    }
}

/// What a table makes of a transaction that it did within the last ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownToken {
    /// It says so and does nothing, as DynamoDB does.
    Answered,
    /// It does it again, as the port allows: its conditions decide.
    DoneAgain,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was done now, to these rows.
    Now(Vec<RowChange>),
    /// It had been done before.
    Before,
}

impl Done {
    /// What the port answers: of a single write, the row as it is then.
    pub fn answer(&self, request: &Request) -> Option<Row> {
        match (request, self) {
            (Request::Write(_), Self::Now(changes)) => changes[0].after.clone(),
            (Request::Transact { .. }, Self::Now(_)) | (_, Self::Before) => None,
        }
    }
}

/// A table that plays by the rules.
#[derive(Clone, Debug)]
pub struct TableRules {
    rows: MemoryTable,
    tokens: Tokens,
}

#[derive(Debug, Default)]
struct Tokens(Mutex<BTreeMap<String, Tick>>);

impl Clone for Tokens {
    fn clone(&self) -> Self {
        Self(Mutex::new(lock(&self.0).clone()))
    }
}

impl TableRules {
    /// An empty table.
    pub fn new(profile: TableProfile) -> Self {
        Self {
            rows: MemoryTable::new(profile),
            tokens: Tokens::default(),
        }
    }

    /// What it claims to do.
    pub fn profile(&self) -> TableProfile {
        self.rows.profile()
    }

    /// Whether it did a transaction of this token within the last ten minutes.
    pub fn knows(&self, token: &str, now: Tick) -> bool {
        let done = lock(&self.tokens.0).get(token).copied();
        done.is_some_and(|at| now.since(at) < TOKENS_LAST)
    }

    /// The row, if there is one.
    ///
    /// # Errors
    /// A key that no row can have.
    pub fn get(&self, key: &Key) -> Result<Option<Row>, TableError> {
        self.rows.row(key)
    }

    /// Rows in the order of their sort keys.
    ///
    /// # Errors
    /// A query that no table answers.
    pub fn query(&self, query: &Query) -> Result<QueryPage, TableError> {
        self.rows.rows(query)
    }

    /// Does a request, in one step.
    ///
    /// # Errors
    /// As [`trommel::ports::Table`] has them: a condition that does not hold, or a request that no table takes.
    pub fn change(
        &self,
        request: &Request,
        now: Tick,
        known: KnownToken,
    ) -> Result<Done, TableError> {
        match request {
            Request::Write(write) => Ok(Done::Now(vec![self.rows.change(write)?])),
            Request::Transact { token, .. }
                if known == KnownToken::Answered && self.knows(token, now) =>
            {
                Ok(Done::Before)
            }
            Request::Transact { token, writes } => {
                let changes = self.rows.change_all(writes)?;
                lock(&self.tokens.0).insert(token.clone(), now);
                Ok(Done::Now(changes))
            }
        }
    }
}

/// The histories of a table that fit all that was seen of it.
#[derive(Clone, Debug)]
pub struct TableWorlds {
    worlds: Vec<TableRules>,
}

/// Alike for those who asked: the words of a refusal are each table's own.
fn alike<T: PartialEq>(one: &Result<T, TableError>, other: &Result<T, TableError>) -> bool {
    match (one, other) {
        (Err(TableError::Refused(_)), Err(TableError::Refused(_))) => true,
        (one, other) => one == other,
    }
}

impl TableWorlds {
    /// Of a table that is empty.
    pub fn new(profile: TableProfile) -> Self {
        Self {
            worlds: vec![TableRules::new(profile)],
        }
    }

    /// How many fit.
    pub fn count(&self) -> usize {
        self.worlds.len()
    }

    /// A request was answered so.
    ///
    /// # Errors
    /// No history allows that.
    pub fn saw_change(
        &mut self,
        request: &Request,
        answer: &Result<Option<Row>, TableError>,
        now: Tick,
    ) -> Result<(), Illegal> {
        let mut fitting = Vec::new();
        let mut allowed = Vec::new();
        for world in &self.worlds {
            for known in choices(world, request, now) {
                let next = world.clone();
                let done = next.change(request, now, *known);
                let done = done.map(|done| done.answer(request));
                if alike(&done, answer) {
                    fitting.push(next);
                }
                allowed.push(done);
            }
        }
        if fitting.is_empty() {
            return Err(Illegal(format!(
                "{request:?} was answered {answer:?}; allowed was {allowed:?}"
            )));
        }
        if fitting.len() > WORLDS_MAX {
            return Err(Illegal(format!("more than {WORLDS_MAX} histories fit")));
        }
        self.worlds = fitting;
        Ok(())
    }

    /// A strong read found this.
    ///
    /// # Errors
    /// No history allows that.
    pub fn saw_get(
        &mut self,
        key: &Key,
        answer: &Result<Option<Row>, TableError>,
    ) -> Result<(), Illegal> {
        self.keep_those(answer, &|world| {
            let row = world.get(key);
            let fits = alike(&row, answer);
            (fits, format!("{row:?}"))
        })
    }

    /// A strong query found this: all rows, or those up to where it says that it goes on.
    ///
    /// # Errors
    /// No history allows that.
    pub fn saw_query(
        &mut self,
        query: &Query,
        answer: &Result<QueryPage, TableError>,
    ) -> Result<(), Illegal> {
        self.keep_those(answer, &|world| {
            let page = world.query(query);
            let fits = match (&page, answer) {
                (Ok(whole), Ok(seen)) => is_part(seen, whole),
                (one, other) => alike(one, other),
            };
            (fits, format!("{page:?}"))
        })
    }

    fn keep_those<T: std::fmt::Debug>(
        &mut self,
        answer: &T,
        judge: &dyn Fn(&TableRules) -> (bool, String),
    ) -> Result<(), Illegal> {
        let mut allowed = Vec::new();
        self.worlds.retain(|world| {
            let (fits, told) = judge(world);
            allowed.push(told);
            fits
        });
        if self.worlds.is_empty() {
            return Err(Illegal(format!(
                "a read was answered {answer:?}; allowed was {allowed:?}"
            )));
        }
        Ok(())
    }
}

fn choices(world: &TableRules, request: &Request, now: Tick) -> &'static [KnownToken] {
    match request {
        Request::Transact { token, .. } if world.knows(token, now) => {
            &[KnownToken::Answered, KnownToken::DoneAgain]
        }
        Request::Transact { .. } | Request::Write(_) => &[KnownToken::Answered],
    }
}

/// Whether this is what a query may give that finds the whole: a page may be short, if it says so, and it may
/// say so although nothing is left.
fn is_part(seen: &QueryPage, whole: &QueryPage) -> bool {
    let is_prefix = whole.rows.starts_with(&seen.rows);
    let is_all = seen.rows.len() == whole.rows.len() && whole.next.is_none();
    is_prefix && (is_all || seen.next.is_some())
}

#[cfg(test)]
mod tests {
    use trommel::ports::{Condition, Update};

    use super::*;

    const PROFILE: TableProfile = TableProfile {
        transact_writes_max: 10,
        row_bytes_max: 1000,
        settle_within: Duration::ZERO,
    };

    fn grow() -> Request {
        let add = vec![Update::Add("n".into(), 1)];
        Request::Transact {
            token: "t".to_owned(),
            writes: vec![Write::update(Key::new("p", "s"), Vec::new(), add)],
        }
    }

    #[test]
    fn a_known_token_may_be_answered_or_done_again_until_a_read_tells() {
        let mut worlds = TableWorlds::new(PROFILE);
        for _ in 0..2 {
            worlds
                .saw_change(&grow(), &Ok(None), Tick(0))
                .expect("allowed");
        }
        assert_eq!(worlds.count(), 2);
        let row = |n: i64| Ok(Some(Row::new().with("n", n)));
        let key = Key::new("p", "s");
        worlds.saw_get(&key, &row(2)).expect("done again");
        assert_eq!(worlds.count(), 1);
        assert!(worlds.saw_get(&key, &row(1)).is_err());
    }

    #[test]
    fn a_token_is_forgotten_after_ten_minutes() {
        let rules = TableRules::new(PROFILE);
        let at = |seconds: u64| Tick::default() + Duration::from_secs(seconds);
        let change = |seconds| rules.change(&grow(), at(seconds), KnownToken::Answered);
        assert!(matches!(change(0), Ok(Done::Now(_))));
        assert_eq!(change(599), Ok(Done::Before));
        assert!(matches!(change(600), Ok(Done::Now(_))));
    }

    #[test]
    fn a_condition_that_holds_may_not_be_said_to_fail() {
        let mut worlds = TableWorlds::new(PROFILE);
        let key = Key::new("p", "s");
        let create = Request::Write(Write::create(key.clone(), Row::new()));
        let failed = Err(TableError::ConditionFailed { failed: vec![0] });
        assert!(worlds.saw_change(&create, &failed, Tick(0)).is_err());
        let needs = Request::Write(Write {
            when: vec![Condition::Present],
            ..Write::create(key, Row::new())
        });
        assert!(
            worlds
                .saw_change(&needs, &Ok(Some(Row::new())), Tick(0))
                .is_err()
        );
        assert_eq!(worlds.saw_change(&needs, &failed, Tick(0)), Ok(()));
    }
}
