//! Who may ask, how often, and what is asked before and after.

use std::sync::atomic::Ordering;

use ring::hmac;
use ringway::{Failure, HandlerResult};
use serde_json::{Value, json};

use crate::stage::{Stage, counter};

fn hello() -> HandlerResult<Value> {
    Ok(json!("hello"))
}

#[test]
fn keys_tokens_and_passwords_let_in_who_has_them() {
    let stage = Stage::with(json!({"auth": {"schemes": {
        "key": {"kind": "api_key", "keys": {"k": "key-0123456789"}, "query": "key"},
        "token": {"kind": "bearer", "tokens": {"t": "token-0123456789"}},
        "name": {"kind": "basic", "users": {"me": "password-0123"}},
    }}}));
    stage.function("test::who", |_, told| Ok(json!({"status_code": 200, "body": told["auth"]})));
    stage.bind("test::who", json!({"api_path": "/any", "auth": ["key", "token", "name"]}));
    stage.bind("test::who", json!({"api_path": "/key", "auth": "key"}));
    let who = |path: &str, headers: &[(&str, &str)]| {
        let got = stage.ask("GET", path, headers, b"");
        (got.status, got.json()["subject"].as_str().map(str::to_owned))
    };
    let let_in = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(who("/any", &[("x-api-key", "key-0123456789")]), let_in("k"));
    assert_eq!(who("/any?key=key-0123456789", &[]), let_in("k"));
    assert_eq!(who("/any", &[("authorization", "Bearer token-0123456789")]), let_in("t"));
    assert_eq!(who("/any", &[("authorization", "Basic bWU6cGFzc3dvcmQtMDEyMw==")]), let_in("me"));
    for (path, headers) in [
        ("/any", &[][..]),
        ("/any", &[("x-api-key", "token-0123456789")]),
        ("/key", &[("authorization", "Bearer token-0123456789")]),
        ("/key?key=key-0123456789&key=x", &[]),
        ("/any", &[("authorization", "Bearer token-0123456789"), ("authorization", "Bearer other")]),
    ] {
        let got = stage.ask("GET", path, headers, b"");
        assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{path} {headers:?}");
        assert!(got.header("www-authenticate").is_some());
    }
}

#[test]
fn a_function_decides_who_comes_in_and_fails_closed() {
    let stage = Stage::with(json!({"auth": {
        "schemes": {"ask": {"kind": "function", "function_id": "test::door"}}, "default": ["ask"],
    }}));
    stage.function("test::door", |_, told| match told["headers"]["x-who"].as_str() {
        Some("error") => Err(Failure::new("no")),
        Some("yes") => Ok(json!(true)),
        Some(who) => Ok(json!({"subject": who, "role": "admin"})),
        None => Ok(Value::Null),
    });
    stage
        .serve("GET", "/", |_, told| Ok(json!({"status_code": 200, "body": told["auth"]["claims"]["role"]})));
    let status = |who: &str| stage.ask("GET", "/", &[("x-who", who)], b"").status;
    assert_eq!((status("me"), status("error"), status("yes"), status("")), (200, 401, 401, 401));
    assert_eq!(stage.get("/").status, 401);
    assert_eq!(stage.ask("GET", "/", &[("x-who", "me")], b"").json(), "admin");
    stage.function("test::open", |_, _| hello());
    stage.bind("test::open", json!({"api_path": "/open", "auth": false}));
    assert_eq!(stage.get("/open").status, 200);
}

#[test]
fn whoever_asks_too_often_is_told_when_to_come_again() {
    let stage = Stage::new();
    stage.function("test::f", |_, _| hello());
    stage.bind("test::f", json!({"api_path": "/r", "rate": {"requests": 2, "per_ms": 3_600_000}}));
    stage.bind("test::f", json!({"api_path": "/other"}));
    assert_eq!((stage.get("/r").status, stage.get("/r").status), (200, 200));
    let refused = stage.get("/r");
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
    assert_eq!(stage.get("/other").status, 200);
}

#[test]
fn so_many_are_served_at_a_time() {
    let stage = Stage::new();
    let (inside, go_on) = std::sync::mpsc::channel();
    let go_on = std::sync::Mutex::new(go_on);
    let (arrived, arrivals) = std::sync::mpsc::channel();
    stage.function("test::slow", move |_, _| {
        arrived.send(()).unwrap();
        go_on.lock().unwrap().recv().unwrap();
        hello()
    });
    stage.bind("test::slow", json!({"api_path": "/slow", "concurrency_max": 1}));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| stage.get("/slow"));
        arrivals.recv().unwrap();
        let refused = stage.get("/slow");
        assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
        assert_eq!(refused.header("retry-after"), Some("1"));
        inside.send(()).unwrap();
        assert_eq!(first.join().unwrap().status, 200);
    });
    inside.send(()).unwrap();
    assert_eq!(stage.get("/slow").status, 200);
}

