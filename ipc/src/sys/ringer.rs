//! Adding to an event counter without ever blocking, whoever else holds the counter and whatever they do to it. Used by
//! [`super::event`]. It must not know who rings or why.
//!
//! Whether a write to an event counter blocks is up to its open file, which everybody who holds a copy can change, and the
//! kernel refuses `RWF_NOWAIT` for it. But the kernel also adds to event counters by itself, when a request of its
//! asynchronous I/O completes (`IOCB_FLAG_RESFD`, `io_submit(2)`), and that addition never waits: it stops at the highest
//! count. So a ring is a request that is complete at once, to poll a counter of our own that always holds something, with
//! the bell as the counter to be told. One system call, 0.6 µs, and another for some ten rings to take the completions.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::EventfdFlags;

/// Requests that the context is made for; the system allows 65,536 to all processes together (`fs.aio-max-nr`), and gives
/// more room than is asked for.
const REQUESTS: usize = 16;

/// Completions that are taken at a time.
const TAKEN_MAX: usize = 32;

const CMD_POLL: u16 = 5;
const FLAG_RESFD: u32 = 1;

/// `struct iocb` of `linux/aio_abi.h`, little-endian.
#[derive(Default)]
#[repr(C)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` of `linux/aio_abi.h`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Completion {
    _words: [u64; 4],
}

const _: () = assert!(size_of::<Request>() == 64 && size_of::<Completion>() == 32);

/// A context for requests, one for each process, and the counter that is always readable.
struct Ringer {
    context: libc::c_ulong,
    ready: OwnedFd,
}

/// Adds one to an event counter. `false`: not done, because this system or this process may not; the counter has to be
/// written to. A full counter stays full, and is readable.
pub(super) fn add(fd: impl AsFd) -> bool {
    static RINGER: OnceLock<Option<Ringer>> = OnceLock::new();
    RINGER.get_or_init(Ringer::new).as_ref().is_some_and(|ringer| ringer.add(fd))
}

impl Ringer {
    fn new() -> Option<Self> {
        let ready = rustix::event::eventfd(1, EventfdFlags::CLOEXEC).ok()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one word of this size to where the pointer leads, which is ours and lives on.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, REQUESTS, &raw mut context) };
        (made == 0).then_some(Self { context, ready })
    }

    fn add(&self, fd: impl AsFd) -> bool {
        let (Ok(ready), Ok(bell)) =
            (u32::try_from(self.ready.as_raw_fd()), u32::try_from(fd.as_fd().as_raw_fd()))
        else {
            return false;
        };
        let readable = u64::from(libc::POLLIN.unsigned_abs());
        let request = Request {
            opcode: CMD_POLL,
            fd: ready,
            buf: readable,
            flags: FLAG_RESFD,
            resfd: bell,
            ..Request::default()
        };
        // No room means that completions wait to be taken, by this thread or by others that come here.
        for _ in 0..4 {
            match self.submit(&request) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.take_completions(),
                outcome => return outcome.is_ok(),
            }
        }
        false
    }

    fn submit(&self, request: &Request) -> io::Result<()> {
        let list = [std::ptr::from_ref(request)];
        // SAFETY: the context is one that `io_setup` gave, or the kernel refuses it (after a fork); the list has one pointer,
        // to a request that lives across the call. The kernel copies the request, and writes only its `key`, which nothing
        // reads: the request is this call's own and is not used again. A poll request leads to no other memory of ours.
        let taken = unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1_usize, list.as_ptr()) };
        if taken == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[cold]
    fn take_completions(&self) {
        let mut taken = [Completion::default(); TAKEN_MAX];
        let (at_least, at_most) = (0_usize, TAKEN_MAX);
        let no_time_limit = std::ptr::null::<libc::timespec>();
        // SAFETY: the kernel writes at most `at_most` completions, for which there is room, and any bytes are valid for them.
        // With none awaited it does not wait.
        let _count = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                at_least,
                at_most,
                taken.as_mut_ptr(),
                no_time_limit,
            )
        };
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::*;
    use crate::sys::event;

    #[test]
    fn every_ring_is_counted_and_none_waits_at_the_highest_count() {
        let fd = event::eventfd().unwrap();
        if !add(&fd) {
            println!("skipped: this system has no asynchronous I/O, or does not let us use it");
            return;
        }
        for _ in 0..1000 {
            assert!(add(&fd));
        }
        assert_eq!(event::eventfd_take(&fd).unwrap(), 1001);
        fcntl_setfl(&fd, fcntl_getfl(&fd).unwrap() - OFlags::NONBLOCK).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..3 {
            assert!(add(&fd));
        }
        assert!(event::is_readable(&fd).unwrap());
        assert_eq!(event::eventfd_take(&fd).unwrap(), u64::MAX);
        assert_eq!(event::eventfd_take(&fd).unwrap(), 0);
    }

    #[test]
    fn what_is_no_counter_is_not_rung() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!add(&reader) && !add(&writer));
    }

    /// A peer empties the counter, so that there seems to be room, and fills it at once, over and over.
    #[test]
    fn a_counter_that_is_filled_at_any_moment_holds_up_nobody() {
        let fd = Arc::new(event::eventfd().unwrap());
        if !add(&*fd) {
            println!("skipped: this system has no asynchronous I/O, or does not let us use it");
            return;
        }
        fcntl_setfl(&*fd, fcntl_getfl(&*fd).unwrap() - OFlags::NONBLOCK).unwrap();
        let (rings, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let stuck = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    event::eventfd_add(&*fd).unwrap();
                    rings.fetch_add(1, Ordering::Relaxed);
                }
            });
            let stuck = (0..20_000).find(|_| {
                let _emptied = event::eventfd_take(&*fd);
                // Not blocking only for as long as the peer writes itself; where a ring came first it finds no room.
                fcntl_setfl(&*fd, fcntl_getfl(&*fd).unwrap() | OFlags::NONBLOCK).unwrap();
                let _filled_or_rung = rustix::io::write(&*fd, &(u64::MAX - 1).to_ne_bytes());
                fcntl_setfl(&*fd, fcntl_getfl(&*fd).unwrap() - OFlags::NONBLOCK).unwrap();
                let (before, until) =
                    (rings.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(10));
                while rings.load(Ordering::Relaxed) < before + 3 && Instant::now() < until {
                    std::thread::yield_now();
                }
                rings.load(Ordering::Relaxed) < before + 3
            });
            stop.store(true, Ordering::Relaxed);
            let _lets_it_go = event::eventfd_take(&*fd);
            stuck
        });
        assert_eq!(stuck, None, "a full counter held a ring up");
    }
}
