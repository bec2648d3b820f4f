//! What `top` asks, and the rates that follow from two answers. It must not know how they are drawn.

use std::collections::BTreeMap;
use std::time::Instant;

use ringway_protocol::naming;
use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::{inspect, is_question, list, number, word};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::words::unix_ms;

/// How far back traced calls are counted, in milliseconds.
pub(super) const WINDOW_MS: u64 = 10_000;
/// The most traces of one window.
const TRACES_MAX: usize = 5_000;

/// What was there at one moment.
#[derive(Debug)]
pub(super) struct Sampled {
    at: Instant,
    engine: String,
    functions: usize,
    workers: Vec<Value>,
    reports: Vec<Value>,
    traces: Vec<Value>,
    store: Value,
}

impl Sampled {
    /// Asks.
    pub(super) fn take(connection: &Connection) -> Result<Self, Failure> {
        let workers = connection.ask(naming::WORKERS_LIST, &json!({}))?;
        let reports = inspect::reports(connection)?;
        let since = unix_ms().saturating_sub(WINDOW_MS);
        let traces =
            connection.ask(naming::TRACES_LIST, &json!({"start_time": since, "limit": TRACES_MAX}))?;
        let metrics = connection.ask(naming::METRICS_LIST, &json!({}))?;
        let catalog = connection.worker.catalog();
        let engine = catalog.workers.iter().find(|worker| worker.name == naming::ENGINE_WORKER_NAME);
        let own = connection.worker.id().to_string();
        let is_other = |worker: &&Value| word(worker, "id") != own && word(worker, "runtime") != "engine";
        let mut ids: Vec<&str> = catalog
            .functions
            .iter()
            .map(|function| &*function.id)
            .filter(|id| !naming::is_reserved(id))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(Self {
            at: Instant::now(),
            engine: engine.map(|engine| format!("process {}", engine.pid)).unwrap_or_default(),
            functions: ids.len(),
            workers: list(&workers, "workers").iter().filter(is_other).cloned().collect(),
            reports: reports.workers,
            traces: list(&traces, "traces").to_vec(),
            store: metrics.pointer("/engine_metrics/store").cloned().unwrap_or(Value::Null),
        })
    }
}

/// What is shown: the later moment, and the rates between the two.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sample {
    pub(super) engine: String,
    pub(super) functions: usize,
    pub(super) calls_per_s: f64,
    pub(super) spans_per_s: f64,
    pub(super) spans_held: u64,
    pub(super) traces_held: u64,
    pub(super) workers: Vec<WorkerLine>,
    pub(super) calls: Vec<CallLine>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct WorkerLine {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) pid: u64,
    pub(super) status: String,
    pub(super) functions: u64,
    /// Frames taken in by its functions, streams included.
    pub(super) served_per_s: f64,
    pub(super) running: u64,
    pub(super) waiting_for: u64,
    pub(super) wait_mode: String,
    pub(super) memory_held_bytes: u64,
    pub(super) memory_used_bytes: u64,
    pub(super) leases: u64,
}

/// The traced calls of one function that began a trace, over the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CallLine {
    pub(super) function: String,
    pub(super) per_s: f64,
    pub(super) p50_ns: u64,
    pub(super) max_ns: u64,
    pub(super) errors: usize,
    pub(super) running: usize,
}

impl Sample {
    /// Compares two moments.
    pub(super) fn between(before: &Sampled, now: &Sampled) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        let rate = |before: u64, now: u64| per_second(now.saturating_sub(before), seconds);
        let workers: Vec<WorkerLine> = now
            .workers
            .iter()
            .map(|worker| {
                let id = word(worker, "id");
                let (then, report) = (report_of(&before.reports, id), report_of(&now.reports, id));
                WorkerLine::new(worker, report, rate(served(then), served(report)))
            })
            .collect();
        Self {
            engine: now.engine.clone(),
            functions: now.functions,
            calls_per_s: workers.iter().map(|worker| worker.served_per_s).sum(),
            spans_per_s: rate(number(&before.store, "spans_received"), number(&now.store, "spans_received")),
            spans_held: number(&now.store, "spans"),
            traces_held: number(&now.store, "traces"),
            workers,
            calls: calls(&now.traces),
        }
    }
}

impl WorkerLine {
    fn new(worker: &Value, report: &Value, served_per_s: f64) -> Self {
        let arena = report.get("arena").unwrap_or(&Value::Null);
        let total = |role: &str, key: &str| -> u64 {
            let channels = list(report, "channels")
                .iter()
                .filter(|channel| role.is_empty() || word(channel, "role") == role);
            channels.map(|channel| number(channel, key)).sum()
        };
        Self {
            name: word(worker, "name").to_owned(),
            id: word(worker, "id").to_owned(),
            pid: number(report, "pid"),
            status: word(worker, "status").to_owned(),
            functions: number(worker, "function_count"),
            served_per_s,
            running: total("callee", "in_flight"),
            waiting_for: total("caller", "in_flight"),
            wait_mode: word(worker, "wait_mode").to_owned(),
            memory_held_bytes: number(arena, "held_bytes"),
            memory_used_bytes: number(arena, "live_bytes"),
            leases: total("", "leases"),
        }
    }
}

