//! How often each of many may ask: for each a time at which its bucket is full again (the generic cell rate algorithm), one
//! number in place of a level and a date. Time is an argument. It must not know who asks.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Rate;

/// How many are remembered at a time. Those beyond are counted together, so that nobody who comes from many addresses takes
/// memory or goes uncounted.
pub(crate) const REMEMBERED_MAX: usize = 100_000;

/// Parts of the table that are locked apart.
const SHARDS: usize = 16;

/// How often each may ask.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    /// What one request costs, in nanoseconds.
    cost_ns: u64,
    /// How far ahead of the clock somebody may be, in nanoseconds.
    burst_ns: u64,
    hasher: RandomState,
    shards: Vec<Mutex<Shard<K>>>,
    remembered_max: usize,
}

#[derive(Debug)]
struct Shard<K> {
    full_at: HashMap<K, u64>,
    /// When the bucket of all others is full.
    others: u64,
}

impl<K: Hash + Eq> Limiter<K> {
    pub(crate) fn new(rate: &Rate) -> Self {
        Self::remembering(rate, REMEMBERED_MAX)
    }

    fn remembering(rate: &Rate, max: usize) -> Self {
        let requests = u64::from(rate.requests.max(1));
        let cost_ns = (rate.per_ms.max(1).saturating_mul(1_000_000) / requests).max(1);
        let burst = u64::from(rate.burst.unwrap_or(rate.requests).max(1));
        let shard = || Mutex::new(Shard { full_at: HashMap::new(), others: 0 });
        Self {
            cost_ns,
            burst_ns: cost_ns.saturating_mul(burst),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            remembered_max: max.div_ceil(SHARDS),
        }
    }

    /// Counts a request at a time (nanoseconds of any clock that only grows).
    ///
    /// # Errors
    /// How long to wait, if it came too early; it is not counted then.
    pub(crate) fn ask(&self, key: K, now_ns: u64) -> Result<(), Duration> {
        let at = usize::try_from(self.hasher.hash_one(&key) % SHARDS as u64).unwrap_or(0);
        let mut shard = self.shards[at].lock();
        if !shard.full_at.contains_key(&key) && shard.full_at.len() >= self.remembered_max {
            // Whose bucket is full is as one who never came.
            shard.full_at.retain(|_, full_at| *full_at > now_ns);
        }
        let room = shard.full_at.len() < self.remembered_max || shard.full_at.contains_key(&key);
        let full_at = if room { shard.full_at.entry(key).or_insert(now_ns) } else { &mut shard.others };
        let then = (*full_at).max(now_ns).saturating_add(self.cost_ns);
        match then.checked_sub(now_ns.saturating_add(self.burst_ns)) {
            None | Some(0) => {
                *full_at = then;
                Ok(())
            }
            Some(early_ns) => Err(Duration::from_nanos(early_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::RateBy;

    const MS: u64 = 1_000_000;

    fn rate(requests: u32, per_ms: u64, burst: u32) -> Rate {
        Rate { requests, per_ms, burst: Some(burst), by: RateBy::Client }
    }

    #[test]
    fn a_burst_passes_then_as_many_as_the_rate_says() {
        let limiter = Limiter::new(&rate(10, 1000, 3));
        for _ in 0..3 {
            assert_eq!(limiter.ask("a", 0), Ok(()));
        }
        assert_eq!(limiter.ask("a", 0), Err(Duration::from_millis(100)));
        assert_eq!(limiter.ask("a", 40 * MS), Err(Duration::from_millis(60)));
        assert_eq!(limiter.ask("b", 0), Ok(()));
        assert_eq!(limiter.ask("a", 100 * MS), Ok(()));
        assert!(limiter.ask("a", 100 * MS).is_err());
    }

    #[test]
    fn those_beyond_what_is_remembered_are_counted_together() {
        let limiter = Limiter::remembering(&rate(1, 1000, 1), SHARDS);
        let refused = (0..1000_u32).filter(|key| limiter.ask(*key, 0).is_err()).count();
        // One for each shard, and one for the others of each.
        assert!(refused >= 1000 - 2 * SHARDS, "{refused}");
        // Later all of those are as new.
        assert_eq!(limiter.ask(5000, 10_000 * MS), Ok(()));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_rate_and_the_burst(
            requests in 1_u32..20, burst in 1_u32..20, steps in prop::collection::vec(0_u64..200, 1..200)
        ) {
            let limiter = Limiter::new(&rate(requests, 1000, burst));
            let (mut now, mut passed) = (0, Vec::new());
            for step in steps {
                now += step * MS;
                match limiter.ask((), now) {
                    Ok(()) => passed.push(now),
                    // Whoever waits as long as told passes.
                    Err(wait) => {
                        now += u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert_eq!(limiter.ask((), now), Ok(()));
                        passed.push(now);
                    }
                }
            }
            for (at, first) in passed.iter().enumerate() {
                for (count, last) in passed[at..].iter().enumerate() {
                    let allowed = u64::from(burst) + (last - first) * u64::from(requests) / (1000 * MS) + 1;
                    prop_assert!(count as u64 <= allowed);
                }
            }
        }
    }
}
