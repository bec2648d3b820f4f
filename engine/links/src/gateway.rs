//! The thread between links and the engine: reads what comes over links and what the engine answers, and has each passed on:
//! for a remote worker by its [`Proxy`], for another engine by its [`Peer`]. Used by [`crate::links`]. It must not know what
//! messages mean.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use ringway_access::handshake::{Introduction, PeerKind};
use ringway_access::{Grant, Identity};
use ringway_link::News;
use ringway_link::driver::{Driver, Link, Owner};
use ringway_link::fault::Ended;
use ringway_protocol::WorkerId;
use ringway_protocol::control::Remote;

use crate::attach::Attach;
use crate::bus::{BusNews, BusSettings};
use crate::callable::Callable;
use crate::offers::Offers;
use crate::peer::{Peer, Wish};
use crate::proxy::Proxy;
use crate::watch::Watch;

const WAKER: Token = Token(0);
const WATCH: Token = Token(1);

/// How often links are looked at whose credentials end at a time, and attaches that are tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait for the engine to read records.
const UNREAD_PAUSE: Duration = Duration::from_millis(5);

/// Somebody at the other end of a new link.
pub(crate) struct Arrival {
    pub(crate) socket: OwnedFd,
    pub(crate) tls: Option<Box<rustls::Connection>>,
    pub(crate) introduction: Introduction,
    /// By what it was let in; none where this end dialled.
    pub(crate) identity: Option<Identity>,
    /// What it may call and register here.
    pub(crate) grant: Grant,
    pub(crate) expires_s: Option<u64>,
    pub(crate) host: SocketAddr,
    /// Dropped when the link is over, for whoever dialled.
    pub(crate) over: Option<SyncSender<()>>,
}

/// What the thread is told.
pub(crate) enum Command {
    Arrived(Box<Arrival>),
    News {
        link: usize,
        news: News,
    },
    Over {
        link: usize,
        why: String,
    },
    /// Close the links whose tokens are among these.
    Revoke(Vec<String>),
    /// Other engines are behind this bus.
    JoinBus(Box<BusSettings>),
    Bus(Box<BusNews>),
    BusLinked {
        engine: WorkerId,
        socket: OwnedFd,
        dialled: bool,
    },
    LeaveBus,
    Stop,
}

/// A link and who is at its other end, for people.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) id: WorkerId,
    pub(crate) is_engine: bool,
    pub(crate) host: SocketAddr,
    /// By which it was let in, if it was by one.
    pub(crate) token_id: Option<String>,
    pub(crate) expires_s: Option<u64>,
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
        self.shared.tell(Command::News { link: self.link, news });
    }

    fn over(&self, why: &Ended) {
        self.shared.tell(Command::Over { link: self.link, why: why.to_string() });
    }
}

enum Behind {
    Worker(Box<Proxy>),
    Engine(Box<Peer>),
}

struct Entry {
    behind: Behind,
    /// Behind a bus: with the number by which it tells of itself, while there is one.
    link: Option<(usize, Link)>,
    token_id: Option<String>,
    expires_s: Option<u64>,
    dialled: bool,
    _over: Option<SyncSender<()>>,
}

/// What a token of the wait set stands for.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The attach of a remote worker.
    Worker(usize),
    /// That of a worker of another engine.
    Foreign(usize, WorkerId),
}

/// A bus, and what all engines behind it are told.
struct Joined {
    settings: BusSettings,
    offers: Offers,
    grant: Grant,
    /// Whose entry is which.
    entries: BTreeMap<WorkerId, usize>,
    /// By the number of a link, the entry of the engine behind it.
    carried: BTreeMap<usize, usize>,
}

/// See the module.
pub(crate) struct Gateway {
    poll: Poll,
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    engine: String,
    watch: Watch,
    /// What engines are told of that dial this one.
    offer: Vec<String>,
    entries: BTreeMap<usize, Entry>,
    sources: BTreeMap<usize, Source>,
    joined: Option<Joined>,
    next: usize,
    stopped: bool,
}

