//! What happens to the engine. The server makes these of sockets and configuration; they are the only way
//! in.

use ringway_protocol::control::{TriggerSpec, WorkerMessage};
use ringway_protocol::ids::WorkerId;
use serde::Deserialize;
use serde_json::Value;

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

/// What a worker says of itself after it has attached, in the words of iii's `engine::workers::register`. What it leaves
/// out stays as it is. The process and the user are the kernel's to say and are not read.
#[derive(Clone, Debug, PartialEq, Default, Deserialize)]
pub struct Announcement {
    /// What it is called; control characters are left out, and an empty text counts as none.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it is written in.
    pub runtime: Option<String>,
    /// The version of its SDK.
    pub version: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// The namespace of its functions, which must be the one it attached with.
    pub namespace: Option<String>,
    /// What keeps it apart from its host.
    pub isolation: Option<String>,
    /// Its language, project and framework.
    pub telemetry: Option<Value>,
    /// What its SDK can do beyond the first version.
    pub features: Option<Vec<String>>,
    /// Anything its author wants to say.
    pub metadata: Option<Value>,
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
    /// A worker said what it is called and what it is. What does not pass [`crate::Core::check_announcement`] is ignored.
    WorkerAnnounced {
        /// The worker.
        worker: WorkerId,
        /// What it said.
        announcement: Box<Announcement>,
    },
    /// The time that [`crate::Core::news_due_ns`] named has come.
    NewsDue {},
    /// The engine stops.
    Stopping {
        /// Why.
        reason: String,
        /// How long workers inside the engine have, milliseconds.
        drain_ms: u64,
    },
}
