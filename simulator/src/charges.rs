//! Each item's calls, gone through again by the job file's own words: attempts are numbered without holes, each
//! failure is answered by the first rule that matches, waits are kept, and what has no retries left is not called.
//!
//! What a lost lease forgets is not known outside; so this follows a lease, from its first call on if that is an
//! attempt of number one, and a whole generation where nothing went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use trommel::core::class::Failure;
use trommel::core::id::ItemId;
use trommel::core::lane::Lane;
use trommel::core::outcome::Outcome;

use crate::job_rules::Caught;
use crate::scenario::Scenario;
use crate::told::{CameTo, Told};

/// After so many throttles an item fails like any other ("Throttled" in the guide).
const THROTTLES_MAX: u32 = 20;

/// Their waits double up to 20 s, and are drawn from nothing to that: all of them together never last shorter.
const THROTTLED_AT_LEAST: Duration = Duration::from_secs(5);

/// Where nobody else waits, what is due begins within this: permits may have to be asked for.
const BEGINS_WITHIN: Duration = Duration::from_secs(3);

/// A wait that is longer may be spent by the page, not by its holder, and ends with a sweep.
const HELD_WAIT: Duration = Duration::from_secs(20);

/// What must follow a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another call, once this wait is over.
    Again(Duration),
    /// Another call, charged to nobody.
    Throttled,
    /// This outcome.
    Ends(Outcome),
    /// It goes to the container lane.
    Moves,
}

/// What must follow a failure, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// This.
    Known(Next),
    /// What was charged before, or whether its time was up, is not known.
    Unknown,
}

/// Retries that were charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charged {
    flaky: u32,
    others: u32,
    throttles: u32,
}

/// What the job file of a scenario says of failures.
pub(crate) struct Policy<'a> {
    scenario: &'a Scenario,
    /// Whether nothing went wrong but what the handler said.
    calm: bool,
}

/// Some history of an item: the calls of one lane in one generation.
type Stretch<'a> = Vec<&'a Told>;

impl<'a> Policy<'a> {
    pub(crate) fn of(scenario: &'a Scenario, struck: usize) -> Self {
        let calm = scenario.is_calm() && struck == 0;
        Self { scenario, calm }
    }

    /// Retries that an item's failures of this class are granted.
    pub(crate) fn granted(&self, class: &str) -> u32 {
        let others = self.scenario.rules.others_retried.unwrap_or(0);
        if self.is_flaky(class) {
            self.scenario.tuning.retries
        } else {
            others
        }
    }

    /// Whether it is a matter of the first rule, where there is one.
    fn is_flaky(&self, class: &str) -> bool {
        self.scenario.tuning.retries > 0 && (class == "Flaky" || class == "Timeout")
    }

    /// What follows a failure.
    pub(crate) fn next(&self, failure: &Failure, lane: Lane, charged: &Charged) -> Next {
        let class = failure.class.to_string();
        if class == "Throttled" && charged.throttles < THROTTLES_MAX {
            return Next::Throttled;
        }
        let so_far = if self.is_flaky(&class) {
            charged.flaky
        } else {
            charged.others
        };
        if so_far < self.granted(&class) {
            return Next::Again(self.wait(so_far));
        }
        let caught = self.scenario.rules.caught.iter();
        let caught = caught.clone().find(|(name, _)| *name == class);
        let then = caught.map(|(_, then)| *then);
        let too_small = class == "Timeout" || class == "OutOfMemory";
        let moves = match then {
            Some(Caught::Container) => true,
            Some(Caught::Fail | Caught::Skip) => false,
            None => too_small,
        };
        if moves && lane == Lane::Function {
            return Next::Moves;
        }
        Next::Ends(match then {
            Some(Caught::Skip) => Outcome::Skipped,
            Some(Caught::Fail | Caught::Container) | None if class == "Timeout" => {
                Outcome::TimedOut
            }
            Some(Caught::Fail | Caught::Container) | None => Outcome::Failed,
        })
    }

