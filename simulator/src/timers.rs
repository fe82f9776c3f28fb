//! Timers: whom to wake at which moment of virtual time, in the order of moments, then of making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

use crate::exec::Owner;

/// Names a timer: its place, and which of all timers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    slot: u32,
    made: u64,
}

struct Timer {
    owner: Owner,
    waker: Waker,
}

/// A place for timers, one after the other.
struct Slot {
    /// Which timer has it, or had it last.
    made: u64,
    timer: Option<Timer>,
}

/// What it hands back is to be dropped or woken where no lock is held, as that may call back.
#[derive(Default)]
pub(crate) struct Timers {
    made: u64,
    /// Moment, number, place; also of timers that are gone: those are passed over when their moment comes.
    moments: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Slot>,
    /// Places without a timer.
    free: Vec<u32>,
}

impl Timers {
    pub(crate) fn insert(&mut self, at: u64, owner: Owner, waker: Waker) -> TimerId {
        self.made += 1;
        let made = self.made;
        let timer = Some(Timer { owner, waker });
        let new = Slot { made, timer };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = new;
                slot
            }
            None => {
                self.slots.push(new);
                u32::try_from(self.slots.len() - 1).expect("timers are bounded by memory")
            }
        };
        self.moments.push(Reverse((at, made, slot)));
        TimerId { slot, made }
    }

    /// Whom it wakes, while it has not done so.
    pub(crate) fn waker(&mut self, id: TimerId) -> Option<&mut Waker> {
        let slot = &mut self.slots[id.slot as usize];
        let timer = slot.timer.as_mut().filter(|_| slot.made == id.made)?;
        Some(&mut timer.waker)
    }

    pub(crate) fn remove(&mut self, id: TimerId) -> Option<Waker> {
        let slot = &mut self.slots[id.slot as usize];
        let timer = slot.timer.take_if(|_| slot.made == id.made)?;
        self.free.push(id.slot);
        Some(timer.waker)
    }

    /// The first moment at which somebody is to be woken.
    pub(crate) fn next(&mut self) -> Option<u64> {
        while let Some(Reverse((at, made, slot))) = self.moments.peek().copied() {
            if self.waker(TimerId { slot, made }).is_some() {
                return Some(at);
            }
            self.moments.pop();
        }
        None
    }

    /// Takes the first timer whose moment has come by now.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<Waker> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, made, slot)) = self.moments.pop()?;
        self.remove(TimerId { slot, made })
    }

    /// Takes those of some owners, for good.
    pub(crate) fn take_of(&mut self, ends: impl Fn(Owner) -> bool) -> Vec<Waker> {
        let mut taken = Vec::new();
        for (number, slot) in (0..).zip(&mut self.slots) {
            if let Some(timer) = slot.timer.take_if(|timer| ends(timer.owner)) {
                self.free.push(number);
                taken.push(timer.waker);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(timers: &mut Timers, at: u64, owner: Owner) -> TimerId {
        timers.insert(at, owner, Waker::noop().clone())
    }

    #[test]
    fn moments_come_in_order_and_those_of_timers_that_are_gone_are_passed_over() {
        let mut timers = Timers::default();
        let late = of(&mut timers, 30, 1);
        let early = of(&mut timers, 10, 1);
        let middle = of(&mut timers, 20, 2);
        assert_eq!(timers.next(), Some(10));
        assert!(timers.remove(early).is_some());
        assert!(timers.remove(early).is_none(), "once");
        // It has the place of the one that is gone.
        let again = of(&mut timers, 40, 1);
        assert!(timers.waker(early).is_none());
        assert_eq!(timers.next(), Some(20));
        assert!(timers.take_due(19).is_none());
        assert!(timers.take_due(20).is_some());
        assert!(timers.waker(middle).is_none());
        assert_eq!(timers.take_of(|owner| owner == 1).len(), 2);
        assert!(timers.waker(late).is_none() && timers.waker(again).is_none());
        assert_eq!(timers.next(), None);
    }
}
