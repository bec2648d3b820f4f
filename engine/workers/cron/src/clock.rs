//! What time it is, and waiting for a time: the machine's clock, or one that a test sets. Used by the scheduler's thread alone
//! to wait, by everybody to ring it. It must not know what is waited for.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::job::Millis;

/// A time that no clock shows, in seconds since 1970: the year 2242.
const NEVER_SECONDS: i64 = 1 << 33;

/// The longest sleep: a clock that was set without a word to us is noticed at its end.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// A clock. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    Machine(Machine),
    Manual { state: Mutex<Manual>, changed: Condvar },
}

/// The machine's clock. Waits are measured without it, and end when somebody sets it or the machine wakes up, which is what
/// `changes` is read for.
#[derive(Debug)]
struct Machine {
    bell: OwnedFd,
    changes: OwnedFd,
    poll: Poll,
}

/// The system's call, in whose stead a test may fail.
type Poll = fn(&mut [PollFd<'_>], Option<&Timespec>) -> rustix::io::Result<usize>;

#[derive(Debug, Default)]
struct Manual {
    now: Millis,
    rung: bool,
    set: bool,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woke {
    /// The time has come.
    Due,
    /// Somebody rang.
    Rung,
    /// The clock was set.
    Set,
}

impl Clock {
    /// The machine's clock.
    ///
    /// # Errors
    /// When the system gives no more descriptors; two are wanted.
    pub fn machine() -> std::io::Result<Self> {
        Self::with_poll(poll)
    }

    fn with_poll(poll: Poll) -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let changes =
            timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let machine = Machine { bell, changes, poll };
        machine.watch()?;
        Ok(Self(Arc::new(Source::Machine(machine))))
    }

    /// A clock that stands still until it is set, in milliseconds since 1970. For tests and simulations.
    #[must_use]
    pub fn manual(now: i64) -> Self {
        let state = Mutex::new(Manual { now, ..Manual::default() });
        Self(Arc::new(Source::Manual { state, changed: Condvar::new() }))
    }

    /// Sets a manual clock, forward or back; the machine's is left alone.
    pub fn set(&self, to: i64) {
        if let Source::Manual { state, changed } = &*self.0 {
            let mut state = state.lock();
            (state.now, state.set) = (to, true);
            changed.notify_all();
        }
    }

    /// Milliseconds since 1970, UTC.
    #[must_use]
    pub fn now(&self) -> i64 {
        match &*self.0 {
            Source::Machine(_) => machine_now(),
            Source::Manual { state, .. } => state.lock().now,
        }
    }

    /// Ends a wait, or the next one if none is under way.
    pub(crate) fn ring(&self) {
        match &*self.0 {
            Source::Machine(machine) => {
                // A counter that is full has rung.
                let _rung = rustix::io::write(&machine.bell, &1_u64.to_ne_bytes());
            }
            Source::Manual { state, changed } => {
                state.lock().rung = true;
                changed.notify_all();
            }
        }
    }

    /// Waits for a time, or for ever; ends early when the clock is set or somebody rings.
    pub(crate) fn wait(&self, until: Option<Millis>) -> Woke {
        match &*self.0 {
            Source::Machine(machine) => machine.wait(until),
            Source::Manual { state, changed } => {
                let mut state = state.lock();
                loop {
                    if std::mem::take(&mut state.set) {
                        return Woke::Set;
                    }
                    if std::mem::take(&mut state.rung) {
                        return Woke::Rung;
                    }
                    if until.is_some_and(|until| until <= state.now) {
                        return Woke::Due;
                    }
                    changed.wait(&mut state);
                }
            }
        }
    }
}

fn machine_now() -> Millis {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

impl Machine {
    /// Asks to be told when the clock is set.
    fn watch(&self) -> std::io::Result<()> {
        let never = Timespec { tv_sec: NEVER_SECONDS, tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.changes, flags, &once)?;
        Ok(())
    }

    fn wait(&self, until: Option<Millis>) -> Woke {
        let (mut backoff, mut before) = (Backoff::default(), machine_now());
        loop {
            let now = machine_now();
            // Whatever the kernel says of it: time goes back only where somebody sets it.
            if now < before {
                return Woke::Set;
            }
            before = now;
            let left = until.map_or(i64::MAX, |until| until.saturating_sub(now));
            if left <= 0 {
                return Woke::Due;
            }
            let left = SLEEP_MAX.min(Duration::from_millis(left.unsigned_abs()));
            match self.sleep(left) {
                Ok(Some(woke)) => return woke,
                Ok(None) => backoff = Backoff::default(),
                Err(Errno::INTR) => {}
                Err(error) => backoff.sleep(left, error),
            }
        }
    }

    /// Sleeps until somebody rings or sets the clock, or so long.
    fn sleep(&self, left: Duration) -> rustix::io::Result<Option<Woke>> {
        let mut both = [
            PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.changes.as_fd(), PollFlags::IN),
        ];
        // At most a minute, so that both fit.
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        (self.poll)(&mut both, Some(&timeout))?;
        let [rung, set] = both.map(|one| !one.revents().is_empty());
        let mut count = [0; 8];
        if set {
            // It says that it was cancelled, which is the news.
            if let Err(error) = rustix::io::read(&self.changes, &mut count)
                && error != Errno::CANCELED
            {
                return Err(error);
            }
            if let Err(error) = self.watch() {
                tracing::warn!(target: "ringway", %error, "steps of the clock are noticed only at the next slot");
            }
            return Ok(Some(Woke::Set));
        }
        if rung {
            rustix::io::read(&self.bell, &mut count)?;
            return Ok(Some(Woke::Rung));
        }
        Ok(None)
    }
}

/// How long to leave the system alone after it has failed: ever longer, a second at most.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const MAX: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = Duration::from_millis(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        pause.min(Self::MAX)
    }

    fn sleep(&mut self, left: Duration, error: Errno) {
        if self.failures == 0 {
            tracing::error!(target: "ringway", %error, "waiting for the next slot fails; the clock is looked at every second");
        }
        std::thread::sleep(self.next().min(left));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_machines_clock_waits_for_a_time_and_for_a_ring() {
        let clock = Clock::machine().unwrap();
        let until = clock.now() + 20;
        assert_eq!(clock.wait(Some(until)), Woke::Due);
        assert!(clock.now() >= until);
        clock.ring();
        clock.ring();
        assert_eq!(clock.wait(None), Woke::Rung);
        let (told, tells) = mpsc::channel();
        let other = clock.clone();
        let waiter = std::thread::spawn(move || told.send(other.wait(None)).unwrap());
        assert!(tells.recv_timeout(Duration::from_millis(20)).is_err(), "it rang only once");
        clock.ring();
        assert_eq!(tells.recv().unwrap(), Woke::Rung);
        waiter.join().unwrap();
    }

    #[test]
    fn a_manual_clock_is_where_it_is_set() {
        let clock = Clock::manual(1000);
        assert_eq!(clock.wait(Some(1000)), Woke::Due);
        clock.set(500);
        assert_eq!((clock.now(), clock.wait(Some(1000))), (500, Woke::Set));
        clock.ring();
        assert_eq!(clock.wait(None), Woke::Rung);
    }

    #[test]
    fn a_manual_clock_wakes_who_waits_and_forgets_nothing_before() {
        let clock = Clock::manual(1000);
        let (told, tells) = mpsc::channel();
        let other = clock.clone();
        let waiter = std::thread::spawn(move || {
            for until in [Some(2000), Some(2000), Some(3000), None, None] {
                told.send((other.wait(until), other.now())).unwrap();
            }
        });
        let next = || tells.recv_timeout(Duration::from_secs(30)).unwrap();
        clock.set(1999);
        assert_eq!(next(), (Woke::Set, 1999));
        // Setting it wakes also where the time has come by that; what is due is seen by the next look.
        clock.set(2000);
        assert_eq!(next(), (Woke::Set, 2000));
        clock.ring();
        assert_eq!(next(), (Woke::Rung, 2000));
        // Both before anybody waits: neither is lost.
        clock.ring();
        clock.set(2500);
        let mut both = [next().0, next().0];
        both.sort_unstable_by_key(|woke| *woke == Woke::Rung);
        assert_eq!(both, [Woke::Set, Woke::Rung]);
        waiter.join().unwrap();
    }

    #[test]
    fn errors_of_the_system_do_not_make_it_spin() {
        static POLLS: AtomicUsize = AtomicUsize::new(0);
        fn failing(_: &mut [PollFd<'_>], _: Option<&Timespec>) -> rustix::io::Result<usize> {
            POLLS.fetch_add(1, Ordering::Relaxed);
            Err(Errno::NOMEM)
        }
        let clock = Clock::with_poll(failing).unwrap();
        let until = clock.now() + 100;
        assert_eq!(clock.wait(Some(until)), Woke::Due);
        assert!(clock.now() >= until);
        // 1, 2, 4, 8, 16, 32, 64 ms; an eighth for where the last sleep ended a moment early.
        let polls = POLLS.load(Ordering::Relaxed);
        assert!((1..=8).contains(&polls), "{polls} calls");
    }

    #[test]
    fn pauses_grow_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
    }
}
