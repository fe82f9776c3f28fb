//! Sessions and permits: who is at work, and how many calls each may run.
//!
//! A session shows that it lives by a beat, a number that grows; nobody compares clocks. Permits move
//! in blocks between the job's pool and a session, in one transaction, so that
//! lent = Σ held at every moment, and max concurrency holds over all processes.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::id::{JobName, RunId, SessionId, WriteId};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Timestamp;
use crate::ports::{Condition, Key, Query, Row, Update, Write};

use super::error::{LedgerError, damaged};
use super::{Ledger, SCHEMA_VERSION, UNCLEAR_TRIES_MAX, keys, unclear};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// It beats.
    Live,
    /// It was found without a beat for its whole duration.
    Dead,
    /// It ended by itself.
    Closed,
}

impl SessionStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Closed => "closed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::Dead, Self::Closed]
            .into_iter()
            .find(|s| s.as_str() == name)
    }
}

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// Where it stands.
    pub status: SessionStatus,
    /// Grows while it lives.
    pub beat: i64,
    /// It counts as dead after so long without a beat.
    pub duration: Duration,
    /// Permits it holds.
    pub permits: u32,
    /// The runs it may lease or settle pages of, and how many of their items it has in calls.
    pub running: BTreeMap<RunId, u64>,
    /// Who it is, for people: host and process.
    pub who: String,
    /// It takes in events, and no message that waits was sent before this; none: the queue was empty.
    pub oldest_message: Option<Timestamp>,
}

/// The job's permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Calls at one time, over all sessions.
    pub max: u32,
    /// Permits that sessions hold.
    pub lent: u32,
}

/// Where a row tells of the oldest message.
const OLDEST: &str = "oldestMessage";

/// Another session may take from the pool between the look and the taking.
const RACES_MAX: u32 = 10;

/// The permits in a session's own row. Nobody else changes them while it lives, so what its opening or a move left that
/// was clearly answered is still so, and need not be read again. What was only read may yet be changed by a move of before
/// that comes late.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnPermits {
    permits: u32,
    /// The name of the move that made them so.
    moved: Option<String>,
}

impl OwnPermits {
    /// As a move of this name leaves them.
    fn after(&self, change: i32, name: &WriteId) -> Self {
        Self {
            permits: self.permits.saturating_add_signed(change),
            moved: Some(name.to_string()),
        }
    }
}

impl Ledger {
    /// Announces this session.
    pub async fn open_session(
        &self,
        job: &JobName,
        duration: Duration,
        who: &str,
    ) -> Result<(), LedgerError> {
        let row = Row::new()
            .with("v", SCHEMA_VERSION)
            .with("status", SessionStatus::Live.as_str())
            .with("beat", 0)
            .with(
                "durationMs",
                i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
            )
            .with("permits", 0)
            .with("running", "")
            .with("who", who);
        let key = keys::session(job, &self.session);
        for _ in 0..UNCLEAR_TRIES_MAX {
            match self.write(Write::create(key.clone(), row.clone())).await {
                Ok(_) => {}
                // The name is drawn at random: a row of that name is the one just written.
                Err(error) if error.is_condition() => {}
                Err(error) if error.is_unclear() => continue,
                Err(error) => return Err(error),
            }
            *self.known() = Some(OwnPermits::default());
            return Ok(());
        }
        Err(unclear("a session's opening"))
    }

