//! Moving bytes by epoll: mio waits, edge-triggered, and each socket is read and written until it would block. Used by
//! [`super::run`]. It must not know what the bytes are.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use ringway_ipc::doorbell::Doorbell;
use rustix::net::{RecvFlags, SendFlags};

use crate::driver::links::Carrier;
use crate::driver::run::{Mover, Source};
use crate::fault::Ended;

const BELL: Token = Token(0);

/// Reads of one socket before others have their turn.
const READS: usize = 8;

/// Whether a socket may have something to read and room to write.
#[derive(Debug)]
pub(crate) struct Readiness {
    key: usize,
    readable: bool,
    writable: bool,
    /// The other end sends no more: what it sent before is read to its end.
    hung_up: bool,
}

/// News of a socket since its last turn.
#[derive(Debug, Default, Clone, Copy)]
struct Edge {
    readable: bool,
    writable: bool,
    hung_up: bool,
}

/// See the module.
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    /// What a token stands for, and the descriptor.
    sources: HashMap<usize, (Source, RawFd)>,
    next: usize,
    ready: HashMap<usize, Edge>,
    _bell: Doorbell,
}

impl Epoll {
    pub(crate) fn new(bell: &Doorbell) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&bell.as_fd().as_raw_fd()), BELL, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            sources: HashMap::new(),
            next: 1,
            ready: HashMap::new(),
            _bell: bell.clone(),
        })
    }

    fn register(&mut self, source: Source, fd: RawFd, interest: Interest) -> io::Result<usize> {
        let key = self.next;
        self.next += 1;
        self.poll.registry().register(&mut SourceFd(&fd), Token(key), interest)?;
        self.sources.insert(key, (source, fd));
        Ok(key)
    }

    /// What is known of a socket since its last turn, also after its link's end: what was queued before still goes.
    fn take_edge(&mut self, carrier: &mut Carrier<Readiness>) {
        if let Some(edge) = self.ready.remove(&carrier.state.key) {
            carrier.state.readable |= edge.readable;
            carrier.state.writable |= edge.writable;
            carrier.state.hung_up |= edge.hung_up;
        }
    }

    fn deregister(&mut self, key: usize) {
        self.ready.remove(&key);
        if let Some((_, fd)) = self.sources.remove(&key)
            && let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd))
        {
            // A socket that is closed is out of the wait set already.
            tracing::trace!(%error, "a socket of a link was gone first");
        }
    }
}

impl Mover for Epoll {
    type State = Readiness;

    fn attach(&mut self, link: u64, socket: BorrowedFd<'_>) -> io::Result<Readiness> {
        rustix::io::ioctl_fionbio(socket, true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        let key = self.register(Source::Link(link), socket.as_raw_fd(), both)?;
        Ok(Readiness { key, readable: true, writable: true, hung_up: false })
    }

    fn detach(&mut self, carrier: Carrier<Readiness>) {
        self.deregister(carrier.state.key);
    }

    fn watch(&mut self, link: u64, number: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.register(Source::Local(link, number), socket.as_raw_fd(), Interest::READABLE).map(drop)
    }

    fn unwatch(&mut self, link: u64, number: u32) {
        let wanted = Source::Local(link, number);
        let key = self.sources.iter().find(|(_, (source, _))| *source == wanted).map(|(key, _)| *key);
        if let Some(key) = key {
            // The descriptor is closed by now, and may be another's already: closing took it out of the wait set.
            self.sources.remove(&key);
        }
    }

    fn read(&mut self, carrier: &mut Carrier<Readiness>) -> Result<bool, Ended> {
        self.take_edge(carrier);
        let mut worked = false;
        for _ in 0..READS {
            if !carrier.state.readable {
                break;
            }
            let mut spaces = carrier.line.spaces();
            let wanted: usize = spaces.iter().map(|space| space.len()).sum();
            let read = if spaces[1].is_empty() {
                rustix::net::recv(&carrier.socket, &mut *spaces[0], RecvFlags::empty())
                    .map(|(count, _)| count)
            } else {
                rustix::io::readv(&carrier.socket, &mut spaces)
            };
            match read {
                Ok(0) => return Err(Ended::Cut),
                Ok(count) => {
                    // Less than there was room for: there is no more, and an edge tells when there is.
                    carrier.state.readable = count == wanted || carrier.state.hung_up;
                    carrier.line.received(count)?;
                    worked = true;
                    if carrier.line.session.should_give_way() {
                        break;
                    }
                }
                Err(error) => match io::Error::from(error) {
                    error if error.kind() == ErrorKind::WouldBlock => carrier.state.readable = false,
                    error if error.kind() == ErrorKind::Interrupted => {}
                    error => return Err(cut_or(error)),
                },
            }
        }
        Ok(worked)
    }

    fn drop_rest(&mut self, carrier: &mut Carrier<Readiness>) -> bool {
        let mut rest = [0; 4096];
        loop {
            match rustix::net::recv(&carrier.socket, &mut rest, RecvFlags::empty()) {
                Ok((0, _)) => return true,
                Ok(_) => {}
                Err(error) => return io::Error::from(error).kind() != ErrorKind::WouldBlock,
            }
        }
    }

    fn write(&mut self, carrier: &mut Carrier<Readiness>) -> Result<bool, Ended> {
        self.take_edge(carrier);
        let mut worked = false;
        while carrier.state.writable && carrier.line.load() {
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(4);
            carrier.line.slices(&mut slices);
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = if let [only] = slices[..] {
                rustix::net::send(&carrier.socket, &only, SendFlags::NOSIGNAL)
            } else {
                let mut none = rustix::net::SendAncillaryBuffer::default();
                rustix::net::sendmsg(&carrier.socket, &slices, &mut none, SendFlags::NOSIGNAL)
            };
            match sent {
                Ok(count) => {
                    drop(slices);
                    carrier.line.sent(count);
                    carrier.state.writable = count == wanted;
                    worked = true;
                    if carrier.line.session.should_give_way() {
                        break;
                    }
                }
                Err(error) => match io::Error::from(error) {
                    error if error.kind() == ErrorKind::WouldBlock => carrier.state.writable = false,
                    error if error.kind() == ErrorKind::Interrupted => {}
                    error => return Err(cut_or(error)),
                },
            }
        }
        Ok(worked)
    }

    fn wait(&mut self, timeout: Option<Duration>, news: &mut Vec<Source>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let Token(key) = event.token();
            if event.token() == BELL {
                news.push(Source::Bell);
            } else if let Some((source, _)) = self.sources.get(&key) {
                if let Source::Link(_) = source {
                    let edge = self.ready.entry(key).or_default();
                    edge.hung_up |= event.is_read_closed() || event.is_error();
                    edge.readable |= event.is_readable() || edge.hung_up;
                    edge.writable |= event.is_writable() || event.is_error();
                }
                news.push(*source);
            }
        }
        Ok(())
    }
}

/// What a failing socket means.
pub(crate) fn cut_or(error: io::Error) -> Ended {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Ended::Cut,
        _ => Ended::Socket(error),
    }
}
