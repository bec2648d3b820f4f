//! Functions that are called after calls of others: who may be one, what they are told, and what becomes of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::{Function, Worker};
use ringway_iii::Config;
use ringway_iii::config::Replicas;
use serde_json::{Value, json};

use crate::stage::{Client, PATIENCE, Stage};

/// A connection as that of the newest SDKs.
pub(crate) fn newer(stage: &Stage, name: &str) -> Client {
    let mut client = stage.connect();
    client.announce(json!({"runtime": "rust", "version": "0.26.0", "name": name, "pid": 1,
        "features": ["observe.v1", "observe.v2", "local-dispatch.v1", "large-messages.v1"]}));
    client
}

/// Registers a function, and waits until it is.
pub(crate) fn host(client: &mut Client, id: &str, more: Value) -> Value {
    let mut message = json!({"type": "registerfunction", "id": id});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(&message);
    client.wait("functionregistered", |found| found["type"] == "functionregistered" && found["id"] == id)
}

pub(crate) fn observe(client: &mut Client, id: &str, source: Value, target: &str, more: Value) -> Value {
    let mut message =
        json!({"type": "observe", "id": id, "source": source, "target": {"function_id": target}});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(&message);
    client.wait("observeresult", |found| found["type"] == "observeresult" && found["id"] == id)
}

fn changed(client: &mut Client, id: &str, state: &str) -> Value {
    client.wait(state, |found| {
        found["type"] == "observerstatechanged" && found["id"] == id && found["state"] == state
    })
}

/// The host accepts what it was told last of an observer.
fn accept(host: &mut Client, id: &str) -> Value {
    let added =
        host.wait("observeradded", |found| found["type"] == "observeradded" && found["observer"]["id"] == id);
    host.send(&json!({"type": "observerack", "function_id": added["function_id"], "id": id,
        "namespace": added["namespace"], "revision": added["revision"]}));
    added
}

/// Somebody observes a function and is active.
fn observed(host: &mut Client, owner: &mut Client, id: &str, source: Value, target: &str, more: Value) {
    let result = observe(owner, id, source, target, more);
    assert_eq!(result["state"], "pending", "{result}");
    accept(host, id);
    changed(owner, id, "active");
}

/// The next call of a function, which is answered.
pub(crate) fn called(client: &mut Client, function: &str, answer: Value) -> Value {
    let asked =
        client.wait(function, |found| found["type"] == "invokefunction" && found["function_id"] == function);
    let mut result = answer;
    result["type"] = "invocationresult".into();
    result["invocation_id"] = asked["invocation_id"].clone();
    result["function_id"] = function.into();
    client.send(&result);
    asked
}

/// A host with `h::f` and an owner with `o::t`, which know observers.
fn pair(stage: &Stage) -> (Client, Client) {
    let (mut host_of, mut owner) = (newer(stage, "host"), newer(stage, "owner"));
    host(&mut host_of, "h::f", json!({}));
    host(&mut owner, "o::t", json!({}));
    (host_of, owner)
}

#[test]
fn a_call_is_told_to_who_observes_it() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let mut caller = stage.client("checkout");
    // Until it is a worker, nobody knows what it is called.
    let until = Instant::now() + PATIENCE;
    while caller.call("engine::workers::info", &json!({"name": "checkout"})).get("error").is_some() {
        assert!(Instant::now() < until, "the client is no worker");
    }
    let source = json!({"function_id": "h::f", "filters": {"input.n": {"$gte": 5},
        "output.ok": {"$eq": true}, "caller.worker_name": {"$prefix": "check"}}});
    observed(&mut host_of, &mut owner, "O", source, "o::t", json!({"metadata": {"team": "risk"}}));
    for n in [1, 7] {
        let id = caller.start(&mut json!({"function_id": "h::f", "data": {"n": n}}));
        let asked = called(&mut host_of, "h::f", json!({"result": {"ok": true}}));
        assert_eq!(asked["caller"], json!({"worker_id": caller.id, "worker_name": "checkout"}), "{asked}");
        assert!(asked.get("activation").is_none() && asked.get("observe_depth").is_none(), "{asked}");
        assert_eq!(caller.result(&id)["result"], json!({"ok": true}));
    }
    let told = called(&mut owner, "o::t", json!({}));
    let envelope = &told["data"];
    assert_eq!((&envelope["input"], &envelope["output"]), (&json!({"n": 7}), &json!({"ok": true})));
    assert_eq!((&envelope["observer_id"], &envelope["status"]), (&json!("O"), &json!("success")));
    assert_eq!((&envelope["function_id"], &envelope["namespace"]), (&json!("h::f"), &json!("default")));
    assert_eq!(envelope["caller"]["worker_name"], "checkout");
    assert!(envelope["duration_ms"].is_f64() && envelope["started_at_ms"].is_u64(), "{envelope}");
    assert_eq!((&told["metadata"], &told["observe_depth"]), (&json!({"team": "risk"}), &json!(1)));
    assert_eq!(told["activation"], json!({"observer_id": "O", "activation_id": envelope["activation_id"]}));
    assert_eq!(
        (&told["caller"]["function_id"], &told["caller"]["worker_name"]),
        (&json!("h::f"), &json!("host"))
    );
    assert!(told.get("baggage").is_none_or(|baggage| !baggage.to_string().contains("iii.observe")), "{told}");
    owner.hears_no("invokefunction");
}