    /// The longest wait after so many retries of its rule.
    fn wait(&self, so_far: u32) -> Duration {
        let interval = self.scenario.tuning.interval_ms;
        let longest = self.scenario.rules.longest_wait_ms;
        let longest = longest.map_or(u64::MAX, |longest| longest.max(interval));
        Duration::from_millis((interval << so_far).min(longest))
    }

    fn charge(&self, failure: &Failure, charged: &mut Charged) {
        let class = failure.class.to_string();
        if class == "Throttled" && charged.throttles < THROTTLES_MAX {
            charged.throttles += 1;
        } else if self.is_flaky(&class) {
            charged.flaky += 1;
        } else {
            charged.others += 1;
        }
    }

    /// Whether what is due begins at once, if there is a permit.
    fn is_prompt(&self) -> bool {
        let Scenario {
            workers,
            tuning,
            handler,
            ..
        } = self.scenario;
        *workers == 1 && handler.throttled == 0 && !tuning.pauses
    }
}

/// The items' calls, gone through again.
pub(crate) struct Replay<'a> {
    policy: Policy<'a>,
    /// By item, generation and lane, in the order in which they began.
    calls: BTreeMap<(ItemId, u32, Lane), Stretch<'a>>,
    /// What was charged when this call began, by its place among those of its stretch; none: not known.
    charged: BTreeMap<(ItemId, u32, Lane), Vec<Option<Charged>>>,
}

impl<'a> Replay<'a> {
    pub(crate) fn of(policy: Policy<'a>, told: &'a [Told]) -> Self {
        let mut calls: BTreeMap<_, Stretch<'a>> = BTreeMap::new();
        for one in told {
            let key = (one.item, one.generation, one.lane);
            calls.entry(key).or_default().push(one);
        }
        Self {
            policy,
            calls,
            charged: BTreeMap::new(),
        }
    }

    /// Goes through all of them; says what is wrong, in sentences.
    pub(crate) fn go(&mut self, told: &[Told]) -> Vec<String> {
        let mut broken = Vec::new();
        for (key, calls) in &self.calls {
            let mut charged = Vec::new();
            let mut known: Option<Charged> = None;
            for (at, call) in calls.iter().enumerate() {
                let former = at.checked_sub(1).map(|at| calls[at]);
                let follows = former.filter(|former| {
                    let hears = former.came_to != CameTo::Nothing;
                    former.epoch == call.epoch && hears || self.policy.calm
                });
                let problem = match follows {
                    Some(former) => self.step(former, call, &mut known, told),
                    None => {
                        known = (call.attempt == 1).then(Charged::default);
                        let begins = self.policy.calm && call.attempt != 1;
                        begins.then(|| "the first is no first".to_owned())
                    }
                };
                charged.push(known.clone());
                broken.extend(problem.map(|problem| {
                    let Told { item, attempt, .. } = call;
                    format!("{item} was called, attempt {attempt}: {problem}")
                }));
            }
            broken.extend(throttled_too_fast(calls));
            self.charged.insert(*key, charged);
        }
        broken
    }

    /// What is wrong with one call after another.
    fn step(
        &self,
        former: &Told,
        call: &Told,
        known: &mut Option<Charged>,
        told: &[Told],
    ) -> Option<String> {
        let expected = match &former.came_to {
            CameTo::Succeeded => return Some("it had succeeded".to_owned()),
            CameTo::Halved => former.attempt,
            CameTo::Nothing | CameTo::Stopped => {
                // Whether that was charged is not known.
                *known = None;
                return None;
            }
            CameTo::Failed(_) => former.attempt + 1,
        };
        let next = match (&former.came_to, known.as_ref()) {
            (CameTo::Failed(failure), Some(charged)) => {
                Some((self.policy.next(failure, former.lane, charged), failure))
            }
            _ => None,
        };
        if let (Some(charged), Some((_, failure))) = (known.as_mut(), next) {
            self.policy.charge(failure, charged);
        }
        if call.attempt != expected {
            return Some(format!("{expected} was to come"));
        }
        let waited = call.began.since(former.ended);
        match next {
            Some((Next::Ends(_) | Next::Moves, failure)) => Some(format!(
                "it had no retries left after {}: {}",
                failure.class, failure.cause
            )),
            Some((Next::Again(wait), _)) => {
                let due = former.ended + wait;
                let has_room = || {
                    let runs = |call: &&Told| call.began <= due && call.ended > due;
                    let running = told.iter().filter(runs).count();
                    running < self.policy.scenario.tuning.max_concurrency as usize
                };
                self.waited_wrong(wait, waited, &has_room)
            }
            Some((Next::Throttled, _)) | None => None,
        }
    }