    /// One beat: renews every lease of this session, and tells of what it takes in.
    ///
    /// # Errors
    /// [`LedgerError::Raced`] if the session was marked dead: its leases are no more.
    pub async fn beat(
        &self,
        job: &JobName,
        running: &BTreeMap<RunId, u64>,
        oldest_message: Option<Timestamp>,
    ) -> Result<(), LedgerError> {
        let running: Vec<String> = running
            .iter()
            .map(|(run, items)| format!("{run}={items}"))
            .collect();
        let mut updates = vec![
            Update::Add("beat".into(), 1),
            Update::Set("running".into(), running.join(" ").into()),
            match oldest_message {
                Some(sent) => Update::Set(OLDEST.into(), sent.0.into()),
                None => Update::Remove(OLDEST.into()),
            },
        ];
        if is_planted(Bug::BeatsCarryTheJob) {
            updates.push(Update::Set("job".into(), "x".repeat(256 * 1024).into()));
        }
        let when = vec![live()];
        match self
            .write(Write::update(
                keys::session(job, &self.session),
                when,
                updates,
            ))
            .await
        {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            result => result.map(|_| ()),
        }
    }

    /// All sessions of a job that have a row.
    pub async fn sessions(&self, job: &JobName) -> Result<Vec<SessionRow>, LedgerError> {
        const ROWS: usize = 1000;
        let pk = keys::sessions(job);
        let mut sessions = Vec::new();
        for (sk, row) in self.query_all(Query::all(&pk, ROWS), usize::MAX).await? {
            sessions.push(decode(&row, &pk, &sk)?);
        }
        Ok(sessions)
    }

    /// Makes the pool, or sets its maximum. Lowering it below what is lent takes effect as permits come
    /// back.
    pub async fn set_pool(&self, job: &JobName, max: u32) -> Result<(), LedgerError> {
        let updates = vec![
            Update::Set("v".into(), SCHEMA_VERSION.into()),
            Update::Set("max".into(), i64::from(max).into()),
            Update::Add("lent".into(), 0),
        ];
        self.write_at_will(Write::update(keys::pool(job), Vec::new(), updates))
            .await
    }

