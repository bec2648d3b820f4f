//! Random lives of many workers, from a seed that is printed: they attach, register, unregister, connect,
//! drain, die, come back; connections break and are found broken late; the policy changes; the engine
//! itself dies and another takes its place. After every step the engine's state is compared with what it
//! must be, and every worker's view, kept only by the messages it got, with one made from scratch.
//!
//! `RINGWAY_SIM_SEED` repeats a run, `RINGWAY_SIM_STEPS` sets its length.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::control::{
    Catalog as ClientCatalog, ChannelEnd, EngineMessage, FunctionSpec, Hello, KeptChannel, Register,
    TriggerSpec, TriggerTypeSpec, Unregister, WorkerMessage,
};
use ringway_protocol::ids::FunctionId;

use super::*;
use crate::policy::{Action, Rule};

/// splitmix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A worker as its own process knows it.
struct Client {
    id: WorkerId,
    uid: u32,
    zone: Option<String>,
    name: String,
    connection: Option<ConnectionId>,
    attached: bool,
    was_attached: bool,
    view: ClientCatalog,
    functions: BTreeMap<String, FunctionSpec>,
    triggers: BTreeMap<String, TriggerSpec>,
    types: BTreeSet<String>,
    /// Bindings that it was told to watch for.
    watched: BTreeSet<String>,
    /// Channels that it holds.
    channels: BTreeSet<(WorkerId, bool)>,
    /// It has told the engine everything since it attached.
    settled: bool,
}

struct World {
    random: Random,
    core: Core,
    clients: Vec<Client>,
    /// Connections that broke without the engine's having seen it.
    broken: Vec<ConnectionId>,
    next_connection: ConnectionId,
    next_worker: u64,
    now_ns: u64,
    /// Permission pages as the server keeps them.
    pages: BTreeMap<(WorkerId, WorkerId), Vec<u64>>,
    /// Highest epoch seen.
    epoch: u64,
    steps: BTreeMap<&'static str, u64>,
}

const ENGINE: WorkerId = WorkerId::new(1);

