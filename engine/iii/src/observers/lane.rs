//! The calls of one observer: those under way, at most so many at once, and those that wait their turn in order. It must
//! not know what they say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::{LANE_BYTES_MAX, LANE_ITEMS_MAX, LANES_BYTES_MAX};

/// Bytes that wait in all lanes together.
pub(crate) type Held = Arc<AtomicUsize>;

/// Something that waits.
pub(crate) trait Weighed {
    /// How much memory it holds, in bytes.
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    bytes: usize,
    under_way: u32,
    /// Somebody is taking things out.
    pumped: bool,
    closed: bool,
}

/// The calls of one observer.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    under_way_max: u32,
    held: Held,
    state: Mutex<State<T>>,
}

/// What became of something that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is in, and whoever put it in has to take things out.
    Pump,
    /// It is in.
    Waits,
    /// There is no room, or nothing is taken any more.
    Full,
}

impl<T: Weighed> Lane<T> {
    pub(crate) fn new(under_way_max: u32, held: Held) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, under_way: 0, pumped: false, closed: false };
        Self { under_way_max, held, state: Mutex::new(state) }
    }

    /// Puts something in.
    pub(crate) fn offer(&self, item: T) -> Offered {
        let mut state = self.state.lock();
        let bytes = item.bytes();
        let full = state.waiting.len() >= LANE_ITEMS_MAX
            || (!state.waiting.is_empty() && state.bytes + bytes > LANE_BYTES_MAX);
        if state.closed || full {
            return Offered::Full;
        }
        // As with one lane, the first may be of any size.
        let others = self.held.fetch_add(bytes, Ordering::Relaxed);
        if others > 0 && others + bytes > LANES_BYTES_MAX {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Offered::Full;
        }
        state.bytes += bytes;
        state.waiting.push_back(item);
        let pump = !state.pumped && state.under_way < self.under_way_max;
        state.pumped |= pump;
        if pump { Offered::Pump } else { Offered::Waits }
    }

    /// Takes the next one out, which is under way from then on. None ends the pumping.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = self.state.lock();
        let item = if state.under_way < self.under_way_max { state.waiting.pop_front() } else { None };
        match item {
            Some(item) => {
                let bytes = item.bytes();
                state.bytes -= bytes;
                self.held.fetch_sub(bytes, Ordering::Relaxed);
                state.under_way += 1;
                Some(item)
            }
            None => {
                state.pumped = false;
                None
            }
        }
    }

    /// Takes a place for something that cannot wait; says whether there is one.
    pub(crate) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        let free = !state.closed && state.under_way < self.under_way_max;
        state.under_way += u32::from(free);
        free
    }

    /// One that was under way has ended. Says whether things have to be taken out.
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        let pump = !state.pumped && !state.waiting.is_empty();
        state.pumped |= pump;
        pump
    }

    /// Forgets what waits, and takes nothing any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        self.held.fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
    }

    /// How many are under way, and how many wait.
    pub(crate) fn counts(&self) -> (u32, usize) {
        let state = self.state.lock();
        (state.under_way, state.waiting.len())
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.state.get_mut().bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Weighed for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[test]
    fn so_many_run_and_the_others_wait_in_order() {
        let lane = Lane::new(2, Held::default());
        assert_eq!(lane.offer(1), Offered::Pump);
        assert_eq!([2, 3, 4].map(|item| lane.offer(item)), [Offered::Waits; 3]);
        assert_eq!([lane.next(), lane.next(), lane.next()], [Some(1), Some(2), None]);
        assert!(!lane.enter());
        assert!(lane.leave());
        assert_eq!((lane.next(), lane.next(), lane.counts()), (Some(3), None, (2, 1)));
        lane.close();
        assert!(!lane.leave() && !lane.leave());
        assert_eq!((lane.offer(5), lane.next(), lane.enter()), (Offered::Full, None, false));
    }

    #[test]
    fn what_waits_is_bounded() {
        let lane = Lane::new(1, Held::default());
        for _ in 0..LANE_ITEMS_MAX {
            assert_ne!(lane.offer(1), Offered::Full);
        }
        assert_eq!(lane.offer(1), Offered::Full);
        let lane = Lane::new(1, Held::default());
        // One may be of any size: what a call carries is bounded elsewhere.
        assert_eq!(lane.offer(LANE_BYTES_MAX + 1), Offered::Pump);
        assert_eq!(lane.offer(1), Offered::Full);
        assert_eq!(lane.next(), Some(LANE_BYTES_MAX + 1));
        assert_eq!(lane.offer(1), Offered::Waits);
    }

    #[test]
    fn what_waits_in_all_lanes_is_bounded() {
        let held = Held::default();
        let lanes: Vec<_> = (0..64).map(|_| Lane::new(1, Arc::clone(&held))).collect();
        let each = LANE_BYTES_MAX / 2;
        let mut room = LANES_BYTES_MAX / each;
        for lane in lanes.iter().chain(&lanes) {
            let offered = lane.offer(each);
            assert_eq!(offered == Offered::Full, room == 0, "{offered:?}");
            room = room.saturating_sub(1);
        }
        // What is taken out, forgotten or dropped leaves room for others.
        assert_eq!((lanes[0].next(), lanes[63].offer(each)), (Some(each), Offered::Waits));
        assert_eq!(lanes[62].offer(each), Offered::Full);
        lanes[1].close();
        assert_eq!(lanes[62].offer(each), Offered::Waits);
        drop(lanes);
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// Whatever is done, nothing that waits is left while there is a place and nobody takes it out.
        #[test]
        fn nothing_is_left_waiting(steps in proptest::collection::vec(0..4_u8, 0..200), max in 1..4_u32) {
            let lane = Lane::new(max, Held::default());
            let (mut pumping, mut under_way) = (false, 0_u32);
            for step in steps {
                match step {
                    0 => pumping |= lane.offer(1) == Offered::Pump,
                    1 if pumping => match lane.next() {
                        Some(_) => under_way += 1,
                        None => pumping = false,
                    },
                    2 if under_way > 0 => {
                        under_way -= 1;
                        pumping |= lane.leave();
                    }
                    3 => under_way += u32::from(lane.enter()),
                    _ => {}
                }
                let (running, waiting) = lane.counts();
                prop_assert_eq!(running, under_way);
                prop_assert!(running <= max);
                prop_assert!(pumping || waiting == 0 || running == max);
            }
        }
    }
}
