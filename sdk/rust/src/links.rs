//! The links of a worker: whoever has the dispatcher's role moves their bytes too, so that a call which comes over a link runs
//! on the thread that read it. Used by [`crate::dispatcher`] and by the control thread, which dials. It must not know what
//! links carry.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::doorbell::Doorbell;
use ringway_link::connection::Preparation;
use ringway_link::driver::{Driver, DriverConfig, Path, Pump};

/// The variable that says how a worker moves the bytes of its links: `io_uring`, `epoll` or `probe`.
const PATH_VARIABLE: &str = "RINGWAY_LINK_PATH";

/// The variable that names the congestion control of a worker's links, such as `cubic`.
const CONGESTION_VARIABLE: &str = "RINGWAY_LINK_CONGESTION";

/// See the module.
pub(crate) struct Links {
    bell: Doorbell,
    driver: Mutex<Weak<Driver>>,
    pump: Mutex<Option<Pump>>,
    /// There is a pump: what all workers of one host look at, who have none.
    pumped: AtomicBool,
}

/// How a worker's connections are prepared.
pub(crate) fn connection() -> Preparation {
    Preparation { congestion: std::env::var(CONGESTION_VARIABLE).ok().filter(|name| !name.is_empty()) }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("pumped", &self.pumped).finish_non_exhaustive()
    }
}

impl Links {
    /// `bell`: the one that the dispatcher sleeps by.
    pub(crate) fn new(bell: Doorbell) -> Arc<Self> {
        Arc::new(Self {
            bell,
            driver: Mutex::default(),
            pump: Mutex::default(),
            pumped: AtomicBool::new(false),
        })
    }

    /// The driver of this worker's links, for as long as somebody holds it.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub(crate) fn driver(&self) -> io::Result<Arc<Driver>> {
        let mut known = self.driver.lock();
        if let Some(driver) = known.upgrade() {
            return Ok(driver);
        }
        let path = std::env::var(PATH_VARIABLE).ok().and_then(|word| Path::parse(&word)).unwrap_or_default();
        let config = DriverConfig { path, ..DriverConfig::default() };
        let (driver, pump) = Driver::without_thread(&config, self.bell.clone())?;
        // Whoever sleeps with the old one, which is about to be over, wakes and lets go of it.
        self.bell.notify();
        *self.pump.lock() = Some(pump);
        self.pumped.store(true, Ordering::Release);
        self.bell.notify();
        let driver = Arc::new(driver);
        *known = Arc::downgrade(&driver);
        Ok(driver)
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        self.pumped.load(Ordering::Acquire)
    }

    /// Does what can be done without waiting; says whether there was anything.
    #[inline]
    pub(crate) fn turn(&self) -> bool {
        self.are_there() && self.turn_pump(false)
    }

    /// As [`Self::turn`], after a look at the sockets, which is a system call.
    #[inline]
    pub(crate) fn look(&self) -> bool {
        self.are_there() && self.turn_pump(true)
    }

    #[cold]
    fn turn_pump(&self, look: bool) -> bool {
        let mut place = self.pump.lock();
        let Some(pump) = place.as_mut() else { return false };
        if look && !pump.look() {
            return false;
        }
        let worked = pump.turn();
        if pump.is_over() {
            *place = None;
            self.pumped.store(false, Ordering::Release);
        }
        worked
    }

    /// The bell's ring was taken back: an end of a channel here may have been rung for.
    pub(crate) fn rung(&self) {
        if self.are_there()
            && let Some(pump) = self.pump.lock().as_mut()
        {
            pump.rung();
        }
    }

    /// Has the ends of channels here ring from now on; a full fence must follow, then [`Self::sleep`].
    pub(crate) fn ask(&self) {
        if let Some(pump) = self.pump.lock().as_mut() {
            pump.ask();
        }
    }

    /// Sleeps until there is news or the bell rings, at most so long; not at all if there is something to do. Returns whether
    /// it slept.
    pub(crate) fn sleep(&self, timeout: Duration) -> bool {
        let mut place = self.pump.lock();
        let Some(pump) = place.as_mut() else { return false };
        let Some(wanted) = pump.may_sleep() else { return false };
        if let Err(error) = pump.wait(Some(wanted.map_or(timeout, |wanted| wanted.min(timeout)))) {
            tracing::error!(%error, "cannot wait for links; all of them are over");
            *place = None;
            self.pumped.store(false, Ordering::Release);
        }
        true
    }
}
