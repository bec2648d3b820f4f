//! One remote worker, as the engine sees it: an attach of its own, over which its messages go within what it was granted.
//! Used by [`crate::gateway`]. It must not know sockets of other hosts.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_access::Grant;
use ringway_ipc::channel::Role;
use ringway_ipc::frame::Inline;
use ringway_ipc::permission::PermissionView;
use ringway_ipc::records::{PreparedRecords, Records};
use ringway_ipc::sys::socket;
use ringway_link::driver::Link;
use ringway_link::tunnel::Gate;
use ringway_protocol::control::{
    ChannelId, EngineMessage, Register, RegistrationResult, Remote, RequestId, TriggerSpec, WorkerMessage,
};
use ringway_protocol::limits::TELEMETRY_BYTES;
use ringway_protocol::link::{DIALLER, Topic, push_record, records, split_channel, with_channel};
use ringway_protocol::{CallError, ErrorCode, WorkerId};
use serde_json::Value;

use crate::attach::{Attach, AttachError, End, not_opened};
use crate::callable::{Callable, InwardGate, OutwardGate, Served};

/// Bytes of records that wait for the engine to read.
const RECORDS_WAITING_BYTES_MAX: usize = 4 << 20;

/// Why a remote worker is put out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error(transparent)]
    Engine(#[from] AttachError),
    #[error("a message is none: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Nonsense(&'static str),
}

/// See the module.
pub(crate) struct Proxy {
    pub(crate) worker: WorkerId,
    pub(crate) link: Link,
    pub(crate) attach: Attach,
    callable: Arc<Callable>,
    /// The revision of the catalog as the worker counts it, who does not see all of its changes.
    revision: u64,
    /// Channels that it asked for: this end of the socket, the callee, the number on the link.
    asked: HashMap<RequestId, (OwnedFd, WorkerId, u32)>,
    /// What of a registration was refused here, with the place in the answer.
    refused: HashMap<RequestId, Vec<(usize, RegistrationResult)>>,
    next_channel: u32,
    /// The namespace of all that it registers.
    namespace: String,
    /// Where its records go, once the engine has said so.
    records: Option<Records>,
    prepared: Option<PreparedRecords>,
    /// Records that found no room there.
    unread: Vec<u8>,
    remote: Remote,
    served: Arc<Served>,
}

impl Proxy {
    /// Attaches to the engine in the worker's name; its greeting follows.
    pub(crate) fn new(
        worker: WorkerId,
        link: Link,
        attach: Attach,
        callable: Arc<Callable>,
        remote: Remote,
    ) -> Self {
        Self {
            worker,
            link,
            attach,
            callable,
            revision: 0,
            asked: HashMap::new(),
            refused: HashMap::new(),
            next_channel: 0,
            namespace: ringway_protocol::naming::NAMESPACE_DEFAULT.to_owned(),
            records: None,
            prepared: None,
            unread: Vec::new(),
            remote,
            served: Arc::default(),
        }
    }

