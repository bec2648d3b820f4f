//! What reaches the engine's end of the ring, and what happens when it does not read.

use std::time::Duration;

use ringway_protocol::telemetry::{FunctionRef, SpanKind, SpanName};
use ringway_protocol::{SpanId, TraceId};

use super::fake_reader::{Came, FakeReader};
use ringway_ipc::records::RECORDS_SLOTS;

use super::*;

fn span(number: u64) -> SpanRecord {
    SpanRecord {
        trace_id: TraceId::from_bytes([7; 16]),
        span_id: SpanId::from_bytes(number.to_be_bytes()),
        parent_id: SpanId::NONE,
        start_ns: number,
        end_ns: number + 1,
        kind: SpanKind::Server,
        status: 0,
        function: FunctionRef { worker: WorkerId::new(5), index: 3 },
        peer: WorkerId::new(6),
        woke_ns: 0,
        bytes_in: 1,
        bytes_out: 2,
        flags: 0,
        name: SpanName::new("work"),
    }
}

fn numbers(came: &[Came]) -> Vec<u64> {
    let number = |came: &Came| match came {
        Came::Span(span) => Some(span.start_ns),
        _ => None,
    };
    came.iter().filter_map(number).collect()
}

#[test]
fn records_arrive_as_they_were_written() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    let mut reader = FakeReader::attach(&telemetry);
    telemetry.span(&span(1));
    let long = LogRecord { message: "é".repeat(1_000), target: "a::b".into(), ..LogRecord::default() };
    telemetry.log(&long);
    telemetry.log(&LogRecord { message: "short".into(), ..LogRecord::default() });
    let came = reader.read();
    assert_eq!(came[0], Came::Span(Box::new(span(1))));
    assert_eq!(came[1], Came::Log(long));
    assert!(matches!(&came[2], Came::Log(log) if log.message == "short"));
    assert_eq!(telemetry.lost(), Dropped::default());
}

#[test]
fn what_comes_before_an_engine_waits_for_it() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    for number in 0..KEPT_MAX as u64 + 10 {
        telemetry.span(&span(number));
    }
    let mut reader = FakeReader::attach(&telemetry);
    let came = numbers(&reader.read());
    assert_eq!(came, (0..KEPT_MAX as u64).collect::<Vec<_>>());
    telemetry.span(&span(7));
    let came = reader.read();
    assert_eq!(came[0], Came::Dropped(Dropped { spans: 10, logs: 0 }));
    assert_eq!(numbers(&came), [7]);
}

#[test]
fn a_full_ring_drops_and_says_so_later() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    let mut reader = FakeReader::attach(&telemetry);
    for number in 0..u64::from(RECORDS_SLOTS) + 3 {
        telemetry.span(&span(number));
    }
    telemetry.log(&LogRecord::default());
    assert_eq!(telemetry.lost(), Dropped { spans: 3, logs: 1 });
    assert_eq!(reader.read().len(), RECORDS_SLOTS as usize);
    telemetry.span(&span(1));
    assert_eq!(reader.read()[0], Came::Dropped(Dropped { spans: 3, logs: 1 }));
    telemetry.span(&span(2));
    assert_eq!(reader.read(), [Came::Span(Box::new(span(2)))], "it is said once");
}

#[test]
fn the_bell_rings_once_for_each_request() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    let mut reader = FakeReader::attach(&telemetry);
    reader.bell.clear();
    telemetry.span(&span(1));
    assert!(!reader.bell.wait(Duration::ZERO), "nobody asked");
    assert_eq!(reader.read().len(), 1);
    assert!(reader.consumer.ask_for_bell(layout::ATTENTION_WORKER_BELL, || ()));
    telemetry.span(&span(2));
    assert!(reader.bell.wait(Duration::ZERO));
    telemetry.span(&span(3));
    assert!(!reader.bell.wait(Duration::ZERO), "it has rung for this request");
    assert_eq!(reader.read().len(), 2);
}

#[test]
fn a_new_engine_gets_a_new_ring() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    let mut first = FakeReader::attach(&telemetry);
    telemetry.span(&span(1));
    assert_eq!(first.read().len(), 1);
    telemetry.span(&span(2));
    telemetry.detach();
    telemetry.span(&span(3));
    let mut second = FakeReader::attach(&telemetry);
    telemetry.span(&span(4));
    let came = second.read();
    assert_eq!(numbers(&came), [3, 4]);
    assert!(came.contains(&Came::Dropped(Dropped { spans: 1, logs: 0 })), "span 2 was never read");
}

#[test]
fn without_the_engines_descriptors_records_are_kept() {
    let telemetry = Telemetry::new(WorkerId::new(9));
    assert!(telemetry.prepare().is_some());
    assert!(matches!(
        telemetry.attach(Vec::new(), 1 << 30, false),
        Err(RecordsError::Descriptors { found: 0 })
    ));
    telemetry.span(&span(1));
    assert_eq!(numbers(&FakeReader::attach(&telemetry).read()), [1]);
}
