//! A link in place of the control socket. Messages travel as they are; those that would carry the descriptor of a channel's
//! socket name a channel of the link, whose other end this module makes here, so that the rest of the SDK sees a channel
//! like any other. Used by [`super::stream`]. It must not know registrations or calls.
//!
//! Dialling takes as long as the network likes, and the control thread has timers to look after: so a thread of its own
//! dials, and messages wait until it is done.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_access::handshake::{ClockReading, Introduction, PeerKind};
use ringway_access::{Credentials, DialError, LinkAddress, dial};
use ringway_ipc::channel::{ChannelConfig, Opening, Role};
use ringway_ipc::clock::{now_ns, unix_ns};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::sys::socket;
use ringway_link::News;
use ringway_link::driver::{Driver, Link, Owner};
use ringway_link::fault::Ended;
use ringway_link::tunnel::Open;
use ringway_protocol::control::{ChannelId, EngineMessage, RequestId, WorkerMessage};
use ringway_protocol::link::{DIALLER, Topic, split_channel, with_channel};
use ringway_protocol::{CallError, WorkerId};

use super::stream::ReadError;
use crate::links::{Links, connection};

/// Where a link leads and what opens the door there.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) address: LinkAddress,
    pub(crate) credentials: Arc<Credentials>,
    /// Who moves the link's bytes.
    pub(crate) links: Arc<Links>,
}

/// Who dials.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) worker: WorkerId,
    pub(crate) name: String,
    pub(crate) release: String,
}

/// What came and nobody has read yet.
#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    /// Messages for a link that is not there yet.
    waiting: Vec<(Topic, Vec<u8>)>,
    came: VecDeque<(u64, Vec<u8>)>,
    over: Option<ReadError>,
    left: bool,
}

struct Ear {
    inbox: Arc<Inbox>,
    bell: Doorbell,
}

impl Owner for Ear {
    fn news(&self, news: News) {
        // The end of a channel is told by its own socket.
        if let News::Message { topic, bytes } = news {
            self.inbox.state.lock().came.push_back((topic, bytes));
            self.bell.notify();
        }
    }

    fn over(&self, why: &Ended) {
        self.inbox.state.lock().over.get_or_insert_with(|| ReadError::Link(why.to_string()));
        self.bell.notify();
    }
}

/// The clocks of this host.
fn clocks() -> ClockReading {
    ClockReading { monotonic_ns: now_ns(), unix_ms: unix_ns() / 1_000_000 }
}

