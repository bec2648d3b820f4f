//! What time it is, and waiting for one. Everything in this worker that depends on time asks here, so that a test can be
//! the clock. It must not know what waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// The longest sleep, since the system's clock may be set forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The system's clock, or one that a test sets. Clones share it.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

type Listener = Box<dyn Fn() + Send + Sync>;

struct Manual {
    now_ms: AtomicU64,
    listeners: Mutex<Vec<Listener>>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() { "manual" } else { "system" };
        f.debug_struct("Clock").field("kind", &kind).field("now_ms", &self.now_ms()).finish()
    }
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set. In milliseconds since 1970.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self(Some(Arc::new(Manual { now_ms: AtomicU64::new(now_ms), listeners: Mutex::default() })))
    }

    /// Sets a manual clock, in milliseconds since 1970, and wakes whoever waits for that time. The system's is left alone.
    pub fn set(&self, now_ms: u64) {
        if let Some(manual) = &self.0 {
            manual.now_ms.store(now_ms, Ordering::SeqCst);
            manual.listeners.lock().iter().for_each(|listener| listener());
        }
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

    /// Calls `listener` when a manual clock was set; it must take the lock under which the waiter looks at the clock.
    pub(crate) fn on_set(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Some(manual) = &self.0 {
            manual.listeners.lock().push(Box::new(listener));
        }
    }

    /// Waits for news, or until about this time; the caller looks again.
    pub(crate) fn wait<T>(&self, news: &Condvar, guard: &mut MutexGuard<'_, T>, due_ms: Option<u64>) {
        match due_ms {
            Some(due_ms) if self.0.is_none() => {
                let left = Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
                let _looked_at_again = news.wait_for(guard, left.min(SLEEP_MAX));
            }
            _ => news.wait(guard),
        }
    }
}
