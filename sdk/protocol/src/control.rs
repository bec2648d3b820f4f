//! The messages of the control socket, both ways, as JSON with a `type` field. A worker attaches with
//! [`Hello`], registers what it serves, asks for channels; the engine answers, pushes every change of the
//! catalog, and hands channels on. File descriptors ride beside a message in the order that its
//! documentation gives. Unknown fields are ignored, so that either side may be newer by a little.
//!
//! This module must not know how messages travel ([`crate::framing`] cuts them out of a stream).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CallError;
use crate::ids::{FunctionId, WorkerId};
use crate::telemetry::LogRecord;

mod catalog;
mod spec;

pub use catalog::{
    Catalog, CatalogFunction, CatalogWorker, Change, GoneCause, Relay, Remote, RevisionGapError, WorkerStatus,
};
pub use spec::{FunctionSpec, TriggerSpec, TriggerTypeSpec};

/// A number that a worker chooses for a request, so that it knows the answer. Answers come in any order.
pub type RequestId = u64;
/// A number that the engine chooses for a channel.
pub type ChannelId = u64;

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerMessage {
    /// Attaches, for the first time or again. Descriptors: the telemetry segment, or none.
    Hello(Box<Hello>),
    /// Adds functions, trigger types and triggers. Answered by [`EngineMessage::Registered`].
    Register(Register),
    /// Takes them back. Answered by [`EngineMessage::Registered`].
    Unregister(Unregister),
    /// Asks for a channel to a worker. Descriptors: the callee's end of a new peer socket. Answered by
    /// [`EngineMessage::Connected`] or [`EngineMessage::ConnectFailed`].
    Connect {
        /// The request.
        request: RequestId,
        /// The callee.
        to: WorkerId,
    },
    /// A channel is closed on this worker's side, as caller.
    Disconnected {
        /// The callee.
        peer: WorkerId,
    },
    /// Takes no new calls and finishes the ones it has.
    Draining {},
    /// Leaves in peace; the engine closes the socket.
    Goodbye {},
    /// Logs too long for the telemetry ring.
    Logs {
        /// The logs.
        records: Vec<LogRecord>,
    },
    /// Still alive. Silence is shown, never punished: only a closed socket or a dead process is a death.
    Heartbeat {},
    /// A provider's answer to [`EngineMessage::TriggerBind`].
    TriggerBound {
        /// The binding.
        binding: String,
        /// Why it cannot be bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<CallError>,
    },
}

/// What the engine says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineMessage {
    /// The worker is attached; its view of the catalog as of now.
    Welcome(Box<Welcome>),
    /// What became of a [`WorkerMessage::Register`] or [`WorkerMessage::Unregister`]. The catalog's change,
    /// if there is one, has been sent to this worker before; others may hear of it a few milliseconds later.
    Registered {
        /// The request.
        request: RequestId,
        /// One result for each thing, in the order of the request: functions, trigger types, triggers.
        results: Vec<RegistrationResult>,
    },
    /// The catalog changed.
    CatalogChange {
        /// The view's revision after the changes: as many more than before as there are changes.
        revision: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Another worker opened a channel to this one. Descriptors: this worker's end of the peer socket, the
    /// caller's pidfd, the permission segment.
    Incoming {
        /// The channel.
        channel: ChannelId,
        /// The caller.
        from: WorkerId,
        /// The caller's name.
        name: String,
        /// The caller's zone.
        zone: String,
    },
    /// A channel is open. Descriptors: the callee's pidfd, the permission segment.
    Connected {
        /// The request.
        request: RequestId,
        /// The channel.
        channel: ChannelId,
    },
    /// No channel was opened.
    ConnectFailed {
        /// The request.
        request: RequestId,
        /// Why.
        error: CallError,
    },
    /// A channel that outlived an engine has a permission segment again, this one. Sent to both ends.
    /// Descriptors: the permission segment.
    Permissions {
        /// The channel's caller.
        caller: WorkerId,
        /// The channel's callee.
        callee: WorkerId,
    },
    /// A channel must be closed: policy allows it no longer. Sent to both ends.
    Revoked {
        /// The channel's caller.
        caller: WorkerId,
        /// The channel's callee.
        callee: WorkerId,
        /// Why.
        error: CallError,
    },
    /// The engine stops. Channels between workers stay.
    Shutdown {
        /// Why.
        reason: String,
        /// How long workers that live in the engine have to finish.
        drain_ms: u64,
    },
    /// The attach is refused, or the worker broke the protocol; the engine closes the socket.
    Refused {
        /// Why.
        error: CallError,
    },
    /// To a trigger type's provider: watch for this.
    TriggerBind {
        /// The binding.
        binding: TriggerSpec,
        /// Who asked for it; none for a binding that outlives its maker.
        owner: Option<WorkerId>,
    },
    /// To whoever asked for a binding: its provider watches for it. Sent once for each provider, and again when the same
    /// binding is asked for again.
    TriggerAccepted {
        /// The binding's id.
        id: String,
    },
    /// To whoever asked for a binding: its provider refused it, or left before it had answered. It stays parked for another provider.
    TriggerRefused {
        /// The binding's id.
        id: String,
        /// Why.
        error: CallError,
    },
    /// To a trigger type's provider: watch no longer.
    TriggerUnbind {
        /// The binding's id.
        id: String,
    },
}

