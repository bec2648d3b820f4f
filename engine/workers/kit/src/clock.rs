//! What time it is, and waiting for one: the machine's clock, or one that a test sets. Everything in a worker that depends on
//! time asks here. It must not know what waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The longest sleep, since the machine's clock may be set forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// A clock that counts milliseconds since 1970. Clones share it.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

type Listener = Box<dyn Fn() + Send + Sync>;

struct Manual {
    now_ms: AtomicU64,
    listeners: Mutex<Vec<Listener>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now_ms()).finish()
    }
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set, in milliseconds since 1970.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self(Some(Arc::new(Manual { now_ms: AtomicU64::new(now_ms), listeners: Mutex::default() })))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Some(manual) => manual.now_ms.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Sets a manual clock, in milliseconds since 1970, and wakes whoever waits. The machine's is left alone.
    pub fn set(&self, now_ms: u64) {
        if let Some(manual) = &self.0 {
            manual.now_ms.store(now_ms, Ordering::SeqCst);
            manual.listeners.lock().iter().for_each(|listener| listener());
        }
    }

    /// Calls `listener` when a manual clock was set; it must take the lock under which the waiter looks at the clock.
    pub fn on_set(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Some(manual) = &self.0 {
            manual.listeners.lock().push(Box::new(listener));
        }
    }

    /// Waits for news, or until about this time: at most a minute, since the machine's clock may be set forward. The caller
    /// looks again.
    pub fn wait<T>(&self, news: &Condvar, guard: &mut MutexGuard<'_, T>, due_ms: Option<u64>) {
        match due_ms {
            Some(due_ms) if self.0.is_none() => {
                let left = Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
                let _looked_at_again = news.wait_for(guard, left.min(SLEEP_MAX));
            }
            _ => news.wait(guard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_and_wakes_who_waits() {
        let clock = Clock::manual(1000);
        let pair = Arc::new((Mutex::new(()), Condvar::new()));
        let woken = Arc::clone(&pair);
        clock.on_set(move || {
            let _waits_or_has_not_looked_yet = woken.0.lock();
            woken.1.notify_all();
        });
        let (waiting, shared) = (clock.clone(), Arc::clone(&pair));
        let waiter = std::thread::spawn(move || {
            let mut guard = shared.0.lock();
            while waiting.now_ms() < 2000 {
                waiting.wait(&shared.1, &mut guard, Some(2000));
            }
            waiting.now_ms()
        });
        clock.set(1999);
        clock.set(2000);
        assert_eq!(waiter.join().unwrap(), 2000);
    }

    #[test]
    fn the_machines_clock_waits_for_a_time() {
        let (clock, lock, news) = (Clock::system(), Mutex::new(()), Condvar::new());
        let due_ms = clock.now_ms() + 20;
        let mut guard = lock.lock();
        while clock.now_ms() < due_ms {
            clock.wait(&news, &mut guard, Some(due_ms));
        }
        clock.set(0);
        assert!(clock.now_ms() >= due_ms, "it cannot be set");
    }
}
