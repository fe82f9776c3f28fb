//! Which call is struck by what: a function of the seed, the operation, and how often it was called. Pure.
//!
//! The order in which calls of *different* operations come does not matter: it is never the same twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fault::Fault;
use super::operation::Call;

/// Rates are parts of this many.
pub const MILLION: u32 = 1_000_000;

/// A late answer is this late at most, if nothing else is said: long beside an emulator's few
/// milliseconds, short beside the pipeline's time-outs.
pub const LATE_MAX: Duration = Duration::from_millis(200);

/// Between two faults that are forced there are so many calls that nothing strikes: as many as a patient
/// client makes for one request. What is forced alone therefore never makes a request fail.
const QUIET_CALLS: u64 = 4;

/// How often each fault strikes, in parts of a million calls. A call is struck by one fault at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(BTreeMap<Fault, u32>);

impl Rates {
    /// Each fault alike.
    ///
    /// # Errors
    /// Together they would strike more than every call.
    pub fn each(of_million: u32) -> Result<Self, String> {
        let mut all = Fault::ALL.into_iter();
        all.try_fold(Self::default(), |rates, fault| {
            rates.with(fault, of_million)
        })
    }

    /// The same, but for this fault.
    ///
    /// # Errors
    /// Together they would strike more than every call.
    pub fn with(mut self, fault: Fault, of_million: u32) -> Result<Self, String> {
        self.0.insert(fault, of_million);
        let all: u64 = self.0.values().map(|rate| u64::from(*rate)).sum();
        if all > u64::from(MILLION) {
            let percent = all as f64 * 100.0 / f64::from(MILLION);
            return Err(format!(
                "all faults together strike {percent} % of calls: 100 % is the most"
            ));
        }
        Ok(self)
    }

    /// The fault at this point of a million, if any.
    fn at(&self, mut point: u32) -> Option<Fault> {
        for (fault, rate) in &self.0 {
            match point.checked_sub(*rate) {
                Some(rest) => point = rest,
                None => return Some(*fault),
            }
        }
        None
    }
}

/// Whether faults strike that chance left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forcing {
    /// Chance alone decides.
    #[default]
    None,
    /// Every fault strikes every operation once: at its first calls, where chance has not. They keep a
    /// distance of four calls from other faults, so that nobody is struck more often than it may try.
    EachPair,
}

/// Where faults come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// Chance.
    pub seed: u64,
    /// How often each fault strikes.
    pub rates: Rates,
    /// Whether some strike in any case.
    pub forcing: Forcing,
    /// A late answer is this late at most.
    pub late_max: Duration,
}

impl Chaos {
    /// No faults.
    pub fn calm() -> Self {
        Self {
            seed: 0,
            rates: Rates::default(),
            forcing: Forcing::None,
            late_max: LATE_MAX,
        }
    }

    /// Each fault at this rate on every operation, and once in any case.
    ///
    /// # Errors
    /// Together they would strike more than every call.
    pub fn each(seed: u64, of_million: u32) -> Result<Self, String> {
        Ok(Self {
            seed,
            rates: Rates::each(of_million)?,
            forcing: Forcing::EachPair,
            late_max: LATE_MAX,
        })
    }

    /// The next call of an operation.
    pub(super) fn strike(&self, call: &Call, course: &mut Course) -> Strike {
        course.calls += 1;
        let mut dice = Dice::at(self.seed, call, course.calls);
        let by_chance = self.rates.at(dice.below(u64::from(MILLION)) as u32);
        let fault = by_chance.or_else(|| self.forced(call, course));
        if let Some(fault) = fault {
            course.fired.insert(fault);
            course.struck = course.calls;
        }
        let late_us = u64::try_from(self.late_max.as_micros()).unwrap_or(u64::MAX);
        Strike {
            fault,
            late: Duration::from_micros(late_us / 4 + dice.below((late_us * 3 / 4).max(1))),
            draw: dice.draw(),
        }
    }

    fn forced(&self, call: &Call, course: &Course) -> Option<Fault> {
        match self.forcing {
            Forcing::None => return None,
            Forcing::EachPair if course.is_recovering() => return None,
            Forcing::EachPair => {}
        }
        // Another order for each operation, so that not all of them begin with the same fault.
        let first = Dice::at(self.seed, call, 0).below(Fault::ALL.len() as u64) as usize;
        let mut order = Fault::ALL;
        order.rotate_left(first);
        order
            .into_iter()
            .find(|fault| !course.fired.contains(fault))
    }
}

