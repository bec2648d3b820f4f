//! Links that call `send` and `recv` themselves: blocking (the floor), spinning, and after `epoll_wait` through mio and
//! through rustix.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::event::epoll;
use rustix::event::{PollFd, PollFlags, poll};

use crate::frames::{Link, READ};

/// Waits in `recv`.
pub(crate) struct Blocking {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Blocking {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; READ] }
    }
}

impl Link for Blocking {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        self.stream.write_all(out)?;
        let count = self.stream.read(&mut self.buffer)?;
        take(&self.buffer[..count]);
        Ok(count > 0)
    }
}

/// Calls `recv` until there is something.
pub(crate) struct Spinning {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Spinning {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: vec![0; READ] })
    }
}

impl Link for Spinning {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        self.stream.write_all(out)?;
        loop {
            match self.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error),
                Ok(count) => {
                    take(&self.buffer[..count]);
                    return Ok(count > 0);
                }
            }
        }
    }
}

/// mio: edges, one event loop per link.
pub(crate) struct Mio {
    stream: mio::net::TcpStream,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    /// Whether the last read filled the buffer: then no edge need come.
    more: bool,
}

impl Mio {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        let poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::READABLE)?;
        Ok(Self { stream, poll, events: Events::with_capacity(8), buffer: vec![0; READ], more: true })
    }
}

impl Link for Mio {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        self.stream.write_all(out)?;
        loop {
            if !self.more {
                self.poll.poll(&mut self.events, None::<Duration>)?;
            }
            match self.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.more = false,
                Err(error) => return Err(error),
                Ok(count) => {
                    self.more = count == self.buffer.len();
                    take(&self.buffer[..count]);
                    return Ok(count > 0);
                }
            }
        }
    }
}

/// How long a thread asks `epoll_wait` again and again before it sleeps in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    Asleep,
    /// For so long.
    Spin(Duration),
    /// For ever.
    Spinning,
}

impl Patience {
    /// Waits until a watched socket has something.
    fn wait(self, watching: &OwnedFd) -> io::Result<()> {
        let started = Instant::now();
        loop {
            match self {
                Self::Spin(time) if started.elapsed() < time => {}
                Self::Spinning => {}
                Self::Asleep | Self::Spin(_) => return wait(watching),
            }
            if look(watching)? {
                return Ok(());
            }
        }
    }
}

/// `epoll_wait` itself: levels, so that one read per wake-up is enough.
pub(crate) struct Epoll {
    stream: TcpStream,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    patience: Patience,
}

impl Epoll {
    pub(crate) fn new(stream: TcpStream, patience: Patience) -> io::Result<Self> {
        let epoll = watch(&stream)?;
        Ok(Self { stream, epoll, buffer: vec![0; READ], patience })
    }
}

impl Link for Epoll {
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        self.stream.write_all(out)?;
        loop {
            self.patience.wait(&self.epoll)?;
            match self.stream.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    take(&self.buffer[..count]);
                    return Ok(count > 0);
                }
            }
        }
    }
}

/// Makes a socket non-blocking and returns an epoll that watches what it brings, by level.
pub(crate) fn watch(stream: &TcpStream) -> io::Result<OwnedFd> {
    stream.set_nonblocking(true)?;
    let watching = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&watching, stream, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    Ok(watching)
}

/// Waits until a watched socket has something.
pub(crate) fn wait(watching: &OwnedFd) -> io::Result<()> {
    let mut event = [const { std::mem::MaybeUninit::uninit() }; 1];
    loop {
        match epoll::wait(watching, &mut event, None) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(drop).map_err(Into::into),
        }
    }
}

/// Returns whether a watched socket has something, without waiting.
fn look(watching: &OwnedFd) -> io::Result<bool> {
    let mut event = [const { std::mem::MaybeUninit::uninit() }; 1];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let (events, _) = epoll::wait(watching, &mut event, Some(&now))?;
    Ok(!events.is_empty())
}

/// Reads exactly so much from a socket, whether it blocks or not. Returns whether it did not end before.
pub(crate) fn read_exact(mut stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stream, PollFlags::IN)], None)?;
            }
            Err(error) => return Err(error),
            Ok(0) => return Ok(false),
            Ok(count) => buffer = &mut buffer[count..],
        }
    }
    Ok(true)
}