    fn waited_wrong(
        &self,
        wait: Duration,
        waited: Duration,
        has_room: &dyn Fn() -> bool,
    ) -> Option<String> {
        let exact = self.policy.scenario.rules.exact_waits;
        // Clocks drift by half a percent, and moments are kept in whole milliseconds.
        let shortest = wait.mul_f64(0.99).saturating_sub(Duration::from_millis(2));
        let calm = self.policy.calm && self.policy.is_prompt();
        let at_once = || calm && wait <= HELD_WAIT && has_room();
        let early = exact && waited < shortest;
        let late = waited > wait + BEGINS_WITHIN && at_once();
        (early || late).then(|| format!("after {waited:?}, the rule says {wait:?}"))
    }

    /// What must follow the call in this lane that came to this failure; none: there is no such call.
    pub(crate) fn next_of(
        &self,
        key: (ItemId, u32, Lane),
        failure: &Failure,
        attempt: u32,
    ) -> Option<Due> {
        let came_to = CameTo::Failed(failure.clone());
        let calls = self.calls.get(&key)?;
        let mut of_attempt = calls.iter().filter(|call| call.attempt == attempt);
        if of_attempt.any(|call| call.was_nearly_late()) {
            return Some(Due::Unknown);
        }
        let is_it = |call: &&Told| call.attempt == attempt && call.came_to == came_to;
        let Some(at) = calls.iter().rposition(is_it) else {
            // What came about when its time was up may have been heard before or after that.
            let is_open = |call: &&Told| call.attempt == attempt && call.came_to == CameTo::Stopped;
            return calls.iter().any(is_open).then_some(Due::Unknown);
        };
        let charged = self.charged.get(&key).and_then(|all| all[at].as_ref());
        Some(charged.map_or(Due::Unknown, |charged| {
            Due::Known(self.policy.next(failure, key.2, charged))
        }))
    }

    /// Whether it was ever called.
    pub(crate) fn was_called(&self, item: ItemId) -> bool {
        self.calls.keys().any(|(called, _, _)| *called == item)
    }

    /// Whether any call of it was stopped before it said, or not heard of.
    pub(crate) fn is_open(&self, (item, generation): (ItemId, u32)) -> bool {
        let calls = Lane::ALL.into_iter();
        let calls = calls.filter_map(|lane| self.calls.get(&(item, generation, lane)));
        calls.flatten().any(|call| match call.came_to {
            CameTo::Nothing | CameTo::Stopped | CameTo::Halved => true,
            CameTo::Failed(_) => true,
            CameTo::Succeeded => false,
        })
    }
}

/// Twenty throttles in a row are spread over seconds, however they are drawn.
fn throttled_too_fast(calls: &[&Told]) -> Option<String> {
    let is_throttle = |call: &&&Told| match &call.came_to {
        CameTo::Failed(failure) => failure.class.to_string() == "Throttled",
        CameTo::Nothing | CameTo::Stopped | CameTo::Halved | CameTo::Succeeded => false,
    };
    let throttles: Vec<&&Told> = calls.iter().filter(is_throttle).collect();
    let first = throttles.first()?;
    let same = throttles
        .iter()
        .take_while(|call| call.epoch == first.epoch);
    let last = same.clone().nth(THROTTLES_MAX as usize)?;
    let took = last.began.since(first.ended);
    (took < THROTTLED_AT_LEAST).then(|| {
        format!(
            "{} was called 21 times in {took:?}, and throttled",
            first.item
        )
    })
}
