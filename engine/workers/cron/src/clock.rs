//! What time it is, and waiting for a time: the machine's clock, or one that a test sets. Used by the scheduler's thread alone
//! to wait, by everybody to ring it. It must not know what is waited for.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::job::Millis;

/// A time that no clock shows, in seconds since 1970: the year 2242.
const NEVER_SECONDS: i64 = 1 << 33;

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
}

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
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let changes =
            timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let machine = Machine { bell, changes };
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
    let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
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
        loop {
            let left = until.map(|until| until.saturating_sub(machine_now()));
            if left.is_some_and(|left| left <= 0) {
                return Woke::Due;
            }
            let timeout = left.map(|left| Timespec { tv_sec: left / 1000, tv_nsec: left % 1000 * 1_000_000 });
            let mut both = [
                PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.changes.as_fd(), PollFlags::IN),
            ];
            if let Err(Errno::INTR) = poll(&mut both, timeout.as_ref()) {
                continue;
            }
            let [rung, set] = both.map(|one| !one.revents().is_empty());
            if set {
                let mut count = [0; 8];
                let _cancelled = rustix::io::read(&self.changes, &mut count);
                if let Err(error) = self.watch() {
                    tracing::warn!(target: "ringway", %error, "steps of the clock are noticed only at the next slot");
                }
                return Woke::Set;
            }
            if rung {
                let mut count = [0; 8];
                let _emptied = rustix::io::read(&self.bell, &mut count);
                return Woke::Rung;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

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
}