impl WorkerMessage {
    /// Returns the `type` of the message.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Register(_) => "register",
            Self::Unregister(_) => "unregister",
            Self::Connect { .. } => "connect",
            Self::Disconnected { .. } => "disconnected",
            Self::Draining {} => "draining",
            Self::Goodbye {} => "goodbye",
            Self::Logs { .. } => "logs",
            Self::Heartbeat {} => "heartbeat",
            Self::TriggerBound { .. } => "trigger_bound",
        }
    }
}

impl EngineMessage {
    /// Returns the `type` of the message.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Registered { .. } => "registered",
            Self::CatalogChange { .. } => "catalog_change",
            Self::Incoming { .. } => "incoming",
            Self::Connected { .. } => "connected",
            Self::ConnectFailed { .. } => "connect_failed",
            Self::Permissions { .. } => "permissions",
            Self::Revoked { .. } => "revoked",
            Self::Shutdown { .. } => "shutdown",
            Self::Refused { .. } => "refused",
            Self::TriggerBind { .. } => "trigger_bind",
            Self::TriggerAccepted { .. } => "trigger_accepted",
            Self::TriggerRefused { .. } => "trigger_refused",
            Self::TriggerUnbind { .. } => "trigger_unbind",
        }
    }
}

/// How a worker waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitMode {
    /// Spins, and pins its threads.
    Latency,
    /// Spins about as long as a park costs, then parks.
    #[default]
    Balanced,
    /// Parks at once.
    Efficient,
}

/// A worker's first message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that the worker speaks.
    pub protocol: u32,
    /// The worker's own random number.
    pub worker_id: WorkerId,
    /// Its name for people; it need not be unique.
    pub name: String,
    /// The namespace of all that it registers.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its process. The engine believes the socket's credentials, and compares.
    pub pid: u32,
    /// What it is written in, such as `rust`.
    #[serde(default)]
    pub runtime: String,
    /// The version of its SDK.
    #[serde(default)]
    pub sdk_version: String,
    /// Its operating system.
    #[serde(default)]
    pub os: String,
    /// The zone that it asks for; none: the one its credentials give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Anything its author wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Whether it was attached before, to this engine or an earlier one.
    #[serde(default)]
    pub reattach: bool,
    /// How it waits.
    #[serde(default)]
    pub wait_mode: WaitMode,
    /// The channels that it has kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<KeptChannel>,
    /// When its process started, milliseconds of Unix time.
    #[serde(default)]
    pub started_at_ms: u64,
    /// Where it is, if it is on another host: said by the end of the link that attaches for it, and believed of the engine's
    /// own process alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// Whether it is told of the catalog. Who calls no function by name need not be: the welcome brings an empty one, and no
    /// changes follow.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub catalog: bool,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
