//! Opening, watching and closing channels.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use mio::Token;
use ringway_ipc::channel::{Channel, ChannelConfig, CloseReason, OpenError, Opening, Role};
use ringway_ipc::clock::now_ns;
use ringway_ipc::permission::PermissionView;
use ringway_ipc::sys::socket;
use ringway_protocol::control::{ChannelId, RequestId, WorkerMessage};
use ringway_protocol::{CallError, ErrorCode, Started, WorkerId};

use super::command::{Done, Due};
use super::peers::{Connecting, Introduction, Peers, Phase, State, Waiter, Watched};
use super::run::{Run, after};

/// How long the other end may take to introduce itself.
const OPENING_MAX: Duration = Duration::from_secs(10);

/// Channels that are open or on their way.
#[derive(Default)]
pub(super) struct Channels {
    peers: Peers,
    connecting: HashMap<WorkerId, Connecting>,
    last_waiter: u64,
}

impl Run {
    /// Somebody wants a channel.
    pub(super) fn connect(&mut self, to: WorkerId, deadline_ns: u64, done: Done<Arc<Channel>>) {
        if let Some((key, channel)) = self.channels.peers.open_with(to, Role::Caller) {
            let Some(reason) = channel.close_reason() else { return done(Ok(channel)) };
            // Closed by a thread that found it broken; the news is overtaken by the wish for another.
            self.closed(key, &channel, reason);
        }
        if !self.config.reconnect && !self.link.is_up() {
            return done(Err(self.unavailable("the engine is gone, and this worker does not attach again")));
        }
        self.channels.last_waiter += 1;
        let id = self.channels.last_waiter;
        let due = Due::Connect { to, waiter: id };
        let timer = (deadline_ns != 0).then(|| self.shared.timers.add(deadline_ns, due).0);
        let waiter = Waiter { id, since_ns: now_ns(), timer, done };
        let new = || Connecting { waiters: Vec::new(), phase: Phase::NeedsEngine };
        self.channels.connecting.entry(to).or_insert_with(new).waiters.push(waiter);
        self.ask_for_channel(to);
    }

    /// Asks the engine for a channel, if it is there and was not asked yet.
    fn ask_for_channel(&mut self, to: WorkerId) {
        if !self.link.is_up() {
            return;
        }
        let Some(connecting) = self.channels.connecting.get_mut(&to) else { return };
        if !matches!(connecting.phase, Phase::NeedsEngine) {
            return;
        }
        match socket::seqpacket_pair() {
            Ok((ours, theirs)) => {
                let request = self.shared.next_request();
                connecting.phase = Phase::Asked { request, socket: ours };
                self.link.send(&WorkerMessage::Connect { request, to }, vec![Arc::new(theirs)]);
            }
            Err(error) => {
                let problem = format!("cannot make a socket for a channel: {error}");
                self.connect_over(to, Err(CallError::new(ErrorCode::OutOfMemory, problem)));
            }
        }
    }

    pub(super) fn ask_for_waiting_channels(&mut self) {
        let waiting: Vec<WorkerId> = self.channels.connecting.keys().copied().collect();
        waiting.into_iter().for_each(|to| self.ask_for_channel(to));
    }

    /// Ends all waits for a channel.
    fn connect_over(&mut self, to: WorkerId, outcome: Result<Arc<Channel>, CallError>) {
        if let Some(connecting) = self.channels.connecting.remove(&to) {
            connecting.finish(|timer| drop(self.shared.timers.cancel(timer)), &outcome);
        }
    }

    pub(super) fn fail_connecting(&mut self, error: &CallError) {
        let waiting: Vec<WorkerId> = self.channels.connecting.keys().copied().collect();
        waiting.into_iter().for_each(|to| self.connect_over(to, Err(error.clone())));
    }

    /// One wait is over; the channel may still come, and then waits for the next who asks.
    pub(super) fn give_up_waiting(&mut self, to: WorkerId, waiter: u64) {
        let attached = self.link.is_up();
        let late = self.time_is_up("channel", attached);
        let Some(connecting) = self.channels.connecting.get_mut(&to) else { return };
        let Some(place) = connecting.waiters.iter().position(|known| known.id == waiter) else { return };
        let waiter = connecting.waiters.swap_remove(place);
        let unasked = connecting.waiters.is_empty() && matches!(connecting.phase, Phase::NeedsEngine);
        if unasked {
            self.channels.connecting.remove(&to);
        }
        let waited = Duration::from_nanos(now_ns().saturating_sub(waiter.since_ns));
        (waiter.done)(Err(if attached { CallError::deadline_exceeded(waited) } else { late }));
    }

    /// Finds whose request this was.
    fn asked(&self, request: RequestId) -> Option<WorkerId> {
        let mut all = self.channels.connecting.iter();
        all.find_map(|(to, connecting)| {
            matches!(connecting.phase, Phase::Asked { request: asked, .. } if asked == request).then_some(*to)
        })
    }

