//! The loop of the driver's thread, whichever way bytes are moved. Used by [`crate::driver`]. It must not know sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ringway_ipc::clock::now_ns;

use crate::driver::epoll::Epoll;
use crate::driver::links::Carrier;
use crate::driver::uring::Uring;
use crate::driver::{Command, DriverConfig, Path, Shared};
use crate::fault::Ended;
use crate::line::Line;
use crate::session::{News, Session};

/// Turns with work in each before sockets are asked for news.
const TURNS: u32 = 4;

/// The longest sleep while a local peer has not taken all that is for it.
const SLEEP_OVERFLOWING: Duration = Duration::from_millis(1);

/// Where news came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The doorbell.
    Bell,
    /// The socket of a link.
    Link(u64),
    /// The socket of a channel's local peer.
    Local(u64, u32),
}

/// A way to wait and to move bytes.
pub(crate) trait Mover {
    /// What it keeps for each link.
    type State;
    /// Begins to serve a socket.
    fn attach(&mut self, link: u64, socket: BorrowedFd<'_>) -> io::Result<Self::State>;
    /// Serves a socket no more. The carrier comes along, because the system may still be using its memory.
    fn detach(&mut self, carrier: Carrier<Self::State>);
    /// Waits for a channel's local peer.
    fn watch(&mut self, link: u64, number: u32, socket: BorrowedFd<'_>) -> io::Result<()>;
    /// Waits for it no more. The socket may be closed by now.
    fn unwatch(&mut self, link: u64, number: u32);
    /// Reads what has come; says whether there was anything.
    fn read(&mut self, carrier: &mut Carrier<Self::State>) -> Result<bool, Ended>;
    /// Reads what still comes after the end and drops it; says whether the other end has hung up.
    fn drop_rest(&mut self, carrier: &mut Carrier<Self::State>) -> bool;
    /// Writes what can be written; says whether there was anything.
    fn write(&mut self, carrier: &mut Carrier<Self::State>) -> Result<bool, Ended>;
    /// Waits for news, at most so long.
    fn wait(&mut self, timeout: Option<Duration>, news: &mut Vec<Source>) -> io::Result<()>;
}

/// The beginning of the thread: finds a way that works, says which, and runs.
pub(crate) fn run(
    shared: &Arc<Shared>,
    config: &DriverConfig,
    started: &SyncSender<io::Result<(Path, Option<String>)>>,
) {
    let tell = |outcome| drop(started.send(outcome));
    let mut why = None;
    if config.path != Path::Epoll {
        match Uring::new(&shared.bell) {
            Ok(uring) => {
                tell(Ok((Path::Uring, None)));
                return Run::new(shared, config, uring).run();
            }
            Err(error) if config.path == Path::Uring => return tell(Err(error)),
            Err(error) => why = Some(error.to_string()),
        }
    }
    match Epoll::new(&shared.bell) {
        Ok(epoll) => {
            tell(Ok((Path::Epoll, why)));
            Run::new(shared, config, epoll).run();
        }
        Err(error) => tell(Err(error)),
    }
}

struct Run<'a, M: Mover> {
    shared: &'a Shared,
    mover: M,
    carriers: BTreeMap<u64, Carrier<M::State>>,
    watched: BTreeSet<(u64, u32)>,
    ping_ns: u64,
    silence_ns: u64,
    freed: u64,
    stopped: bool,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a, M: Mover> Run<'a, M> {
    fn new(shared: &'a Shared, config: &DriverConfig, mover: M) -> Self {
        Self {
            shared,
            mover,
            carriers: BTreeMap::new(),
            watched: BTreeSet::new(),
            ping_ns: nanos(config.ping_every),
            silence_ns: nanos(config.silence_max),
            freed: 0,
            stopped: false,
        }
    }

    fn run(mut self) {
        let mut news = Vec::new();
        let mut turns = 0;
        loop {
            self.commands();
            let mut worked = false;
            for carrier in self.carriers.values_mut() {
                worked |= turn(&mut self.mover, carrier);
            }
            self.after_turn();
            if self.stopped && self.carriers.is_empty() {
                return;
            }
            let timeout = if worked {
                turns += 1;
                if turns % TURNS != 0 {
                    continue;
                }
                Some(Duration::ZERO)
            } else {
                turns = 0;
                let Some(timeout) = self.before_sleep() else { continue };
                timeout
            };
            if let Err(error) = self.mover.wait(timeout, &mut news) {
                tracing::error!(%error, "cannot wait for links; all of them end");
                self.end_all();
                self.carriers.clear();
                return;
            }
            for source in news.drain(..) {
                self.note(source);
            }
        }
    }

    fn note(&mut self, source: Source) {
        match source {
            Source::Bell => {
                self.shared.bell.clear();
                self.carriers.values_mut().for_each(|carrier| carrier.line.session.look_everywhere());
            }
            // Its turn comes anyway.
            Source::Link(_) => {}
            Source::Local(link, number) => {
                if let Some(carrier) = self.carriers.get_mut(&link) {
                    carrier.line.session.local_news(number);
                }
            }
        }
    }

    /// Asks all local peers to ring, and says how long to sleep; none if there is something to do.
    fn before_sleep(&mut self) -> Option<Option<Duration>> {
        self.carriers.values_mut().for_each(|carrier| carrier.line.session.ask());
        // Pairs with the fence of whoever publishes: one of the two sees the other.
        fence(Ordering::SeqCst);
        let mut may_sleep = true;
        for carrier in self.carriers.values_mut() {
            may_sleep &= carrier.line.session.may_sleep();
        }
        if !may_sleep {
            return None;
        }
        let now = now_ns();
        let mut due = u64::MAX;
        let mut overflowing = false;
        for carrier in self.carriers.values_mut() {
            due = due.min(carrier.tick(now, self.ping_ns, self.silence_ns));
            overflowing |= carrier.line.session.overflowing();
        }
        let due = (due != u64::MAX).then(|| Duration::from_nanos(due.saturating_sub(now)));
        let short = overflowing.then_some(SLEEP_OVERFLOWING);
        // A ping that has just been queued has to go out first.
        if self.carriers.values().any(|carrier| carrier.ping_at_ns >= now + self.ping_ns) {
            return Some(Some(Duration::ZERO));
        }
        Some(due.into_iter().chain(short).min())
    }

    fn after_turn(&mut self) {
        let now = now_ns();
        let done = self.carriers.values().filter(|carrier| carrier.is_done(now));
        let done: Vec<u64> = done.map(|carrier| carrier.id).collect();
        for id in done {
            let Some(carrier) = self.carriers.remove(&id) else { continue };
            let gone: Vec<(u64, u32)> = self.watched.range((id, 0)..=(id, u32::MAX)).copied().collect();
            gone.into_iter().for_each(|(link, number)| self.unwatch(link, number));
            let owner = Arc::clone(&carrier.owner);
            carrier.facts.set(carrier.line.session.distance(), carrier.line.session.stats());
            if let Some((why, _)) = &carrier.ended {
                tracing::debug!(link = id, %why, "a link is over");
                owner.over(why);
            }
            self.mover.detach(carrier);
        }
        let mut over = Vec::new();
        for carrier in self.carriers.values_mut() {
            for news in carrier.line.session.take_news() {
                if let News::ChannelOver { number, .. } = news {
                    over.push((carrier.id, number));
                }
                carrier.owner.news(news);
            }
        }
        over.into_iter().for_each(|(link, number)| self.unwatch(link, number));
        let freed = self.shared.freed.load(Ordering::Relaxed);
        if freed != self.freed {
            self.freed = freed;
            self.carriers.values().for_each(|carrier| carrier.line.session.retract_freed());
        }
    }

    fn unwatch(&mut self, link: u64, number: u32) {
        if self.watched.remove(&(link, number)) {
            self.mover.unwatch(link, number);
        }
    }

    fn end_all(&mut self) {
        let now = now_ns();
        self.carriers.values_mut().for_each(|carrier| carrier.end(Ended::Local, now));
    }

    fn commands(&mut self) {
        for command in self.shared.take() {
            match command {
                Command::Add { link, socket, tls, owner, facts } => self.add(link, socket, tls, owner, facts),
                Command::AddChannel { link, number, opening, role, gate, first } => {
                    let Some(carrier) = self.carriers.get_mut(&link) else { continue };
                    let session = &mut carrier.line.session;
                    if carrier.ended.is_some() || !session.add(number, *opening, role, gate, first) {
                        tracing::warn!(link, number, "a channel was not added to a link");
                        continue;
                    }
                    let Some(socket) = session.socket_of(number) else { continue };
                    match self.mover.watch(link, number, socket) {
                        Ok(()) => drop(self.watched.insert((link, number))),
                        Err(error) => tracing::error!(%error, "cannot wait for a channel of a link"),
                    }
                    // Its local peer may be there already.
                    session.local_news(number);
                }
                Command::CloseChannel { link, number, reason } => {
                    if let Some(carrier) = self.carriers.get_mut(&link) {
                        carrier.line.session.close(number, reason);
                    }
                }
                Command::Message { link, topic, bytes } => {
                    let Some(carrier) = self.carriers.get_mut(&link) else { continue };
                    if carrier.ended.is_none()
                        && let Err(fault) = carrier.line.session.message(topic, bytes)
                    {
                        carrier.end(fault.into(), now_ns());
                    }
                }
                Command::Close { link } => {
                    if let Some(carrier) = self.carriers.get_mut(&link) {
                        carrier.end(Ended::Local, now_ns());
                    }
                }
                Command::Stop => {
                    self.stopped = true;
                    self.end_all();
                }
            }
        }
    }

    fn add(
        &mut self,
        link: u64,
        socket: OwnedFd,
        tls: Option<Box<rustls::Connection>>,
        owner: Arc<dyn crate::driver::Owner>,
        facts: Arc<crate::driver::Facts>,
    ) {
        let state = match self.mover.attach(link, socket.as_fd()) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(%error, fd = socket.as_raw_fd(), "cannot serve the socket of a link");
                return owner.over(&Ended::Socket(error));
            }
        };
        let line = Line::new(Session::new(Arc::clone(&self.shared.arena)), tls.map(|tls| *tls));
        let mut carrier = Carrier {
            id: link,
            line,
            socket,
            owner,
            facts,
            state,
            ping_at_ns: 0,
            ended: None,
            shut: false,
            hung_up: false,
        };
        if let Err(why) = carrier.line.received(0) {
            carrier.end(why, now_ns());
        }
        self.carriers.insert(link, carrier);
    }
}

/// Everything of one link that can be done without waiting.
fn turn<M: Mover>(mover: &mut M, carrier: &mut Carrier<M::State>) -> bool {
    let mut worked = false;
    if carrier.ended.is_none() {
        match mover.read(carrier) {
            Ok(some) => worked = some,
            Err(why) => {
                carrier.end(why, now_ns());
                return true;
            }
        }
        worked |= carrier.line.session.pump();
    } else {
        carrier.shut();
        if !carrier.hung_up {
            carrier.hung_up = mover.drop_rest(carrier);
        }
    }
    match mover.write(carrier) {
        Ok(some) => worked | some,
        Err(why) => {
            carrier.end(why, now_ns());
            if let Some((_, until_ns)) = &mut carrier.ended {
                *until_ns = 0;
            }
            true
        }
    }
}
