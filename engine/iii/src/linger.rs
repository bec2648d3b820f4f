//! Keeps the one thread of a listener awake for a moment while much comes. A thread that sleeps whenever nothing is there for an
//! instant has each message cost a wake, which the client that sends pays, and a read and a write of its own. It must not know
//! what comes.
//!
//! While it lingers the thread offers its processor to whoever else wants it before it looks again: with fewer processors than
//! processes that is what lets messages gather. Clients give it back soon; whoever computes keeps it for all of a time slice, and
//! then a thread that is woken has it earlier than one that offers it, so it sleeps as any other for a while.
//!
//! Measured with two processors and 64 calls in flight: the engine's time for a call falls from 8.9 to 5.8 µs, and a fifth more
//! calls are done. Without the offer it is a loss. `cargo perf-iii` tells the time, with `--threads=2` as if this were not there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// So many messages within this time are much: 40,000 in a second. Calls one by one are never as many.
const MUCH: usize = 8;
const WITHIN: Duration = Duration::from_micros(200);

/// How long it is looked for more after much came. The longer, the less it sleeps and the more it spins; 200 µs gained nothing.
const LINGER: Duration = Duration::from_micros(50);

/// An offer that is taken for longer than this went to somebody who computes: a client's turn is a few hundred microseconds as a
/// rule, and a time slice of Linux at least 1.4 ms where there are two processors.
const TAKEN: Duration = Duration::from_millis(1);

/// How long nothing is offered then. With two others that compute, 20 ms give as many calls as never to offer, and always to
/// offer two fifths fewer; without them 100 ms cost a tenth, as a client may take long once.
const RETICENCE: Duration = Duration::from_millis(20);

/// How much comes to all connections of a listener.
#[derive(Debug)]
pub(crate) struct Linger {
    traffic: Mutex<Traffic>,
    much: Notify,
}

#[derive(Debug)]
struct Traffic {
    since: Instant,
    messages: usize,
    /// Until when it is lingered.
    until: Instant,
    /// Before when it is not.
    not_before: Instant,
}

impl Traffic {
    const fn new(now: Instant) -> Self {
        Self { since: now, messages: 0, until: now, not_before: now }
    }

    /// Notes messages that came; says whether to linger for more.
    fn note(&mut self, messages: usize, now: Instant) -> bool {
        if now.duration_since(self.since) > WITHIN {
            (self.since, self.messages) = (now, 0);
        }
        self.messages = self.messages.saturating_add(messages);
        if self.messages < MUCH {
            return false;
        }
        (self.since, self.messages) = (now, 0);
        if now < self.not_before {
            return false;
        }
        self.until = now + LINGER;
        true
    }

    /// The processor was somebody else's in between.
    fn was_offered(&mut self, from: Instant, to: Instant) {
        if to.duration_since(from) > TAKEN {
            (self.until, self.not_before) = (to, to + RETICENCE);
        }
    }

    /// Whether to look once more.
    fn goes_on(&self, now: Instant) -> bool {
        now < self.until
    }
}

impl Linger {
    pub(crate) fn new() -> Self {
        Self { traffic: Mutex::new(Traffic::new(Instant::now())), much: Notify::new() }
    }

    /// A connection has taken so many messages, and waits for more.
    pub(crate) fn note(&self, messages: usize, now: Instant) {
        let lingers = self.traffic.lock().note(messages, now);
        if lingers {
            // Whoever lingers already looks once more for it at its end, and rests.
            self.much.notify_one();
        }
    }

    /// Lingers whenever much comes, until its runtime ends.
    pub(crate) async fn run(&self) {
        loop {
            self.much.notified().await;
            while let Some(now) = self.goes_on() {
                std::thread::yield_now();
                self.traffic.lock().was_offered(now, Instant::now());
                // The runtime looks at its sockets before it comes back here.
                tokio::task::yield_now().await;
            }
        }
    }

    fn goes_on(&self) -> Option<Instant> {
        let now = Instant::now();
        self.traffic.lock().goes_on(now).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_never_keeps_it_awake() {
        let began = Instant::now();
        let mut traffic = Traffic::new(began);
        // One call after the other, 35 µs each, two messages a call, all day.
        for call in 1..100_000 {
            assert!(!traffic.note(1, began + Duration::from_micros(35) * call), "{call}");
        }
    }

    #[test]
    fn much_keeps_it_awake_for_a_while() {
        let began = Instant::now();
        let mut traffic = Traffic::new(began);
        assert!(!traffic.note(MUCH - 1, began));
        assert!(traffic.note(1, began + WITHIN));
        let later = began + WITHIN + LINGER;
        assert!(traffic.goes_on(later - Duration::from_micros(1)));
        // More comes, from others too.
        assert!(!traffic.note(MUCH / 2, later - Duration::from_micros(2)));
        assert!(traffic.note(MUCH / 2, later - Duration::from_micros(1)));
        assert!(traffic.goes_on(later));
        assert!(!traffic.goes_on(later + LINGER));
        assert!(traffic.note(MUCH, later + LINGER), "it can begin anew");
    }

    #[test]
    fn who_keeps_the_processor_is_not_offered_it_again_soon() {
        let began = Instant::now();
        let mut traffic = Traffic::new(began);
        assert!(traffic.note(MUCH, began));
        traffic.was_offered(began, began + TAKEN);
        assert!(traffic.note(MUCH, began + TAKEN), "that was a client");
        let back = began + TAKEN * 3;
        traffic.was_offered(began + TAKEN, back);
        assert!(!traffic.goes_on(back));
        assert!(!traffic.note(MUCH, back + RETICENCE / 2));
        assert!(!traffic.goes_on(back + RETICENCE / 2));
        assert!(traffic.note(MUCH, back + RETICENCE));
    }
}
