//! Trigger types that clients provide, and triggers that they bind.

use std::sync::{Arc, Mutex};

use ringway::protocol::FunctionId;
use ringway::protocol::control::{TriggerSpec, TriggerTypeSpec};
use ringway::{CallError, TriggerProvider};
use serde_json::json;

use crate::stage::Stage;

#[test]
fn a_client_binds_its_own_type() {
    let stage = Stage::new();
    let mut a = stage.connect();
    a.send(&json!({"type": "registertriggertype", "id": "tick", "description": "every n ms"}));
    a.register("demo::hello");
    a.send(
        &json!({"type": "registertrigger", "id": "B1", "trigger_type": "tick", "function_id": "demo::hello",
        "config": {"ms": 500}, "metadata": {"team": "core"}}),
    );
    a.announce(json!({"runtime": "node", "version": "0.22.1", "name": "h:1"}));
    let asked = a.of_type("registertrigger");
    assert_eq!(
        asked,
        json!({"type": "registertrigger", "id": "B1", "trigger_type": "tick", "function_id": "demo::hello",
            "config": {"ms": 500}, "metadata": {"team": "core"}})
    );
    a.send(&json!({"type": "triggerregistrationresult", "id": "B1", "trigger_type": "tick",
        "function_id": "demo::hello"}));
    a.send(&json!({"type": "unregistertrigger", "id": "B1", "trigger_type": "tick"}));
    assert_eq!(
        a.of_type("unregistertrigger"),
        json!({"type": "unregistertrigger", "id": "B1", "trigger_type": "tick"})
    );
    a.hears_no("triggerregistrationresult");
}

#[test]
fn a_trigger_waits_for_its_type_and_outlives_its_provider() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    a.send(&json!({"type": "registertrigger", "id": "T", "trigger_type": "rain", "function_id": "a::wet",
        "config": null}));
    a.hears_no("triggerregistrationresult");
    b.send(&json!({"type": "registertriggertype", "id": "rain", "description": ""}));
    assert_eq!(b.of_type("registertrigger")["id"], "T");
    drop(b);
    let mut c = stage.client("c");
    c.send(&json!({"type": "registertriggertype", "id": "rain", "description": ""}));
    assert_eq!(c.of_type("registertrigger")["function_id"], "a::wet");
    // When its maker goes, its provider is told.
    drop(a);
    assert_eq!(c.of_type("unregistertrigger")["id"], "T");
}

#[test]
fn a_refusal_is_told_to_whoever_asked() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.send(&json!({"type": "registertriggertype", "id": "picky", "description": ""}));
    // The answer of a provider that thinks for long holds nothing up.
    a.send(&json!({"type": "registertrigger", "id": "T1", "trigger_type": "picky", "function_id": "a::f",
        "config": 1}));
    b.of_type("registertrigger");
    a.register("a::g");
    b.sees("a::g");
    let error = json!({"code": "trigger_registration_failed", "message": "no such thing"});
    b.send(&json!({"type": "triggerregistrationresult", "id": "T1", "trigger_type": "picky",
        "function_id": "a::f", "error": error}));
    let refused = a.of_type("triggerregistrationresult");
    assert_eq!((&refused["id"], &refused["error"]), (&json!("T1"), &error));
    assert_eq!((&refused["trigger_type"], &refused["function_id"]), (&json!("picky"), &json!("a::f")));
    a.send(&json!({"type": "registertrigger", "id": "T2", "trigger_type": "picky", "function_id": "a::f",
        "namespace": ""}));
    assert_eq!(a.of_type("triggerregistrationresult")["error"]["code"], "INVALID_NAMESPACE");
}

#[test]
fn a_type_that_is_taken_back_leaves_its_triggers_waiting() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    for client in [&mut a, &mut b] {
        client.send(&json!({"type": "registertrigger", "id": "T", "trigger_type": "x", "function_id": "f"}));
    }
    a.send(&json!({"type": "registertriggertype", "id": "x", "description": ""}));
    a.of_type("registertrigger");
    a.send(&json!({"type": "unregistertriggertype", "id": "x"}));
    b.send(&json!({"type": "registertriggertype", "id": "x", "description": ""}));
    assert_eq!(b.of_type("registertrigger")["id"], "T");
}

/// What a native provider was asked.
#[derive(Default)]
struct Asked(Arc<Mutex<Vec<TriggerSpec>>>);

impl TriggerProvider for Asked {
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        self.0.lock().unwrap().push(binding.clone());
        if binding.config == json!("bad") { Err(CallError::invalid_registration("bad")) } else { Ok(()) }
    }

    fn unbind(&self, _: &str) {}
}

#[test]
fn native_providers_and_clients_triggers_meet() {
    let stage = Stage::new();
    let native = stage.native("native");
    let asked = Arc::<Mutex<Vec<TriggerSpec>>>::default();
    let spec = TriggerTypeSpec { id: "native-type".to_owned(), ..TriggerTypeSpec::default() };
    native.register_trigger_type(spec, Asked(Arc::clone(&asked))).unwrap();
    let mut a = stage.client("a");
    a.send(
        &json!({"type": "registertrigger", "id": "T1", "trigger_type": "native-type", "function_id": "a::f",
        "config": {"x": 1}, "metadata": 5}),
    );
    a.send(
        &json!({"type": "registertrigger", "id": "T2", "trigger_type": "native-type", "function_id": "a::f",
        "config": "bad"}),
    );
    let refused = a.of_type("triggerregistrationresult");
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("T2"), &json!("trigger_registration_failed"))
    );
    let first = asked.lock().unwrap()[0].clone();
    assert_eq!((first.config, first.metadata), (json!({"x": 1}), Some(json!(5))));
    assert_eq!(first.function_id.as_str(), "a::f");

    a.send(&json!({"type": "registertriggertype", "id": "of-a", "description": ""}));
    let until = std::time::Instant::now() + crate::stage::PATIENCE;
    let provided = |a: &mut crate::stage::Client| {
        a.call("engine::triggers::info", &json!({"id": "of-a"}))["result"]["id"] == "of-a"
    };
    while !provided(&mut a) {
        assert!(std::time::Instant::now() < until);
    }
    let spec = TriggerSpec::new("T3", "of-a", FunctionId::new("native::f").unwrap());
    let bound = std::thread::spawn(move || native.register_trigger(spec));
    assert_eq!(a.of_type("registertrigger")["id"], "T3");
    a.send(&json!({"type": "triggerregistrationresult", "id": "T3", "trigger_type": "of-a",
        "function_id": "native::f", "error": {"code": "NO", "message": "not today"}}));
    let error = bound.join().unwrap().unwrap_err();
    assert_eq!((error.user_code.as_deref(), error.message.as_str()), (Some("NO"), "not today"));
}
