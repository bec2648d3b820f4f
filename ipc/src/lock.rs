//! A lock for critical sections of tens of nanoseconds: the two sides of a ring, within one process.
//!
//! Used by [`crate::channel`]. It never sleeps: it spins, then yields to the scheduler, so a holder that was preempted
//! costs its waiters time slices and nothing else.
//!
//! One made by [`SpinLock::leaning`] leans to the thread that uses it most (a *bias*). An atomic exchange waits until every store before it has
//! reached the cache, and the stores before it here are those of a frame, whose lines the peer holds: on the call path
//! each exchange costs a transfer between cores. So a thread that took the lock `STREAK` times in a row may enter
//! with plain stores from then on, until another thread wants in and pays for both with a process-wide barrier; each time
//! that happens twice as many entries are asked for the next bias, so that threads which come by turns do not go on paying. The
//! technique is that of biased locking (Kawachiya, Koseki and Onodera, "Lock Reservation", OOPSLA 2002) with
//! membarrier(2) in place of a safepoint.
//!
//! # Fields and who may touch them
//! - `held`: taken by exchange by any thread; the *common* way in;
//! - `bias`: changed only by the thread that has `held`; names the thread that may enter by its bias, 0 for none;
//! - `inside`: written only by the thread that `bias` names, or named until a moment ago;
//! - `streak`: read and written only by the thread that has `held`.
//!
//! # Invariants
//! - **L1** At most one guard exists. A common guard exists only while `held` is 1, `bias` is 0 and `inside` was seen
//!   to be 0 afterwards; a biased one only while `inside` is 1.
//! - **L2** Who enters by bias stores `inside`, fences lightly and looks at `bias` again; who revokes stores `bias`,
//!   fences heavily and looks at `inside`. At least one of them sees the other (Dekker, the light side paid for by the
//!   heavy one).
//! - **L3** Of several attempts at a free lock one succeeds: callers take a failure to mean that somebody is inside and
//!   will look after them. Who withdraws a biased entry fences and then tries `held`; who gave `held` up because of that
//!   entry fences and then looks at `inside` again. At least one of them sees the other's store.
//!
//! # Orderings in pairs
//! The Acquire exchange of `held` pairs with the Release store in the guard's drop; the Acquire load of `inside` with
//! the Release store of the biased guard's drop. Between two biased guards there is only one thread.
//!
//! # What checks it
//! The loom models below, where both fences are `fence(SeqCst)`; seen to fail with any of these weakened.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crossbeam_utils::Backoff;

use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell, fence};

/// Common entries in a row after which a thread may enter by bias.
#[cfg(not(loom))]
const STREAK: u32 = 64;
#[cfg(loom)]
const STREAK: u32 = 1;

/// The most that are ever asked for.
#[cfg(not(loom))]
const STREAK_MAX: u32 = STREAK << 16;
// The model is to see bias and revocation again and again.
#[cfg(loom)]
const STREAK_MAX: u32 = STREAK;

/// A value behind a spinning lock.
pub struct SpinLock<T> {
    leans: bool,
    held: AtomicU32,
    inside: AtomicU32,
    bias: AtomicU64,
    streak: UnsafeCell<Streak>,
    value: UnsafeCell<T>,
}

#[derive(Clone, Copy)]
struct Streak {
    thread: u64,
    entries: u32,
    /// Entries that make a bias.
    wanted: u32,
}

// SAFETY: the lock hands out one guard at a time (L1), so sharing it moves the value between threads, never shares it.
unsafe impl<T: Send> Sync for SpinLock<T> {}
// SAFETY: the lock owns the value.
unsafe impl<T: Send> Send for SpinLock<T> {}

impl<T> std::fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpinLock").field("free", &self.is_free()).finish_non_exhaustive()
    }
}

