//! The worker as others meet it: an engine, the worker over a store in a folder, and a client; and the same after
//! everything was closed and opened again.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use futures_lite::future;
use ringway::protocol::control::TriggerSpec;
use ringway::protocol::ids::FunctionId;
use ringway::{CallError, CallOptions, ErrorCode, Function, SpanId, TraceContext, TraceId, Worker};
use ringway_engine::{Engine, Otlp};
use ringway_store::{Batch, Durability, Embedded, Options, Store};
use ringway_worker_configuration::{Clock, Config, Configuration};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with the worker and a client. Fields are dropped in this order.
struct Place {
    client: Worker,
    worker: Configuration,
    store: Arc<Embedded>,
    clock: Clock,
    _engine: Engine,
}

impl Place {
    fn open(folder: &Path, config: Config) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-configuration-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().unwrap();
        let store = Arc::new(Embedded::open(folder, Options::default()).unwrap().0);
        let clock = Clock::manual(1000);
        let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let worker = Configuration::start_with(&address, shared, config, clock.clone()).unwrap();
        let client = Worker::builder("client").address(&address).connect().unwrap();
        client.wait_for("configuration::delete", PATIENCE).unwrap();
        Self { client, worker, store, clock, _engine: engine }
    }

    fn call(&self, function: &str, request: Value) -> Result<Value, CallError> {
        let options = CallOptions::new().timeout(PATIENCE);
        self.client.trigger_json_with(&format!("configuration::{function}"), &request, &options)
    }

    fn ok(&self, function: &str, request: Value) -> Value {
        self.call(function, request).unwrap()
    }

    #[track_caller]
    fn fails(&self, function: &str, request: Value, code: &str) -> String {
        let error = self.call(function, request).unwrap_err();
        assert_eq!(error.user_code.as_deref(), Some(code), "{error}");
        error.message
    }

    fn register(&self, id: &str, value: &Value) -> Value {
        let schema = json!({"type": "object", "properties": {"port": {"type": "integer", "minimum": 1}}});
        let request = json!({"id": id, "name": "Web", "description": "The web", "schema": schema, "initial_value": value});
        self.ok("register", request)
    }

    /// Binds a function to changes; what it is told comes out.
    fn watch(&self, trigger: &str, config: Value) -> Receiver<Value> {
        let (told, comes) = mpsc::channel();
        let function = format!("watch::{trigger}");
        let handler = move |_: &ringway::Context, event: Value| {
            told.send(event).unwrap();
            Ok(())
        };
        self.client.register(Function::json(&function, handler)).unwrap();
        let mut spec = TriggerSpec::new(trigger, "configuration", FunctionId::new(&function).unwrap());
        spec.config = config;
        self.client.register_trigger(spec).unwrap();
        comes
    }
}

#[test]
fn values_are_set_and_read_in_the_shapes_of_iii() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    let entry = place.register("web", &json!({"port": 80}));
    assert_eq!(
        (&entry["id"], &entry["name"], &entry["value"], &entry["version"]),
        (&json!("web"), &json!("Web"), &json!({"port": 80}), &json!(1))
    );
    assert_eq!(entry.get("metadata"), None);
    let set = place.ok("set", json!({"id": "web", "value": {"port": 81}}));
    assert_eq!(set, json!({"old_value": {"port": 80}, "new_value": {"port": 81}, "version": 2}));
    assert_eq!(
        place.ok("get", json!({"id": "web", "_caller_worker_id": "x"})),
        json!({"id": "web", "value": {"port": 81}, "version": 2})
    );
    let list = place.ok("list", json!({}));
    assert_eq!(list["configurations"].as_array().unwrap().len(), 1);
    assert_eq!(list["configurations"][0].get("value"), None);
    assert_eq!(list["configurations"][0], place.ok("schema", json!({"id": "web"})));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config { value_bytes_max: 100, ..Config::default() });
    place.register("web", &json!({"port": 80}));
    place.fails("set", json!({"id": "none", "value": 1}), "NOT_REGISTERED");
    place.fails("get", json!({"id": "none"}), "NOT_FOUND");
    place.fails("set", json!({"id": "No", "value": 1}), "INVALID_ID");
    place.fails("register", json!({"id": "a", "schema": {"type": "nothing"}}), "SCHEMA_INVALID");
    let why = place.fails("set", json!({"id": "web", "value": {"port": 0}}), "SCHEMA_INVALID");
    assert!(why.contains("`/port`") && why.contains("minimum"), "{why}");
    place.fails("set", json!({"id": "web", "value": {"x": "y".repeat(200)}}), "VALUE_TOO_LARGE");
    let why =
        place.fails("set", json!({"id": "web", "value": {"x": "${RINGWAY_TEST_NOT_SET}"}}), "EXPAND_FAILED");
    assert!(why.contains("RINGWAY_TEST_NOT_SET"), "{why}");
    place.fails("set", json!({"id": "web", "value": {}, "expected_version": 7}), "VERSION_MISMATCH");
    place.fails("rollback", json!({"id": "web", "version": 9}), "NOT_FOUND");
    assert_eq!(place.call("set", json!({"id": "web"})).unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(place.ok("get", json!({"id": "web"}))["version"], 1);
}

