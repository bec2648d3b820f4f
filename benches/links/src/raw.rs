//! The one module with unsafe code: sockets driven by an `io_uring`, with safe methods, and the two
//! calls that no safe crate has: the filter that refuses `io_uring_setup`, and a socket's low-water mark. Everything else here uses it without knowing pointers.
//!
//! Fields: a [`Uring`] belongs to one thread (it is not `Send`, by its raw pointers). Invariants:
//! - **I1** Memory that an operation may touch belongs to a [`Region`] of the same `Uring`, lies within it, and is freed
//!   only after `in_flight` reached zero ([`Uring::drop`] waits, and aborts the process if it cannot).
//! - **I2** `pending[region]` counts the operations that may touch a region; a reference to its bytes is handed out only
//!   while it is zero. One that is handed out borrows the `Uring`, so that nothing can be submitted meanwhile.
//! - **I3** A provided buffer is written by the kernel from [`Provided::offer`] to the completion that names it, and
//!   read by us from there to the next `offer`: `held` says whose it is.
//!
//! The only ordering: the buffer ring's tail is stored with Release, as the kernel's acquire load wants it.
#![expect(unsafe_code, reason = "io_uring takes raw pointers; seccomp takes a filter by pointer")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

const PAGE: usize = 4096;
/// `IORING_RECVSEND_POLL_FIRST`: do not try before the socket says that it is ready.
const POLL_FIRST: u16 = 1;
/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the bytes were copied after all.
const REPORT_USAGE: u16 = 8;
/// What such a notification says then: `IORING_NOTIF_USAGE_ZC_COPIED`.
const COPIED: i32 = i32::MIN;
/// `IORING_ENTER_GETEVENTS`: work off completions.
const GET_EVENTS: u32 = 1;
/// The group of provided buffers.
const GROUP: u16 = 0;

/// When completions of a ring are worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskRun {
    /// Whenever the kernel likes, with an interrupt if need be.
    Any,
    /// `COOP_TASKRUN`: at the next system call.
    Coop,
    /// `DEFER_TASKRUN`: when the ring's own thread waits for completions.
    Defer,
}

/// How a thread waits for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Asleep, in the kernel.
    Asleep,
    /// Entering the kernel again and again.
    Entering,
    /// Looking at the completion queue, which takes `TaskRun::Any`.
    Looking,
}

/// How a ring is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// When completions are worked off. All but `Any` come with `SINGLE_ISSUER`.
    pub(crate) task_run: TaskRun,
    /// Whether the socket and the ring's own descriptor are registered.
    pub(crate) registered: bool,
    /// How to wait.
    pub(crate) wait: Wait,
}

impl Setup {
    /// The set-up that the rest is measured with.
    pub(crate) const BEST: Self = Self { task_run: TaskRun::Defer, registered: true, wait: Wait::Asleep };
}

/// How to receive into a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Whatever there is.
    Some,
    /// Whatever there is, once the socket says that there is something.
    PollFirst,
    /// All that was asked for (`MSG_WAITALL`).
    All,
    /// Whatever there is, into the registered region.
    Fixed,
}

/// How to send from a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Send {
    /// A copy.
    Copy,
    /// A copy, from the registered region.
    CopyFixed,
    /// No copy, where the kernel can.
    ZeroCopy,
    /// No copy, where the kernel can, from the registered region.
    ZeroCopyFixed,
}

/// What ended, or went on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    /// What was submitted.
    pub(crate) kind: Kind,
    /// The socket it was for.
    pub(crate) link: usize,
    /// Bytes moved, or a negated error number.
    result: i32,
    /// Whether this operation completes again.
    pub(crate) goes_on: bool,
    /// Whether it only says that a zero-copy send no longer needs its bytes.
    pub(crate) is_notice: bool,
    /// The provided buffer that holds the bytes, or the first of several.
    pub(crate) buffer: Option<u16>,
}

impl Completion {
    /// Returns the bytes moved.
    pub(crate) fn bytes(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// Returns whether a zero-copy send was copied after all.
    pub(crate) fn was_copied(&self) -> bool {
        self.is_notice && self.result == COPIED
    }

    /// Returns whether a receive over provided buffers stopped because there was none left.
    pub(crate) fn found_no_buffer(&self) -> bool {
        self.result == -libc::ENOBUFS
    }
}

/// What a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A receive, single or multishot.
    Receive,
    /// A send.
    Send,
}