#[test]
fn a_call_of_a_native_worker_is_told_as_any_other() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let native = stage.native("till");
    native.wait_for("h::f", PATIENCE).unwrap();
    observed(
        &mut host_of,
        &mut owner,
        "O",
        json!({"function_id": "h::f", "on": "complete"}),
        "o::t",
        json!({}),
    );
    let until = Instant::now() + PATIENCE;
    let envelope = loop {
        let caller = native.clone();
        let calling = std::thread::spawn(move || caller.trigger_json("h::f", &json!({"n": 1})));
        called(&mut host_of, "h::f", json!({"error": {"code": "NO", "message": "never", "stacktrace": "x"}}));
        assert_eq!(calling.join().unwrap().unwrap_err().user_code.as_deref(), Some("NO"));
        let envelope = called(&mut owner, "o::t", json!({}))["data"].clone();
        assert_eq!(envelope["status"], "error");
        // What a worker is called is known of it a moment after it has come.
        if !envelope["caller"]["worker_name"].is_null() {
            break envelope;
        }
        assert!(Instant::now() < until, "{envelope}");
    };
    assert_eq!(envelope["caller"]["worker_name"], "till");
    assert!(envelope.get("error").is_none(), "it is not captured: {envelope}");
}

#[test]
fn who_knows_no_observers_hears_of_none() {
    let stage = Stage::new();
    let mut old = stage.client("old");
    old.register("old::f");
    old.sees("old::f");
    let mut owner = newer(&stage, "owner");
    host(&mut owner, "o::t", json!({}));
    // An old host has nothing to accept.
    let result = observe(&mut owner, "O", json!({"function_id": "old::f"}), "old::f2", json!({}));
    assert_eq!(result["state"], "pending");
    let result = observe(&mut owner, "P", json!({"function_id": "old::f"}), "o::t", json!({}));
    assert_eq!(result["state"], "active", "{result}");
    let id = owner.start(&mut json!({"function_id": "old::f", "data": {}, "observe_depth": 1,
        "caller": {"function_id": "x"}}));
    let asked = old.answer(|_| json!({"result": 1}));
    for field in ["caller", "observe_depth", "activation"] {
        assert!(asked.get(field).is_none(), "{asked}");
    }
    assert_eq!(owner.result(&id)["result"], 1);
    assert_eq!(called(&mut owner, "o::t", json!({}))["data"]["output"], 1);
    // A target of its own is called with what it knows.
    old.register("old::f2");
    changed(&mut owner, "O", "active");
    owner.start(&mut json!({"function_id": "old::f", "data": {}}));
    old.answer(|_| json!({"result": 1}));
    let told = old.answer(|_| json!({}));
    assert_eq!((&told["function_id"], told.get("activation")), (&json!("old::f2"), None));
    for kind in ["functionregistered", "observeradded", "observerremoved", "observerstatechanged"] {
        old.hears_no(kind);
    }
    // Nor is it one who observes.
    old.send(&json!({"type": "observe", "id": "Q", "source": {"function_id": "o::t"},
        "target": {"function_id": "old::f"}}));
    old.hears_no("observeresult");
}

