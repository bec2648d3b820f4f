//! Calls between clients, and between clients and native workers, both ways.

use ringway::{CallOptions, ErrorCode, Failure, Function};
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage};

#[test]
fn clients_call_each_other() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::double");
    a.sees("b::double");
    let id = a.start(&mut json!({
        "function_id": "b::double", "data": {"n": 2}, "metadata": {"tenant": "acme"},
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "baggage": "iii.function.id=web%3A%3Ahandler,k=v",
    }));
    let asked = b.answer(|asked| json!({"result": {"n": asked["data"]["n"].as_i64().unwrap() * 2}}));
    assert_eq!(asked["data"], json!({"n": 2, "_caller_worker_id": a.id}));
    assert_eq!(
        (&asked["function_id"], &asked["metadata"]),
        (&json!("b::double"), &json!({"tenant": "acme"}))
    );
    assert!(asked["traceparent"].as_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    let baggage = asked["baggage"].as_str().unwrap();
    assert!(
        baggage.contains("k=v") && baggage.replace("%3A", ":").contains("iii.function.id=b::double"),
        "{baggage}"
    );
    assert!(asked.get("action").is_none() && asked.get("namespace").is_none(), "{asked}");
    let result = a.result(&id);
    assert_eq!((&result["result"], &result["function_id"]), (&json!({"n": 4}), &json!("b::double")));
    assert!(result.get("error").is_none());
}

#[test]
fn a_client_calls_itself() {
    let stage = Stage::new();
    let mut a = stage.client("a");
    a.register("a::echo");
    a.sees("a::echo");
    let id = a.start(&mut json!({"function_id": "a::echo", "data": [1, "x"]}));
    let asked = a.answer(|asked| json!({"result": asked["data"]}));
    assert_eq!(asked["data"], json!([1, "x"]));
    assert_eq!(a.result(&id)["result"], json!([1, "x"]));
}

#[test]
fn values_survive_and_null_is_left_out() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::say");
    a.sees("b::say");
    let long = "é\"\\\u{0}".repeat(200_000);
    for value in [json!(0), json!(false), json!(""), json!([]), json!({"a": [null]}), json!(1.5), json!(long)]
    {
        let id = a.start(&mut json!({"function_id": "b::say", "data": value}));
        let asked = b.answer(|asked| json!({"result": asked["data"]}));
        assert!(!value.is_object() || asked["data"]["_caller_worker_id"] == a.id.as_str());
        let result = a.result(&id);
        if value.is_object() {
            assert_eq!(result["result"]["a"], value["a"]);
        } else {
            assert!(result["result"] == value, "{value} came back otherwise");
        }
    }
    for answer in [json!({}), json!({"result": null})] {
        let id = a.start(&mut json!({"function_id": "b::say"}));
        let asked = b.answer(|_| answer);
        assert_eq!(asked["data"], Value::Null);
        let result = a.result(&id);
        assert!(result.get("result").is_none() && result.get("error").is_none(), "{result}");
    }
}

#[test]
fn errors_are_told_in_the_words_of_iii() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::fail");
    a.sees("b::fail");
    let id = a.start(&mut json!({"function_id": "b::fail", "data": {}}));
    let error = json!({"code": "invocation_failed", "message": "boom", "stacktrace": "at b"});
    b.answer(|_| json!({"error": error, "result": 1}));
    assert_eq!(a.result(&id)["error"], error);
    let missing = a.call("x::y", &json!({}));
    assert_eq!(
        missing["error"],
        json!({"code": "function_not_found", "message": "Function x::y not found in namespace default."})
    );
    let blank = a.call_with(json!({"function_id": "b::fail", "namespace": " "}));
    assert_eq!(blank["error"]["code"], "INVALID_NAMESPACE");
    let wrong = a.call_with(json!({"function_id": "b::fail", "action": {"type": "later"}}));
    assert_eq!(wrong["error"]["code"], "invocation_error");
    // A message that cannot be used harms nothing.
    a.send(&json!({"type": "dance"}));
    a.send(&json!([]));
    a.socket.send(tokio_tungstenite::tungstenite::Message::text("{")).unwrap();
    a.socket.send(tokio_tungstenite::tungstenite::Message::text("  ")).unwrap();
    a.socket.send(tokio_tungstenite::tungstenite::Message::binary(vec![0xff; 9])).unwrap();
    a.send(&json!({"type": "ping"}));
    a.of_type("pong");
}

