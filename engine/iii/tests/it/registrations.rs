//! What clients register, who may have what, and what becomes of it when they come again.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use ringway_iii::Config;
use ringway_iii::config::Replicas;
use serde_json::json;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;

use crate::stage::{PATIENCE, Stage};

#[test]
fn registrations_wait_for_the_namespace() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.connect());
    b.register("b::early");
    a.hears_no("anything");
    let list = a.call("engine::functions::list", &json!({"prefix": "b::"}));
    assert_eq!(list["result"]["functions"], json!([]));
    b.announce(json!({"runtime": "rust", "version": "0.25.0", "name": "b", "namespace": "blue"}));
    a.sees("b::early");
    let missing = a.call("b::early", &json!({}));
    let message = missing["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Function b::early not found in namespace default.") && message.contains("blue")
    );
    let id = a.start(&mut json!({"function_id": "b::early", "namespace": "blue", "data": 1}));
    b.answer(|_| json!({"result": 2}));
    assert_eq!(a.result(&id)["result"], 2);
    let info = a.call("engine::workers::info", &json!({"name": "b"}));
    assert_eq!(info["result"]["worker"]["namespace"], "blue", "{info}");
    assert_eq!(
        (&info["result"]["worker"]["runtime"], &info["result"]["worker"]["version"]),
        (&json!("rust"), &json!("0.25.0"))
    );
}

#[test]
fn a_client_that_never_says_who_it_is_is_served_after_a_while() {
    let stage = Stage::with(Config { registration_namespace_grace_ms: 50, ..Config::default() });
    let (mut a, mut b) = (stage.client("a"), stage.connect());
    b.register("b::late");
    a.sees("b::late");
    b.announce(json!({"runtime": "go", "version": "0.23.0", "name": "late", "namespace": "elsewhere"}));
    let until = Instant::now() + PATIENCE;
    loop {
        let info = a.call("engine::workers::info", &json!({"name": "late"}));
        if info["result"]["worker"]["namespace"] == "default" {
            break;
        }
        assert!(Instant::now() < until, "{info}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_announcement_is_answered_where_an_answer_is_wanted() {
    let stage = Stage::new();
    let mut a = stage.connect();
    let answer =
        a.call("engine::workers::register", &json!({"runtime": "node", "version": "0.23.0", "name": "a"}));
    assert_eq!(answer["result"], json!({"success": true}));
    let mut b = stage.connect();
    let answer = b.call("engine::workers::register", &json!({"name": "b", "namespace": " "}));
    assert_eq!(answer["error"]["code"], "INVALID_NAMESPACE");
}

#[test]
fn a_function_has_one_owner_unless_the_settings_say_otherwise() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    a.register("x::f");
    b.sees("x::f");
    b.register("x::f");
    let rejected = b.of_type("registrationrejected");
    assert_eq!(
        rejected,
        json!({"type": "registrationrejected", "code": "FUNCTION_NAMESPACE_CONFLICT", "namespace": "default",
            "function_id": "x::f", "owner_worker_id": a.id})
    );
    b.register("engine::mine");
    let rejected = b.of_type("registrationrejected");
    assert_eq!(
        (&rejected["function_id"], &rejected["owner_worker_id"]),
        (&json!("engine::mine"), &json!(""))
    );
    // The same worker may say it again, and who is left takes what is free.
    a.register("x::f");
    a.hears_no("registrationrejected");
    a.send(&json!({"type": "unregisterfunction", "id": "x::f"}));
    // Until then calls may still be handed to it, which does not answer.
    b.sees_no_more("x::f");
    assert_eq!(b.call("x::f", &json!({}))["error"]["code"], "function_not_found");
    b.register("x::f");
    b.sees("x::f");

    let stage = Stage::with(Config { replicas: Replicas::Share, ..Config::default() });
    let (mut a, mut b) = (stage.client("a"), stage.client("b"));
    a.register("x::f");
    b.register("x::f");
    a.hears_no("registrationrejected");
    b.hears_no("registrationrejected");
}

#[test]
fn names_are_unique_among_those_who_know_that_rule() {
    let stage = Stage::new();
    let announce = |version: &str| {
        let mut client = stage.connect();
        let said = json!({"runtime": "node", "version": version, "name": "same"});
        client.announce(said);
        client
    };
    let mut first = announce("0.23.0");
    first.register("first::f");
    first.sees("first::f");
    let mut second = announce("0.23.0");
    let rejected = second.of_type("registrationrejected");
    assert_eq!(
        rejected,
        json!({"type": "registrationrejected", "code": "WORKER_NAMESPACE_CONFLICT", "namespace": "default",
            "worker_name": "same", "owner_worker_id": first.id})
    );
    assert!(second.is_closed());
    let mut old = announce("0.22.1");
    old.register("old::f");
    old.sees("old::f");
    drop(first);
    // Free again as soon as its holder is gone.
    let until = Instant::now() + PATIENCE;
    loop {
        let mut third = announce("0.23.0");
        if third.is_welcome() {
            break;
        }
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_reattach_ends_the_connection_before() {
    let stage = Stage::new();
    let (mut other, mut old) = (stage.client("other"), stage.client("w"));
    old.register("w::f");
    other.sees("w::f");
    let mut thief = stage.connect();
    thief.send(&json!({"type": "reattach", "previous_worker_id": old.id, "reattach_token": thief.token}));
    old.hears_no("anything");
    let id = other.start(&mut json!({"function_id": "w::f", "data": 1}));
    old.of_type("invokefunction");
    let mut new = stage.connect();
    new.send(&json!({"type": "reattach", "previous_worker_id": old.id, "reattach_token": old.token}));
    new.register("w::f");
    new.announce(json!({"runtime": "node", "version": "0.22.1", "name": "w"}));
    assert!(old.is_closed());
    assert_eq!(other.result(&id)["error"]["code"], "invocation_stopped");
    new.hears_no("registrationrejected");
    let id = other.start(&mut json!({"function_id": "w::f", "data": 2}));
    new.answer(|asked| json!({"result": asked["data"]}));
    assert_eq!(other.result(&id)["result"], 2);
}

#[test]
fn a_reattach_ends_a_connection_that_never_falls_silent() {
    let stage = Stage::new();
    let old = stage.client("w");
    let MaybeTlsStream::Plain(stream) = old.socket.get_ref() else { unreachable!() };
    let mut stream = stream.try_clone().unwrap();
    // Empty texts, which are taken and ignored, faster than anybody can take them.
    let texts = [0x81, 0x80, 0, 0, 0, 0].repeat(1 << 14);
    let flood = thread::spawn(move || {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if stream.write_all(&texts).is_err() {
                return true;
            }
        }
        false
    });
    let mut new = stage.connect();
    new.send(&json!({"type": "reattach", "previous_worker_id": old.id, "reattach_token": old.token}));
    assert!(flood.join().unwrap(), "the connection before is still read from");
}

#[test]
fn many_functions_are_registered_in_order() {
    let stage = Stage::new();
    let (mut a, mut b) = (stage.connect(), stage.client("b"));
    for number in 0..1000 {
        a.register(&format!("many::f{number}"));
    }
    a.register("many::not valid");
    a.send(&json!({"type": "unregisterfunction", "id": "many::f999"}));
    a.register("many::last");
    a.announce(json!({"runtime": "node", "version": "0.22.1", "name": "a"}));
    b.sees("many::last");
    let list = b.call("engine::functions::list", &json!({"prefix": "many::"}));
    assert_eq!(list["result"]["functions"].as_array().unwrap().len(), 1000);
}
