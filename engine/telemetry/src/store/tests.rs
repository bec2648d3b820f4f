//! The store against a naive model, and tables for its queries.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use ringway_protocol::ErrorCode;

use super::*;
use crate::record::{Level, SpanKind, WorkerIdentity};
use crate::testing::{log, span, span_id, trace_id, worker};

/// What the store should do, said as plainly as possible.
struct Model {
    limits: StoreLimits,
    traces: Vec<(TraceId, Vec<Span>, u64)>,
    counters: StoreCounters,
}

impl Model {
    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.traces.iter().flat_map(|(_, spans, _)| spans)
    }

    fn insert(&mut self, span: Span) -> Inserted {
        if span.trace_id.is_none() || span.span_id.is_none() {
            self.counters.spans_invalid += 1;
            return Inserted::Invalid;
        }
        let mine = self.traces.iter().position(|(id, _, _)| *id == span.trace_id);
        if let Some(mine) = mine {
            let full = self.traces[mine].1.len() >= self.limits.trace_spans_max();
            let held = self.traces[mine].1.iter_mut().find(|held| held.span_id == span.span_id);
            match held {
                Some(held) if held.end_ns.is_none() && span.end_ns.is_some() => {
                    *held = Span { name: Arc::clone(&held.name), ..span };
                    return Inserted::Ended;
                }
                Some(_) => {
                    self.counters.spans_duplicate += 1;
                    return Inserted::Duplicate;
                }
                None if full => {
                    self.counters.spans_dropped += 1;
                    self.traces[mine].2 += 1;
                    return Inserted::Dropped;
                }
                None => {}
            }
        }
        while self.spans().count() + 1 > self.limits.spans_max
            || self.spans().map(spans::footprint).sum::<usize>() + spans::footprint(&span)
                > self.limits.span_bytes_max
        {
            let Some(oldest) = self.traces.iter().position(|(id, _, _)| *id != span.trace_id) else {
                self.counters.spans_dropped += 1;
                if let Some(trace) = self.traces.first_mut() {
                    trace.2 += 1;
                }
                return Inserted::Dropped;
            };
            let (_, gone, _) = self.traces.remove(oldest);
            self.counters.spans_evicted += gone.len() as u64;
            self.counters.traces_evicted += 1;
        }
        self.counters.spans_received += 1;
        match self.traces.iter_mut().find(|(id, _, _)| *id == span.trace_id) {
            Some((_, spans, _)) => spans.push(span),
            None => self.traces.push((span.trace_id, vec![span], 0)),
        }
        Inserted::New
    }

    fn worker_gone(&mut self, worker: WorkerId, now_ns: u64) {
        for (_, spans, _) in &mut self.traces {
            for span in spans.iter_mut().filter(|span| span.worker.id == worker && span.end_ns.is_none()) {
                span.end_ns = Some(now_ns.max(span.start_ns));
                span.status = ErrorCode::WorkerGone.status();
                span.lost = true;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Span {
        trace: u8,
        span: u8,
        parent: u8,
        worker: u8,
        start: u16,
        took: Option<u16>,
        name_len: u8,
        failed: bool,
    },
    WorkerGone(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let span =
        (0..8_u8, 0..10_u8, 0..10_u8, 1..4_u8, any::<u16>(), any::<Option<u16>>(), 0..40_u8, any::<bool>())
            .prop_map(|(trace, span, parent, worker, start, took, name_len, failed)| Step::Span {
                trace,
                span,
                parent,
                worker,
                start,
                took,
                name_len,
                failed,
            });
    prop_oneof![20 => span, 1 => (1..4_u8).prop_map(Step::WorkerGone)]
}

fn make(step: &Step, workers: &[Arc<WorkerIdentity>]) -> Option<Span> {
    let Step::Span { trace, span: id, parent, worker, start, took, name_len, failed } = step else {
        return None;
    };
    let start_ns = u64::from(*start);
    let name = "n".repeat(usize::from(*name_len));
    let by = &workers[usize::from(*worker)];
    let mut made = span(by, (*id, *parent), SpanKind::Client, &name, (start_ns, start_ns));
    made.trace_id = trace_id(*trace);
    made.end_ns = took.map(|took| start_ns + u64::from(took));
    made.status = if *failed { 5 } else { 0 };
    Some(made)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_store_does_what_the_model_does(
        steps in prop::collection::vec(step(), 1..200),
        spans_max in 1..40_usize,
        bytes_max in 200..12_000_usize,
    ) {
        let limits = StoreLimits { spans_max, span_bytes_max: bytes_max, ..StoreLimits::default() };
        let workers: Vec<_> = (0..4).map(|id| worker(id, "w")).collect();
        let mut store = TraceStore::new(limits);
        let mut model = Model { limits, traces: Vec::new(), counters: StoreCounters::default() };
        for step in &steps {
            match (make(step, &workers), step) {
                (Some(span), _) => prop_assert_eq!(store.insert_span(span.clone()), model.insert(span)),
                (None, Step::WorkerGone(gone)) => {
                    store.worker_gone(WorkerId::new(u64::from(*gone)), 30_000);
                    model.worker_gone(WorkerId::new(u64::from(*gone)), 30_000);
                }
                (None, Step::Span { .. }) => unreachable!("spans were made above"),
            }
            let expected = StoreCounters {
                traces: model.traces.len(),
                spans: model.spans().count(),
                spans_live: model.spans().filter(|span| span.is_live()).count(),
                span_bytes: model.spans().map(spans::footprint).sum(),
                ..model.counters
            };
            prop_assert_eq!(store.counters(), expected);
            prop_assert!(expected.spans <= spans_max && expected.span_bytes <= bytes_max);
        }
        for (id, spans, dropped) in &model.traces {
            let record = store.trace(*id).unwrap();
            prop_assert_eq!((&record.spans, record.spans_dropped), (spans, *dropped));
        }
        let listed: Vec<_> = store.traces(&TraceFilter::default()).iter().map(|trace| trace.trace_id).collect();
        let expected: Vec<_> = model.traces.iter().rev().map(|(id, _, _)| *id).collect();
        prop_assert_eq!(listed, expected);
    }
}

#[test]
fn traces_are_filtered() {
    let (a, b) = (worker(1, "a"), worker(2, "b"));
    let mut store = TraceStore::default();
    let mut put = |trace: u8, mut span: Span, status: u32| {
        span.trace_id = trace_id(trace);
        span.status = status;
        store.insert_span(span);
    };
    put(1, span(&a, (2, 1), SpanKind::Server, "orders::validate", (20, 90)), 0);
    put(1, span(&b, (1, 0), SpanKind::Client, "orders::place", (10, 100)), 0);
    put(2, span(&b, (3, 0), SpanKind::Client, "mail::send", (200, 210)), 5);
    let check = |filter: TraceFilter, expected: &[u8]| {
        let found: Vec<_> = store.traces(&filter).iter().map(|trace| trace.trace_id).collect();
        let expected: Vec<_> = expected.iter().map(|&number| trace_id(number)).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    let all = TraceFilter::default();
    check(all.clone(), &[2, 1]);
    check(TraceFilter { limit: 1, ..all.clone() }, &[2]);
    check(TraceFilter { function: Some("orders::validate".to_owned()), ..all.clone() }, &[1]);
    check(TraceFilter { function: Some("orders::*".to_owned()), ..all.clone() }, &[1]);
    check(TraceFilter { function: Some("orders::".to_owned()), ..all.clone() }, &[]);
    check(TraceFilter { outcome: Some(Outcome::Error), ..all.clone() }, &[2]);
    check(TraceFilter { outcome: Some(Outcome::Ok), ..all.clone() }, &[1]);
    check(TraceFilter { duration_ns_min: 90, ..all.clone() }, &[1]);
    check(TraceFilter { since_ns: 200, ..all }, &[2]);
    let summary = &store.traces(&TraceFilter::default())[1];
    assert_eq!((&*summary.root, summary.workers, summary.duration_ns()), ("orders::place", 2, 90));
}

#[test]
fn logs_are_filtered_and_bounded() {
    let (a, b) = (worker(1, "a"), worker(2, "b"));
    let mut store = TraceStore::new(StoreLimits { logs_max: 3, ..StoreLimits::default() });
    store.insert_log(log(&a, 1, 5, Level::Error, "gone at once"));
    store.insert_log(log(&a, 1, 10, Level::Info, "Opened the door"));
    store.insert_log(log(&b, 1, 20, Level::Warn, "door stuck"));
    let mut outside = log(&b, 0, 30, Level::Error, "outside");
    outside.trace_id = None;
    store.insert_log(outside);
    assert_eq!((store.counters().logs, store.counters().logs_evicted), (3, 1));
    let check = |filter: LogFilter, expected: &[u64]| {
        let found: Vec<_> = store.logs(&filter).iter().map(|log| log.time_ns).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    let all = LogFilter::default();
    check(all.clone(), &[10, 20, 30]);
    check(LogFilter { limit: 2, ..all.clone() }, &[20, 30]);
    check(LogFilter { level: Some(Level::Warn), ..all.clone() }, &[20, 30]);
    check(LogFilter { trace_id: Some(trace_id(1)), ..all.clone() }, &[10, 20]);
    check(LogFilter { worker: Some(a.id), ..all.clone() }, &[10]);
    check(LogFilter { worker_name: Some("b".to_owned()), ..all.clone() }, &[20, 30]);
    check(LogFilter { text: Some("DOOR".to_owned()), ..all.clone() }, &[10, 20]);
    check(LogFilter { text: Some("demo".to_owned()), level: Some(Level::Error), ..all.clone() }, &[30]);
    check(LogFilter { since_ns: 20, ..all }, &[20, 30]);
    store.insert_span(span(&a, (1, 0), SpanKind::Internal, "x", (1, 2)));
    assert_eq!(store.trace(trace_id(1)).unwrap().logs.len(), 2);
}

#[test]
fn logs_are_bounded_by_bytes() {
    let a = worker(1, "a");
    let mut store = TraceStore::new(StoreLimits { log_bytes_max: 4096, ..StoreLimits::default() });
    for time_ns in 0..1000 {
        store.insert_log(log(&a, 1, time_ns, Level::Info, &"long ".repeat(20)));
    }
    store.insert_log(log(&a, 1, 0, Level::Info, &"x".repeat(5000)));
    let counters = store.counters();
    assert_eq!((counters.logs, counters.log_bytes, counters.logs_evicted), (0, 0, 1001), "{counters:?}");
}

#[test]
fn a_live_span_ends_once() {
    let a = worker(1, "a");
    let mut store = TraceStore::default();
    let finished = span(&a, (1, 0), SpanKind::Server, "slow::work", (10, 99));
    let live = Span { end_ns: None, ..finished.clone() };
    assert_eq!(store.insert_span(live.clone()), Inserted::New);
    assert_eq!(store.live_spans(), std::slice::from_ref(&live));
    assert_eq!(store.insert_span(live.clone()), Inserted::Duplicate);
    assert_eq!(store.insert_span(finished.clone()), Inserted::Ended);
    assert_eq!(store.insert_span(live), Inserted::Duplicate, "news of the start came late");
    assert_eq!(store.trace(trace_id(1)).unwrap().spans, [finished]);
    assert_eq!(store.live_spans(), []);
}

#[test]
fn the_living_spans_of_a_dead_worker_end_in_an_error() {
    let (a, b) = (worker(1, "a"), worker(2, "b"));
    let mut store = TraceStore::default();
    let live = |by, id| Span { end_ns: None, ..span(by, (id, 0), SpanKind::Server, "x", (10, 10)) };
    store.insert_span(live(&a, 1));
    store.insert_span(live(&b, 2));
    let ended = store.worker_gone(a.id, 50);
    assert_eq!(
        ended.iter().map(|span| (span.span_id, span.end_ns)).collect::<Vec<_>>(),
        [(span_id(1), Some(50))]
    );
    assert_eq!(ended[0].error_code(), Some("worker_gone"));
    assert_eq!(store.live_spans().len(), 1);
}

/// Prints the speed of intake; no time is asserted, as machines differ. Built with `--release` it is telling.
#[test]
fn a_million_spans_pass_through() {
    let a = worker(1, "a");
    let name: Arc<str> = "orders::validate".into();
    let mut template = span(&a, (1, 0), SpanKind::Client, "", (1, 2));
    template.name = name;
    let mut store = TraceStore::default();
    let began = Instant::now();
    for number in 0..1_000_000_u64 {
        let mut next = template.clone();
        next.trace_id = TraceId::from_bytes(u128::from(number / 8 + 1).to_be_bytes());
        next.span_id = ringway_protocol::SpanId::from_bytes((number + 1).to_be_bytes());
        assert_eq!(store.insert_span(next), Inserted::New);
    }
    println!("1,000,000 spans in {:?}", began.elapsed());
    let counters = store.counters();
    assert_eq!(counters.spans, 100_000);
    assert_eq!(counters.spans_evicted, 900_000);
}

#[test]
fn what_is_cleared_is_gone_and_counted() {
    let mut store = TraceStore::default();
    let one = worker(1, "one");
    let live = Span { end_ns: None, ..span(&one, (2, 1), SpanKind::Server, "a::b", (5, 5)) };
    for span in [span(&one, (1, 0), SpanKind::Client, "a::b", (1, 9)), live.clone()] {
        store.insert_span(span);
    }
    store.insert_log(log(&one, 1, 3, Level::Info, "line"));
    store.clear_spans();
    let counters = store.counters();
    assert_eq!((counters.spans, counters.spans_live, counters.span_bytes, counters.traces), (0, 0, 0, 0));
    assert_eq!((counters.spans_received, counters.spans_cleared, counters.logs), (2, 2, 1));
    assert!(store.trace(trace_id(1)).is_none() && store.live_spans().is_empty());
    assert_eq!(store.insert_span(Span { end_ns: Some(9), ..live }), Inserted::New, "it ends after all");
    store.clear_logs();
    let counters = store.counters();
    assert_eq!((counters.logs, counters.log_bytes, counters.logs_cleared, counters.spans), (0, 0, 1, 1));
}
