//! Another engine, as the engine of this host sees it: its workers that serve something, each by an attach of its own, and
//! those that call somebody here. Used by [`crate::gateway`]. It must not know sockets of other hosts.
//!
//! The two ends are alike. Each tells the other what it offers, and every change of that; each opens, for a caller here, a
//! channel whose other end opens there. A worker keeps its id, and a function its index, everywhere.
//!
//! Behind a bus an engine's link is there while it is needed: what it offers comes over the bus, and whoever is called first
//! waits in [`Parked`] until the link is up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_access::Grant;
use ringway_ipc::channel::{CloseReason, Role};
use ringway_ipc::permission::PermissionView;
use ringway_ipc::sys::socket;
use ringway_link::driver::Link;
use ringway_protocol::control::{
    CatalogFunction, CatalogWorker, Change, ChannelId, EngineMessage, FunctionSpec, Hello, Register,
    RegistrationOutcome, Remote, RequestId, Unregister, WorkerMessage, WorkerStatus,
};
use ringway_protocol::link::{DIALLER, EngineLinkMessage, Topic, split_channel, with_channel};
use ringway_protocol::{CallError, ErrorCode, FunctionId, WorkerId};

use crate::attach::{Attach, AttachError, End, not_opened};
use crate::callable::{Callable, InwardGate, OutwardGate, Served};
use crate::offers::Offers;
use crate::proxy::ProxyError;
use crate::watch::ENGINE_IDENTITY;

/// How long to wait before a worker of the other engine is attached again that this one refused: its id is taken for as long
/// as it is linked in another way, too.
const RETRY: Duration = Duration::from_secs(2);

/// What the gateway must do for a peer.
pub(crate) enum Wish {
    /// Wait for a new attach.
    Watch(WorkerId),
    /// Wait for it no more.
    Unwatch(usize),
    /// Have the bus open a link.
    Dial,
}

/// See the module.
pub(crate) struct Peer {
    /// The other engine.
    pub(crate) id: WorkerId,
    /// Behind a bus: while there is one.
    pub(crate) link: Option<Link>,
    engine: String,
    host: String,
    grant: Grant,
    offers: Offers,
    bus: Option<BehindBus>,
    foreign: HashMap<WorkerId, Foreign>,
    next_channel: u32,
    pub(crate) wishes: Vec<Wish>,
}

/// What is kept of an engine behind a bus.
struct BehindBus {
    /// Whether the bus was asked for a link and has not answered.
    dialling: bool,
    /// Nothing is heard of it: nobody here can call its workers.
    silent: bool,
    parked: Vec<Parked>,
    round_trip_us: u32,
    idle_since: Option<Instant>,
}

/// A channel of this host that waits for a link.
struct Parked {
    channel: ChannelId,
    from: WorkerId,
    name: String,
    to: WorkerId,
    socket: OwnedFd,
    page: Option<PermissionView>,
}

/// A worker of the other engine.
struct Foreign {
    info: CatalogWorker,
    functions: BTreeMap<u32, CatalogFunction>,
    /// The same for gates.
    served: Arc<Served>,
    attached: Option<Attached>,
    retry_at: Option<Instant>,
    /// The other engine has told of it, and will tell when it is gone.
    told: bool,
}

struct Attached {
    attach: Attach,
    token: usize,
    up: bool,
    registered: BTreeMap<u32, CatalogFunction>,
    draining: bool,
    next_request: RequestId,
    /// Channels that are to be opened to workers of this engine: number and callee; asked for once it is up.
    waiting: Vec<(u32, WorkerId)>,
    asked: HashMap<RequestId, (OwnedFd, WorkerId, Option<u32>)>,
    channels: HashMap<u32, (Role, WorkerId)>,
}

impl Attached {
    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        self.next_request
    }

    /// Whether somebody here has to do with it at the moment.
    fn is_busy(&self) -> bool {
        !(self.waiting.is_empty() && self.asked.is_empty() && self.channels.is_empty())
    }
}