    /// The pool as it is.
    pub async fn pool(&self, job: &JobName) -> Result<Pool, LedgerError> {
        let Some(row) = self.get(&keys::pool(job)).await? else {
            return Ok(Pool::default());
        };
        let number = |name| {
            row.num(name)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0)
        };
        Ok(Pool {
            max: number("max"),
            lent: number("lent"),
        })
    }

    /// Takes up to `wanted` permits; answers how many. This session counts `held` now; what an unclear
    /// answer left in its row beyond that is found again here, and counts as taken.
    ///
    /// # Errors
    /// How many it holds is then unclear: at least `held`.
    pub async fn take_permits(
        &self,
        job: &JobName,
        held: u32,
        wanted: u32,
    ) -> Result<u32, LedgerError> {
        for _ in 0..RACES_MAX {
            let own = self.known_permits(job).await?;
            if own.permits != held {
                let more = own.permits.checked_sub(held).ok_or_else(|| {
                    let has = own.permits;
                    LedgerError::Broken(format!("the session counts {held} permits and has {has}"))
                })?;
                self.fence(job, &own).await?;
                return Ok(more);
            }
            let pool = self.pool(job).await?;
            let lent = if is_planted(Bug::PermitsUnbounded) {
                0
            } else {
                pool.lent
            };
            let take = wanted.min(pool.max.saturating_sub(lent));
            if take == 0 {
                if is_planted(Bug::VainPermitsKnown) {
                    *self.known() = Some(own);
                    return Ok(0);
                }
                if is_planted(Bug::VainPermitsUnfenced) {
                    return Ok(0);
                }
                // What was asked for in vain may not be lent later, when nobody may ask any more and so find it.
                if self.known().is_none() {
                    self.fence(job, &own).await?;
                }
                return Ok(0);
            }
            let most = i64::from(pool.max) - i64::from(take);
            let mut from_pool = vec![
                Condition::Equals("max".into(), i64::from(pool.max).into()),
                Condition::AtMost("lent".into(), most),
            ];
            if is_planted(Bug::PermitsUnbounded) {
                from_pool.clear();
            }
            match self
                .move_permits(job, &own, from_pool, take.cast_signed())
                .await
            {
                Ok(()) => return Ok(take),
                Err(LedgerError::Raced) => {}
                Err(error) => return Err(error),
            }
        }
        Err(LedgerError::Raced)
    }

    /// Gives permits back to the pool, until this session's row holds `kept`.
    ///
    /// # Errors
    /// It may or may not have happened, or happen yet: the session must not count them as its own.
    pub async fn give_permits(&self, job: &JobName, kept: u32) -> Result<(), LedgerError> {
        let own = self.known_permits(job).await?;
        if own.permits == kept {
            // What was left unclear may not happen any more.
            return self.fence(job, &own).await;
        }
        if is_planted(Bug::DeadForgottenAtOnce) {
            let change = kept.cast_signed() - own.permits.cast_signed();
            return self.move_permits(job, &own, Vec::new(), change).await;
        }
        // With fewer it was marked dead, and what it held was given back for it.
        let back = own.permits.checked_sub(kept).ok_or(LedgerError::Raced)?;
        self.move_permits(job, &own, Vec::new(), -back.cast_signed())
            .await
    }

    /// The permits in this session's row, as the last move left them if that is clear; else as they are now.
    async fn known_permits(&self, job: &JobName) -> Result<OwnPermits, LedgerError> {
        let known = self.known().clone();
        match known {
            Some(known) => Ok(known),
            None => self.own_permits(job).await,
        }
    }

    /// What is clear of this session's permits.
    fn known(&self) -> MutexGuard<'_, Option<OwnPermits>> {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permits in this session's row.
    async fn own_permits(&self, job: &JobName) -> Result<OwnPermits, LedgerError> {
        let row = self.get(&keys::session(job, &self.session)).await?;
        let row = row.ok_or(LedgerError::Raced)?;
        let permits = row.num("permits").and_then(|n| u32::try_from(n).ok());
        Ok(OwnPermits {
            permits: permits.unwrap_or(0),
            moved: row.text("moved").map(str::to_owned),
        })
    }

    /// Writes a name, so that no former move can happen any more.
    async fn fence(&self, job: &JobName, own: &OwnPermits) -> Result<(), LedgerError> {
        let name = self.next_write();
        *self.known() = None;
        self.write(self.own_write(job, own, 0, &name)).await?;
        *self.known() = Some(own.after(0, &name));
        Ok(())
    }

    /// The session's half of a move. Like a page's writes, moves form a chain: each has a name, and is
    /// conditional on the one before. So none happens late, and no two have the same content, by which
    /// the endpoint would take them for one.
    fn own_write(&self, job: &JobName, own: &OwnPermits, change: i64, name: &WriteId) -> Write {
        let former = match &own.moved {
            Some(moved) => Condition::Equals("moved".into(), moved.as_str().into()),
            None => Condition::Missing("moved".into()),
        };
        Write::update(
            keys::session(job, &self.session),
            vec![live(), former],
            vec![
                Update::Add("permits".into(), change),
                Update::Set("moved".into(), name.as_str().into()),
            ],
        )
    }

    /// Moves permits between pool and session, and makes sure whether it happened.
    async fn move_permits(
        &self,
        job: &JobName,
        own: &OwnPermits,
        when: Vec<Condition>,
        change: i32,
    ) -> Result<(), LedgerError> {
        let name = self.next_write();
        let lent = vec![Update::Add("lent".into(), change.into())];
        let pool = Write::update(keys::pool(job), when, lent);
        let writes = vec![pool, self.own_write(job, own, change.into(), &name)];
        let was_clear = self.known().take().is_some();
        for tries in 0..UNCLEAR_TRIES_MAX {
            let Err(error) = self.transact(writes.clone()).await else {
                *self.known() = Some(own.after(change, &name));
                return Ok(());
            };
            if is_planted(Bug::PermitsAssumed) {
                return Ok(());
            }
            if was_clear && tries == 0 && error.is_condition() {
                // Refused at once: nothing happened, and nothing will.
                *self.known() = Some(own.clone());
                return Err(LedgerError::Raced);
            }
            let now = self.own_permits(job).await?;
            if now.moved.as_deref() == Some(name.as_str()) {
                *self.known() = Some(now);
                return Ok(());
            }
            if error.is_condition() {
                return Err(LedgerError::Raced);
            }
        }
        Err(unclear("a move of permits"))
    }

    /// Marks a session dead, if it has not beaten since it was read, and returns its permits.
    ///
    /// # Errors
    /// [`LedgerError::Raced`] if it lives.
    pub async fn mark_dead(&self, job: &JobName, seen: &SessionRow) -> Result<(), LedgerError> {
        self.end_session(job, seen, SessionStatus::Dead).await
    }

    /// Ends this session: its permits go back.
    pub async fn close_session(&self, job: &JobName) -> Result<(), LedgerError> {
        let key = keys::session(job, &self.session);
        let Some(row) = self.get(&key).await? else {
            return Ok(());
        };
        let own = decode(&row, &key.pk, &key.sk)?;
        if own.status != SessionStatus::Live {
            return Ok(());
        }
        self.end_session(job, &own, SessionStatus::Closed).await
    }

    async fn end_session(
        &self,
        job: &JobName,
        seen: &SessionRow,
        status: SessionStatus,
    ) -> Result<(), LedgerError> {
        let permits = i64::from(seen.permits);
        let session = Write::update(
            keys::session(job, &seen.id),
            vec![
                live(),
                Condition::Equals("beat".into(), seen.beat.into()),
                Condition::Equals("permits".into(), permits.into()),
            ],
            vec![
                Update::Set("status".into(), status.as_str().into()),
                Update::Set("permits".into(), 0.into()),
                Update::Set("running".into(), "".into()),
            ],
        );
        let result = if permits == 0 || is_planted(Bug::DeadKeepTheirPermits) {
            self.write(session).await.map(|_| ())
        } else {
            let updates = vec![Update::Add("lent".into(), -permits)];
            let pool = Write::update(keys::pool(job), Vec::new(), updates);
            self.transact(vec![session, pool]).await
        };
        match result {
            Err(error) if error.is_condition() => Err(LedgerError::Raced),
            result => result,
        }
    }

    /// Removes the row of a session that has ended and holds no page any more.
    pub async fn forget_session(
        &self,
        job: &JobName,
        session: &SessionId,
    ) -> Result<(), LedgerError> {
        let write = Write {
            key: keys::session(job, session),
            when: Vec::new(),
            change: crate::ports::table::Change::Delete,
        };
        self.write(write).await.map(|_| ())
    }
}

fn live() -> Condition {
    Condition::Equals("status".into(), SessionStatus::Live.as_str().into())
}

fn decode(row: &Row, pk: &str, sk: &str) -> Result<SessionRow, LedgerError> {
    let bad = |what: &str| damaged(&Key::new(pk, sk), format!("{what} cannot be read"));
    let status = row.text("status").and_then(SessionStatus::from_name);
    let duration = row.num("durationMs").and_then(|n| u64::try_from(n).ok());
    let mut running = BTreeMap::new();
    for entry in row.text("running").unwrap_or("").split_whitespace() {
        let (run, items) = entry.split_once('=').ok_or_else(|| bad("running"))?;
        running.insert(RunId::new(run), items.parse().map_err(|_| bad("running"))?);
    }
    Ok(SessionRow {
        id: SessionId::new(sk),
        status: status.ok_or_else(|| bad("status"))?,
        beat: row.num("beat").ok_or_else(|| bad("beat"))?,
        duration: Duration::from_millis(duration.ok_or_else(|| bad("durationMs"))?),
        permits: row
            .num("permits")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        running,
        who: row.text("who").unwrap_or("").to_owned(),
        oldest_message: row.num(OLDEST).map(Timestamp),
    })
}