/// A number for this thread that no other thread of the process ever has.
#[cfg(not(loom))]
#[inline]
fn this_thread() -> u64 {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU64 as Counter;
    static NEXT: Counter = Counter::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    // A thread that is ending has no number any more; it enters the common way.
    NUMBER
        .try_with(|number| {
            if number.get() == 0 {
                number.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            number.get()
        })
        .unwrap_or(0)
}

#[cfg(loom)]
fn this_thread() -> u64 {
    use std::cell::Cell;
    loom::lazy_static! {
        static ref NEXT: AtomicU64 = AtomicU64::new(1);
    }
    loom::thread_local! {
        static NUMBER: Cell<u64> = Cell::new(0);
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

impl<T> SpinLock<T> {
    /// Puts a value behind a lock that treats all threads alike.
    pub fn new(value: T) -> Self {
        Self::with(value, false)
    }

    /// Puts a value behind a lock that leans to the thread that uses it most.
    pub fn leaning(value: T) -> Self {
        Self::with(value, true)
    }

    fn with(value: T, leans: bool) -> Self {
        Self {
            leans,
            held: AtomicU32::new(0),
            inside: AtomicU32::new(0),
            bias: AtomicU64::new(0),
            streak: UnsafeCell::new(Streak { thread: 0, entries: 0, wanted: STREAK }),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock if it is free: plain stores for the thread it leans to, one atomic exchange for another, and a
    /// system call of a few microseconds where the two meet.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let me = if self.leans { this_thread() } else { 0 };
        if me != 0 && self.bias.load(Ordering::Relaxed) == me {
            if self.inside.load(Ordering::Relaxed) == 1 {
                // This very thread is inside.
                return None;
            }
            self.inside.store(1, Ordering::Relaxed);
            crate::fence::light();
            if self.bias.load(Ordering::Relaxed) == me {
                return Some(SpinGuard { lock: self, way: Way::Biased, _stays: PhantomData });
            }
            self.withdraw();
        }
        loop {
            match self.try_lock_commonly(me) {
                Attempt::Entered(guard) => return Some(guard),
                Attempt::Taken => return None,
                Attempt::Again => {}
            }
        }
    }

    /// Takes back an entry whose bias was revoked meanwhile. Who revoked it may have seen it and be about to give up.
    #[cold]
    fn withdraw(&self) {
        self.inside.store(0, Ordering::Release);
        // L3, pairs with the fence in `try_lock_commonly`.
        fence(Ordering::SeqCst);
    }

    fn try_lock_commonly(&self, me: u64) -> Attempt<'_, T> {
        if self.held.load(Ordering::Relaxed) != 0
            || self.held.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Attempt::Taken;
        }
        if self.bias.load(Ordering::Relaxed) != 0 {
            self.bias.store(0, Ordering::Relaxed);
            crate::fence::heavy();
            let streak = crate::sync::cell_ptr(&self.streak);
            // SAFETY: `held` is this thread's, and only who has it touches the streak.
            let streak = unsafe { &mut *streak };
            streak.wanted = (streak.wanted * 2).min(STREAK_MAX);
        }
        // The thread that had the bias may be inside still, since before it was revoked, now or by an earlier attempt.
        if self.inside.load(Ordering::Acquire) != 0 {
            self.held.store(0, Ordering::Release);
            // L3, pairs with the fence in `withdraw`.
            fence(Ordering::SeqCst);
            let still_inside = self.inside.load(Ordering::Relaxed) != 0;
            return if still_inside { Attempt::Taken } else { Attempt::Again };
        }
        if me == 0 {
            return Attempt::Entered(self.common_guard(0));
        }
        let streak = crate::sync::cell_ptr(&self.streak);
        // SAFETY: `held` is this thread's, and only who has it touches the streak.
        let streak = unsafe { &mut *streak };
        streak.entries = if streak.thread == me { streak.entries + 1 } else { 1 };
        streak.thread = me;
        let next_bias = if streak.entries >= streak.wanted && crate::fence::is_asymmetric() {
            streak.entries = 0;
            me
        } else {
            0
        };
        Attempt::Entered(self.common_guard(next_bias))
    }

    fn common_guard(&self, next_bias: u64) -> SpinGuard<'_, T> {
        SpinGuard { lock: self, way: Way::Common { next_bias }, _stays: PhantomData }
    }

    /// Whether nobody holds the lock at this moment.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0 && self.inside.load(Ordering::Relaxed) == 0
    }

    /// Takes the lock, spinning and then yielding until it is free.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => self.lock_slowly(),
        }
    }

    #[cold]
    fn lock_slowly(&self) -> SpinGuard<'_, T> {
        let backoff = Backoff::new();
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            #[cfg(loom)]
            loom::thread::yield_now();
            backoff.snooze();
        }
    }
}

/// How one attempt at the common way in ended.
enum Attempt<'a, T> {
    Entered(SpinGuard<'a, T>),
    /// Somebody is inside, or had `held` at the same moment.
    Taken,
    /// Whoever seemed to be inside has withdrawn meanwhile.
    Again,
}

