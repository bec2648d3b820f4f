//! Many engines and a server between them, simulated: real rolls that send real messages, time from a queue, chance from a
//! seed. The server is one that passes on so many bytes in a second, and so is the network of each host.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Duration;

use ringway_links_nats::message::Message;
use ringway_links_nats::roll::{Effect, Roll, To};
use ringway_protocol::control::{CatalogFunction, CatalogWorker, Change, WorkerStatus};
use ringway_protocol::header::Encoding;
use ringway_protocol::{FunctionId, WorkerId};

/// One way through the server.
const LATENCY: Duration = Duration::from_millis(1);

/// What the server sends in a second: 10 Gbit/s.
const SERVER_BYTES: f64 = 1.25e9;

/// What a host takes in a second: 1 Gbit/s.
const HOST_BYTES: f64 = 1.25e8;

/// What NATS adds to a message: `MSG`, the subject, the lengths.
const ADDED_BYTES: usize = 64;

/// How long a message may be.
const PIECE_BYTES: usize = 256 << 10;

/// splitmix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }
}

/// What was sent and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) published: u64,
    pub(crate) published_bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_bytes: u64,
}

struct Host {
    roll: Option<Roll>,
    runs: u64,
    /// When what is on its way to it has come.
    free: Duration,
    /// Which generation of each function is offered.
    generations: Vec<u16>,
    /// The one tick that counts.
    tick_at: Duration,
    /// What it sent last, as bytes and read: the same to many is on its way once, or memory would not do for all of it.
    sent: (Vec<u8>, Option<Rc<Message>>),
}

impl Host {
    fn read(&mut self, bytes: &[u8]) -> Rc<Message> {
        match &self.sent {
            (before, Some(message)) if before == bytes => Rc::clone(message),
            _ => {
                let message = Rc::new(Message::decode(bytes).unwrap_or_else(|error| panic!("{error}")));
                self.sent = (bytes.to_vec(), Some(Rc::clone(&message)));
                message
            }
        }
    }
}

enum Event {
    Arrives { host: usize, from: usize, message: Rc<Message> },
    Tick { host: usize },
}

struct Queued(Reverse<(Duration, u64)>, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) random: Random,
    pub(crate) traffic: Traffic,
    hosts: Vec<Host>,
    queue: BinaryHeap<Queued>,
    numbers: u64,
    server_free: Duration,
    /// The hosts before this one do not hear those behind it, and the other way round.
    split: Option<usize>,
    /// One message in so many is lost on its way to one host.
    pub(crate) loss: Option<u64>,
    /// By host and by whom it looks at: whether it knows what is offered there now.
    fresh: Vec<bool>,
    behind: usize,
    whole_at: Duration,
}

pub(crate) fn function(worker: u64, index: u32, generation: u16) -> CatalogFunction {
    CatalogFunction {
        // As many services as hosts.
        id: FunctionId::new(&format!("service_{}::function_{index}", worker / 1000 % 10_000))
            .unwrap_or_else(|error| panic!("{error}")),
        namespace: "default".to_owned(),
        worker: WorkerId::new(worker),
        index,
        generation,
        encodings: vec![Encoding::Json, Encoding::Bytes],
        type_key: None,
        idempotent: false,
        streams_in: false,
        streams_out: false,
        streams_optional: false,
        relay: None,
    }
}

pub(crate) fn worker(id: u64) -> CatalogWorker {
    CatalogWorker {
        id: WorkerId::new(id),
        name: format!("worker-{id}"),
        namespace: "default".to_owned(),
        zone: "uid-1000".to_owned(),
        pid: 4711,
        runtime: "rust 0.1.0".to_owned(),
        status: WorkerStatus::Ready,
        remote: None,
    }
}

/// A worker's id as they are drawn: large.
pub(crate) fn worker_id(host: usize) -> u64 {
    0x8000_0000_0000_0000 + (host as u64) * 1000
}

