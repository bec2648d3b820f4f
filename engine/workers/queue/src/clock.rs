//! What time it is, and waiting until it is another. One type, so that a test can set it. Used by the driver and by the
//! functions; the machine is told the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

type Listener = Box<dyn Fn() + Send + Sync>;

/// A clock that counts milliseconds since 1970: the machine's, or one that a test sets.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

enum Inner {
    System,
    Manual { now_ms: AtomicU64, listeners: Mutex<Vec<Listener>> },
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
        Self(Arc::new(Inner::System))
    }

    /// A clock that stands still until it is set.
    #[must_use]
    pub fn manual(now_ms: u64) -> Self {
        Self(Arc::new(Inner::Manual { now_ms: AtomicU64::new(now_ms), listeners: Mutex::default() }))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &*self.0 {
            Inner::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Inner::Manual { now_ms, .. } => now_ms.load(Ordering::SeqCst),
        }
    }

    /// Puts a manual clock forward; the machine's own stays as it is.
    pub fn advance(&self, by_ms: u64) {
        if let Inner::Manual { now_ms, listeners } = &*self.0 {
            now_ms.fetch_add(by_ms, Ordering::SeqCst);
            listeners.lock().iter().for_each(|listener| listener());
        }
    }

    /// How long a thread may sleep that wants to be awake at this time; `None` for as long as it likes, since somebody
    /// wakes it when the clock is set.
    pub(crate) fn sleep_until(&self, at_ms: u64) -> Option<Duration> {
        match &*self.0 {
            Inner::System => Some(Duration::from_millis(at_ms.saturating_sub(self.now_ms()))),
            Inner::Manual { .. } => (at_ms <= self.now_ms()).then_some(Duration::ZERO),
        }
    }

    /// Calls `listener` whenever a manual clock is set.
    pub(crate) fn on_set(&self, listener: impl Fn() + Send + Sync + 'static) {
        if let Inner::Manual { listeners, .. } = &*self.0 {
            listeners.lock().push(Box::new(listener));
        }
    }
}
