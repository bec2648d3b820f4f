//! One trace over five processes, with what each of them logged: whole in the engine, and whole where an independent
//! receiver takes in what the engine exports.

#[path = "../../engine/telemetry/tests/otlp/receiver.rs"]
mod receiver;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringway::{Sampler, Worker};
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::{Value, json};

use self::receiver::Receiver;

const STAGES: [&str; 5] = ["stage-a", "stage-b", "stage-c", "stage-d", "stage-e"];
const ROUNDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// The last trace in the engine that has all its spans and logs.
fn whole_trace(engine: &mut Member) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let trace: Value = serde_json::from_str(&engine.ask("trace stage-a::run", "trace")).unwrap();
        let logs: usize = rows(&trace).iter().map(|row| row["logs"].as_array().map_or(0, Vec::len)).sum();
        if trace["spans"] == STAGES.len() * 2 && trace["live"] == 0 && logs == STAGES.len() * 2 {
            return trace;
        }
        assert!(Instant::now() < until, "the trace does not become whole: {trace:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows(trace: &Value) -> &[Value] {
    trace["rows"].as_array().map_or(&[], Vec::as_slice)
}

/// Checks that the trace is a chain of hops, each the child of the one before, and where each one's time went.
fn check_trace(trace: &Value) {
    let rows = rows(trace);
    assert_eq!(rows.len(), STAGES.len(), "five hops: {trace:#}");
    let mut parent = Value::Null;
    let mut processes = BTreeSet::new();
    for (depth, (row, stage)) in rows.iter().zip(STAGES).enumerate() {
        assert_eq!(
            (&row["depth"], &row["name"]),
            (&json!(depth), &json!(format!("{stage}::run"))),
            "{trace:#}"
        );
        let [client, server] = [0, 1].map(|side| &row["spans"][side]);
        assert_eq!(
            client["parent_id"], parent,
            "the caller's span lies in the handler that called: {trace:#}"
        );
        assert_eq!(server["parent_id"], client["span_id"]);
        assert_eq!(row["callee"]["name"], stage);
        processes.insert(row["callee"]["pid"].as_u64().unwrap());
        let logs = row["logs"].as_array().unwrap();
        let said: Vec<_> = logs
            .iter()
            .map(|log| (log["message"].as_str().unwrap(), log["worker"].as_str().unwrap()))
            .collect();
        assert_eq!(said, [("before", stage), ("after", stage)]);
        assert!(
            logs.iter().all(|log| log["span_id"] == server["span_id"] && log["fields"]["round"].is_number()),
            "{logs:?}"
        );
        let part =
            |name: &str| row["breakdown"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {row:#}"));
        let sum = part("waiting_ns") + part("wake_ns") + part("run_ns") + part("reply_ns");
        assert_eq!(sum, row["duration_ns"].as_u64().unwrap(), "the parts of a hop are its whole: {row:#}");
        parent = server["span_id"].clone();
    }
    assert_eq!(processes.len(), STAGES.len(), "five processes");
}

/// Checks that the receiver has the same spans, with the same parents, and the same logs.
fn check_export(lines: &[Value], trace: &Value) {
    let of_trace = |kind: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["type"] == kind && line["trace_id"] == trace["trace_id"]).collect()
    };
    let parents = |spans: Vec<(&Value, &Value)>| -> HashMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        spans.into_iter().map(|(span, parent)| (text(span), text(parent))).collect()
    };
    let kept = rows(trace).iter().flat_map(|row| row["spans"].as_array().unwrap());
    let kept = parents(kept.map(|span| (&span["span_id"], &span["parent_id"])).collect());
    let spans = of_trace("span");
    let received = parents(spans.iter().map(|span| (&span["span_id"], &span["parent_id"])).collect());
    assert_eq!((spans.len(), &received), (STAGES.len() * 2, &kept), "every span once, under its parent");
    for span in spans.iter().filter(|span| span["kind"] == "SPAN_KIND_SERVER") {
        assert_eq!(span["name"], format!("{}::run", span["resource"]["service.name"].as_str().unwrap()));
    }
    let logs = of_trace("log");
    assert_eq!(logs.len(), STAGES.len() * 2);
    for log in logs {
        assert!(received.contains_key(log["span_id"].as_str().unwrap()), "a log without its span: {log:#}");
        let expected = if log["body"] == "before" { "INFO" } else { "WARN" };
        assert_eq!((&log["severity_text"], &log["scope"]), (&json!(expected), &json!("stage")));
    }
}

#[test]
fn one_trace_over_five_processes() {
    let receiver = Receiver::start(&[]).unwrap();
    let endpoint = format!("http://127.0.0.1:{}", receiver.port);
    let address = local::address();
    let mut engine = Member::spawn(&["engine", &address], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    engine.hear("ready");
    // From the last to the first, so that each finds the next.
    let start = |stage: usize| {
        let next = STAGES.get(stage + 1).copied().unwrap_or("-");
        Member::start(&["stage", &address, STAGES[stage], next])
    };
    let mut stages: Vec<Member> = (0..STAGES.len()).rev().map(start).collect();
    let caller = Worker::builder("caller").address(&address).sampler(Sampler::always()).connect().unwrap();
    caller.wait_for("stage-a::run", PATIENCE).unwrap();
    for round in 0..ROUNDS {
        assert_eq!(caller.trigger_json("stage-a::run", &json!(round)).unwrap(), json!(STAGES.len()));
    }
    let trace = whole_trace(&mut engine);
    check_trace(&trace);
    println!("{trace:#}");
    drop(caller);
    for stage in &mut stages {
        stage.kill();
    }
    engine.ask("stop", "stopped");
    let lines = receiver.finish().unwrap();
    check_export(&lines, &trace);
    let roots = lines.iter().filter(|line| line["type"] == "span" && line["parent_id"] == "").count();
    assert_eq!(roots as u64, ROUNDS, "one trace for each call");
}
