//! What is sent, and what becomes of what is answered.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ringway::{CallOptions, TraceContext};
use ringway_worker_bed::PATIENCE;
use ringway_worker_http_functions::{Config, Resolver};
use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::{Answer, Server};
use crate::stage::{call, environment, local, register, stage, stage_with};

#[test]
fn a_call_is_a_request_and_the_response_its_result() {
    let server = Server::start(|_, seen| Answer::new("200 OK", &json!({"echo": seen.json()}).to_string()));
    let stage = stage(local());
    let invocation = json!({"url": server.url("/hooks/a?b=c"), "headers": {"X-Own": "yes", "Content-Type": "application/x+json"}});
    register(&stage, "mail::send", invocation);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut baggage = ringway::Baggage::default();
    baggage.set("tenant", "acme").unwrap();
    let options = CallOptions::new()
        .timeout(PATIENCE)
        .parent(TraceContext::parse_traceparent(trace).unwrap())
        .baggage(baggage);
    let answer =
        stage.client.trigger_json_with("mail::send", &json!({"to": "x", "n": [1, 2.5]}), &options).unwrap();
    assert_eq!(answer, json!({"echo": {"to": "x", "n": [1, 2.5]}}));
    let seen = server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/hooks/a?b=c"));
    let header = |name: &str| seen.headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!((header("content-type"), header("x-own")), ("application/x+json", "yes"));
    assert_eq!((header("x-iii-function-path"), header("baggage")), ("mail::send", "tenant=acme"));
    assert_eq!(header("x-iii-invocation-id").len(), 36);
    assert_eq!(header("x-iii-trace-id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{seen:?}");
    assert_ne!(header("traceparent"), trace, "it is under the span of the call");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(header("x-iii-timestamp").parse().unwrap()) < 60);
    assert_eq!(header("host"), server.address.to_string());
}

#[test]
fn every_method_is_spoken() {
    let server =
        Server::start(|_, seen| Answer::new("200 OK", &json!([seen.method, seen.json()]).to_string()));
    let stage = stage(local());
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        register(&stage, &format!("x::{method}"), json!({"url": server.url("/"), "method": method}));
        assert_eq!(call(&stage, &format!("x::{method}"), &json!({"a": 1})), Ok(json!([method, {"a": 1}])));
    }
    assert!(
        stage
            .try_call(
                "register",
                json!({"function_id": "x", "invocation": {"url": server.url("/"), "method": "BREW"}})
            )
            .is_err()
    );
}

#[test]
fn fields_go_into_the_query_where_that_is_asked_for() {
    let server =
        Server::start(|_, seen| Answer::new("200 OK", &json!([seen.path, seen.body.len()]).to_string()));
    let stage = stage(local());
    register(&stage, "x::get", json!({"url": server.url("/find?v=1"), "method": "GET", "query": true}));
    let input =
        json!({"q": "a b&c", "n": 5, "tags": ["x", "y"], "none": null, "_caller_worker_id": "secret"});
    assert_eq!(call(&stage, "x::get", &input), Ok(json!(["/find?v=1&q=a+b%26c&n=5&tags=x&tags=y", 0])));
    assert_eq!(call(&stage, "x::get", &Value::Null), Ok(json!(["/find?v=1", 0])));
    assert_eq!(call(&stage, "x::get", &json!("text")).unwrap_err().0, "invalid_request");
}

#[test]
fn whoever_asks_proves_it() {
    let server = Server::start(|_, _| Answer::new("204 No Content", ""));
    let stage = stage(local());
    let url = server.url("/");
    register(&stage, "x::hmac", json!({"url": url, "auth": {"type": "hmac", "secret_key": "HOOK_SECRET"}}));
    register(&stage, "x::bearer", json!({"url": url, "auth": {"type": "bearer", "token_key": "HOOK_TOKEN"}}));
    register(
        &stage,
        "x::key",
        json!({"url": url, "auth": {"type": "api_key", "header": "X-Api-Key", "value_key": "HOOK_TOKEN"}}),
    );
    for id in ["x::hmac", "x::bearer", "x::key"] {
        assert_eq!(call(&stage, id, &json!({"a": 1})), Ok(Value::Null));
    }
    let seen = server.seen();
    let text = format!("{}:{}", seen[0].headers["x-iii-timestamp"], STANDARD.encode(&seen[0].body));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
    let signature = seen[0].headers["x-iii-signature"].strip_prefix("sha256=").unwrap();
    let tag: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    hmac::verify(&key, text.as_bytes(), &tag).expect("the signature is of time and body");
    assert_eq!(seen[1].headers["authorization"], "Bearer t0ken");
    assert_eq!(seen[2].headers["x-api-key"], "t0ken");
    // The secret itself is in no answer.
    assert!(!stage.call("list", json!({})).to_string().contains("s3cret"));
}

#[test]
fn what_is_no_json_is_said_and_nothing_is_nothing() {
    let server = Server::start(|_, seen| match seen.path.as_str() {
        "/empty" => Answer::new("200 OK", ""),
        "/text" => Answer::new("200 OK", "hello"),
        "/found" => Answer::with("302 Found", "Location: http://127.0.0.1:1/\r\n", "elsewhere"),
        "/same" => Answer::new("304 Not Modified", ""),
        _ => Answer::new("201 Created", "\"made\""),
    });
    let stage = stage(local());
    let check = |path: &str, expected: Result<Value, &str>| {
        register(&stage, "x::y", json!({"url": server.url(path)}));
        let found = call(&stage, "x::y", &json!({}));
        assert_eq!(
            found.as_ref().map_err(|error| error.0.as_str()),
            expected.as_ref().map_err(|code| *code),
            "{path}"
        );
    };
    check("/empty", Ok(Value::Null));
    check("/text", Err("invalid_response"));
    check("/found", Ok(Value::Null));
    check("/same", Ok(Value::Null));
    check("/made", Ok(json!("made")));
}

#[test]
fn tls_is_spoken_with_those_who_are_who_they_say() {
    let made = rcgen::generate_simple_self_signed(vec!["hooks.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = Server::start_at("127.0.0.1:0", Some(Arc::new(tls)), |_, _| Answer::new("200 OK", "1"));
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, made.cert.pem()).unwrap();
    let here = Resolver::new(|_| async { Ok(vec!["127.0.0.1".parse().unwrap()]) });
    let secure = |roots: Option<String>| {
        let mut config = Config { roots, ..local() };
        config.security.require_https = true;
        stage_with(config, environment(), here.clone())
    };
    let trusting = secure(Some(roots.display().to_string()));
    let port = server.address.port();
    register(&trusting, "x::right", json!({"url": format!("https://hooks.test:{port}/")}));
    register(&trusting, "x::wrong", json!({"url": format!("https://other.test:{port}/")}));
    assert_eq!(call(&trusting, "x::right", &json!({})), Ok(json!(1)));
    let (code, text) = call(&trusting, "x::wrong", &json!({})).unwrap_err();
    assert_eq!(code, "http_request_failed");
    assert!(text.contains("TLS") && text.contains("other.test"), "{text}");
    let strict = secure(None);
    register(&strict, "x::right", json!({"url": format!("https://hooks.test:{port}/")}));
    assert_eq!(call(&strict, "x::right", &json!({})).unwrap_err().0, "http_request_failed");
    assert_eq!(server.seen().len(), 1, "nothing was asked of whom nobody trusts");
}
