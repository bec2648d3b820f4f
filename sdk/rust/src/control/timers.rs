//! What the control thread does later: deadlines of async calls, of registrations, of channels being opened. Any thread
//! may add and cancel; only the control thread takes what is due. It must not know what the entries mean.
//!
//! Cancelling removes an entry at once, so that a program which makes millions of calls with long deadlines holds no
//! more entries than calls in flight. The thread is woken only for an entry that comes before the one it sleeps for;
//! cancelling that one costs a needless wake-up at its time, not one for each call.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Names an entry, to cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerId {
    at_ns: u64,
    sequence: u64,
}

/// Entries by the time they are due, `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug)]
pub(super) struct Timers<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    entries: BTreeMap<TimerId, T>,
    next_sequence: u64,
    /// Until when the thread sleeps: 0 while it is awake and will look here by itself.
    sleeps_until_ns: u64,
}

impl<T> Timers<T> {
    pub(super) const fn new() -> Self {
        let state = State { entries: BTreeMap::new(), next_sequence: 0, sleeps_until_ns: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Adds an entry, and says whether the thread sleeps too long for it and must be woken.
    #[must_use]
    pub(super) fn add(&self, at_ns: u64, entry: T) -> (TimerId, bool) {
        let mut state = self.state.lock();
        let id = TimerId { at_ns, sequence: state.next_sequence };
        state.next_sequence += 1;
        state.entries.insert(id, entry);
        (id, at_ns < state.sleeps_until_ns)
    }

    /// Removes an entry; none if it was taken already.
    pub(super) fn cancel(&self, id: TimerId) -> Option<T> {
        self.state.lock().entries.remove(&id)
    }

    /// Announces that the thread goes to sleep, and returns until when it may: the earlier of `wanted_ns` and the first
    /// entry; `u64::MAX` stands for no limit.
    pub(super) fn sleep(&self, wanted_ns: u64) -> u64 {
        let mut state = self.state.lock();
        let first = state.entries.first_key_value().map_or(u64::MAX, |(id, _)| id.at_ns);
        state.sleeps_until_ns = first.min(wanted_ns);
        state.sleeps_until_ns
    }

    /// Announces that the thread is awake.
    pub(super) fn wake(&self) {
        self.state.lock().sleeps_until_ns = 0;
    }

    /// Takes the first entry that is due.
    pub(super) fn take_due(&self, now_ns: u64) -> Option<T> {
        let mut state = self.state.lock();
        let first = state.entries.first_entry()?;
        (first.key().at_ns <= now_ns).then(|| first.remove())
    }

    /// Takes everything, due or not.
    pub(super) fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut self.state.lock().entries).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_the_order_of_their_times() {
        let timers = Timers::new();
        for (at, name) in [(30, "c"), (10, "a"), (20, "b"), (10, "a2")] {
            let (_, wake) = timers.add(at, name);
            assert!(!wake, "an awake thread is not woken");
        }
        assert_eq!(timers.sleep(u64::MAX), 10);
        assert_eq!(timers.take_due(9), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due(25)).collect();
        assert_eq!(due, ["a", "a2", "b"]);
        assert_eq!(timers.take_all(), ["c"]);
    }

    #[test]
    fn only_an_earlier_entry_wakes_a_sleeper() {
        let timers = Timers::new();
        assert_eq!(timers.sleep(u64::MAX), u64::MAX);
        assert!(timers.add(50, ()).1);
        assert_eq!(timers.sleep(40), 40);
        assert!(!timers.add(45, ()).1);
        assert!(timers.add(39, ()).1);
        timers.wake();
        assert!(!timers.add(1, ()).1);
    }

    #[test]
    fn a_cancelled_entry_is_gone_at_once() {
        let timers = Timers::new();
        let (id, _) = timers.add(10, "a");
        assert_eq!(timers.cancel(id), Some("a"));
        assert_eq!(timers.cancel(id), None);
        assert_eq!(timers.sleep(u64::MAX), u64::MAX);
    }
}