#[test]
fn an_observer_is_ready_once_its_host_has_said_so() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let source = json!({"function_id": "h::f", "filters": {"input.n": {"$gt": 1}}});
    observe(&mut owner, "O", source, "o::t", json!({"metadata": "secret"}));
    owner.hears_no("observerstatechanged");
    let added = accept(&mut host_of, "O");
    assert_eq!(
        (&added["revision"], &added["observer"]),
        (
            &json!(2),
            &json!({"id": "O", "args": {}, "filters": {"$and": [{"input.n": {"$gt": 1}}]}, "target": "o::t",
                "capture": ["input", "output", "caller"], "on": "success"})
        )
    );
    assert_eq!(changed(&mut owner, "O", "active")["fires"], 0);
    // Late, it may still refuse.
    host_of.send(&json!({"type": "observerack", "function_id": "h::f", "id": "O", "revision": 2,
        "error": {"code": "GONE", "message": "no more"}}));
    assert_eq!(changed(&mut owner, "O", "error")["reason"], json!({"code": "GONE", "message": "no more"}));
    assert_eq!(host_of.of_type("observerremoved")["id"], "O");
    owner.send(&json!({"type": "unobserve", "id": "O"}));
    assert_eq!(changed(&mut owner, "O", "disposed")["reason"]["code"], "UNOBSERVED");
}

#[test]
fn a_client_calls_itself_and_tells_of_it() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = (newer(&stage, "host"), newer(&stage, "owner"));
    let registered = host(&mut host_of, "h::f", json!({}));
    assert_eq!(
        registered,
        json!({"type": "functionregistered", "id": "h::f", "namespace": "default", "revision": 1,
            "local_dispatch": true, "observers": []})
    );
    host(&mut owner, "o::t", json!({}));
    let source = json!({"function_id": "h::f", "capture": ["input", "output"]});
    observed(&mut host_of, &mut owner, "O", source, "o::t", json!({}));
    let item = |more: Value| {
        let mut item = json!({"function_id": "h::f", "invocation_id": "I", "matched": ["O", "unknown"],
            "status": "success", "input": {"n": 1}, "output_is_input": true, "started_at_ms": 5,
            "duration_ms": 0.5, "observe_depth": 2});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let deep = item(json!({"observe_depth": 8}));
    let strange = item(json!({"function_id": "o::t"}));
    host_of.send(&json!({"type": "invocationsobserved", "items": [deep, strange, item(json!({}))]}));
    let told = called(&mut owner, "o::t", json!({}));
    let mut envelope = told["data"].clone();
    envelope.as_object_mut().unwrap().remove("activation_id");
    assert_eq!(
        envelope,
        json!({"observer_id": "O", "function_id": "h::f", "namespace": "default", "invocation_id": "I",
            "status": "success", "input": {"n": 1}, "output": {"n": 1}, "started_at_ms": 5,
            "duration_ms": 0.5})
    );
    assert_eq!(told["observe_depth"], 3);
    // Which worker it was is for this side to say, whoever called the handler that called.
    let source = json!({"function_id": "h::f", "capture": ["caller"]});
    observed(&mut host_of, &mut owner, "C", source, "o::t", json!({}));
    let parent = json!({"worker_id": "W", "worker_name": "w"});
    let within = json!({"function_id": "h::g", "invocation_id": "J", "parent": parent});
    host_of.send(&json!({"type": "invocationsobserved",
        "items": [item(json!({"matched": ["C"], "caller": within}))]}));
    let told = called(&mut owner, "o::t", json!({}));
    assert_eq!(
        told["data"]["caller"],
        json!({"worker_id": host_of.id, "worker_name": "host", "function_id": "h::g", "invocation_id": "J",
            "parent": parent})
    );
    owner.hears_no("invokefunction");
    let seen = owner.call("engine::observers::get", &json!({"id": "O"}))["result"]["observer"].clone();
    assert_eq!((&seen["fires"], &seen["dropped"]), (&json!(1), &json!({"LOOP_GUARD": 1})), "{seen}");

    host_of.send(&json!({"type": "localinvocationstats", "window_ms": 10_000,
        "functions": [{"function_id": "h::f", "count": 41, "errors": 1, "duration_ms_sum": 2.5}],
        "dropped_reports": [{"function_id": "h::f", "reason": "BUFFER_FULL", "count": 3}]}));
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = owner.call("engine::metrics::list", &json!({}));
        let figures = metrics["result"]["sdk_metrics"].as_array().cloned().unwrap_or_default();
        let figure = figures.iter().find(|figure| figure["name"] == "iii.local.invocations");
        if figure.is_some_and(|figure| figure["value"].as_f64() == Some(41.0)) {
            break;
        }
        assert!(Instant::now() < until, "{metrics}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_host_says_who_wants_a_call_or_tells_them_itself() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    for id in ["A", "B"] {
        let source = json!({"function_id": "h::f", "filters": {"input.n": {"$gt": 1}}, "deliver": "output"});
        observed(&mut host_of, &mut owner, id, source, "o::t", json!({"metadata": id}));
    }
    let mut caller = stage.client("caller");
    caller.sees("h::f");
    let mut call = |host_of: &mut Client, n: u32, answer: Value| {
        let id = caller.start(&mut json!({"function_id": "h::f", "data": {"n": n}}));
        called(host_of, "h::f", answer);
        let result = caller.result(&id);
        assert!(result.get("matched").is_none() && result.get("delivered").is_none(), "{result}");
    };
    call(&mut host_of, 2, json!({"result": "of b", "matched": ["B", "unknown"]}));
    let told = called(&mut owner, "o::t", json!({}));
    assert_eq!((&told["metadata"], &told["data"]), (&json!("B"), &json!("of b")));
    // Filters hold for those too.
    call(&mut host_of, 1, json!({"result": 1, "matched": ["A"]}));
    call(&mut host_of, 2, json!({"result": 2, "matched": []}));
    call(&mut host_of, 2, json!({"result": 3, "matched": ["A"], "delivered": true}));
    owner.hears_no("invokefunction");
    call(&mut host_of, 2, json!({"result": 4}));
    let told = [(); 2].map(|()| called(&mut owner, "o::t", json!({}))["metadata"].to_string());
    assert!(told.contains(&"\"A\"".to_owned()) && told.contains(&"\"B\"".to_owned()), "{told:?}");
}

