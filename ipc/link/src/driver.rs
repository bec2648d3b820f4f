//! The thread that moves bytes between sockets and rings, for all links of a process. Used by whoever owns links: it hands
//! over sockets that have been greeted, and channels to carry, and hears of messages and ends. It must not know what messages
//! say.
//!
//! One thread serves all, so that a link and the channels it carries need no locks between them. It sleeps in one wait for
//! sockets and for the doorbell that local peers ring. Two ways to wait and to move bytes are built in ([`Path`]); which one
//! works here is found out by trying ([`probe`]).

mod courtesy;
mod epoll;
mod links;
mod run;
mod uring;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::{CloseReason, Opening, Role};
use ringway_ipc::doorbell::Doorbell;

use crate::clock::Distance;
use crate::fault::Ended;
use crate::session::{LinkStats, News};
use crate::tunnel::Gate;

pub use uring::probe;

/// How bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Path {
    /// By `io_uring` where the system allows it, else by epoll.
    #[default]
    Probe,
    /// By `io_uring`, or not at all.
    Uring,
    /// By epoll.
    Epoll,
}

impl Path {
    /// The word for it in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// The way that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Probe, Self::Uring, Self::Epoll].into_iter().find(|path| path.as_str() == word)
    }
}

/// What a driver is made of.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// How bytes are moved.
    pub path: Path,
    /// Where payloads lie that came over links.
    pub arena: ArenaConfig,
    /// How often the other end is asked whether it is there, which also measures how far away it is.
    pub ping_every: Duration,
    /// A link from which nothing came for so long is taken for dead.
    pub silence_max: Duration,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            path: Path::default(),
            arena: ArenaConfig { label: "ringway-link".to_owned(), ..ArenaConfig::default() },
            ping_every: Duration::from_millis(500),
            silence_max: Duration::from_millis(2500),
        }
    }
}

/// Hears of a link. Called on the driver's thread, so an implementation must be quick and must not wait for the driver.
pub trait Owner: Send + Sync {
    /// Something came or ended.
    fn news(&self, news: News);
    /// The link is over; nothing follows.
    fn over(&self, why: &Ended);
}

/// What the driver's thread is asked.
pub(crate) enum Command {
    Add {
        link: u64,
        socket: OwnedFd,
        tls: Option<Box<rustls::Connection>>,
        owner: Arc<dyn Owner>,
        facts: Arc<Facts>,
    },
    AddChannel {
        link: u64,
        number: u32,
        opening: Box<Opening>,
        role: Role,
        gate: Arc<dyn Gate>,
        first: bool,
    },
    CloseChannel {
        link: u64,
        number: u32,
        reason: CloseReason,
    },
    Message {
        link: u64,
        topic: u64,
        bytes: Vec<u8>,
    },
    Close {
        link: u64,
    },
    Stop,
}

/// What the thread and its handles share.
pub(crate) struct Shared {
    inbox: Mutex<Vec<Command>>,
    pub(crate) bell: Doorbell,
    pub(crate) arena: Arc<Arena>,
    /// Segments of the arena that went back to the system.
    pub(crate) freed: Arc<AtomicU64>,
    next_link: AtomicU64,
}

impl Shared {
    fn ask(&self, command: Command) {
        self.inbox.lock().push(command);
        self.bell.notify();
    }

    pub(crate) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.inbox.lock())
    }
}

/// Numbers of a link for other threads to read.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    round_trip_ns: AtomicU64,
    offset_ns: AtomicI64,
    stats: Mutex<LinkStats>,
}

impl Facts {
    pub(crate) fn set(&self, distance: Distance, stats: LinkStats) {
        self.round_trip_ns.store(distance.round_trip_ns, Ordering::Relaxed);
        self.offset_ns.store(distance.offset_ns, Ordering::Relaxed);
        *self.stats.lock() = stats;
    }
}

/// The handle of a driver. Dropping it ends all of its links and the thread.
pub struct Driver {
    shared: Arc<Shared>,
    path: Path,
    why: Option<String>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread, descriptors, or `io_uring` where nothing else is allowed.
    pub fn start(config: DriverConfig) -> std::io::Result<Self> {
        let shared = Self::shared(&config, Doorbell::new()?);
        let thread = std::thread::Builder::new().name("ringway-link".to_owned());
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let run = Arc::clone(&shared);
        // The ring of io_uring belongs to the thread that makes it.
        let thread = thread.spawn(move || run::run(&run, &config, &ready))?;
        let (path, why) = started.recv().map_err(|_| std::io::Error::other("the link thread ended"))??;
        Ok(Self { shared, path, why, thread: Mutex::new(Some(thread)) })
    }