#[test]
fn a_callee_that_leaves_ends_its_calls() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::wait");
    a.sees("b::wait");
    let id = a.start(&mut json!({"function_id": "b::wait", "data": {}}));
    b.of_type("invokefunction");
    drop(b);
    let stopped = json!({"code": "invocation_stopped", "message": "Invocation stopped"});
    assert_eq!(a.result(&id)["error"], stopped);
    assert_eq!(a.call("b::wait", &json!({}))["error"]["code"], "function_not_found");
}

#[test]
fn void_calls_are_made_and_not_answered() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::note");
    a.sees("b::note");
    a.send(
        &json!({"type": "invokefunction", "function_id": "b::note", "data": 1, "action": {"type": "void"}}),
    );
    a.send(&json!({"type": "invokefunction", "function_id": "b::note", "data": 2}));
    a.send(
        &json!({"type": "invokefunction", "function_id": "b::note", "data": 3, "action": {"type": "void"},
        "invocation_id": "00000000-0000-4000-8000-00000000abcd"}),
    );
    a.send(&json!({"type": "invokefunction", "function_id": "b::none", "data": 4}));
    for expected in 1..=3 {
        let asked = b.answer(|_| json!({"result": "unheard"}));
        assert_eq!(asked["data"], expected);
        assert!(asked["invocation_id"].is_string());
    }
    a.hears_no("invocationresult");
}

#[test]
fn native_workers_and_clients_call_each_other() {
    let stage = Stage::new();
    let native = stage.native("native");
    native
        .register(Function::json("native::greet", |context, name: Value| {
            let name = name["name"].as_str().ok_or_else(|| Failure::invalid("no name"))?.to_owned();
            Ok(json!({"greeting": format!("hello {name}"), "trace": context.trace().to_string()}))
        }))
        .unwrap();
    native
        .register(Function::json("native::fail", |_, _: Value| {
            Err::<Value, _>(Failure::with_code("MINE", "as I like"))
        }))
        .unwrap();
    let mut a = stage.client("a");
    a.register("a::double");
    a.sees("native::greet");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let greeted =
        a.call_with(json!({"function_id": "native::greet", "data": {"name": "x"}, "traceparent": trace}));
    assert_eq!(greeted["result"]["greeting"], "hello x");
    assert!(greeted["result"]["trace"].as_str().unwrap().contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(a.call("native::fail", &json!({}))["error"], json!({"code": "MINE", "message": "as I like"}));
    assert_eq!(a.call("native::greet", &json!(3))["error"]["code"], "deserialization_error");

    native.wait_for("a::double", PATIENCE).unwrap();
    let options = CallOptions::new().timeout(PATIENCE).metadata(json!({"m": 1}));
    let call = |options: CallOptions| {
        let native = native.clone();
        std::thread::spawn(move || native.trigger_json_with("a::double", &json!({"n": 4}), &options))
    };
    let doubled = call(options);
    let asked = a.answer(|_| json!({"result": {"n": 8}}));
    assert_eq!((&asked["data"], &asked["metadata"]), (&json!({"n": 4}), &json!({"m": 1})));
    assert_eq!(doubled.join().unwrap().unwrap(), json!({"n": 8}));
    let failed = call(CallOptions::new().timeout(PATIENCE));
    a.answer(|_| json!({"error": {"code": "C", "message": "m"}}));
    let error = failed.join().unwrap().unwrap_err();
    assert_eq!((error.code, error.user_code.as_deref()), (ErrorCode::HandlerError, Some("C")));
    let nothing = call(CallOptions::new().timeout(PATIENCE));
    a.answer(|_| json!({}));
    assert_eq!(nothing.join().unwrap().unwrap(), Value::Null);
}

#[test]
fn large_payloads_pass_and_old_clients_are_spared() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.connect());
    b.announce(json!({"runtime": "python", "version": "0.22.1", "name": "old"}));
    b.register("b::echo");
    a.sees("b::echo");
    let text = "x".repeat(2 << 20);
    let refused = a.call("b::echo", &json!(text));
    assert_eq!(refused["error"]["code"], "payload_too_large", "{refused}");
    let id = b.start(&mut json!({"function_id": "a::echo", "data": {}}));
    b.result(&id);
    a.register("a::long");
    b.sees("a::long");
    let id = b.start(&mut json!({"function_id": "a::long", "data": {}}));
    a.answer(|_| json!({"result": text}));
    assert_eq!(b.result(&id)["error"]["code"], "payload_too_large");

    let mut c = stage.client("c");
    c.register("c::echo");
    a.sees("c::echo");
    let text = "y".repeat(20 << 20);
    let id = a.start(&mut json!({"function_id": "c::echo", "data": text}));
    c.answer(|asked| json!({"result": asked["data"]}));
    assert!(a.result(&id)["result"] == text, "20 MiB came back otherwise");
}

