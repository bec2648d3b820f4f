//! Another engine, as the engine of this host sees it: its workers that serve something, each by an attach of its own, and
//! those that call somebody here. Used by [`crate::gateway`]. It must not know sockets of other hosts.
//!
//! The two ends are alike. Each tells the other what it offers, and every change of that; each opens, for a caller here, a
//! channel whose other end opens there. A worker keeps its id, and a function its index, everywhere.

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
    CatalogFunction, CatalogWorker, Change, EngineMessage, FunctionSpec, Hello, Register,
    RegistrationOutcome, Remote, RequestId, Unregister, WorkerMessage, WorkerStatus,
};
use ringway_protocol::link::{DIALLER, EngineLinkMessage, Topic, split_channel, with_channel};
use ringway_protocol::{CallError, ErrorCode, FunctionId, WorkerId};

use crate::attach::{Attach, AttachError, End};
use crate::callable::{Callable, InwardGate, OutwardGate};
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
}

/// See the module.
pub(crate) struct Peer {
    /// The other engine.
    pub(crate) id: WorkerId,
    pub(crate) link: Link,
    engine: String,
    host: String,
    grant: Grant,
    callable: Arc<Callable>,
    /// Workers of this engine that the other one was told of.
    told: HashSet<WorkerId>,
    foreign: HashMap<WorkerId, Foreign>,
    next_channel: u32,
    pub(crate) wishes: Vec<Wish>,
}

