//! What the engine must do about an event. The server carries effects out in their order: a permission is
//! set before the catalog tells of the function, the catalog's change is sent to whoever caused it before the
//! answer.

use ringway_protocol::control::{ChannelId, EngineMessage, GoneCause, RequestId};
use ringway_protocol::error::CallError;
use ringway_protocol::ids::WorkerId;
use ringway_protocol::telemetry::LogRecord;

use crate::event::ConnectionId;

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Send a message without descriptors.
    Send {
        /// To whom.
        to: ConnectionId,
        /// The message.
        message: EngineMessage,
    },
    /// Send one message to many; it can be encoded once.
    Broadcast {
        /// To whom.
        to: Vec<ConnectionId>,
        /// The message.
        message: EngineMessage,
    },
    /// A worker attached: its telemetry segment is valid from now on.
    Attached {
        /// Its connection.
        connection: ConnectionId,
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is called otherwise from now on.
    Described {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker left: free what was kept for it. A worker that attached again over a new connection has not
    /// left.
    Left {
        /// Its connection.
        connection: ConnectionId,
        /// The worker.
        worker: WorkerId,
        /// Why.
        cause: GoneCause,
    },
    /// Make a permission page; send `incoming` to the callee with the peer socket, the caller's pidfd and
    /// the page, then `connected` to the caller with the callee's pidfd and the page.
    OpenChannel {
        /// The caller's request, with which the peer socket came.
        request: RequestId,
        /// The new channel.
        channel: ChannelId,
        /// The caller's connection.
        caller_connection: ConnectionId,
        /// The callee's connection.
        callee_connection: ConnectionId,
        /// The caller.
        caller: WorkerId,
        /// The callee.
        callee: WorkerId,
        /// The caller's name.
        name: String,
        /// The caller's zone.
        zone: String,
        /// The permission bits, 64 function indexes a word; words past the end are zero.
        permissions: Vec<u64>,
    },
    /// A channel that outlived an engine: make a permission page and send `permissions` with it to both.
    AdoptChannel {
        /// The channel.
        channel: ChannelId,
        /// The caller's connection.
        caller_connection: ConnectionId,
        /// The callee's connection.
        callee_connection: ConnectionId,
        /// The caller.
        caller: WorkerId,
        /// The callee.
        callee: WorkerId,
        /// The permission bits.
        permissions: Vec<u64>,
    },
    /// Write words of a channel's permission page.
    SetPermissions {
        /// The channel's caller.
        caller: WorkerId,
        /// The channel's callee.
        callee: WorkerId,
        /// Word index and new value.
        words: Vec<(u32, u64)>,
    },
    /// A channel is no more: free its permission page.
    DropChannel {
        /// The channel's caller.
        caller: WorkerId,
        /// The channel's callee.
        callee: WorkerId,
    },
    /// Store logs that came over the control socket.
    Logs {
        /// The worker that they are of.
        worker: WorkerId,
        /// The logs.
        records: Vec<LogRecord>,
    },
    /// A binding that outlives its maker has its provider's answer, or is parked for want of one.
    TriggerSettled {
        /// The binding's id.
        id: String,
        /// Why the provider would not have it.
        error: Option<CallError>,
    },
    /// Close a connection once what was sent to it has gone out.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
}
