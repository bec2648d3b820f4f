//! The engine's own functions, called as any worker calls them.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringway::protocol::control::{TriggerSpec, TriggerTypeSpec};
use ringway::{CallError, CallOptions, Function, TriggerProvider, Worker};
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
    let mut names = ids(&memory["workers"], "name");
    names.sort_unstable();
    assert_eq!(names, ["caller", "engine", "server"], "the engine's own process holds memory too");
    assert!(memory["engine"]["permission_pages"].as_u64() >= Some(1), "{memory}");
    let info = caller.trigger_json(naming::WORKERS_INFO, &json!({ "name": "engine" })).unwrap();
    assert_eq!(info["worker"]["active_invocations"], 1, "this very call: {info}");
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
    // As callers that were written for iii read it.
    let client = &tree["roots"][0];
    assert_eq!((&client["name"], &client["service_name"]), (&json!("orders::validate"), &json!("caller")));
    assert_eq!(client["children"][0]["parent_span_id"], client["span_id"]);
    assert_eq!(client["children"][0]["service_name"], "server");
    let of_trace = |input: Value| caller.trigger_json(naming::TRACES_LIST, &input).unwrap();
    let roots = of_trace(json!({ "name": "orders::validate", "service_name": "caller", "status": "ok" }));
    assert_eq!(roots["spans"][0]["span_id"], client["span_id"], "{roots}");
    let all = of_trace(json!({ "trace_id": trace["trace_id"] }));
    assert_eq!((&all["total"], all["spans"].as_array().unwrap().len()), (&json!(1), 2));
    let none = of_trace(json!({ "name": "orders::validate", "offset": 100_000 }));
    assert_eq!((&none["spans"], &none["offset"]), (&json!([]), &json!(100_000)));
    let metrics = caller.trigger_json(naming::METRICS_LIST, &json!({})).unwrap();
    let engine_metrics = &metrics["engine_metrics"];
    assert_eq!(engine_metrics["invocations"]["by_function"]["orders::validate"], 1, "{metrics}");
    assert!(engine_metrics["performance"]["max_duration_ms"].as_f64() > Some(0.0), "{metrics}");
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

/// A provider that watches for nothing but what its trigger's configuration allows.
struct Picky;

impl TriggerProvider for Picky {
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        if binding.config["good"] == true {
            return Ok(());
        }
        Err(CallError::invalid_registration("wanted a good configuration"))
    }

    fn unbind(&self, _id: &str) {}
}

