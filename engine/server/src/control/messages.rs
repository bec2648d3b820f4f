//! What comes over control connections: bytes into messages, messages into events, with the checks that only the server
//! can make (descriptors, credentials, the door). Whoever breaks the protocol is put out, with the reason.

use std::os::fd::OwnedFd;

use ringway_engine_core::{ConnectionId, Credentials, Event};
use ringway_ipc::packet::PacketError;
use ringway_protocol::control::{Hello, WorkerMessage};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::Control;
use crate::telemetry::Intake;
use crate::{counters, limits};

impl Control {
    /// Reads a turn's worth of messages from each connection that has any.
    pub(super) fn read_ready(&mut self) {
        for id in std::mem::take(&mut self.ready) {
            self.read(id);
        }
    }

    fn read(&mut self, id: ConnectionId) {
        for _ in 0..limits::MESSAGES_PER_TURN {
            let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.closing)
            else {
                return;
            };
            match connection.stream.receive() {
                Ok(Some((json, fds))) => self.take(id, &json, fds),
                Ok(None) if connection.died => return self.gone(id),
                Ok(None) => return,
                Err(PacketError::HungUp | PacketError::Torn { .. }) => return self.gone(id),
                Err(error) => return self.violated(id, error.to_string()),
            }
        }
        self.ready.insert(id);
    }

    fn gone(&mut self, id: ConnectionId) {
        self.feed(Event::Closed { connection: id });
        self.drop_connection(id);
    }

    pub(super) fn violated(&mut self, id: ConnectionId, problem: String) {
        counters::count(&self.shared.counters.violations);
        let pid = self.connections.get(&id).map(|connection| connection.credentials.pid);
        tracing::warn!(connection = id, pid, problem, "a worker broke the protocol");
        self.open(id, false);
        self.feed(Event::Violated { connection: id, problem });
    }

    /// Introduces a connection to the core, once.
    fn open(&mut self, id: ConnectionId, engine: bool) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.greeted) else {
            return;
        };
        connection.greeted = true;
        connection.until = None;
        // Whoever comes in by a zone's door was admitted there; the core need not know other users' zones.
        let uid = match connection.zone {
            Some(_) => ringway_ipc::sys::process::user_id(),
            None => connection.credentials.uid,
        };
        let credentials = Credentials { uid, pid: connection.credentials.pid, engine };
        self.feed(Event::Opened { connection: id, credentials });
    }

    fn take(&mut self, id: ConnectionId, json: &[u8], fds: Vec<OwnedFd>) {
        counters::count(&self.shared.counters.messages_in);
        let message = match serde_json::from_slice::<WorkerMessage>(json) {
            Ok(message) => message,
            Err(error) => return self.violated(id, format!("wanted a control message: {error}")),
        };
        tracing::trace!(connection = id, message = message.name(), "received");
        match message {
            WorkerMessage::Hello(hello) => self.hello(id, *hello, fds),
            WorkerMessage::Connect { request, to } => self.connect(id, request, to, fds),
            message if fds.is_empty() => self.plain(id, message),
            message => {
                let problem =
                    format!("wanted no file descriptor with {}, found {}", message.name(), fds.len());
                self.violated(id, problem);
            }
        }
    }

    pub(super) fn plain(&mut self, id: ConnectionId, message: WorkerMessage) {
        self.open(id, false);
        let names = self.named_functions(id, &message);
        self.feed(Event::Message { connection: id, message });
        self.tell_names(&names);
    }

    fn hello(&mut self, id: ConnectionId, mut hello: Hello, mut fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(zone) = &connection.zone {
            hello.zone = Some(zone.to_string());
        }
        let segment = fds.pop();
        if !fds.is_empty() {
            return self.violated(
                id,
                format!("wanted at most one file descriptor with hello, found {}", fds.len() + 1),
            );
        }
        if let Some(segment) = segment {
            match Intake::new(segment, self.shared.engine_id, self.telemetry.bell()) {
                Ok((intake, welcome_fds)) => {
                    connection.intake = Some(intake);
                    connection.welcome_fds = welcome_fds;
                }
                Err(error) => return self.violated(id, format!("wanted a telemetry segment: {error}")),
            }
        }
        // Our own worker is in this very process and knows the id that was drawn for it.
        let own_process = connection.credentials.pid == std::process::id();
        if !own_process {
            // Links end in this process too; whoever else says that it came over one did not.
            hello.remote = None;
        }
        self.open(id, own_process && hello.worker_id == self.shared.engine_id);
        self.feed(Event::Message { connection: id, message: WorkerMessage::Hello(Box::new(hello)) });
    }
}

/// Says what is wrong with the peer socket that a worker wants handed on.
pub(super) fn check_peer_socket(fds: &[OwnedFd]) -> Result<(), String> {
    let [socket] = fds else {
        return Err(format!("wanted one file descriptor with connect, found {}", fds.len()));
    };
    let kind = sockopt::socket_type(socket).ok();
    let family = sockopt::socket_domain(socket).ok();
    if (family, kind) == (Some(AddressFamily::UNIX), Some(SocketType::SEQPACKET)) {
        Ok(())
    } else {
        Err("wanted a unix seqpacket socket with connect".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_seqpacket_socket_is_handed_on() {
        let (peer, _other) = ringway_ipc::sys::socket::seqpacket_pair().unwrap();
        let (stream, _other) = ringway_ipc::sys::socket::stream_pair().unwrap();
        let file = ringway_ipc::sys::event::eventfd().unwrap();
        assert_eq!(check_peer_socket(&[peer]), Ok(()));
        assert!(check_peer_socket(&[stream]).is_err());
        assert!(check_peer_socket(&[file]).is_err());
        assert!(check_peer_socket(&[]).is_err());
    }
}
