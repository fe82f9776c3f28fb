//! `Table`: a small typed subset of DynamoDB, enough for the ledger and no more.
//!
//! Conditions and updates are a closed enum, without expression strings: so the rules of the ledger are
//! visible to the simulator, and adapters are mechanical.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;

/// A row's name: partition key and sort key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key; rows of one partition are ordered by its bytes.
    pub sk: String,
}

impl Key {
    /// A key of both halves.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            sk: sk.into(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.pk)?;
        f.write_str(" / ")?;
        f.write_str(&self.sk)
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A whole number.
    Num(i64),
    /// Text; may be empty. Shared by those who hold the row.
    Text(Arc<str>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Num(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// An attribute's name; those of the ledger are constants.
pub type Name = Cow<'static, str>;

/// What a number counts as, at most ("Item sizes and formats").
pub const NUM_BYTES: usize = 21;

/// A row's attributes, without its key. Cheap to clone: those who only look share them.
///
/// They are few, so they lie side by side, in the order of their names, and are found by comparing lengths first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row(Arc<Vec<(Name, Value)>>);

impl FromIterator<(Name, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(attributes: I) -> Self {
        let mut row = Self::new();
        for (name, value) in attributes {
            row.set(name, value);
        }
        row
    }
}

impl Row {
    /// No attributes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// This row with one attribute more.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.set(name.into(), value.into());
        self
    }

    /// Gives an attribute this value.
    pub fn set(&mut self, name: Name, value: Value) {
        let at = self.place(&name);
        let attributes = Arc::make_mut(&mut self.0);
        match at {
            Ok(at) => attributes[at].1 = value,
            Err(at) => attributes.insert(at, (name, value)),
        }
    }

    /// Where this attribute lies, or would.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(other, _)| other.as_ref().cmp(name))
    }

    /// The attribute's value, if it is there.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut attributes = self.0.iter();
        let (_, value) = attributes.find(|(other, _)| other == name)?;
        Some(value)
    }

    /// What it counts as, without its key: names and values, a number 21 bytes ("Item sizes and formats").
    pub fn bytes(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Num(_) => NUM_BYTES,
            Value::Text(text) => text.len(),
        };
        self.0
            .iter()
            .map(|(name, held)| name.len() + value(held))
            .sum()
    }

    /// How many attributes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All attributes, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// A number, if the attribute is there and is one.
    pub fn num(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Num(number) => Some(*number),
            Value::Text(_) => None,
        }
    }

    /// A text, if the attribute is there and is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            Value::Num(_) => None,
        }
    }

    /// Whether all of `conditions` hold for a row (`None`: there is none). The rule that every
    /// implementation follows; in-process ones call it.
    pub fn meets(row: Option<&Self>, conditions: &[Condition]) -> bool {
        conditions.iter().all(|condition| condition.holds(row))
    }

    /// Applies updates in their order; those in-process implementations call it.
    pub fn apply(&mut self, updates: Vec<Update>) {
        for update in updates {
            match update {
                Update::Set(name, value) => self.set(name, value),
                Update::Add(name, number) => {
                    let sum = self.num(&name).unwrap_or(0) + number;
                    self.set(name, Value::Num(sum));
                }
                Update::Remove(name) => {
                    if let Ok(at) = self.place(&name) {
                        Arc::make_mut(&mut self.0).remove(at);
                    }
                }
            }
        }
    }
}

/// What must hold for a write to happen. All conditions of a write must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// There is no such row.
    Absent,
    /// There is such a row.
    Present,
    /// The attribute is there and equal.
    Equals(Name, Value),
    /// The attribute is missing (or the whole row is).
    Missing(Name),
    /// The attribute is a number and not greater.
    AtMost(Name, i64),
    /// The attribute is a number and not less.
    AtLeast(Name, i64),
}

impl Condition {
    /// Whether it holds for a row (`None`: there is none).
    pub fn holds(&self, row: Option<&Row>) -> bool {
        match self {
            Self::Absent => row.is_none(),
            Self::Present => row.is_some(),
            Self::Equals(name, value) => row.is_some_and(|row| row.get(name) == Some(value)),
            Self::Missing(name) => row.is_none_or(|row| row.get(name).is_none()),
            Self::AtMost(name, most) => row
                .and_then(|row| row.num(name))
                .is_some_and(|number| number <= *most),
            Self::AtLeast(name, least) => row
                .and_then(|row| row.num(name))
                .is_some_and(|number| number >= *least),
        }
    }
}

/// How one attribute changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Update {
    /// Becomes this.
    Set(Name, Value),
    /// Grows by this (shrinks, if negative); a missing attribute counts as 0.
    Add(Name, i64),
    /// Goes away.
    Remove(Name),
}