fn config(policy: Policy) -> Config {
    Config {
        engine_id: ENGINE,
        engine_pid: 1,
        engine_version: "test".into(),
        unix_anchor_ms: 0,
        zones: Zones::new(0),
        policy,
        limits: Limits::default(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            core: Core::new(config(Policy::default())),
            clients: Vec::new(),
            broken: Vec::new(),
            next_connection: 0,
            next_worker: 100,
            now_ns: 0,
            pages: BTreeMap::new(),
            epoch: 0,
            steps: BTreeMap::new(),
        };
        world.add_client(ENGINE, 0, None, "engine");
        world.attach(0);
        world
    }

    fn add_client(&mut self, id: WorkerId, uid: u32, zone: Option<String>, name: &str) {
        self.clients.push(Client {
            id,
            uid,
            zone,
            name: name.to_owned(),
            connection: None,
            attached: false,
            was_attached: false,
            view: ClientCatalog::default(),
            functions: BTreeMap::new(),
            triggers: BTreeMap::new(),
            types: BTreeSet::new(),
            watched: BTreeSet::new(),
            channels: BTreeSet::new(),
            settled: false,
        });
    }

    fn count(&mut self, step: &'static str) {
        *self.steps.entry(step).or_default() += 1;
    }

    fn handle(&mut self, event: Event) {
        self.now_ns += self.random.below(1_000_000);
        for effect in self.core.handle(self.now_ns, event) {
            self.apply(effect);
        }
    }

    fn say(&mut self, client: usize, message: WorkerMessage) {
        if let Some(connection) = self.clients[client].connection {
            self.handle(Event::Message { connection, message });
        }
    }

    fn by_connection(&self, connection: ConnectionId) -> Option<usize> {
        self.clients.iter().position(|client| client.connection == Some(connection))
    }

    fn by_id(&self, id: WorkerId) -> Option<usize> {
        self.clients.iter().position(|client| client.id == id)
    }

    /// Does what a server would: carries an effect out. What goes to a broken connection is lost.
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.deliver(to, &message),
            Effect::Broadcast { to, message } => {
                assert_eq!(to.iter().collect::<BTreeSet<_>>().len(), to.len(), "told twice");
                to.iter().for_each(|to| self.deliver(*to, &message));
            }
            Effect::OpenChannel {
                caller, callee, permissions, caller_connection, callee_connection, ..
            } => {
                assert!(self.pages.insert((caller, callee), permissions).is_none(), "an old page was left");
                for (connection, peer, is_caller) in
                    [(caller_connection, callee, true), (callee_connection, caller, false)]
                {
                    if let Some(client) = self.by_connection(connection) {
                        self.clients[client].channels.insert((peer, is_caller));
                    }
                }
            }
            Effect::AdoptChannel { caller, callee, permissions, .. } => {
                assert!(self.pages.insert((caller, callee), permissions).is_none(), "an old page was left");
            }
            Effect::SetPermissions { caller, callee, words } => {
                let page = self.pages.get_mut(&(caller, callee)).expect("a page to change");
                for (word, value) in words {
                    let word = word as usize;
                    page.resize(page.len().max(word + 1), 0);
                    page[word] = value;
                }
            }
            Effect::DropChannel { caller, callee } => {
                assert!(self.pages.remove(&(caller, callee)).is_some(), "a page to drop");
            }
            Effect::Close { connection } => {
                self.broken.retain(|broken| *broken != connection);
                if let Some(client) = self.by_connection(connection) {
                    self.clients[client].connection = None;
                    self.clients[client].attached = false;
                }
            }
            Effect::Attached { .. }
            | Effect::Described { .. }
            | Effect::Left { .. }
            | Effect::Logs { .. }
            | Effect::TriggerSettled { .. } => {}
        }
    }

    fn deliver(&mut self, to: ConnectionId, message: &EngineMessage) {
        let Some(place) = self.by_connection(to) else { return };
        let client = &mut self.clients[place];
        match message {
            EngineMessage::Welcome(welcome) => {
                assert!(welcome.epoch > self.epoch, "epochs rise");
                self.epoch = welcome.epoch;
                client.view = welcome.catalog.clone();
                client.attached = true;
                client.was_attached = true;
            }
            EngineMessage::CatalogChange { revision, changes } => {
                assert!(client.attached, "a change before the welcome");
                client.view.apply(*revision, changes).expect("revisions without a gap");
            }
            EngineMessage::TriggerBind { binding, .. } => {
                client.watched.insert(binding.id.clone());
            }
            EngineMessage::TriggerUnbind { id } => {
                assert!(client.watched.remove(id) || !client.settled, "unbound what was not bound");
            }
            EngineMessage::Revoked { caller, callee, .. } => {
                client.channels.remove(&(*callee, true));
                client.channels.remove(&(*caller, false));
            }
            _ => {}
        }
    }

    fn attach(&mut self, place: usize) {
        self.next_connection += 1;
        let (connection, peers) = (self.next_connection, self.held(place));
        let client = &mut self.clients[place];
        client.connection = Some(connection);
        client.settled = !client.was_attached;
        client.watched.clear();
        let pid = u32::try_from(client.id.get()).unwrap();
        let mut hello = Hello::new(client.id, client.name.clone(), pid);
        hello.zone.clone_from(&client.zone);
        hello.reattach = client.was_attached;
        hello.channels = peers;
        let credentials = Credentials { uid: client.uid, pid, engine: client.id == ENGINE };
        self.handle(Event::Opened { connection, credentials });
        self.handle(Event::Message { connection, message: WorkerMessage::Hello(Box::new(hello)) });
        assert!(self.clients[place].attached, "the worker was not let in");
        if self.clients[place].was_attached && !self.clients[place].settled && !self.random.one_in(3) {
            self.settle(place);
        }
    }

    fn held(&self, place: usize) -> Vec<KeptChannel> {
        let end = |is_caller: bool| if is_caller { ChannelEnd::Caller } else { ChannelEnd::Callee };
        let channels = self.clients[place].channels.iter();
        channels.map(|(peer, is_caller)| KeptChannel { peer: *peer, end: end(*is_caller) }).collect()
    }

    /// Tells the engine everything, as a worker must after it attached again.
    fn settle(&mut self, place: usize) {
        let client = &mut self.clients[place];
        client.settled = true;
        let types =
            client.types.iter().map(|id| TriggerTypeSpec { id: id.clone(), ..TriggerTypeSpec::default() });
        let register = Register {
            request: 0,
            functions: client.functions.values().cloned().collect(),
            trigger_types: types.collect(),
            triggers: client.triggers.values().cloned().collect(),
        };
        self.say(place, WorkerMessage::Register(register));
    }

    /// Picks a client that is attached; the engine's worker only where it may.
    fn pick(&mut self, engine_too: bool) -> Option<usize> {
        let attached = |client: &Client| client.attached && (engine_too || client.id != ENGINE);
        let places: Vec<_> =
            (0..self.clients.len()).filter(|place| attached(&self.clients[*place])).collect();
        (!places.is_empty()).then(|| places[self.random.index(places.len())])
    }

    fn step(&mut self) {
        if self.core.news_due_ns().is_some_and(|due_ns| due_ns <= self.now_ns) {
            self.count("news");
            self.handle(Event::NewsDue {});
        }
        match self.random.below(100) {
            0..14 => self.step_new(),
            14..44 => self.step_register(),
            44..54 => self.step_unregister(),
            54..66 => self.step_connect(),
            66..70 => self.step_disconnect(),
            70..78 => self.step_die(),
            78..84 => self.step_break(),
            84..88 => self.step_notice(),
            88..93 => self.step_trigger(),
            93..95 => self.step_drain(),
            95..98 => self.step_policy(),
            98 => self.step_restart(),
            _ => self.step_violate(),
        }
    }

    fn step_new(&mut self) {
        if self.clients.len() >= 24 {
            return;
        }
        self.count("attach");
        self.next_worker += 1;
        let uid = if self.random.one_in(4) { 7 } else { 0 };
        let zone = (uid == 0 && self.random.one_in(4)).then(|| "sandbox".to_owned());
        let name = ["web", "shop", "agent"][self.random.index(3)];
        self.add_client(WorkerId::new(self.next_worker), uid, zone, name);
        self.attach(self.clients.len() - 1);
    }

    fn function(&mut self) -> String {
        format!("{}::f{}", ["a", "b"][self.random.index(2)], self.random.below(6))
    }

    fn step_register(&mut self) {
        let Some(place) = self.pick(true) else { return };
        if !self.clients[place].settled {
            return self.settle(place);
        }
        self.count("register");
        let mut functions = Vec::new();
        for _ in 0..=self.random.below(3) {
            let id = FunctionId::new(&self.function()).unwrap();
            let mut spec = FunctionSpec::new(id, 1 + u32::try_from(self.random.below(140)).unwrap());
            spec.generation = u16::try_from(self.random.below(5)).unwrap();
            spec.exclusive = self.random.one_in(12);
            spec.idempotent = self.random.one_in(2);
            functions.push(spec);
        }
        let trigger_types = if self.random.one_in(4) {
            vec![TriggerTypeSpec { id: format!("t{}", self.random.below(3)), ..TriggerTypeSpec::default() }]
        } else {
            Vec::new()
        };
        let register = Register { request: 1, functions, trigger_types, triggers: Vec::new() };
        self.register(place, register);
    }

    /// Registers, and keeps in mind what the engine took.
    fn register(&mut self, place: usize, register: Register) {
        let (id, connection) = (self.clients[place].id, self.clients[place].connection.unwrap());
        let (specs, types) = (register.functions.clone(), register.trigger_types.clone());
        let bindings = register.triggers.clone();
        self.now_ns += 1;
        let message = WorkerMessage::Register(register);
        let effects = self.core.handle(self.now_ns, Event::Message { connection, message });
        let Some(Effect::Send { message: EngineMessage::Registered { results, .. }, .. }) =
            effects.last().cloned()
        else {
            panic!("no answer to {id}");
        };
        effects.into_iter().for_each(|effect| self.apply(effect));
        let good: Vec<bool> = results.iter().map(|result| result.error.is_none()).collect();
        let client = &mut self.clients[place];
        for (spec, _) in specs.iter().zip(&good).filter(|(_, good)| **good) {
            client.functions.insert(spec.id.to_string(), spec.clone());
        }
        for (spec, _) in types.iter().zip(&good[specs.len()..]).filter(|(_, good)| **good) {
            client.types.insert(spec.id.clone());
        }
        for (spec, _) in bindings.iter().zip(&good[specs.len() + types.len()..]).filter(|(_, good)| **good) {
            self.clients.iter_mut().for_each(|client| drop(client.triggers.remove(&spec.id)));
            self.clients[place].triggers.insert(spec.id.clone(), spec.clone());
        }
    }

    fn step_trigger(&mut self) {
        let Some(place) = self.pick(false) else { return };
        if !self.clients[place].settled {
            return;
        }
        self.count("trigger");
        let id = format!("b{}", self.random.below(8));
        let target = FunctionId::new(&self.function()).unwrap();
        let spec = TriggerSpec::new(id, format!("t{}", self.random.below(3)), target);
        self.register(place, Register { request: 2, triggers: vec![spec], ..Register::default() });
    }

    fn step_unregister(&mut self) {
        let Some(place) = self.pick(true) else { return };
        if !self.clients[place].settled {
            return;
        }
        self.count("unregister");
        let (random, client) = (&mut self.random, &mut self.clients[place]);
        let mut unregister = Unregister { request: 3, ..Unregister::default() };
        if let Some(id) = client.functions.keys().nth(random.index(1 + client.functions.len())).cloned() {
            client.functions.remove(&id);
            unregister.functions.push(FunctionId::new(&id).unwrap());
        }
        if random.one_in(3) {
            unregister.trigger_types.extend(client.types.pop_first());
            unregister.triggers.extend(client.triggers.pop_first().map(|(id, _)| id));
        }
        self.say(place, WorkerMessage::Unregister(unregister));
    }

    fn step_connect(&mut self) {
        let (Some(from), Some(to)) = (self.pick(true), self.pick(true)) else { return };
        self.count("connect");
        let to = if self.random.one_in(20) { WorkerId::new(9) } else { self.clients[to].id };
        self.say(from, WorkerMessage::Connect { request: 4, to });
    }

    fn step_disconnect(&mut self) {
        let Some(place) = self.pick(true) else { return };
        let callee = self.clients[place].channels.iter().find(|(_, is_caller)| *is_caller).copied();
        if let Some((peer, _)) = callee {
            self.count("disconnect");
            let id = self.clients[place].id;
            self.clients[place].channels.remove(&(peer, true));
            if let Some(other) = self.by_id(peer) {
                self.clients[other].channels.remove(&(id, false));
            }
            self.say(place, WorkerMessage::Disconnected { peer });
        }
    }

    /// The process ends; peers see their channels end at once, the engine at once or later.
    fn step_die(&mut self) {
        let Some(place) = self.pick(false) else { return };
        self.count("die");
        let client = self.clients.remove(place);
        for other in &mut self.clients {
            other.channels.retain(|(peer, _)| *peer != client.id);
        }
        let connection = client.connection.unwrap();
        match self.random.below(3) {
            0 => self.broken.push(connection),
            1 => self.handle(Event::Message { connection, message: WorkerMessage::Goodbye {} }),
            _ => self.handle(Event::Closed { connection }),
        }
    }

    /// The connection breaks and the worker is back before the engine has seen it.
    fn step_break(&mut self) {
        let Some(place) = self.pick(true) else { return };
        self.count("break");
        let connection = self.clients[place].connection.take().unwrap();
        self.clients[place].attached = false;
        if self.random.one_in(2) {
            // What it takes back while it is away must be gone once it has told the engine everything.
            self.clients[place].functions.pop_first();
        }
        if self.clients[place].id == ENGINE || self.random.one_in(2) {
            self.broken.push(connection);
        } else {
            self.handle(Event::Closed { connection });
        }
        self.attach(place);
    }

    fn step_notice(&mut self) {
        if !self.broken.is_empty() {
            self.count("notice");
            let place = self.random.index(self.broken.len());
            let connection = self.broken.swap_remove(place);
            self.handle(Event::Closed { connection });
        }
    }

    fn step_drain(&mut self) {
        let Some(place) = self.pick(false) else { return };
        self.count("drain");
        self.say(place, WorkerMessage::Draining {});
    }

    fn step_policy(&mut self) {
        self.count("policy");
        let mut rules = Vec::new();
        for _ in 0..self.random.below(4) {
            let action = if self.random.one_in(2) { Action::Allow } else { Action::Deny };
            let zone = ["*", "default", "sandbox", "user-7"][self.random.index(4)];
            let function = ["*", "a::*", "b::f1", "*f2"][self.random.index(4)];
            let caller = ["*", "*", "web", "s*"][self.random.index(4)];
            rules.push(Rule::new(action, zone, function).with_caller(caller));
        }
        self.handle(Event::PolicyChanged { policy: Policy::new(rules) });
    }

    /// The engine dies; another takes its place; the workers come back in any order, with their channels.
    fn step_restart(&mut self) {
        self.count("restart");
        self.core = Core::new(config(self.core.config.policy.clone()));
        self.pages.clear();
        self.broken.clear();
        self.epoch = 0;
        for client in &mut self.clients {
            client.connection = None;
            client.attached = false;
        }
        let mut places: Vec<_> = (0..self.clients.len()).collect();
        while !places.is_empty() {
            let place = self.random.index(places.len());
            self.attach(places.swap_remove(place));
        }
    }

    fn step_violate(&mut self) {
        let Some(place) = self.pick(false) else { return };
        self.count("violate");
        let connection = self.clients[place].connection.unwrap();
        self.handle(Event::Violated { connection, problem: "test".into() });
        let client = self.clients.remove(place);
        for other in &mut self.clients {
            other.channels.retain(|(peer, _)| *peer != client.id);
        }
    }

    fn check(&self) {
        self.check_registrations();
        self.check_views();
        self.check_channels();
        self.check_bindings();
        let live: usize = self.core.catalog.functions().count();
        assert!(self.core.relays.len() <= live * 3, "relay indexes leak");
    }

    fn check_registrations(&self) {
        for (key, replicas) in self.core.catalog.functions() {
            let workers: BTreeSet<_> = replicas.iter().map(|replica| replica.worker).collect();
            assert_eq!(workers.len(), replicas.len(), "{key:?} is registered twice by one worker");
            for replica in replicas {
                let worker = self.core.worker(replica.worker).expect("a replica of an attached worker");
                assert_eq!(worker.functions.get(&replica.spec.index), Some(key));
            }
            for zone in replicas.iter().map(|replica| &replica.zone) {
                let own = replicas.iter().filter(|replica| replica.zone == *zone);
                let exclusive = own.clone().any(|replica| replica.spec.exclusive);
                assert!(!exclusive || own.count() == 1, "{key:?} is exclusive and has replicas");
            }
        }
        for (connection, id) in self.core.connections.iter().filter_map(|(c, it)| Some((c, it.worker?))) {
            assert_eq!(self.core.worker(id).map(|worker| worker.connection), Some(*connection), "{id} twice");
        }
        for (id, worker) in self.core.workers() {
            for key in worker.functions.values() {
                assert!(self.core.catalog.replica(key, id).is_some(), "{key:?} has no replica");
            }
            let client =
                self.by_id(id).filter(|place| self.clients[*place].settled && self.clients[*place].attached);
            if let Some(client) = client.map(|place| &self.clients[place]) {
                let has: BTreeSet<_> = worker.functions.values().map(|key| key.id.to_string()).collect();
                assert!(has.iter().all(|id| client.functions.contains_key(id)), "more than {id} registered");
            }
        }
    }

    fn check_views(&self) {
        let mut fresh = BTreeMap::<Zone, ClientCatalog>::new();
        for client in self.clients.iter().filter(|client| client.attached) {
            let worker = self.core.worker(client.id).expect("attached");
            let made = || sorted(self.made_from_scratch(&worker.zone));
            let fresh = fresh.entry(Zone::clone(&worker.zone)).or_insert_with(made);
            // What it has not been told yet is what the engine keeps for it, and no more.
            let (mut view, kept) = (client.view.clone(), &self.core.views[&worker.zone]);
            view.apply(kept.revision(), kept.untold(client.id)).expect("revisions without a gap");
            assert_eq!(sorted(view), *fresh, "the view of {}", client.id);
            for function in &client.view.functions {
                assert!(self.core.worker(function.worker).is_some(), "a route to a dead worker");
            }
            assert!(
                kept.due_ns().is_none_or(|due_ns| due_ns <= self.now_ns + crate::view::GATHER_NS),
                "news wait too long"
            );
        }
    }

    /// Makes a zone's view as the definition says, from the catalog and the policy alone.
    fn made_from_scratch(&self, zone: &Zone) -> ClientCatalog {
        let mut view = View::default();
        let mut relays = self.core.relays.clone();
        let mut sources = Sources {
            catalog: &self.core.catalog,
            policy: &self.core.config.policy,
            relays: &mut relays,
            engine: ENGINE,
            now_ns: 0,
        };
        for (key, _) in self.core.catalog.functions() {
            view.refresh(&mut sources, zone, key);
        }
        let seen = self.core.workers().filter(|(id, worker)| *id == ENGINE || worker.zone == *zone);
        ClientCatalog {
            revision: 0,
            workers: seen.map(|(id, worker)| worker.entry(id)).collect(),
            functions: view.functions().cloned().collect(),
        }
    }

    fn check_channels(&self) {
        let pairs: BTreeSet<_> = self.core.channels.pairs().into_iter().collect();
        assert_eq!(pairs, self.pages.keys().copied().collect(), "pages and channels");
        for (caller, callee) in pairs {
            let (from, to) = (self.core.worker(caller), self.core.worker(callee));
            let (from, to) = (from.expect("a live caller"), to.expect("a live callee"));
            let engine = from.credentials.engine || to.credentials.engine;
            assert!(engine || from.zone == to.zone, "a channel across zones");
            let page = &self.pages[&(caller, callee)];
            let bit = |index: u32| {
                page.get(index as usize / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
            };
            for index in 0..200 {
                let key = to.functions.get(&index);
                let allowed = key.is_some_and(|key| self.core.may_call(caller, &to.zone, &key.id));
                let inspect = index == 0 && from.credentials.engine;
                assert_eq!(bit(index), allowed || inspect, "bit {index} of {caller} to {callee}");
            }
        }
    }

    fn check_bindings(&self) {
        let mut watched = BTreeSet::new();
        for binding in self.core.bindings.all() {
            if let Some(owner) = binding.owner {
                let owner = self.core.worker(owner).expect("a binding of an attached worker");
                assert!(owner.triggers.contains(&binding.spec.id));
            }
            if let Some(provider) = binding.provider {
                assert!(
                    self.core
                        .worker(provider)
                        .expect("a live provider")
                        .trigger_types
                        .contains(&binding.spec.trigger_type)
                );
                watched.insert((provider, binding.spec.id.clone()));
            }
        }
        let settled = |client: &&Client| client.attached && client.settled;
        let told = self.clients.iter().filter(settled);
        let told: BTreeSet<_> =
            told.flat_map(|client| client.watched.iter().map(|id| (client.id, id.clone()))).collect();
        let settled: BTreeSet<_> = self.clients.iter().filter(settled).map(|client| client.id).collect();
        watched.retain(|(provider, _)| settled.contains(provider));
        assert_eq!(told, watched, "what providers watch for");
    }
}

/// Puts a view into one order; revisions are compared apart.
fn sorted(mut view: ClientCatalog) -> ClientCatalog {
    view.revision = 0;
    view.workers.sort_by_key(|worker| worker.id);
    view.functions.sort_by(|a, b| {
        (&a.id, &a.namespace, a.worker, a.index).cmp(&(&b.id, &b.namespace, b.worker, b.index))
    });
    view
}

fn run(seed: u64, steps: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
        assert!(checked.is_ok(), "seed {seed} failed after step {step}");
    }
    world.steps
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn any_order_of_events_keeps_the_truth() {
    let steps = from_environment("RINGWAY_SIM_STEPS").unwrap_or(300);
    let seeds = from_environment("RINGWAY_SIM_SEED").map_or(1..9, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}, {steps} steps: {:?}", run(seed, steps));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let views = |seed| {
        let mut world = World::new(seed);
        (0..300).for_each(|_| world.step());
        (world.core.view("default"), world.core.view("sandbox"))
    };
    assert_eq!(views(42), views(42));
}
