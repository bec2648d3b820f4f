//! Records written into a worker's telemetry ring come out of the engine's store, with the names of the catalog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_engine::Engine;
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::layout::{self, Facts};
use ringway_ipc::ring::{EndMemory, Producer, SleepFence};
use ringway_ipc::segment::{Segment, SegmentOptions, SegmentView};
use ringway_protocol::control::WorkerMessage;
use ringway_protocol::telemetry::{
    FieldValue, FunctionRef, Level, LogRecord, SpanKind, SpanName, SpanRecord,
};
use ringway_protocol::{SpanId, TraceId, WorkerId};

use crate::client::{self, Client};

const SLOTS: u32 = 64;

struct Reporter {
    client: Client,
    own: EndMemory,
    producer: Producer,
    bell: Doorbell,
    segment: Arc<Segment>,
}

impl Reporter {
    fn attach(engine: &Engine, name: &str) -> Self {
        let segment =
            Segment::create("test-telemetry", layout::end_bytes(SLOTS), SegmentOptions::default()).unwrap();
        let mut client = Client::connect(engine.address());
        let facts = Facts { slot_count: SLOTS, flags: 0, owner: client.id.get(), channel: 0 };
        let own = EndMemory::create(Arc::clone(&segment), facts).unwrap();
        let fd = segment.fd().unwrap().try_clone_to_owned().unwrap();
        client.hello(name, vec![Arc::new(fd)]);
        let (_, mut fds) = client.welcome();
        assert_eq!(fds.len(), 2);
        let bell = Doorbell::from_fd(fds.pop().unwrap());
        let (peer, facts) = EndMemory::map(SegmentView::map(fds.pop().unwrap(), 1 << 20).unwrap()).unwrap();
        assert_eq!(facts.owner, engine.id().get());
        let producer = Producer::new(own.clone(), peer, SleepFence::Both);
        Self { client, own, producer, bell, segment }
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut inline = Inline::default();
        inline.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        let header = Header { inline_len: bytes.len().try_into().unwrap(), kind: 1, ..Header::default() };
        while self.producer.push(&header, &inline).is_err() {
            std::thread::yield_now();
        }
        if self.producer.attention().bell() != layout::ATTENTION_POLLING {
            self.bell.notify();
        }
    }

    fn span(&mut self, trace: u8, span: u64, worker: WorkerId, index: u32) {
        let record = SpanRecord {
            trace_id: TraceId::from_bytes([trace; 16]),
            span_id: SpanId::from_bytes(span.to_be_bytes()),
            parent_id: SpanId::NONE,
            start_ns: 1_000 + span,
            end_ns: 2_000 + span,
            kind: SpanKind::Server,
            status: 0,
            function: FunctionRef { worker, index },
            peer: WorkerId::new(0),
            woke_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            flags: 0,
            name: SpanName::EMPTY,
        };
        let mut bytes = [0; 192];
        let len = record.encode(&mut bytes);
        self.push(&bytes[..len]);
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spans(engine: &Engine, trace: u8) -> usize {
    let trace = engine.collector().lock().store().trace(TraceId::from_bytes([trace; 16]));
    trace.map_or(0, |trace| trace.spans.len())
}

#[test]
fn spans_reach_the_store_with_their_names() {
    let engine = client::engine();
    let mut reporter = Reporter::attach(&engine, "reporter");
    reporter.client.register(&["report::f"]);
    let id = reporter.client.id;
    for span in 1..=1_000 {
        reporter.span(7, span, id, 1);
    }
    wait_until("a thousand spans", || spans(&engine, 7) == 1_000);
    let trace = engine.collector().lock().store().trace(TraceId::from_bytes([7; 16])).unwrap();
    assert!(trace.spans.iter().all(|span| &*span.name == "report::f" && span.worker.name == "reporter"));
    // The thread sleeps by now; a record wakes it.
    wait_until("a sleep", || reporter.producer.attention().bell() != layout::ATTENTION_POLLING);
    let wakes = engine.counters().telemetry_wakes;
    reporter.span(8, 1, id, 1);
    wait_until("one more span", || spans(&engine, 8) == 1);
    assert!(engine.counters().telemetry_wakes > wakes);
    assert_eq!(engine.counters().telemetry_malformed, 0);
}

#[test]
fn what_a_dead_worker_wrote_is_still_taken() {
    let engine = client::engine();
    let mut reporter = Reporter::attach(&engine, "reporter");
    let id = reporter.client.id;
    wait_until("a sleep", || reporter.producer.attention().bell() != layout::ATTENTION_POLLING);
    let mut inline = Inline::default();
    inline.bytes_mut()[0] = 77;
    let header = Header { inline_len: 1, ..Header::default() };
    // Nobody rings: what is found is found because the worker is gone.
    reporter.producer.push(&header, &inline).unwrap();
    drop(reporter);
    wait_until("the last record", || engine.counters().telemetry_malformed == 1);
    wait_until("the death", || engine.counters().deaths == 1);
    assert!(engine.collector().lock().directory().worker(id).is_some());
}

#[test]
fn a_broken_ring_is_given_up_and_the_worker_stays() {
    let engine = client::engine();
    let mut reporter = Reporter::attach(&engine, "reporter");
    let page =
        SegmentView::map(reporter.segment.fd().unwrap().try_clone_to_owned().unwrap(), 1 << 20).unwrap();
    assert_eq!(page.len(), layout::end_bytes(SLOTS));
    let id = reporter.client.id;
    let laps = usize::try_from(2 * SLOTS + 1).unwrap();
    (0..laps as u64).for_each(|span| reporter.span(9, span + 1, id, 0));
    wait_until("two laps and one", || spans(&engine, 9) == laps);
    // A second producer from position 0 writes stamps that the first has passed two laps ago.
    let mut liar = Producer::new(reporter.own.clone(), EndMemory::heap(2), SleepFence::Both);
    for _ in 0..2 {
        liar.push(&Header::default(), &Inline::default()).unwrap();
    }
    reporter.bell.notify();
    wait_until("the ring is given up", || engine.counters().telemetry_rings_broken == 1);
    reporter.client.register(&["still::there"]);
    assert_eq!((spans(&engine, 9), engine.counters().expulsions), (laps, 0));
}

#[test]
fn long_logs_come_over_the_control_socket() {
    let engine = client::engine();
    let mut client = Client::attach(engine.address(), "logger");
    let record = LogRecord {
        time_ns: 5,
        level: Level::Warn,
        trace_id: TraceId::from_bytes([3; 16]),
        span_id: SpanId::NONE,
        target: "test".into(),
        message: "long".into(),
        fields: vec![("n".into(), FieldValue::I64(1))],
    };
    client.say(&WorkerMessage::Logs { records: vec![record] });
    wait_until("the log", || engine.collector().lock().store().counters().logs == 1);
}
