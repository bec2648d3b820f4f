//! What is exported arrives: a trace over five workers, with its logs, read back by an independent OTLP receiver; and
//! what happens when the receiver refuses, stalls or is not there.

#![forbid(unsafe_code)]

mod receiver;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringway_protocol::limits::TELEMETRY_BYTES;
use ringway_protocol::telemetry::{
    FieldValue, FunctionRef, Level, LogRecord, SPAN_FLAG_IN_PLACE, SpanKind, SpanName, SpanRecord,
};
use ringway_protocol::{ErrorCode, SpanId, TraceId, WorkerId};
use ringway_telemetry::otlp::{ExportConfig, ExportCounters, Exporter, SignalCounters};
use ringway_telemetry::store::StoreLimits;
use ringway_telemetry::{ClockAnchor, Collector, WorkerIdentity};
use serde_json::{Value, json};

use self::receiver::Receiver;

const ANCHOR: ClockAnchor = ClockAnchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 };
const TRACE: TraceId = TraceId::from_bytes([0xab; 16]);
const WORKERS: u8 = 5;
/// Enough that the trace takes several batches.
const ROUNDS: u8 = 40;

/// Starts an exporter to a port of this machine.
fn exporter(port: u64, more: &[(&str, &str)]) -> Result<Exporter> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let config = ExportConfig::from_lookup(|name| {
        let set = more.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        set.or_else(|| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.clone()))
    })?;
    ensure!(config.warnings.is_empty(), "{:?}", config.warnings);
    Exporter::start(&config)?.context("an endpoint is set")
}

fn worker_id(number: u8) -> WorkerId {
    WorkerId::new(0xf000 + u64::from(number))
}

fn collector(exporter: Exporter) -> Collector {
    let mut collector = Collector::new(StoreLimits::default(), ANCHOR, Some(exporter));
    for number in 0..WORKERS {
        let identity = WorkerIdentity {
            id: worker_id(number),
            name: format!("worker-{number}"),
            namespace: "shop".to_owned(),
            pid: 100 + u32::from(number),
            is_engine: number == 0,
        };
        collector.worker_attached(identity);
        collector.function_registered(worker_id(number), 1, &format!("stage{number}::run"));
    }
    collector
}

/// Names a span by round, worker and side.
fn span_id(round: u8, worker: u8, kind: SpanKind) -> SpanId {
    SpanId::from_bytes([1, 0, 0, 0, 0, round, worker, kind as u8])
}

/// Makes one side of the call by which `worker` is called in a chain: worker 0 calls 1, which calls 2, and so on.
fn side(round: u8, worker: u8, kind: SpanKind) -> SpanRecord {
    let (outer, inner) = (SpanKind::Client, SpanKind::Server);
    let parent_id = match kind {
        SpanKind::Server => span_id(round, worker, outer),
        _ if worker == 1 => SpanId::NONE,
        _ => span_id(round, worker - 1, inner),
    };
    let start_ns = 2_000 + u64::from(worker) * 100 + u64::from(kind == inner) * 10;
    SpanRecord {
        trace_id: TRACE,
        span_id: span_id(round, worker, kind),
        parent_id,
        start_ns,
        end_ns: start_ns + 5_000,
        kind,
        status: if worker == 4 { ErrorCode::HandlerError.status() } else { 0 },
        function: FunctionRef { worker: worker_id(worker), index: 1 },
        peer: worker_id(if kind == inner { worker - 1 } else { worker }),
        woke_ns: if kind == inner { start_ns - 5 } else { 0 },
        bytes_in: 64,
        bytes_out: 16 << 20,
        flags: SPAN_FLAG_IN_PLACE,
        name: SpanName::EMPTY,
    }
}

fn log(round: u8, worker: u8) -> LogRecord {
    LogRecord {
        time_ns: 3_000 + u64::from(worker),
        level: Level::Warn,
        trace_id: TRACE,
        span_id: span_id(round, worker, SpanKind::Server),
        target: "stage".to_owned(),
        message: format!(
            "round {round} in worker {worker}: {}",
            "long text, größer als ein Platz ".repeat(12)
        ),
        fields: vec![
            ("round".to_owned(), FieldValue::U64(round.into())),
            ("big".to_owned(), FieldValue::U64(u64::MAX)),
            ("ratio".to_owned(), FieldValue::F64(0.5)),
        ],
    }
}

/// Feeds the whole trace as bytes, as it would come through the workers' rings.
fn feed(collector: &mut Collector) -> Result<()> {
    let mut bytes = [0; TELEMETRY_BYTES];
    for (round, worker) in (0..ROUNDS).flat_map(|round| (1..WORKERS).map(move |worker| (round, worker))) {
        for (recorder, kind) in [(worker - 1, SpanKind::Client), (worker, SpanKind::Server)] {
            let len = side(round, worker, kind).encode(&mut bytes);
            collector.ingest(worker_id(recorder), &bytes[..len])?;
        }
        let whole = log(round, worker).encode(u32::from(round), |bytes, len| {
            collector.ingest(worker_id(worker), &bytes[..len]).is_ok()
        });
        ensure!(whole, "a log was refused");
    }
    Ok(())
}

