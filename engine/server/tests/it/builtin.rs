//! The engine's own functions, called as any worker calls them.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringway::protocol::control::TriggerSpec;
use ringway::{Function, Worker};
use ringway_engine::Engine;
use ringway_protocol::{ErrorCode, FunctionId, naming};
use serde_json::{Value, json};

use crate::client::{self, Client};

const PATIENCE: Duration = Duration::from_secs(30);

fn worker(engine: &Engine, name: &str) -> Worker {
    Worker::builder(name).address(engine.address()).connect().unwrap()
}

fn ids<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap()).collect()
}

#[test]
fn listings_tell_who_is_there() {
    let engine = client::engine();
    let server = worker(&engine, "server");
    server.register(Function::json("orders::validate", |_, order: Value| Ok(order))).unwrap();
    let caller = worker(&engine, "caller");
    let list = caller.trigger_json(naming::FUNCTIONS_LIST, &json!({})).unwrap();
    assert_eq!(ids(&list["functions"], "function_id"), ["orders::validate"]);
    let workers = caller.trigger_json(naming::WORKERS_LIST, &json!({})).unwrap();
    let mut names = ids(&workers["workers"], "name");
    names.sort_unstable();
    assert_eq!(names, ["caller", "engine", "server"]);
    let health = caller.trigger_json(naming::HEALTH, &Value::Null).unwrap();
    assert_eq!((&health["status"], &health["workers"]), (&json!("healthy"), &json!(3)));
    let metrics = caller.trigger_json(naming::METRICS_LIST, &json!({})).unwrap();
    assert_eq!(metrics["engine_metrics"]["workers"]["active"], 3);
    let error =
        caller.trigger_json(naming::FUNCTIONS_INFO, &json!({ "function_id": "no::such" })).unwrap_err();
    assert_eq!((error.code, error.user_code.as_deref()), (ErrorCode::NotFound, Some("NOT_FOUND")));
    let memory = caller.trigger_json(naming::MEMORY_LIST, &json!({})).unwrap();
    for entry in memory["workers"].as_array().unwrap() {
        assert!(entry["memory"].is_object(), "{entry}");
    }
}

#[test]
fn a_traced_call_is_found_in_the_store() {
    let engine = client::engine();
    let server = worker(&engine, "server");
    server.register(Function::json("orders::validate", |_, order: Value| Ok(order))).unwrap();
    let caller = worker(&engine, "caller");
    caller.wait_for("orders::validate", PATIENCE).unwrap();
    caller.trigger_json("orders::validate", &json!({ "id": 1 })).unwrap();
    let begun = Instant::now();
    let wanted = json!({ "function": "orders::validate" });
    let found = loop {
        let found = caller.trigger_json(naming::TRACES_LIST, &wanted).unwrap();
        if found["traces"].as_array().unwrap().iter().any(|trace| trace["spans"] == 2) {
            break found;
        }
        assert!(begun.elapsed() < PATIENCE, "{found}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let trace = found["traces"].as_array().unwrap().iter().find(|trace| trace["spans"] == 2).unwrap();
    assert_eq!(trace["root"], "orders::validate");
    let tree = caller.trigger_json(naming::TRACES_TREE, &json!({ "trace_id": trace["trace_id"] })).unwrap();
    assert_eq!((&tree["spans"], tree["rows"].as_array().unwrap().len()), (&json!(2), 1));
    let error =
        caller.trigger_json(naming::TRACES_TREE, &json!({ "trace_id": "ff".repeat(16) })).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn a_binding_hears_of_workers_and_functions() {
    let engine = client::engine();
    let watcher = worker(&engine, "watcher");
    let (sender, events) = channel();
    let tell = move |_: &ringway::Context, event: Value| {
        sender.send(event)?;
        Ok(Value::Null)
    };
    watcher.register(Function::json("watch::event", tell)).unwrap();
    let function = || FunctionId::new("watch::event").unwrap();
    for (id, kind) in [("f", naming::TRIGGER_FUNCTIONS_AVAILABLE), ("w", naming::TRIGGER_WORKERS_AVAILABLE)] {
        watcher.register_trigger(TriggerSpec::new(id, kind, function())).unwrap();
    }
    let begun = Instant::now();
    let mut seen = (false, false);
    while seen != (true, true) {
        // A binding reaches its provider a moment after it is registered, so there may have to be a second change.
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
        let mut other = Client::attach(engine.address(), "other");
        other.register(&["other::f"]);
        while let Ok(event) = events.recv_timeout(Duration::from_millis(300)) {
            seen.0 |= event["event"] == "functions_changed"
                && ids(&event["functions"], "function_id").contains(&"other::f");
            seen.1 |= event["event"] == "worker_connected" && event["worker_id"] == json!(other.id);
        }
    }
}

#[test]
fn a_kept_binding_outlives_its_maker() {
    let engine = client::engine();
    let maker = worker(&engine, "maker");
    let wanted = json!({ "trigger_type": naming::TRIGGER_WORKERS_AVAILABLE, "function_id": "later::f" });
    let made = maker.trigger_json(naming::REGISTER_TRIGGER, &wanted).unwrap();
    maker.shut_down();
    drop(maker);
    let other = worker(&engine, "other");
    let all = json!({ "include_internal": true });
    let begun = Instant::now();
    loop {
        let list = other.trigger_json(naming::REGISTERED_TRIGGERS_LIST, &all).unwrap();
        if ids(&list["registered_triggers"], "id").contains(&made["id"].as_str().unwrap()) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{list}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let removed = other.trigger_json(naming::UNREGISTER_TRIGGER, &made).unwrap();
    assert_eq!(removed, json!({ "removed": true }));
}
