//! Times, told as percentiles. Used by the tests that print how long something took; none of them asserts it. It must
//! not know what was timed.

use std::fmt;

/// Times in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// Adds a time.
    pub fn add(&mut self, ns: u64) {
        self.0.push(ns);
    }

    /// Adds the times of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are above a time.
    #[must_use]
    pub fn above(&self, ns: u64) -> usize {
        self.0.iter().filter(|time| **time > ns).count()
    }

    /// The time that so many of a thousand do not exceed.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last * share).div_ceil(1000)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n {}", self.len())?;
        for (name, share) in [("p50", 500), ("p90", 900), ("p99", 990), ("max", 1000)] {
            let us = self.per_mille(share) / 1000;
            write!(f, "  {name} {}.{:03} ms", us / 1000, us % 1000)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut times = Times::default();
        (1..=100u64).rev().for_each(|ms| times.add(ms * 1_000_000));
        assert_eq!((times.per_mille(1000), times.above(90_000_000)), (100_000_000, 10));
        assert_eq!(times.to_string(), "n 100  p50 51.000 ms  p90 91.000 ms  p99 100.000 ms  max 100.000 ms");
    }
}
