//! How many bytes of transfers may be under way: enough to fill the link, and no more, because a small frame waits behind
//! all that is queued before it, in this process or in the kernel. Used by [`crate::outgoing`]. It must not know what is sent.
//!
//! The bound is twice the rate at which bytes arrive times the shortest round trip seen, the bandwidth-delay product with as
//! much again for acknowledgements to come late (Cardwell, Cheng, Gunn, Yeganeh and Jacobson, "BBR: Congestion-Based
//! Congestion Control", ACM Queue 14(5), 2016, keeps to the same product), and what arrives while the sender is woken. The rate
//! is the best of the last few rounds.
//!
//! Pieces are sent whole: one that filled up what little room there is would be followed by an answer that makes as little
//! (the silly window of Clark, "Window and Acknowledgement Strategy in TCP", RFC 813, 1982).

use crate::limits;

/// Rounds whose best rate counts.
const ROUNDS: usize = 8;

/// The round trip between two ends that are awake, as they are during a transfer, by that of a ping and that of the network.
pub(crate) fn awake_ns(ping_ns: u64, network_ns: Option<u64>) -> u64 {
    let is_of_the_whole_way =
        |network_ns: &u64| ping_ns.saturating_sub(*network_ns) <= limits::WAKE_UPS_NS_MAX;
    network_ns.filter(is_of_the_whole_way).map_or(ping_ns, |network_ns| network_ns.min(ping_ns))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    sent: u64,
    arrived: u64,
    bound: u64,
    /// Best bytes per second of each of the last rounds.
    rates: [u64; ROUNDS],
    round: usize,
    round_began_ns: u64,
    round_began_at: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            arrived: 0,
            bound: limits::BULK_BYTES_MIN,
            rates: [0; ROUNDS],
            round: 0,
            round_began_ns: 0,
            round_began_at: 0,
        }
    }

    /// Whether a piece may be sent now. More of them may be under way where nothing else is going on that would have to wait
    /// behind them; one may always be.
    pub(crate) fn admits(&self, bytes: u64, quiet: bool) -> bool {
        let bound = if quiet { self.bound.max(limits::BULK_BYTES_QUIET) } else { self.bound };
        let under_way = self.sent - self.arrived;
        under_way == 0 || under_way + bytes <= bound
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The other end says how many have arrived since the beginning. `false`: that cannot be.
    pub(crate) fn arrived(&mut self, total: u64, now_ns: u64, round_trip_ns: u64) -> bool {
        if total < self.arrived || total > self.sent {
            return false;
        }
        self.arrived = total;
        let round_ns = round_trip_ns.max(200_000);
        if self.round_began_ns == 0 || total == self.sent {
            // What was idle says nothing of the rate.
            (self.round_began_ns, self.round_began_at) = (now_ns, total);
        }
        let lasted = now_ns.saturating_sub(self.round_began_ns);
        if lasted >= round_ns {
            let bytes = u128::from(total - self.round_began_at);
            let rate = u64::try_from(bytes * 1_000_000_000 / u128::from(lasted)).unwrap_or(u64::MAX);
            self.rates[self.round % ROUNDS] = rate;
            self.round += 1;
            (self.round_began_ns, self.round_began_at) = (now_ns, total);
            let best = self.rates.iter().copied().max().unwrap_or(0);
            let lasting_ns = 2 * u128::from(round_trip_ns) + u128::from(limits::BULK_NS_MIN);
            let product = u128::from(best) * lasting_ns / 1_000_000_000;
            let product = u64::try_from(product).unwrap_or(u64::MAX);
            self.bound = product.clamp(limits::BULK_BYTES_MIN, limits::BULK_BYTES_MAX);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces until no more of them may be under way; says how many bytes.
    fn fill(pace: &mut Pace) -> u64 {
        let (piece, before) = (limits::CHUNK_BYTES as u64, pace.sent);
        while pace.admits(piece, false) {
            pace.sent(piece);
        }
        pace.sent - before
    }

    #[test]
    fn a_far_and_fast_link_is_filled_and_a_near_one_is_not() {
        let mut far = Pace::new();
        let (mut now, round_trip) = (1, 20_000_000);
        for _ in 0..100 {
            fill(&mut far);
            now += round_trip;
            assert!(far.arrived(far.sent - 1, now, round_trip));
        }
        assert!(far.bound > 100 * limits::BULK_BYTES_MIN, "{}", far.bound);
        // A link that takes 2 GB/s, however much is under way.
        let mut near = Pace::new();
        for _ in 0..100 {
            now += (fill(&mut near) / 2).max(100_000);
            assert!(near.arrived(near.sent - 1, now, 20_000));
        }
        assert!(near.bound <= 400_000, "{}", near.bound);
        // It becomes slow: after a few rounds no more is under way than it takes meanwhile.
        for _ in 0..100 {
            now += (fill(&mut near) * 3).max(100_000);
            assert!(near.arrived(near.sent - 1, now, 20_000));
        }
        assert_eq!(near.bound, limits::BULK_BYTES_MIN);
    }

    #[test]
    fn the_network_is_believed_where_nobody_stands_between() {
        assert_eq!(awake_ns(300_000, Some(1_000)), 1_000);
        assert_eq!(awake_ns(20_000_000, Some(19_900_000)), 19_900_000);
        assert_eq!(awake_ns(20_000_000, Some(1_000)), 20_000_000, "through a tunnel whose near end is here");
        assert_eq!(awake_ns(300_000, None), 300_000);
    }

    #[test]
    fn one_piece_may_always_be_under_way() {
        let mut pace = Pace::new();
        assert!(pace.admits(limits::BULK_BYTES_MAX, false));
        pace.sent(limits::BULK_BYTES_MAX);
        assert!(!pace.admits(1, true));
        assert!(pace.arrived(limits::BULK_BYTES_MAX, 1, 1));
        assert!(pace.admits(1, false));
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let mut pace = Pace::new();
        pace.sent(10);
        assert!(!pace.arrived(11, 1, 1));
        assert!(pace.arrived(10, 1, 1));
        assert!(!pace.arrived(9, 2, 1));
    }
}