fn of_type<'a>(lines: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == wanted).collect()
}

/// Checks one decoded span, field by field, against the record it was made of.
fn check_span(found: &Value, round: u8, worker: u8, kind: SpanKind) {
    let record = side(round, worker, kind);
    let server = kind == SpanKind::Server;
    let recorder = if server { worker } else { worker - 1 };
    let unix = |monotonic_ns: u64| ANCHOR.unix_ns + monotonic_ns - ANCHOR.monotonic_ns;
    let parent = if record.parent_id.is_none() { String::new() } else { record.parent_id.to_string() };
    let mut attributes = json!({
        "rpc.system": "ringway",
        "rpc.service": format!("stage{worker}"),
        "rpc.method": "run",
        "ringway.request.bytes": 64,
        "ringway.reply.bytes": 16 << 20,
        "ringway.peer.worker.id": record.peer.to_string(),
        "ringway.in_place": true,
    });
    if worker == 4 {
        attributes["error.type"] = "handler_error".into();
    }
    let expected = json!({
        "type": "span",
        "resource": {
            "service.name": if recorder == 0 { "my-engine".to_owned() } else { format!("worker-{recorder}") },
            "service.namespace": "shop",
            "service.instance.id": worker_id(recorder).to_string(),
            "process.pid": 100 + u32::from(recorder),
            "telemetry.sdk.name": "ringway",
            "telemetry.sdk.language": "rust",
            "telemetry.sdk.version": env!("CARGO_PKG_VERSION"),
            "deployment.environment": "lab",
        },
        "scope": "ringway",
        "trace_id": TRACE.to_string(),
        "span_id": record.span_id.to_string(),
        "parent_id": parent,
        "name": format!("stage{worker}::run"),
        "kind": if server { "SPAN_KIND_SERVER" } else { "SPAN_KIND_CLIENT" },
        "start": unix(record.start_ns),
        "end": unix(record.end_ns),
        "flags": 1,
        "status": if worker == 4 { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" },
        "status_message": if worker == 4 { "handler_error" } else { "" },
        "attributes": attributes,
        "events": if server {
            json!([{ "name": "ringway.woke", "time": unix(record.woke_ns) }])
        } else {
            json!([])
        },
    });
    assert_eq!(*found, expected);
}

fn check_log(found: &Value, round: u8, worker: u8) {
    let record = log(round, worker);
    assert_eq!(found["body"], record.message);
    assert_eq!(found["trace_id"], TRACE.to_string());
    assert_eq!(found["span_id"], record.span_id.to_string());
    assert_eq!(found["time"], ANCHOR.unix_ns + record.time_ns - ANCHOR.monotonic_ns);
    assert_eq!(
        (&found["severity"], &found["severity_text"]),
        (&"SEVERITY_NUMBER_WARN".into(), &"WARN".into())
    );
    assert_eq!(
        (&found["scope"], &found["resource"]["service.name"]),
        (&"stage".into(), &format!("worker-{worker}").into())
    );
    assert_eq!(found["attributes"], json!({ "round": round, "big": u64::MAX.to_string(), "ratio": 0.5 }));
}

fn check_trace(lines: &[Value]) -> Result<()> {
    let by_id = |lines: Vec<&Value>| -> HashMap<String, Value> {
        lines
            .into_iter()
            .map(|line| (line["span_id"].as_str().unwrap_or_default().to_owned(), line.clone()))
            .collect()
    };
    let sides = usize::from(ROUNDS) * usize::from(WORKERS - 1);
    let (spans, logs) = (of_type(lines, "span"), of_type(lines, "log"));
    assert_eq!((spans.len(), logs.len()), (sides * 2, sides), "nothing twice, nothing missing");
    let (spans, logs) = (by_id(spans), by_id(logs));
    for (round, worker) in (0..ROUNDS).flat_map(|round| (1..WORKERS).map(move |worker| (round, worker))) {
        for kind in [SpanKind::Client, SpanKind::Server] {
            let id = span_id(round, worker, kind).to_string();
            check_span(spans.get(&id).with_context(|| format!("span {id} is missing"))?, round, worker, kind);
        }
        let id = span_id(round, worker, SpanKind::Server).to_string();
        check_log(logs.get(&id).with_context(|| format!("the log of {id} is missing"))?, round, worker);
    }
    Ok(())
}

const NAMES: [(&str, &str); 2] =
    [("OTEL_SERVICE_NAME", "my-engine"), ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab")];

fn counted(exported: u64) -> SignalCounters {
    SignalCounters { exported, ..SignalCounters::default() }
}

#[test]
fn a_trace_over_five_workers_arrives_unbroken() -> Result<()> {
    let receiver = Receiver::start(&[])?;
    let mut collector = collector(exporter(
        receiver.port,
        &[&NAMES[..], &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")]].concat(),
    )?);
    feed(&mut collector)?;
    let counters = collector.exporter().context("there is one")?.shutdown(Duration::from_secs(20));
    assert_eq!(counters, ExportCounters { spans: counted(320), logs: counted(160) });
    let lines = receiver.finish()?;
    let to = |path: &str| of_type(&lines, "request").iter().filter(|request| request["path"] == path).count();
    assert!(to("/v1/traces") >= 4, "batches of 100 at most");
    assert!(to("/v1/logs") >= 1);
    check_trace(&lines)
}

#[test]
fn a_compressed_trace_arrives_unbroken_with_its_headers() -> Result<()> {
    let receiver = Receiver::start(&[])?;
    let more = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b")];
    let mut collector = collector(exporter(receiver.port, &[&NAMES[..], &more].concat())?);
    feed(&mut collector)?;
    assert!(collector.exporter().context("there is one")?.flush(Duration::from_secs(20)));
    drop(collector);
    let lines = receiver.finish()?;
    for request in of_type(&lines, "request") {
        let headers = &request["headers"];
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["api-key"], "a b");
    }
    check_trace(&lines)
}

/// Exports one span to a receiver that answers as told; returns what was counted, the requests and spans it saw, and
/// the time that took.
fn export_one(answers: &[&str], more: &[(&str, &str)]) -> Result<(SignalCounters, usize, usize, Duration)> {
    let receiver = Receiver::start(answers)?;
    let mut collector = collector(exporter(receiver.port, more)?);
    let mut bytes = [0; TELEMETRY_BYTES];
    let len = side(0, 1, SpanKind::Server).encode(&mut bytes);
    collector.ingest(worker_id(1), &bytes[..len])?;
    let exporter = collector.exporter().context("there is one")?;
    let began = Instant::now();
    assert!(exporter.flush(Duration::from_secs(30)), "it is settled in time");
    let took = began.elapsed();
    let counters = exporter.shutdown(Duration::from_secs(1)).spans;
    drop(collector);
    let lines = receiver.finish()?;
    Ok((counters, of_type(&lines, "request").len(), of_type(&lines, "span").len(), took))
}

#[test]
fn a_busy_collector_is_asked_again() -> Result<()> {
    let answers = ["--answer", "503", "--answer", "429:2", "--answer", "502"];
    let (counters, requests, spans, took) = export_one(&answers, &[])?;
    assert_eq!(counters, SignalCounters { exported: 1, retries: 3, ..SignalCounters::default() });
    assert_eq!((requests, spans), (4, 1));
    assert!(took >= Duration::from_secs(2), "Retry-After is honoured, yet it took {took:?}");
    Ok(())
}

#[test]
fn a_refusal_is_final() -> Result<()> {
    let (counters, requests, spans, _) = export_one(&["--answer", "400"], &[])?;
    assert_eq!(counters, SignalCounters { failed: 1, ..SignalCounters::default() });
    assert_eq!((requests, spans), (1, 0));
    Ok(())
}

#[test]
fn a_wait_beyond_the_batch_limit_is_not_begun() -> Result<()> {
    let (counters, requests, spans, _) =
        export_one(&["--answer", "503:3600"], &[("OTEL_BSP_EXPORT_TIMEOUT", "2000")])?;
    assert_eq!(counters, SignalCounters { failed: 1, ..SignalCounters::default() });
    assert_eq!((requests, spans), (1, 0));
    Ok(())
}

#[test]
fn a_partial_success_is_counted() -> Result<()> {
    let (counters, requests, spans, _) = export_one(&["--reject", "1"], &[])?;
    assert_eq!(counters, SignalCounters { rejected: 1, ..SignalCounters::default() });
    assert_eq!((requests, spans), (1, 1));
    Ok(())
}

#[test]
fn without_a_collector_the_queue_stays_bounded_and_the_end_comes() -> Result<()> {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = nobody.local_addr()?.port();
    drop(nobody);
    let more = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_SCHEDULE_DELAY", "60000"),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let mut collector = collector(exporter(port.into(), &more)?);
    feed(&mut collector)?;
    let counters = collector.exporter().context("there is one")?.shutdown(Duration::from_millis(300));
    assert_eq!(counters.logs, SignalCounters::default());
    let SignalCounters { exported, dropped, failed, .. } = counters.spans;
    assert_eq!((exported, dropped + failed), (0, 320), "{counters:?}");
    assert!(dropped >= 320 - 16, "{counters:?}");
    Ok(())
}
