//! Requests with an `Idempotency-Key` are made once.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};

use ringway::Failure;
use ringway_worker_bed::NOW_MS;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::stage::{Got, Stage, counter};

fn ask(stage: &Stage, key: &str, body: &Value) -> Got {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    stage.ask("POST", "/pay", &headers, body.to_string().as_bytes())
}

fn paying() -> (Stage, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let stage = Stage::new();
    let calls = counter();
    let seen = calls.clone();
    stage.function("test::pay", move |_, told| {
        let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
        match told["body"]["fail"].as_bool() {
            Some(true) => Err(Failure::new("no")),
            _ => Ok(json!({"status_code": 201, "headers": {"x-number": number}, "body": {"number": number}})),
        }
    });
    stage.bind(
        "test::pay",
        json!({"api_path": "/pay", "http_method": "POST", "idempotency": {"keep_seconds": 60}}),
    );
    (stage, calls)
}

#[test]
fn the_same_request_is_answered_again_without_a_call() {
    let (mut stage, calls) = paying();
    let first = ask(&stage, "k1", &json!({"amount": 1}));
    assert_eq!(
        (first.status, first.json(), first.header("idempotency-replayed")),
        (201, json!({"number": 1}), None)
    );
    let again = ask(&stage, "\"k1\"", &json!({"amount": 1}));
    assert_eq!(
        (again.status, again.json(), again.header("x-number")),
        (201, json!({"number": 1}), Some("1"))
    );
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(
        ask(&stage, "k1", &json!({"amount": 2})).problem(),
        (422, "idempotency_key_reused".to_owned())
    );
    assert_eq!(ask(&stage, "k2", &json!({"amount": 1})).json(), json!({"number": 2}));
    assert_eq!(stage.post("/pay", &json!({"amount": 1})).json(), json!({"number": 3}));
    // It is remembered over a restart, and as long as was said.
    stage.bed().restart();
    stage.wait_until("the route is bound again", || stage.get("/pay").status == 405);
    assert_eq!(ask(&stage, "k1", &json!({"amount": 1})).json(), json!({"number": 1}));
    stage.clock.set(NOW_MS + 60_001);
    assert_eq!(ask(&stage, "k1", &json!({"amount": 1})).json(), json!({"number": 4}));
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[test]
fn a_request_that_failed_may_be_made_again() {
    let (stage, calls) = paying();
    assert_eq!(ask(&stage, "k", &json!({"fail": true})).status, 500);
    assert_eq!(ask(&stage, "k", &json!({"fail": true})).status, 500);
    assert_eq!(ask(&stage, "k", &json!({})).status, 201);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(
        ask(&stage, &"k".repeat(256), &json!({})).problem(),
        (400, "idempotency_key_invalid".to_owned())
    );
}

#[test]
fn a_second_one_waits_for_the_first_whose_client_may_go() {
    let stage = Stage::new();
    let (go_on, told) = mpsc::channel::<()>();
    let (arrived, arrivals) = mpsc::channel();
    let (told, arrived) = (Mutex::new(told), Mutex::new(arrived));
    stage.function("test::pay", move |_, _| {
        arrived.lock().unwrap().send(()).unwrap();
        told.lock().unwrap().recv().unwrap();
        Ok(json!("paid"))
    });
    let idempotency = json!({"required": true, "keep_seconds": 1});
    let config = json!({"api_path": "/pay", "http_method": "POST", "idempotency": idempotency});
    stage.bind("test::pay", config);
    assert_eq!(stage.post("/pay", &json!(1)).problem().0, 400);
    let mut client = Raw::open(&stage.address());
    client.write("POST /pay HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nidempotency-key: k\r\ncontent-length: 1\r\n\r\n1");
    arrivals.recv().unwrap();
    // It is known for as long as it may go on, however short answers are kept.
    stage.clock.set(NOW_MS + 5_000);
    let second = ask(&stage, "k", &json!(1));
    assert_eq!(second.problem(), (409, "idempotency_in_flight".to_owned()));
    assert_eq!(second.header("retry-after"), Some("1"));
    drop(client);
    go_on.send(()).unwrap();
    stage.wait_until("the answer is kept", || ask(&stage, "k", &json!(1)).status == 200);
    let kept = ask(&stage, "k", &json!(1));
    assert_eq!((kept.json(), kept.header("idempotency-replayed")), (json!("paid"), Some("true")));
}

#[test]
fn a_function_with_streams_is_called_once_too() {
    let stage = Stage::new();
    let calls = counter();
    let seen = calls.clone();
    let pay = move |_: &ringway::Context, _, _, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        ringway::Message::json(&json!("paid"))
    };
    stage.client.register(ringway::Function::stream("test::pay", pay)).unwrap();
    let config = json!({"api_path": "/pay", "http_method": "POST", "idempotency": {"required": true}});
    stage.bind("test::pay", config);
    assert_eq!(stage.post("/pay", &json!(1)).problem(), (400, "idempotency_key_invalid".to_owned()));
    let answers = [ask(&stage, "k", &json!(1)), ask(&stage, "k", &json!(1))];
    assert_eq!(answers.map(|got| (got.status, got.json())), [(200, json!("paid")), (200, json!("paid"))]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
