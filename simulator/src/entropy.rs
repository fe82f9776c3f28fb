//! Chance from one seed: named streams that do not disturb each other.
//!
//! Each consumer (the scheduler, each node, later each kind of fault) draws from a stream of its own,
//! so that one more draw here changes nothing there. Draws are computed from raw numbers by this file,
//! not by a library's sampling, whose results may change between its versions.

use std::sync::{Mutex, PoisonError};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use trommel::ports::Entropy;

use crate::trace::{FNV_START, fnv1a};

/// What a whole simulation follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of this name: the same for the same seed and name, unrelated to every other.
    #[must_use]
    pub fn stream(self, name: &str) -> Stream {
        // The key of the cipher holds the seed and two hashes of the name: different names, different
        // keys, and what the cipher makes of different keys is unrelated.
        let forward = fnv1a(FNV_START, name.bytes());
        let backward = fnv1a(forward, name.bytes().rev());
        let length = name.len() as u64;
        let mut key = [0; 32];
        for (bytes, word) in key
            .chunks_exact_mut(8)
            .zip([self.0, forward, backward, length])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Stream(Mutex::new(ChaCha8Rng::from_seed(key)))
    }
}

/// A stream of random numbers.
pub struct Stream(Mutex<ChaCha8Rng>);

impl Stream {
    /// The next draw, uniform over all values.
    pub fn draw(&self) -> u64 {
        let mut generator = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generator.next_u64()
    }

    /// A draw from 0 up to, not including, `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        debug_assert!(end > 0, "there is no number below 0");
        // The high half of the product; the bias is below one in 2^64 / end.
        ((u128::from(self.draw()) * u128::from(end)) >> 64) as u64
    }

    /// True in `of_million` of a million draws.
    pub fn chance(&self, of_million: u32) -> bool {
        self.below(1_000_000) < u64::from(of_million)
    }
}

impl Entropy for Stream {
    fn next_u64(&self) -> u64 {
        self.draw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(stream: &Stream) -> Vec<u64> {
        (0..8).map(|_| stream.draw()).collect()
    }

    #[test]
    fn a_stream_follows_from_seed_and_name_alone() {
        let once = draws(&Seed(1).stream("a"));
        let again = draws(&Seed(1).stream("a"));
        assert_eq!(once, again);
        assert_ne!(once, draws(&Seed(1).stream("b")));
        assert_ne!(once, draws(&Seed(2).stream("a")));
        assert_ne!(draws(&Seed(1).stream("ab")), draws(&Seed(1).stream("ba")));
    }

    #[test]
    fn draws_from_one_stream_do_not_move_another() {
        let quiet = Seed(3).stream("quiet");
        let busy = Seed(3).stream("busy");
        let first = quiet.draw();
        draws(&busy);
        let fresh = Seed(3).stream("quiet");
        assert_eq!(fresh.draw(), first);
        assert_eq!(fresh.draw(), quiet.draw());
    }

    #[test]
    fn draws_below_a_bound_reach_all_of_it_and_no_more() {
        let stream = Seed(4).stream("dice");
        let mut seen = [0_u32; 6];
        for _ in 0..6_000 {
            let eye = usize::try_from(stream.below(6)).expect("below six");
            seen[eye] += 1;
        }
        assert!(
            seen.iter().all(|times| (800..1_200).contains(times)),
            "{seen:?}"
        );
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let stream = Seed(5).stream("coin");
        let heads = (0..10_000).filter(|_| stream.chance(250_000)).count();
        assert!((2_200..2_800).contains(&heads), "{heads}");
    }
}