impl Gateway {
    pub(crate) fn new(
        driver: Arc<Driver>,
        engine: &str,
        watch: Watch,
        offer: Vec<String>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        register(&poll, watch.attach.as_fd(), WATCH)?;
        let shared = Arc::new(Shared { inbox: Mutex::default(), waker, known: Mutex::default() });
        Ok(Self {
            poll,
            shared,
            driver,
            engine: engine.to_owned(),
            watch,
            offer,
            entries: BTreeMap::new(),
            sources: BTreeMap::new(),
            joined: None,
            next: WATCH.0 + 1,
            stopped: false,
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        // What came right behind the welcome raises no news of its own.
        self.follow_catalog();
        let mut look = false;
        while !self.stopped {
            let unread = self.proxies().any(|proxy| proxy.has_unread());
            let timeout = unread.then_some(UNREAD_PAUSE).or_else(|| look.then_some(LOOK_EVERY));
            match self.poll.poll(&mut events, timeout) {
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
                match event.token() {
                    WAKER => {}
                    WATCH => self.follow_catalog(),
                    Token(token) => self.read_engine(token),
                }
            }
            self.proxies().filter(|proxy| proxy.has_unread()).for_each(|proxy| proxy.keep_records(&[]));
            self.look_after();
            // Behind all that may have made an attach or queued a message.
            self.grant_wishes();
            self.flush();
            look = self.must_look();
        }
        let links: Vec<usize> = self.entries.keys().copied().collect();
        links.into_iter().for_each(|link| self.remove(link, "the engine stops"));
    }

    fn proxies(&mut self) -> impl Iterator<Item = &mut Box<Proxy>> {
        self.entries.values_mut().filter_map(|entry| match &mut entry.behind {
            Behind::Worker(proxy) => Some(proxy),
            Behind::Engine(_) => None,
        })
    }

    fn peers(&mut self) -> impl Iterator<Item = (usize, &mut Box<Peer>)> {
        self.entries.iter_mut().filter_map(|(link, entry)| match &mut entry.behind {
            Behind::Engine(peer) => Some((*link, peer)),
            Behind::Worker(_) => None,
        })
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Arrived(arrival) => self.arrived(*arrival),
            Command::News { link, news: News::Message { topic, bytes } } => {
                let number = link;
                let link = self.entry_of(number);
                let Some(entry) = self.entries.get_mut(&link) else { return };
                let taken = match &mut entry.behind {
                    Behind::Worker(proxy) => proxy.take_from_worker(topic, &bytes),
                    Behind::Engine(peer) => peer.take(topic, &bytes),
                };
                if let Err(error) = taken {
                    self.over(number, &error.to_string());
                }
            }
            Command::News { link, news: News::ChannelOver { number, .. } } => {
                let link = self.entry_of(link);
                if let Some(Entry { behind: Behind::Engine(peer), .. }) = self.entries.get_mut(&link) {
                    peer.channel_over(number);
                }
            }
            Command::News { .. } => {}
            Command::Over { link, why } => self.over(link, &why),
            Command::JoinBus(settings) => self.join(*settings),
            Command::Bus(news) => self.take_from_bus(*news),
            Command::BusLinked { engine, socket, dialled } => self.bus_linked(engine, socket, dialled),
            Command::LeaveBus => self.leave_bus(),
            Command::Revoke(tokens) => {
                let revoked = |entry: &Entry| entry.token_id.as_ref().is_some_and(|id| tokens.contains(id));
                let links = self.entries.iter().filter(|(_, entry)| revoked(entry)).map(|(link, _)| *link);
                let links: Vec<usize> = links.collect();
                links.into_iter().for_each(|link| self.remove(link, "its token was revoked"));
            }
            Command::Stop => self.stopped = true,
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let is_engine = arrival.introduction.kind == PeerKind::Engine;
        let id = arrival.introduction.id;
        if is_engine && !self.prefers(id, arrival.over.is_some()) {
            return tracing::debug!(engine = %id, "a second link to the same engine was let go");
        }
        let stream = (!is_engine).then(|| Attach::connect(&self.engine)).transpose();
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                return tracing::error!(%error, "cannot attach a remote worker: the engine does not answer");
            }
        };
        let link = self.next;
        self.next += 1;
        if let Some(stream) = &stream {
            if let Err(error) = register(&self.poll, stream.as_fd(), Token(link)) {
                return tracing::error!(%error, "cannot wait for the engine");
            }
            self.sources.insert(link, Source::Worker(link));
        }
        let Arrival { socket, tls, introduction, identity, grant, expires_s, host, over } = arrival;
        let name = introduction.name;
        tracing::info!(%id, name, ?identity, is_engine, %host, "linked");
        let owner = Arc::new(Ear { link, shared: Arc::clone(&self.shared) });
        let carried = self.driver.add(socket, tls.map(|tls| *tls), owner);
        let token_id = match &identity {
            Some(Identity::Token { id, .. }) => Some(id.clone()),
            _ => None,
        };
        let (token, own) = (token_id.clone(), carried.clone());
        let known = Known { name, id, is_engine, host, token_id: token, expires_s, link: own };
        self.shared.known.lock().insert(link, known);
        let dialled = over.is_some();
        let behind = match stream {
            Some(stream) => {
                let remote =
                    Remote { identity: holder(identity.as_ref()), host: host.to_string(), round_trip_us: 0 };
                Behind::Worker(Box::new(Proxy::new(
                    id,
                    carried.clone(),
                    stream,
                    Callable::new(grant),
                    remote,
                )))
            }
            None => {
                let offered = (!dialled).then_some(&*self.offer);
                let mut peer = Peer::new(id, carried.clone(), &self.engine, host.to_string(), grant, offered);
                peer.offer(self.watch.all(), true, |id| self.watch.worker(id));
                Behind::Engine(Box::new(peer))
            }
        };
        let entry = Entry { behind, link: Some((link, carried)), token_id, expires_s, dialled, _over: over };
        self.entries.insert(link, entry);
    }

