//! What single writes show: promises of the ledger that they break, and what must happen sometimes.

use std::fmt;
use std::hash::{Hash as _, Hasher as _};

use trommel::adapters::memory::RowChange;
use trommel::ports::table::Change;
use trommel::ports::{Key, Query, Row, TableError, Update, Value, Write};

use super::TableModel;
use crate::exec::lock;
use crate::node::Node;
use crate::probe::Probe;
use crate::rules::{Request, TableRules};
use crate::services::promises;
use crate::trace::Quick;

/// More sessions than a simulated job ever has.
const SESSIONS_MAX: usize = 100_000;

impl TableModel {
    /// Traces what became of a request.
    pub(super) fn tell(who: &Node, request: &Request, error: Option<&TableError>) {
        for write in request.writes() {
            let mut hash = Quick::default();
            write.change.hash(&mut hash);
            let hash = hash.finish();
            let Some(error) = error else {
                who.trace(&format_args!("wrote {} {hash:016x}", write.key));
                continue;
            };
            if matches!(error, TableError::ConditionFailed { .. }) {
                who.sometimes(Probe::LostARace);
            }
            who.trace(&format_args!("{} {hash:016x}: {error}", write.key));
        }
    }

    /// Notes the sessions that this marks dead.
    pub(super) fn note_deaths(&self, request: &Request) {
        for write in request.writes() {
            let of_session = write.key.pk.starts_with("session#");
            if of_session && sets_status(&write.change, "dead") {
                self.service.sometimes(Probe::MarkedDead);
                lock(&self.dead).insert(write.key.sk.clone());
            }
        }
    }

    /// Looks at each row that was written, as it was and is.
    pub(super) fn check(
        &self,
        rules: &TableRules,
        who: &Node,
        request: &Request,
        changes: &[RowChange],
    ) -> Result<(), TableError> {
        // What arrives late was decided by a clock that went on since, and nobody knows whose.
        let is_late = who.name() == self.service.name();
        let clock = (!is_late).then(|| who.now().0);
        for (write, changed) in request.writes().iter().zip(changes) {
            let key = &write.key;
            let (kind, of) = key.pk.split_once('#').unwrap_or((&key.pk, ""));
            let (before, after) = (changed.before.as_ref(), changed.after.as_ref());
            match kind {
                "page" if !key.sk.contains('#') => self.check_page(key, before, after, clock),
                "run" => {
                    lock(&self.compared).runs += 1;
                    self.note(promises::of_run(key, before, after));
                }
                "shard" => self.check_shard(write, before),
                "tally" => self.check_tally(write),
                "object" => self.note(promises::of_mark(key, after, self.service.now())),
                "permit" => {
                    if let Some(pool) = after {
                        let sessions = Query::all(format!("session#{of}"), SESSIONS_MAX);
                        let rows = rules.query(&sessions)?.rows;
                        let held = rows.iter().filter_map(|(_, row)| row.num("permits")).sum();
                        self.note(promises::of_permits(pool, held));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_page(&self, key: &Key, before: Option<&Row>, after: Option<&Row>, clock: Option<i64>) {
        lock(&self.compared).pages += 1;
        if let Some(page) = after {
            self.probe_page(key, before, page);
            self.service.trace(&PageState { key, page });
        }
        self.note(promises::of_page(key, before, after, clock));
    }

    fn probe_page(&self, key: &Key, before: Option<&Row>, after: &Row) {
        let was = before.and_then(|row| row.text("status"));
        let is = after.text("status");
        if was != Some("waiting") && is == Some("waiting") {
            self.service.sometimes(Probe::Waited);
        }
        let Some(before) = before else {
            if key.sk.contains('e') {
                self.service.sometimes(Probe::Escalated);
            }
            return;
        };
        if was != Some("leased") {
            return;
        }
        let items = before.text("items").unwrap_or_default();
        let same_items = after.text("items") == Some(items);
        if is == Some("leased") && !same_items && items.contains('.') {
            self.service.sometimes(Probe::SettledInParts);
        }
        let one_more_death = after.num("deaths") > before.num("deaths");
        if is == Some("ready") && same_items && one_more_death && before.num("epoch").is_some() {
            self.service.sometimes(Probe::TakenOver);
        }
    }

    fn check_shard(&self, write: &Write, before: Option<&Row>) {
        let Change::Update(updates) = &write.change else {
            return;
        };
        let raises = |update: &Update| matches!(update, Update::Set(name, _) if name == "low");
        if updates.iter().any(raises) {
            let again = before.is_some_and(|row| row.num("gen") > Some(0));
            self.service.sometimes(match again {
                true => Probe::LowWaterRoseAgain,
                false => Probe::LowWaterRose,
            });
        }
        let adds_nothing = |update: &Update| matches!(update, Update::Add(_, 0));
        if updates.iter().any(adds_nothing) {
            let key = &write.key;
            self.note(Some(format!("L7: nothing is added to a count of {key}")));
        }
    }

    fn check_tally(&self, write: &Write) {
        let name = &write.key.sk;
        self.note(promises::of_tally(name, &write.change));
        let (generation, slot) = name.split_once('#').unwrap_or_default();
        let former = lock(&self.slot).replace((generation.to_owned(), slot.to_owned()));
        if former.is_some_and(|(of, other)| of == generation && other != slot) {
            self.service.sometimes(Probe::CountedApart);
        }
    }
}

fn sets_status(change: &Change, to: &str) -> bool {
    let sets = |update: &Update| matches!(update, Update::Set(name, Value::Text(text)) if name == "status" && **text == *to);
    match change {
        Change::Update(updates) => updates.iter().any(sets),
        Change::Put(_) | Change::Delete | Change::Check => false,
    }
}

/// Where a page stands after a write: the write's own line tells only its hash.
struct PageState<'a> {
    key: &'a Key,
    page: &'a Row,
}

impl fmt::Display for PageState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &str| self.page.text(name).unwrap_or("?");
        let epoch = self.page.num("epoch").unwrap_or_default();
        let (lane, status, items) = (text("lane"), text("status"), text("items"));
        write!(f, "page {} of {lane} is {status}", self.key.sk)?;
        if let Some(session) = self.page.text("session") {
            write!(f, " by {session}")?;
        }
        write!(f, ", epoch {epoch}, items {items}")
    }
}