    /// A message of the remote worker.
    pub(crate) fn take_from_worker(&mut self, topic: u64, bytes: &[u8]) -> Result<(), ProxyError> {
        match Topic::from_u64(topic) {
            Some(Topic::Control) => match serde_json::from_slice(bytes)? {
                WorkerMessage::Hello(hello) if hello.worker_id != self.worker => {
                    Err(ProxyError::Nonsense("the greeting names another worker than the handshake"))
                }
                WorkerMessage::Hello(mut hello) => {
                    // The engine compares with what the kernel says of this process.
                    hello.pid = std::process::id();
                    hello.channels.clear();
                    // It is what the engine makes of this process, whatever it asks for.
                    hello.zone = None;
                    self.namespace.clone_from(&hello.namespace);
                    let round_trip_us = self.link.distance().round_trip_ns / 1000;
                    hello.remote = Some(Remote {
                        round_trip_us: u32::try_from(round_trip_us).unwrap_or(u32::MAX),
                        ..self.remote.clone()
                    });
                    let fd = match PreparedRecords::new(self.worker.get()) {
                        Ok((prepared, fd)) => {
                            self.prepared = Some(prepared);
                            Some(Arc::new(fd))
                        }
                        Err(error) => {
                            tracing::warn!(%error, "spans and logs of a remote worker are not kept");
                            None
                        }
                    };
                    self.tell_engine(&WorkerMessage::Hello(hello), fd.into_iter().collect())
                }
                WorkerMessage::Register(register) => self.register(register),
                WorkerMessage::Unregister(unregister) => {
                    self.served.remove_by_id(&unregister.functions);
                    self.tell_engine(&WorkerMessage::Unregister(unregister), Vec::new())
                }
                WorkerMessage::Connect { .. } => {
                    Err(ProxyError::Nonsense("a channel was asked for without a number"))
                }
                message => self.tell_engine(&message, Vec::new()),
            },
            Some(Topic::Channel) => {
                let (number, json) =
                    split_channel(bytes).ok_or(ProxyError::Nonsense("no number of a channel"))?;
                let WorkerMessage::Connect { request, to } = serde_json::from_slice(json)? else {
                    return Err(ProxyError::Nonsense("a message that has no channel came with one"));
                };
                self.connect(number, request, to)
            }
            Some(Topic::Telemetry) => {
                self.keep_records(bytes);
                Ok(())
            }
            // A later release may have topics that are new.
            None => Ok(()),
        }
    }

    /// Passes records on as if the worker had written them here; those that find no room wait for the engine to read.
    pub(crate) fn keep_records(&mut self, bytes: &[u8]) {
        let Some(ring) = &mut self.records else { return };
        if self.unread.len() + bytes.len() > RECORDS_WAITING_BYTES_MAX {
            tracing::warn!(worker = %self.worker, bytes = bytes.len(), "records of a remote worker are lost: the engine does not read");
        } else {
            // Record by record: what is torn or too long is left out, and spoils nothing that comes behind it.
            let whole = records(bytes).filter(|record| record.len() <= TELEMETRY_BYTES);
            whole.for_each(|record| push_record(&mut self.unread, record));
        }
        let mut place = Inline::default();
        let mut taken = 0;
        let mut broken = false;
        for record in records(&self.unread) {
            place.bytes_mut()[..record.len()].copy_from_slice(record);
            match ring.push(&place, u16::try_from(record.len()).unwrap_or(0)) {
                Ok(true) => taken += 1 + record.len(),
                Ok(false) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            tracing::warn!("the engine broke its telemetry page; records of a remote worker are lost");
            self.records = None;
            self.unread.clear();
            return;
        }
        self.unread.drain(..taken);
        if let Some(bell) = ring.bell_asked() {
            bell.notify();
        }
    }

    /// Whether records wait for the engine to read.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    fn tell_engine(&mut self, message: &WorkerMessage, fds: Vec<Arc<OwnedFd>>) -> Result<(), ProxyError> {
        Ok(self.attach.send(message, fds)?)
    }

    fn tell_worker(&self, message: &EngineMessage) -> Result<(), ProxyError> {
        self.link.message(Topic::Control.to_u64(), serde_json::to_vec(message)?);
        Ok(())
    }

