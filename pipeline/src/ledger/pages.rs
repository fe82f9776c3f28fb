//! Pages in the ledger: make, lease, note, settle, release, take over, reopen.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::core::id::{Generation, PageId, RunId, SHARDS, SessionId, WriteId};
use crate::core::invariant::{InvariantId, check};
use crate::core::lane::Lane;
use crate::core::packing::Packed;
use crate::core::page::{Effects, ItemState, Page, PageEvent, PageStatus, Refusal};
use crate::core::planted::{Bug, is_planted};
use crate::core::tally::Tally;
use crate::core::time::Timestamp;
use crate::ports::table::Change;
use crate::ports::{Condition, Key, Query, TableError, Write};

use super::error::LedgerError;
use super::{Fnv, Ledger, UNCLEAR_TRIES_MAX, keys, page_row, tallies, unclear};

/// The name of the first write to every page: the router's.
const FIRST_WRITE: &str = "new";

/// Rows read at a time when pages are gone through: each is below 1 KB, a query's page is 1 MB.
const QUERY_ROWS: usize = 500;

/// A page as it was last seen, with the name of the write that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The page.
    pub page: Page,
    /// Its last write.
    pub write: WriteId,
}

/// What a session records of one page it holds.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The page as it holds it.
    pub held: Held,
    /// The items as they are now.
    pub items: Vec<ItemState>,
    /// Where outputs were put, if any.
    pub outputs: Option<String>,
    /// Items that escalate, as indexes; they are marked moved in `items`.
    pub moved: Vec<u8>,
    /// Failures by class, for the tally.
    pub classes: Vec<String>,
}

/// What became of one settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleEnd {
    /// It is recorded; the page is this now.
    Recorded(Held),
    /// The lease is no more. (Should it be recorded and the page taken by somebody else since, that is lost too.)
    Lost,
}

