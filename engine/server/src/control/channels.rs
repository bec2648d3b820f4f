//! Channels, as far as the engine has to do with them: it hands the caller's socket to the callee, gives each a handle on
//! the other's process, and keeps the page that says what the caller may call.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_engine_core::{ConnectionId, Effect, Event};
use ringway_ipc::permission::PermissionPage;
use ringway_protocol::control::{EngineMessage, RequestId, WorkerMessage};
use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::WorkerId;

use super::Control;
use super::messages::check_peer_socket;
use crate::counters;

/// The permission pages of all channels, by caller and callee.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: HashMap<(WorkerId, WorkerId), PermissionPage>,
    /// The peer socket that came with the connect request that is being handled.
    peer_socket: Option<Arc<OwnedFd>>,
}

impl Pages {
    pub(super) fn set_words(&self, caller: WorkerId, callee: WorkerId, words: &[(u32, u64)]) {
        if let Some(page) = self.pages.get(&(caller, callee)) {
            words.iter().for_each(|(word, bits)| page.set_word(*word, *bits));
        }
    }

    /// Forbids every call from and to a worker that was put out.
    pub(super) fn revoke_all(&self, worker: WorkerId) {
        let of_worker = self.pages.iter().filter(|((caller, callee), _)| [caller, callee].contains(&&worker));
        of_worker.for_each(|(_, page)| page.revoke());
    }

    /// Makes a channel's page and returns its descriptor.
    fn make(&mut self, caller: WorkerId, callee: WorkerId, bits: &[u64]) -> std::io::Result<Arc<OwnedFd>> {
        let page = PermissionPage::from_words(bits).map_err(std::io::Error::other)?;
        let fd = page.fd().ok_or(std::io::ErrorKind::Unsupported)?.try_clone_to_owned()?;
        self.pages.insert((caller, callee), page);
        Ok(Arc::new(fd))
    }
}

impl Control {
    pub(super) fn connect(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        to: WorkerId,
        mut fds: Vec<OwnedFd>,
    ) {
        if let Err(problem) = check_peer_socket(&fds) {
            return self.violated(id, problem);
        }
        self.pages.peer_socket = fds.pop().map(Arc::new);
        self.plain(id, WorkerMessage::Connect { request, to });
        // Refused, or handed on: either way this process holds it no longer.
        self.pages.peer_socket = None;
    }

    pub(super) fn open_channel(&mut self, effect: Effect) {
        let Effect::OpenChannel {
            request,
            channel,
            caller_connection,
            callee_connection,
            caller,
            callee,
            name,
            zone,
            permissions,
        } = effect
        else {
            return;
        };
        let socket = self.pages.peer_socket.take();
        let parties = self.pidfd(caller_connection).zip(self.pidfd(callee_connection)).zip(socket);
        let Some(((caller_pidfd, callee_pidfd), socket)) = parties else {
            return tracing::error!(channel, "a channel was opened without a socket or between nobody");
        };
        let page = match self.pages.make(caller, callee, &permissions) {
            Ok(page) => page,
            Err(error) => return self.channel_failed(request, caller_connection, callee, &error),
        };
        counters::count(&self.shared.counters.channels_opened);
        self.count_pages();
        tracing::debug!(channel, %caller, %callee, "opened a channel");
        let incoming = EngineMessage::Incoming { channel, from: caller, name, zone };
        self.send_with(callee_connection, &incoming, vec![socket, caller_pidfd, Arc::clone(&page)]);
        let connected = EngineMessage::Connected { request, channel };
        self.send_with(caller_connection, &connected, vec![callee_pidfd, page]);
    }

    fn channel_failed(
        &mut self,
        request: RequestId,
        connection: ConnectionId,
        callee: WorkerId,
        error: &std::io::Error,
    ) {
        counters::count(&self.shared.counters.channels_failed);
        tracing::error!(%callee, %error, "cannot make a permission page");
        let message = format!("the engine cannot make a permission page: {error}");
        let error = CallError::new(ErrorCode::OutOfMemory, message);
        self.send_with(connection, &EngineMessage::ConnectFailed { request, error }, Vec::new());
        self.feed(Event::Message { connection, message: WorkerMessage::Disconnected { peer: callee } });
    }

    pub(super) fn adopt_channel(
        &mut self,
        caller_connection: ConnectionId,
        callee_connection: ConnectionId,
        caller: WorkerId,
        callee: WorkerId,
        permissions: &[u64],
    ) {
        let message = match self.pages.make(caller, callee, permissions) {
            Ok(page) => {
                self.count_pages();
                let message = EngineMessage::Permissions { caller, callee };
                for connection in [caller_connection, callee_connection] {
                    self.send_with(connection, &message, vec![Arc::clone(&page)]);
                }
                return;
            }
            Err(error) => {
                counters::count(&self.shared.counters.channels_failed);
                let text = format!("the engine cannot make a permission page: {error}");
                EngineMessage::Revoked { caller, callee, error: CallError::new(ErrorCode::OutOfMemory, text) }
            }
        };
        for connection in [caller_connection, callee_connection] {
            self.send_with(connection, &message, Vec::new());
        }
    }

    pub(super) fn drop_channel(&mut self, caller: WorkerId, callee: WorkerId) {
        // Both ends keep their mappings and what was allowed last: a worker that lost its control connection for a moment
        // loses no call.
        self.pages.pages.remove(&(caller, callee));
        self.count_pages();
    }

    fn count_pages(&self) {
        counters::set(&self.shared.counters.permission_pages, self.pages.pages.len());
    }

    fn pidfd(&self, connection: ConnectionId) -> Option<Arc<OwnedFd>> {
        self.connections.get(&connection).map(|connection| Arc::clone(&connection.pidfd))
    }
}
