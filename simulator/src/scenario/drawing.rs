//! Scenarios by chance: what a seed says.

use std::time::Duration;

use super::{
    Behaviour, FaultSource, Happening, Profile, Role, Scenario, Trouble, Tuning, VERSION, Workload,
    WrongClock, object, worker,
};
use crate::entropy::{Seed, Stream};
use crate::events::EventMode;
use crate::job_rules::Rules;
use crate::point::Kind;
use crate::schedule::Schedule;
use crate::services::Rates;

impl Workload {
    /// Few of many kinds: see [`Scenario::generate`].
    fn generate(chance: &Stream) -> Self {
        let usual = Self {
            small: chance.below(25),
            large: chance.below(10),
            lines: chance.chance(150_000),
            line_bytes: 0,
            listed_at_once: 0,
        };
        match chance.below(150) {
            // More than a page takes.
            0 => Self {
                small: 90 + chance.below(150),
                ..usual
            },
            // More than a page takes in bytes; and more than a part does.
            1 => Self {
                small: 30 + chance.below(10),
                lines: true,
                line_bytes: 70_000,
                ..usual
            },
            2 => Self {
                lines: true,
                line_bytes: 100,
                ..usual
            },
            // Parts of a few items each: they are closed when they are a second old.
            3..15 => Self {
                small: usual.small.min(14),
                lines: false,
                listed_at_once: 1 + chance.below(3) as u32,
                ..usual
            },
            _ => usual,
        }
    }
}

fn rates(chance: &Stream, profile: Profile) -> Rates {
    let mut rates = Rates::new();
    for kind in Kind::ALL {
        let takes_part = chance.chance(600_000);
        let often = 1_000 + chance.below(120_000) as u32;
        let rate = match profile {
            Profile::Swarm if takes_part => often,
            Profile::Low => 1_500,
            Profile::Swarm | Profile::None => 0,
        };
        // A crash or a hang costs half a minute of virtual time: few of them are many.
        let rate = match kind {
            Kind::CrashBefore | Kind::CrashAfter | Kind::Hangs => rate / 20,
            Kind::RequestLost
            | Kind::ReplyLost
            | Kind::Late
            | Kind::Throttled
            | Kind::Conflict
            | Kind::Slow
            | Kind::Lost
            | Kind::Doubled
            | Kind::Ghost
            | Kind::Rejected
            | Kind::NoCapacity
            | Kind::Partial
            | Kind::NoResult
            | Kind::OutOfMemory
            | Kind::Dies => rate,
        };
        rates.insert(kind, rate);
    }
    rates
}

/// Most clocks drift by far less; two that differ by 1 % are as far apart as leases must bear.
const DRIFT_MAX_PPM: u64 = 5_000;

/// Ten minutes: what a machine without a time service may be off.
const OFFSET_MAX_MS: u64 = 600_000;

/// The first process drives the run; without it there are no workers.
fn roles(chance: &Stream, workers: u32) -> Vec<Role> {
    let mut roles = Vec::new();
    for number in 0..workers {
        let helps = chance.chance(600_000);
        roles.push(match number {
            0 if helps => Role::All,
            0 => Role::Router,
            _ if helps => Role::Worker,
            _ => Role::All,
        });
    }
    roles
}

fn clocks(chance: &Stream, workers: u32) -> Vec<WrongClock> {
    let mut clocks = Vec::new();
    for number in 0..workers {
        let about = |most: u64| chance.below(2 * most + 1).cast_signed() - most.cast_signed();
        let (offset_ms, drift_ppm) = (about(OFFSET_MAX_MS), about(DRIFT_MAX_PPM));
        if chance.chance(250_000) {
            clocks.push(WrongClock {
                node: worker(number),
                offset_ms,
                drift_ppm,
            });
        }
    }
    clocks
}

fn troubles(chance: &Stream, workers: u32, items: u64, session_ms: u64) -> Vec<Trouble> {
    let count = chance.below(5);
    let trouble = |_| {
        let at_ms = chance.below(2 * session_ms);
        let node = worker(chance.below(u64::from(workers)) as u32);
        let what = Happening::ALL[chance.below(Happening::ALL.len() as u64) as usize];
        let for_ms = chance.below(session_ms * 5 / 3);
        let victim = object(chance.below(items.max(1)));
        match what {
            Happening::Overwrite | Happening::Delete => Trouble {
                at_ms: at_ms / 6,
                node: victim,
                what,
                for_ms: 0,
            },
            Happening::Crash
            | Happening::Freeze
            | Happening::Cut
            | Happening::Heat
            | Happening::Drain
            | Happening::Pause => Trouble {
                at_ms,
                node,
                what,
                for_ms,
            },
        }
    };
    let mut troubles: Vec<Trouble> = (0..count).map(trouble).collect();
    troubles.sort_by_key(|trouble| (trouble.at_ms, trouble.node.clone()));
    troubles
}

