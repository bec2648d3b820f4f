//! Moving bytes by `io_uring`: one receive and one send of each link are always under way, and one system call hands over what
//! is new and waits for what is done. Used by [`super::run`]. It must not know what the bytes are.
//!
//! # Fields and who may touch them
//! The ring and everything here belong to whoever drives: one thread at a time, and where that is always the same one the ring
//! is told so. Memory that an operation was given belongs to the
//! kernel from the push of its entry until its completion was taken.
//!
//! # Invariants
//! - U1: a link has at most one receive and one send under way; `Flying` says which, and is boxed, so that the headers the
//!   kernel reads do not move.
//! - U2: what a receive writes to is what [`Line::spaces`] gave for it, and nothing asks the line for spaces again or tells it
//!   of bytes before the completion. The line's staging areas are vectors that do not grow, so their bytes
//!   stay where they are when the line moves; blocks of an arena do not move, and a parcel whose
//!   transfer is dropped meanwhile is kept until the next completion ([`crate::session`]).
//! - U3: what a send reads is the line's flight, which stays as it is until [`Line::sent`] has counted all of it.
//! - U4: a carrier is dropped only when nothing of it is under way; until then it is in `leaving`.
//!
//! Checked by: the conformance tests of links, which run on both ways of moving bytes; cuts at random.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use ringway_ipc::doorbell::Doorbell;
use rustix::net::Shutdown;

use crate::driver::epoll::cut_or;
use crate::driver::links::Carrier;
use crate::driver::run::{Mover, Source};
use crate::fault::Ended;
#[cfg(doc)]
use crate::line::Line;

/// Entries of the submission queue; a fuller one is handed over early.
const ENTRIES: u32 = 256;

/// Places of one send.
const PLACES: usize = 8;

// What an entry is for, in the upper bits of its number; the lower ones say of whom.
const KIND_SHIFT: u32 = 60;
const BELL: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const LOCAL: u64 = 3;
const CANCEL: u64 = 4;

const POLL_IN: u32 = 0x0001 | 0x2000;

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    UnderWay,
    /// With what the system said.
    Done(i32),
}

/// The operations of one link.
pub(crate) struct Flying {
    receive: Stage,
    send: Stage,
    receive_places: [libc::iovec; 2],
    send_places: [libc::iovec; PLACES],
    send_header: libc::msghdr,
}

// SAFETY: the addresses in it are read by the kernel alone, which does not care whose thread asks; what they lead to is owned
// by the carrier that this value goes with (U2, U3), and every part of that is Send.
unsafe impl Send for Flying {}

/// See the module.
pub(crate) struct Uring {
    ring: IoUring,
    bell: Doorbell,
    bell_asked: bool,
    /// Sockets of local peers: link, channel, descriptor. One is here for as long as its channel, so the descriptor is its.
    locals: HashMap<u64, (u64, u32, RawFd)>,
    next_local: u64,
    /// Links that are over and of which something is still under way.
    leaving: HashMap<u64, Carrier<Box<Flying>>>,
    /// What was done, until the link's turn.
    done: Vec<(u64, u64, i32)>,
}

/// Says whether `io_uring` works here.
///
/// # Errors
/// Why it does not, as the system says.
pub fn probe() -> io::Result<()> {
    build(false).map(drop)
}

