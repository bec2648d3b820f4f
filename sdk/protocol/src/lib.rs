//! What Ringway's frames and control messages mean: error codes, ids, trace context, the values of
//! frame header fields, the messages of the control socket and the records of the telemetry ring.
//!
//! Everyone who speaks to a Ringway process uses it: the SDKs, the engine, its faces. It is the promise
//! made to users, so names and numbers here are stable. It must not know how bytes travel (rings,
//! sockets, file descriptors): there is no I/O here and no unsafe code.
//!
//! Start with [`control`] for the conversation between a worker and the engine, with [`header`] for the
//! frames between workers, and with [`error`] for the ways a call can end.

#![forbid(unsafe_code)]

pub mod baggage;
pub mod control;
pub mod error;
pub mod framing;
pub mod header;
pub mod ids;
pub mod limits;
pub mod link;
pub mod naming;
pub mod pattern;
pub mod telemetry;
pub mod trace;

pub use error::{CallError, ErrorCode, Started};
pub use ids::{FunctionId, InvocationId, SpanId, TraceId, WorkerId};
pub use trace::TraceContext;