#[test]
fn a_host_calls_through_its_observers() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let more = json!({"metadata": {"route": 1}, "max_in_flight": 1});
    observed(&mut host_of, &mut owner, "O", json!({"function_id": "h::f"}), "o::t", more);
    let through = |id: &str| {
        json!({"function_id": "whatever", "namespace": "nowhere", "data": {"path": "/"},
            "caller": {"function_id": "h::f", "invocation_id": "I"}, "observe_depth": 2,
            "activation": {"observer_id": id}})
    };
    let first = host_of.start(&mut through("O"));
    let code = |result: &Value| result["error"]["code"].clone();
    assert_eq!(code(&host_of.call_with(through("none"))), "OBSERVER_NOT_FOUND");
    assert_eq!(code(&owner.call_with(through("O"))), "NOT_FUNCTION_OWNER");
    assert_eq!(code(&host_of.call_with(through("O"))), "OVERFLOW");
    let told = called(&mut owner, "o::t", json!({"result": {"status": 200}}));
    assert_eq!((&told["data"], &told["metadata"]), (&json!({"path": "/"}), &json!({"route": 1})));
    assert_eq!((&told["observe_depth"], &told["activation"]["observer_id"]), (&json!(3), &json!("O")));
    assert_eq!(
        (&told["caller"]["function_id"], &told["caller"]["worker_name"]),
        (&json!("h::f"), &json!("host"))
    );
    assert_eq!(host_of.result(&first)["result"], json!({"status": 200}));
    let mut deep = through("O");
    deep["observe_depth"] = 8.into();
    assert_eq!(code(&host_of.call_with(deep)), "LOOP_GUARD");
    owner.send(&json!({"type": "unobserve", "id": "O"}));
    changed(&mut owner, "O", "disposed");
    assert_eq!(code(&host_of.call_with(through("O"))), "OBSERVER_NOT_FOUND");
}

