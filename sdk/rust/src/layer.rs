//! Joins the `tracing` crate to Ringway's traces: events become logs of the active span, and spans become spans below it.
//! Installed by the user, beside whatever else listens to `tracing`. It never blocks: what does not fit the telemetry
//! ring is dropped and counted. It must not know how records travel.
//!
//! A `tracing` span that is entered becomes the active span of its thread, so calls made inside it are its children, and
//! it leaves again with every suspension of a future. Spans outside any call are not recorded; events outside any call
//! become logs without a trace.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::sync::Arc;

use ringway_ipc::clock::now_ns;
use ringway_protocol::limits::LOG_FIELDS_MAX;
use ringway_protocol::telemetry::{FieldValue, Level, LogRecord, SpanName, SpanRecord};
use ringway_protocol::{SpanId, TraceContext, WorkerId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::context;
use crate::sampler::new_span_id;
use crate::telemetry::Telemetry;

/// The longest message or field value of a log, in bytes; the rest is cut.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Crates of the product. They say much about each record that they handle, and what they say would be a record too;
/// only their warnings and errors become logs.
const OWN_CRATES: [&str; 6] = [
    "ringway",
    "ringway_ipc",
    "ringway_protocol",
    "ringway_engine",
    "ringway_engine_core",
    "ringway_telemetry",
];

/// Makes the layer. It sends what it hears in a handler through that handler's worker, all else through the process's
/// first worker, and drops it while there is none.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(ringway::layer());
/// # drop(subscriber);
/// ```
pub fn layer<S>() -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    Tracing { telemetry: None }
}

struct Tracing {
    /// Set by tests; none means that of the active handler's worker.
    telemetry: Option<Arc<Telemetry>>,
}

/// A span that is recorded when it closes.
struct OwnSpan {
    trace: TraceContext,
    parent: SpanId,
    start_ns: u64,
    /// The worker in whose handler it began.
    worker: WorkerId,
}

/// A span that this thread is in.
struct Inside {
    id: Id,
    left: bool,
    _active: context::Entered,
}

thread_local! {
    static INSIDE: RefCell<Vec<Inside>> = const { RefCell::new(Vec::new()) };
}

impl Tracing {
    fn telemetry(&self, worker: WorkerId) -> Option<Arc<Telemetry>> {
        self.telemetry.clone().or_else(|| Telemetry::of_worker(worker))
    }
}

/// The span below which something happens: the one it names, or the active one.
fn surroundings<S>(parent: Option<&Id>, contextual: bool, context: &Context<'_, S>) -> TraceContext
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let named = parent.and_then(|id| context.span(id)?.extensions().get::<OwnSpan>().map(|span| span.trace));
    let active = || if contextual { context::inherited().trace } else { TraceContext::default() };
    named.unwrap_or_else(active)
}

fn is_heard(metadata: &Metadata<'_>) -> bool {
    let first = metadata.target().split("::").next().unwrap_or_default();
    !OWN_CRATES.contains(&first) || *metadata.level() <= tracing::Level::WARN
}

impl<S> Layer<S> for Tracing
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !is_heard(attributes.metadata()) {
            return;
        }
        let parent = surroundings(attributes.parent(), attributes.is_contextual(), &context);
        if !parent.is_valid() || !parent.is_sampled() {
            return;
        }
        if let Some(span) = context.span(id) {
            let trace = parent.child(new_span_id());
            let worker = context::inherited().worker;
            let own = OwnSpan { trace, parent: parent.span_id, start_ns: now_ns(), worker };
            span.extensions_mut().insert(own);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let trace = context.span(id).and_then(|span| span.extensions().get::<OwnSpan>().map(|own| own.trace));
        if let Some(trace) = trace {
            let entered = Inside { id: id.clone(), left: false, _active: context::enter_trace(trace) };
            // A thread that is ending has no list any more; the span is left at once then.
            let _ending = INSIDE.try_with(|inside| inside.borrow_mut().push(entered));
        }
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        let _ending = INSIDE.try_with(|inside| {
            let mut inside = inside.borrow_mut();
            if let Some(found) = inside.iter_mut().rev().find(|entered| entered.id == *id && !entered.left) {
                found.left = true;
            }
            // Spans may be left in any order; what was active before comes back in the reverse order of entering.
            while inside.pop_if(|entered| entered.left).is_some() {}
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(own) = span.extensions_mut().remove::<OwnSpan>() else { return };
        if let Some(telemetry) = self.telemetry(own.worker) {
            let name = SpanName::new(span.name());
            telemetry.span(&SpanRecord {
                start_ns: own.start_ns,
                end_ns: now_ns(),
                ..SpanRecord::named(own.trace.trace_id, own.trace.span_id, own.parent, name)
            });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !is_heard(event.metadata()) {
            return;
        }
        let Some(telemetry) = self.telemetry(context::inherited().worker) else { return };
        let trace = surroundings(event.parent(), event.is_contextual(), &context);
        let mut record = LogRecord {
            time_ns: now_ns(),
            level: level_of(event.metadata()),
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            target: event.metadata().target().to_owned(),
            ..LogRecord::default()
        };
        event.record(&mut Fields(&mut record));
        telemetry.log(&record);
    }
}

fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// Collects the values of an event.
struct Fields<'a>(&'a mut LogRecord);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: FieldValue) {
        if self.0.fields.len() < LOG_FIELDS_MAX {
            self.0.fields.push((field.name().to_owned(), value));
        }
    }

    fn put_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.0.message = text;
        } else {
            self.put(field, FieldValue::Text(text));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, cut(format_args!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value[..value.floor_char_boundary(TEXT_BYTES_MAX)].to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, cut(format_args!("{value}")));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, FieldValue::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, FieldValue::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // The smaller ones read back as signed, so they are written so.
        self.put(field, i64::try_from(value).map_or(FieldValue::U64(value), FieldValue::I64));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, FieldValue::F64(value));
    }
}

/// Writes a value, at most [`TEXT_BYTES_MAX`] bytes of it. A value that would write for ever is stopped.
fn cut(value: fmt::Arguments<'_>) -> String {
    struct Bounded(String);
    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = TEXT_BYTES_MAX - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut text = Bounded(String::new());
    // The only error is the one above, and what was written until then is what is wanted.
    let _cut = text.write_fmt(value);
    text.0
}

#[cfg(test)]
mod tests;