/// Zeroed memory at a page boundary.
struct Region {
    at: NonNull<u8>,
    layout: Layout,
}

impl Region {
    fn new(len: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len.max(1), PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout's size is at least one.
        let at = unsafe { alloc_zeroed(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        Ok(Self { at, layout })
    }

    fn len(&self) -> usize {
        self.layout.size()
    }

    /// Returns where a part begins, and its length, having checked that it lies within.
    fn part(&self, range: &Range<usize>) -> (*mut u8, u32) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        // SAFETY: `start <= len`, checked above, so that the sum stays within the allocation or just behind it.
        let at = unsafe { self.at.as_ptr().add(range.start) };
        (at, u32::try_from(range.len()).expect("regions are smaller than 4 GiB"))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`; nothing refers to it any more, by I1.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// A ring of buffers from which the kernel takes one for whatever arrives.
struct Provided {
    entries: Region,
    buffers: Region,
    size: usize,
    held: Vec<bool>,
    tail: u16,
}

impl Provided {
    fn new(count: u16, size: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Region::new(usize::from(count) * size)?;
        Ok(Self { entries, buffers, size, held: vec![true; count.into()], tail: 0 })
    }

    fn range(&self, buffer: u16) -> Range<usize> {
        let start = usize::from(buffer) * self.size;
        start..start + self.size
    }

    /// Gives a buffer to the kernel.
    fn offer(&mut self, buffer: u16) {
        assert!(std::mem::take(&mut self.held[usize::from(buffer)]), "buffer {buffer} is the kernel's");
        let (at, len) = self.buffers.part(&self.range(buffer));
        let slot = usize::from(self.tail) & (self.held.len() - 1);
        let base = self.entries.at.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot` is masked by the number of entries that the region was made for.
        let entry = unsafe { base.add(slot) };
        // SAFETY: zeroed at creation, aligned to a page; the kernel reads only entries before the tail, and this one is
        // not: no more buffers are offered than there are, by `held`.
        let entry = unsafe { &mut *entry };
        entry.set_addr(at as u64);
        entry.set_len(len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the first of the entries.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: aligned within its entry; the kernel reads it with an atomic load and we write it only here.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Sockets and the ring that drives them.
pub(crate) struct Uring {
    ring: IoUring,
    streams: Vec<TcpStream>,
    registered: bool,
    wait: Wait,
    regions: Vec<Region>,
    pending: Vec<usize>,
    provided: Option<Provided>,
    in_flight: usize,
}

macro_rules! on_socket {
    ($uring:expr, $link:expr, $operation:ident($($argument:expr),*)) => {
        if $uring.registered {
            opcode::$operation::new(Fixed(u32::try_from($link).expect("there are few sockets")), $($argument),*)
        } else {
            opcode::$operation::new(Fd($uring.streams[$link].as_raw_fd()), $($argument),*)
        }
    };
}

impl Uring {
    /// Sets up a ring for sockets, with regions of these sizes; `fixed` registers them as buffers.
    pub(crate) fn new(
        streams: Vec<TcpStream>,
        setup: Setup,
        sizes: &[usize],
        fixed: bool,
    ) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        match setup.task_run {
            TaskRun::Any => {}
            TaskRun::Coop => drop(builder.setup_single_issuer().setup_coop_taskrun()),
            TaskRun::Defer => drop(builder.setup_single_issuer().setup_defer_taskrun()),
        }
        // Multishot receives complete more often than they are submitted.
        let ring = builder.setup_cqsize(1024).build(128)?;
        if setup.registered {
            let files: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).collect();
            ring.submitter().register_files(&files)?;
            ring.submitter().register_ring_fd()?;
        }
        let regions = sizes.iter().map(|len| Region::new(*len)).collect::<io::Result<Vec<_>>>()?;
        if fixed {
            let part =
                |region: &Region| libc::iovec { iov_base: region.at.as_ptr().cast(), iov_len: region.len() };
            let parts: Vec<_> = regions.iter().map(part).collect();
            // SAFETY: the regions outlive every operation on them by I1; the kernel pins their pages itself.
            unsafe { ring.submitter().register_buffers(&parts) }?;
        }
        let (registered, wait, pending) = (setup.registered, setup.wait, vec![0; regions.len()]);
        Ok(Self { ring, streams, registered, wait, regions, pending, provided: None, in_flight: 0 })
    }

    /// Provides buffers to receive into: `count` of them, a power of two.
    pub(crate) fn provide(&mut self, count: u16, size: usize) -> io::Result<()> {
        assert!(self.provided.is_none());
        let mut provided = Provided::new(count, size)?;
        let at = provided.entries.at.as_ptr() as u64;
        // SAFETY: the entries' memory is at a page boundary, large enough for `count`, and freed after the ring: see I1
        // and `Drop`.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(at, count, GROUP, 0) }?;
        (0..count).for_each(|buffer| provided.offer(buffer));
        self.provided = Some(provided);
        Ok(())
    }

    /// Returns a region's bytes.
    pub(crate) fn bytes(&self, region: usize) -> &[u8] {
        assert_eq!(self.pending[region], 0, "region {region} is in use");
        let region = &self.regions[region];
        // SAFETY: allocated with this length and zeroed in `Region::new`; no operation may write it, by I2.
        unsafe { std::slice::from_raw_parts(region.at.as_ptr(), region.len()) }
    }

    /// Returns a region's bytes, to be changed.
    pub(crate) fn bytes_mut(&mut self, region: usize) -> &mut [u8] {
        assert_eq!(self.pending[region], 0, "region {region} is in use");
        let region = &self.regions[region];
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(region.at.as_ptr(), region.len()) }
    }

    /// Returns what a provided buffer holds.
    pub(crate) fn provided(&self, buffer: u16, len: usize) -> &[u8] {
        let provided = self.provided.as_ref().expect("buffers were provided");
        assert!(provided.held[usize::from(buffer)], "buffer {buffer} is the kernel's");
        let range = provided.range(buffer);
        let (at, _) = provided.buffers.part(&(range.start..range.start + len.min(provided.size)));
        // SAFETY: within the buffers' region, which was zeroed at its creation; ours to read by I3.
        unsafe { std::slice::from_raw_parts(at, len.min(provided.size)) }
    }

    /// Returns the bytes of one provided buffer, and how many there are.
    pub(crate) fn provided_size(&self) -> (usize, u16) {
        let provided = self.provided.as_ref().expect("buffers were provided");
        (provided.size, u16::try_from(provided.held.len()).expect("made from a u16"))
    }

    /// Gives a provided buffer back.
    pub(crate) fn give_back(&mut self, buffer: u16) {
        self.provided.as_mut().expect("buffers were provided").offer(buffer);
    }

    /// Submits, with the next wait, a receive into a part of a region.
    pub(crate) fn receive(
        &mut self,
        link: usize,
        region: usize,
        range: Range<usize>,
        how: Receive,
    ) -> io::Result<()> {
        let (at, len) = self.regions[region].part(&range);
        let index = u16::try_from(region).expect("there are few regions");
        let entry = match how {
            Receive::Some => on_socket!(self, link, Recv(at, len)).build(),
            Receive::PollFirst => on_socket!(self, link, Recv(at, len)).ioprio(POLL_FIRST).build(),
            Receive::All => on_socket!(self, link, Recv(at, len)).flags(libc::MSG_WAITALL).build(),
            Receive::Fixed => on_socket!(self, link, ReadFixed(at, len, index)).offset(u64::MAX).build(),
        };
        self.push(&entry, Kind::Receive, link, Some(region))
    }

    /// Submits, with the next wait, a receive that goes on by itself, into provided buffers. With `bundle` one
    /// completion may stand for several of them.
    pub(crate) fn receive_on(&mut self, link: usize, bundle: bool) -> io::Result<()> {
        let entry = if bundle {
            on_socket!(self, link, RecvMultiBundle(GROUP)).build()
        } else {
            on_socket!(self, link, RecvMulti(GROUP)).build()
        };
        self.push(&entry, Kind::Receive, link, None)
    }

    /// Submits, with the next wait, a send of a part of a region, all of it where the kernel can promise that.
    pub(crate) fn send(
        &mut self,
        link: usize,
        region: usize,
        range: Range<usize>,
        how: Send,
    ) -> io::Result<()> {
        let (at, len) = self.regions[region].part(&range);
        let at = at.cast_const();
        let index = u16::try_from(region).expect("there are few regions");
        let all = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = match how {
            Send::Copy => on_socket!(self, link, Send(at, len)).flags(all).build(),
            Send::CopyFixed => on_socket!(self, link, WriteFixed(at, len, index)).offset(u64::MAX).build(),
            Send::ZeroCopy => {
                on_socket!(self, link, SendZc(at, len)).flags(all).zc_flags(REPORT_USAGE).build()
            }
            Send::ZeroCopyFixed => {
                let entry = on_socket!(self, link, SendZc(at, len)).flags(all).zc_flags(REPORT_USAGE);
                entry.buf_index(Some(index)).build()
            }
        };
        self.push(&entry, Kind::Send, link, Some(region))
    }

    fn push(
        &mut self,
        entry: &squeue::Entry,
        kind: Kind,
        link: usize,
        region: Option<usize>,
    ) -> io::Result<()> {
        let region_word = region.map_or(0, |region| region as u64 + 1);
        let word = (link as u64) << 32 | region_word << 8 | u64::from(kind == Kind::Send);
        let entry = entry.clone().user_data(word);
        // SAFETY: the entry's memory is a part of a region, by I1, or there is none.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.in_flight += 1;
        if let Some(region) = region {
            self.pending[region] += 1;
        }
        Ok(())
    }

    /// Submits what was prepared and waits for so many completions: one system call, or for one completion at least
    /// where the ring is polled.
    pub(crate) fn wait(&mut self, count: usize) -> io::Result<()> {
        match self.wait {
            Wait::Asleep => retry(|| self.ring.submit_and_wait(count)),
            Wait::Entering => {
                while self.ring.completion().is_empty() {
                    retry(|| self.enter())?;
                }
                Ok(())
            }
            Wait::Looking => {
                retry(|| self.ring.submit())?;
                while self.ring.completion().is_empty() {
                    std::hint::spin_loop();
                }
                Ok(())
            }
        }
    }

    /// Submits what was prepared, has the kernel work off what is due, and comes back at once.
    fn enter(&mut self) -> io::Result<usize> {
        let prepared = u32::try_from(self.ring.submission().len()).map_err(io::Error::other)?;
        // SAFETY: no argument is passed, so that its type does not matter; what is submitted was checked in `push`.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(prepared, 0, GET_EVENTS, None) }
    }

    /// Takes the next completion that is there.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let word = entry.user_data();
        let kind = if word & 1 == 0 { Kind::Receive } else { Kind::Send };
        let link = usize::try_from(word >> 32).expect("there are few sockets");
        let (result, flags) = (entry.result(), entry.flags());
        let goes_on = cqueue::more(flags);
        if !goes_on {
            self.in_flight -= 1;
            if let Some(region) =
                usize::try_from(word >> 8 & 0xFF_FFFF).ok().and_then(|word| word.checked_sub(1))
            {
                self.pending[region] -= 1;
            }
        }
        let buffer = cqueue::buffer_select(flags);
        if let (Some(first), Some(provided)) = (buffer, &mut self.provided) {
            // Buffers are offered in the order in which they came, so that those of a bundle follow each other.
            let count = usize::try_from(result).unwrap_or(0).div_ceil(provided.size).max(1);
            let len = provided.held.len();
            (0..count).for_each(|more| provided.held[(usize::from(first) + more) % len] = true);
        }
        Some(Completion { kind, link, result, goes_on, is_notice: cqueue::notif(flags), buffer })
    }

