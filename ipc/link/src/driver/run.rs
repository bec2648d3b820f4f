//! The loop of the driver's thread, whichever way bytes are moved. Used by [`crate::driver`]. It must not know sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ringway_ipc::clock::now_ns;
use ringway_ipc::sys::socket::shortest_round_trip_ns;
use ringway_ipc::waiter::{Expectation, SpinPolicy, Spun, WaitMode};

use crate::driver::courtesy::Courtesy;
use crate::driver::epoll::Epoll;
use crate::driver::links::{Carrier, FIRST_PONG_NS};
use crate::driver::uring::Uring;
use crate::driver::{Command, DriverConfig, Path, Shared};
use crate::fault::Ended;
use crate::line::Line;
use crate::session::{News, Session};

/// Turns with work in each before sockets are asked for news.
const TURNS: u32 = 4;

/// Looks for news before the clock is read, where it pays to wait awake.
const EAGER_TURNS: u32 = 4;

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

/// Finds a way to move bytes that works here. `roaming`: whoever drives may be one thread now and another later.
pub(crate) fn make(
    shared: &Arc<Shared>,
    config: &DriverConfig,
    roaming: bool,
) -> io::Result<(Box<dyn Drive>, Path, Option<String>)> {
    let mut why = None;
    if config.path != Path::Epoll {
        match Uring::new(&shared.bell, roaming) {
            Ok(uring) => return Ok((Box::new(Run::new(shared, config, uring)), Path::Uring, None)),
            Err(error) if config.path == Path::Uring => return Err(error),
            Err(error) => why = Some(error.to_string()),
        }
    }
    let epoll = Epoll::new(&shared.bell)?;
    Ok((Box::new(Run::new(shared, config, epoll)), Path::Epoll, why))
}

/// The beginning of the thread: says which way it has found, and runs.
pub(crate) fn run(
    shared: &Arc<Shared>,
    config: &DriverConfig,
    started: &SyncSender<io::Result<(Path, Option<String>)>>,
) {
    match make(shared, config, false) {
        Ok((mut drive, path, why)) => {
            drop(started.send(Ok((path, why))));
            drive_until_stopped(&mut *drive);
        }
        Err(error) => drop(started.send(Err(error))),
    }
}

fn drive_until_stopped(drive: &mut dyn Drive) {
    let policy = SpinPolicy::new(WaitMode::Balanced);
    let expected = Expectation::default();
    let mut turns = 0;
    loop {
        let worked = drive.turn();
        if drive.is_over() {
            return;
        }
        let waited = if worked {
            turns += 1;
            if turns % TURNS != 0 {
                continue;
            }
            drive.wait(Some(Duration::ZERO))
        } else {
            turns = 0;
            let begun = now_ns();
            let spin_ns = policy.plan(expected.ns());
            if spin_ns > 0 {
                let spun = policy.spin_after(EAGER_TURNS, spin_ns, || {
                    drive.look();
                    drive.turn()
                });
                policy.account(spin_ns, spun);
                if spun != Spun::InVain {
                    expected.learn(now_ns() - begun);
                }
                // What came meanwhile may have been the order to stop.
                if spun != Spun::InVain || drive.is_over() {
                    continue;
                }
            }
            drive.ask();
            // Pairs with the fence of whoever publishes: one of the two sees the other.
            fence(Ordering::SeqCst);
            let Some(timeout) = drive.may_sleep() else { continue };
            let waited = drive.wait(timeout);
            expected.learn(now_ns() - begun);
            waited
        };
        if let Err(error) = waited {
            tracing::error!(%error, "cannot wait for links; all of them end");
            return;
        }
    }
}

/// What moves the bytes of all links of a process, step by step.
pub(crate) trait Drive: Send {
    /// Everything that can be done without waiting; says whether there was anything.
    fn turn(&mut self) -> bool;
    /// Looks for news without waiting; says whether there was any.
    fn look(&mut self) -> bool;
    /// Somebody else took the bell's ring back: looks at every ring whose peer may have rung.
    fn rung(&mut self);
    /// Asks all local peers to ring, without a fence.
    fn ask(&mut self);
    /// After a fence: how long to sleep; none if there is something to do.
    fn may_sleep(&mut self) -> Option<Option<Duration>>;
    /// Waits for news, at most so long.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
    /// It was told to stop, and all links are over.
    fn is_over(&self) -> bool;
}

