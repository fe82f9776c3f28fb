//! The queues' statements. A message's handle is its number and how often it was delivered, so each
//! delivery has its own, and a former one fits no more.

use rusqlite::{Connection, params};

use crate::adapters::bounds::queue::parse_handle;
use crate::core::time::Timestamp;
use crate::ports::queue::{Depth, Handle, Message, Rejected};

/// What is asked of the writer for a queue. Times are absolute: decided by who asks.
#[derive(Debug)]
pub(super) enum Asked {
    /// Bodies, when each can be seen, and when this is.
    Send(Vec<(String, Timestamp)>, Timestamp),
    /// Deliveries to delete.
    Delete(Vec<Handle>),
    /// Deliveries to hide until then, with their place in the caller's batch.
    Change(Vec<(usize, Handle, Timestamp)>),
}

/// Takes up to `max` messages visible at `now`, hiding them until `until`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    pub(super) max: usize,
    pub(super) now: Timestamp,
    pub(super) until: Timestamp,
}

pub(super) fn take(
    connection: &Connection,
    queue: &str,
    take: Take,
) -> rusqlite::Result<Vec<Message>> {
    let mut select = connection.prepare_cached(
        "SELECT id, receives, body, sent_at_ms FROM messages WHERE queue = ?1 AND visible_at_ms <= ?2
         ORDER BY visible_at_ms, id LIMIT ?3",
    )?;
    let found = select
        .query_map(params![queue, take.now.0, take.max as i64], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, u32>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut update = connection
        .prepare_cached("UPDATE messages SET visible_at_ms = ?2, receives = ?3 WHERE id = ?1")?;
    let mut messages = Vec::with_capacity(found.len());
    for (id, receives, body, sent) in found {
        let receives = receives.saturating_add(1);
        update.execute(params![id, take.until.0, receives])?;
        messages.push(Message {
            id: id.to_string(),
            body,
            sent: Timestamp(sent),
            handle: Handle(format!("{id}-{receives}")),
            receive_count: receives,
        });
    }
    Ok(messages)
}

pub(super) fn depth(
    connection: &Connection,
    queue: &str,
    now: Timestamp,
) -> rusqlite::Result<Depth> {
    let mut count = connection.prepare_cached(
        "SELECT count(*), count(*) FILTER (WHERE visible_at_ms <= ?2) FROM messages
         WHERE queue = ?1",
    )?;
    count.query_row(params![queue, now.0], |row| {
        let (all, ready): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Depth {
            ready: ready.cast_unsigned(),
            hidden: (all - ready).cast_unsigned(),
        })
    })
}

pub(super) fn carry_out(
    connection: &Connection,
    queue: &str,
    asked: Asked,
) -> rusqlite::Result<Vec<Rejected>> {
    match asked {
        Asked::Send(entries, now) => send(connection, queue, entries, now),
        Asked::Delete(handles) => delete(connection, queue, &handles),
        Asked::Change(entries) => change(connection, queue, entries),
    }
}

fn send(
    connection: &Connection,
    queue: &str,
    entries: Vec<(String, Timestamp)>,
    now: Timestamp,
) -> rusqlite::Result<Vec<Rejected>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO messages (queue, visible_at_ms, receives, body, sent_at_ms)
         VALUES (?1, ?2, 0, ?3, ?4)",
    )?;
    for (body, visible_at) in entries {
        insert.execute(params![queue, visible_at.0, body, now.0])?;
    }
    Ok(Vec::new())
}

fn delete(
    connection: &Connection,
    queue: &str,
    handles: &[Handle],
) -> rusqlite::Result<Vec<Rejected>> {
    let mut delete = connection
        .prepare_cached("DELETE FROM messages WHERE id = ?1 AND receives = ?2 AND queue = ?3")?;
    let mut rejected = Vec::new();
    for (index, handle) in handles.iter().enumerate() {
        match parse_handle(handle) {
            Ok((id, receives)) => {
                delete.execute(params![id as i64, receives, queue])?;
            }
            Err(reason) => rejected.push(Rejected { index, reason }),
        }
    }
    Ok(rejected)
}

fn change(
    connection: &Connection,
    queue: &str,
    entries: Vec<(usize, Handle, Timestamp)>,
) -> rusqlite::Result<Vec<Rejected>> {
    let mut update = connection.prepare_cached(
        "UPDATE messages SET visible_at_ms = ?4 WHERE id = ?1 AND receives = ?2 AND queue = ?3",
    )?;
    let mut rejected = Vec::new();
    for (index, handle, until) in entries {
        let reason = match parse_handle(&handle) {
            Ok((id, receives)) => {
                let found = update.execute(params![id as i64, receives, queue, until.0])?;
                (found == 0).then(|| "the message is gone, or was delivered again".to_owned())
            }
            Err(reason) => Some(reason),
        };
        rejected.extend(reason.map(|reason| Rejected { index, reason }));
    }
    Ok(rejected)
}
