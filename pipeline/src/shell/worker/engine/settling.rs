//! Gathers what is new into groups to settle, and gives back what is not worked on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Engine, Event, Slot};
use crate::core::page::{ItemState, PageStatus};
use crate::core::time::Tick;
use crate::core::work::{Evidence, Stopped};
use crate::ledger::{Held, SettleEnd, Settlement};
use crate::shell::env::{Env, Mode, RunHandle};
use crate::shell::worker::settler;
use crate::shell::worker::settler::{Entry, GROUP_PAGES_MAX};

/// Where nothing runs, and nothing is to start or to come, little more will: it is waited for this much less. Not for
/// nothing, as where an item comes now and then each would be a transaction of its own.
const QUIET_SOONER: u32 = 4;

impl Engine {
    /// How long what is new waits for more, so that both are written at once.
    pub(super) fn settle_within(&self) -> Duration {
        let within = self.env.ledger.profile().settle_within;
        let soon = self.env.runtime.clock.tick() + within;
        let due = |slot: &Slot| slot.work.next_due().is_some_and(|due| due <= soon);
        let is_quiet = self.calls.len() == 0
            && self.ready.is_empty()
            && self.demand.coming() == 0
            && !self.slots.values().any(due);
        match is_quiet {
            true => within / QUIET_SOONER,
            false => within,
        }
    }

    /// Hands a group of pages with news to the settler, one group at a time.
    pub(super) fn settle(&mut self, now: Tick) {
        if self.settling {
            return;
        }
        let within = self.settle_within();
        let due = |slot: &Slot| {
            let is_late = |since: Tick| now.since(since) >= within;
            slot.news_since
                .is_some_and(|since| is_late(since) || slot.is_waited_for())
        };
        let any_due = self.news.iter().any(|id| {
            self.slots
                .get(id)
                .is_some_and(|slot| !slot.writing && due(slot))
        });
        if !any_due && !self.env.drain.is_cancelled() {
            return;
        }
        let mut entries = Vec::new();
        let mut run: Option<RunHandle> = None;
        // Of each page at most as many escalations as fit one transaction beside page and tally.
        let moves_max = self
            .env
            .ledger
            .profile()
            .transact_writes_max
            .saturating_sub(2)
            .max(1);
        for id in self.news.clone() {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            let same_run = run.as_ref().is_none_or(|run| run.id == slot.run.id);
            if slot.writing || !same_run || entries.len() >= GROUP_PAGES_MAX {
                continue;
            }
            let (news, items) = slot.work.take_news(moves_max);
            slot.writing = true;
            slot.news_since = None;
            self.news.remove(&id);
            run = Some(slot.run.clone());
            let labels = labels(slot, &news.evidence);
            entries.push(Entry {
                page: id,
                held: slot.held.clone(),
                items,
                news,
                labels,
            });
        }
        let Some(run) = run else { return };
        self.settling = true;
        let (env, writers) = (self.env.clone(), self.writers.clone());
        let events = self.out.events.clone();
        let settle = async move {
            let ends = settler::settle(&env, &run, &writers, entries).await;
            let _ = events.send(Event::Settled(ends));
        };
        self.env.runtime.spawn.spawn("settle", Box::pin(settle));
    }

    pub(super) fn settled(&mut self, id: u64, end: SettleEnd) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.writing = false;
        match end {
            SettleEnd::Recorded(held) if held.page.status == PageStatus::Settled => {
                self.forget(id);
            }
            SettleEnd::Recorded(held) => {
                slot.held = held;
                if slot.work.has_news() {
                    slot.news_since.get_or_insert(self.env.runtime.clock.tick());
                    self.news.insert(id);
                }
            }
            SettleEnd::Lost => {
                tracing::warn!(page = %slot.held.page.id, "its lease is lost: the page is dropped");
                self.calls.stop_pages(|page| page == id, Stopped::GivenBack);
                self.forget(id);
            }
        }
    }

    /// Gives back pages that nothing can be done about now.
    pub(super) fn give_back_idle(&mut self, now: Tick) {
        let ending = self.env.drain.is_cancelled();
        let mut back = Vec::new();
        for (id, slot) in &self.slots {
            let leaving = ending || slot.run.now().mode != Mode::Work;
            let quiet = slot.work.in_calls() == 0 && !slot.work.has_news();
            let idle = if leaving {
                quiet
            } else {
                slot.work.is_idle(now)
            };
            if idle && !slot.writing {
                back.push(*id);
            }
        }
        for id in back {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.writing = true;
            self.ready.remove(&id);
            if slot.held.page.is_suspect() {
                self.env.permits.give_up_alone();
            }
            let (env, run) = (self.env.clone(), slot.run.clone());
            let (held, items) = (slot.held.clone(), slot.work.items().to_vec());
            let events = self.out.events.clone();
            let release = async move {
                release(&env, &run, held, items).await;
                let _ = events.send(Event::Released(id));
            };
            self.env.runtime.spawn.spawn("release", Box::pin(release));
        }
    }
}

fn labels(slot: &Slot, evidence: &[Evidence]) -> BTreeMap<u8, String> {
    let Ok(inputs) = &slot.inputs else {
        return BTreeMap::new();
    };
    let label = |index: u8| Some((index, inputs.get(usize::from(index))?.label()));
    evidence
        .iter()
        .filter_map(|evidence| label(evidence.index))
        .collect()
}

/// Gives a page back, with the retries charged so far.
async fn release(env: &Env, run: &RunHandle, held: Held, items: Vec<ItemState>) {
    let mut held = held;
    if held.page.items != items {
        let charged = Settlement {
            held: held.clone(),
            items,
            outputs: None,
            moved: Vec::new(),
            classes: Vec::new(),
        };
        match env
            .ledger
            .settle(&run.id, vec![charged])
            .await
            .map(|mut ends| ends.pop())
        {
            Ok(Some(SettleEnd::Recorded(recorded))) => held = recorded,
            Ok(Some(SettleEnd::Lost) | None) => return,
            Err(error) => {
                // Whether they were is not known; a sweep finds the page as it is, and gives it back.
                tracing::warn!(page = %held.page.id, %error, "retries were not recorded");
                return;
            }
        }
    }
    if let Err(error) = env
        .ledger
        .release(&run.id, &held, env.runtime.clock.now())
        .await
    {
        tracing::warn!(page = %held.page.id, %error, "a page was not given back; its lease runs out");
    }
}