struct Run<M: Mover> {
    shared: Arc<Shared>,
    mover: M,
    carriers: BTreeMap<u64, Carrier<M::State>>,
    watched: BTreeSet<(u64, u32)>,
    news: Vec<Source>,
    ping_ns: u64,
    silence_ns: u64,
    /// When a link is to be looked after next; and whether one just was, so that what it has queued goes out.
    due_ns: u64,
    looked_after: bool,
    freed: u64,
    courtesy: Courtesy,
    stopped: bool,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<M: Mover + Send> Drive for Run<M>
where
    M::State: Send,
{
    fn turn(&mut self) -> bool {
        self.commands();
        let mut worked = false;
        for carrier in self.carriers.values_mut() {
            worked |= turn(&mut self.mover, carrier);
            if carrier.line.session.should_give_way() {
                carrier.line.session.gave_way();
                self.courtesy.give_way();
            }
        }
        self.after_turn();
        worked
    }

    fn look(&mut self) -> bool {
        match self.mover.wait(Some(Duration::ZERO), &mut self.news) {
            Ok(()) => self.note_all(),
            // Whoever waits next hears of it.
            Err(_) => false,
        }
    }

    fn rung(&mut self) {
        self.carriers.values_mut().for_each(|carrier| carrier.line.session.look_everywhere());
    }

    fn ask(&mut self) {
        self.carriers.values_mut().for_each(|carrier| carrier.line.session.ask());
    }

    fn may_sleep(&mut self) -> Option<Option<Duration>> {
        self.how_long()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = self.mover.wait(timeout, &mut self.news);
        if waited.is_err() {
            self.end_all();
            self.carriers.clear();
        }
        self.note_all();
        waited
    }

    fn is_over(&self) -> bool {
        self.stopped && self.carriers.is_empty()
    }
}

impl<M: Mover + Send> Run<M>
where
    M::State: Send,
{
    fn new(shared: &Arc<Shared>, config: &DriverConfig, mover: M) -> Self {
        Self {
            shared: Arc::clone(shared),
            mover,
            carriers: BTreeMap::new(),
            watched: BTreeSet::new(),
            news: Vec::new(),
            ping_ns: nanos(config.ping_every),
            silence_ns: nanos(config.silence_max),
            due_ns: 0,
            looked_after: false,
            freed: 0,
            courtesy: Courtesy::default(),
            stopped: false,
        }
    }

    fn note_all(&mut self) -> bool {
        let news = std::mem::take(&mut self.news);
        let some = !news.is_empty();
        news.iter().for_each(|source| self.note(*source));
        self.news = news;
        self.news.clear();
        some
    }

    fn note(&mut self, source: Source) {
        match source {
            Source::Bell => {
                self.shared.bell.clear();
                self.rung();
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

    fn how_long(&mut self) -> Option<Option<Duration>> {
        let mut may_sleep = true;
        for carrier in self.carriers.values_mut() {
            may_sleep &= carrier.line.session.may_sleep();
        }
        if !may_sleep {
            return None;
        }
        if std::mem::take(&mut self.looked_after) {
            return None;
        }
        let now = now_ns();
        let overflowing = self.carriers.values().any(|carrier| carrier.line.session.overflowing());
        let ends = self.carriers.values().filter_map(|carrier| carrier.ended.as_ref().map(|ended| ended.1));
        let due_ns = ends.fold(self.due_ns, u64::min);
        let due = (!self.carriers.is_empty()).then(|| Duration::from_nanos(due_ns.saturating_sub(now)));
        let short = overflowing.then_some(SLEEP_OVERFLOWING);
        Some(due.into_iter().chain(short).min())
    }

    fn after_turn(&mut self) {
        // What came is told before the end that came behind it.
        let now = now_ns();
        self.tell_news(now);
        if now >= self.due_ns {
            let (ping_ns, silence_ns) = (self.ping_ns, self.silence_ns);
            let due = self.carriers.values_mut().map(|carrier| carrier.tick(now, ping_ns, silence_ns));
            self.due_ns = due.min().unwrap_or(u64::MAX);
            self.looked_after = true;
        }
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
        let freed = self.shared.freed.load(Ordering::Relaxed);
        if freed != self.freed {
            self.freed = freed;
            self.carriers.values().for_each(|carrier| carrier.line.session.retract_freed());
        }
    }

    fn tell_news(&mut self, now_ns: u64) {
        let mut over = Vec::new();
        for carrier in self.carriers.values_mut() {
            if carrier.line.session.was_measured() {
                carrier.line.session.set_network_ns(shortest_round_trip_ns(&carrier.socket));
                carrier.facts.set(carrier.line.session.distance(), carrier.line.session.stats());
            }
            if !carrier.may_tell(now_ns) {
                continue;
            }
            for news in carrier.line.session.take_news() {
                if let News::ChannelOver { number, .. } = news {
                    over.push((carrier.id, number));
                }
                carrier.owner.news(news);
            }
        }
        over.into_iter().for_each(|(link, number)| self.unwatch(link, number));
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
            quiet_until_ns: now_ns() + FIRST_PONG_NS,
            ended: None,
            shut: false,
            hung_up: false,
        };
        if let Err(why) = carrier.line.received(0) {
            carrier.end(why, now_ns());
        }
        self.carriers.insert(link, carrier);
        self.due_ns = 0;
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
