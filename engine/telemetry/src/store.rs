//! The traces and logs of the recent past, in memory, within fixed limits.
//!
//! The engine puts in what workers report, in whatever order it comes; the CLI, the console and the built-in
//! functions ask. The oldest trace goes first when space runs out. It is a plain data structure for one thread at a
//! time: the engine puts a lock around it. This file must not know clocks (time is in the records), the network, or
//! how a trace is shown.

mod hash;
mod logs;
mod points;
mod query;
mod spans;

use ringway_protocol::{TraceId, WorkerId};
use serde::Serialize;

use self::logs::LogRing;
use self::points::Points;
use self::spans::SpanSlab;
use crate::record::{Log, Span, SpanKind};

pub use self::points::{Point, PointKind};
pub use self::query::{LogFilter, Outcome, TraceFilter, TraceRecord, TraceSummary};

/// Series of figures that programs report; each is one point with some attributes.
const SERIES_MAX: usize = 10_000;
/// Bytes of all series.
const SERIES_BYTES_MAX: usize = 16 << 20;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StoreLimits {
    /// Spans of all traces together.
    pub spans_max: usize,
    /// Bytes of all spans together, index included (estimated from the types' sizes).
    pub span_bytes_max: usize,
    /// Log lines.
    pub logs_max: usize,
    /// Bytes of all log lines together.
    pub log_bytes_max: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { spans_max: 100_000, span_bytes_max: 64 << 20, logs_max: 50_000, log_bytes_max: 16 << 20 }
    }
}

impl StoreLimits {
    /// The share of the spans that one trace may hold, so that an endless trace cannot push out all others.
    #[must_use]
    pub fn trace_spans_max(&self) -> usize {
        (self.spans_max / 4).max(1)
    }
}

/// What the store holds and what it let go, since the engine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StoreCounters {
    /// Traces held now.
    pub traces: usize,
    /// Spans held now.
    pub spans: usize,
    /// Spans held now that still run.
    pub spans_live: usize,
    /// Bytes of the spans held now.
    pub span_bytes: usize,
    /// Log lines held now.
    pub logs: usize,
    /// Bytes of the log lines held now.
    pub log_bytes: usize,
    /// Spans taken in, live ones that later ended counted once.
    pub spans_received: u64,
    /// Spans that were there already.
    pub spans_duplicate: u64,
    /// Spans without a trace id or a span id.
    pub spans_invalid: u64,
    /// Spans left out because their trace was full.
    pub spans_dropped: u64,
    /// Spans that went with their trace to make room.
    pub spans_evicted: u64,
    /// Traces that went to make room.
    pub traces_evicted: u64,
    /// Log lines taken in.
    pub logs_received: u64,
    /// Log lines that went to make room.
    pub logs_evicted: u64,
    /// Spans that went because somebody wanted them forgotten.
    pub spans_cleared: u64,
    /// Log lines that went because somebody wanted them forgotten.
    pub logs_cleared: u64,
    /// Series of figures held now.
    pub series: usize,
    /// Points left out because there were too many series, or too large ones.
    pub points_dropped: u64,
}

/// What became of a span that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// It ends a live span.
    Ended,
    /// It was there already.
    Duplicate,
    /// It has no trace id or no span id.
    Invalid,
    /// Its trace is full.
    Dropped,
}

/// Spans and logs of the recent past.
#[derive(Debug)]
pub struct TraceStore {
    limits: StoreLimits,
    spans: SpanSlab,
    logs: LogRing,
    points: Points,
    counters: StoreCounters,
}

impl Default for TraceStore {
    fn default() -> Self {
        Self::new(StoreLimits::default())
    }
}

