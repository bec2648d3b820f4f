//! Functions that are bound to logs are told of them, however slow others are that are bound.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ringway::protocol::control::TriggerSpec;
use ringway::{CallOptions, Function, Worker};
use ringway_engine::Engine;
use ringway_protocol::{FunctionId, naming};
use serde_json::{Value, json};

use crate::client;

const PATIENCE: Duration = Duration::from_secs(30);
const LINES: usize = 100;

/// Registers a function and binds it to logs.
fn listen(worker: &Worker, id: &str, condition: Option<&str>, told: Sender<Value>) {
    let tell = move |_: &ringway::Context, event: Value| {
        told.send(event)?;
        Ok(Value::Null)
    };
    worker.register(Function::json(id, tell)).unwrap();
    let mut trigger = TriggerSpec::new(id, naming::TRIGGER_LOG, FunctionId::new(id).unwrap());
    trigger.config = json!({ "level": "warn", "condition_function_id": condition });
    worker.register_trigger(trigger).unwrap();
}

fn log(worker: &Worker, messages: &[String]) {
    let line = |text: &String| json!({ "severityNumber": 13, "body": { "stringValue": text } });
    let lines: Vec<Value> = messages.iter().map(line).collect();
    let frame = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": lines }] }] });
    let options = CallOptions::new().metadata(json!({ "signal": "logs" }));
    let counts = worker.trigger_json_with(naming::TELEMETRY_INGEST, &frame, &options).unwrap();
    assert_eq!(counts["logs"], messages.len(), "{counts}");
}

fn attach(engine: &Engine, name: &str) -> Worker {
    Worker::builder(name).address(engine.address()).connect().unwrap()
}

#[test]
fn a_slow_condition_holds_up_neither_the_others_nor_the_end() {
    let engine = client::engine();
    let worker = attach(&engine, "watcher");
    let slow = |_: &ringway::Context, _: Value| {
        std::thread::sleep(Duration::from_millis(300));
        Ok(true)
    };
    worker.register(Function::json("a::condition", slow).pooled()).unwrap();
    let (slowly, told_slowly) = channel();
    let (sender, told) = channel();
    listen(&worker, "a::slow", Some("a::condition"), slowly);
    listen(&worker, "b::quick", None, sender);
    // A binding reaches its provider a moment after it is registered.
    let begun = Instant::now();
    while told_slowly.recv_timeout(Duration::from_millis(500)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody is told");
        log(&worker, &["hello".to_owned()]);
    }
    let lines: Vec<String> = (0..LINES).map(|line| format!("line {line}")).collect();
    log(&worker, &lines);
    let heard: Vec<Value> = told.iter().filter(|log| log["body"] != "hello").take(LINES).collect();
    // A function's calls run side by side, so that the order is not the lines'.
    let bodies: BTreeSet<&str> = heard.iter().filter_map(|log| log["body"].as_str()).collect();
    assert_eq!(bodies, lines.iter().map(String::as_str).collect(), "each once");
    // Within the time that it has, the slow one could be told of sixteen.
    let before = told_slowly.try_iter().filter(|log| log["body"] != "hello").count();
    assert!(before <= 3, "they waited for another's condition: {before} were told first");
    drop(engine);
    let after = told_slowly.try_iter().count();
    assert!(after <= 3, "the engine waited for a condition: {after} were told at the end");
}

#[test]
fn of_a_long_burst_the_latest_lines_are_told_and_the_others_counted() {
    let engine = client::engine();
    let worker = attach(&engine, "watcher");
    let (sender, told) = channel();
    listen(&worker, "a::f", None, sender);
    let begun = Instant::now();
    while told.recv_timeout(Duration::from_millis(500)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "nobody is told");
        log(&worker, &["hello".to_owned()]);
    }
    assert_eq!(engine.counters().records_untold, 0);
    let lines: Vec<String> = (0..1500).map(|line| format!("line {line}")).collect();
    log(&worker, &lines);
    let heard = told.iter().filter(|log| log["body"] != "hello").take(1000);
    let bodies: BTreeSet<String> = heard.filter_map(|log| Some(log["body"].as_str()?.to_owned())).collect();
    assert_eq!(bodies, lines[500..].iter().cloned().collect());
    assert_eq!(engine.counters().records_untold, 500);
}