#[test]
fn a_function_that_takes_too_long_is_given_up_and_told() {
    let stage = Stage::new();
    let cancelled = counter();
    let seen = cancelled.clone();
    stage
        .client
        .register(ringway::Function::json_async("test::slow", move |context: ringway::Context, _: Value| {
            let seen = seen.clone();
            async move {
                struct Note(std::sync::Arc<std::sync::atomic::AtomicU64>);
                impl Drop for Note {
                    fn drop(&mut self) {
                        self.0.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let _note = Note(seen);
                context.cancel_token().cancelled().await;
                Ok(json!(null))
            }
        }))
        .unwrap();
    stage.bind("test::slow", json!({"api_path": "/slow", "timeout_ms": 50}));
    stage.bind("test::slow", json!({"api_path": "/left", "timeout_ms": 600_000}));
    assert_eq!(stage.get("/slow").problem(), (504, "deadline_exceeded".to_owned()));
    stage.wait_until("the function hears that its time is over", || cancelled.load(Ordering::Relaxed) == 1);
    let mut raw = crate::raw::Raw::open(&stage.address());
    raw.write("GET /left HTTP/1.1\r\nhost: a\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(raw);
    stage
        .wait_until("the function hears that its client has gone", || cancelled.load(Ordering::Relaxed) == 2);
}

#[test]
fn middleware_stands_before_and_behind_and_fails_closed() {
    let stage = Stage::with(json!({"middleware": [
        {"function_id": "mw::second", "priority": 2},
        {"function_id": "mw::first", "priority": 1},
        {"function_id": "mw::after", "phase": "postHandler"},
    ]}));
    stage.function("mw::first", |_, told| {
        assert_eq!((&told["phase"], &told["context"]), (&json!("preHandler"), &json!({})));
        match told["request"]["headers"]["x-way"].as_str() {
            Some("stop") => Ok(json!({"action": "respond", "response": {"status_code": 418, "body": "tea"}})),
            Some("fail") => Err(Failure::new("no")),
            Some("odd") => Ok(json!({"action": "whatever"})),
            Some("null") => Ok(Value::Null),
            _ => Ok(json!({"action": "continue", "context": {"first": 1}})),
        }
    });
    stage.function("mw::second", |_, told| {
        Ok(json!({"action": "continue", "context": {"second": told["context"]["first"].as_u64().unwrap() + 1}}))
    });
    stage.function("mw::after", |_, told| {
        assert_eq!(told["phase"], "postHandler");
        let body = json!({"was": told["response"]["body"]});
        Ok(json!({"action": "continue", "response": {"status_code": 202, "body": body}}))
    });
    let calls = counter();
    let seen = calls.clone();
    stage.serve("GET", "/", move |_, told| {
        seen.fetch_add(1, Ordering::Relaxed);
        Ok(told["context"].clone())
    });
    let got = stage.get("/");
    assert_eq!((got.status, got.json()), (202, json!({"was": {"first": 1, "second": 2}})));
    let status = |way: &str| stage.ask("GET", "/", &[("x-way", way)], b"").status;
    assert_eq!((status("stop"), status("fail"), status("odd"), status("null")), (418, 500, 500, 500));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn conditions_hold_requests_back() {
    let stage = Stage::new();
    stage.echo();
    stage
        .bind("test::echo", json!({"api_path": "/c", "http_method": "POST", "condition": "body.amount > 5"}));
    assert_eq!(stage.post("/c", &json!({"amount": 6})).status, 200);
    let refused = stage.post("/c", &json!({"amount": 5}));
    assert_eq!(refused.problem(), (422, "CONDITION_NOT_MET".to_owned()));
    assert_eq!(refused.json()["skipped"], true);
    assert_eq!(stage.post("/c", &json!({"amount": "x"})).problem().0, 500);
}

#[test]
fn webhooks_are_taken_from_who_signed_them() {
    let stage = Stage::new();
    stage.echo();
    let secret = "a secret of some length";
    let webhook = json!({"scheme": "github", "secret": secret});
    stage.bind("test::echo", json!({"api_path": "/hook", "http_method": "POST", "webhook": webhook}));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), b"{\"a\":1}");
    let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("sha256={tag}");
    let headers = [("content-type", "application/json"), ("x-hub-signature-256", tag.as_str())];
    assert_eq!(stage.ask("POST", "/hook", &headers, b"{\"a\":1}").status, 200);
    assert_eq!(
        stage.ask("POST", "/hook", &headers, b"{\"a\":2}").problem(),
        (401, "signature_invalid".to_owned())
    );
    assert_eq!(stage.ask("POST", "/hook", &headers[..1], b"{\"a\":1}").problem().0, 401);
}

#[test]
fn pages_of_other_origins_ask_where_they_may() {
    let stage = Stage::with(json!({"cors": {"origins": ["https://app.example"], "credentials": true}}));
    stage.serve("PUT", "/c", |_, _| hello());
    stage.function("test::open", |_, _| hello());
    stage.bind("test::open", json!({"api_path": "/open", "cors": {"origins": ["*"]}}));
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "PUT")];
    let got = stage.ask("OPTIONS", "/c", &preflight, b"");
    assert_eq!((got.status, got.header("access-control-allow-origin")), (204, Some("https://app.example")));
    assert_eq!(got.header("access-control-allow-methods"), Some("PUT, OPTIONS"));
    let evil = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    assert_eq!(stage.ask("OPTIONS", "/c", &evil, b"").header("access-control-allow-origin"), None);
    let got = stage.ask("PUT", "/c", &preflight[..1], b"");
    assert_eq!((got.status, got.header("access-control-allow-credentials")), (200, Some("true")));
    // Errors are read by pages too.
    let got = stage.ask("GET", "/c", &preflight[..1], b"");
    assert_eq!((got.status, got.header("access-control-allow-origin")), (405, Some("https://app.example")));
    assert_eq!(stage.ask("GET", "/open", &evil[..1], b"").header("access-control-allow-origin"), Some("*"));
}
