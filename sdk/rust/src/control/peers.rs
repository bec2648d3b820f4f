//! Channels as the control thread sees them: those that wait for the other end's introduction, those that are open, and
//! who waits for one. It watches their sockets and their peers' processes, so that a death is known at once, with or
//! without an engine. It must not know what frames say.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use ringway_ipc::channel::{Channel, Opening, Role};
use ringway_ipc::permission::PermissionView;
use ringway_protocol::control::RequestId;
use ringway_protocol::{CallError, WorkerId};

use super::command::Done;
use super::timers::TimerId;

/// What the other end of a new channel is.
pub(super) struct Introduction {
    pub(super) permissions: Option<PermissionView>,
    /// The caller's name and zone; empty at the caller's own end.
    pub(super) name: String,
    pub(super) zone: String,
}

pub(super) enum State {
    /// Waits for the other end. None only while it is looked at.
    Opening(Option<Opening>, Introduction),
    Open(Arc<Channel>),
}

/// One end of a channel, with what is watched for it.
pub(super) struct Peer {
    pub(super) role: Role,
    pub(super) worker: WorkerId,
    pub(super) state: State,
    pub(super) opening_timer: Option<TimerId>,
    pidfd: Option<OwnedFd>,
}

/// What news is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    Socket,
    Process,
}

/// Tokens of sockets and processes; the lowest two are taken.
fn token(key: usize, watched: Watched) -> Token {
    Token(key * 2 + usize::from(watched == Watched::Process))
}

#[derive(Default)]
pub(super) struct Peers {
    peers: HashMap<usize, Peer>,
    last_key: usize,
}

impl Peers {
    /// Reads a token of the wait set: which channel, and what of it.
    pub(super) fn read_token(token: Token) -> (usize, Watched) {
        let watched = if token.0.is_multiple_of(2) { Watched::Socket } else { Watched::Process };
        (token.0 / 2, watched)
    }

    /// Watches a new channel and returns its key.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        opening: Opening,
        role: Role,
        introduction: Introduction,
        pidfd: Option<OwnedFd>,
    ) -> std::io::Result<usize> {
        self.last_key += 1;
        let key = self.last_key;
        let socket = opening.socket().as_raw_fd();
        registry.register(&mut SourceFd(&socket), token(key, Watched::Socket), Interest::READABLE)?;
        if let Some(pidfd) = &pidfd {
            let process = pidfd.as_fd().as_raw_fd();
            let watched =
                registry.register(&mut SourceFd(&process), token(key, Watched::Process), Interest::READABLE);
            if let Err(error) = watched {
                unwatch(registry, socket);
                return Err(error);
            }
        }
        let worker = WorkerId::new(opening.peer_worker());
        let state = State::Opening(Some(opening), introduction);
        self.peers.insert(key, Peer { role, worker, state, opening_timer: None, pidfd });
        Ok(key)
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Peer> {
        self.peers.get_mut(&key)
    }

    /// Watches a channel no longer.
    pub(super) fn remove(&mut self, registry: &Registry, key: usize) -> Option<Peer> {
        let peer = self.peers.remove(&key)?;
        let socket = match &peer.state {
            State::Opening(opening, _) => opening.as_ref().map(|opening| opening.socket().as_raw_fd()),
            State::Open(channel) => Some(channel.socket().as_raw_fd()),
        };
        // Where an opening has failed its socket is closed, and the kernel has forgotten it.
        socket.into_iter().for_each(|fd| unwatch(registry, fd));
        peer.pidfd.iter().for_each(|fd| unwatch(registry, fd.as_raw_fd()));
        Some(peer)
    }

    /// Finds a channel that was opened, by its ends; the newest, if there are several.
    pub(super) fn open_with(&self, worker: WorkerId, role: Role) -> Option<(usize, Arc<Channel>)> {
        let open = self.peers.iter().filter_map(|(key, peer)| match &peer.state {
            State::Open(channel) if (peer.worker, peer.role) == (worker, role) => Some((*key, channel)),
            _ => None,
        });
        open.max_by_key(|(key, _)| *key).map(|(key, channel)| (key, Arc::clone(channel)))
    }

    /// Finds a channel.
    pub(super) fn key_of(&self, channel: &Arc<Channel>) -> Option<usize> {
        self.peers.iter().find_map(|(key, peer)| match &peer.state {
            State::Open(open) => Arc::ptr_eq(open, channel).then_some(*key),
            State::Opening(..) => None,
        })
    }
}

fn unwatch(registry: &Registry, fd: RawFd) {
    if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
        tracing::debug!(%error, "cannot take a descriptor out of the wait set");
    }
}

/// Somebody who waits for a channel.
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) since_ns: u64,
    pub(super) timer: Option<TimerId>,
    pub(super) done: Done<Arc<Channel>>,
}

/// How far the channel is.
pub(super) enum Phase {
    /// No engine is there to ask.
    NeedsEngine,
    /// The engine was asked; this end of the peer socket is kept.
    Asked { request: RequestId, socket: OwnedFd },
    /// The other end was told; it is in [`Peers`] under this key.
    Opening { key: usize },
}

/// A channel on its way, and all who wait for it: the first asks for it, the rest join.
pub(super) struct Connecting {
    pub(super) waiters: Vec<Waiter>,
    pub(super) phase: Phase,
}

impl Connecting {
    pub(super) fn finish(self, cancel: impl Fn(TimerId), outcome: &Result<Arc<Channel>, CallError>) {
        for waiter in self.waiters {
            waiter.timer.into_iter().for_each(&cancel);
            (waiter.done)(outcome.clone());
        }
    }
}
