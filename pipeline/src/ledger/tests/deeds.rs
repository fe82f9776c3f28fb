//! What sessions do in several calls: take over, reopen, redrive, bury, and at last clear up.

use std::sync::Arc;

use super::audit::{Audit, Checked};
use super::faulty::{Store, finish};
use super::scene::{self, Session, all_well, job, packed, page_id, run_id};
use crate::core::id::{Generation, PageId};
use crate::core::outcome::Outcome;
use crate::core::page::{Mark, PageStatus};
use crate::core::run::{RunEvent, RunStatus};
use crate::core::time::Timestamp;
use crate::ledger::{
    Ledger, LedgerError, Redrive, RunChange, SessionRow, SessionStatus, SettleEnd,
};

/// A page, or one that an item of it moved to.
pub(super) fn some_page(which: u8) -> PageId {
    let page = page_id(u32::from(which) % scene::PAGES);
    match which {
        0..=219 => page,
        220.. => page.escalation_of(which % scene::PAGE_ITEMS as u8),
    }
}

pub(super) async fn take_over(ledger: &Ledger, page: PageId) -> Result<(), LedgerError> {
    let Some(held) = ledger.page(&run_id(), page).await? else {
        return Ok(());
    };
    let PageStatus::Leased { session } = held.page.status.clone() else {
        return Ok(());
    };
    let sessions = ledger.sessions(&job()).await?;
    let lives = |row: &&SessionRow| row.id == session && row.status == SessionStatus::Live;
    if sessions.iter().find(lives).is_none() {
        ledger.take_over(&run_id(), &held, &session).await?;
    }
    Ok(())
}

pub(super) async fn stop_and_redrive(
    ledger: &Ledger,
    redrive: &Redrive,
) -> Result<RunChange, LedgerError> {
    let mut row = ledger.run(&run_id()).await?;
    if row.state.status == RunStatus::Running {
        ledger.change_run(&row, &RunEvent::Stop, None).await?;
        row = ledger.run(&run_id()).await?;
    }
    ledger
        .change_run(&row, &RunEvent::Redrive, Some(redrive))
        .await
}

pub(super) async fn reopen(ledger: &Ledger, page: PageId) -> Result<(), LedgerError> {
    let generation = ledger.run(&run_id()).await?.state.generation;
    let Some(held) = ledger.page(&run_id(), page).await? else {
        return Ok(());
    };
    let failed = |mark: Mark| match mark {
        Mark::Done(outcome) => outcome != Outcome::Succeeded,
        Mark::Pending | Mark::Moved => false,
    };
    let items = (0u8..).zip(&held.page.items);
    let items = items.filter(|(_, item)| failed(item.mark));
    let items = items.map(|(index, _)| index).collect();
    ledger
        .reopen(&run_id(), &held, generation, items)
        .await
        .map(|_| ())
}

pub(super) async fn bury(ledger: &Ledger, which: u8) -> Result<(), LedgerError> {
    let mut sessions = ledger.sessions(&job()).await?;
    sessions.retain(|row| row.status == SessionStatus::Live && row.id != *ledger.session());
    let Some(which) = usize::from(which).checked_rem(sessions.len()) else {
        return Ok(());
    };
    ledger.mark_dead(&job(), &sessions[which]).await
}

/// Without faults from here on: everybody is buried, and a last session finishes the work.
pub(super) fn clear_up(store: &Arc<Store>, audit: &mut Audit) -> Checked {
    let last = Session::open(store, "last").ledger;
    for row in audit.sessions() {
        if row.id != *last.session() && row.status == SessionStatus::Live {
            finish(last.mark_dead(&job(), &row)).map_err(|e| format!("burying: {e}"))?;
        }
    }
    finish(last.create_pages(&run_id(), &packed(), Generation(0)))
        .map_err(|e| format!("making pages: {e}"))?;
    audit.look()?;
    let pages: Vec<PageId> = audit.all_pages().map(|held| held.page.id).collect();
    for page in pages {
        finish(take_over(&last, page)).map_err(|e| format!("taking {page} over: {e}"))?;
        audit.look()?;
        if audit.page(page).map(|held| &held.page.status) == Some(&PageStatus::Settled) {
            continue;
        }
        let held = finish(last.lease(&run_id(), page, Timestamp(i64::MAX)))
            .map_err(|e| format!("L1: leasing {page}: {e}"))?;
        audit.look()?;
        let ends = finish(last.settle(&run_id(), vec![all_well(&held)]))
            .map_err(|e| format!("L1: settling {page}: {e}"))?;
        audit.look()?;
        let settled = matches!(&ends[..], [SettleEnd::Recorded(held)]
            if held.page.status == PageStatus::Settled);
        if !settled {
            return Err(format!("L1: {page} ended as {ends:?}"));
        }
    }
    let lent: u32 = audit.sessions().iter().map(|row| row.permits).sum();
    if lent > 0 {
        return Err(format!("L4: {lent} permits are still lent"));
    }
    Ok(())
}