fn build(roaming: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    if !roaming {
        // One thread hands in and takes out, and looks at completions only when it waits (Linux 6.1).
        builder.setup_single_issuer().setup_defer_taskrun();
    }
    let best = builder.build(ENTRIES);
    let mut ring = match best {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(ENTRIES)?,
        other => other?,
    };
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let wanted = [
        opcode::Recv::CODE,
        opcode::Readv::CODE,
        opcode::SendMsg::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if !wanted.into_iter().all(|code| probe.is_supported(code)) || !ring.params().is_feature_ext_arg() {
        return Err(io::Error::new(
            ErrorKind::Unsupported,
            "this kernel's io_uring is too old; wanted Linux 5.11",
        ));
    }
    // A ring that can be made and not used is no ring: some filters allow the one and not the other.
    push(&mut ring, &opcode::Nop::new().build())?;
    ring.submit_and_wait(1)?;
    ring.completion().for_each(drop);
    Ok(ring)
}

/// Hands an entry in. Its operands obey U2 and U3, or it has none.
fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    loop {
        // SAFETY: every entry is made in this file. Those that carry addresses are the receive and the send, whose memory
        // stays by U2 and U3 until their completion, and U4 keeps the carrier that owns it.
        let pushed = unsafe { ring.submission().push(entry) };
        if pushed.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}

impl Uring {
    /// `roaming`: whoever drives may be one thread now and another later.
    pub(crate) fn new(bell: &Doorbell, roaming: bool) -> io::Result<Self> {
        Ok(Self {
            ring: build(roaming)?,
            bell: bell.clone(),
            bell_asked: false,
            locals: HashMap::new(),
            next_local: 0,
            leaving: HashMap::new(),
            done: Vec::new(),
        })
    }

    /// Has one completion after the other for each time that a descriptor has something to read.
    fn poll(&mut self, fd: RawFd, number: u64) -> io::Result<()> {
        let entry = opcode::PollAdd::new(Fd(fd), POLL_IN).multi(true).build().user_data(number);
        push(&mut self.ring, &entry)
    }

    fn cancel(&mut self, number: u64) {
        let entry = opcode::AsyncCancel::new(number).build().user_data(CANCEL << KIND_SHIFT);
        if let Err(error) = push(&mut self.ring, &entry) {
            tracing::error!(%error, "cannot hand an operation in");
        }
    }

    fn take_completions(&mut self, news: &mut Vec<Source>) {
        let mut again = Vec::new();
        for entry in self.ring.completion() {
            let (kind, of) = (entry.user_data() >> KIND_SHIFT, entry.user_data() & ((1 << KIND_SHIFT) - 1));
            let more = cqueue::more(entry.flags());
            match kind {
                BELL => {
                    self.bell_asked = more;
                    news.push(Source::Bell);
                }
                LOCAL => {
                    let Some((link, number, fd)) = self.locals.get(&of).copied() else { continue };
                    if !more {
                        again.push((fd, entry.user_data()));
                    }
                    news.push(Source::Local(link, number));
                }
                RECEIVE | SEND => {
                    self.done.push((kind, of, entry.result()));
                    news.push(Source::Link(of));
                }
                _ => {}
            }
        }
        // The system ends a poll when completions overflow; what came meanwhile is told of by what is in `news`.
        for (fd, number) in again {
            if let Err(error) = self.poll(fd, number) {
                tracing::error!(%error, "cannot wait for a channel of a link");
            }
        }
        self.settle_leaving();
    }

    /// Lets links go whose last operation is done.
    fn settle_leaving(&mut self) {
        let leaving = &mut self.leaving;
        self.done.retain(|(kind, link, _)| {
            let Some(carrier) = leaving.get_mut(link) else { return true };
            let state = &mut carrier.state;
            *if *kind == RECEIVE { &mut state.receive } else { &mut state.send } = Stage::Idle;
            false
        });
        leaving.retain(|_, carrier| {
            carrier.state.receive == Stage::UnderWay || carrier.state.send == Stage::UnderWay
        });
    }

    /// Moves what was done to the link whose turn it is.
    fn settle(&mut self, carrier: &mut Carrier<Box<Flying>>) {
        let state = &mut carrier.state;
        self.done.retain(|(kind, link, result)| {
            if *link != carrier.id {
                return true;
            }
            *if *kind == RECEIVE { &mut state.receive } else { &mut state.send } = Stage::Done(*result);
            false
        });
    }

    fn receive(&mut self, carrier: &mut Carrier<Box<Flying>>) -> io::Result<()> {
        let fd = Fd(carrier.socket.as_raw_fd());
        let number = RECEIVE << KIND_SHIFT | carrier.id;
        let [first, second] = &mut carrier.line.spaces();
        let entry = if second.is_empty() {
            let len = u32::try_from(first.len()).unwrap_or(u32::MAX);
            opcode::Recv::new(fd, first.as_mut_ptr(), len).build()
        } else {
            let place =
                |space: &mut [u8]| libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
            carrier.state.receive_places = [place(first), place(second)];
            opcode::Readv::new(fd, carrier.state.receive_places.as_ptr(), 2).build()
        };
        carrier.state.receive = Stage::UnderWay;
        push(&mut self.ring, &entry.user_data(number))
    }

    fn send(&mut self, carrier: &mut Carrier<Box<Flying>>) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(4);
        carrier.line.slices(&mut slices);
        let state = &mut carrier.state;
        let places = state.send_places.iter_mut().zip(&slices);
        let count = places
            .map(|(place, slice)| {
                *place = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            })
            .count();
        state.send_header.msg_iov = state.send_places.as_mut_ptr();
        state.send_header.msg_iovlen = count as _;
        let flags = u32::try_from(libc::MSG_NOSIGNAL).unwrap_or(0);
        let header = std::ptr::from_ref(&state.send_header);
        let entry = opcode::SendMsg::new(Fd(carrier.socket.as_raw_fd()), header).flags(flags).build();
        state.send = Stage::UnderWay;
        push(&mut self.ring, &entry.user_data(SEND << KIND_SHIFT | carrier.id))
    }
}