/// What one operation has gone through.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    calls: u64,
    fired: BTreeSet<Fault>,
    /// The last call that was struck, from 1; zero if none was.
    struck: u64,
}

impl Course {
    fn is_recovering(&self) -> bool {
        self.struck > 0 && self.calls <= self.struck + QUIET_CALLS
    }

    /// The faults that have not struck it.
    pub(super) fn missing(&self) -> impl Iterator<Item = Fault> {
        let all = Fault::ALL.into_iter();
        all.filter(|fault| !self.fired.contains(fault))
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    /// What goes wrong, if anything.
    pub(super) fault: Option<Fault>,
    /// How late the answer is, if that is what goes wrong.
    pub(super) late: Duration,
    /// Chance for whatever else there is to choose.
    pub(super) draw: u64,
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
struct Dice(u64);

impl Dice {
    /// For one call of one operation.
    fn at(seed: u64, call: &Call, nth: u64) -> Self {
        let mut dice = Self(seed);
        for byte in call.to_string().bytes() {
            dice.0 = dice.draw() ^ u64::from(byte);
        }
        Self(dice.draw() ^ nth)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`; for small bounds as good as uniform.
    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trommel::core::bill::Service;

    fn get() -> Call {
        Call::new(Service::DynamoDb, "GetItem")
    }

    fn strikes(chaos: &Chaos, call: &Call, calls: usize) -> Vec<Strike> {
        let mut course = Course::default();
        (0..calls)
            .map(|_| chaos.strike(call, &mut course))
            .collect()
    }

    #[test]
    fn the_same_seed_strikes_the_same_calls_and_another_others() {
        let chaos = Chaos::each(1, 50_000).expect("30 %");
        assert_eq!(strikes(&chaos, &get(), 200), strikes(&chaos, &get(), 200));
        assert_ne!(
            strikes(&chaos, &get(), 200),
            strikes(&chaos_of(2), &get(), 200)
        );
    }

    fn chaos_of(seed: u64) -> Chaos {
        Chaos::each(seed, 50_000).expect("30 %")
    }

    #[test]
    fn each_fault_strikes_about_as_often_as_its_rate_says() {
        let chaos = Chaos {
            forcing: Forcing::None,
            ..chaos_of(7)
        };
        let all = strikes(&chaos, &get(), 20_000);
        for fault in Fault::ALL {
            let times = all.iter().filter(|one| one.fault == Some(fault)).count();
            assert!((850..1150).contains(&times), "{fault}: {times} of 20,000");
        }
    }

    #[test]
    fn what_chance_leaves_out_is_forced_at_the_first_calls_but_never_close_together() {
        let chaos = Chaos {
            rates: Rates::default(),
            ..chaos_of(3)
        };
        let faults: Vec<Option<Fault>> = strikes(&chaos, &get(), 50)
            .iter()
            .map(|one| one.fault)
            .collect();
        let struck: Vec<usize> = (0..50).filter(|n| faults[*n].is_some()).collect();
        assert_eq!(struck, [0, 5, 10, 15, 20, 25]);
        let kinds: BTreeSet<Fault> = faults.into_iter().flatten().collect();
        assert_eq!(kinds.len(), Fault::ALL.len());
    }

    #[test]
    fn a_calm_proxy_strikes_nobody() {
        let all = strikes(&Chaos::calm(), &get(), 1000);
        assert!(all.iter().all(|one| one.fault.is_none()));
    }

    #[test]
    fn rates_of_more_than_every_call_are_refused() {
        assert!(Rates::each(166_666).is_ok());
        assert!(Rates::each(166_667).is_err());
    }

    #[test]
    fn a_late_answer_is_within_its_bounds() {
        let late: Vec<Duration> = strikes(&chaos_of(1), &get(), 1000)
            .iter()
            .map(|one| one.late)
            .collect();
        assert!(
            late.iter()
                .all(|late| (LATE_MAX / 4..LATE_MAX).contains(late))
        );
    }
}