impl Peer {
    /// `offered`: what it is told of within its grant, where it has dialled; whom this end has dialled is told of all that its
    /// grant has.
    pub(crate) fn new(
        id: WorkerId,
        link: Link,
        engine: &str,
        host: String,
        grant: Grant,
        offered: Option<&[String]>,
    ) -> Self {
        let callable = offered.map_or_else(
            || Callable::new(grant.clone()),
            |offered| Callable::offered(grant.clone(), offered),
        );
        let dialled = offered.is_none();
        Self {
            link: Some(link),
            next_channel: parity(dialled),
            ..Self::empty(id, engine, host, grant, callable)
        }
    }

    /// An engine behind a bus, without a link so far. `callable`: what all engines there may call here.
    pub(crate) fn behind_bus(
        id: WorkerId,
        engine: &str,
        host: String,
        grant: Grant,
        callable: Arc<Callable>,
        round_trip_us: u32,
    ) -> Self {
        let bus =
            BehindBus { dialling: false, silent: false, parked: Vec::new(), round_trip_us, idle_since: None };
        Self { bus: Some(bus), ..Self::empty(id, engine, host, grant, callable) }
    }

    fn empty(id: WorkerId, engine: &str, host: String, grant: Grant, callable: Arc<Callable>) -> Self {
        Self {
            id,
            link: None,
            engine: engine.to_owned(),
            host,
            grant,
            offers: Offers::new(callable),
            bus: None,
            foreign: HashMap::new(),
            next_channel: 0,
            wishes: Vec::new(),
        }
    }

    fn message(&self, topic: Topic, bytes: Vec<u8>) {
        if let Some(link) = &self.link {
            link.message(topic.to_u64(), bytes);
        }
    }

    fn tell(&self, message: &EngineLinkMessage) {
        self.message(Topic::Control, serde_json::to_vec(message).unwrap_or_default());
    }

    fn tell_of_channel(&self, number: u32, message: &EngineLinkMessage) {
        let json = serde_json::to_vec(message).unwrap_or_default();
        self.message(Topic::Channel, with_channel(number, &json));
    }

    fn close_channel(&self, number: u32, reason: CloseReason) {
        if let Some(link) = &self.link {
            link.close_channel(number, reason);
        }
    }

