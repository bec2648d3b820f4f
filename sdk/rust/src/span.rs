//! Spans of one's own: work that is part of a trace and is no call, as an attempt of a queue or a step of a handler. Used by
//! workers that take up work which was put aside. It must not know how spans are kept.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use ringway_ipc::clock::now_ns;
use ringway_protocol::error::STATUS_OK;
use ringway_protocol::telemetry::{
    FieldValue, FunctionRef, Level, LogRecord, SpanKind, SpanName, SpanRecord, SpanStart,
};
use ringway_protocol::{ErrorCode, SpanId, TraceContext, WorkerId};

use crate::context;
use crate::telemetry::Telemetry;
use crate::worker::Worker;

/// A span that is under way. It ends when it is dropped. One below a span that nobody records costs nothing.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    recorded: Option<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    telemetry: Arc<Telemetry>,
    parent: SpanId,
    start_ns: u64,
    kind: SpanKind,
    name: SpanName,
    status: u32,
}

impl Worker {
    /// Begins a span below another, which may be long over. Its name is cut at 64 bytes, and is formatted only where the span
    /// is recorded.
    #[must_use]
    pub fn span(&self, name: impl Display, kind: SpanKind, parent: TraceContext) -> Span {
        let inner = self.inner();
        if !parent.is_valid() || !parent.is_sampled() || !inner.sampler.records_children() {
            return Span { context: parent, recorded: None };
        }
        let context = parent.child(inner.sampler.span_id());
        let (telemetry, start_ns, name) =
            (Arc::clone(&inner.telemetry), now_ns(), SpanName::new(&name.to_string()));
        telemetry.span_start(&SpanStart {
            trace_id: context.trace_id,
            span_id: context.span_id,
            parent_id: parent.span_id,
            start_ns,
            kind,
            function: FunctionRef::NONE,
            peer: WorkerId::new(0),
            name,
        });
        let recorded =
            Recorded { telemetry, parent: parent.span_id, start_ns, kind, name, status: STATUS_OK };
        Span { context, recorded: Some(recorded) }
    }

    /// Begins the span of a request that came from outside: below its parent, or as the first of a trace where it has none,
    /// as the sampler says. Nothing shows it while it runs, so that it costs one record. Where none is recorded, what is
    /// below is not either.
    #[must_use]
    pub fn entry_span(&self, name: SpanName, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        let inner = self.inner();
        let (context, parent) = match parent.filter(TraceContext::is_valid) {
            Some(parent) if !parent.is_sampled() || !inner.sampler.records_children() => {
                return Span { context: parent, recorded: None };
            }
            Some(parent) => (parent.child(inner.sampler.span_id()), parent.span_id),
            None => match inner.sampler.root() {
                Some(root) => (root, SpanId::NONE),
                None => return Span { context: crate::sampler::unrecorded(), recorded: None },
            },
        };
        let telemetry = Arc::clone(&inner.telemetry);
        let recorded = Recorded { telemetry, parent, start_ns: now_ns(), kind, name, status: STATUS_OK };
        Span { context, recorded: Some(recorded) }
    }
}

impl Span {
    /// What work within the span has as its parent.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Says that the span ends in an error.
    pub fn fail(&mut self, code: ErrorCode) {
        if let Some(recorded) = &mut self.recorded {
            recorded.status = code.status();
        }
    }

    /// Says that the span ends well after all: whoever may be given up begins with [`Span::fail`], so that a span that is
    /// dropped meanwhile does not tell of success.
    pub fn succeed(&mut self) {
        if let Some(recorded) = &mut self.recorded {
            recorded.status = STATUS_OK;
        }
    }

    /// Writes a line into the span, with fields: what is told as an event of the span. `fields` is only called where the span
    /// is recorded.
    pub fn note<'a>(&self, level: Level, message: &str, fields: impl FnOnce() -> Vec<(&'a str, FieldValue)>) {
        let Some(recorded) = &self.recorded else { return };
        recorded.telemetry.log(&LogRecord {
            time_ns: now_ns(),
            level,
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            target: recorded.name.as_str().to_owned(),
            message: message.to_owned(),
            fields: fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        });
    }

    /// Runs something within the span: the calls that it makes are below it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _active = self.recorded.as_ref().map(|_| context::enter_trace(self.context));
        work()
    }

    /// As [`Span::within`], for a future.
    pub async fn within_async<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| self.within(|| work.as_mut().poll(cx))).await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(recorded) = self.recorded.take() else { return };
        recorded.telemetry.span(&SpanRecord {
            start_ns: recorded.start_ns,
            end_ns: now_ns(),
            kind: recorded.kind,
            status: recorded.status,
            ..SpanRecord::named(self.context.trace_id, self.context.span_id, recorded.parent, recorded.name)
        });
    }
}