    /// The callee has its end of the peer socket.
    pub(super) fn take_connected(&mut self, request: RequestId, channel: ChannelId, fds: Vec<OwnedFd>) {
        let Some(to) = self.asked(request) else { return };
        let Some(connecting) = self.channels.connecting.get_mut(&to) else { return };
        let Phase::Asked { socket, .. } = std::mem::replace(&mut connecting.phase, Phase::NeedsEngine) else {
            return;
        };
        let mut fds = fds.into_iter();
        let (pidfd, permissions) = (fds.next(), fds.next());
        let permissions = map_permissions(permissions);
        let introduction = Introduction { permissions, name: String::new(), zone: String::new() };
        match self.open(socket, Role::Caller, to, channel, introduction, pidfd) {
            Ok(key) => {
                if let Some(connecting) = self.channels.connecting.get_mut(&to) {
                    connecting.phase = Phase::Opening { key };
                }
                self.look_at_opening(key);
            }
            Err(error) => {
                self.connect_over(to, Err(open_failed(to, &error)));
                self.tell_disconnected(to);
            }
        }
    }

    pub(super) fn take_connect_failed(&mut self, request: RequestId, error: &CallError) {
        if let Some(to) = self.asked(request) {
            self.connect_over(to, Err(error.clone()));
        }
    }

    /// Another worker wants to call this one.
    pub(super) fn take_incoming(
        &mut self,
        channel: ChannelId,
        from: WorkerId,
        name: String,
        zone: String,
        fds: Vec<OwnedFd>,
    ) {
        let mut fds = fds.into_iter();
        let (socket, pidfd, permissions) = (fds.next(), fds.next(), fds.next());
        let Some(socket) = socket else {
            tracing::warn!(%from, "the engine announced a channel without a socket");
            return;
        };
        let introduction = Introduction { permissions: map_permissions(permissions), name, zone };
        match self.open(socket, Role::Callee, from, channel, introduction, pidfd) {
            Ok(key) => self.look_at_opening(key),
            Err(error) => tracing::warn!(%error, %from, "cannot open a channel"),
        }
    }

    fn open(
        &mut self,
        socket: OwnedFd,
        role: Role,
        peer: WorkerId,
        channel: ChannelId,
        introduction: Introduction,
        pidfd: Option<OwnedFd>,
    ) -> Result<usize, OpenError> {
        let config = ChannelConfig { channel, peer_worker: peer.get(), ..self.config.channel.clone() };
        let opening = Opening::start(socket, role, config)?;
        let added = self.channels.peers.add(self.poll.registry(), opening, role, introduction, pidfd);
        let key = added.map_err(ringway_ipc::channel::MessageError::Io)?;
        let (timer, _) = self.shared.timers.add(after(OPENING_MAX), Due::Opening(key));
        if let Some(peer) = self.channels.peers.get_mut(key) {
            peer.opening_timer = Some(timer);
        }
        Ok(key)
    }

    /// Something happened to a channel's socket or to the process at its other end.
    pub(super) fn channel_news(&mut self, token: Token) {
        let (key, watched) = Peers::read_token(token);
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        match (&peer.state, watched) {
            (State::Opening(..), Watched::Socket) => self.look_at_opening(key),
            (State::Opening(..), Watched::Process) => self.died_while_opening(key),
            (State::Open(_), watched) => self.look_at_channel(key, watched == Watched::Process),
        }
    }

    /// The other end's process is gone. If it had introduced itself before, what it published then still counts.
    fn died_while_opening(&mut self, key: usize) {
        self.look_at_opening(key);
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        let worker = peer.worker;
        match &peer.state {
            State::Opening(..) => self.opening_over(key, CallError::worker_gone(worker, Started::No)),
            State::Open(_) => self.look_at_channel(key, true),
        }
    }

    /// Completes a channel if the other end has introduced itself.
    fn look_at_opening(&mut self, key: usize) {
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        let worker = peer.worker;
        let State::Opening(opening, _) = &mut peer.state else { return };
        let Some(taken) = opening.take() else { return };
        match taken.finish() {
            Ok(Err(unfinished)) => *opening = Some(unfinished),
            Ok(Ok(channel)) => self.opened(key, Arc::new(channel)),
            Err(error) => self.opening_over(key, open_failed(worker, &error)),
        }
    }

    fn opened(&mut self, key: usize, channel: Arc<Channel>) {
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        let (role, worker) = (peer.role, peer.worker);
        peer.opening_timer.take().into_iter().for_each(|timer| drop(self.shared.timers.cancel(timer)));
        let State::Opening(_, introduction) =
            std::mem::replace(&mut peer.state, State::Open(Arc::clone(&channel)))
        else {
            return;
        };
        let Introduction { permissions, name, zone } = introduction;
        match role {
            Role::Callee => {
                self.tell(|events| events.callee_channel(channel, permissions, name, zone));
            }
            Role::Caller => {
                if let Some(view) = permissions {
                    let own = self.own_id();
                    self.tell(|events| events.permissions(own, worker, view));
                }
                self.connect_over(worker, Ok(channel));
            }
        }
        // What came right behind the introduction raises no news of its own.
        self.look_at_channel(key, false);
    }

