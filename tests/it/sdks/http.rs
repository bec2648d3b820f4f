//! HTTP triggers whose functions are served by iii's SDKs: values, channels of answers, channels of bodies. It must not know
//! how requests are routed.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::channels::sum_of;
use super::stage::{Stage, until};

/// Sends a request, from a worker that has a client of HTTP.
fn fetch(stage: &Stage, method: &str, path: &str, more: &Value) -> Value {
    let mut request = json!({
        "url": format!("http://127.0.0.1:{}{path}", stage.ports.http),
        "method": method,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    stage.ask("npm022", "fetch", &request)
}

/// Binds a function to a path and waits until it is served.
fn bind(stage: &Stage, name: &str, function: &str, method: &str, path: &str) {
    let config = json!({ "api_path": path, "http_method": method });
    let binding = json!({
        "key": path, "type": "http", "function": format!("{name}::{function}"), "config": config,
    });
    stage.ask(name, "bind", &binding);
    until(&format!("{method} {path} is served"), || {
        let listed = stage
            .client
            .trigger_json("engine::registered-triggers::list", &json!({ "trigger_type": "http" }))
            .expect("the list");
        let all = listed["registered_triggers"].as_array().cloned().unwrap_or_default();
        if all.iter().any(|one| one["config"]["api_path"] == path) { Ok(()) } else { Err(listed) }
    });
}

#[test]
fn every_sdk_answers_requests() {
    let stage = Stage::new();
    for name in stage.sdks() {
        bind(&stage, name, "answer", "POST", &format!("/{name}/users/:id"));
        let json = json!({ "headers": { "content-type": "application/json" }, "body": "{\"a\":[1,null]}" });
        let answer = fetch(&stage, "POST", &format!("/{name}/users/7%20x?q=1&r=%C3%BC"), &json);
        assert_eq!(answer["status"], 201, "{name}: {answer}");
        assert_eq!(answer["headers"]["x-actor"], name, "{answer}");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).expect("JSON");
        let expected = json!({
            "name": name,
            "method": "POST",
            "path_params": { "id": "7 x" },
            "query_params": { "q": "1", "r": "\u{fc}" },
            "body": { "a": [1, null] },
        });
        assert_eq!(body, expected, "{name}");
        stage.ask(name, "unbind", &json!({ "key": format!("/{name}/users/:id") }));
    }
}

#[test]
fn every_sdk_streams_answers_and_reads_bodies() {
    let stage = Stage::new();
    for name in stage.sdks() {
        bind(&stage, name, "stream_answer", "GET", &format!("/{name}/stream"));
        let answer = fetch(&stage, "GET", &format!("/{name}/stream"), &json!({}));
        let found = (&answer["status"], &answer["headers"]["x-actor"], &answer["body"]);
        assert_eq!(found, (&json!(202), &json!(name), &json!("first,second")), "{name}: {answer}");
        bind(&stage, name, "body", "POST", &format!("/{name}/body"));
        let answer = fetch(&stage, "POST", &format!("/{name}/body"), &json!({ "pattern": 300_000 }));
        let expected = json!({ "bytes": 300_000, "sum": sum_of(300_000) });
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).expect("JSON");
        assert_eq!((&answer["status"], &body), (&json!(200), &expected), "{name}: {answer}");
    }
}

/// Those who ask may go at any time; a function that answers nobody must not end its worker.
#[test]
fn every_sdk_outlives_those_who_ask_and_go() {
    let stage = Stage::new();
    for name in stage.sdks() {
        bind(&stage, name, "stream_answer", "GET", &format!("/{name}/left"));
        let pid = stage.ask(name, "identity", &json!({}))["pid"].clone();
        for _ in 0..20 {
            let mut asking = TcpStream::connect(("127.0.0.1", stage.ports.http)).expect("a connection");
            let head = format!("GET /{name}/left HTTP/1.1\r\nhost: a\r\n\r\n");
            asking.write_all(head.as_bytes()).expect("a request is sent");
        }
        for _ in 0..3 {
            let answer = fetch(&stage, "GET", &format!("/{name}/left"), &json!({}));
            assert_eq!((&answer["status"], &answer["body"]), (&json!(202), &json!("first,second")), "{name}");
        }
        assert_eq!(stage.ask(name, "identity", &json!({}))["pid"], pid, "{name} runs on");
    }
}