impl Ledger {
    /// Makes pages, ready to be leased. Those that exist are left as they are: another router made them.
    pub async fn create_pages(
        &self,
        run: &RunId,
        packed: &[Packed],
        generation: Generation,
    ) -> Result<(), LedgerError> {
        /// Writes under way at one time: enough to fill a group commit.
        const AT_ONCE: usize = 64;
        for group in packed.chunks(AT_ONCE) {
            let writes = group.iter().map(|packed| {
                let stretches = packed.stretches.clone();
                self.create_page(
                    run,
                    Page::new(packed.id, packed.lane, stretches, generation),
                )
            });
            // All of them are waited for, also where one fails: none is left under way.
            let written: Vec<_> = writes.collect::<FuturesUnordered<_>>().collect().await;
            written.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn create_page(&self, run: &RunId, page: Page) -> Result<(), LedgerError> {
        match self.write(create(run, &page)).await {
            Err(error) if error.is_condition() => Ok(()),
            // The router begins this part again.
            result => result.map(|_| ()),
        }
    }

    /// The page, if it is there.
    pub async fn page(&self, run: &RunId, id: PageId) -> Result<Option<Held>, LedgerError> {
        let key = keys::page(run, id);
        match self.get(&key).await? {
            Some(row) => page_row::decode(&key, id, &row).map(Some),
            None => Ok(None),
        }
    }

    /// Leases the page to this session, or says why not.
    pub async fn lease(
        &self,
        run: &RunId,
        id: PageId,
        now: Timestamp,
    ) -> Result<Held, LedgerError> {
        let held = self
            .page(run, id)
            .await?
            .ok_or_else(|| page_missing(run, id))?;
        let event = PageEvent::Lease {
            session: self.session.clone(),
            now,
        };
        Ok(self.advance(run, &held, &event).await?.0)
    }

    /// Notes that this item is about to run alone.
    pub async fn note(&self, run: &RunId, held: &Held, index: u8) -> Result<Held, LedgerError> {
        let (session, epoch) = (self.session.clone(), held.page.epoch);
        let event = PageEvent::Note {
            session,
            epoch,
            index,
        };
        Ok(self.advance(run, held, &event).await?.0)
    }

    /// Gives the page back.
    pub async fn release(
        &self,
        run: &RunId,
        held: &Held,
        now: Timestamp,
    ) -> Result<Held, LedgerError> {
        let (session, epoch) = (self.session.clone(), held.page.epoch);
        let event = PageEvent::Release {
            session,
            epoch,
            now,
        };
        Ok(self.advance(run, held, &event).await?.0)
    }

    /// Takes the page from a session that was marked dead.
    pub async fn take_over(
        &self,
        run: &RunId,
        held: &Held,
        dead: &SessionId,
    ) -> Result<(Held, Effects), LedgerError> {
        if is_planted(Bug::TakeOverNotRecorded) {
            return Ok((held.clone(), Effects::default()));
        }
        self.advance(
            run,
            held,
            &PageEvent::HolderDied {
                session: dead.clone(),
            },
        )
        .await
    }

    /// Takes the page of a run that has ended from a session that lives and does not let go of it.
    pub async fn revoke(
        &self,
        run: &RunId,
        held: &Held,
        session: &SessionId,
        now: Timestamp,
    ) -> Result<Held, LedgerError> {
        let session = session.clone();
        let event = PageEvent::Revoke { session, now };
        Ok(self.advance(run, held, &event).await?.0)
    }

    /// Takes items of the page again, in a new generation.
    pub async fn reopen(
        &self,
        run: &RunId,
        held: &Held,
        generation: Generation,
        items: Vec<u8>,
    ) -> Result<Held, LedgerError> {
        Ok(self
            .advance(run, held, &PageEvent::Reopen { generation, items })
            .await?
            .0)
    }

    /// Carries out one event on a page: decided by the page's machine, written on the condition
    /// that nothing was written in between.
    async fn advance(
        &self,
        run: &RunId,
        held: &Held,
        event: &PageEvent,
    ) -> Result<(Held, Effects), LedgerError> {
        let (page, effects) = held.page.apply(event)?;
        let write = self.next_write();
        let mut writes = vec![put(run, &held.write, &page, &write)];
        if !effects.tally.is_empty() {
            writes.push(tallies::add(
                run,
                self.slot(),
                page.generation,
                &effects.tally,
            ));
        }
        for _ in 0..UNCLEAR_TRIES_MAX {
            let result = if writes.len() == 1 {
                self.write(writes[0].clone()).await.map(|_| ())
            } else {
                self.transact(writes.clone()).await
            };
            let Err(error) = result else {
                return Ok((Held { page, write }, effects));
            };
            let now = self.page(run, page.id).await?;
            let now = now.ok_or_else(|| page_missing(run, page.id))?;
            if now.write == write {
                return Ok((now, effects));
            }
            if error.is_condition() {
                return Err(LedgerError::Raced);
            }
            tracing::debug!(page = %page.id, %error, "no clear answer, writing again");
        }
        Err(unclear("a page's write"))
    }

    /// Settles a group of pages of one run and generation, each with its tally in the same
    /// transaction. A page whose lease is lost is left out, and the group goes again without it.
    /// Answers one end a settlement, in their order.
    ///
    /// # Errors
    /// If the store does not answer, some of the group may be recorded: the same settlements may then be
    /// settled again, and are recognised, as the names of their writes follow from what they say.
    pub async fn settle(
        &self,
        run: &RunId,
        group: Vec<Settlement>,
    ) -> Result<Vec<SettleEnd>, LedgerError> {
        let mut ends = vec![None; group.len()];
        self.settle_rest(run, group, &mut ends).await?;
        let ends = ends.into_iter();
        Ok(ends.map(|end| end.unwrap_or(SettleEnd::Lost)).collect())
    }

    /// The same for those of the group whose end is not known yet. What was learned before an error stays: whoever tries
    /// again asks for nothing that he was told is done.
    pub async fn settle_rest(
        &self,
        run: &RunId,
        group: Vec<Settlement>,
        ends: &mut [Option<SettleEnd>],
    ) -> Result<(), LedgerError> {
        let mut ready = Vec::new();
        for (index, settlement) in group.into_iter().enumerate() {
            if ends[index].is_some() {
                continue;
            }
            match self.decide(settlement)? {
                Some(decided) => ready.push((index, decided)),
                None => ends[index] = Some(SettleEnd::Lost),
            }
        }
        while !ready.is_empty() {
            let fits = fitting(&ready, self.profile().transact_writes_max);
            let rest = ready.split_off(fits);
            self.settle_together(run, ready, ends).await?;
            ready = rest;
        }
        Ok(())
    }

    fn decide(&self, settlement: Settlement) -> Result<Option<Decided>, LedgerError> {
        let Settlement {
            held,
            items,
            outputs,
            moved,
            classes,
        } = settlement;
        let (session, epoch) = (self.session.clone(), held.page.epoch);
        let event = PageEvent::Record {
            session,
            epoch,
            items,
            outputs,
        };
        let (page, effects) = match held.page.apply(&event) {
            Ok(decided) => decided,
            Err(Refusal::Fenced { .. } | Refusal::Settled | Refusal::Done) => return Ok(None),
            Err(refusal) => return Err(refusal.into()),
        };
        let mut tally = effects.tally;
        for class in classes {
            *tally.classes.entry(class).or_default() += 1;
        }
        let mut escalations = Vec::new();
        if is_planted(Bug::EscalationCounted) {
            let moved = moved.len() as u64;
            tally
                .settled
                .add(crate::core::outcome::Outcome::Failed, moved);
        }
        for index in moved {
            let id = page.id.escalation_of(index);
            let first = page.index_in_part(index).ok_or_else(|| {
                LedgerError::Broken(format!("page {} has no item {index}", page.id))
            })?;
            let stretch = crate::core::part::Stretch { first, items: 1 };
            escalations.push(Page::new(
                id,
                Lane::Container,
                vec![stretch],
                page.generation,
            ));
        }
        let write = self.name_of(&held, &page);
        Ok(Some(Decided {
            held,
            page,
            write,
            tally,
            escalations,
        }))
    }

    /// One transaction, repeated without the pages that are lost or were recorded before, until it is done.
    async fn settle_together(
        &self,
        run: &RunId,
        mut group: Vec<(usize, Decided)>,
        ends: &mut [Option<SettleEnd>],
    ) -> Result<(), LedgerError> {
        while let Some((_, first)) = group.first() {
            let generation = first.page.generation;
            let mut tally = Tally::default();
            let mut writes = Vec::new();
            let mut owners = Vec::new();
            for (position, (_, decided)) in group.iter().enumerate() {
                tally.add(&decided.tally);
                let own = decided.writes(run);
                owners.extend(std::iter::repeat_n(position, own.len()));
                writes.extend(own);
            }
            let counts = tallies::add(run, self.slot(), generation, &tally);
            let forgets = is_planted(Bug::TallyForgotten) && tally.settled.total() == 1;
            let apart = is_planted(Bug::TallyApart);
            if !tally.is_empty() && !forgets && !apart {
                writes.push(counts.clone());
            }
            match self.transact(writes).await {
                Ok(()) => {
                    if apart && !tally.is_empty() {
                        let _ = self.write(counts).await;
                    }
                    for (index, decided) in group {
                        ends[index] = Some(SettleEnd::Recorded(decided.recorded()));
                    }
                    return Ok(());
                }
                Err(LedgerError::Table(TableError::ConditionFailed { failed })) => {
                    let failed = failed.iter().filter_map(|at| owners.get(*at).copied());
                    let failed: BTreeSet<usize> = failed.collect();
                    // Only pages have conditions; each round leaves at least one out.
                    check(!failed.is_empty(), InvariantId::S2, || {
                        "a settle failed, and no page of it".to_owned()
                    })?;
                    group = self.sort_out(run, group, &failed, ends).await?;
                }
                // If it happened, the pages' conditions fail next time, and each page says whose write it has.
                Err(error) => {
                    if is_planted(Bug::TallyRepeated) {
                        let _ = self.write(counts).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Asks each page that failed: it has my write, so it is recorded; else it is lost. Answers the others.
    async fn sort_out(
        &self,
        run: &RunId,
        group: Vec<(usize, Decided)>,
        failed: &BTreeSet<usize>,
        ends: &mut [Option<SettleEnd>],
    ) -> Result<Vec<(usize, Decided)>, LedgerError> {
        let mut rest = Vec::new();
        for (position, (index, decided)) in group.into_iter().enumerate() {
            if !failed.contains(&position) {
                rest.push((index, decided));
                continue;
            }
            let now = self.page(run, decided.page.id).await?;
            let now = now.ok_or_else(|| page_missing(run, decided.page.id))?;
            if now.write == decided.held.write {
                let page = decided.page.id;
                return Err(LedgerError::Broken(format!(
                    "page {page} was not written, though nobody wrote it: an item of it has moved already"
                )));
            }
            ends[index] = Some(if now.write == decided.write {
                SettleEnd::Recorded(decided.recorded())
            } else {
                SettleEnd::Lost
            });
        }
        Ok(rest)
    }

    /// The name of the write that makes `page` of what is held. It follows from both, so that settling
    /// again what may have been settled finds its own write.
    fn name_of(&self, held: &Held, page: &Page) -> WriteId {
        let mut hash = Fnv::new();
        hash.add(held.write.as_str().as_bytes());
        for item in &page.items {
            hash.add(item.mark.letter().encode_utf8(&mut [0; 4]).as_bytes());
            for number in item.retries.iter().chain([&item.throttles]) {
                hash.add(&number.to_be_bytes());
            }
            hash.add(&item.due.map_or(i64::MIN, |due| due.0).to_be_bytes());
        }
        for output in &page.outputs {
            hash.add(output.as_bytes());
        }
        WriteId::new(format!("{}-{:016x}", self.session, hash.finish()))
    }

    /// Pages of one shard, in order, both names inclusive; at most `rows_max`.
    pub async fn pages_between(
        &self,
        run: &RunId,
        shard: u32,
        range: (&str, &str),
        rows_max: usize,
    ) -> Result<Vec<Held>, LedgerError> {
        let pk = keys::pages(run, shard);
        let query = Query::all(&pk, QUERY_ROWS).between(range.0, range.1);
        let mut pages = Vec::new();
        for (sk, row) in self.query_all(query, rows_max).await? {
            let key = Key::new(&pk, &sk);
            let id = sk
                .parse()
                .map_err(|e| super::error::damaged(&key, format!("{e}")))?;
            pages.push(page_row::decode(&key, id, &row)?);
        }
        Ok(pages)
    }

    /// All pages of one part, in order.
    pub async fn pages_of_part(&self, run: &RunId, part: u32) -> Result<Vec<Held>, LedgerError> {
        let (from, to) = (format!("{part:08}-"), format!("{part:08}-~"));
        self.pages_between(run, part % SHARDS, (&from, &to), usize::MAX)
            .await
    }

    pub(super) fn slot(&self) -> u32 {
        tallies::slot_of(&self.session)
    }
}

struct Decided {
    held: Held,
    page: Page,
    write: WriteId,
    tally: Tally,
    escalations: Vec<Page>,
}

impl Decided {
    fn writes(&self, run: &RunId) -> Vec<Write> {
        let mut writes = vec![put(run, &self.held.write, &self.page, &self.write)];
        if !is_planted(Bug::EscalationUnwritten) {
            writes.extend(self.escalations.iter().map(|page| create(run, page)));
        }
        writes
    }

    fn recorded(self) -> Held {
        debug_assert!(
            matches!(
                self.page.status,
                PageStatus::Leased { .. } | PageStatus::Settled
            ),
            "recording keeps or ends a lease"
        );
        Held {
            page: self.page,
            write: self.write,
        }
    }
}

/// How many settlements, from the first on, go into one transaction: of one generation, within
/// the endpoint's bound, one write left for the tally.
fn fitting(group: &[(usize, Decided)], writes_max: usize) -> usize {
    let generation = group[0].1.page.generation;
    let mut writes = 1;
    let mut fits = 0;
    for (_, decided) in group {
        writes += 1 + decided.escalations.len();
        if decided.page.generation != generation || (writes > writes_max && fits > 0) {
            break;
        }
        fits += 1;
    }
    fits.max(1)
}

fn put(run: &RunId, former: &WriteId, page: &Page, write: &WriteId) -> Write {
    let mut when = vec![Condition::Equals("write".into(), former.as_str().into())];
    if is_planted(Bug::UnfencedWrites) {
        when.clear();
    }
    Write {
        key: keys::page(run, page.id),
        when,
        change: Change::Put(page_row::encode(page, write)),
    }
}

pub(super) fn create(run: &RunId, page: &Page) -> Write {
    let mut write = Write::create(
        keys::page(run, page.id),
        page_row::encode(page, &WriteId::new(FIRST_WRITE)),
    );
    if is_planted(Bug::PagesMadeTwice) {
        write.when.clear();
    }
    write
}

fn page_missing(run: &RunId, id: PageId) -> LedgerError {
    LedgerError::NotFound(format!("page {id} of run {run}"))
}
