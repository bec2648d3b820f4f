//! Records as they come from rings, good and bad, and what becomes of them.

use proptest::prelude::*;
use ringway_protocol::limits::TELEMETRY_BYTES;
use ringway_protocol::telemetry::{FieldValue, FunctionRef, Level, SpanKind, SpanName, SpanRecord};
use ringway_protocol::{SpanId, TraceId};

use super::*;
use crate::store::LogFilter;
use crate::testing::{span_id, trace_id};

const A: WorkerId = WorkerId::new(0xa);

fn collector() -> Collector {
    let anchor = ClockAnchor { monotonic_ns: 0, unix_ns: 1_000 };
    let mut collector = Collector::new(StoreLimits::default(), anchor, None);
    let identity =
        WorkerIdentity { id: A, name: "a".to_owned(), namespace: String::new(), pid: 1, is_engine: false };
    collector.worker_attached(identity);
    collector.function_registered(A, 3, "orders::validate");
    collector
}

fn record() -> SpanRecord {
    SpanRecord {
        trace_id: trace_id(1),
        span_id: span_id(1),
        parent_id: SpanId::NONE,
        start_ns: 10,
        end_ns: 20,
        kind: SpanKind::Server,
        status: 0,
        function: FunctionRef { worker: A, index: 3 },
        peer: WorkerId::new(0),
        woke_ns: 0,
        bytes_in: 64,
        bytes_out: 8,
        flags: 0,
        name: SpanName::EMPTY,
    }
}

fn encode(record: &SpanRecord) -> Vec<u8> {
    let mut bytes = [0; TELEMETRY_BYTES];
    let len = record.encode(&mut bytes);
    bytes[..len].to_vec()
}

#[test]
fn a_span_finds_its_name() {
    let mut collector = collector();
    collector.ingest(A, &encode(&record())).unwrap();
    let trace = collector.store().trace(trace_id(1)).unwrap();
    assert_eq!(
        (&*trace.spans[0].name, trace.spans[0].woke_ns, trace.spans[0].parent_id),
        ("orders::validate", None, None)
    );
}

#[test]
fn a_long_log_is_put_together() {
    let mut collector = collector();
    let record = LogRecord {
        time_ns: 5,
        level: Level::Warn,
        trace_id: trace_id(1),
        span_id: span_id(1),
        target: "orders".to_owned(),
        message: "many words ".repeat(100),
        fields: vec![("count".to_owned(), FieldValue::U64(3))],
    };
    let mut chunks = 0;
    record.encode(7, |bytes, len| {
        chunks += 1;
        collector.ingest(A, &bytes[..len]).is_ok()
    });
    assert!(chunks > 5);
    let logs = collector.store().logs(&LogFilter::default());
    assert_eq!((logs.len(), &logs[0].message, &logs[0].fields), (1, &record.message, &record.fields));
}

#[test]
fn what_is_lost_is_counted_and_survives_its_worker() {
    let mut collector = collector();
    let mut bytes = [0; TELEMETRY_BYTES];
    let len = Dropped { spans: 5, logs: 2 }.encode(&mut bytes);
    collector.ingest(A, &bytes[..len]).unwrap();
    let len = Dropped { spans: 7, logs: 2 }.encode(&mut bytes);
    collector.ingest(A, &bytes[..len]).unwrap();
    assert!(collector.ingest(A, &[99]).is_err());
    let expected =
        IntakeCounters { spans_dropped: 7, logs_dropped: 2, logs_torn: 0, malformed: 1, rejected: 0 };
    assert_eq!(collector.counters(), expected);
    collector.worker_gone(A, 100);
    assert_eq!(collector.counters(), expected);
    assert_eq!(collector.ingest(A, &encode(&record())), Err(IngestError::UnknownWorker(A)));
}

#[test]
fn a_worker_that_attaches_again_keeps_its_half_told_log() {
    let mut collector = collector();
    let identity = (**collector.directory().worker(A).unwrap()).clone();
    let record = LogRecord { message: "x".repeat(300), ..LogRecord::default() };
    let mut first = true;
    record.encode(1, |bytes, len| {
        if std::mem::take(&mut first) {
            collector.ingest(A, &bytes[..len]).unwrap();
            collector.worker_attached(identity.clone());
        } else {
            collector.ingest(A, &bytes[..len]).unwrap();
        }
        true
    });
    assert_eq!(collector.store().counters().logs, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_do_harm(
        records in prop::collection::vec(
            (0..6_u8, prop::collection::vec(any::<u8>(), 0..TELEMETRY_BYTES)),
            1..50,
        ),
    ) {
        let mut collector = collector();
        for (tag, mut bytes) in records {
            if let Some(first) = bytes.first_mut() {
                *first = tag;
            }
            let _ignored: Result<(), IngestError> = collector.ingest(A, &bytes);
        }
        prop_assert!(collector.store().trace(TraceId::NONE).is_none());
        for trace in collector.store().traces(&crate::store::TraceFilter::default()) {
            prop_assert!(collector.store().trace(trace.trace_id).is_some());
        }
    }
}
