//! Event counters, waiting on several descriptors at once, and the monotonic clock. Used by doorbells and waiters. It
//! must not know who rings or why.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec};
pub use rustix::event::{PollFd, PollFlags};
use rustix::io::ReadWriteFlags;
use rustix::time::ClockId;

/// Makes an event counter: non-blocking, close-on-exec, at zero.
///
/// # Errors
/// Too many open files.
pub fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)
}

/// Adds one to an event counter, which makes it readable. A full counter is readable already, so that is no error.
///
/// Two system calls: whoever else holds the counter may have taken its non-blocking mode away, which belongs to the open
/// file and not to us, and the kernel has no write that refuses to block by itself. So ask first. What remains is a peer
/// that fills the counter between the two calls.
///
/// # Errors
/// A descriptor that is no event counter.
#[inline]
pub fn eventfd_add(fd: impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
    if poll(&mut fds, Some(Duration::ZERO))? == 0 {
        return Ok(());
    }
    match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the count of an event counter and leaves zero; zero if nothing was added since. One system call, never blocks,
/// also when somebody else who holds the counter has taken its non-blocking mode away (Linux 5.8 and later).
///
/// # Errors
/// A descriptor that is no event counter.
#[inline]
pub fn eventfd_take(fd: impl AsFd) -> io::Result<u64> {
    let mut count = [0; 8];
    let here = u64::MAX; // the file's own position, for files that have none
    let mut bytes = [io::IoSliceMut::new(&mut count)];
    let taken = match rustix::io::preadv2(fd.as_fd(), &mut bytes, here, ReadWriteFlags::NOWAIT) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => rustix::io::read(fd, &mut count),
        taken => taken,
    };
    match taken {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether `fd` is an event counter, as far as the system shows it: writing to anything else that a peer hands
/// over, a file on a file system of its own for one, may never return. About 2 µs.
#[must_use]
pub fn is_eventfd(fd: impl AsFd) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    // Without /proc nothing can be told; the kernel's name for it is a part of its interface, see proc_pid_fd(5).
    std::fs::read_link(link).map_or(true, |name| name.as_os_str() == "anon_inode:[eventfd]")
}

/// Waits until one of `fds` is ready or `timeout` has passed (`None`: no limit). Returns how many are ready; 0 also when
/// a signal interrupted the wait, so the caller looks at its own clock again.
///
/// # Errors
/// Whatever `ppoll` reports.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // A timeout too long for the kernel's type is as good as none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match rustix::event::poll(fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => {
            for fd in fds {
                fd.clear_revents();
            }
            Ok(0)
        }
        other => Ok(other?),
    }
}

/// Returns whether `fd` is readable (or hung up) right now.
///
/// # Errors
/// Whatever `ppoll` reports.
pub fn is_readable(fd: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    Ok(poll(&mut fds, Some(Duration::ZERO))? > 0)
}

/// Returns the monotonic clock in nanoseconds. It is the same clock in every process of a host, and it is the clock of
/// every deadline. Costs about 20 ns, no system call.
#[inline]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    // The kernel never gives a negative monotonic time.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