#[test]
fn what_is_private_or_closed_stays_so() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = (newer(&stage, "host"), newer(&stage, "owner"));
    host(&mut host_of, "h::private", json!({"private": true}));
    host(&mut host_of, "h::closed", json!({"observable": false}));
    host(&mut host_of, "h::old", json!({"observe": {"allow": false}}));
    let format = json!({"type": "object", "required": ["topic"]});
    host(&mut host_of, "h::topics", json!({"args_format": format}));
    host(&mut owner, "o::t", json!({}));
    // By the direct way and by the usual one, which a first call of many at once takes.
    let native = stage.native("native");
    native.wait_for("h::private", PATIENCE).unwrap();
    let refused = native.trigger_json("h::private", &json!({})).unwrap_err();
    assert_eq!(refused.user_code.as_deref(), Some("FORBIDDEN"), "{refused}");
    assert_eq!(owner.call("h::private", &json!({}))["error"]["code"], "FORBIDDEN");
    let own = host_of.start(&mut json!({"function_id": "h::private", "data": 1}));
    called(&mut host_of, "h::private", json!({"result": 2}));
    assert_eq!(host_of.result(&own)["result"], 2);
    observed(&mut host_of, &mut owner, "P", json!({"function_id": "h::private"}), "o::t", json!({}));
    let refused = |owner: &mut Client, source: Value| {
        let result = observe(owner, "X", source, "o::t", json!({}));
        assert_eq!(result["state"], "error", "{result}");
        result["error"]["code"].clone()
    };
    assert_eq!(refused(&mut owner, json!({"function_id": "h::closed"})), "NOT_OBSERVABLE");
    assert_eq!(refused(&mut owner, json!({"function_id": "h::old"})), "NOT_OBSERVABLE");
    assert_eq!(refused(&mut owner, json!({"function_id": "h::topics"})), "INVALID_ARGS");
    assert_eq!(refused(&mut owner, json!({"function_id": "h::private", "args": {"a": 1}})), "INVALID_ARGS");
    assert_eq!(refused(&mut owner, json!({"function_id": "o::t"})), "SELF_TARGET");
    native.register(Function::json("native::f", |_, _: Value| Ok(()))).unwrap();
    owner.sees("native::f");
    // The listener may hear of a function of somebody else a moment later.
    let result = observe(&mut owner, "N", json!({"function_id": "native::f"}), "o::t", json!({}));
    let error = match result["state"].as_str() {
        Some("pending") => changed(&mut owner, "N", "error")["reason"].clone(),
        _ => result["error"].clone(),
    };
    assert_eq!(error["code"], "NOT_OBSERVABLE", "{error}");
    host_of.hears_no("observerremoved");
    // A function that cannot be is refused alone.
    host_of.send(&json!({"type": "registerfunction", "id": "h::bad", "args_format": {"type": 7}}));
    let rejected = host_of.of_type("registrationrejected");
    assert_eq!(
        (&rejected["code"], &rejected["function_id"]),
        (&json!("INVALID_ARGS_FORMAT"), &json!("h::bad"))
    );
    assert!(host_of.is_welcome());
}

#[test]
fn so_many_run_at_once_and_the_rest_in_order() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let more = json!({"max_in_flight": 1, "max_fires": 3});
    observed(&mut host_of, &mut owner, "O", json!({"function_id": "h::f", "deliver": "input"}), "o::t", more);
    let items: Vec<Value> = (0..5)
        .map(|n| json!({"function_id": "h::f", "invocation_id": "I", "matched": ["O"], "status": "success", "input": n}))
        .collect();
    host_of.send(&json!({"type": "invocationsobserved", "items": items}));
    let ended = changed(&mut owner, "O", "disposed");
    assert_eq!((&ended["reason"]["code"], &ended["fires"]), (&json!("MAX_FIRES"), &json!(3)));
    for n in 0..3 {
        let asked = owner.wait("call", |found| found["type"] == "invokefunction");
        assert_eq!(asked["data"], n);
        owner.hears_no("invokefunction");
        owner.send(&json!({"type": "invocationresult", "invocation_id": asked["invocation_id"],
            "function_id": "o::t"}));
    }
    owner.hears_no("invokefunction");
}

