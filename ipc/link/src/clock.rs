//! How far apart the clocks of the two ends are, and how long a round trip takes. Used by [`crate::session`], which pings.
//! It must not know what the difference is for.
//!
//! The offset of the exchange with the shortest round trip of the last few is taken: it is wrong by half of that round trip
//! at most (Mills, "Internet Time Synchronization: The Network Time Protocol", IEEE Transactions on Communications 39(10),
//! 1991, the clock filter).

/// Exchanges that are remembered.
const SAMPLES: usize = 16;

/// What is known of the other end's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Distance {
    /// The shortest round trip of the last exchanges, in nanoseconds; 0 before the first.
    pub round_trip_ns: u64,
    /// What must be added to a time of this end's clock to have the other's, in nanoseconds.
    pub offset_ns: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    samples: [Distance; SAMPLES],
    count: usize,
}

impl Clock {
    /// Adds an exchange: sent here, answered there, back here.
    pub(crate) fn add(&mut self, sent_ns: u64, there_ns: u64, back_ns: u64) {
        let round_trip_ns = back_ns.saturating_sub(sent_ns).max(1);
        let middle = i128::from(sent_ns) + i128::from(round_trip_ns / 2);
        let offset = i128::from(there_ns) - middle;
        let offset_ns = i64::try_from(offset).unwrap_or(0);
        self.samples[self.count % SAMPLES] = Distance { round_trip_ns, offset_ns };
        self.count += 1;
    }

    /// Whether anything is known.
    pub(crate) fn is_set(&self) -> bool {
        self.count > 0
    }

    /// The best of what is known.
    pub(crate) fn distance(&self) -> Distance {
        let known = self.samples[..self.count.min(SAMPLES)].iter();
        known.min_by_key(|sample| sample.round_trip_ns).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_exchange_counts_until_it_is_old() {
        let mut clock = Clock::default();
        assert_eq!(clock.distance(), Distance::default());
        clock.add(1_000, 501_000, 3_000);
        clock.add(10_000, 600_000, 110_000);
        assert_eq!(clock.distance(), Distance { round_trip_ns: 2_000, offset_ns: 499_000 });
        (0..SAMPLES).for_each(|_| clock.add(1_000, 0, 11_000));
        assert_eq!(clock.distance(), Distance { round_trip_ns: 10_000, offset_ns: -6_000 });
    }
}