impl World {
    /// Hosts with so many functions each, none of which has started.
    pub(crate) fn new(hosts: usize, functions: usize, seed: u64) -> Self {
        let host = || Host {
            roll: None,
            runs: 0,
            free: Duration::ZERO,
            generations: vec![0; functions],
            tick_at: Duration::ZERO,
            sent: (Vec::new(), None),
        };
        Self {
            now: Duration::ZERO,
            random: Random(seed),
            traffic: Traffic::default(),
            hosts: (0..hosts).map(|_| host()).collect(),
            queue: BinaryHeap::new(),
            numbers: 0,
            server_free: Duration::ZERO,
            split: None,
            loss: None,
            fresh: vec![true; hosts * hosts],
            behind: 0,
            whole_at: Duration::ZERO,
        }
    }

    fn engine(&self, host: usize) -> WorkerId {
        WorkerId::new(0x4000_0000_0000_0000 + (host as u64) * 1_000_000 + self.hosts[host].runs)
    }

    fn host_of(engine: WorkerId) -> usize {
        usize::try_from((engine.get() - 0x4000_0000_0000_0000) / 1_000_000).unwrap_or(usize::MAX)
    }

    /// A host's engine starts, with a new id, and offers all of its functions.
    pub(crate) fn start(&mut self, host: usize) {
        self.hosts[host].runs += 1;
        let mut roll =
            Roll::new(self.engine(host), &format!("host-{host}"), self.hosts[host].runs, PIECE_BYTES);
        let id = worker_id(host);
        let generations = self.hosts[host].generations.iter();
        let functions = (1..)
            .zip(generations)
            .map(|(index, generation)| Change::FunctionAdded { function: function(id, index, *generation) });
        let all = std::iter::once(Change::WorkerAdded { worker: worker(id) }).chain(functions).collect();
        let mut effects = roll.offer(true, all);
        effects.extend(roll.connected(self.now));
        self.hosts[host].roll = Some(roll);
        self.hosts[host].free = self.now;
        self.look_at_all(host);
        self.carry(host, effects);
        self.tick_later(host);
    }

    /// A host's engine ends without a word.
    pub(crate) fn kill(&mut self, host: usize) {
        self.hosts[host].roll = None;
        self.look_at_all(host);
    }

    /// A function of a host is taken back and registered anew.
    pub(crate) fn change(&mut self, host: usize) {
        let at = self.random.index(self.hosts[host].generations.len());
        let generation = &mut self.hosts[host].generations[at];
        *generation = generation.wrapping_add(1);
        let index = u32::try_from(at).unwrap_or(0) + 1;
        let added = function(worker_id(host), index, *generation);
        let removed = Change::FunctionRemoved {
            id: added.id.clone(),
            namespace: added.namespace.clone(),
            worker: added.worker,
            index,
        };
        let Some(roll) = &mut self.hosts[host].roll else { return };
        let effects = roll.offer(false, vec![removed, Change::FunctionAdded { function: added }]);
        self.look_at_all(host);
        self.carry(host, effects);
    }

    pub(crate) fn split(&mut self, at: Option<usize>) {
        self.split = at;
    }

    /// Runs for so long.
    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// Runs until everybody knows what everybody offers; says how long that took, or that it took longer than this.
    pub(crate) fn run_until_whole(&mut self, longest: Duration) -> Option<Duration> {
        let begun = self.now;
        self.run_until(begun + longest, |world| world.behind == 0);
        (self.behind == 0).then(|| self.whole_at.max(begun) - begun)
    }

    /// Runs until nobody counts what an engine offered before as there.
    pub(crate) fn run_until_unheard(&mut self, engine: WorkerId, longest: Duration) -> Option<Duration> {
        let begun = self.now;
        let is_heard = |world: &Self| {
            let mut rolls = world.hosts.iter().filter_map(|host| host.roll.as_ref());
            rolls.any(|roll| roll.known(engine).is_some_and(|(_, silent)| !silent))
        };
        while is_heard(self) && self.now < begun + longest {
            self.run(Duration::from_millis(100));
        }
        (!is_heard(self)).then(|| self.now - begun)
    }

