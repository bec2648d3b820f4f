//! What goes wrong over there, and when it is tried again.

use std::time::{Duration, Instant};

use ringway::{CallOptions, ErrorCode};
use ringway_worker_http_functions::Config;
use serde_json::json;

use crate::server::{Answer, Server, silent};
use crate::stage::{call, local, register, stage};

#[test]
fn errors_keep_what_the_other_side_says() {
    let server = Server::start(|_, seen| match seen.path.as_str() {
        "/said" => Answer::new(
            "422 Unprocessable Entity",
            r#"{"error": {"code": "NO_STOCK", "message": "none left"}}"#,
        ),
        "/half" => Answer::new("400 Bad Request", r#"{"error": {"code": 17}}"#),
        "/other" => Answer::new("500 Internal Server Error", r#"{"oops": true}"#),
        _ => Answer::new("404 Not Found", "<html>"),
    });
    let stage = stage(local());
    let check = |path: &str, code: &str, message: &str| {
        register(&stage, "x::y", json!({"url": server.url(path), "retries": 0}));
        let error = call(&stage, "x::y", &json!({})).unwrap_err();
        assert_eq!((error.0.as_str(), error.1.as_str()), (code, message), "{path}");
    };
    check("/said", "NO_STOCK", "none left");
    check("/half", "17", "HTTP request failed");
    check("/other", "http_error", "HTTP 500 Internal Server Error");
    check("/none", "http_error", "HTTP 404 Not Found");
}

#[test]
fn only_what_does_no_harm_is_tried_again() {
    let flaky = |status: &'static str| {
        Server::start(
            move |number, _| if number < 3 { Answer::new(status, "") } else { Answer::new("200 OK", "7") },
        )
    };
    let stage = stage(local());
    let check = |status: &'static str, extra: serde_json::Value, attempts: usize| {
        let server = flaky(status);
        let mut invocation = json!({"url": server.url("/")});
        for (key, value) in extra.as_object().unwrap() {
            invocation[key] = value.clone();
        }
        register(&stage, "x::y", invocation);
        let found = call(&stage, "x::y", &json!({}));
        assert_eq!(server.seen().len(), attempts, "{status} {extra}");
        assert_eq!(found.is_ok(), attempts == 3, "{status} {extra}: {found:?}");
    };
    check("503 Service Unavailable", json!({"method": "GET"}), 3);
    check("502 Bad Gateway", json!({"method": "PUT"}), 3);
    check("504 Gateway Timeout", json!({"method": "DELETE"}), 3);
    check("429 Too Many Requests", json!({"idempotent": true}), 3);
    check("503 Service Unavailable", json!({"method": "GET", "retries": 1}), 2);
    check("503 Service Unavailable", json!({"method": "GET", "retries": 0}), 1);
    check("503 Service Unavailable", json!({}), 1);
    check("503 Service Unavailable", json!({"method": "PATCH"}), 1);
    check("500 Internal Server Error", json!({"method": "GET"}), 1);
}

#[test]
fn a_time_that_nobody_can_wait_ends_the_attempts() {
    let server = Server::start(|_, _| {
        Answer::with("503 Service Unavailable", &format!("retry-after: {}\r\n", u64::MAX), "")
    });
    let stage = stage(local());
    register(&stage, "x::y", json!({"url": server.url("/"), "method": "GET"}));
    let (code, text) = call(&stage, "x::y", &json!({})).unwrap_err();
    assert_eq!((code.as_str(), text.as_str()), ("http_error", "HTTP 503 Service Unavailable"));
    assert_eq!(server.seen().len(), 1);
    let refused =
        json!({"function_id": "x::z", "invocation": {"url": server.url("/"), "timeout_ms": u64::MAX}});
    let error = stage.client.trigger_json("http-functions::register", &refused).unwrap_err();
    assert!(error.message.contains("timeout_ms"), "{error}");
}

#[test]
fn a_connection_that_breaks_may_have_done_it() {
    let broken = || {
        Server::start(|number, _| if number < 3 { Answer(String::new()) } else { Answer::new("200 OK", "7") })
    };
    let stage = stage(local());
    let server = broken();
    register(&stage, "x::post", json!({"url": server.url("/")}));
    assert_eq!(call(&stage, "x::post", &json!({})).unwrap_err().0, "http_request_failed");
    assert_eq!(server.seen().len(), 1);
    let server = broken();
    register(&stage, "x::get", json!({"url": server.url("/"), "method": "GET"}));
    assert_eq!(call(&stage, "x::get", &json!({})), Ok(json!(7)));
}

#[test]
fn nobody_there_is_tried_again_and_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stage = stage(local());
    register(&stage, "x::y", json!({"url": format!("http://{free}/secret-path")}));
    let begun = Instant::now();
    let (code, text) = call(&stage, "x::y", &json!({})).unwrap_err();
    assert_eq!(code, "http_request_failed");
    assert!(text.contains(&free.to_string()) && !text.contains("secret-path"), "{text}");
    assert!(begun.elapsed() >= Duration::from_millis(100), "there were pauses between attempts");
}

#[test]
fn time_runs_out() {
    let (address, held) = silent();
    let stage = stage(local());
    register(
        &stage,
        "x::y",
        json!({"url": format!("http://{address}/"), "timeout_ms": 150, "method": "GET"}),
    );
    let (code, text) = call(&stage, "x::y", &json!({})).unwrap_err();
    assert_eq!(code, "http_request_failed");
    assert!(text.contains("150 ms"), "{text}");
    // The caller's own time counts too, and with it ends the request.
    register(&stage, "x::z", json!({"url": format!("http://{address}/")}));
    let options = CallOptions::new().timeout(Duration::from_millis(100));
    let error = stage.client.trigger_json_with("x::z", &json!({}), &options).unwrap_err();
    assert!(matches!(error.code, ErrorCode::DeadlineExceeded | ErrorCode::HandlerError), "{error}");
    stage.wait_until("the requests are ended", || {
        held.lock().unwrap().iter().all(|stream| {
            stream.set_nonblocking(true).unwrap();
            let mut bytes = [0; 4096];
            loop {
                match std::io::Read::read(&mut &*stream, &mut bytes) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            }
        })
    });
}

#[test]
fn a_response_without_end_is_cut_off() {
    let server = Server::start(|_, _| Answer::new("200 OK", &format!("\"{}\"", "x".repeat(2000))));
    let stage = stage(Config { response_bytes_max: 1000, ..local() });
    register(&stage, "x::y", json!({"url": server.url("/"), "method": "GET"}));
    let (code, text) = call(&stage, "x::y", &json!({})).unwrap_err();
    assert_eq!((code.as_str(), server.seen().len()), ("http_response_failed", 1));
    assert!(text.contains("1000") && text.contains("response_bytes_max"), "{text}");
}