#[test]
fn variables_are_put_in_when_a_value_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    place.register("web", &json!({"port": "${RINGWAY_TEST_NOT_SET:-8080}"}));
    assert_eq!(place.ok("get", json!({"id": "web"}))["value"], json!({"port": 8080}));
    assert_eq!(
        place.ok("get", json!({"id": "web", "raw": true}))["value"],
        json!({"port": "${RINGWAY_TEST_NOT_SET:-8080}"})
    );
}

#[test]
fn a_registration_keeps_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    place.register("web", &json!({"port": 80}));
    place.ok("set", json!({"id": "web", "value": {"port": 81}}));
    let schema = json!({"type": "object"});
    let again = json!({"id": "web", "name": "Web", "description": "new", "schema": schema});
    assert_eq!(place.ok("register", again.clone())["value"], json!({"port": 81}));
    // The same once more is no change.
    assert_eq!(place.ok("register", again)["version"], 3);
    assert_eq!(place.register("web", &json!({"port": 82}))["value"], json!({"port": 82}));
}

#[test]
fn every_version_is_kept_and_can_be_gone_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config { history_max: 4, ..Config::default() });
    place.register("web", &json!({"port": 1}));
    place.register("web-2", &json!({"port": 9}));
    for port in 2..=5 {
        place.ok("set", json!({"id": "web", "value": {"port": port}}));
    }
    place.clock.set(2000);
    let back = place.ok("rollback", json!({"id": "web", "version": 3}));
    assert_eq!(back, json!({"old_value": {"port": 5}, "new_value": {"port": 3}, "version": 6}));
    let history = place.ok("history", json!({"id": "web"}));
    let versions: Vec<_> = history["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [6, 5, 4, 3]);
    assert_eq!(
        (&history["versions"][0]["cause"], &history["versions"][0]["of"]),
        (&json!("rolled_back"), &json!(3))
    );
    assert_eq!(
        (&history["versions"][0]["at_ms"], &history["versions"][1]["at_ms"]),
        (&json!(2000), &json!(1000))
    );
    let page = place.ok("history", json!({"id": "web", "limit": 2, "before": 6}));
    assert_eq!((&page["versions"][0]["version"], &page["versions"][1]["version"]), (&json!(5), &json!(4)));
    place.fails("rollback", json!({"id": "web", "version": 2}), "NOT_FOUND");
    // A version that the schema of today refuses is not gone back to.
    place.ok("register", json!({"id": "web", "schema": {"properties": {"port": {"maximum": 3}}}, "initial_value": {"port": 3}}));
    place.fails("rollback", json!({"id": "web", "version": 5}), "SCHEMA_INVALID");
    assert_eq!(place.ok("history", json!({"id": "web-2"}))["versions"].as_array().unwrap().len(), 1);
    // Settings change while it runs.
    place.worker.reconfigure(Config { history_max: 1, ..Config::default() });
    place.ok("set", json!({"id": "web", "value": {"port": 2}}));
    assert_eq!(place.ok("history", json!({"id": "web"}))["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn all_that_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let place = Place::open(folder.path(), Config::default());
        place.register("web", &json!({"port": 1}));
        place.register("gone", &json!({}));
        place.ok("set", json!({"id": "web", "value": {"port": 2}}));
        assert_eq!(place.ok("delete", json!({"id": "gone"})), json!({"id": "gone", "old_value": {}}));
    }
    let place = Place::open(folder.path(), Config::default());
    assert_eq!(
        place.ok("get", json!({"id": "web"})),
        json!({"id": "web", "value": {"port": 2}, "version": 2})
    );
    assert_eq!(place.ok("history", json!({"id": "web"}))["versions"].as_array().unwrap().len(), 2);
    place.fails("get", json!({"id": "gone"}), "NOT_FOUND");
    place.ok("rollback", json!({"id": "web", "version": 1}));
    assert_eq!(place.ok("get", json!({"id": "web"}))["value"], json!({"port": 1}));
}

#[test]
fn no_version_comes_a_second_time() {
    let folder = tempfile::tempdir().unwrap();
    {
        let place = Place::open(folder.path(), Config::default());
        place.register("web", &json!({"port": 1}));
        place.ok("set", json!({"id": "web", "value": {"port": 2}}));
        place.ok("delete", json!({"id": "web"}));
        assert_eq!(place.register("web", &json!({"port": 3}))["version"], 3);
        // Whoever read the entry before it was deleted does not change the new one by mistake.
        place.fails(
            "set",
            json!({"id": "web", "value": {"port": 9}, "expected_version": 1}),
            "VERSION_MISMATCH",
        );
        place.fails(
            "set",
            json!({"id": "web", "value": {"port": 9}, "expected_version": 2}),
            "VERSION_MISMATCH",
        );
        assert_eq!(place.ok("history", json!({"id": "web"}))["versions"].as_array().unwrap().len(), 1);
        place.fails("rollback", json!({"id": "web", "version": 2}), "NOT_FOUND");
        place.ok("delete", json!({"id": "web"}));
        assert_eq!(place.ok("list", json!({}))["configurations"], json!([]));
    }
    let place = Place::open(folder.path(), Config::default());
    assert_eq!(place.register("web", &json!({"port": 4}))["version"], 4);
    assert_eq!(place.register("new", &json!({"port": 4}))["version"], 1);
}

#[test]
fn triggers_tell_of_changes_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    let all = place.watch("all", json!({}));
    let updates =
        place.watch("updates", json!({"configuration_id": "web", "event_types": ["configuration:updated"]}));
    let big = place.watch(
        "big",
        json!({"condition": "new_value.port > 1000", "event_types": ["configuration:updated"]}),
    );
    place.register("web", &json!({"port": 1}));
    place.register("other", &json!({"port": 1}));
    for port in [2, 2000, 3] {
        place.ok("set", json!({"id": "web", "value": {"port": port}}));
    }
    place.ok("delete", json!({"id": "web"}));
    let next = |from: &Receiver<Value>| from.recv_timeout(PATIENCE).unwrap();
    let first = next(&all);
    assert_eq!(first["type"], "configuration");
    assert_eq!(
        (&first["event_type"], &first["old_value"], &first["new_value"]),
        (&json!("configuration:registered"), &Value::Null, &json!({"port": 1}))
    );
    assert_eq!((&first["name"], &first["description"]), (&json!("Web"), &json!("The web")));
    let rest: Vec<String> =
        (0..5).map(|_| format!("{} {}", next(&all)["event_type"].as_str().unwrap(), "")).collect();
    assert!(
        rest[0].contains("registered")
            && rest[1..4].iter().all(|word| word.contains("updated"))
            && rest[4].contains("deleted"),
        "{rest:?}"
    );
    let ports: Vec<_> = (0..3).map(|_| next(&updates)["new_value"]["port"].clone()).collect();
    assert_eq!(ports, [json!(2), json!(2000), json!(3)]);
    assert_eq!(next(&big)["new_value"]["port"], 2000);
    assert!(big.try_recv().is_err() && updates.try_recv().is_err());
    let mut wrong = TriggerSpec::new("wrong", "configuration", FunctionId::new("watch::all").unwrap());
    wrong.config = json!({"event_types": ["updated"]});
    let error = place.client.register_trigger(wrong).unwrap_err();
    assert!(error.message.contains("configuration:updated"), "{error}");
}