#[test]
fn an_observer_waits_for_its_client_and_its_host() {
    let stage = Stage::new();
    let (mut host_of, mut owner) = pair(&stage);
    let source = || json!({"function_id": "h::f"});
    observed(&mut host_of, &mut owner, "O", source(), "o::t", json!({}));
    let other = observe(&mut host_of, "O", source(), "o::t", json!({}));
    assert_eq!(other["error"]["code"], "OBSERVER_ID_CONFLICT");
    let seen = |client: &mut Client| client.call("engine::observers::get", &json!({"id": "O"}));
    drop(owner);
    host_of.of_type("observerremoved");
    let away = seen(&mut host_of);
    assert_eq!(away["result"]["observer"]["state"], "suspended", "{away}");
    let mut owner = newer(&stage, "owner");
    host(&mut owner, "o::t", json!({}));
    observed(&mut host_of, &mut owner, "O", source(), "o::t", json!({}));
    drop(host_of);
    let waits = changed(&mut owner, "O", "pending");
    assert_eq!(waits["reason"]["code"], "OWNER_UNAVAILABLE");
    let mut host_of = newer(&stage, "host");
    let registered = host(&mut host_of, "h::f", json!({}));
    assert_eq!(registered["observers"][0]["id"], "O", "{registered}");
    host_of.send(&json!({"type": "observerack", "function_id": "h::f", "id": "O",
        "revision": registered["revision"]}));
    changed(&mut owner, "O", "active");
    owner.send(&json!({"type": "unregisterfunction", "id": "o::t"}));
    let waits = changed(&mut owner, "O", "suspended");
    assert_eq!(waits["reason"]["code"], "TARGET_UNAVAILABLE");
    let list = owner.call("engine::observers::list", &json!({"function_id": "h::f", "state": "suspended"}));
    assert_eq!(list["result"]["observers"][0]["id"], "O");
    let none = owner.call("engine::observers::list", &json!({"state": "active"}));
    assert_eq!(none["result"]["observers"], json!([]));
    let unknown = owner.call("engine::observers::get", &json!({"id": "nobody"}));
    assert_eq!(unknown["error"]["code"], "OBSERVER_NOT_FOUND");
}

/// A function that calls another one, and how often it was called.
fn relay(worker: &Worker, id: &str, to: &'static str) -> Arc<Mutex<u32>> {
    let (times, counted) = (Arc::<Mutex<u32>>::default(), Arc::<Mutex<u32>>::default());
    let relayed = Function::json(id, move |context: &ringway::Context, _: Value| {
        *times.lock().unwrap() += 1;
        drop(context.worker().trigger_json(to, &json!({})));
        Ok(())
    });
    worker.register(relayed.pooled()).unwrap();
    counted
}

#[test]
fn a_circle_ends_although_native_workers_are_in_it() {
    let stage = Stage::new();
    let mut host_of = newer(&stage, "host");
    host(&mut host_of, "h::f", json!({}));
    let native = stage.native("relay");
    native.wait_for("h::f", PATIENCE).unwrap();
    relay(&native, "relay::back", "h::f");
    let result = observe(&mut host_of, "O", json!({"function_id": "h::f"}), "relay::back", json!({}));
    assert_eq!(result["state"], "pending");
    accept(&mut host_of, "O");
    changed(&mut host_of, "O", "active");
    host_of.start(&mut json!({"function_id": "h::f", "data": {}}));
    for depth in 0..=8_u32 {
        let asked = called(&mut host_of, "h::f", json!({"result": depth}));
        assert_eq!(asked.get("observe_depth").and_then(Value::as_u64).unwrap_or_default(), u64::from(depth));
    }
    host_of.hears_no("invokefunction");
    let seen = host_of.call("engine::observers::get", &json!({"id": "O"}))["result"]["observer"].clone();
    assert_eq!((&seen["fires"], &seen["dropped"]["LOOP_GUARD"]), (&json!(8), &json!(1)), "{seen}");
}

#[test]
fn the_engines_own_events_are_observed() {
    let stage = Stage::new();
    let mut owner = newer(&stage, "owner");
    host(&mut owner, "o::workers", json!({}));
    host(&mut owner, "o::observers", json!({}));
    let source = json!({"function_id": "engine::on-workers-changed",
        "filters": {"input.event": {"$eq": "worker_connected"}}});
    observe(&mut owner, "W", source, "o::workers", json!({}));
    changed(&mut owner, "W", "active");
    let source = json!({"function_id": "engine::on-observers-changed", "deliver": "input",
        "filters": {"input.state": {"$eq": "disposed"}}});
    observe(&mut owner, "C", source, "o::observers", json!({}));
    changed(&mut owner, "C", "active");
    let wrong = json!({"function_id": "engine::on-workers-changed", "args": {"all": true}});
    assert_eq!(observe(&mut owner, "X", wrong, "o::workers", json!({}))["error"]["code"], "INVALID_ARGS");
    let _passing = stage.native("passing");
    let event = called(&mut owner, "o::workers", json!({}));
    assert_eq!(
        (&event["data"]["function_id"], &event["data"]["input"]["event"]),
        (&json!("engine::on-workers-changed"), &json!("worker_connected"))
    );
    owner.send(&json!({"type": "unobserve", "id": "W"}));
    let event = called(&mut owner, "o::observers", json!({}));
    assert_eq!(
        event["data"],
        json!({"observer_id": "W", "function_id": "engine::on-workers-changed", "target": "o::workers",
            "state": "disposed", "reason": {"code": "UNOBSERVED", "message": "its client wants it no longer"}})
    );
    let _passing = stage.native("passing");
    owner.hears_no("invokefunction");
}

