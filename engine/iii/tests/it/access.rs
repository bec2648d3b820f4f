//! Who may connect to a listener with rules, and what they may do there.

use ringway::{Failure, Function, Worker};
use ringway_iii::Config;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage};

/// A stage whose second listener has these rules, and a native worker with what they name.
fn guarded(rules: Value) -> (Stage, Worker) {
    let mut listener = rules;
    listener["port"] = 0.into();
    let config: Config = serde_json::from_value(json!({ "listeners": [listener] })).unwrap();
    let stage = Stage::with(config);
    let native = stage.native("native");
    let auth = |_: &ringway::Context, asked: Value| {
        let query = &asked["query_params"];
        match query["token"][0].as_str() {
            Some("good") => Ok(json!({
                "allowed_functions": ["n::allowed", "engine::functions::list", "engine::functions::info"],
                "forbidden_functions": ["api::secret"],
                "allowed_trigger_types": ["t1"],
                "allow_trigger_type_registration": true,
                "context": {"user": asked["headers"]["user-agent"], "ip": asked["ip_address"]},
                "function_registration_prefix": "acme",
                "namespaces": {"default": [], "blue": ["blue::*"]},
            })),
            Some("shapeless") => Ok(json!("yes")),
            _ => Err(Failure::new("invalid token")),
        }
    };
    native.register(Function::json("my::auth", auth)).unwrap();
    for id in ["n::allowed", "n::other", "api::open", "api::secret", "m::public"] {
        let metadata = json!({"public": id == "m::public"});
        let echo = move |_: &ringway::Context, said: Value| Ok(json!({"id": id, "said": said}));
        native.register(Function::json(id, echo).metadata(metadata)).unwrap();
    }
    (stage, native)
}

#[test]
fn strangers_are_sent_away_with_a_reason() {
    let (stage, _native) = guarded(json!({"rbac": {"auth_function_id": "my::auth"}}));
    for (query, words) in
        [("", "invalid token"), ("?token=bad", "invalid token"), ("?token=shapeless", "object")]
    {
        let mut client = stage.connect_to(1, query);
        let told = client.of_type("error");
        assert_eq!(told["error"]["code"], "AUTH_ERROR");
        assert!(told["error"]["message"].as_str().unwrap().contains(words), "{told}");
        assert!(client.is_closed());
    }
    let (stage, _native) = guarded(json!({"rbac": {"auth_function_id": "no::such"}}));
    let mut client = stage.connect_to(1, "?token=good");
    assert_eq!(client.of_type("error")["error"]["code"], "AUTH_ERROR");
}