    /// Returns how many operations have not ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.wait = Wait::Asleep;
        // Whatever still waits for a socket ends with it; one that is closed already is as good.
        for stream in &self.streams {
            drop(stream.shutdown(Shutdown::Both));
        }
        while self.in_flight > 0 {
            if self.next().is_none() && self.wait(1).is_err() {
                // I1 could not be kept otherwise.
                std::process::abort();
            }
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map(drop),
        }
    }
}

/// Has a socket wake its reader only once so many bytes are there (`SO_RCVLOWAT`).
pub(crate) fn set_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    let len = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    let at = std::ptr::from_ref(&value).cast();
    // SAFETY: `at` and `len` are those of `value`, which the kernel copies during the call.
    let done = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, at, len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks the kernel for a ring, and gives it back.
pub(crate) fn probe() -> io::Result<()> {
    IoUring::new(8).map(drop)
}

/// Makes `io_uring_setup` fail with this error number in this process and in those it starts, as container runtimes do.
pub(crate) fn refuse_io_uring(error: u32) -> io::Result<()> {
    let step = |code: u32, jump_else: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).expect("BPF codes are short"),
        jt: 0,
        jf: jump_else,
        k: value,
    };
    let number = u32::try_from(libc::SYS_io_uring_setup).map_err(io::Error::other)?;
    // The first word of what a filter sees is the number of the system call.
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | error),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the program is valid and has four steps; the kernel copies it during the call.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
