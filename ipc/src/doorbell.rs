//! The doorbell: how a sleeping process is woken.
//!
//! An eventfd, so that mio, tokio, asyncio and libuv can wait on it too. Used by [`crate::channel`] for a blocked
//! caller and by a worker's dispatcher. It carries no news: whoever wakes looks at its rings, so a spurious ring
//! is harmless, and every sleep is bounded, so a peer that steals one can only cause a delay.
//!
//! Who answers calls sleeps with [`Doorbell::doze`], which leaves the count as it is: taking it back costs a system call, and
//! the call that has come should not wait for that. It is taken back by [`Doorbell::settle`] before the next request for a
//! bell, and not between the request and the sleep, where the ring that answers it would be lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sys::event::{self, PollFd, PollFlags};

/// One end of a doorbell. Clones share it.
#[derive(Debug, Clone)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    /// A sleep has ended by a ring that was not taken back since. A hint for this process: a thread that misses it wakes
    /// once for nothing.
    rung: AtomicBool,
}

impl Doorbell {
    /// Makes a doorbell.
    ///
    /// # Errors
    /// The system's error when the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self::from_fd(event::eventfd()?))
    }

    /// A doorbell received from the engine, which is believed to send one.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { shared: Arc::new(Shared { fd, rung: AtomicBool::new(false) }) }
    }

    /// A doorbell received from a peer; `None` for what is no event counter.
    #[must_use]
    pub fn from_peer(fd: OwnedFd) -> Option<Self> {
        event::is_eventfd(&fd).then(|| Self::from_fd(fd))
    }

    /// Wakes whoever waits. Two system calls, 0.3 to 0.6 µs, more where the sleeper's core must be woken.
    pub fn notify(&self) {
        // A full counter means that the sleeper has news already; a peer that is gone needs none.
        let _ignored = event::eventfd_add(&self.shared.fd);
    }

    /// Sleeps until rung or until `timeout` has passed, and says whether it was rung. Two system calls.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        self.doze(timeout) && self.clear()
    }

    /// As [`Doorbell::wait`], but the ring is not taken back: until [`Doorbell::settle`] has been called every sleep ends at
    /// once. One system call.
    #[must_use]
    pub fn doze(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(&self.shared.fd, PollFlags::IN)];
        let rung = matches!(event::poll(&mut fds, Some(timeout)), Ok(1..));
        if rung {
            self.shared.rung.store(true, Ordering::Relaxed);
        }
        rung
    }

    /// Takes back the ring that ended the last doze, if one did, and says so: whatever was rung for meanwhile must be looked
    /// for before the next sleep. A system call only then.
    pub fn settle(&self) -> bool {
        self.shared.rung.load(Ordering::Relaxed) && self.clear()
    }

    /// Takes back what was rung so far, and says whether anything was.
    pub fn clear(&self) -> bool {
        self.shared.rung.store(false, Ordering::Relaxed);
        matches!(event::eventfd_take(&self.shared.fd), Ok(1..))
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.fd.as_fd()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn rings_once_however_often_it_was_rung() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.wait(Duration::ZERO));
        let clone = bell.clone();
        clone.notify();
        clone.notify();
        assert!(bell.wait(Duration::from_secs(5)));
        assert!(!bell.wait(Duration::from_millis(1)));
    }

    #[test]
    fn a_doze_leaves_the_ring_for_settling() {
        let bell = Doorbell::new().unwrap();
        bell.notify();
        assert!(!bell.settle(), "a ring that nobody has seen yet stays");
        assert!(bell.doze(Duration::from_secs(5)));
        assert!(bell.doze(Duration::from_secs(5)), "nobody has taken it back");
        assert!(bell.settle());
        assert!(!bell.doze(Duration::from_millis(1)));
    }

    #[test]
    fn wakes_a_sleeper() {
        let bell = Doorbell::new().unwrap();
        let clone = bell.clone();
        let sleeper = std::thread::spawn(move || clone.wait(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(20));
        bell.notify();
        assert!(sleeper.join().unwrap());
    }
}
