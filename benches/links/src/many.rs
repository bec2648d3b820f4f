//! Many links served by one thread on either side, one frame under way on each: where one system call may do the work of
//! several.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::event::epoll;

use crate::frames::{Asking, READ, Sample, Window};
use crate::raw::{Kind, Receive, Send, Setup, Uring};
use crate::runtimes::{Tokio, TokioUring};
use crate::sockets::Patience;

/// Links of either thread.
pub(crate) const LINKS: usize = 32;
/// Bytes that a link sends or receives at once, at most.
const PART: usize = 4096;

/// How frames travel over many links.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ManyHow {
    /// One `epoll_wait`, then a `recv` and a `send` for each link that has something.
    Epoll(Patience),
    /// One ring for all, with multishot receives or single ones.
    Uring(Setup, bool),
    /// tokio.
    Tokio,
    /// tokio-uring.
    TokioUring,
}

impl ManyHow {
    /// Makes the asking side.
    pub(crate) fn asking(self, streams: Vec<TcpStream>) -> anyhow::Result<Box<dyn Asking>> {
        Ok(match self {
            Self::Epoll(patience) => Box::new(Rounds(Watched::new(streams, patience)?)),
            Self::Uring(setup, multishot) => Box::new(Rounds(Ringed::new(streams, setup, multishot)?)),
            Self::Tokio => Box::new(Tokio::new(streams)?),
            Self::TokioUring => Box::new(TokioUring::new(streams)?),
        })
    }

    /// Answers until the streams end, having called `ready` once all is set up.
    pub(crate) fn answer(self, streams: Vec<TcpStream>, ready: impl FnOnce()) -> anyhow::Result<()> {
        match self {
            Self::Epoll(patience) => {
                let links = Watched::new(streams, patience)?;
                ready();
                Ok(echo(links)?)
            }
            Self::Uring(setup, multishot) => {
                let links = Ringed::new(streams, setup, multishot)?;
                ready();
                Ok(echo(links)?)
            }
            Self::Tokio => {
                let links = Tokio::new(streams)?;
                ready();
                links.echo()
            }
            Self::TokioUring => {
                let links = TokioUring::new(streams)?;
                ready();
                links.echo()
            }
        }
    }
}

/// Streams that one thread talks over, one round at a time.
trait Links {
    /// Sends `out` of each link that has some, empties it, waits until something has arrived anywhere and shows all of
    /// that to `take`. Returns whether the streams are still open.
    fn round(&mut self, out: &mut [Vec<u8>], take: &mut dyn FnMut(usize, &[u8])) -> io::Result<bool>;
}

/// The asking side.
struct Rounds<L>(L);

impl<L: Links> Asking for Rounds<L> {
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample> {
        let windows = std::iter::repeat_with(|| Window::new(time)).take(LINKS);
        let mut windows = windows.collect::<anyhow::Result<Vec<_>>>()?;
        let (mut out, mut next) = (vec![Vec::new(); LINKS], vec![Vec::new(); LINKS]);
        for (frames, out) in windows.iter_mut().zip(&mut out) {
            frames.ask(window, Instant::now(), out);
        }
        while !windows.iter().all(Window::is_done) {
            let take = &mut |link: usize, bytes: &[u8]| windows[link].arrived(bytes, &mut next[link]);
            ensure!(self.0.round(&mut out, take)?, "the answering side left");
            std::mem::swap(&mut out, &mut next);
        }
        Sample::together(windows.into_iter().map(Window::finish).collect::<anyhow::Result<_>>()?)
    }
}

/// The answering side.
fn echo(mut links: impl Links) -> io::Result<()> {
    let (mut out, mut next) = (vec![Vec::new(); LINKS], vec![Vec::new(); LINKS]);
    while links.round(&mut out, &mut |link, bytes| next[link].extend_from_slice(bytes))? {
        std::mem::swap(&mut out, &mut next);
    }
    Ok(())
}

/// `epoll_wait`, by level.
struct Watched {
    streams: Vec<TcpStream>,
    epoll: OwnedFd,
    patience: Patience,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Watched {
    fn new(streams: Vec<TcpStream>, patience: Patience) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (link, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, stream, epoll::EventData::new_u64(link as u64), epoll::EventFlags::IN)?;
        }
        Ok(Self { streams, epoll, patience, events: Vec::with_capacity(LINKS), buffer: vec![0; READ] })
    }
}

impl Links for Watched {
    fn round(&mut self, out: &mut [Vec<u8>], take: &mut dyn FnMut(usize, &[u8])) -> io::Result<bool> {
        for (stream, out) in self.streams.iter_mut().zip(out) {
            if !out.is_empty() {
                stream.write_all(out)?;
                out.clear();
            }
        }
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = (self.patience == Patience::Spinning).then_some(&now);
        self.events.clear();
        while self.events.is_empty() {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), time) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for event in &self.events {
            let link = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
            match self.streams[link].read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(0) => return Ok(false),
                Ok(count) => take(link, &self.buffer[..count]),
            }
        }
        Ok(true)
    }
}

/// One ring: all sends of a round, and all single receives, in one system call with the waiting.
struct Ringed {
    uring: Uring,
    multishot: bool,
    armed: Vec<bool>,
}

impl Ringed {
    fn new(streams: Vec<TcpStream>, setup: Setup, multishot: bool) -> io::Result<Self> {
        // Two regions for each link: what leaves, what arrives.
        let mut uring = Uring::new(streams, setup, &[PART; 2 * LINKS], false)?;
        if multishot {
            uring.provide(256, PART)?;
        }
        Ok(Self { uring, multishot, armed: vec![false; LINKS] })
    }
}

impl Links for Ringed {
    fn round(&mut self, out: &mut [Vec<u8>], take: &mut dyn FnMut(usize, &[u8])) -> io::Result<bool> {
        let (mut sending, mut received) = (0, false);
        for (link, out) in out.iter_mut().enumerate().filter(|(_, out)| !out.is_empty()) {
            self.uring.bytes_mut(2 * link)[..out.len()].copy_from_slice(out);
            self.uring.send(link, 2 * link, 0..out.len(), Send::Copy)?;
            out.clear();
            sending += 1;
        }
        while sending > 0 || !received {
            for (link, armed) in self.armed.iter_mut().enumerate().filter(|(_, armed)| !**armed) {
                if self.multishot {
                    self.uring.receive_on(link, false)?;
                } else {
                    self.uring.receive(link, 2 * link + 1, 0..PART, Receive::Some)?;
                }
                *armed = true;
            }
            self.uring.wait(sending + usize::from(!received))?;
            while let Some(completion) = self.uring.next() {
                if completion.kind == Kind::Send {
                    completion.bytes()?;
                    sending -= 1;
                    continue;
                }
                let link = completion.link;
                self.armed[link] = completion.goes_on;
                if completion.found_no_buffer() {
                    continue;
                }
                let count = completion.bytes()?;
                if count == 0 {
                    return Ok(false);
                }
                match completion.buffer {
                    Some(buffer) => {
                        take(link, self.uring.provided(buffer, count));
                        self.uring.give_back(buffer);
                    }
                    None => take(link, &self.uring.bytes(2 * link + 1)[..count]),
                }
                received = true;
            }
        }
        Ok(true)
    }
}
