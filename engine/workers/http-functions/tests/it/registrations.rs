//! Which functions there are, and for how long.

use std::collections::BTreeMap;

use ringway::{CallOptions, Function, Worker};
use ringway_store::{Embedded, Options};
use ringway_worker_bed::PATIENCE;
use ringway_worker_http_functions::{Config, HttpFunctions, Invocation};
use serde_json::{Value, json};

use crate::server::{Answer, Server};
use crate::stage::{call, local, register, stage};

fn server() -> Server {
    Server::start(|_, seen| Answer::new("200 OK", &format!("{:?}", seen.path)))
}

fn ids(stage: &crate::stage::Stage) -> Vec<String> {
    let listed = stage.call("list", json!({}));
    let ids = listed["functions"].as_array().unwrap().iter();
    ids.map(|function| function["function_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_to_stay_stays_over_a_restart() {
    let server = server();
    let mut stage = stage(local());
    register(&stage, "x::stays", json!({"url": server.url("/1")}));
    let passing =
        json!({"function_id": "x::goes", "invocation": {"url": server.url("/2")}, "durable": false});
    stage.call("register", passing);
    assert_eq!(ids(&stage), ["x::goes", "x::stays"]);
    stage.restart();
    stage.client.wait_for("x::stays", PATIENCE).unwrap();
    assert_eq!(ids(&stage), ["x::stays"]);
    assert_eq!(call(&stage, "x::stays", &json!({})), Ok(json!("/1")));
    assert_eq!(stage.call("unregister", json!({"function_id": "x::stays"})), json!({"removed": true}));
    assert_eq!(stage.call("unregister", json!({"function_id": "x::stays"})), json!({"removed": false}));
    stage.restart();
    assert!(ids(&stage).is_empty());
    assert_eq!(call(&stage, "x::stays", &json!({})).unwrap_err().0, "not_found");
}

#[test]
fn the_last_registration_counts() {
    let server = server();
    let mut stage = stage(local());
    for path in ["/1", "/2", "/3"] {
        register(&stage, "x::y", json!({"url": server.url(path)}));
        assert_eq!(call(&stage, "x::y", &json!({})), Ok(json!(path)));
    }
    // What does not stay any more is gone with the next start.
    stage.call(
        "register",
        json!({"function_id": "x::y", "invocation": {"url": server.url("/4")}, "durable": false}),
    );
    stage.restart();
    assert!(ids(&stage).is_empty());
}

#[test]
fn whoever_registers_hears_what_is_wrong() {
    let stage = stage(local());
    let check = |invocation: Value, code: &str, words: &str| {
        let (found, error) =
            stage.refusal("register", json!({"function_id": "x::y", "invocation": invocation}));
        assert_eq!(found, code, "{invocation}: {error}");
        assert!(error.message.contains(words), "{invocation}: {error}");
    };
    let url = "http://127.0.0.1:1/";
    check(
        json!({"url": url, "auth": {"type": "bearer", "token_key": "NOT_THERE"}}),
        "missing_env_var",
        "NOT_THERE",
    );
    check(json!({"url": url, "headers": {"Content-Length": "5"}}), "invalid_registration", "content-length");
    check(json!({"url": url, "headers": {"a b": "5"}}), "invalid_registration", "a b");
    check(json!({"url": url, "headers": {"a": "x\r\nb: c"}}), "invalid_registration", "line breaks");
    check(json!({"url": url, "retries": 11}), "invalid_registration", "retries");
    check(json!({"url": url, "timeout_ms": 0}), "invalid_registration", "timeout_ms");
    check(json!({"url": url, "auth": {"type": "guess"}}), "invalid_request", "guess");
    check(json!({}), "invalid_request", "url");
    let owner = stage.another("owner");
    owner.register(Function::json("x::taken", |_, _: Value| Ok(1))).unwrap();
    stage.client.wait_for("x::taken", PATIENCE).unwrap();
    let (code, error) =
        stage.refusal("register", json!({"function_id": "x::taken", "invocation": {"url": url}}));
    assert_eq!(code, "registration_conflict", "{error}");
    assert!(ids(&stage).is_empty());
}

#[test]
fn namespaces_keep_functions_apart() {
    let server = server();
    let stage = stage(local());
    for namespace in ["blue", "green"] {
        let invocation = json!({"url": server.url(&format!("/{namespace}"))});
        stage.call(
            "register",
            json!({"function_id": "x::y", "namespace": namespace, "invocation": invocation}),
        );
        let client = Worker::builder("c").address(&stage.address).namespace(namespace).connect().unwrap();
        client.wait_for("x::y", PATIENCE).unwrap();
        assert_eq!(client.trigger_json("x::y", &json!({})).unwrap(), json!(format!("/{namespace}")));
    }
    assert_eq!(
        stage.call("unregister", json!({"function_id": "x::y", "namespace": "blue"})),
        json!({"removed": true})
    );
    assert_eq!(ids(&stage).len(), 1);
}

#[test]
fn functions_of_the_settings_are_there_and_stay() {
    let server = server();
    let invocation: Invocation = serde_json::from_value(json!({"url": server.url("/fixed")})).unwrap();
    let functions = BTreeMap::from([("x::fixed".to_owned(), invocation)]);
    let stage = stage(Config { functions, ..local() });
    assert_eq!(call(&stage, "x::fixed", &json!({})), Ok(json!("/fixed")));
    for (function, request) in [
        ("unregister", json!({"function_id": "x::fixed"})),
        ("register", json!({"function_id": "x::fixed", "invocation": {"url": server.url("/other")}})),
    ] {
        assert_eq!(stage.refusal(function, request).0, "forbidden");
    }
}

#[test]
fn a_call_may_bring_its_own_invocation() {
    let server = server();
    let stage = stage(local());
    let call = |metadata: Value| {
        let options = CallOptions::new().timeout(PATIENCE).metadata(metadata);
        let called = stage.client.trigger_json_with("http-functions::call", &json!({"a": 1}), &options);
        called.map_err(|error| error.user_code.unwrap_or_else(|| error.code.to_string()))
    };
    assert_eq!(
        call(json!({"function_id": "x::y", "invocation": {"url": server.url("/once")}})),
        Ok(json!("/once"))
    );
    assert_eq!(server.seen()[0].headers["x-iii-function-path"], "x::y");
    assert_eq!(server.seen()[0].json(), json!({"a": 1}));
    let inside = json!({"function_id": "x::y", "invocation": {"url": "http://10.0.0.1/"}});
    assert_eq!(call(inside), Err("url_validation_failed".to_owned()));
    assert_eq!(call(json!({})), Err("invalid_request".to_owned()));
    assert!(ids(&stage).is_empty());
}

#[test]
fn settings_that_cannot_be_obeyed_keep_it_from_starting() {
    let stage = stage(local());
    let start = |config: Config| {
        let folder = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Embedded::open(folder.path(), Options::default()).unwrap().0);
        HttpFunctions::start(&stage.address, store, config).unwrap_err().to_string()
    };
    let mut wrong = local();
    wrong.security.addresses_allowed.push("everywhere".to_owned());
    assert!(start(wrong).contains("everywhere"));
    let invocation: Invocation = serde_json::from_value(json!({"url": "ftp://x/"})).unwrap();
    let wrong = Config { functions: BTreeMap::from([("x::y".to_owned(), invocation)]), ..local() };
    assert!(start(wrong).contains("x::y"));
    assert!(start(Config { roots: Some("/nowhere.pem".to_owned()), ..local() }).contains("/nowhere.pem"));
}