#[test]
fn what_old_clients_log_by_a_call_is_in_the_log() {
    let stage = Stage::new();
    let mut a = stage.client("a");
    let said = json!({"message": "by a call", "service_name": "old", "data": {"n": 1}});
    let answer = a.call("engine::log::warn", &said);
    assert!(answer.get("error").is_none(), "{answer}");
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let logs = a.call("engine::logs::list", &json!({}))["result"]["logs"].clone();
        if logs.as_array().is_some_and(|logs| logs.iter().any(|log| log["body"] == "by a call")) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{logs}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let baggage =
        a.call_with(json!({"function_id": "engine::baggage::get", "data": {"key": "k"}, "baggage": "k=v"}));
    assert_eq!(baggage["result"], json!({"value": "v"}));
    let all = a.call_with(json!({"function_id": "engine::baggage::get_all", "data": {}, "baggage": "k=v"}));
    assert_eq!(all["result"], json!({"baggage": {"k": "v"}}));
}

#[test]
fn order_is_kept_from_the_first_call_on() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    b.register("b::note");
    a.sees("b::note");
    for number in 0..200 {
        a.send(&json!({"type": "invokefunction", "function_id": "b::note", "data": number, "action": {"type": "void"}}));
    }
    for number in 0..200 {
        assert_eq!(b.answer(|_| json!({}))["data"], number);
    }
}

#[test]
fn workers_have_the_ids_that_they_were_told() {
    let stage = Stage::new();
    let (mut a, b) = (stage.client("a"), stage.client("b"));
    a.register("a::hear");
    a.send(&json!({"type": "registertrigger", "id": "T", "trigger_type": "engine::workers-available",
        "function_id": "a::hear", "config": {}}));
    a.sees("a::hear");
    let until = std::time::Instant::now() + PATIENCE;
    while a.call("engine::registered-triggers::info", &json!({"id": "T"})).get("error").is_some() {
        assert!(std::time::Instant::now() < until);
    }
    let list = a.call("engine::workers::list", &json!({}));
    let ids: Vec<_> =
        list["result"]["workers"].as_array().unwrap().iter().map(|worker| worker["id"].clone()).collect();
    assert!(ids.contains(&json!(a.id)), "{ids:?}");
    let left = b.id.clone();
    drop(b);
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let told = a.answer(|_| json!({}));
        if told["data"] == json!({"event": "worker_disconnected", "worker_id": left}) {
            break;
        }
        assert!(std::time::Instant::now() < until, "{told}");
    }
}
