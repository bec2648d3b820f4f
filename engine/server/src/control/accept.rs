//! New connections: who may open one, and at which door. The kernel's word about the process counts, taken before
//! anything is read from it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use ringway_ipc::packet::{Access, BindError, PacketListener, PacketStream};
use ringway_ipc::sys::socket::Credentials;
use ringway_ipc::sys::{process, socket};
use ringway_protocol::control::EngineMessage;
use ringway_protocol::error::{CallError, ErrorCode};

use super::connection::Connection;
use super::{Control, FIRST_CONNECTION};
use crate::config::EngineBuilder;
use crate::{counters, limits};

/// A listening socket and who may come in there.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: PacketListener,
    /// The zone of all who come in; none for the main socket.
    zone: Option<Arc<str>>,
    /// Users beside the engine's own.
    users: Vec<u32>,
}

/// All listening sockets of an engine.
#[derive(Debug)]
pub(crate) struct Listeners {
    doors: Vec<Door>,
    queued_bytes_max: usize,
}

impl Listeners {
    /// Opens the main socket and those of other zones.
    pub(crate) fn bind(address: &str, builder: &EngineBuilder) -> Result<Self, BindError> {
        let access = |users: &[u32]| if users.is_empty() { Access::Owner } else { Access::Everybody };
        let users: Vec<u32> = builder.users.iter().map(|(uid, _)| *uid).collect();
        let listener = PacketListener::bind_with(address, access(&users))?;
        let mut doors = vec![Door { listener, zone: None, users }];
        for socket in &builder.zone_sockets {
            let listener = PacketListener::bind_with(&socket.address, access(&socket.users))?;
            let zone = Some(socket.zone.as_str().into());
            doors.push(Door { listener, zone, users: socket.users.clone() });
        }
        Ok(Self { doors, queued_bytes_max: builder.queued_bytes_max })
    }

    pub(super) fn into_parts(self) -> (Vec<Door>, usize) {
        (self.doors, self.queued_bytes_max)
    }
}

impl Control {
    /// Takes in everybody who waits at a door.
    pub(super) fn accept(&mut self, door: usize) {
        while let Some(open) = self.doors.get(door) {
            match open.listener.accept() {
                Ok(Some(stream)) => self.admit(door, stream),
                Ok(None) => return,
                Err(error) => {
                    counters::count(&self.shared.counters.accept_failures);
                    tracing::error!(%error, "cannot accept a connection; trying again soon");
                    self.accept_again = Some(Instant::now() + limits::ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    pub(super) fn close_doors(&mut self) {
        self.doors.clear();
        self.accept_again = None;
    }

    fn admit(&mut self, door: usize, mut stream: PacketStream) {
        counters::count(&self.shared.counters.connections_accepted);
        stream.limit_queue(self.queued_bytes_max);
        let Some(door) = self.doors.get(door) else { return };
        let credentials = match stream.credentials() {
            Ok(credentials) => credentials,
            Err(error) => return tracing::warn!(%error, "cannot tell who connected"),
        };
        if let Err(error) = check_user(credentials, &door.users) {
            counters::count(&self.shared.counters.refused_user);
            return refuse(stream, *error);
        }
        if self.connections.len() >= limits::CONNECTIONS_MAX {
            counters::count(&self.shared.counters.refused_limit);
            let limit = limits::CONNECTIONS_MAX as u64;
            return refuse(stream, CallError::busy("the engine's table of connections", limit));
        }
        let pidfd = match watch(&stream, credentials) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(error) => {
                let pid = credentials.pid;
                tracing::warn!(pid, %error, "cannot watch the process that connected");
                let message = format!("the engine cannot watch process {pid}: {error}");
                return refuse(stream, CallError::new(ErrorCode::Forbidden, message));
            }
        };
        let id = self.next_connection.max(FIRST_CONNECTION);
        self.next_connection = id + 1;
        let connection = Connection::new(stream, credentials, pidfd, door.zone.clone());
        if let Err(error) = connection.register(self.poll.registry(), id) {
            return tracing::error!(%error, "cannot wait for a new connection");
        }
        self.connections.insert(id, connection);
        counters::set(&self.shared.counters.connections_open, self.connections.len());
        self.ready.insert(id);
    }
}

/// Says whether a process may come in.
fn check_user(credentials: Credentials, others: &[u32]) -> Result<(), Box<CallError>> {
    let own = process::user_id();
    if credentials.uid == own || others.contains(&credentials.uid) {
        return Ok(());
    }
    let message = format!(
        "this engine belongs to user {own} and process {} to user {}; give that user a zone in the engine's \
         configuration, or start an engine of its own",
        credentials.pid, credentials.uid
    );
    Err(Box::new(CallError::new(ErrorCode::Forbidden, message)))
}

/// Opens a handle that tells of the process's end.
fn watch(stream: impl AsFd, credentials: Credentials) -> std::io::Result<std::os::fd::OwnedFd> {
    match socket::peer_pidfd(stream) {
        Ok(pidfd) => Ok(pidfd),
        // Before Linux 6.5. That the process id is not used again yet is shown by the socket, which is still open.
        Err(_) => process::pidfd_open(credentials.pid),
    }
}

/// Says why, as far as the socket takes it at once, and closes.
fn refuse(mut stream: PacketStream, error: CallError) {
    tracing::warn!(%error, "refused a connection");
    let message = EngineMessage::Refused { error };
    let sent = serde_json::to_vec(&message).map_err(std::io::Error::from).and_then(|json| {
        stream.queue(&json, Vec::new()).map_err(std::io::Error::other)?;
        stream.flush()
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the refused one did not hear why");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_users_are_refused_unless_configured() {
        let own = process::user_id();
        let check = |uid: u32, others: &[u32], admitted: bool| {
            let found = check_user(Credentials { pid: 7, uid, gid: uid }, others);
            assert_eq!(found.is_ok(), admitted, "{uid} {others:?}");
            if let Err(error) = found {
                assert_eq!(error.code, ErrorCode::Forbidden);
                assert!(error.message.contains(&format!("user {uid}")), "{error}");
            }
        };
        check(own, &[], true);
        check(own + 1, &[], false);
        check(own + 1, &[own + 1], true);
        check(own + 2, &[own + 1], false);
    }
}