    /// Tells the other engine what it may call here: all of it at first, then changes. `worker` finds workers of this engine.
    pub(crate) fn offer<'a>(
        &mut self,
        changes: Vec<Change>,
        reset: bool,
        worker: impl Fn(WorkerId) -> Option<&'a CatalogWorker>,
    ) {
        let told = self.offers.of(changes, worker);
        if reset || !told.is_empty() {
            self.tell(&EngineLinkMessage::Offer { reset, changes: told });
        }
    }

    /// A message of the other engine.
    pub(crate) fn take(&mut self, topic: u64, bytes: &[u8]) -> Result<(), ProxyError> {
        match Topic::from_u64(topic) {
            Some(Topic::Control) => match serde_json::from_slice(bytes)? {
                EngineLinkMessage::Offer { .. } if self.bus.is_some() => {
                    Err(ProxyError::Nonsense("an offer came over a link, not over the bus"))
                }
                EngineLinkMessage::Offer { reset, changes } => {
                    self.take_offer(reset, changes);
                    Ok(())
                }
                _ => Err(ProxyError::Nonsense("a message about a channel came without its number")),
            },
            Some(Topic::Channel) => {
                let (number, json) =
                    split_channel(bytes).ok_or(ProxyError::Nonsense("no number of a channel"))?;
                match serde_json::from_slice(json)? {
                    EngineLinkMessage::Open { from, name, to } => self.open(number, from, name, to),
                    EngineLinkMessage::Refused { error } => {
                        tracing::debug!(number, %error, "the other engine did not open a channel");
                        self.close_channel(number, CloseReason::Goodbye);
                        Ok(())
                    }
                    _ => Err(ProxyError::Nonsense("a message that has no channel came with one")),
                }
            }
            Some(Topic::Telemetry) | None => Ok(()),
        }
    }

    pub(crate) fn take_offer(&mut self, reset: bool, changes: Vec<Change>) {
        let mut touched: HashSet<WorkerId> = HashSet::new();
        if reset {
            for (id, foreign) in &mut self.foreign {
                foreign.functions.clear();
                foreign.served.clear();
                foreign.told = false;
                touched.insert(*id);
            }
        }
        for change in changes {
            match change {
                Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                    touched.insert(worker.id);
                    let id = worker.id;
                    let known = self.foreign.entry(id).or_insert_with(|| Foreign::new(worker.clone()));
                    known.info = worker;
                    known.told = true;
                }
                Change::WorkerDraining { id } => {
                    if let Some(known) = self.foreign.get_mut(&id) {
                        known.info.status = WorkerStatus::Draining;
                        touched.insert(id);
                    }
                }
                Change::WorkerGone { id, .. } => self.forget(id),
                Change::FunctionAdded { function } => {
                    let allowed = self.grant.may_offer(&function.namespace, function.id.as_str());
                    if let Some(known) = self.foreign.get_mut(&function.worker).filter(|_| allowed) {
                        touched.insert(function.worker);
                        known.served.add(function.index, function.id.clone());
                        known.functions.insert(function.index, function);
                    }
                }
                Change::FunctionRemoved { worker, index, .. } => {
                    if let Some(known) = self.foreign.get_mut(&worker) {
                        known.functions.remove(&index);
                        known.served.remove(index);
                        touched.insert(worker);
                    }
                }
                _ => {}
            }
        }
        touched.into_iter().for_each(|id| self.settle(id));
    }

    /// Drops a worker of the other engine, with its attach.
    fn forget(&mut self, id: WorkerId) {
        if let Some(attached) = self.foreign.remove(&id).and_then(|foreign| foreign.attached) {
            self.drop_attach(attached);
        }
    }

    fn drop_attach(&mut self, attached: Attached) {
        for number in attached.channels.keys() {
            self.close_channel(*number, CloseReason::Goodbye);
        }
        self.wishes.push(Wish::Unwatch(attached.token));
    }

    /// Has the engine know a worker as the other one tells of it.
    fn settle(&mut self, id: WorkerId) {
        let silent = self.bus.as_ref().is_some_and(|bus| bus.silent);
        let Some(foreign) = self.foreign.get_mut(&id) else { return };
        if silent {
            if let Some(attached) = foreign.attached.take() {
                self.drop_attach(attached);
            }
            return;
        }
        let wanted = !foreign.functions.is_empty();
        let busy = foreign.attached.as_ref().is_some_and(Attached::is_busy);
        if !wanted && !busy {
            let attached = foreign.attached.take();
            // One that was told of may serve something again, and is told of no second time.
            if !foreign.told {
                self.foreign.remove(&id);
            }
            attached.into_iter().for_each(|attached| self.drop_attach(attached));
            return;
        }
        let Some(attached) = foreign.attached.as_mut() else {
            if foreign.retry_at.is_none() {
                self.attach(id);
            }
            return;
        };
        if !attached.up {
            return;
        }
        let gone =
            attached.registered.iter().filter(|(index, old)| foreign.functions.get(index) != Some(old));
        let gone: Vec<FunctionId> = gone.map(|(_, old)| old.id.clone()).collect();
        let mut messages = Vec::new();
        if !gone.is_empty() {
            attached.registered.retain(|index, old| foreign.functions.get(index) == Some(old));
            messages.push(WorkerMessage::Unregister(Unregister {
                request: attached.request(),
                functions: gone,
                ..Unregister::default()
            }));
        }
        let new = foreign.functions.iter().filter(|(index, _)| !attached.registered.contains_key(index));
        let new: Vec<(u32, CatalogFunction)> =
            new.map(|(index, function)| (*index, function.clone())).collect();
        if !new.is_empty() {
            let functions = new.iter().map(|(_, function)| spec(function)).collect();
            attached.registered.extend(new);
            messages.push(WorkerMessage::Register(Register {
                request: attached.request(),
                functions,
                ..Register::default()
            }));
        }
        if foreign.info.status == WorkerStatus::Draining && !std::mem::replace(&mut attached.draining, true) {
            messages.push(WorkerMessage::Draining {});
        }
        for message in messages {
            if let Err(error) = attached.attach.send(&message, Vec::new()) {
                tracing::warn!(%error, worker = %id, "cannot tell the engine of another engine's worker");
                return;
            }
        }
    }

    fn attach(&mut self, id: WorkerId) {
        let measured = self.link.as_ref().map_or(0, |link| link.distance().round_trip_ns / 1000);
        let assumed = self.bus.as_ref().map_or(0, |bus| bus.round_trip_us);
        let round_trip_us = if self.bus.is_some() && measured == 0 {
            assumed
        } else {
            u32::try_from(measured).unwrap_or(u32::MAX)
        };
        let Some(foreign) = self.foreign.get_mut(&id) else { return };
        let info = &foreign.info;
        let mut hello = Hello::new(id, info.name.clone(), std::process::id());
        hello.namespace.clone_from(&info.namespace);
        hello.runtime.clone_from(&info.runtime);
        // Names are looked up where its calls begin. One view of this catalog for each worker elsewhere would be the first
        // that grows too large.
        hello.catalog = false;
        hello.remote = Some(Remote {
            identity: format!("{ENGINE_IDENTITY}{}", self.id),
            host: self.host.clone(),
            round_trip_us,
        });
        match Attach::new(&self.engine, hello) {
            Ok(attach) => {
                foreign.attached = Some(Attached {
                    attach,
                    token: 0,
                    up: false,
                    registered: BTreeMap::new(),
                    draining: false,
                    next_request: 0,
                    waiting: Vec::new(),
                    asked: HashMap::new(),
                    channels: HashMap::new(),
                });
                self.wishes.push(Wish::Watch(id));
            }
            Err(error) => {
                tracing::error!(%error, worker = %id, "cannot attach a worker of another engine");
                foreign.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// The attach of a worker, and where its token is kept.
    pub(crate) fn watched(&mut self, id: WorkerId) -> Option<(&Attach, &mut usize)> {
        let attached = self.foreign.get_mut(&id)?.attached.as_mut()?;
        Some((&attached.attach, &mut attached.token))
    }

    /// All tokens, for an end.
    pub(crate) fn tokens(&self) -> Vec<usize> {
        self.foreign
            .values()
            .filter_map(|foreign| foreign.attached.as_ref())
            .map(|attached| attached.token)
            .collect()
    }

    /// A worker of the other engine calls one of this engine.
    fn open(&mut self, number: u32, from: WorkerId, name: String, to: WorkerId) -> Result<(), ProxyError> {
        if number & DIALLER == self.next_channel & DIALLER {
            return Err(ProxyError::Nonsense("a channel's number is one of this end's"));
        }
        let info = || CatalogWorker {
            id: from,
            name,
            namespace: ringway_protocol::naming::NAMESPACE_DEFAULT.to_owned(),
            zone: String::new(),
            pid: 0,
            runtime: String::new(),
            status: WorkerStatus::Ready,
            remote: None,
        };
        let foreign = self.foreign.entry(from).or_insert_with(|| Foreign::new(info()));
        if foreign.attached.is_none() {
            if foreign.retry_at.is_some() {
                let text = "this engine knows the caller in another way; one worker is reached over one link";
                let error = CallError::new(ErrorCode::RegistrationConflict, text);
                self.tell_of_channel(number, &EngineLinkMessage::Refused { error });
                return Ok(());
            }
            self.attach(from);
        }
        if let Some(attached) = self.foreign.get_mut(&from).and_then(|foreign| foreign.attached.as_mut()) {
            attached.waiting.push((number, to));
        }
        self.connect_waiting(from);
        Ok(())
    }

    fn connect_waiting(&mut self, id: WorkerId) {
        let Some(attached) = self.foreign.get_mut(&id).and_then(|foreign| foreign.attached.as_mut()) else {
            return;
        };
        if !attached.up {
            return;
        }
        for (number, to) in std::mem::take(&mut attached.waiting) {
            let connected =
                socket::seqpacket_pair().map_err(AttachError::Connect).and_then(|(ours, theirs)| {
                    let request = attached.request();
                    attached.asked.insert(request, (ours, to, Some(number)));
                    attached.attach.send(&WorkerMessage::Connect { request, to }, vec![Arc::new(theirs)])
                });
            if let Err(error) = connected {
                tracing::warn!(%error, "cannot ask the engine for a channel");
            }
        }
    }

    /// Reads what the engine of this host says to a worker of the other one.
    pub(crate) fn read(&mut self, id: WorkerId) {
        loop {
            let Some(attached) = self.foreign.get_mut(&id).and_then(|foreign| foreign.attached.as_mut())
            else {
                return;
            };
            match attached.attach.receive() {
                Ok(None) => return,
                Ok(Some((message, fds))) => self.take_local(id, message, fds),
                Err(error) => {
                    tracing::debug!(%error, worker = %id, "the attach of another engine's worker is over");
                    self.lose(id);
                    return;
                }
            }
        }
    }

    /// An attach is over although the worker is not: tried again later, if the worker serves something.
    fn lose(&mut self, id: WorkerId) {
        let Some(foreign) = self.foreign.get_mut(&id) else { return };
        let attached = foreign.attached.take();
        foreign.retry_at = Some(Instant::now() + RETRY);
        if let Some(attached) = attached {
            for (number, _) in &attached.waiting {
                let error =
                    CallError::new(ErrorCode::EngineUnavailable, "the engine did not take the caller in");
                self.tell_of_channel(*number, &EngineLinkMessage::Refused { error });
            }
            self.drop_attach(attached);
        }
    }

    /// Whether an attach is to be tried again at a time.
    pub(crate) fn waits_for_retry(&self) -> bool {
        self.foreign.values().any(|foreign| foreign.retry_at.is_some())
    }

    /// Attaches again whose time has come.
    pub(crate) fn retry(&mut self) {
        let now = Instant::now();
        let due = self.foreign.iter().filter(|(_, foreign)| foreign.retry_at.is_some_and(|at| at <= now));
        let due: Vec<WorkerId> = due.map(|(id, _)| *id).collect();
        for id in due {
            if let Some(foreign) = self.foreign.get_mut(&id) {
                foreign.retry_at = None;
                self.settle(id);
            }
        }
    }

    fn take_local(&mut self, id: WorkerId, message: EngineMessage, fds: Vec<OwnedFd>) {
        let Some(attached) = self.foreign.get_mut(&id).and_then(|foreign| foreign.attached.as_mut()) else {
            return;
        };
        match message {
            EngineMessage::Welcome(_) => {
                attached.up = true;
                self.settle(id);
                self.connect_waiting(id);
            }
            EngineMessage::Incoming { channel, from, name, .. } => {
                let mut fds = fds.into_iter();
                let (socket, _process, page) = (fds.next(), fds.next(), fds.next());
                let Some(socket) = socket else { return };
                let page = page.and_then(|page| PermissionView::map(page).ok());
                let parked = Parked { channel, from, name, to: id, socket, page };
                match (&self.link, &mut self.bus) {
                    (None, Some(bus)) => {
                        bus.parked.push(parked);
                        if !std::mem::replace(&mut bus.dialling, true) {
                            self.wishes.push(Wish::Dial);
                        }
                    }
                    _ => self.carry_to_callee(parked),
                }
            }
            EngineMessage::Connected { request, channel } => {
                let Some((socket, to, number)) = attached.asked.remove(&request) else { return };
                let (Some(number), Some(link)) = (number, &self.link) else {
                    // The link that it was for is gone.
                    let over = WorkerMessage::Disconnected { peer: to };
                    if let Err(error) = attached.attach.send(&over, Vec::new()) {
                        tracing::debug!(%error, "the engine was gone first");
                    }
                    return self.settle(id);
                };
                attached.channels.insert(number, (Role::Caller, to));
                let gate = Arc::new(OutwardGate { callable: Arc::clone(&self.offers.callable), callee: to });
                let end = End {
                    number,
                    channel,
                    socket,
                    role: Role::Caller,
                    worker: id,
                    peer: to,
                    gate,
                    first: false,
                };
                if let Err(error) = end.carry(link) {
                    let error = not_opened(&error, to);
                    self.tell_of_channel(number, &EngineLinkMessage::Refused { error });
                    self.channel_over(number);
                }
            }
            EngineMessage::ConnectFailed { request, error } => {
                if let Some((_, _, Some(number))) = attached.asked.remove(&request) {
                    self.tell_of_channel(number, &EngineLinkMessage::Refused { error });
                }
                self.settle(id);
            }
            EngineMessage::Revoked { caller, callee, error } => {
                let (role, other) =
                    if caller == id { (Role::Caller, callee) } else { (Role::Callee, caller) };
                let found = attached.channels.iter().find(|(_, known)| **known == (role, other));
                if let Some(number) = found.map(|(number, _)| *number) {
                    tracing::debug!(%error, "a channel over a link was revoked");
                    self.close_channel(number, CloseReason::Local);
                }
            }
            EngineMessage::Registered { results, .. } => {
                for result in results.iter().filter(|result| result.outcome == RegistrationOutcome::Refused) {
                    tracing::warn!(id = result.id, error = ?result.error, "a function of another engine was not registered");
                }
            }
            EngineMessage::Refused { error } => {
                tracing::info!(%error, worker = %id, "a worker of another engine was not taken in");
            }
            _ => {}
        }
    }

    /// Has the link carry a channel from a caller of this host.
    fn carry_to_callee(&mut self, parked: Parked) {
        let Parked { channel, from, name, to, socket, page } = parked;
        let Some(foreign) = self.foreign.get_mut(&to) else { return };
        let (Some(link), Some(attached)) = (&self.link, foreign.attached.as_mut()) else { return };
        self.next_channel = self.next_channel.wrapping_add(2);
        let number = self.next_channel;
        attached.channels.insert(number, (Role::Callee, from));
        let gate = Arc::new(InwardGate { page, served: Arc::clone(&foreign.served) });
        let end =
            End { number, channel, socket, role: Role::Callee, worker: to, peer: from, gate, first: true };
        match end.carry(link) {
            Ok(()) => self.tell_of_channel(number, &EngineLinkMessage::Open { from, name, to }),
            Err(error) => tracing::warn!(%error, "cannot open a channel over a link"),
        }
    }

    pub(crate) fn is_behind_bus(&self) -> bool {
        self.bus.is_some()
    }

    /// Where it is, in words.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Behind a bus: there is a link now, which takes the place of one before.
    pub(crate) fn linked(&mut self, link: Link, dialled: bool) {
        self.unlinked();
        self.next_channel = parity(dialled);
        self.link = Some(link);
        let Some(bus) = &mut self.bus else { return };
        bus.dialling = false;
        bus.idle_since = None;
        let parked = std::mem::take(&mut bus.parked);
        parked.into_iter().for_each(|parked| self.carry_to_callee(parked));
    }

    /// Behind a bus: the link is gone, and with it what it carried; the workers stay.
    pub(crate) fn unlinked(&mut self) {
        if self.link.take().is_none() {
            return;
        }
        for (id, foreign) in &mut self.foreign {
            let Some(attached) = &mut foreign.attached else { continue };
            attached.waiting.clear();
            attached.asked.values_mut().for_each(|(_, _, number)| *number = None);
            for (role, peer) in std::mem::take(&mut attached.channels).into_values() {
                let over = WorkerMessage::Disconnected { peer };
                if role == Role::Caller
                    && let Err(error) = attached.attach.send(&over, Vec::new())
                {
                    tracing::debug!(%error, worker = %id, "the engine was gone first");
                }
            }
        }
        let all: Vec<WorkerId> = self.foreign.keys().copied().collect();
        all.into_iter().for_each(|id| self.settle(id));
    }

    /// Behind a bus: no link is to be had. Whoever waited for it hears that, by the end of its channel's socket.
    pub(crate) fn not_linked(&mut self, why: &str) {
        let Some(bus) = &mut self.bus else { return };
        bus.dialling = false;
        if !bus.parked.is_empty() {
            tracing::warn!(engine = %self.id, why, calls = bus.parked.len(), "no link over the bus");
        }
        bus.parked.clear();
    }

    /// Behind a bus: whether anything is heard of it.
    pub(crate) fn set_silent(&mut self, silent: bool) {
        let Some(bus) = &mut self.bus else { return };
        if std::mem::replace(&mut bus.silent, silent) == silent {
            return;
        }
        if silent {
            bus.parked.clear();
        }
        let all: Vec<WorkerId> = self.foreign.keys().copied().collect();
        all.into_iter().for_each(|id| self.settle(id));
    }

    /// Behind a bus: whether its link has carried nothing for so long. It is to be asked from time to time.
    pub(crate) fn is_idle(&mut self, longest: Duration) -> bool {
        let (Some(_), Some(bus)) = (&self.link, &mut self.bus) else { return false };
        let busy =
            self.foreign.values().filter_map(|foreign| foreign.attached.as_ref()).any(Attached::is_busy);
        if busy {
            bus.idle_since = None;
            return false;
        }
        bus.idle_since.get_or_insert_with(Instant::now).elapsed() >= longest
    }

    /// A channel is over.
    pub(crate) fn channel_over(&mut self, number: u32) {
        let of_channel = self.foreign.iter_mut().find_map(|(id, foreign)| {
            let attached = foreign.attached.as_mut()?;
            attached.channels.remove(&number).map(|channel| (*id, attached, channel))
        });
        let Some((id, attached, (role, peer))) = of_channel else { return };
        if role == Role::Caller
            && let Err(error) = attached.attach.send(&WorkerMessage::Disconnected { peer }, Vec::new())
        {
            tracing::debug!(%error, "the engine was gone first");
        }
        self.settle(id);
    }

    pub(crate) fn flush(&mut self) {
        let mut lost = Vec::new();
        for (id, foreign) in &mut self.foreign {
            if let Some(attached) = &mut foreign.attached
                && attached.attach.flush().is_err()
            {
                lost.push(*id);
            }
        }
        for id in lost {
            // What the engine said last, such as a refusal, may still be there.
            self.read(id);
            self.lose(id);
        }
    }
}

/// Where the numbers of the channels begin that this end opens.
fn parity(dialled: bool) -> u32 {
    if dialled { DIALLER } else { 0 }
}

impl Foreign {
    fn new(info: CatalogWorker) -> Self {
        let (functions, served) = (BTreeMap::new(), Arc::default());
        Self { info, functions, served, attached: None, retry_at: None, told: false }
    }
}

/// A function as the other engine's catalog has it.
fn spec(function: &CatalogFunction) -> FunctionSpec {
    FunctionSpec {
        generation: function.generation,
        encodings: function.encodings.clone(),
        type_key: function.type_key.clone(),
        idempotent: function.idempotent,
        streams_in: function.streams_in,
        streams_out: function.streams_out,
        streams_optional: function.streams_optional,
        ..FunctionSpec::new(function.id.clone(), function.index)
    }
}
