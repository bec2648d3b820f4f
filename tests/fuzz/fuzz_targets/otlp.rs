//! Frames of telemetry as any program may send them: OTLP as JSON and as protobuf, taken in as the engine does it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_protocol::WorkerId;
use ringway_telemetry::store::StoreLimits;
use ringway_telemetry::{Batch, ClockAnchor, Collector, Format, Signal, WorkerIdentity};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, frame)) = data.split_first() else { return };
    let signal = [Signal::Traces, Signal::Logs, Signal::Metrics][usize::from(choice % 3)];
    let format = if choice & 0x80 == 0 { Format::Json } else { Format::Protobuf };
    let Ok(batch) = Batch::read(signal, format, frame) else { return };
    let anchor = ClockAnchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 };
    let limits = StoreLimits { spans_max: 64, span_bytes_max: 1 << 16, logs_max: 64, log_bytes_max: 1 << 16 };
    let mut collector = Collector::new(limits, anchor, None);
    let id = WorkerId::new(7);
    let (name, namespace) = ("sender".to_owned(), String::new());
    collector.worker_attached(WorkerIdentity { id, name, namespace, pid: 1, is_engine: false });
    let counts = collector.ingest_batch(id, batch, 5_000).expect("the worker is known");
    let held = collector.store().counters();
    assert!(held.spans as u64 <= counts.spans && held.logs as u64 <= counts.logs);
    assert!(held.spans <= 64 && held.log_bytes <= 1 << 16);
});