    /// Whether a link to an engine is to be kept beside what there is: one link to each. Where both have dialled at the same
    /// time, both keep the one that the engine with the smaller id has dialled.
    fn prefers(&mut self, id: WorkerId, dialled: bool) -> bool {
        if id == self.watch.engine_id {
            tracing::warn!("an engine was linked to itself; the link was let go");
            return false;
        }
        let own = self.watch.engine_id;
        let old = self.entries.iter().find_map(|(link, entry)| match &entry.behind {
            Behind::Engine(peer) if peer.id == id && !peer.is_behind_bus() => Some((*link, entry.dialled)),
            _ => None,
        });
        let Some((link, old_dialled)) = old else { return true };
        let dialled_by_smaller = |dialled: bool| dialled == (own < id);
        if old_dialled != dialled && dialled_by_smaller(old_dialled) {
            return false;
        }
        self.remove(link, "another link to the same engine takes its place");
        true
    }

    fn read_engine(&mut self, token: usize) {
        match self.sources.get(&token).copied() {
            None => {}
            Some(Source::Foreign(link, worker)) => {
                if let Some(Entry { behind: Behind::Engine(peer), .. }) = self.entries.get_mut(&link) {
                    peer.read(worker);
                }
            }
            Some(Source::Worker(link)) => {
                let Some(Entry { behind: Behind::Worker(proxy), .. }) = self.entries.get_mut(&link) else {
                    return;
                };
                match proxy.read_engine() {
                    Ok(true) => {}
                    Ok(false) => self.remove(link, "the engine closed its attach"),
                    Err(error) => self.remove(link, &error.to_string()),
                }
            }
        }
    }