    /// The engine of a host at this moment.
    pub(crate) fn engine_of(&self, host: usize) -> WorkerId {
        self.engine(host)
    }

    /// Pairs of which one does not know what the other offers now.
    pub(crate) fn behind(&self) -> usize {
        self.behind
    }

    fn run_until(&mut self, end: Duration, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Some(Queued(Reverse((at, _)), _)) = self.queue.peek() else { break };
            if *at > end {
                break;
            }
            let Some(Queued(Reverse((at, _)), event)) = self.queue.pop() else { break };
            self.now = at;
            match event {
                Event::Tick { host } => {
                    let Host { roll: Some(roll), tick_at, .. } = &mut self.hosts[host] else { continue };
                    if *tick_at == at {
                        let effects = if roll.due() <= at { roll.tick(at) } else { Vec::new() };
                        self.carry(host, effects);
                        self.tick_later(host);
                    }
                }
                Event::Arrives { host, from, message } => {
                    let Some(roll) = &mut self.hosts[host].roll else { continue };
                    let effects = roll.take((*message).clone(), at);
                    let sooner = roll.due() < self.hosts[host].tick_at;
                    self.carry(host, effects);
                    self.look(host, from);
                    if sooner {
                        self.tick_later(host);
                    }
                }
            }
        }
        if !done(self) {
            self.now = end;
        }
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.numbers += 1;
        self.queue.push(Queued(Reverse((at, self.numbers)), event));
    }

    fn tick_later(&mut self, host: usize) {
        if let Some(roll) = &self.hosts[host].roll {
            let at = roll.due().max(self.now);
            self.hosts[host].tick_at = at;
            self.push(at, Event::Tick { host });
        }
    }

    fn carry(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(to, bytes) => self.send(from, to, &bytes),
                Effect::Silent(engine) | Effect::Back(engine) | Effect::Gone(engine) => {
                    self.look(from, Self::host_of(engine));
                }
                Effect::Offered { .. } => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: To, bytes: &[u8]) {
        let len = bytes.len() + ADDED_BYTES;
        self.traffic.published += 1;
        self.traffic.published_bytes += len as u64;
        let message = self.hosts[from].read(bytes);
        let receivers = match to {
            To::All | To::Everybody => 0..self.hosts.len(),
            To::One(engine) if self.engine(Self::host_of(engine)) == engine => {
                Self::host_of(engine)..Self::host_of(engine) + 1
            }
            To::One(_) => 0..0,
        };
        for host in receivers {
            let cut = self.split.is_some_and(|split| (host < split) != (from < split));
            if host == from || cut || self.hosts[host].roll.is_none() {
                continue;
            }
            self.traffic.delivered += 1;
            self.traffic.delivered_bytes += len as u64;
            if self.loss.is_some_and(|loss| self.random.below(loss) == 0) {
                continue;
            }
            self.server_free =
                self.server_free.max(self.now) + Duration::from_secs_f64(len as f64 / SERVER_BYTES);
            let free = &mut self.hosts[host].free;
            *free = (*free).max(self.server_free) + Duration::from_secs_f64(len as f64 / HOST_BYTES);
            let at = *free + LATENCY;
            self.push(at, Event::Arrives { host, from, message: Rc::clone(&message) });
        }
    }

    fn look_at_all(&mut self, at: usize) {
        for host in 0..self.hosts.len() {
            self.look(host, at);
            self.look(at, host);
        }
    }

    /// Notes whether a host knows what another offers now.
    fn look(&mut self, host: usize, at: usize) {
        let fresh = match (&self.hosts[host].roll, &self.hosts[at].roll) {
            (Some(roll), Some(other)) if host != at => {
                roll.known(self.engine(at)) == Some((other.sequence(), false))
            }
            _ => true,
        };
        let place = host * self.hosts.len() + at;
        let before = std::mem::replace(&mut self.fresh[place], fresh);
        match (before, fresh) {
            (true, false) => self.behind += 1,
            (false, true) => self.behind -= 1,
            _ => {}
        }
        if self.behind == 0 {
            self.whole_at = self.now;
        }
    }
}