#[test]
fn what_is_told_belongs_to_the_trace_of_who_changed_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    let (tell, told) = mpsc::channel();
    let hear = move |context: &ringway::Context, _: Value| {
        tell.send(context.trace().trace_id).unwrap();
        Ok(())
    };
    place.client.register(Function::json("watch::traced", hear)).unwrap();
    let spec = TriggerSpec::new("traced", "configuration", FunctionId::new("watch::traced").unwrap());
    place.client.register_trigger(spec).unwrap();
    place.register("web", &json!({"port": 1}));
    told.recv_timeout(PATIENCE).unwrap();
    let requests = [
        ("set", json!({"id": "web", "value": {"port": 2}})),
        ("rollback", json!({"id": "web", "version": 1})),
        ("delete", json!({"id": "web"})),
    ];
    for (number, (function, request)) in (1..).zip(requests) {
        let trace_id = TraceId::from_bytes([number; 16]);
        let parent = TraceContext { trace_id, span_id: SpanId::from_bytes([number; 8]), flags: 1 };
        let options = CallOptions::new().parent(parent);
        place.client.trigger_json_with(&format!("configuration::{function}"), &request, &options).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(trace_id), "{function}");
    }
}

#[test]
fn many_changes_at_once_lose_nothing_and_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config { history_max: 1000, ..Config::default() });
    place.register("web", &json!({"port": 1}));
    for id in 0..64 {
        place.register(&format!("c{id}"), &json!({"port": 1}));
    }
    let before = place.store.metrics();
    let options = CallOptions::new().timeout(PATIENCE);
    let requests: Vec<Value> = (0..64)
        .map(|id| json!({"id": format!("c{id}"), "value": {"port": 7}}))
        .chain((1..=64).map(|port| json!({"id": "web", "value": {"port": port + 100}})))
        .collect();
    let calls = requests
        .iter()
        .map(|request| place.client.trigger_json_async("configuration::set", request, &options));
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let answers = future::block_on(async {
        // All are begun before the first is waited for.
        let mut answers = Vec::new();
        for call in &mut calls {
            answers.push(future::poll_once(call.as_mut()).await);
        }
        for (call, answer) in calls.into_iter().zip(&mut answers) {
            // One that was answered at once is not asked again.
            if answer.is_none() {
                *answer = Some(call.await);
            }
        }
        answers.into_iter().flatten().collect::<Vec<_>>()
    });
    let versions: Vec<u64> =
        answers[64..].iter().map(|answer| answer.as_ref().unwrap()["version"].as_u64().unwrap()).collect();
    let mut sorted = versions.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        (2..=65).collect::<Vec<u64>>(),
        "each of the changes of one configuration is a version of its own"
    );
    assert_eq!(
        place.ok("history", json!({"id": "web", "limit": 1000}))["versions"].as_array().unwrap().len(),
        65
    );
    let after = place.store.metrics();
    let (changes, syncs) = (requests.len() as u64, after.syncs - before.syncs);
    assert!(
        after.commits - before.commits >= changes && syncs < changes,
        "{syncs} syncs for {changes} changes"
    );
}

#[test]
fn what_cannot_be_read_is_told_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path(), Config::default());
    place.register("web", &json!({"port": 1}));
    let damaged = Batch::new().put("configuration", b"odd", vec![9, 1, 2]);
    place.store.commit(damaged, Durability::Durable).unwrap();
    let list = place.ok("list", json!({}));
    assert_eq!(list["configurations"].as_array().unwrap().len(), 1);
    assert_eq!(list["unreadable"][0]["id"], "odd");
    let why = place.fails("get", json!({"id": "odd"}), "ADAPTER_ERROR");
    assert!(why.contains("format 1") && why.contains('9'), "{why}");
    place.fails("register", json!({"id": "odd", "schema": true, "initial_value": 1}), "ADAPTER_ERROR");
    assert_eq!(&*place.store.get("configuration", b"odd").unwrap().unwrap().bytes, &[9, 1, 2]);
}