    /// Tells other engines what has changed here.
    fn follow_catalog(&mut self) {
        loop {
            let changes = match self.watch.next() {
                Ok(Some(changes)) => changes,
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "the engine is gone; all links end");
                    self.stopped = true;
                    return;
                }
            };
            let watch = &self.watch;
            for entry in self.entries.values_mut() {
                if let Behind::Engine(peer) = &mut entry.behind
                    && !peer.is_behind_bus()
                {
                    peer.offer(changes.clone(), false, |id| watch.worker(id));
                }
            }
            if let Some(joined) = &mut self.joined {
                let told = joined.offers.of(changes, |id| watch.worker(id));
                if !told.is_empty() {
                    joined.settings.bus.offer(false, told);
                }
            }
        }
    }

    /// Waits for attaches that peers have made, and for those they have dropped no more.
    fn grant_wishes(&mut self) {
        let mut wishes = Vec::new();
        for (link, peer) in self.peers() {
            wishes.extend(std::mem::take(&mut peer.wishes).into_iter().map(|wish| (link, wish)));
        }
        for (link, wish) in wishes {
            match wish {
                Wish::Unwatch(token) => {
                    self.sources.remove(&token);
                }
                Wish::Dial => {
                    let Some(joined) = &self.joined else { continue };
                    if let Some(Entry { behind: Behind::Engine(peer), .. }) = self.entries.get(&link) {
                        joined.settings.bus.dial(peer.id);
                    }
                }
                Wish::Watch(worker) => {
                    let token = self.next;
                    self.next += 1;
                    let Some(Entry { behind: Behind::Engine(peer), .. }) = self.entries.get_mut(&link) else {
                        continue;
                    };
                    let Some((attach, place)) = peer.watched(worker) else { continue };
                    if let Err(error) = register(&self.poll, attach.as_fd(), Token(token)) {
                        tracing::error!(%error, "cannot wait for the engine");
                        continue;
                    }
                    *place = token;
                    self.sources.insert(token, Source::Foreign(link, worker));
                    // It may have answered already.
                    peer.read(worker);
                }
            }
        }
    }

    fn flush(&mut self) {
        let mut failed = Vec::new();
        for (link, entry) in &mut self.entries {
            match &mut entry.behind {
                Behind::Engine(peer) => peer.flush(),
                Behind::Worker(proxy) => {
                    if let Err(error) = proxy.attach.flush() {
                        tracing::debug!(%error, "cannot send to the engine");
                        failed.push(*link);
                    }
                }
            }
        }
        for link in failed {
            // What the engine said last, such as a refusal, may still be there.
            self.read_engine(link);
            self.remove(link, "the engine closed its attach");
        }
        if let Err(error) = self.watch.attach.flush() {
            tracing::debug!(%error, "the engine is gone");
        }
    }

    /// Ends links whose credentials have ended, tries attaches again, and lets links over a bus go that are idle.
    fn look_after(&mut self) {
        let mut idle = Vec::new();
        let idle_max = self.joined.as_ref().map_or(Duration::MAX, |joined| joined.settings.idle_max);
        for (_, peer) in self.peers() {
            peer.retry();
            if peer.is_behind_bus() && peer.is_idle(idle_max) {
                idle.extend(peer.link.clone());
            }
        }
        idle.into_iter().for_each(|link| link.close());
        if self.entries.values().all(|entry| entry.expires_s.is_none()) {
            return;
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let late = self.entries.iter().filter(|(_, entry)| entry.expires_s.is_some_and(|at| at <= now_s));
        let late: Vec<usize> = late.map(|(link, _)| *link).collect();
        late.into_iter().for_each(|link| self.remove(link, "its credentials have expired"));
    }

    /// Whether something has to be looked after again although nothing happens.
    fn must_look(&self) -> bool {
        self.entries.values().any(|entry| {
            let waits = match &entry.behind {
                Behind::Engine(peer) => {
                    peer.waits_for_retry() || (peer.is_behind_bus() && peer.link.is_some())
                }
                Behind::Worker(_) => false,
            };
            waits || entry.expires_s.is_some()
        })
    }

    /// Ends a link and the attaches with it: the engine sees workers that left without a goodbye.
    fn remove(&mut self, link: usize, why: &str) {
        let Some(entry) = self.entries.remove(&link) else { return };
        if let Some(known) = self.shared.known.lock().remove(&link) {
            tracing::info!(id = %known.id, name = known.name, why, "no longer linked");
        }
        let tokens = match &entry.behind {
            Behind::Worker(_) => vec![link],
            Behind::Engine(peer) => peer.tokens(),
        };
        // Closing the sockets takes them out of the wait set.
        for token in tokens {
            self.sources.remove(&token);
        }
        if let Some((number, carried)) = entry.link {
            if let Some(joined) = &mut self.joined {
                joined.carried.remove(&number);
            }
            self.shared.known.lock().remove(&number);
            carried.close();
        }
    }

    /// The entry that the link of a number is of.
    fn entry_of(&self, number: usize) -> usize {
        self.joined.as_ref().and_then(|joined| joined.carried.get(&number).copied()).unwrap_or(number)
    }

    /// A link is over. Behind a bus the engine stays.
    fn over(&mut self, number: usize, why: &str) {
        let entry = self.joined.as_mut().and_then(|joined| joined.carried.remove(&number));
        let Some(entry) = entry else { return self.remove(number, why) };
        if let Some(known) = self.shared.known.lock().remove(&number) {
            tracing::debug!(id = %known.id, name = known.name, why, "no longer linked over the bus");
        }
        let Some(entry) = self.entries.get_mut(&entry) else { return };
        if entry.link.as_ref().is_some_and(|(current, _)| *current == number) {
            if let Some((_, link)) = entry.link.take() {
                link.close();
            }
            if let Behind::Engine(peer) = &mut entry.behind {
                peer.unlinked();
            }
        }
    }

    fn join(&mut self, settings: BusSettings) {
        let mut grant = Grant::default().with_namespaces(&["*"]);
        for pattern in &settings.offer {
            grant = grant.with_call(pattern);
        }
        for pattern in &settings.call {
            grant = grant.with_offer(pattern);
        }
        let mut offers = Offers::new(Callable::new(grant.clone()));
        settings.bus.offer(true, offers.of(self.watch.all(), |id| self.watch.worker(id)));
        let (entries, carried) = (BTreeMap::new(), BTreeMap::new());
        self.joined = Some(Joined { settings, offers, grant, entries, carried });
    }

    fn leave_bus(&mut self) {
        let Some(joined) = &self.joined else { return };
        let entries: Vec<usize> = joined.entries.values().copied().collect();
        entries.into_iter().for_each(|entry| self.remove(entry, "the engine left the bus"));
        self.joined = None;
    }

    /// An engine behind the bus, and if it is new, its place.
    fn behind_bus(&mut self, engine: WorkerId, name: Option<&str>) -> Option<&mut Entry> {
        if engine == self.watch.engine_id {
            return None;
        }
        let joined = self.joined.as_mut()?;
        let known = joined.entries.get(&engine).copied();
        let place = match (known, name) {
            (Some(place), _) => place,
            (None, None) => return None,
            (None, Some(name)) => {
                let place = self.next;
                self.next += 1;
                let (grant, callable) = (joined.grant.clone(), Arc::clone(&joined.offers.callable));
                let round_trip_us = joined.settings.round_trip_us;
                let peer =
                    Peer::behind_bus(engine, &self.engine, name.to_owned(), grant, callable, round_trip_us);
                tracing::info!(id = %engine, name, "an engine is behind the bus");
                let behind = Behind::Engine(Box::new(peer));
                let entry = Entry {
                    behind,
                    link: None,
                    token_id: None,
                    expires_s: None,
                    dialled: false,
                    _over: None,
                };
                self.entries.insert(place, entry);
                joined.entries.insert(engine, place);
                place
            }
        };
        self.entries.get_mut(&place)
    }

    fn take_from_bus(&mut self, news: BusNews) {
        let (engine, name) = match &news {
            BusNews::Offered { engine, name, .. } => (*engine, Some(name.as_str())),
            BusNews::Gone { engine } => {
                let place = self.joined.as_mut().and_then(|joined| joined.entries.remove(engine));
                return place.into_iter().for_each(|place| self.remove(place, "it left the bus"));
            }
            BusNews::Silent { engine } | BusNews::Back { engine } | BusNews::NotLinked { engine, .. } => {
                (*engine, None)
            }
        };
        let Some(Entry { behind: Behind::Engine(peer), .. }) = self.behind_bus(engine, name) else { return };
        match news {
            BusNews::Offered { reset, changes, .. } => {
                peer.set_silent(false);
                peer.take_offer(reset, changes);
            }
            BusNews::Silent { .. } => peer.set_silent(true),
            BusNews::Back { .. } => peer.set_silent(false),
            BusNews::NotLinked { why, .. } => peer.not_linked(&why),
            BusNews::Gone { .. } => {}
        }
    }

    /// The bus has a link to an engine, which may be one that this engine has not heard of yet.
    fn bus_linked(&mut self, engine: WorkerId, socket: OwnedFd, dialled: bool) {
        let number = self.next;
        self.next += 1;
        let (shared, driver) = (Arc::clone(&self.shared), Arc::clone(&self.driver));
        let Some(entry) = self.behind_bus(engine, Some("")) else { return };
        let Behind::Engine(peer) = &mut entry.behind else { return };
        let link = driver.add(socket, None, Arc::new(Ear { link: number, shared: Arc::clone(&shared) }));
        let known = Known {
            name: peer.host().to_owned(),
            id: engine,
            is_engine: true,
            host: SocketAddr::from(([0, 0, 0, 0], 0)),
            token_id: None,
            expires_s: None,
            link: link.clone(),
        };
        shared.known.lock().insert(number, known);
        peer.linked(link.clone(), dialled);
        let before = entry.link.replace((number, link));
        if let Some((_, before)) = before {
            before.close();
        }
        if let Some(joined) = &mut self.joined
            && let Some(place) = joined.entries.get(&engine)
        {
            joined.carried.insert(number, *place);
        }
    }
}

/// Who may come back with the same worker id.
fn holder(identity: Option<&Identity>) -> String {
    match identity {
        Some(Identity::Token { subject, issuer, .. }) => format!("token:{issuer}:{subject}"),
        Some(Identity::Certificate { fingerprint, .. }) => format!("certificate:{fingerprint}"),
        _ => "open".to_owned(),
    }
}

fn register(poll: &Poll, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)
}
