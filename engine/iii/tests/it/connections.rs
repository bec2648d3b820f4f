//! Who may connect, and where.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};

use ringway_engine::{Engine, Otlp};
use ringway_iii::{Config, Face};

pub(crate) fn engine() -> Engine {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = format!("@ringway-iii-test-{}-{number}", std::process::id());
    Engine::builder().address(address).otlp(Otlp::Off).start().unwrap()
}

pub(crate) fn face(engine: &Engine) -> Face {
    Face::start(engine.address(), Config { port: Some(0), ..Config::default() }).unwrap()
}

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
    String::from_utf8(answer).unwrap()
}

const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
                         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn sockets_are_opened_for_those_who_ask_properly() {
    let engine = engine();
    let face = face(&engine);
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
    let (engine, taken) = (engine(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let port = Some(taken.local_addr().unwrap().port());
    let error = Face::start(engine.address(), Config { port, ..Config::default() }).unwrap_err();
    assert!(error.to_string().contains("workers.iii.port"), "{error}");
}