const fn is_yes(wanted: &bool) -> bool {
    *wanted
}

fn default_namespace() -> String {
    crate::naming::NAMESPACE_DEFAULT.to_owned()
}

impl Hello {
    /// Makes the greeting of a worker that attaches for the first time; the rest may be set afterwards.
    #[must_use]
    pub fn new(worker_id: WorkerId, name: impl Into<String>, pid: u32) -> Self {
        Self {
            protocol: crate::limits::PROTOCOL_VERSION,
            worker_id,
            name: name.into(),
            namespace: default_namespace(),
            pid,
            runtime: String::new(),
            sdk_version: String::new(),
            os: std::env::consts::OS.to_owned(),
            zone: None,
            description: None,
            metadata: None,
            reattach: false,
            wait_mode: WaitMode::default(),
            channels: Vec::new(),
            started_at_ms: 0,
            remote: None,
            catalog: true,
        }
    }
}

/// An end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelEnd {
    /// Writes the request ring.
    Caller,
    /// Writes the reply ring.
    Callee,
}

/// A channel that a worker has kept while no engine was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeptChannel {
    /// The worker at the other end.
    pub peer: WorkerId,
    /// This worker's end.
    pub end: ChannelEnd,
}

/// The engine's first message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The worker's id, as it gave it.
    pub worker_id: WorkerId,
    /// The id of the engine's own worker: functions of the engine and of other zones are called there.
    pub engine_id: WorkerId,
    /// Rises with every attach to this engine.
    pub epoch: u64,
    /// The version of the protocol that the engine speaks.
    pub protocol: u32,
    /// The engine's release.
    pub engine_version: String,
    /// The engine's process.
    pub engine_pid: u32,
    /// The worker's zone.
    pub zone: String,
    /// The engine's limits.
    pub limits: Limits,
    /// The worker's view of the catalog.
    pub catalog: Catalog,
    /// The engine's `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// The engine's clock, milliseconds of Unix time, at the same moment.
    pub unix_time_ms: u64,
}

/// Limits that the engine enforces on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// The largest JSON text of one message, in bytes.
    pub json_bytes_max: u32,
    /// The most functions of one worker.
    pub functions_max: u32,
    /// The most triggers of one worker.
    pub triggers_max: u32,
    /// The most channels of one worker, both ways.
    pub channels_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_bytes_max: crate::limits::CONTROL_JSON_BYTES_MAX,
            functions_max: crate::limits::FUNCTION_INDEX_END - 1,
            triggers_max: 16 << 10,
            channels_max: 4096,
        }
    }
}

/// Functions, trigger types and triggers to add.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Register {
    /// The request.
    pub request: RequestId,
    /// Functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionSpec>,
    /// Trigger types that this worker provides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trigger_types: Vec<TriggerTypeSpec>,
    /// Triggers to bind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerSpec>,
}

/// Functions, trigger types and triggers to take back, by id.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Unregister {
    /// The request.
    pub request: RequestId,
    /// Functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionId>,
    /// Trigger types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trigger_types: Vec<String>,
    /// Triggers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
}

/// What became of one thing that a worker wanted to add or take back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationResult {
    /// Its id.
    pub id: String,
    /// What became of it.
    pub outcome: RegistrationOutcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
}

impl RegistrationResult {
    /// Makes a result that is no refusal.
    #[must_use]
    pub fn done(id: impl Into<String>, outcome: RegistrationOutcome) -> Self {
        Self { id: id.into(), outcome, error: None }
    }

    /// Makes a refusal.
    #[must_use]
    pub fn refused(id: impl Into<String>, error: CallError) -> Self {
        Self { id: id.into(), outcome: RegistrationOutcome::Refused, error: Some(error) }
    }
}

/// What became of one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationOutcome {
    /// It is in the catalog.
    Registered,
    /// A trigger that waits until its trigger type has a provider.
    Parked,
    /// It is out of the catalog, or was never in it.
    Unregistered,
    /// Nothing changed.
    Refused,
}

#[cfg(test)]
mod tests;
