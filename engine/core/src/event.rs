//! What happens to the engine. The server makes these of sockets and configuration; they are the only way
//! in.

use ringway_protocol::control::{TriggerSpec, WorkerMessage};

use crate::policy::Policy;
use crate::zones::Zone;

/// A number that the server gives to a control connection and never uses again.
pub type ConnectionId = u64;

/// What the kernel says of the process at the other end of a control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its process, as the engine's pid namespace numbers it.
    pub pid: u32,
    /// It is the engine's own worker, as only the server can know.
    pub engine: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A process opened a control connection.
    Opened {
        /// The connection.
        connection: ConnectionId,
        /// Who it is.
        credentials: Credentials,
    },
    /// A message came.
    Message {
        /// The connection.
        connection: ConnectionId,
        /// The message.
        message: WorkerMessage,
    },
    /// The connection ended or the process died, whichever was seen first. Seen again, nothing happens.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
    /// The server found something that the protocol does not allow.
    Violated {
        /// The connection.
        connection: ConnectionId,
        /// What it found.
        problem: String,
    },
    /// The policy is another from now on.
    PolicyChanged {
        /// The new policy.
        policy: Policy,
    },
    /// Somebody asked for a binding that outlives its connection.
    TriggerKept {
        /// The zone of whoever asked.
        zone: Zone,
        /// The binding; its namespace is the default one unless it names another.
        spec: TriggerSpec,
    },
    /// Somebody asked to remove a binding.
    TriggerRemoved {
        /// The zone of whoever asked.
        zone: Zone,
        /// The binding's id.
        id: String,
    },
    /// The engine stops.
    Stopping {
        /// Why.
        reason: String,
        /// How long workers inside the engine have, milliseconds.
        drain_ms: u64,
    },
}