impl Scenario {
    /// What this seed says: some 20 items, up to four workers.
    pub fn generate(seed: u64, profile: Profile) -> Self {
        let chance = &Seed(seed).stream("scenario");
        let workers = 1 + chance.below(4) as u32;
        let workload = Workload::generate(chance);
        let rate = |most: u64| {
            let often = chance.below(most) as u32;
            if chance.chance(500_000) { often } else { 0 }
        };
        let handler = Behaviour {
            flaky: rate(300_000),
            bad: rate(150_000),
            throttled: rate(50_000),
            panics: rate(20_000),
            slow: rate(50_000),
            killers: if chance.chance(40_000) { 80_000 } else { 0 },
            shortest: Duration::from_millis(20),
            longest: Duration::from_millis(100 + chance.below(3_000)),
            kinds_of_bad: [0, 0, 0, 2, 60][chance.below(5) as usize],
            output_bytes: 0,
        };
        let tuning = Tuning {
            max_concurrency: 1 + chance.below(8) as u32,
            batch: if chance.chance(700_000) { 1 } else { 5 },
            tolerated: chance.below(8),
            tolerated_percent: chance.chance(200_000).then(|| 10 * chance.below(10) as u8),
            retries: chance.below(4) as u32,
            interval_ms: [0, 500, 500, 3_000, 8_000, 40_000][chance.below(6) as usize],
            pauses: chance.chance(150_000),
            results: chance.chance(500_000),
            appends: chance.chance(250_000),
            session_seconds: [6, 10, 10, 10, 30][chance.below(5) as usize],
        };
        let session_ms = u64::from(tuning.session_seconds) * 1000;
        // Seldom, as it is slow: outputs that are kept as objects of their own.
        let is_large = chance.below(1_500) == 0 && tuning.results;
        let (workload, handler) = match is_large {
            true => (
                Workload {
                    small: workload.small.min(5),
                    line_bytes: 0,
                    ..workload
                },
                Behaviour {
                    output_bytes: 300_000,
                    ..handler
                },
            ),
            false => (workload, handler),
        };
        // A day on which everything is throttled, until that counts as a failure.
        let is_throttled = chance.below(100) == 0;
        let (workload, handler) = match is_throttled {
            true => (
                Workload {
                    small: workload.small.min(3),
                    large: workload.large.min(1),
                    ..workload
                },
                Behaviour {
                    throttled: 1_000_000,
                    ..handler
                },
            ),
            false => (workload, handler),
        };
        let items = workload.small + workload.large;
        let troubles = match profile {
            Profile::Swarm => troubles(chance, workers, items, session_ms),
            Profile::Low if chance.chance(300_000) => troubles(chance, workers, items, session_ms),
            Profile::Low | Profile::None => Vec::new(),
        };
        let schedule = match chance.below(10) {
            0 | 1 => Schedule::Fifo,
            2..5 => Schedule::Pct,
            _ => Schedule::Random,
        };
        let clocks = match profile {
            Profile::Swarm => clocks(chance, workers),
            Profile::Low | Profile::None => Vec::new(),
        };
        let events = chance.chance(250_000).then(|| EventMode::generate(chance));
        let rules = if events.is_none() && chance.chance(600_000) {
            Rules::generate(chance)
        } else {
            Rules::default()
        };
        Self {
            v: VERSION,
            why: None,
            seed,
            workers,
            roles: roles(chance, workers),
            workload,
            tuning,
            schedule,
            clocks,
            handler,
            troubles,
            faults: FaultSource::Swarm(rates(chance, profile)),
            chaos_seconds: 3 * u64::from(tuning.session_seconds),
            redrives: match rules.refuses_large() {
                // No redrive makes what is too large smaller.
                true => 0,
                false => chance.below(8).saturating_sub(5) as u32,
            },
            redrive_failed_only: chance.chance(300_000),
            events,
            rules,
            expect: None,
        }
    }
}
