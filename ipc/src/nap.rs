//! How a thread goes to sleep on a doorbell without stopping every processor for it.
//!
//! Whoever asks for a bell stores a request, and needs a barrier before its last look at the ring, or a frame that is
//! published at that moment may ring for nobody ([`crate::ring`], I4). Where the producer leaves the fence to the sleeper that
//! barrier is `membarrier`, which interrupts every processor that runs a registered process: 15 µs on a virtual machine, a
//! multiple of the call that ends most sleeps of a busy worker. So the barrier is put off. A sleep begins with a *nap*, a short
//! one without it; only a thread that nobody has woken by its end pays for the barrier, looks again, and sleeps on.
//!
//! What the barrier rules out is a producer that has read the old request while its stamp is still on its way to the cache.
//! That lasts as long as a store waits in a processor, well below 1.5 µs, which the sleeper lets pass before its look.
//! No architecture promises that time, so nothing rests on it: a frame that was missed in spite of it is found by the look
//! after the nap, [`NAP`] later at most.
//!
//! Used by a worker's dispatcher and by callers that block. Knows no rings: what is news its users say.

use std::time::Duration;

use crate::clock::now_ns;
use crate::doorbell::Doorbell;

/// The longest sleep before the barrier.
pub const NAP: Duration = Duration::from_millis(5);

/// How long stores of other processors are given to arrive, in nanoseconds.
const SETTLE_NS: u64 = 1_500;

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slept {
    /// There was none: a look found news.
    News,
    /// By the bell, whose ring is not taken back ([`Doorbell::doze`]).
    Rung,
    /// By its time.
    Over,
}

/// Sleeps on `bell`, for `timeout` at most, unless `news` says that there is no need. The requests have been posted, and
/// `fence(SeqCst)` has followed them. With `barrier` the producers leave their fence to this side.
#[must_use]
pub fn sleep(bell: &Doorbell, barrier: bool, timeout: Duration, mut news: impl FnMut() -> bool) -> Slept {
    if barrier {
        let begun = now_ns();
        while now_ns() < begun + SETTLE_NS {
            std::hint::spin_loop();
        }
        if news() {
            return Slept::News;
        }
        if bell.doze(timeout.min(NAP)) {
            return Slept::Rung;
        }
        if timeout <= NAP {
            return Slept::Over;
        }
        let _registered_at_start = crate::sys::barrier::everywhere();
    }
    if news() {
        return Slept::News;
    }
    if bell.doze(timeout) { Slept::Rung } else { Slept::Over }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_nap_is_followed_by_a_look_and_a_sleep() {
        crate::sys::barrier::register();
        let bell = Doorbell::new().unwrap();
        let mut looks = 0;
        let slept = sleep(&bell, true, NAP * 2, || {
            looks += 1;
            false
        });
        assert_eq!((slept, looks), (Slept::Over, 2));
        // What was missed by the first look is found by the second.
        let mut looks = 0;
        let slept = sleep(&bell, true, Duration::from_secs(60), || {
            looks += 1;
            looks == 2
        });
        assert_eq!(slept, Slept::News);
    }

    #[test]
    fn a_ring_ends_either_part() {
        crate::sys::barrier::register();
        for (barrier, pause) in [(false, Duration::ZERO), (true, Duration::ZERO), (true, NAP * 4)] {
            let bell = Doorbell::new().unwrap();
            let clone = bell.clone();
            let ringer = std::thread::spawn(move || {
                std::thread::sleep(pause);
                clone.notify();
            });
            assert_eq!(sleep(&bell, barrier, Duration::from_secs(60), || false), Slept::Rung);
            ringer.join().unwrap();
        }
    }
}
