//! How patiently what was refused is asked again: what was throttled after waits that double, what cannot be never
//! ("L6"). Only requests are followed whose content no other has: writes of pages, and transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use trommel::core::time::Tick;

/// The first wait lies between this and twice as long …
const SHORTEST: Duration = Duration::from_millis(20);

/// … and no wait is longer than this.
const LONGEST: Duration = Duration::from_secs(4);

/// So often the same request may be throttled in a row before its caller hears of it.
const TIMES_MAX: u32 = 12;

/// How a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It came too fast, or met another: it may be made again.
    TooFast,
    /// Its condition does not hold.
    NeverMore,
}

/// Who was refused what, and when. A request is named by the process and a hash of its content.
#[derive(Default)]
pub(super) struct Patience {
    refused: BTreeMap<(String, u32, u64), (Refused, u32, Tick)>,
}

/// Whether all processes ran all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Always,
    /// Some were frozen: whoever was may have waited longer than he wanted to.
    OffAndOn,
}

impl Patience {
    /// Whether nothing is refused.
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// What is wrong with making a request now, in a sentence.
    pub(super) fn asks(
        &self,
        (who, incarnation): (&str, u32),
        request: u64,
        now: Tick,
        ran: Ran,
    ) -> Option<String> {
        let key = (who.to_owned(), incarnation, request);
        let (refused, times, at) = self.refused.get(&key)?;
        let waited = now.since(*at);
        match refused {
            Refused::NeverMore => Some(format!(
                "L6: {who} asks again for what cannot be, after {waited:?}"
            )),
            Refused::TooFast => {
                let longest = (SHORTEST * 2u32.pow(*times)).min(LONGEST);
                // Clocks drift by half a percent.
                let early = waited < longest.mul_f64(0.49);
                let late = ran == Ran::Always && waited > longest.mul_f64(1.01);
                (early || late).then(|| {
                    format!(
                        "L6: {who} was throttled {times} times, and asks again after {waited:?}"
                    )
                })
            }
        }
    }

    /// What became of a request.
    pub(super) fn hears(
        &mut self,
        (who, incarnation): (&str, u32),
        request: u64,
        now: Tick,
        refused: Option<Refused>,
    ) {
        if refused.is_none() && self.is_empty() {
            return;
        }
        let key = (who.to_owned(), incarnation, request);
        let former = self.refused.remove(&key);
        let Some(refused) = refused else { return };
        let times = former.map_or(0, |(_, times, _)| times) + 1;
        if times < TIMES_MAX {
            self.refused.insert(key, (refused, times, now));
        }
    }
}
