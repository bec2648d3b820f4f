//! Short ways to make spans and logs for this crate's tests.

use std::sync::Arc;

use ringway_protocol::{SpanId, TraceId, WorkerId};

use crate::record::{Level, Log, Span, SpanKind, WorkerIdentity};

pub(crate) fn worker(id: u64, name: &str) -> Arc<WorkerIdentity> {
    let id = WorkerId::new(id);
    Arc::new(WorkerIdentity {
        id,
        name: name.to_owned(),
        namespace: String::new(),
        pid: 42,
        is_engine: false,
    })
}

pub(crate) fn trace_id(number: u8) -> TraceId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    TraceId::from_bytes(bytes)
}

pub(crate) fn span_id(number: u8) -> SpanId {
    SpanId::from_bytes([0, 0, 0, 0, 0, 0, 0, number])
}

/// Makes a span without errors, of trace 1, recorded by `by`; parent 0 stands for none.
pub(crate) fn span(
    by: &Arc<WorkerIdentity>,
    ids: (u8, u8),
    kind: SpanKind,
    name: &str,
    times: (u64, u64),
) -> Span {
    Span {
        trace_id: trace_id(1),
        span_id: span_id(ids.0),
        parent_id: (ids.1 != 0).then(|| span_id(ids.1)),
        kind,
        status: 0,
        start_ns: times.0,
        end_ns: Some(times.1),
        woke_ns: None,
        lost: false,
        flags: 0,
        worker: Arc::clone(by),
        name: name.into(),
        peer: None,
        bytes_in: 0,
        bytes_out: 0,
        details: None,
    }
}

/// Makes a log line of trace 1; span 0 stands for none.
pub(crate) fn log(by: &Arc<WorkerIdentity>, span: u8, time_ns: u64, level: Level, message: &str) -> Log {
    Log {
        time_ns,
        level,
        worker: Arc::clone(by),
        trace_id: Some(trace_id(1)),
        span_id: (span != 0).then(|| span_id(span)),
        target: "demo".to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    }
}
