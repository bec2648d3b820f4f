//! What can be asked of the store, and the answers.
//!
//! Answers are copies, so that nobody holds the store's lock while showing them. This file must not change what is
//! stored.

use std::sync::Arc;

use ringway_protocol::{TraceId, WorkerId};
use serde::Serialize;

use super::logs::LogRing;
use super::spans::{SpanSlab, TraceIndex};
use crate::record::{Level, Log, Span, WorkerIdentity};

/// How a trace ended, as far as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No span of it ended in an error.
    Ok,
    /// Some span of it did.
    Error,
}

/// Which traces are wanted; the default wants all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceFilter {
    /// A span's name that must occur: exact, or its beginning where the text ends in `*`.
    pub function: Option<String>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The least time from the first start to the last end (of a live trace: as far as is known), nanoseconds.
    pub duration_ns_min: u64,
    /// The earliest start, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// How many at most; 0 stands for no limit.
    pub limit: usize,
}

/// Which log lines are wanted; the default wants all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// The least grave level.
    pub level: Option<Level>,
    /// The trace.
    pub trace_id: Option<TraceId>,
    /// The worker's run.
    pub worker: Option<WorkerId>,
    /// The worker's name.
    pub worker_name: Option<String>,
    /// The earliest time, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// A part of the message or of the target, in any case of letters.
    pub text: Option<String>,
    /// How many at most; 0 stands for no limit.
    pub limit: usize,
}

/// All that is held of one trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRecord {
    /// The trace's id.
    pub trace_id: TraceId,
    /// Its spans in order of arrival.
    pub spans: Vec<Span>,
    /// Its logs in order of arrival.
    pub logs: Vec<Log>,
    /// How many of its spans did not fit.
    pub spans_dropped: u64,
}

/// One line about a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// The trace's id.
    pub trace_id: TraceId,
    /// The name of the span that started it, or of the earliest one that is held.
    pub root: Arc<str>,
    /// Who recorded that span.
    pub worker: Arc<WorkerIdentity>,
    /// The earliest start, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// The latest time that is known of it, `CLOCK_MONOTONIC` nanoseconds.
    pub end_ns: u64,
    /// How many spans it has.
    pub spans: usize,
    /// How many of them still run.
    pub live: usize,
    /// How many of them ended in an error.
    pub errors: usize,
    /// How many workers recorded them.
    pub workers: usize,
    /// How many more did not fit.
    pub spans_dropped: u64,
}

impl TraceSummary {
    /// Returns the time from the first start to the last end that is known.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Returns how it ended, as far as it did.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.errors == 0 { Outcome::Ok } else { Outcome::Error }
    }
}

pub(super) fn trace(spans: &SpanSlab, logs: &LogRing, trace_id: TraceId) -> Option<TraceRecord> {
    let trace = spans.find_trace(trace_id)?;
    Some(TraceRecord {
        trace_id,
        spans: spans.spans_of(trace).cloned().collect(),
        logs: logs.iter().filter(|log| log.trace_id == Some(trace_id)).cloned().collect(),
        spans_dropped: spans.dropped(trace),
    })
}

pub(super) fn traces(spans: &SpanSlab, filter: &TraceFilter) -> Vec<TraceSummary> {
    spans
        .latest_first()
        .filter(|&trace| has_function(spans, trace, filter.function.as_deref()))
        .filter_map(|trace| summarize(spans, trace))
        .filter(|summary| {
            filter.outcome.is_none_or(|outcome| outcome == summary.outcome())
                && summary.duration_ns() >= filter.duration_ns_min
                && summary.start_ns >= filter.since_ns
        })
        .take(at_most(filter.limit))
        .collect()
}

fn has_function(spans: &SpanSlab, trace: TraceIndex, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    let matches = |name: &str| match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    };
    spans.spans_of(trace).any(|span| matches(&span.name))
}

pub(super) fn root(spans: &SpanSlab, trace: TraceIndex) -> Option<&Span> {
    spans.spans_of(trace).min_by_key(|span| (span.parent_id.is_some(), span.start_ns))
}

fn summarize(spans: &SpanSlab, trace: TraceIndex) -> Option<TraceSummary> {
    let root = root(spans, trace)?;
    let mut workers: Vec<WorkerId> = spans.spans_of(trace).map(|span| span.worker.id).collect();
    workers.sort_unstable();
    workers.dedup();
    let mut summary = TraceSummary {
        trace_id: spans.trace_id(trace),
        root: Arc::clone(&root.name),
        worker: Arc::clone(&root.worker),
        start_ns: root.start_ns,
        end_ns: root.start_ns,
        spans: spans.span_count(trace),
        live: 0,
        errors: 0,
        workers: workers.len(),
        spans_dropped: spans.dropped(trace),
    };
    for span in spans.spans_of(trace) {
        summary.start_ns = summary.start_ns.min(span.start_ns);
        summary.end_ns = summary.end_ns.max(span.end_ns.unwrap_or(span.start_ns));
        summary.live += usize::from(span.is_live());
        summary.errors += usize::from(span.is_error());
    }
    Some(summary)
}

pub(super) fn logs(logs: &LogRing, filter: &LogFilter) -> Vec<Log> {
    let text = filter.text.as_ref().map(|text| text.to_lowercase());
    let says = |log: &Log, text: &str| {
        log.message.to_lowercase().contains(text) || log.target.to_lowercase().contains(text)
    };
    let wanted = |log: &&Log| {
        filter.level.is_none_or(|level| log.level >= level)
            && filter.trace_id.is_none_or(|trace_id| log.trace_id == Some(trace_id))
            && filter.worker.is_none_or(|worker| log.worker.id == worker)
            && filter.worker_name.as_ref().is_none_or(|name| log.worker.name == *name)
            && log.time_ns >= filter.since_ns
            && text.as_ref().is_none_or(|text| says(log, text))
    };
    let mut found: Vec<Log> = logs.iter().rev().filter(wanted).take(at_most(filter.limit)).cloned().collect();
    found.reverse();
    found
}

const fn at_most(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}
