//! Functions that a client registers and somebody else serves over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use ringway::{CallError, CallOptions};
use ringway_store::{Embedded, Options};
use ringway_worker_http_functions::{Config, HttpFunctions, Security};
use serde_json::{Value, json};

use crate::observers::{called, host, newer, observe};
use crate::stage::{PATIENCE, Stage};

/// Answers each request with what it was asked.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut text, mut chunk) = (String::new(), [0; 4096]);
            while !text.contains("\r\n\r\n") || !text.ends_with('}') {
                let read = stream.read(&mut chunk).unwrap();
                text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
            }
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let answer =
                json!({"head": head, "body": serde_json::from_str::<Value>(body).unwrap()}).to_string();
            let length = answer.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
            )
            .unwrap();
        }
    });
    address
}

fn call(worker: &ringway::Worker, id: &str) -> Result<Value, CallError> {
    worker.trigger_json_with(id, &json!({"sku": "A-1"}), &CallOptions::new().timeout(PATIENCE))
}

#[test]
fn what_a_client_registers_with_an_invocation_is_asked_of_others_and_goes_with_it() {
    let (stage, address) = (Stage::new(), server());
    let native = stage.native("native");
    let mut client = stage.client("owner");
    let register = |id: &str, url: &str| {
        json!({"type": "registerfunction", "id": id, "description": "elsewhere",
            "invocation": {"url": url, "method": "POST", "headers": {"X-Own": "1"}}})
    };
    client.send(&register("orders::create", &format!("http://{address}/hook")));
    client.send(&register("orders::inside", "http://10.0.0.1/"));
    native.wait_for("orders::create", PATIENCE).unwrap();
    let error = call(&native, "orders::create").unwrap_err();
    assert!(error.message.contains("workers.http-functions"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap().0);
    let security = Security {
        require_https: false,
        addresses_allowed: vec!["127.0.0.1".to_owned()],
        ..Security::default()
    };
    let _outbound =
        HttpFunctions::start(stage.engine.address(), store, Config { security, ..Config::default() })
            .unwrap();
    native.wait_for("http-functions::call", PATIENCE).unwrap();
    let until = Instant::now() + PATIENCE;
    let answer = loop {
        match call(&native, "orders::create") {
            Ok(answer) => break answer,
            // The listener may hear of the worker a little later.
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    assert_eq!(answer["body"], json!({"sku": "A-1"}));
    let head = answer["head"].as_str().unwrap().to_ascii_lowercase();
    assert!(
        head.starts_with("post /hook")
            && head.contains("x-own: 1")
            && head.contains("x-iii-function-path: orders::create")
    );
    let error = call(&native, "orders::inside").unwrap_err();
    assert_eq!(error.user_code.as_deref(), Some("url_validation_failed"), "{error}");

    // Clients are asked by each other without a way round; this one is not to be asked.
    let mut other = stage.client("other");
    for caller in [&mut other, &mut client] {
        for _ in 0..3 {
            let answer = caller.call("orders::create", &json!({"sku": "B-2"}));
            assert_eq!(answer["result"]["body"]["sku"], "B-2", "{answer}");
        }
    }

    // Whoever observes it is told as of any other function.
    let mut watcher = newer(&stage, "watcher");
    host(&mut watcher, "watcher::note", json!({}));
    let source = json!({"function_id": "orders::create", "filters": {"input.sku": {"$eq": "C-3"}}});
    let observed = observe(&mut watcher, "O", source, "watcher::note", json!({}));
    assert_eq!(observed["state"], "active", "{observed}");
    assert_eq!(other.call("orders::create", &json!({"sku": "C-3"}))["result"]["body"]["sku"], "C-3");
    let told = called(&mut watcher, "watcher::note", json!({}));
    assert_eq!(
        (&told["data"]["input"], &told["data"]["output"]["body"]["sku"]),
        (&json!({"sku": "C-3"}), &json!("C-3"))
    );
    assert_eq!(told["data"]["caller"]["worker_name"], "other", "{told}");

    drop(client);
    assert!(native.wait_until(PATIENCE, |catalog| {
        !catalog.functions.iter().any(|function| function.id.as_str() == "orders::create")
    }));
}