/// A worker of the other engine.
struct Foreign {
    info: CatalogWorker,
    functions: BTreeMap<u32, CatalogFunction>,
    attached: Option<Attached>,
    retry_at: Option<Instant>,
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
    asked: HashMap<RequestId, (OwnedFd, WorkerId, u32)>,
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
        Self {
            id,
            link,
            engine: engine.to_owned(),
            host,
            callable: offered.map_or_else(
                || Callable::new(grant.clone()),
                |offered| Callable::offered(grant.clone(), offered),
            ),
            grant,
            told: HashSet::new(),
            foreign: HashMap::new(),
            next_channel: if offered.is_none() { DIALLER } else { 0 },
            wishes: Vec::new(),
        }
    }

    fn tell(&self, message: &EngineLinkMessage) {
        let json = serde_json::to_vec(message).unwrap_or_default();
        self.link.message(Topic::Control.to_u64(), json);
    }

    fn tell_of_channel(&self, number: u32, message: &EngineLinkMessage) {
        let json = serde_json::to_vec(message).unwrap_or_default();
        self.link.message(Topic::Channel.to_u64(), with_channel(number, &json));
    }

    /// Tells the other engine what it may call here: all of it at first, then changes. `worker` finds workers of this engine.
    pub(crate) fn offer<'a>(
        &mut self,
        changes: Vec<Change>,
        reset: bool,
        worker: impl Fn(WorkerId) -> Option<&'a CatalogWorker>,
    ) {
        let mut told = Vec::new();
        for change in self.callable.keep_callable_of(changes) {
            match &change {
                // Whoever serves nothing is nobody's business.
                Change::WorkerAdded { worker } | Change::WorkerChanged { worker }
                    if !self.told.contains(&worker.id) => {}
                Change::WorkerDraining { id } if !self.told.contains(id) => {}
                Change::WorkerGone { id, .. } if !self.told.remove(id) => {}
                Change::FunctionAdded { function } => {
                    if self.told.insert(function.worker)
                        && let Some(worker) = worker(function.worker)
                    {
                        told.push(Change::WorkerAdded { worker: worker.clone() });
                    }
                    told.push(change);
                }
                _ => told.push(change),
            }
        }
        if reset || !told.is_empty() {
            self.tell(&EngineLinkMessage::Offer { reset, changes: told });
        }
    }

    /// A message of the other engine.
    pub(crate) fn take(&mut self, topic: u64, bytes: &[u8]) -> Result<(), ProxyError> {
        match Topic::from_u64(topic) {
            Some(Topic::Control) => match serde_json::from_slice(bytes)? {
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
                        self.link.close_channel(number, CloseReason::Goodbye);
                        Ok(())
                    }
                    _ => Err(ProxyError::Nonsense("a message that has no channel came with one")),
                }
            }
            Some(Topic::Telemetry) | None => Ok(()),
        }
    }

    fn take_offer(&mut self, reset: bool, changes: Vec<Change>) {
        let mut touched: HashSet<WorkerId> = HashSet::new();
        if reset {
            for (id, foreign) in &mut self.foreign {
                foreign.functions.clear();
                touched.insert(*id);
            }
        }
        for change in changes {
            match change {
                Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                    touched.insert(worker.id);
                    let id = worker.id;
                    match self.foreign.get_mut(&id) {
                        Some(known) => known.info = worker,
                        None => drop(self.foreign.insert(id, Foreign::new(worker))),
                    }
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
                        known.functions.insert(function.index, function);
                    }
                }
                Change::FunctionRemoved { worker, index, .. } => {
                    if let Some(known) = self.foreign.get_mut(&worker) {
                        known.functions.remove(&index);
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
            self.link.close_channel(*number, CloseReason::Goodbye);
        }
        self.wishes.push(Wish::Unwatch(attached.token));
    }

    /// Has the engine know a worker as the other one tells of it.
    fn settle(&mut self, id: WorkerId) {
        let Some(foreign) = self.foreign.get_mut(&id) else { return };
        let wanted = !foreign.functions.is_empty();
        let busy = foreign.attached.as_ref().is_some_and(Attached::is_busy);
        if !wanted && !busy {
            return self.forget(id);
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
        let round_trip_us = u32::try_from(self.link.distance().round_trip_ns / 1000).unwrap_or(u32::MAX);
        let Some(foreign) = self.foreign.get_mut(&id) else { return };
        let info = &foreign.info;
        let mut hello = Hello::new(id, info.name.clone(), std::process::id());
        hello.namespace.clone_from(&info.namespace);
        hello.runtime.clone_from(&info.runtime);
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
                    attached.asked.insert(request, (ours, to, number));
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

    /// Attaches again whose time has come; says whether others wait.
    pub(crate) fn retry(&mut self) -> bool {
        let now = Instant::now();
        let due = self.foreign.iter().filter(|(_, foreign)| foreign.retry_at.is_some_and(|at| at <= now));
        let due: Vec<WorkerId> = due.map(|(id, _)| *id).collect();
        for id in due {
            if let Some(foreign) = self.foreign.get_mut(&id) {
                foreign.retry_at = None;
                self.settle(id);
            }
        }
        self.foreign.values().any(|foreign| foreign.retry_at.is_some())
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
                self.next_channel = self.next_channel.wrapping_add(2);
                let number = self.next_channel;
                attached.channels.insert(number, (Role::Callee, from));
                let gate = Arc::new(InwardGate { page });
                let end = End {
                    number,
                    channel,
                    socket,
                    role: Role::Callee,
                    worker: id,
                    peer: from,
                    gate,
                    first: true,
                };
                match end.carry(&self.link) {
                    Ok(()) => self.tell_of_channel(number, &EngineLinkMessage::Open { from, name, to: id }),
                    Err(error) => tracing::warn!(%error, "cannot open a channel over a link"),
                }
            }
            EngineMessage::Connected { request, channel } => {
                let Some((socket, to, number)) = attached.asked.remove(&request) else { return };
                attached.channels.insert(number, (Role::Caller, to));
                let gate = Arc::new(OutwardGate { callable: Arc::clone(&self.callable), callee: to });
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
                if let Err(error) = end.carry(&self.link) {
                    let error = CallError::new(ErrorCode::OutOfMemory, error.to_string());
                    self.tell_of_channel(number, &EngineLinkMessage::Refused { error });
                    self.channel_over(number);
                }
            }
            EngineMessage::ConnectFailed { request, error } => {
                if let Some((_, _, number)) = attached.asked.remove(&request) {
                    self.tell_of_channel(number, &EngineLinkMessage::Refused { error });
                }
                self.settle(id);
            }
            EngineMessage::Revoked { caller, callee, error } => {
                let (role, other) =
                    if caller == id { (Role::Caller, callee) } else { (Role::Callee, caller) };
                let number = attached.channels.iter().find(|(_, known)| **known == (role, other));
                if let Some((number, _)) = number {
                    tracing::debug!(%error, "a channel over a link was revoked");
                    self.link.close_channel(*number, CloseReason::Local);
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

impl Foreign {
    fn new(info: CatalogWorker) -> Self {
        Self { info, functions: BTreeMap::new(), attached: None, retry_at: None }
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