/// What happens to a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It becomes exactly this, whatever it was.
    Put(Row),
    /// These attributes change, each named at most once; a row that is not there is created.
    Update(Vec<Update>),
    /// It goes away; no error if it was not there.
    Delete,
    /// Nothing; only the conditions are checked. In a transaction only.
    Check,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Which row.
    pub key: Key,
    /// Only if all of these hold.
    pub when: Vec<Condition>,
    /// What happens to it.
    pub change: Change,
}

impl Write {
    /// A put of a row that is not there yet.
    pub fn create(key: Key, row: Row) -> Self {
        Self {
            key,
            when: vec![Condition::Absent],
            change: Change::Put(row),
        }
    }

    /// An update under conditions.
    pub fn update(key: Key, when: Vec<Condition>, updates: Vec<Update>) -> Self {
        Self {
            key,
            when,
            change: Change::Update(updates),
        }
    }
}

/// Which state a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// All writes that were answered before the read began.
    Strong,
    /// Some earlier state, for half the price.
    Eventual,
}

/// A stretch of one partition, in the order of sort keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The partition.
    pub pk: String,
    /// From this sort key on, inclusive.
    pub from: String,
    /// Up to this sort key, inclusive.
    pub to: String,
    /// Only after this sort key: where a former page of results ended.
    pub after: Option<String>,
    /// At most so many rows, at least 1.
    pub limit: usize,
    /// Which state it may see.
    pub consistency: Consistency,
}

impl Query {
    /// The greatest sort key there can be in the ledger: all of ours are ASCII below it.
    pub const LAST: &'static str = "~";

    /// A whole partition, strongly consistent, `limit` rows at a time.
    pub fn all(pk: impl Into<String>, limit: usize) -> Self {
        Self {
            pk: pk.into(),
            from: " ".to_owned(),
            to: Self::LAST.to_owned(),
            after: None,
            limit,
            consistency: Consistency::Strong,
        }
    }

    /// Narrowed to these sort keys, both inclusive.
    #[must_use]
    pub fn between(self, from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            ..self
        }
    }
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPage {
    /// Sort keys and rows, in order.
    pub rows: Vec<(String, Row)>,
    /// Set where there may be more: goes into [`Query::after`]. A page may be short, even empty, and
    /// still have a next one (DynamoDB ends a page at 1 MB).
    pub next: Option<String>,
}

/// What an endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableProfile {
    /// The most writes in one transaction: 100 on DynamoDB ("TransactWriteItems"), 10 on the
    /// DynamoDB Local of 2020. No rule of the ledger needs more than 10.
    pub transact_writes_max: usize,
    /// The largest row; 400 KB on DynamoDB ("Service quotas").
    pub row_bytes_max: usize,
    /// How long a session gathers outcomes before it settles them: short where a commit is cheap.
    pub settle_within: std::time::Duration,
}

/// Why a call failed, by what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Nothing was written: these writes' conditions did not hold (indexes into the transaction; 0
    /// for a single write).
    #[error("the conditions of writes {failed:?} did not hold")]
    ConditionFailed {
        /// Which writes, ascending.
        failed: Vec<usize>,
    },
    /// Nothing was written: another transaction was at it. Try again.
    #[error("another transaction was at it")]
    Conflict,
    /// Nothing was written: too fast. Try again, later.
    #[error("throttled: {0}")]
    Throttled(String),
    /// It may or may not have been written: read before deciding.
    #[error("no answer: {0}")]
    Unclear(String),
    /// It will not work by trying again: access, a missing table, a full disk, a bound.
    #[error("{0}")]
    Refused(String),
}

/// The ledger's store. Implementations: SQLite, in process, DynamoDB, the simulator's model.
#[async_trait]
pub trait Table: Send + Sync {
    /// What this endpoint can do. Does not change.
    fn profile(&self) -> TableProfile;

    /// The row, if there is one.
    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError>;

    /// Does one write, atomically, and answers the row as it is then (`None` after a delete). Durable
    /// once answered. [`Change::Check`] is refused.
    async fn write(&self, write: Write) -> Result<Option<Row>, TableError>;

    /// Does all writes or none, atomically and isolated from every other write. Two writes may not
    /// name the same row. A transaction with the token of one that was done within the last ten
    /// minutes is not done again, and succeeds (DynamoDB, "ClientRequestToken"; an implementation may
    /// instead do it again, as its conditions then decide: the ledger's transactions are safe under both).
    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError>;

    /// Rows of one partition in the byte order of their sort keys.
    async fn query(&self, query: Query) -> Result<QueryPage, TableError>;
}