impl Mover for Uring {
    type State = Box<Flying>;

    fn attach(&mut self, _link: u64, socket: BorrowedFd<'_>) -> io::Result<Box<Flying>> {
        // The ring waits, where a socket that does not block would say that there is nothing.
        rustix::io::ioctl_fionbio(socket, false)?;
        let nowhere = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Ok(Box::new(Flying {
            receive: Stage::Idle,
            send: Stage::Idle,
            receive_places: [nowhere; 2],
            send_places: [nowhere; PLACES],
            // SAFETY: a header of zeroes is one without name, places and control data.
            send_header: unsafe { std::mem::zeroed() },
        }))
    }

    fn detach(&mut self, carrier: Carrier<Box<Flying>>) {
        // Ends what is under way; the completions come with the next waits.
        let _gone_already = rustix::net::shutdown(&carrier.socket, Shutdown::Both);
        for (stage, kind) in [(carrier.state.receive, RECEIVE), (carrier.state.send, SEND)] {
            if stage == Stage::UnderWay {
                self.cancel(kind << KIND_SHIFT | carrier.id);
            }
        }
        self.leaving.insert(carrier.id, carrier);
        self.settle_leaving();
    }

    fn watch(&mut self, link: u64, number: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.next_local += 1;
        self.locals.insert(self.next_local, (link, number, socket.as_raw_fd()));
        self.poll(socket.as_raw_fd(), LOCAL << KIND_SHIFT | self.next_local)
    }

    fn unwatch(&mut self, link: u64, number: u32) {
        let of =
            self.locals.iter().find(|(_, local)| (local.0, local.1) == (link, number)).map(|(of, _)| *of);
        if let Some(of) = of {
            self.locals.remove(&of);
            self.cancel(LOCAL << KIND_SHIFT | of);
        }
    }

    fn read(&mut self, carrier: &mut Carrier<Box<Flying>>) -> Result<bool, Ended> {
        self.settle(carrier);
        let mut worked = false;
        if let Stage::Done(result) = carrier.state.receive {
            carrier.state.receive = Stage::Idle;
            match usize::try_from(result) {
                Ok(0) => return Err(Ended::Cut),
                Ok(count) => carrier.line.received(count)?,
                Err(_) => again_or(result)?,
            }
            worked = true;
        }
        if carrier.state.receive == Stage::Idle {
            self.receive(carrier)?;
        }
        Ok(worked)
    }

    fn drop_rest(&mut self, carrier: &mut Carrier<Box<Flying>>) -> bool {
        self.settle(carrier);
        if let Stage::Done(result) = carrier.state.receive {
            carrier.state.receive = Stage::Idle;
            if result <= 0 && again_or(result).is_err() || result == 0 {
                return true;
            }
        }
        carrier.state.receive == Stage::Idle && self.receive(carrier).is_err()
    }

    fn write(&mut self, carrier: &mut Carrier<Box<Flying>>) -> Result<bool, Ended> {
        self.settle(carrier);
        let mut worked = false;
        if let Stage::Done(result) = carrier.state.send {
            carrier.state.send = Stage::Idle;
            match usize::try_from(result) {
                Ok(count) => carrier.line.sent(count),
                Err(_) => again_or(result)?,
            }
            worked = true;
        }
        if carrier.state.send == Stage::Idle && carrier.line.load() {
            self.send(carrier)?;
        }
        Ok(worked)
    }

    fn wait(&mut self, timeout: Option<Duration>, news: &mut Vec<Source>) -> io::Result<()> {
        if !self.bell_asked {
            self.bell_asked = true;
            self.poll(self.bell.as_fd().as_raw_fd(), BELL << KIND_SHIFT)?;
        }
        let waited = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match waited {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => return Err(error),
        }
        self.take_completions(news);
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut news = Vec::new();
        for _ in 0..100 {
            if self.leaving.is_empty() {
                return;
            }
            let waited = self.wait(Some(Duration::from_millis(10)), &mut news);
            if let Err(error) = waited {
                tracing::error!(%error, "cannot wait for operations that are under way");
                break;
            }
        }
        // U4: rather lose memory than have it written to by the kernel when it is somebody else's.
        self.leaving.drain().for_each(|(_, carrier)| std::mem::forget(carrier));
    }
}

/// What a failed operation means.
fn again_or(result: i32) -> Result<(), Ended> {
    match -result {
        libc::EAGAIN | libc::EINTR => Ok(()),
        code => Err(cut_or(io::Error::from_raw_os_error(code))),
    }
}