    /// Registers what the grant has, and keeps the refusals for the answer.
    fn register(&mut self, mut register: Register) -> Result<(), ProxyError> {
        let namespace = self.namespace.as_str();
        let grant = self.callable.grant();
        let mut refused = Vec::new();
        let mut place = 0;
        let mut check = |id: &str, allowed: bool, what: &str| {
            if !allowed {
                let text = format!(
                    "the link's grant does not have {what} `{id}`; `offer` and `triggers` in the token or in the engine's \
                     `links` settings say what a remote worker may register"
                );
                let error = CallError::new(ErrorCode::Forbidden, text);
                refused.push((place, RegistrationResult::refused(id, error)));
            }
            place += 1;
            allowed
        };
        register.functions.retain(|function| {
            let id = function.id.as_str();
            check(id, grant.may_offer(namespace, id), "function")
        });
        register
            .trigger_types
            .retain(|kind| check(&kind.id, grant.may_trigger(namespace, &kind.id), "trigger type"));
        register.triggers.retain(|trigger| {
            let kind = &trigger.trigger_type;
            let allowed = grant.may_trigger(namespace, kind)
                && may_lead_to(grant, trigger.namespace.as_deref().unwrap_or(namespace), trigger);
            check(&trigger.id, allowed, "trigger (or the function that it leads to)")
        });
        for function in &register.functions {
            self.served.add(function.index, function.id.clone());
        }
        if !refused.is_empty() {
            self.refused.insert(register.request, refused);
        }
        self.tell_engine(&WorkerMessage::Register(register), Vec::new())
    }

    /// The remote worker wants to call somebody.
    fn connect(&mut self, number: u32, request: RequestId, to: WorkerId) -> Result<(), ProxyError> {
        if number & DIALLER == 0 {
            return Err(ProxyError::Nonsense("a channel's number is not one of whoever dialled"));
        }
        match socket::seqpacket_pair() {
            Ok((ours, theirs)) => {
                self.asked.insert(request, (ours, to, number));
                self.tell_engine(&WorkerMessage::Connect { request, to }, vec![Arc::new(theirs)])
            }
            Err(error) => {
                let text = format!("the engine cannot make a socket for a channel: {error}");
                let error = CallError::new(ErrorCode::OutOfMemory, text);
                self.tell_worker(&EngineMessage::ConnectFailed { request, error })
            }
        }
    }

