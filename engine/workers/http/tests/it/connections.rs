//! Connections: slow, idle, too many, in peace at the end; compression, tags, files.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::raw::Raw;
use crate::stage::Stage;

#[test]
fn who_sends_byte_by_byte_or_nothing_is_let_go() {
    let stage = Stage::with(json!({"header_timeout_ms": 200}));
    stage.serve("GET", "/a", |_, _| Ok(json!(1)));
    let address = stage.address();
    let nothing = Raw::open(&address);
    let mut half = Raw::open(&address);
    half.write("GET /a HTTP/1.1\r\nhos");
    let mut dribble = Raw::open(&address);
    let begun = Instant::now();
    let mut written = 0;
    // The other side closes, however often a byte comes.
    while std::io::Write::write_all(&mut dribble.0, b"G").is_ok() {
        std::thread::sleep(Duration::from_millis(10));
        written += 1;
        assert!(begun.elapsed() < ringway_worker_bed::PATIENCE, "{written} bytes were taken");
    }
    let mut idle = Raw::open(&address);
    idle.write("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(idle.rest().starts_with("HTTP/1.1 200"));
    assert_eq!({ nothing }.rest(), "");
    half.rest();
    assert_eq!(stage.get("/a").status, 200);
}

#[test]
fn a_function_that_takes_longer_than_a_head_is_waited_for() {
    let stage = Stage::with(json!({"header_timeout_ms": 50}));
    stage.serve("GET", "/slow", |_, _| {
        std::thread::sleep(Duration::from_millis(300));
        Ok(json!("done"))
    });
    assert_eq!(stage.get("/slow").json(), "done");
}

#[test]
fn a_body_that_stops_is_not_waited_for() {
    let stage = Stage::with(json!({"body_timeout_ms": 100}));
    stage.echo();
    stage.bind("test::echo", json!({"api_path": "/echo", "http_method": "POST"}));
    let mut raw = Raw::open(&stage.address());
    raw.write(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    );
    let text = raw.until("body_timeout");
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
}

#[test]
fn a_client_that_never_reads_is_let_go_and_holds_up_nobody() {
    let stage = Stage::with(json!({"body_timeout_ms": 200, "concurrency_max": 1}));
    let large = "x".repeat(50_000_000);
    stage.serve("GET", "/large", move |_, _| Ok(json!(large)));
    stage.serve("GET", "/small", |_, _| Ok(json!(1)));
    let mut raw = Raw::open(&stage.address());
    raw.write("GET /large HTTP/1.1\r\nhost: a\r\n\r\n");
    raw.until("\r\n\r\n");
    assert_eq!(stage.get("/small").status, 200);
    std::thread::sleep(Duration::from_millis(600));
    assert!(raw.rest().len() < 50_000_000);
}

#[test]
fn so_many_connections_are_served_and_more_wait() {
    let stage = Stage::with(json!({"connections_max": 2, "header_timeout_ms": 60_000}));
    stage.serve("GET", "/a", |_, _| Ok(json!(1)));
    let address = stage.address();
    let mut both = [Raw::open(&address), Raw::open(&address)];
    for raw in &mut both {
        raw.write("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        raw.until("\r\n\r\n1");
    }
    let mut third = Raw::open(&address);
    third.write("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    third.patience(Duration::from_millis(200));
    assert!(third.0.read(&mut [0]).is_err());
    drop(both);
    third.patience(ringway_worker_bed::PATIENCE);
    third.until("\r\n\r\n1");
}

#[test]
fn requests_end_before_the_worker_does() {
    let mut stage = Stage::new();
    let (arrived, arrivals) = std::sync::mpsc::channel();
    stage.serve("GET", "/slow", move |_, _| {
        arrived.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        Ok(json!("done"))
    });
    let mut idle = Raw::open(&stage.address());
    let mut busy = Raw::open(&stage.address());
    busy.write("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    arrivals.recv().unwrap();
    stage.bed().stop();
    let answer = busy.rest();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\"done\""), "{answer}");
    assert_eq!(idle.rest(), "");
}

#[test]
fn answers_are_compressed_and_known_again() {
    let stage = Stage::new();
    let text = "again and ".repeat(1000);
    let said = text.clone();
    stage.serve("GET", "/text", move |_, _| Ok(json!(said)));
    let gzip = [("accept-encoding", "gzip")];
    let got = stage.ask("GET", "/text", &gzip, b"");
    let plain = format!("\"{text}\"");
    assert_eq!(got.text(), plain);
    let mut raw = Raw::open(&stage.address());
    raw.write("GET /text HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    let head = raw.until("\r\n\r\n").to_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let identity = stage.ask("GET", "/text", &[("accept-encoding", "identity")], b"");
    let tag = identity.header("etag").unwrap().to_owned();
    assert_eq!((identity.header("content-encoding"), identity.text()), (None, plain));
    let known = stage.ask("GET", "/text", &[("if-none-match", tag.as_str())], b"");
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(tag.as_str())));
}

#[test]
fn files_are_served_and_nothing_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
    let public = folder.path().join("public");
    std::fs::create_dir(&public).unwrap();
    std::fs::write(public.join("a.txt"), "0123456789").unwrap();
    std::fs::write(public.join("index.html"), "<p>index</p>").unwrap();
    let stage = Stage::with(json!({"static_files": [
        {"path": "/assets", "folder": public, "cache_control": "max-age=60"},
        {"path": "/app", "folder": public, "fallback": "index.html"},
    ]}));
    stage.serve("GET", "/assets/route", |_, _| Ok(json!("route")));
    let got = stage.get("/assets/a.txt");
    assert_eq!((got.text().as_str(), got.header("content-type")), ("0123456789", Some("text/plain")));
    assert_eq!(
        (got.header("cache-control"), got.header("x-content-type-options")),
        (Some("max-age=60"), Some("nosniff"))
    );
    let part = stage.ask("GET", "/assets/a.txt", &[("range", "bytes=2-4")], b"");
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(stage.get("/assets/route").json(), "route");
    assert_eq!(stage.get("/app/any/page").text(), "<p>index</p>");
    assert_eq!(stage.get("/assets/none").status, 404);
    for path in [
        "/assets/../secret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets//etc/passwd",
    ] {
        let mut raw = Raw::open(&stage.address());
        raw.write(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        let text = raw.rest();
        assert!(text.starts_with("HTTP/1.1 404") && !text.ends_with("secret"), "{path}: {text}");
    }
}
