//! The doorbell: how a sleeping process is woken.
//!
//! An eventfd, so that mio, tokio, asyncio and libuv can wait on it too. Used by [`crate::channel`] for a blocked
//! caller and by a worker's dispatcher. It carries no news: whoever wakes looks at its rings, so a spurious ring
//! is harmless, and every sleep is bounded, so a peer that steals one can only cause a delay.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::event::{self, PollFd, PollFlags};

/// One end of a doorbell. Clones share it.
#[derive(Debug, Clone)]
pub struct Doorbell {
    fd: Arc<OwnedFd>,
}

impl Doorbell {
    /// Makes a doorbell.
    ///
    /// # Errors
    /// The system's error when the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { fd: Arc::new(event::eventfd()?) })
    }

    /// A doorbell received from the engine, which is believed to send one.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// A doorbell received from a peer; `None` for what is no event counter.
    #[must_use]
    pub fn from_peer(fd: OwnedFd) -> Option<Self> {
        event::is_eventfd(&fd).then(|| Self::from_fd(fd))
    }

    /// Wakes whoever waits. One system call, 0.6 µs, more where the sleeper's core must be woken. It never blocks, whatever a
    /// peer does to its copy of the bell, except where the system has no asynchronous I/O (`sys/ringer.rs`).
    pub fn notify(&self) {
        // A full counter means that the sleeper has news already; a peer that is gone needs none.
        let _ignored = event::eventfd_add(&*self.fd);
    }

    /// Sleeps until rung or until `timeout` has passed, and says whether it was rung.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(&*self.fd, PollFlags::IN)];
        matches!(event::poll(&mut fds, Some(timeout)), Ok(1..)) && self.clear()
    }

    /// Takes back what was rung so far, and says whether anything was.
    pub fn clear(&self) -> bool {
        matches!(event::eventfd_take(&*self.fd), Ok(1..))
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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
    fn wakes_a_sleeper() {
        let bell = Doorbell::new().unwrap();
        let clone = bell.clone();
        let sleeper = std::thread::spawn(move || clone.wait(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(20));
        bell.notify();
        assert!(sleeper.join().unwrap());
    }
}
