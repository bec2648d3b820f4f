//! Spans and logs as they are kept: names resolved, times still monotonic.
//!
//! Everything in this crate speaks of these. They are made from the records of a worker's telemetry ring by the
//! [`Directory`](crate::Directory). This file must not know how records travel or where they end up.

use std::sync::Arc;

use ringway_protocol::error::STATUS_OK;
use ringway_protocol::{ErrorCode, SpanId, TraceId, WorkerId};
use serde::Serialize;

pub use ringway_protocol::telemetry::{
    FieldValue, Level, SPAN_FLAG_IN_PLACE, SPAN_FLAG_RELAYED, SPAN_FLAG_STREAM, SpanKind,
};

/// Who recorded something: one run of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// The id that the worker drew when it started.
    pub id: WorkerId,
    /// The worker's name, which replicas share.
    pub name: String,
    /// The worker's namespace; empty when it has none.
    pub namespace: String,
    /// The process.
    pub pid: u32,
    /// Whether this is the engine's own worker, which `OTEL_SERVICE_NAME` names.
    pub is_engine: bool,
}

/// What a span says of itself beside the work. Spans that came in OpenTelemetry's formats have it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    /// What recorded it within its program.
    pub scope: String,
    /// What it says of its failure.
    pub message: String,
    /// Named values.
    pub attributes: Vec<(String, FieldValue)>,
}

impl Details {
    /// Estimates how many bytes it takes.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let attribute = |(name, value): &(String, FieldValue)| {
            let text = if let FieldValue::Text(text) = value { text.len() } else { 0 };
            size_of::<(String, FieldValue)>() + name.len() + text
        };
        let attributes = self.attributes.iter().map(attribute).sum::<usize>();
        size_of::<Self>() + self.scope.len() + self.message.len() + attributes
    }
}

/// One piece of work: a call as its caller saw it, as its handler saw it, or a step within one.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span that caused it, unless it starts the trace.
    pub parent_id: Option<SpanId>,
    /// Which side of a call it is.
    pub kind: SpanKind,
    /// The wire status it ended with; [`STATUS_OK`] while it runs.
    pub status: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds; `None` while it runs.
    pub end_ns: Option<u64>,
    /// When the recorder woke up for the request (a server's span) or the reply (a client's); `None` when it was
    /// polling and needed no wake-up.
    pub woke_ns: Option<u64>,
    /// Whether the end is not the worker's own word: the worker died while the span ran.
    pub lost: bool,
    /// Bits of `SPAN_FLAG_…`.
    pub flags: u8,
    /// Who recorded it.
    pub worker: Arc<WorkerIdentity>,
    /// The function's id, or the name of a step.
    pub name: Arc<str>,
    /// The worker at the other end of the call.
    pub peer: Option<WorkerId>,
    /// Payload bytes of the request.
    pub bytes_in: u64,
    /// Payload bytes of the reply.
    pub bytes_out: u64,
    /// What it says beside.
    pub details: Option<Arc<Details>>,
}

impl Span {
    /// Says whether the work still runs.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.end_ns.is_none()
    }

    /// Says whether the work ended in an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.status != STATUS_OK
    }

    /// Returns the stable code of the error it ended in.
    #[must_use]
    pub fn error_code(&self) -> Option<&'static str> {
        self.is_error().then(|| ErrorCode::from_status(self.status).map_or("unknown", ErrorCode::as_str))
    }

    /// Returns how long it ran, in nanoseconds; 0 where the clock seems to run backwards.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        self.end_ns.map(|end_ns| end_ns.saturating_sub(self.start_ns))
    }
}

/// One line that a worker logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// How grave it is.
    pub level: Level,
    /// Who logged it.
    pub worker: Arc<WorkerIdentity>,
    /// The trace it was logged in, if any.
    pub trace_id: Option<TraceId>,
    /// The span it was logged in, if any.
    pub span_id: Option<SpanId>,
    /// The module or component that logged it.
    pub target: String,
    /// What it says.
    pub message: String,
    /// Named values beside the message.
    pub fields: Vec<(String, FieldValue)>,
}

/// One instant on both clocks: what turns monotonic time into unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClockAnchor {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub monotonic_ns: u64,
    /// Unix nanoseconds at the same instant.
    pub unix_ns: u64,
}

impl ClockAnchor {
    /// Converts a monotonic time; times out of range stop at the ends.
    #[must_use]
    pub fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        if monotonic_ns >= self.monotonic_ns {
            self.unix_ns.saturating_add(monotonic_ns - self.monotonic_ns)
        } else {
            self.unix_ns.saturating_sub(self.monotonic_ns - monotonic_ns)
        }
    }

    /// Converts a unix time back; times out of range stop at the ends.
    #[must_use]
    pub fn monotonic_ns(&self, unix_ns: u64) -> u64 {
        Self { monotonic_ns: self.unix_ns, unix_ns: self.monotonic_ns }.unix_ns(unix_ns)
    }
}