#[test]
fn a_function_stands_for_a_trigger_type_that_nobody_provides() {
    let stage = Stage::new();
    let mut old = stage.client("old");
    let bind = |id: &str| {
        json!({"type": "registertrigger", "id": id, "trigger_type": "tide", "function_id": "old::f",
            "config": {"harbour": "north"}, "metadata": {"m": id}})
    };
    old.register("old::f");
    old.send(&bind("before"));
    old.sees("old::f");
    let mut owner = newer(&stage, "owner");
    let descriptor = json!({"observe": {"delivery": "owner", "legacy_trigger_type": "tide",
        "args_format": {"type": "object", "required": ["harbour"]}}});
    host(&mut owner, "tides::on-tide", descriptor);
    old.send(&bind("after"));
    for id in ["before", "after"] {
        let added = accept(&mut owner, id);
        assert_eq!(
            added["observer"]["legacy"],
            json!({"trigger_type": "tide", "config": {"harbour": "north"}}),
            "{added}"
        );
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let active = owner.call("engine::observers::list", &json!({"state": "active"}));
        if active["result"]["observers"].as_array().unwrap().len() == 2 {
            break;
        }
        assert!(Instant::now() < until, "{active}");
    }
    owner.send(&json!({"type": "invocationsobserved", "items": [{"function_id": "tides::on-tide",
        "invocation_id": "I", "matched": ["before", "after"], "status": "success", "input": {"high": true}}]}));
    for _ in 0..2 {
        let asked = old.answer(|_| json!({}));
        assert_eq!((&asked["data"], asked["metadata"]["m"].is_string()), (&json!({"high": true}), true));
    }
    // What its calls say is no event: it says itself what is one.
    let mut caller = stage.client("caller");
    caller.sees("tides::on-tide");
    caller.send(&json!({"type": "invokefunction", "function_id": "tides::on-tide", "data": {}, "action": {"type": "void"}}));
    owner.answer(|_| json!({"result": 1}));
    old.hears_no("invokefunction");
    old.send(&json!({"type": "unregistertrigger", "id": "after", "trigger_type": "tide"}));
    assert_eq!(owner.of_type("observerremoved")["id"], "after");
    drop(old);
    assert_eq!(owner.of_type("observerremoved")["id"], "before");
    let gone = owner.call("engine::observers::list", &json!({}));
    assert_eq!(gone["result"]["observers"], json!([]));
}

#[test]
fn replicas_are_observed_together() {
    let stage = Stage::with(Config { replicas: Replicas::Share, ..Config::default() });
    let (mut one, mut other) = (newer(&stage, "one"), newer(&stage, "other"));
    host(&mut one, "h::f", json!({}));
    host(&mut other, "h::f", json!({}));
    let mut owner = newer(&stage, "owner");
    host(&mut owner, "o::t", json!({}));
    observe(&mut owner, "O", json!({"function_id": "h::f"}), "o::t", json!({}));
    accept(&mut one, "O");
    owner.hears_no("observerstatechanged");
    accept(&mut other, "O");
    changed(&mut owner, "O", "active");
    drop(one);
    let until = Instant::now() + PATIENCE;
    while owner.call("engine::workers::info", &json!({"name": "one"})).get("error").is_none() {
        assert!(Instant::now() < until, "a worker has not left");
    }
    owner.start(&mut json!({"function_id": "h::f", "data": 1}));
    called(&mut other, "h::f", json!({"result": 2}));
    assert_eq!(called(&mut owner, "o::t", json!({}))["data"]["output"], 2);
}