#[test]
fn calls_are_allowed_one_by_one() {
    let rules = json!({"rbac": {"auth_function_id": "my::auth",
        "expose_functions": ["match(\"api::*\")", {"metadata": {"public": true}}]}});
    let (stage, _native) = guarded(rules);
    let mut client = stage.connect_to(1, "?token=good");
    client.of_type("workerregistered");
    client.announce(json!({"runtime": "node", "version": "0.23.0", "name": "guest"}));
    for allowed in ["n::allowed", "api::open", "m::public"] {
        assert_eq!(client.call(allowed, &json!({}))["result"]["id"], allowed);
    }
    for (denied, words) in [
        ("n::other", "add to rbac.expose_functions"),
        ("api::secret", "remove from rbac.forbidden_functions"),
    ] {
        let error = client.call(denied, &json!({}))["error"].clone();
        assert_eq!(error["code"], "FORBIDDEN");
        assert_eq!(error["message"], format!("function '{denied}' not allowed ({words})"));
    }
    // A list shows what may be called, and nothing else.
    let list = client.call("engine::functions::list", &json!({}))["result"]["functions"].clone();
    let mut ids: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["function_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    assert_eq!(ids, ["api::open", "m::public", "n::allowed"]);
    let info = client.call("engine::functions::info", &json!({"function_id": "n::other"}));
    assert_eq!(info["error"]["code"], "FORBIDDEN");
    let elsewhere = client.call("engine::workers::register", &json!({"name": "g", "namespace": "red"}));
    assert_eq!(elsewhere["error"]["code"], "FORBIDDEN");
}

#[test]
fn what_a_guest_registers_has_its_prefix() {
    let (stage, native) = guarded(json!({"rbac": {"auth_function_id": "my::auth"}}));
    let mut client = stage.connect_to(1, "?token=good");
    client.of_type("workerregistered");
    client.announce(json!({"runtime": "node", "version": "0.23.0", "name": "guest"}));
    client.register("shop::buy");
    native.wait_for("acme::shop::buy", PATIENCE).unwrap();
    let mut other = stage.client("other");
    // The first call finds the way, the second one knows it.
    for _ in 0..2 {
        let id = other.start(&mut json!({"function_id": "acme::shop::buy", "data": 1}));
        let asked = client.answer(|_| json!({"result": 2}));
        assert_eq!(asked["function_id"], "shop::buy");
        assert_eq!(other.result(&id)["result"], 2);
    }
    client.send(&json!({"type": "registertriggertype", "id": "t1", "description": ""}));
    client.send(
        &json!({"type": "registertrigger", "id": "T1", "trigger_type": "t1", "function_id": "shop::buy"}),
    );
    assert_eq!(client.of_type("registertrigger")["function_id"], "acme::shop::buy");
    client.send(
        &json!({"type": "registertrigger", "id": "T2", "trigger_type": "t2", "function_id": "shop::buy"}),
    );
    client.hears_no("triggerregistrationresult");
    client.send(&json!({"type": "unregisterfunction", "id": "shop::buy"}));
    let until = std::time::Instant::now() + PATIENCE;
    while native.handle("acme::shop::buy").replicas() > 0 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn a_guest_takes_back_its_own_triggers_alone() {
    let (stage, _native) = guarded(json!({"rbac": {"auth_function_id": "my::auth"}}));
    let mut host = stage.client("host");
    host.send(&json!({"type": "registertriggertype", "id": "t1", "description": ""}));
    host.send(&json!({"type": "registertrigger", "id": "H", "trigger_type": "t1", "function_id": "h::f"}));
    assert_eq!(host.of_type("registertrigger")["id"], "H");
    let mut guest = stage.connect_to(1, "?token=good");
    guest.of_type("workerregistered");
    guest.announce(json!({"runtime": "node", "version": "0.23.0", "name": "guest"}));
    guest.send(&json!({"type": "registertrigger", "id": "G", "trigger_type": "t1", "function_id": "f"}));
    assert_eq!(host.of_type("registertrigger")["id"], "G");
    for id in ["H", "G"] {
        guest.send(&json!({"type": "unregistertrigger", "id": id}));
    }
    assert_eq!(host.of_type("unregistertrigger")["id"], "G");
}

#[test]
fn a_name_that_a_hook_gave_is_forgotten_with_its_function() {
    let (stage, native) = guarded(json!({"rbac": {"on_function_registration_function_id": "hook::function",
        "expose_functions": ["*"]}}));
    let hook = |_: &ringway::Context, asked: Value| {
        Ok(if asked["function_id"] == "alias::f" { json!({"function_id": "real::f"}) } else { json!({}) })
    };
    native.register(Function::json("hook::function", hook)).unwrap();
    let mut client = stage.connect_to(1, "");
    client.of_type("workerregistered");
    client.announce(json!({"runtime": "node", "version": "0.23.0", "name": "hooked"}));
    let mut other = stage.client("other");
    for own in ["alias::f", "real::f"] {
        client.register(own);
        native.wait_for("real::f", PATIENCE).unwrap();
        // The first call finds the way, the second one knows it.
        for _ in 0..2 {
            let id = other.start(&mut json!({"function_id": "real::f", "data": 1}));
            assert_eq!(client.answer(|_| json!({"result": 2}))["function_id"], own);
            assert_eq!(other.result(&id)["result"], 2);
        }
        client.send(&json!({"type": "unregisterfunction", "id": own}));
        let until = std::time::Instant::now() + PATIENCE;
        while native.handle("real::f").replicas() > 0 || other_sees(&mut other) {
            assert!(std::time::Instant::now() < until);
        }
    }
}

fn other_sees(other: &mut crate::stage::Client) -> bool {
    let list = other.call("engine::functions::list", &json!({"prefix": "real::"}));
    list["result"]["functions"].as_array().is_some_and(|functions| !functions.is_empty())
}

#[test]
fn hooks_change_and_refuse_registrations() {
    let rules = json!({"rbac": {"on_function_registration_function_id": "hook::function",
        "on_trigger_registration_function_id": "hook::trigger",
        "on_trigger_type_registration_function_id": "hook::type",
        "expose_functions": ["*"]}});
    let (stage, native) = guarded(rules);
    native
        .register(Function::json("hook::function", |_, asked: Value| match asked["function_id"].as_str() {
            Some("bad::f") => Err(Failure::new("no")),
            Some("null::f") => Ok(Value::Null),
            id => Ok(json!({"function_id": format!("hooked::{}", id.unwrap()), "description": "by hook"})),
        }))
        .unwrap();
    native
        .register(Function::json("hook::trigger", |_, asked: Value| {
            if asked["trigger_id"] == "T2" {
                Ok(Value::Null)
            } else {
                Ok(json!({"config": {"hooked": true}}))
            }
        }))
        .unwrap();
    native
        .register(Function::json("hook::type", |_, asked: Value| {
            if asked["trigger_type_id"] == "bad" { Err(Failure::new("no")) } else { Ok(json!({})) }
        }))
        .unwrap();
    let mut client = stage.connect_to(1, "");
    client.of_type("workerregistered");
    for function in ["bad::f", "null::f", "good::f"] {
        client.register(function);
    }
    for kind in ["bad", "t"] {
        client.send(&json!({"type": "registertriggertype", "id": kind, "description": ""}));
    }
    for (id, kind) in [("T1", "t"), ("T2", "t"), ("T3", "bad")] {
        client
            .send(&json!({"type": "registertrigger", "id": id, "trigger_type": kind, "function_id": "x::y"}));
    }
    client.announce(json!({"runtime": "node", "version": "0.22.1", "name": "hooked"}));
    let asked = client.of_type("registertrigger");
    assert_eq!((&asked["id"], &asked["config"]), (&json!("T1"), &json!({"hooked": true})));
    client.hears_no("registertrigger");
    native.wait_for("hooked::good::f", PATIENCE).unwrap();
    for refused in ["bad::f", "null::f", "hooked::bad::f", "hooked::null::f"] {
        assert_eq!(native.handle(refused).replicas(), 0, "{refused}");
    }
    let caller = native.clone();
    let called = std::thread::spawn(move || caller.trigger_json("hooked::good::f", &json!(1)));
    let asked = client.answer(|_| json!({"result": 3}));
    assert_eq!(asked["function_id"], "good::f");
    assert_eq!(called.join().unwrap().unwrap(), 3);
}

#[test]
fn middleware_stands_before_every_call() {
    let (stage, native) = guarded(json!({"middleware_function_id": "mid::ware"}));
    native.register(Function::json("mid::ware", |_, asked: Value| Ok(json!({"instead": asked})))).unwrap();
    let mut client = stage.connect_to(1, "");
    client.of_type("workerregistered");
    client.announce(json!({"runtime": "node", "version": "0.22.1", "name": "behind"}));
    let answer = client.call("n::allowed", &json!({"x": 1}));
    assert_eq!(
        answer["result"]["instead"],
        json!({"function_id": "n::allowed", "payload": {"x": 1}, "action": null, "context": {}, "namespace": "default"})
    );
    assert_eq!(answer["function_id"], "n::allowed");
    assert!(client.call("engine::workers::list", &json!({}))["result"]["workers"].is_array());
}
