//! The thread between links and the engine: reads what remote workers say and what the engine answers, and has each passed
//! on by its proxy. Used by [`crate::links`]. It must not know what messages mean.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use ringway_access::Peer;
use ringway_ipc::packet::PacketStream;
use ringway_link::News;
use ringway_link::driver::{Driver, Link, Owner};
use ringway_link::fault::Ended;

use crate::callable::Callable;
use crate::proxy::Proxy;

const WAKER: Token = Token(0);

/// How often links are looked at whose credentials end at a time.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);

/// What the thread is told.
pub(crate) enum Command {
    /// Somebody was let in.
    Arrived {
        socket: OwnedFd,
        tls: Option<Box<rustls::Connection>>,
        peer: Box<Peer>,
    },
    News {
        link: usize,
        news: News,
    },
    Over {
        link: usize,
        why: String,
    },
    Stop,
}

/// A link and who is at its other end, for people.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) link: Link,
}

/// What the thread and its handles share.
pub(crate) struct Shared {
    inbox: Mutex<Vec<Command>>,
    waker: Waker,
    pub(crate) known: Mutex<BTreeMap<usize, Known>>,
}

impl Shared {
    pub(crate) fn tell(&self, command: Command) {
        self.inbox.lock().push(command);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the gateway of links");
        }
    }
}

struct Ear {
    link: usize,
    shared: Arc<Shared>,
}

impl Owner for Ear {
    fn news(&self, news: News) {
        if matches!(news, News::Message { .. }) {
            self.shared.tell(Command::News { link: self.link, news });
        }
    }

    fn over(&self, why: &Ended) {
        self.shared.tell(Command::Over { link: self.link, why: why.to_string() });
    }
}

struct Entry {
    proxy: Proxy,
    name: String,
    expires_s: Option<u64>,
}

/// See the module.
pub(crate) struct Gateway {
    poll: Poll,
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    engine: String,
    entries: BTreeMap<usize, Entry>,
    next: usize,
    stopped: bool,
}

impl Gateway {
    pub(crate) fn new(driver: Arc<Driver>, engine: &str) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Arc::new(Shared { inbox: Mutex::default(), waker, known: Mutex::default() });
        Ok(Self {
            poll,
            shared,
            driver,
            engine: engine.to_owned(),
            entries: BTreeMap::new(),
            next: 1,
            stopped: false,
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stopped {
            let expire = self.entries.values().any(|entry| entry.expires_s.is_some());
            match self.poll.poll(&mut events, expire.then_some(EXPIRY_EVERY)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the gateway of links cannot wait");
                    break;
                }
            }
            let commands = std::mem::take(&mut *self.shared.inbox.lock());
            commands.into_iter().for_each(|command| self.carry_out(command));
            for event in &events {
                let Token(link) = event.token();
                if event.token() != WAKER {
                    self.read_engine(link);
                }
            }
            self.flush();
            if expire {
                self.expire();
            }
        }
        let links: Vec<usize> = self.entries.keys().copied().collect();
        links.into_iter().for_each(|link| self.remove(link, "the engine stops"));
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Arrived { socket, tls, peer } => self.arrived(socket, tls.map(|tls| *tls), *peer),
            Command::News { link, news: News::Message { topic, bytes } } => {
                let Some(entry) = self.entries.get_mut(&link) else { return };
                if let Err(error) = entry.proxy.take_from_worker(topic, &bytes) {
                    self.remove(link, &error.to_string());
                }
            }
            Command::News { .. } => {}
            Command::Over { link, why } => self.remove(link, &why),
            Command::Stop => self.stopped = true,
        }
    }

    fn arrived(&mut self, socket: OwnedFd, tls: Option<rustls::Connection>, peer: Peer) {
        let stream = match PacketStream::connect(&self.engine) {
            Ok(stream) => stream,
            Err(error) => {
                return tracing::error!(%error, "cannot attach a remote worker: the engine does not answer");
            }
        };
        let link = self.next;
        self.next += 1;
        let fd = stream.as_fd().as_raw_fd();
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), Token(link), both) {
            return tracing::error!(%error, "cannot wait for the engine");
        }
        let name = peer.introduction.name.clone();
        let worker = peer.introduction.id;
        tracing::info!(%worker, name, identity = ?peer.identity, "a remote worker is linked");
        let owner = Arc::new(Ear { link, shared: Arc::clone(&self.shared) });
        let carried = self.driver.add(socket, tls, owner);
        self.shared.known.lock().insert(link, Known { name: name.clone(), link: carried.clone() });
        let proxy = Proxy::new(worker, carried, stream, Callable::new(peer.grant));
        self.entries.insert(link, Entry { proxy, name, expires_s: peer.expires_s });
    }

    fn read_engine(&mut self, link: usize) {
        let Some(entry) = self.entries.get_mut(&link) else { return };
        match entry.proxy.read_engine() {
            Ok(true) => {}
            Ok(false) => self.remove(link, "the engine closed its attach"),
            Err(error) => self.remove(link, &error.to_string()),
        }
    }

    fn flush(&mut self) {
        let mut failed = Vec::new();
        for (link, entry) in &mut self.entries {
            if entry.proxy.stream.wants_write()
                && let Err(error) = entry.proxy.stream.flush()
            {
                tracing::debug!(%error, "cannot send to the engine");
                failed.push(*link);
            }
        }
        for link in failed {
            // What the engine said last, such as a refusal, may still be there.
            self.read_engine(link);
            self.remove(link, "the engine closed its attach");
        }
    }

    fn expire(&mut self) {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let late = self.entries.iter().filter(|(_, entry)| entry.expires_s.is_some_and(|at| at <= now_s));
        let late: Vec<usize> = late.map(|(link, _)| *link).collect();
        late.into_iter().for_each(|link| self.remove(link, "its credentials have expired"));
    }

    /// Ends a link and the attach with it: the engine sees a worker that left without a goodbye.
    fn remove(&mut self, link: usize, why: &str) {
        let Some(entry) = self.entries.remove(&link) else { return };
        tracing::info!(worker = %entry.proxy.worker, name = entry.name, why, "a remote worker is gone");
        self.shared.known.lock().remove(&link);
        let fd = entry.proxy.stream.as_fd().as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            tracing::debug!(%error, "cannot stop waiting for the engine");
        }
        entry.proxy.link.close();
    }
}
