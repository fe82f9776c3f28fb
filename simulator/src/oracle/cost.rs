//! What a scenario may cost: in calls of services, and in money ("L6", "L7").

use std::time::Duration;

use trommel::core::price::Prices;

use super::Oracle;

/// Service calls that an item may take, with its retries ("L6" of `pipeline/design.md`).
const CALLS_AN_ITEM: u64 = 40;

/// Service calls that an injected fault may cost more.
const CALLS_A_FAULT: u64 = 20;

/// Service calls to open a session, to learn where its run stands, and to close it.
const CALLS_A_SESSION: u64 = 80;

/// Service calls to read a part, to freeze it and to make its pages, or to find that others did.
const CALLS_A_PART: u64 = 15;

/// Calls of a process that waits: beats every 2 s, a look a second with its 16 tallies every 8 s, a sweep of
/// 16 shards every 5 s, two lanes that are listened to.
const IDLE_CALLS_A_SECOND: u64 = 10;

/// L7: a scenario may cost three times what it costs when all is calm, and for each fault so much more. What is
/// calm was measured: an item alone in a page, with an output that is an object of its own …
const USD_AN_ITEM: f64 = 10e-6;

/// … what a session costs, from its opening to its end …
const USD_A_SESSION: f64 = 16e-6;

/// … and more if all compile result files at one moment: two puts each …
const USD_A_COMPILING: f64 = 10e-6;

/// … a part after the first, for each process: a listing, a put, some small writes …
const USD_A_PART: f64 = 8e-6;

/// … and a second of waiting.
const IDLE_USD_A_SECOND: f64 = 1.2e-6;

const DEARER_MAX: f64 = 3.0;

/// What a fault may cost more: its calls, at the price of two small writes each.
const USD_A_FAULT: f64 = 20.0 * 1.25e-6;

impl Oracle<'_> {
    /// L6: no busy loop. So many calls an item, and an injected fault, may take; what waits may ask now and
    /// then.
    pub fn busy_loops(&mut self, workers: u32, passed: Duration) {
        let injector = self.cluster.injector();
        let items = self.cluster.watch().items_run();
        let faults = injector.struck() as u64;
        let waiting = u64::from(workers) * (passed.as_secs() + 1) * IDLE_CALLS_A_SECOND;
        let sessions = self.cluster.sessions_opened();
        // Each process reads and routes each part; most runs have one, which is its session's.
        let more = self
            .places()
            .map_or(0, |places| places.parts.len().saturating_sub(1));
        let parts = u64::from(workers) * more as u64 * CALLS_A_PART;
        let may = CALLS_AN_ITEM * items
            + CALLS_A_FAULT * faults
            + CALLS_A_SESSION * sessions
            + waiting
            + parts;
        let calls = injector.calls();
        let broken = (calls > may).then(|| {
            format!("{calls} service calls for {items} items and {faults} faults in {passed:?}, {may} may")
        });
        self.holds("L6", calls, broken);
        let usage = injector.usage();
        let usd = usage.usd(&Prices::LIST);
        let idle = f64::from(workers) * (passed.as_secs() + 1) as f64 * IDLE_USD_A_SECOND;
        let of_parts = f64::from(workers) * more as f64 * USD_A_PART;
        let compiles = self.cluster.job().results.is_some();
        let of_session = match compiles {
            true => USD_A_SESSION + USD_A_COMPILING,
            false => USD_A_SESSION,
        };
        let calm = USD_AN_ITEM * items as f64 + of_session * sessions as f64 + idle + of_parts;
        let may = DEARER_MAX * calm + USD_A_FAULT * faults as f64;
        let broken = (usd > may).then(|| format!("{usage:?} cost {usd:.6} USD, {may:.6} may"));
        self.holds("L7", usage.requests(), broken);
        let broken = injector.counted_again().disagrees(&usage);
        self.holds("L7", 1, broken);
    }
}