impl TraceStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new(limits: StoreLimits) -> Self {
        let spans = SpanSlab::default();
        let logs = LogRing::new(limits.logs_max, limits.log_bytes_max);
        let points = Points::new(SERIES_MAX, SERIES_BYTES_MAX);
        Self { limits, spans, logs, points, counters: StoreCounters::default() }
    }

    /// Puts in a span, live or finished, and lets the oldest traces go where there is no room. Constant time, as
    /// each span is let go at most once. Allocates only while the store still grows.
    pub fn insert_span(&mut self, span: Span) -> Inserted {
        let inserted = self.place_span(span);
        match inserted {
            Inserted::New => self.counters.spans_received += 1,
            Inserted::Ended => {}
            Inserted::Duplicate => self.counters.spans_duplicate += 1,
            Inserted::Invalid => self.counters.spans_invalid += 1,
            Inserted::Dropped => self.counters.spans_dropped += 1,
        }
        inserted
    }

    fn place_span(&mut self, span: Span) -> Inserted {
        if span.trace_id.is_none() || span.span_id.is_none() {
            return Inserted::Invalid;
        }
        let trace = self.spans.find_trace(span.trace_id);
        if let Some(trace) = trace {
            if let Some(held) = self.spans.find_span(trace, span.span_id) {
                return if self.spans.end_live(held, span) { Inserted::Ended } else { Inserted::Duplicate };
            }
            if self.spans.span_count(trace) >= self.limits.trace_spans_max() {
                self.spans.count_drop(trace);
                return Inserted::Dropped;
            }
        }
        if !self.make_room(&span) {
            if let Some(trace) = trace {
                self.spans.count_drop(trace);
            }
            return Inserted::Dropped;
        }
        self.spans.insert(trace, span);
        Inserted::New
    }

    /// Lets the oldest traces go until the span fits, but never the span's own trace.
    fn make_room(&mut self, span: &Span) -> bool {
        let needed = spans::footprint(span);
        while self.spans.len() + 1 > self.limits.spans_max
            || self.spans.bytes() + needed > self.limits.span_bytes_max
        {
            let Some(evicted) = self.spans.evict_oldest_except(span.trace_id) else { return false };
            self.counters.spans_evicted += evicted;
            self.counters.traces_evicted += 1;
        }
        true
    }

    /// Puts in a log line, and lets the oldest lines go where there is no room. Constant time.
    pub fn insert_log(&mut self, log: Log) {
        self.counters.logs_received += 1;
        self.counters.logs_evicted += self.logs.push(log);
    }

    /// Puts in a point of a figure, in place of the one before it.
    pub fn insert_point(&mut self, point: Point) {
        self.counters.points_dropped += u64::from(!self.points.put(point));
    }

    /// Walks the latest points of all figures, in no order.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }

    /// Ends what a dead worker had running, since nobody else will, and returns copies of it. Costs a walk over
    /// the live spans.
    pub fn worker_gone(&mut self, worker: WorkerId, now_ns: u64) -> Vec<Span> {
        self.spans.end_lost(worker, now_ns)
    }

    /// Forgets all traces. What runs meanwhile is there again once it ends.
    pub fn clear_spans(&mut self) {
        self.counters.spans_cleared += self.spans.len() as u64;
        self.spans = SpanSlab::default();
    }

    /// Forgets all log lines.
    pub fn clear_logs(&mut self) {
        self.counters.logs_cleared += self.logs.len() as u64;
        self.logs = LogRing::new(self.limits.logs_max, self.limits.log_bytes_max);
    }

    /// Returns what is held and what was let go.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        StoreCounters {
            traces: self.spans.trace_count(),
            spans: self.spans.len(),
            spans_live: self.spans.live_count(),
            span_bytes: self.spans.bytes(),
            logs: self.logs.len(),
            log_bytes: self.logs.bytes(),
            series: self.points.len(),
            ..self.counters
        }
    }

    /// Returns the limits it was made with.
    #[must_use]
    pub fn limits(&self) -> StoreLimits {
        self.limits
    }

    /// Collects a trace: its spans as they came, and the logs that are still held.
    #[must_use]
    pub fn trace(&self, trace_id: TraceId) -> Option<TraceRecord> {
        query::trace(&self.spans, &self.logs, trace_id)
    }

    /// Lists traces, latest first. Costs a walk over the traces until the limit is reached.
    #[must_use]
    pub fn traces(&self, filter: &TraceFilter) -> Vec<TraceSummary> {
        query::traces(&self.spans, filter)
    }

    /// Returns the span that began a trace, or the earliest that is held. Costs a walk over the trace.
    #[must_use]
    pub fn root(&self, trace_id: TraceId) -> Option<Span> {
        query::root(&self.spans, self.spans.find_trace(trace_id)?).cloned()
    }

    /// Walks all spans that are held, those of the trace that arrived last first.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.latest_first().flat_map(|trace| self.spans.spans_of(trace))
    }

    /// Walks all log lines that are held, the oldest first.
    pub fn log_lines(&self) -> impl Iterator<Item = &Log> {
        self.logs.iter()
    }

    /// Walks the callees' sides of all calls that are held and have ended, for figures over them.
    pub fn served(&self) -> impl Iterator<Item = &Span> {
        self.spans().filter(|span| span.kind == SpanKind::Server && !span.is_live())
    }

    /// Lists log lines, the last ones that match, oldest first. Costs a walk over the lines until the limit is
    /// reached.
    #[must_use]
    pub fn logs(&self, filter: &LogFilter) -> Vec<Log> {
        query::logs(&self.logs, filter)
    }

    /// Lists the spans that still run, longest running first.
    #[must_use]
    pub fn live_spans(&self) -> Vec<Span> {
        let mut live: Vec<Span> = self.spans.live().cloned().collect();
        live.sort_by_key(|span| span.start_ns);
        live
    }
}

#[cfg(test)]
mod tests;