/// See the module.
pub(crate) struct Remote {
    inbox: Arc<Inbox>,
    bell: Doorbell,
    caller: Caller,
    /// What this worker brings to a channel; a tunnel's end brings the rest.
    channel: ChannelConfig,
    /// Channels that were asked for: the callee's end of the socket, the callee, the number.
    asked: HashMap<RequestId, (Arc<OwnedFd>, WorkerId, u32)>,
    next_channel: u32,
    _driver: Arc<Driver>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Remote {
    /// Begins to dial. What becomes of it is told by the first [`Self::receive`] after the descriptor is readable.
    ///
    /// # Errors
    /// Threads or descriptors ran out.
    pub(crate) fn dial(
        destination: Destination,
        caller: Caller,
        channel: ChannelConfig,
        timeout: Duration,
    ) -> io::Result<Self> {
        let driver = destination.links.driver()?;
        let bell = Doorbell::new()?;
        let inbox = Arc::new(Inbox::default());
        let remote = Self {
            inbox: Arc::clone(&inbox),
            bell: bell.clone(),
            caller: caller.clone(),
            channel,
            asked: HashMap::new(),
            next_channel: DIALLER,
            _driver: Arc::clone(&driver),
        };
        std::thread::Builder::new().name("ringway-dial".to_owned()).spawn(move || {
            let me = Introduction {
                kind: PeerKind::Worker,
                id: caller.worker,
                name: caller.name,
                release: caller.release,
            };
            let Destination { address, credentials, .. } = destination;
            let deadline = Instant::now() + timeout;
            let prepare = |socket: &TcpStream| connection().apply(socket);
            match dial(&address, &credentials, &me, &clocks, &prepare, deadline) {
                Ok(dialled) => {
                    let mut state = inbox.state.lock();
                    if state.left {
                        return;
                    }
                    let owner = Arc::new(Ear { inbox: Arc::clone(&inbox), bell });
                    let link = driver.add(dialled.socket.into(), dialled.tls, owner);
                    for (topic, bytes) in std::mem::take(&mut state.waiting) {
                        link.message(topic.to_u64(), bytes);
                    }
                    state.link = Some(link);
                }
                Err(error) => {
                    let over = match error {
                        DialError::Refused(error) => ReadError::Refused(error),
                        other => ReadError::Link(other.to_string()),
                    };
                    inbox.state.lock().over = Some(over);
                    bell.notify();
                }
            }
        })?;
        Ok(remote)
    }

    fn message(&self, topic: Topic, bytes: Vec<u8>) {
        let mut state = self.inbox.state.lock();
        match &state.link {
            Some(link) => link.message(topic.to_u64(), bytes),
            None => state.waiting.push((topic, bytes)),
        }
    }

    /// Sends telemetry records.
    pub(crate) fn telemetry(&self, records: Vec<u8>) {
        self.message(Topic::Telemetry, records);
    }

    /// Wakes whoever reads this.
    pub(crate) fn bell(&self) -> Doorbell {
        self.bell.clone()
    }

    /// What to add to a time of this host to have the engine's, nanoseconds.
    pub(crate) fn offset_ns(&self) -> i64 {
        self.inbox.state.lock().link.as_ref().map_or(0, |link| link.distance().offset_ns)
    }

    pub(super) fn send(&mut self, message: &WorkerMessage, mut fds: Vec<Arc<OwnedFd>>) -> io::Result<()> {
        let json = serde_json::to_vec(message)?;
        let WorkerMessage::Connect { request, to } = message else {
            self.message(Topic::Control, json);
            return Ok(());
        };
        let Some(socket) = fds.pop() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let number = self.next_channel;
        self.next_channel = number.wrapping_add(2);
        self.asked.insert(*request, (socket, *to, number));
        self.message(Topic::Channel, with_channel(number, &json));
        Ok(())
    }

    pub(super) fn receive(&mut self) -> Result<Option<(EngineMessage, Vec<OwnedFd>)>, ReadError> {
        loop {
            let (topic, bytes) = {
                let mut state = self.inbox.state.lock();
                match state.came.pop_front() {
                    Some(message) => message,
                    None => {
                        self.bell.clear();
                        return state.over.take().map_or(Ok(None), Err);
                    }
                }
            };
            match Topic::from_u64(topic) {
                Some(Topic::Control) => {
                    let message = serde_json::from_slice(&bytes)?;
                    if let EngineMessage::ConnectFailed { request, .. } = &message {
                        self.asked.remove(request);
                    }
                    return Ok(Some((message, Vec::new())));
                }
                Some(Topic::Channel) => {
                    let (number, json) = split_channel(&bytes).ok_or_else(nonsense)?;
                    if let Some(message) = self.channel(number, serde_json::from_slice(json)?)? {
                        return Ok(Some(message));
                    }
                }
                // An engine has no records for its workers; a later one may have topics that are new.
                Some(Topic::Telemetry) | None => {}
            }
        }
    }

    /// A message about a channel of the link: makes the end that faces this worker.
    fn channel(
        &mut self,
        number: u32,
        message: EngineMessage,
    ) -> Result<Option<(EngineMessage, Vec<OwnedFd>)>, ReadError> {
        match &message {
            EngineMessage::Connected { request, channel } => {
                let Some((socket, to, asked)) = self.asked.remove(request) else { return Ok(None) };
                if asked != number {
                    return Err(nonsense());
                }
                let socket = Arc::try_unwrap(socket).or_else(|socket| socket.try_clone()).map_err(failed)?;
                self.open(number, *channel, socket, Role::Callee, to)?;
                Ok(Some((message, Vec::new())))
            }
            EngineMessage::Incoming { channel, from, .. } => {
                let (ours, theirs) = socket::seqpacket_pair().map_err(failed)?;
                self.open(number, *channel, ours, Role::Caller, *from)?;
                Ok(Some((message, vec![theirs])))
            }
            _ => Err(nonsense()),
        }
    }

    /// Has the link carry a channel whose one end faces this worker and plays `role`, in the name of `peer`.
    fn open(
        &self,
        number: u32,
        channel: ChannelId,
        socket: OwnedFd,
        role: Role,
        peer: WorkerId,
    ) -> Result<(), ReadError> {
        let Some(link) = self.inbox.state.lock().link.clone() else { return Err(nonsense()) };
        let config = ChannelConfig {
            channel,
            worker: peer.get(),
            peer_worker: self.caller.worker.get(),
            worker_bell: link.bell(),
            // The driver looks before it sleeps, with a fence; whoever publishes to it pays for one too.
            barrier_before_sleep: false,
            ..self.channel.clone()
        };
        let opening = Opening::start(socket, role, config).map_err(failed)?;
        link.add_channel(number, opening, role, Arc::new(Open), false);
        Ok(())
    }
}

impl AsFd for Remote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut state = self.inbox.state.lock();
        state.left = true;
        if let Some(link) = state.link.take() {
            link.close();
        }
    }
}

fn nonsense() -> ReadError {
    ReadError::Refused(CallError::new(
        ringway_protocol::ErrorCode::ProtocolViolation,
        "the engine sent a message about a channel of a link that means nothing",
    ))
}

fn failed(error: impl std::fmt::Display) -> ReadError {
    ReadError::Link(format!("cannot open a channel over a link: {error}"))
}
