//! Letting others have the processor between pieces of a large transfer. Used by [`super::run`]. It must not know links.
//!
//! Whoever moves a large payload is busy without a pause, and where processors are fewer than those who are busy, a caller
//! that was woken by its answer waits for the end of a time slice: 3 ms, where the answer took a fifth of one. A
//! `sched_yield` after each piece puts those first who have waited, and costs less than a microsecond where nobody does.
//! Whoever computes on the same processor would have a slice for each piece, though, and the transfer nearly nothing; so
//! what is lost that way is paid from an account (a token bucket), and nobody gives way while it is empty.

use ringway_ipc::clock::now_ns;

use crate::limits;

/// See the module.
#[derive(Debug)]
pub(crate) struct Courtesy {
    /// Time that may still be lost, in nanoseconds, as of a time. Below zero where the last slice was longer than that.
    left_ns: i64,
    as_of_ns: u64,
}

impl Default for Courtesy {
    fn default() -> Self {
        Self { left_ns: limits::GIVE_WAY_LOST_NS_MAX, as_of_ns: 0 }
    }
}

impl Courtesy {
    /// Gives the processor up if that is affordable.
    pub(crate) fn give_way(&mut self) {
        let begun_ns = now_ns();
        if self.may(begun_ns) {
            std::thread::yield_now();
            self.lost(now_ns().saturating_sub(begun_ns));
        }
    }

    fn may(&mut self, now_ns: u64) -> bool {
        let refill = now_ns.saturating_sub(self.as_of_ns) / limits::GIVE_WAY_SHARE;
        self.left_ns = self.left_ns.saturating_add_unsigned(refill).min(limits::GIVE_WAY_LOST_NS_MAX);
        self.as_of_ns = now_ns;
        self.left_ns > 0
    }

    fn lost(&mut self, lasted_ns: u64) {
        if lasted_ns > limits::GIVE_WAY_NS {
            self.left_ns = self.left_ns.saturating_sub_unsigned(lasted_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of its time that a transfer loses whose pieces take 40 µs, to somebody who has so much for each of them.
    fn lost_share(each_ns: u64) -> u64 {
        let (mut courtesy, mut now, mut lost) = (Courtesy::default(), 1, 0);
        while now < 10_000_000_000 {
            now += 40_000;
            if courtesy.may(now) {
                courtesy.lost(each_ns);
                now += each_ns;
                lost += each_ns;
            }
        }
        lost * 100 / now
    }

    #[test]
    fn calls_are_always_let_through_and_whoever_computes_gets_an_eighth() {
        assert_eq!(lost_share(limits::GIVE_WAY_NS), 71, "of 140 µs");
        assert!((11..=13).contains(&lost_share(3_000_000)), "{}", lost_share(3_000_000));
    }
}