#[test]
fn a_provider_s_refusal_is_the_answer() {
    let engine = client::engine();
    let (provider, asking) = (worker(&engine, "provider"), worker(&engine, "asking"));
    let bind = |id: &str, good: bool| {
        let mut spec = TriggerSpec::new(id, "picky", FunctionId::new("later::f").unwrap());
        spec.config = json!({ "good": good });
        asking.register_trigger(spec)
    };
    bind("early", false).expect("parked: nobody provides the type yet");
    let spec = TriggerTypeSpec { id: "picky".into(), ..TriggerTypeSpec::default() };
    provider.register_trigger_type(spec, Picky).unwrap();
    let refused = bind("bad", false).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRegistration, "{refused}");
    bind("good", true).unwrap();
    bind("good", true).expect("the same again is answered too");
    let keep = |good: bool| {
        let wanted =
            json!({ "trigger_type": "picky", "function_id": "later::f", "config": { "good": good } });
        asking.trigger_json(naming::REGISTER_TRIGGER, &wanted)
    };
    let refused = keep(false).unwrap_err();
    assert_eq!(refused.user_code.as_deref(), Some("trigger_registration_failed"), "{refused}");
    let id = keep(true).unwrap()["id"].as_str().unwrap().to_owned();
    let form: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!((form, id.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'), "{id} is no random UUID");
    let list = asking.trigger_json(naming::REGISTERED_TRIGGERS_LIST, &json!({})).unwrap();
    let mut bound = ids(&list["registered_triggers"], "id");
    bound.sort_unstable();
    let mut expected = ["good", &id];
    expected.sort_unstable();
    assert_eq!(bound, expected);
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

#[test]
fn spans_are_gathered_and_forgotten() {
    let engine = client::engine();
    let server = worker(&engine, "server");
    server.register(Function::json("orders::validate", |_, order: Value| Ok(order))).unwrap();
    let caller = worker(&engine, "caller");
    caller.wait_for("orders::validate", PATIENCE).unwrap();
    caller.trigger_json("orders::validate", &json!({ "id": 1 })).unwrap();
    let looking = Worker::builder("looking").address(engine.address()).sampler(ringway::Sampler::never());
    let looking = looking.connect().unwrap();
    let ask = |id: &str, input: Value| looking.trigger_json(id, &input).unwrap();
    let begun = Instant::now();
    let groups = loop {
        let answer =
            ask(naming::TRACES_GROUP_BY, json!({ "attribute": "service_name", "label_attribute": "name" }));
        if answer["groups"].as_array().unwrap().len() == 2 {
            break answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut values = ids(&groups["groups"], "value");
    values.sort_unstable();
    assert_eq!((values, &groups["storage"]), (vec!["caller", "server"], &json!("memory")));
    let group = &groups["groups"][0];
    assert_eq!((&group["label"], &group["span_count"]), (&json!("orders::validate"), &json!(1)), "{group}");
    assert_eq!((group["trace_ids"].as_array().unwrap().len(), &group["error_count"]), (1, &json!(0)));
    for field in ["first_seen_ms", "last_seen_ms", "duration_ms"] {
        assert!(group[field].is_u64(), "{group}");
    }
    let error = looking.trigger_json(naming::TRACES_GROUP_BY, &json!({})).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    assert_eq!(ask(naming::TRACES_CLEAR, Value::Null), json!({ "success": true }));
    assert_eq!(ask(naming::TRACES_LIST, json!({}))["total"], 0);
    assert_eq!(ask(naming::LOGS_CLEAR, Value::Null), json!({ "success": true }));
    assert_eq!(ask(naming::LOGS_LIST, json!({}))["total"], 0);
}

#[test]
fn a_worker_says_later_what_it_is_called() {
    let engine = client::engine();
    let (early, other) = (worker(&engine, "early"), worker(&engine, "other"));
    let said = json!({ "name": "late", "runtime": "node", "version": "0.22.1", "os": "linux", "pid": 1,
        "isolation": "container", "description": "says so later", "telemetry": { "language": "en" },
        "features": ["observe.v1"] });
    assert_eq!(early.trigger_json(naming::WORKERS_REGISTER, &said).unwrap(), json!({ "success": true }));
    let info = other.trigger_json(naming::WORKERS_INFO, &json!({ "name": "late" })).unwrap();
    let found = &info["worker"];
    for (field, value) in [
        ("runtime", json!("node")),
        ("version", json!("0.22.1")),
        ("isolation", json!("container")),
        ("description", json!("says so later")),
        ("features", json!(["observe.v1"])),
        ("pid", json!(std::process::id())),
    ] {
        assert_eq!(found[field], value, "{field} of {found}");
    }
    assert!(other.wait_until(PATIENCE, |catalog| catalog.workers.iter().any(|worker| worker.name == "late")));
    let elsewhere = json!({ "namespace": "blue" });
    let error = early.trigger_json(naming::WORKERS_REGISTER, &elsewhere).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRegistration, "{error}");
}

/// What the command line and its `top` ask must not be what they then show.
#[test]
fn questions_leave_no_spans() {
    let engine = client::engine();
    let (_one, _other) = (worker(&engine, "one"), worker(&engine, "other"));
    let looking = Worker::builder("looking").address(engine.address()).sampler(ringway::Sampler::never());
    let looking = looking.connect().unwrap();
    let received = || engine.collector().lock().store().counters().spans_received;
    let before = received();
    for _ in 0..3 {
        for (question, input) in [
            (naming::MEMORY_LIST, Value::Null),
            (naming::METRICS_LIST, Value::Null),
            (naming::HEALTH, Value::Null),
            (naming::FUNCTIONS_LIST, Value::Null),
            (naming::WORKERS_LIST, Value::Null),
            (naming::WORKERS_INFO, json!({ "name": "other" })),
            (naming::TRACES_LIST, Value::Null),
            (naming::LOGS_LIST, Value::Null),
        ] {
            looking.trigger_json(question, &input).unwrap();
        }
    }
    // Records come in their order, so what was recorded before this is there with it.
    let last = worker(&engine, "last");
    last.trigger_json(naming::HEALTH, &Value::Null).unwrap();
    let begun = Instant::now();
    while received() < before + 2 {
        assert!(begun.elapsed() < PATIENCE, "the last call is recorded");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    let collector = engine.collector();
    let collector = collector.lock();
    let names: Vec<_> =
        collector.store().spans().map(|span| (span.worker.name.clone(), span.name.to_string())).collect();
    assert_eq!(names.len(), 2, "the last question's two sides: {names:?}");
}

#[test]
fn telemetry_that_does_not_say_what_it_is_is_traces() {
    let engine = client::engine();
    let caller = worker(&engine, "caller");
    let span = json!({ "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7" });
    let frame = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    let send = |metadata: Value| {
        caller.trigger_json_with(naming::TELEMETRY_INGEST, &frame, &CallOptions::new().metadata(metadata))
    };
    assert_eq!(send(json!({ "tenant": "a" })).unwrap()["spans"], 1);
    let refused = send(json!({ "signal": "noise" })).unwrap_err();
    assert!(refused.message.contains("`noise`"), "{refused:?}");
}