/// How a guard came in, and so how it leaves.
#[derive(Debug, Clone, Copy)]
enum Way {
    Biased,
    /// The lock leans to this thread from now on, if not 0.
    Common {
        next_bias: u64,
    },
}

/// The right to use the value until dropped, on the thread that took it.
#[derive(Debug)]
pub struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    way: Way,
    _stays: PhantomData<*const ()>,
}

impl<T> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        let value = crate::sync::cell_ptr(&self.lock.value);
        // SAFETY: this guard exists, so no other does (L1); `&self` allows a shared borrow.
        unsafe { &*value }
    }
}

impl<T> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let value = crate::sync::cell_ptr(&self.lock.value);
        // SAFETY: as in `deref`, and `&mut self` makes the borrow exclusive.
        unsafe { &mut *value }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        match self.way {
            Way::Biased => self.lock.inside.store(0, Ordering::Release),
            Way::Common { next_bias } => {
                if next_bias != 0 {
                    self.lock.bias.store(next_bias, Ordering::Relaxed);
                }
                self.lock.held.store(0, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_one_at_a_time_through_bias_and_revocation() {
        loom::model(|| {
            let lock = Arc::new(SpinLock::leaning(0));
            let other = Arc::clone(&lock);
            // The first entry gives this thread the bias, the second uses it while the other thread revokes it.
            *lock.lock() += 1;
            let thread = loom::thread::spawn(move || *other.lock() += 1);
            *lock.lock() += 1;
            thread.join().unwrap();
            assert_eq!(*lock.lock(), 3);
        });
    }

    /// Callers take a failed attempt to mean that somebody is inside, who will look after them.
    #[test]
    fn loom_of_two_attempts_one_succeeds() {
        loom::model(|| {
            let lock = Arc::new(SpinLock::leaning(0));
            let other = Arc::clone(&lock);
            *lock.lock() += 1;
            let thread = loom::thread::spawn(move || {
                let mut guard = other.try_lock();
                guard.as_deref_mut().map(|value| *value += 1).is_some()
            });
            let mut guard = lock.try_lock();
            let here = guard.as_deref_mut().map(|value| *value += 1).is_some();
            drop(guard);
            let there = thread.join().unwrap();
            assert!(here || there, "nobody was inside, and nobody came in");
        });
    }

    #[test]
    fn loom_an_attempt_fails_while_the_biased_thread_is_inside() {
        loom::model(|| {
            let lock = Arc::new(SpinLock::leaning(0));
            let other = Arc::clone(&lock);
            *lock.lock() += 1;
            let thread = loom::thread::spawn(move || {
                if let Some(mut value) = other.try_lock() {
                    *value += 10;
                }
            });
            if let Some(mut value) = lock.try_lock() {
                *value += 1;
                assert!(lock.try_lock().is_none(), "not twice by the same thread");
            }
            thread.join().unwrap();
            assert!([1, 2, 11, 12].contains(&*lock.lock()));
        });
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn counts_right_while_the_bias_wanders() {
        let lock = SpinLock::leaning(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000u32 {
                        *lock.lock() += 1;
                        if turn.is_multiple_of(5_000) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 80_000);
    }

    #[test]
    fn a_bias_that_was_revoked_takes_twice_as_long_to_come_back() {
        if !crate::fence::is_asymmetric() {
            return;
        }
        let lock = SpinLock::leaning(());
        let entries_until_bias = || {
            let entered = |_: &u32| {
                drop(lock.lock());
                lock.bias.load(Ordering::Relaxed) == 0
            };
            (1..=4 * STREAK).take_while(entered).count() + 1
        };
        for wanted in [STREAK, 2 * STREAK, 4 * STREAK] {
            assert_eq!(entries_until_bias(), wanted as usize);
            // Revoked by another thread, which leaves no streak of its own to go on with.
            std::thread::scope(|scope| drop(scope.spawn(|| drop(lock.lock()))));
        }
    }

    #[test]
    fn a_thread_does_not_enter_twice() {
        let lock = SpinLock::leaning(());
        for _ in 0..3 * STREAK {
            let _guard = lock.lock();
            assert!(lock.try_lock().is_none());
            assert!(!lock.is_free());
        }
        assert!(lock.is_free());
    }
}