    /// A channel will not be: its other end is gone or is not what it should be.
    fn opening_over(&mut self, key: usize, error: CallError) {
        let Some(peer) = self.channels.peers.remove(self.poll.registry(), key) else { return };
        peer.opening_timer.into_iter().for_each(|timer| drop(self.shared.timers.cancel(timer)));
        tracing::debug!(%error, peer = %peer.worker, "a channel was not opened");
        if peer.role == Role::Caller {
            let connecting = self.channels.connecting.get(&peer.worker);
            if connecting.is_some_and(|it| matches!(it.phase, Phase::Opening { key: it } if it == key)) {
                self.connect_over(peer.worker, Err(error));
            }
            self.tell_disconnected(peer.worker);
        }
    }

    pub(super) fn give_up_opening(&mut self, key: usize) {
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        if matches!(peer.state, State::Opening(..)) {
            let problem =
                format!("worker {} did not open its end of a channel in {OPENING_MAX:?}", peer.worker);
            self.opening_over(key, CallError::new(ErrorCode::DeadlineExceeded, problem));
        }
    }

    /// Reads an open channel's socket; a dead process closes the channel whatever the socket says.
    fn look_at_channel(&mut self, key: usize, process_gone: bool) {
        let Some(peer) = self.channels.peers.get_mut(key) else { return };
        let State::Open(channel) = &peer.state else { return };
        let channel = Arc::clone(channel);
        // Read first: what a peer announced before it died, or its goodbye, still counts.
        let outcome = channel.read_socket();
        if process_gone && outcome.is_ok() {
            channel.close(CloseReason::PeerGone);
        }
        if let Some(reason) = channel.close_reason() {
            self.closed(key, &channel, reason);
        }
    }

    fn closed(&mut self, key: usize, channel: &Arc<Channel>, reason: CloseReason) {
        let Some(peer) = self.channels.peers.remove(self.poll.registry(), key) else { return };
        if peer.role == Role::Caller {
            self.tell_disconnected(peer.worker);
        }
        if reason.is_violation() {
            tracing::warn!(peer = %peer.worker, %reason, "a channel was closed");
        } else {
            tracing::debug!(peer = %peer.worker, %reason, "a channel was closed");
        }
        self.tell(|events| events.channel_closed(channel, reason));
    }

    /// Tells the engine that there is no channel to a callee any more. A new one is asked for only after this: the engine
    /// knows a channel by its ends, and would take the new one for the old.
    fn tell_disconnected(&mut self, peer: WorkerId) {
        self.send(&WorkerMessage::Disconnected { peer });
    }

    /// This side has closed a channel.
    pub(super) fn forget(&mut self, channel: &Arc<Channel>) {
        let Some(key) = self.channels.peers.key_of(channel) else { return };
        let Some(peer) = self.channels.peers.remove(self.poll.registry(), key) else { return };
        if peer.role == Role::Caller {
            self.tell_disconnected(peer.worker);
        }
    }

    /// Policy allows a channel no longer.
    pub(super) fn take_revoked(&mut self, caller: WorkerId, callee: WorkerId, error: CallError) {
        let own = self.own_id();
        let (peer, role) = if caller == own { (callee, Role::Caller) } else { (caller, Role::Callee) };
        self.tell(|events| events.revoked(caller, callee, error));
        if let Some((key, channel)) = self.channels.peers.open_with(peer, role) {
            channel.close(CloseReason::Local);
            self.closed(key, &channel, channel.close_reason().unwrap_or(CloseReason::Local));
        }
    }

    /// The engine is gone: what it was asked is asked again at the next attach.
    pub(super) fn channels_lose_engine(&mut self) {
        for connecting in self.channels.connecting.values_mut() {
            if matches!(connecting.phase, Phase::Asked { .. }) {
                connecting.phase = Phase::NeedsEngine;
            }
        }
        self.channels.connecting.retain(|_, connecting| {
            !connecting.waiters.is_empty() || matches!(connecting.phase, Phase::Opening { .. })
        });
    }
}

fn map_permissions(fd: Option<OwnedFd>) -> Option<PermissionView> {
    match PermissionView::map(fd?) {
        Ok(view) => Some(view),
        Err(error) => {
            tracing::warn!(%error, "the engine sent a broken permission page");
            None
        }
    }
}

fn open_failed(peer: WorkerId, error: &OpenError) -> CallError {
    match error {
        OpenError::Message(_) => CallError::worker_gone(peer, Started::No),
        OpenError::Segment(error) => CallError::out_of_memory(error),
        other => CallError::protocol_violation(other),
    }
}
