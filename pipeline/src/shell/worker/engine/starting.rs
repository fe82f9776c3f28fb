//! Starts calls: in the order in which pages were leased, as far as permits go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Engine, Event, Slot};
use crate::core::class::{Class, Failure};
use crate::core::item::Input;
use crate::core::job::LaneSpec;
use crate::core::lane::{Lane, Routed};
use crate::core::planted::{Bug, is_planted};
use crate::core::time::Tick;
use crate::core::work::{ItemReport, Stopped, Unit};
use crate::ledger::{Held, LedgerError};
use crate::ports::{Call, CallItem};
use crate::shell::env::Mode;
use crate::shell::worker::calls::Start;

impl Engine {
    pub(super) fn start_calls(&mut self, now: Tick) {
        if now < self.back_off_until || self.env.drain.is_cancelled() {
            return;
        }
        let ids: Vec<u64> = self.ready.iter().copied().collect();
        let mut short = 0;
        for id in ids {
            let Some(slot) = self.slots.get(&id) else {
                self.ready.remove(&id);
                continue;
            };
            if slot.run.now().mode != Mode::Work {
                continue;
            }
            if short > 0 && is_planted(Bug::SuspectsWaitInLine) {
                break;
            }
            if slot.held.page.is_suspect() {
                self.start_alone(id);
                continue;
            }
            // Without permits nobody else starts; but a suspect that waits until nothing runs is why there are none.
            short += match short {
                0 => self.start_calls_of(id),
                _ => slot.work.ready_calls(),
            };
        }
        self.env.permits.are_short_of(short);
        self.calls.launch(&self.env.runtime);
    }

    /// Starts what a page has to start, as far as permits go; answers how many calls found none.
    fn start_calls_of(&mut self, id: u64) -> usize {
        let wanted = self
            .slots
            .get(&id)
            .map_or(0, |slot| slot.work.ready_calls());
        let took = self.env.permits.take(wanted);
        for started in 0..took {
            let unit = self
                .slots
                .get_mut(&id)
                .and_then(|slot| slot.work.next_call());
            let Some(unit) = unit else {
                // The page was dropped by what its first call came to.
                self.env.permits.give(took - started);
                break;
            };
            self.start(id, unit);
        }
        if self
            .slots
            .get(&id)
            .is_none_or(|slot| slot.work.ready_calls() == 0)
        {
            self.ready.remove(&id);
        }
        wanted - took
    }

    /// A suspect's item runs with nothing else in the session, once its start is noted.
    fn start_alone(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.writing || slot.work.in_calls() > 0 || slot.work.has_news() {
            return;
        }
        if slot.work.unstarted() == 0 {
            self.ready.remove(&id);
            return;
        }
        if !self.env.permits.try_take_alone() {
            return;
        }
        let unit = slot.work.next_call().expect("something is unstarted");
        slot.writing = true;
        let (env, run, held) = (self.env.clone(), slot.run.clone(), slot.held.clone());
        let events = self.out.events.clone();
        let note = async move {
            let result = env.ledger.note(&run.id, &held, unit.items[0]).await;
            let _ = events.send(Event::Noted {
                page: id,
                unit,
                result,
            });
        };
        self.env.runtime.spawn.spawn("note", Box::pin(note));
    }

    pub(super) fn noted(&mut self, id: u64, unit: Unit, result: Result<Held, LedgerError>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.writing = false;
        match result {
            Ok(held) => {
                slot.held = held;
                self.start(id, unit);
                self.calls.launch(&self.env.runtime);
            }
            Err(error) => {
                tracing::warn!(page = %slot.held.page.id, %error, "a start was not noted: lease lost");
                self.env.permits.give(1);
                self.forget(id);
            }
        }
    }

    fn start(&mut self, id: u64, unit: Unit) {
        let slot = self.slots.get(&id).expect("a call starts from a held page");
        let run = slot.run.clone();
        run.running
            .fetch_add(unit.items.len() as u64, Ordering::Relaxed);
        let spec = run
            .job
            .lane(self.lane)
            .expect("a page lies in a lane of its job");
        let Prepared {
            call,
            unit,
            mut refused,
        } = prepare(slot, &unit, self.lane, spec);
        match (call, run.executors.get(&self.lane)) {
            (Some(call), Some(executor)) => {
                let start = Start {
                    page: id,
                    unit,
                    timeout: spec
                        .timeout
                        .map(|timeout| timeout + executor.start_wait_max()),
                };
                let now = self.env.runtime.clock.tick();
                self.calls.start(executor, call, start, now);
            }
            (Some(_), None) => {
                let problem = format!("there is no executor for the {} lane here", self.lane);
                let failure = Failure::new(Class::Unavailable, problem);
                refused.extend(unit.items.iter().map(|index| (*index, failure.clone())));
                self.env.permits.give(1);
            }
            (None, _) => self.env.permits.give(1),
        }
        if !refused.is_empty() {
            self.refuse(id, refused);
        }
    }

    /// Items that cannot be called at all.
    fn refuse(&mut self, id: u64, refused: Vec<(u8, Failure)>) {
        let (items, failures): (Vec<u8>, Vec<Failure>) = refused.into_iter().unzip();
        let reports = failures.into_iter().map(ItemReport::Failed).collect();
        let at = self.moment();
        self.ended_of(id, &Unit { items }, reports, Stopped::No, at);
    }
}

/// What a unit comes to.
struct Prepared {
    /// The call of those that can be called, if any can.
    call: Option<Call>,
    /// These.
    unit: Unit,
    /// The others, each with the reason.
    refused: Vec<(u8, Failure)>,
}

/// An item that cannot be called fails alone, whatever it would have shared a call with.
fn prepare(slot: &Slot, unit: &Unit, lane: Lane, spec: &LaneSpec) -> Prepared {
    let page = &slot.held.page;
    let mut refused = Vec::new();
    let mut called = Vec::with_capacity(unit.items.len());
    let mut items = Vec::with_capacity(unit.items.len());
    for index in unit.items.iter().copied() {
        let input = match input(slot, index, lane) {
            Ok(input) => input,
            Err(failure) => {
                refused.push((index, failure));
                continue;
            }
        };
        called.push(index);
        items.push(CallItem {
            id: page.id.origin(index),
            attempt: slot.work.attempt(index),
            epoch: page.epoch,
            generation: page.generation,
            input,
        });
    }
    let call = (!items.is_empty()).then(|| Call {
        run: slot.run.id.clone(),
        items,
        batch: spec.max_items_per_batch > 1,
        grace: spec.grace,
    });
    Prepared {
        call,
        unit: Unit { items: called },
        refused,
    }
}

/// An item's input, if it can be read and the lane takes it.
fn input(slot: &Slot, index: u8, lane: Lane) -> Result<Arc<Input>, Failure> {
    let inputs = slot.inputs.as_ref().map_err(Failure::clone)?;
    let input = inputs[usize::from(index)].clone();
    match slot.run.job.size_rule().route(input.size_bytes()) {
        Routed::TooLarge { bytes_max } => {
            let size = input.size_bytes().unwrap_or(0);
            let cause = format!("{size} bytes, and the largest lane takes {bytes_max}");
            Err(Failure::new(Class::TooLarge, cause))
        }
        Routed::To(routed) => {
            debug_assert!(
                routed == lane || slot.held.page.id.escalated.is_some() || slot.run.now().refresh,
                "S9: the lane matches the size rule, or the item was escalated"
            );
            Ok(input)
        }
    }
}