fn report_of<'a>(reports: &'a [Value], id: &str) -> &'a Value {
    reports.iter().find(|report| word(report, "worker_id") == id).unwrap_or(&Value::Null)
}

/// Counts the frames that a worker's functions took in, over its channels that are open.
fn served(report: &Value) -> u64 {
    let callees = list(report, "channels").iter().filter(|channel| word(channel, "role") == "callee");
    callees.map(|channel| number(channel, "received")).sum()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

/// Gathers traces by the function that began them, the most frequent first.
fn calls(traces: &[Value]) -> Vec<CallLine> {
    let mut gathered: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    // What this command and its like ask is most of what happens on a quiet engine, and nobody's work.
    for trace in traces.iter().filter(|trace| !is_question(word(trace, "root"))) {
        gathered.entry(word(trace, "root")).or_default().push(trace);
    }
    let mut lines: Vec<CallLine> = gathered
        .into_iter()
        .map(|(function, traces)| {
            let is_live = |trace: &&&Value| number(trace, "live") > 0;
            let mut took: Vec<u64> = traces
                .iter()
                .filter(|trace| !is_live(trace))
                .map(|trace| number(trace, "duration_ns"))
                .collect();
            took.sort_unstable();
            CallLine {
                function: function.to_owned(),
                per_s: per_second(traces.len() as u64, 10.0),
                p50_ns: took.get(took.len() / 2).copied().unwrap_or_default(),
                max_ns: took.last().copied().unwrap_or_default(),
                errors: traces.iter().filter(|trace| number(trace, "errors") > 0).count(),
                running: traces.iter().filter(is_live).count(),
            }
        })
        .collect();
    lines.sort_by(|a, b| b.per_s.total_cmp(&a.per_s).then_with(|| a.function.cmp(&b.function)));
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn moment(at: Instant, received: u64, spans: u64) -> Sampled {
        Sampled {
            at,
            engine: "process 1".to_owned(),
            functions: 3,
            workers: vec![json!({"id": "0a", "name": "docs", "status": "connected", "function_count": 3})],
            reports: vec![json!({
                "worker_id": "0a", "pid": 42,
                "arena": {"held_bytes": 4096, "live_bytes": 1024},
                "channels": [
                    {"role": "callee", "received": received, "in_flight": 2, "leases": 1},
                    {"role": "caller", "received": 999, "in_flight": 1, "leases": 4}
                ]
            })],
            traces: vec![
                json!({"root": "docs::search", "duration_ns": 300, "errors": 0, "live": 0}),
                json!({"root": "docs::search", "duration_ns": 100, "errors": 1, "live": 0}),
                json!({"root": "docs::search", "duration_ns": 200, "errors": 0, "live": 0}),
                json!({"root": "engine::functions::info", "duration_ns": 9, "errors": 0, "live": 0}),
                json!({"root": "a::b", "duration_ns": 5, "errors": 0, "live": 1}),
            ],
            store: json!({"spans_received": spans, "spans": 7, "traces": 4}),
        }
    }

    #[test]
    fn rates_are_per_second() {
        let begun = Instant::now();
        let sample =
            Sample::between(&moment(begun, 100, 50), &moment(begun + Duration::from_secs(2), 300, 60));
        assert!((sample.calls_per_s - 100.0).abs() < 1e-9 && (sample.spans_per_s - 5.0).abs() < 1e-9);
        let worker = &sample.workers[0];
        assert_eq!((worker.running, worker.waiting_for, worker.leases), (2, 1, 5));
        assert_eq!((worker.memory_used_bytes, worker.pid), (1024, 42));
    }

    #[test]
    fn a_channel_that_closed_makes_no_negative_rate() {
        let begun = Instant::now();
        let sample =
            Sample::between(&moment(begun, 100, 50), &moment(begun + Duration::from_secs(1), 10, 50));
        assert!(sample.calls_per_s.abs() < 1e-9);
        let at_once = Sample::between(&moment(begun, 1, 1), &moment(begun, 9, 9));
        assert!(at_once.calls_per_s.abs() < 1e-9);
    }

    #[test]
    fn traces_are_gathered_by_function() {
        let lines = calls(&moment(Instant::now(), 0, 0).traces);
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.function.as_str(), line.p50_ns, line.max_ns, line.errors, line.running))
            .collect();
        assert_eq!(found, [("docs::search", 200, 300, 1, 0), ("a::b", 0, 0, 0, 1)]);
    }
}
