//! Who may connect, and where.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringway_iii::{Config, Face};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::stage::Stage;

fn ask(face: &Face, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(face.addresses()[0]).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
                         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn sockets_are_opened_for_those_who_ask_properly() {
    let Stage { face, engine: _engine } = Stage::new();
    let check = |path: &str, headers: &str, expected: &str| {
        let answer = ask(&face, path, headers);
        assert!(answer.starts_with(expected), "{path} {headers}: {answer}");
    };
    check("/", HANDSHAKE, "HTTP/1.1 101");
    check("/?token=1&token=2", HANDSHAKE, "HTTP/1.1 101");
    check("/otel", HANDSHAKE, "HTTP/1.1 101");
    check("/", "", "HTTP/1.1 426");
    check("/elsewhere", HANDSHAKE, "HTTP/1.1 404");
    check("/", &format!("{HANDSHAKE}Origin: http://localhost:5173\r\n"), "HTTP/1.1 101");
    check("/", &format!("{HANDSHAKE}Origin: https://evil.example\r\n"), "HTTP/1.1 403");
    assert!(ask(&face, "/", HANDSHAKE).contains("x-iii-capabilities: tcp-nodelay"));
    assert!(ask(&face, "/", HANDSHAKE).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[test]
fn a_port_that_is_asked_for_and_taken_is_an_error() {
    let (stage, taken) = (Stage::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = Some(taken.local_addr().unwrap().port());
    let error = Face::start(stage.engine.address(), Config { port, ..Config::default() }).unwrap_err();
    assert!(error.to_string().contains("workers.iii.port"), "{error}");
}

#[test]
fn who_registers_more_than_can_wait_is_closed() {
    let stage = Stage::with(Config { registration_namespace_grace_ms: 600_000, ..Config::default() });
    let mut client = stage.connect();
    let long =
        json!({"type": "registerfunction", "id": "a::b", "metadata": "x".repeat(40 << 20)}).to_string();
    client.socket.send(Message::text(long.clone())).unwrap();
    // One fits, and nothing else is kept waiting by it.
    assert!(client.is_welcome());
    // It may be closed before all of it is written.
    let _closed = client.socket.send(Message::text(long));
    assert!(client.is_closed());
}