    /// Reads what the engine has said. `false`: it has closed the connection.
    pub(crate) fn read_engine(&mut self) -> Result<bool, ProxyError> {
        loop {
            match self.attach.receive() {
                Ok(None) => return Ok(true),
                Ok(Some((message, fds))) => self.take_from_engine(message, fds)?,
                Err(AttachError::Gone) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_from_engine(&mut self, message: EngineMessage, fds: Vec<OwnedFd>) -> Result<(), ProxyError> {
        match message {
            EngineMessage::Welcome(mut welcome) => {
                if let Some(prepared) = self.prepared.take() {
                    let barrier = ringway_ipc::sys::barrier::register();
                    let attached = prepared.attach(fds, ringway_ipc::limits::SEGMENT_BYTES_MAX, barrier);
                    self.records = attached
                        .map_err(|error| tracing::warn!(%error, "spans of a remote worker are not kept"))
                        .ok();
                }
                self.callable.keep_callable(&mut welcome.catalog);
                self.revision = welcome.catalog.revision;
                self.tell_worker(&EngineMessage::Welcome(welcome))
            }
            EngineMessage::CatalogChange { changes, .. } => {
                let changes = self.callable.keep_callable_of(changes);
                if changes.is_empty() {
                    return Ok(());
                }
                self.revision = self.revision.wrapping_add(changes.len() as u64);
                self.tell_worker(&EngineMessage::CatalogChange { revision: self.revision, changes })
            }
            EngineMessage::Registered { request, mut results } => {
                for (place, result) in self.refused.remove(&request).unwrap_or_default() {
                    results.insert(place.min(results.len()), result);
                }
                self.tell_worker(&EngineMessage::Registered { request, results })
            }
            EngineMessage::Connected { request, channel } => self.connected(request, channel),
            EngineMessage::ConnectFailed { request, error } => {
                self.asked.remove(&request);
                self.tell_worker(&EngineMessage::ConnectFailed { request, error })
            }
            EngineMessage::Incoming { channel, from, name, zone } => {
                self.incoming(channel, from, name, zone, fds)
            }
            // A page lies in the memory of this host, and calls are held against it here.
            EngineMessage::Permissions { .. } => Ok(()),
            other => self.tell_worker(&other),
        }
    }

    /// The engine has handed the callee its end of a socket: the other end is this one's, in the remote worker's place.
    fn connected(&mut self, request: RequestId, channel: ChannelId) -> Result<(), ProxyError> {
        let Some((socket, callee, number)) = self.asked.remove(&request) else { return Ok(()) };
        let gate = Arc::new(OutwardGate { callable: Arc::clone(&self.callable), callee });
        match self.open(number, channel, socket, Role::Caller, callee, gate) {
            Ok(()) => {
                let json = serde_json::to_vec(&EngineMessage::Connected { request, channel })?;
                self.link.message(Topic::Channel.to_u64(), with_channel(number, &json));
                Ok(())
            }
            Err(error) => {
                self.tell_engine(&WorkerMessage::Disconnected { peer: callee }, Vec::new())?;
                self.tell_worker(&EngineMessage::ConnectFailed { request, error })
            }
        }
    }

    /// A worker of this host wants to call the remote one.
    fn incoming(
        &mut self,
        channel: ChannelId,
        from: WorkerId,
        name: String,
        zone: String,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ProxyError> {
        let mut fds = fds.into_iter();
        let (socket, _process, page) = (fds.next(), fds.next(), fds.next());
        let socket = socket.ok_or(ProxyError::Nonsense("the engine announced a channel without a socket"))?;
        let page = page.and_then(|page| PermissionView::map(page).ok());
        self.next_channel = self.next_channel.wrapping_add(2);
        let number = self.next_channel;
        let gate = Arc::new(InwardGate { page, served: Arc::clone(&self.served) });
        match self.open(number, channel, socket, Role::Callee, from, gate) {
            Ok(()) => {
                let incoming = EngineMessage::Incoming { channel, from, name, zone };
                let json = serde_json::to_vec(&incoming)?;
                self.link.message(Topic::Channel.to_u64(), with_channel(number, &json));
            }
            // The caller's end hangs up with the socket, and it hears that there is no channel.
            Err(error) => tracing::warn!(%error, %from, "a channel to a remote worker was not opened"),
        }
        Ok(())
    }

    /// Has the link carry a channel of this host whose one end is the remote worker's and plays `role`.
    fn open(
        &self,
        number: u32,
        channel: ChannelId,
        socket: OwnedFd,
        role: Role,
        peer: WorkerId,
        gate: Arc<dyn Gate>,
    ) -> Result<(), CallError> {
        let end = End { number, channel, socket, role, worker: self.worker, peer, gate, first: true };
        end.carry(&self.link).map_err(|error| not_opened(&error, peer))
    }
}

/// Whether a worker may have a trigger lead where it does: whoever provides the trigger's type calls in its own name, so the
/// function has to be one that the worker may call or serves itself. So must be those that the configuration names, such as
/// conditions.
fn may_lead_to(grant: &Grant, namespace: &str, trigger: &TriggerSpec) -> bool {
    let allowed = |id: &str| grant.may_call(namespace, id) || grant.may_offer(namespace, id);
    allowed(trigger.function_id.as_str()) && named_functions(&trigger.config).all(allowed)
}

/// The functions that a configuration names: texts under keys that speak of a function.
fn named_functions(config: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match config {
        Value::Object(fields) => Box::new(fields.iter().flat_map(|(key, value)| {
            let named = value.as_str().filter(|_| key.contains("function"));
            named.into_iter().chain(named_functions(value))
        })),
        Value::Array(items) => Box::new(items.iter().flat_map(named_functions)),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn functions_are_found_wherever_a_configuration_names_them() {
        let config = json!({
            "condition_function_id": "a::b", "queue": "x::y", "deep": [{"auth_function": "c::d"}, {"functions": 3}],
        });
        let mut found: Vec<&str> = named_functions(&config).collect();
        found.sort_unstable();
        assert_eq!(found, ["a::b", "c::d"]);
    }
}