    /// Makes a driver without a thread, for a thread that has rings of its own to look at: `bell` is the one that it sleeps by.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn without_thread(config: &DriverConfig, bell: Doorbell) -> std::io::Result<(Self, Pump)> {
        let shared = Self::shared(config, bell);
        let (drive, path, why) = run::make(&shared, config, true)?;
        Ok((Self { shared, path, why, thread: Mutex::new(None) }, Pump { drive }))
    }

    fn shared(config: &DriverConfig, bell: Doorbell) -> Arc<Shared> {
        let freed = Arc::new(AtomicU64::new(0));
        let arena = Arena::new(config.arena.clone());
        let count = Arc::clone(&freed);
        arena.on_segment_freed(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Arc::new(Shared { inbox: Mutex::default(), bell, arena, freed, next_link: AtomicU64::new(1) })
    }

    /// How bytes are moved.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// Why not by `io_uring`, where that was tried.
    #[must_use]
    pub fn why_not_uring(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// The doorbell that an end of a channel which is carried here brings as its worker's.
    #[must_use]
    pub fn bell(&self) -> Doorbell {
        self.shared.bell.clone()
    }

    /// Takes over a socket whose two ends have greeted each other.
    pub fn add(&self, socket: OwnedFd, tls: Option<rustls::Connection>, owner: Arc<dyn Owner>) -> Link {
        let id = self.shared.next_link.fetch_add(1, Ordering::Relaxed);
        let facts = Arc::new(Facts::default());
        let link = Link { id, shared: Arc::clone(&self.shared), facts: Arc::clone(&facts) };
        self.shared.ask(Command::Add { link: id, socket, tls: tls.map(Box::new), owner, facts });
        link
    }

    /// Memory of payloads that came over links: bytes held and bytes in use.
    #[must_use]
    pub fn arena_bytes(&self) -> (u64, u64) {
        let stats = self.shared.arena.stats();
        (stats.held_bytes, stats.live_bytes)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.ask(Command::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the link thread panicked");
        }
    }
}

/// Moves the bytes of a driver without a thread, step by step: one thread at a time. Dropped, it closes all sockets.
pub struct Pump {
    drive: Box<dyn run::Drive>,
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").finish_non_exhaustive()
    }
}

impl Pump {
    /// Does everything that can be done without waiting; says whether there was anything.
    pub fn turn(&mut self) -> bool {
        self.drive.turn()
    }

    /// Looks for news without waiting, a system call, and says whether there was any.
    pub fn look(&mut self) -> bool {
        self.drive.look()
    }

    /// The bell's ring was taken back elsewhere: looks at every ring whose peer may have rung. Whoever shares the bell must call
    /// this after taking a ring back, for a bell that is silent again raises no news.
    pub fn rung(&mut self) {
        self.drive.rung();
    }

    /// Has all local peers ring from now on. A full fence must follow, then [`Self::may_sleep`].
    pub fn ask(&mut self) {
        self.drive.ask();
    }

    /// How long to sleep, none within for ever; none at all if there is something to do.
    pub fn may_sleep(&mut self) -> Option<Option<Duration>> {
        self.drive.may_sleep()
    }

    /// Sleeps until there is news or the doorbell rings, at most so long.
    ///
    /// # Errors
    /// The system cannot wait any more: all links are over.
    pub fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()> {
        self.drive.wait(timeout)
    }

    /// The driver was dropped, and all of its links are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.drive.is_over()
    }
}

/// A handle of one link. Clones are the same link; it ends by [`Link::close`] or with its driver, not by being dropped.
#[derive(Clone)]
pub struct Link {
    id: u64,
    shared: Arc<Shared>,
    facts: Arc<Facts>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Link {
    /// Carries a channel from now on: `opening` is this end of it, which plays `role` towards a local peer, and `number` is
    /// what the owners of the two ends have agreed to call it, never used before on this link. `first`: the other end is
    /// told of it only after this.
    ///
    /// What the gate refuses is answered with its error.
    pub fn add_channel(&self, number: u32, opening: Opening, role: Role, gate: Arc<dyn Gate>, first: bool) {
        let opening = Box::new(opening);
        self.shared.ask(Command::AddChannel { link: self.id, number, opening, role, gate, first });
    }

    /// Closes a channel at both ends.
    pub fn close_channel(&self, number: u32, reason: CloseReason) {
        self.shared.ask(Command::CloseChannel { link: self.id, number, reason });
    }

    /// Sends a message to the owner of the other end. Messages arrive in order, and behind channels that were added before.
    pub fn message(&self, topic: u64, bytes: Vec<u8>) {
        self.shared.ask(Command::Message { link: self.id, topic, bytes });
    }

    /// Says goodbye and closes the socket; [`Owner::over`] follows.
    pub fn close(&self) {
        self.shared.ask(Command::Close { link: self.id });
    }

    /// The doorbell that an end of a channel which is carried here brings as its worker's.
    #[must_use]
    pub fn bell(&self) -> Doorbell {
        self.shared.bell.clone()
    }

    /// How far away the other end is, as of the last ping.
    #[must_use]
    pub fn distance(&self) -> Distance {
        Distance {
            round_trip_ns: self.facts.round_trip_ns.load(Ordering::Relaxed),
            offset_ns: self.facts.offset_ns.load(Ordering::Relaxed),
        }
    }

    /// What it has carried, as of the last ping.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        *self.facts.stats.lock()
    }
}
