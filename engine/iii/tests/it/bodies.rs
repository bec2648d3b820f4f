//! HTTP triggers whose functions clients serve: what they return, what they write into the channel of their answer, and bodies
//! that they read from a channel. The front door of HTTP is the real one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway::{CallOptions, Worker};
use ringway_store::{Embedded, Options};
use ringway_worker_http::Http;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::stage::{Client, PATIENCE, Stage};

/// An engine with both listeners, and a client that serves `shop::handler` at `/shop`.
struct Shop {
    client: Client,
    http: Http,
    native: Worker,
    stage: Stage,
    _folder: tempfile::TempDir,
}

/// What an HTTP client got.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the answer came to its end.
    whole: bool,
}

impl Shop {
    fn open(method: &str, more: &Value) -> Self {
        let stage = Stage::new();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap().0);
        let settings = json!({"port": 0, "admin": {"enabled": false}});
        let http =
            Http::start(stage.engine.address(), store, serde_json::from_value(settings).unwrap()).unwrap();
        let native = stage.native("native");
        let mut client = stage.client("shop");
        client.register("shop::handler");
        let mut config = json!({"api_path": "shop/:id", "http_method": method});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        client.send(&json!({"type": "registertrigger", "id": "t", "trigger_type": "http",
            "function_id": "shop::handler", "config": config}));
        native.wait_for("shop::handler", PATIENCE).unwrap();
        let until = Instant::now() + PATIENCE;
        while native.trigger_json("http::routes", &json!({})).unwrap()["routes"] == json!([]) {
            assert!(Instant::now() < until, "the route is not bound");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { client, http, native, stage, _folder: folder }
    }

    /// Sends a request, from a thread of its own.
    fn ask(&self, request: &str) -> JoinHandle<Got> {
        let (address, request) = (self.http.address(), request.to_owned());
        std::thread::spawn(move || {
            let mut stream = connect(address);
            stream.write_all(request.as_bytes()).unwrap();
            read(stream)
        })
    }

    fn get(&self) -> JoinHandle<Got> {
        self.ask("GET /shop/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    }

    /// Opens an end of a channel as an SDK does.
    fn channel(&self, end: &Value) -> WebSocket<MaybeTlsStream<TcpStream>> {
        let text = |field: &str| end[field].as_str().unwrap().to_owned();
        let url = format!(
            "ws://{}/ws/channels/{}?key={}&dir={}",
            self.stage.face.addresses()[0],
            text("channel_id"),
            text("access_key"),
            text("direction")
        );
        tungstenite::connect(url).unwrap().0
    }

    /// Waits until no channel is open.
    fn has_forgotten_all(&self) {
        let until = Instant::now() + PATIENCE;
        while self.stage.face.counters().channels.open > 0 {
            assert!(Instant::now() < until, "{:?}", self.stage.face.counters());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads an answer until the connection ends.
fn read(mut stream: TcpStream) -> Got {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _reset = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[at + 4..];
    let (body, whole) =
        if head.contains("transfer-encoding: chunked") { chunks(rest) } else { (rest.to_vec(), true) };
    Got { status, head, body, whole }
}

fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest = &rest[at + 4 + size..];
    }
    (body, false)
}

fn result(asked: &Value, more: &Value) -> Value {
    let mut result = json!({"type": "invocationresult", "invocation_id": asked["invocation_id"],
        "function_id": asked["function_id"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        result[key] = value.clone();
    }
    result
}

fn say(socket: &mut WebSocket<MaybeTlsStream<TcpStream>>, text: &Value) {
    socket.send(Message::text(text.to_string())).unwrap();
}

#[test]
fn the_payload_names_both_channels_and_a_value_is_the_answer() {
    let mut shop = Shop::open("POST", &json!({}));
    let body = "{\"n\":1}";
    let asking = shop.ask(&format!(
        "POST /shop/7?q=1&q=2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let asked = shop.client.of_type("invokefunction");
    let data = &asked["data"];
    assert_eq!(
        (&data["path"], &data["method"], &data["path_params"]),
        (&json!("shop/:id"), &json!("POST"), &json!({"id": "7"}))
    );
    assert_eq!((&data["body"], &data["query_params"]), (&json!({"n": 1}), &json!({"q": "2"})));
    assert_eq!(data["trigger"], json!({"type": "http", "path": "shop/:id", "method": "POST"}));
    for (field, direction) in [("request_body", "read"), ("response", "write")] {
        assert_eq!(data[field]["direction"], direction, "{data}");
        assert!(data[field]["channel_id"].is_string() && data[field]["access_key"].is_string(), "{data}");
    }
    // What is told of the body lies in its channel too.
    let mut reader = shop.channel(&data["request_body"]);
    assert_eq!(reader.read().unwrap(), Message::binary(body.as_bytes().to_vec()));
    assert!(matches!(reader.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1000));
    // A value goes before what was written, as long as no body was.
    let mut writer = shop.channel(&data["response"]);
    say(&mut writer, &json!({"type": "set_status", "status_code": 418}));
    let value = json!({"status_code": 201, "headers": ["X-Own: yes"], "body": {"made": true}});
    shop.client.send(&result(&asked, &json!({"result": value})));
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.as_slice()), (201, &b"{\"made\":true}"[..]), "{got:?}");
    assert!(got.head.contains("x-own: yes"), "{got:?}");
    shop.has_forgotten_all();
}

#[test]
fn an_answer_is_streamed_by_a_handler_that_has_returned() {
    let mut shop = Shop::open("GET", &json!({}));
    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    // Node's SDK connects while its handler returns.
    shop.client.send(&result(&asked, &json!({})));
    std::thread::sleep(Duration::from_millis(50));
    let mut writer = shop.channel(&asked["data"]["response"]);
    for text in [
        json!({"type": "note"}),
        json!({"type": "set_status", "status_code": 202}),
        json!({"type": "set_headers", "headers": {"X-Own": "yes", "Content-Type": "text/plain"}}),
    ] {
        say(&mut writer, &text);
    }
    writer.send(Message::binary(b"first,".to_vec())).unwrap();
    // Too late to mean anything.
    say(&mut writer, &json!({"type": "set_status", "status_code": 500}));
    writer.send(Message::binary(b"second".to_vec())).unwrap();
    writer.close(None).unwrap();
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.as_slice(), got.whole), (202, &b"first,second"[..], true), "{got:?}");
    assert!(got.head.contains("x-own: yes") && got.head.contains("content-type: text/plain"), "{got:?}");
    shop.has_forgotten_all();
}

#[test]
fn the_end_of_the_channel_is_the_end_of_the_answer() {
    let mut shop = Shop::open("GET", &json!({}));
    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    writer.send(Message::binary(b"all".to_vec())).unwrap();
    writer.close(None).unwrap();
    // The handler has not returned, and need not.
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.as_slice(), got.whole), (200, &b"all"[..], true), "{got:?}");
    shop.has_forgotten_all();
}

#[test]
fn status_and_headers_go_without_a_body() {
    let mut shop = Shop::open("GET", &json!({}));
    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    say(&mut writer, &json!({"type": "set_status", "status_code": 304}));
    say(&mut writer, &json!({"type": "set_headers", "headers": {"X-Own": "yes"}}));
    writer.close(None).unwrap();
    shop.client.send(&result(&asked, &json!({})));
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.len()), (304, 0), "{got:?}");
    assert!(got.head.contains("x-own: yes"), "{got:?}");
}

#[test]
fn a_body_reaches_the_handler_as_it_comes() {
    let mut shop = Shop::open("PUT", &json!({}));
    let mut stream = connect(shop.http.address());
    let head = "PUT /shop/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/octet-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // The handler is called before anything of the body is there.
    let asked = shop.client.of_type("invokefunction");
    assert_eq!(asked["data"]["body"], Value::Null);
    let mut reader = shop.channel(&asked["data"]["request_body"]);
    for piece in ["one", "three"] {
        write!(stream, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
        assert_eq!(reader.read().unwrap(), Message::binary(piece.as_bytes().to_vec()));
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert!(matches!(reader.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1000));
    shop.client.send(&result(&asked, &json!({"result": "read"})));
    let got = read(stream);
    assert_eq!((got.status, got.body.as_slice()), (200, &b"\"read\""[..]), "{got:?}");
    shop.has_forgotten_all();
}

#[test]
fn a_body_that_is_cut_short_is_not_taken_for_all() {
    let mut shop = Shop::open("PUT", &json!({}));
    let mut stream = connect(shop.http.address());
    let head = "PUT /shop/1 HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\n\
                content-length: 10\r\n\r\npart";
    stream.write_all(head.as_bytes()).unwrap();
    let asked = shop.client.of_type("invokefunction");
    let mut reader = shop.channel(&asked["data"]["request_body"]);
    assert_eq!(reader.read().unwrap(), Message::binary(b"part".to_vec()));
    drop(stream);
    assert!(matches!(reader.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1011));
    shop.has_forgotten_all();
}

#[test]
fn errors_are_told_before_a_body_and_break_it_off_later() {
    let mut shop = Shop::open("GET", &json!({}));
    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    say(&mut writer, &json!({"type": "set_status", "status_code": 202}));
    let error = json!({"code": "OUT_OF_STOCK", "message": "none left"});
    shop.client.send(&result(&asked, &json!({"error": error})));
    let got = asking.join().unwrap();
    let said: Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!((got.status, &said["error"]["code"]), (500, &json!("OUT_OF_STOCK")), "{said}");

    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    writer.send(Message::binary(b"half".to_vec())).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    shop.client.send(&result(&asked, &json!({"error": error})));
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.as_slice(), got.whole), (200, &b"half"[..], false), "{got:?}");

    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    writer.send(Message::binary(b"half".to_vec())).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // The connection goes without a Close.
    drop(writer);
    let got = asking.join().unwrap();
    assert_eq!((got.status, got.body.as_slice(), got.whole), (200, &b"half"[..], false), "{got:?}");
    shop.has_forgotten_all();
}

#[test]
fn who_neither_returns_nor_writes_anything_has_the_time_of_the_route() {
    let mut shop = Shop::open("GET", &json!({"timeout_ms": 300}));
    let asking = shop.get();
    let asked = shop.client.of_type("invokefunction");
    shop.client.send(&result(&asked, &json!({})));
    let got = asking.join().unwrap();
    assert_eq!(got.status, 504, "{got:?}");
    shop.has_forgotten_all();
    // Who comes too late can connect, and is told then: Node's SDK ends its process where it cannot.
    for (end, code) in [("response", 1001), ("request_body", 1011)] {
        let mut late = shop.channel(&asked["data"][end]);
        assert!(
            matches!(late.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == code),
            "{end}"
        );
    }
}

#[test]
fn a_client_of_http_that_goes_ends_both_channels() {
    let mut shop = Shop::open("GET", &json!({}));
    let mut stream = connect(shop.http.address());
    stream.write_all(b"GET /shop/1 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let asked = shop.client.of_type("invokefunction");
    let mut writer = shop.channel(&asked["data"]["response"]);
    writer.send(Message::binary(b"half".to_vec())).unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
    drop(stream);
    assert!(matches!(writer.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1001));
    shop.has_forgotten_all();
}

#[test]
fn other_calls_have_no_channels_unless_their_caller_opens_streams() {
    let mut shop = Shop::open("GET", &json!({}));
    let worker = shop.native.clone();
    let plain = std::thread::spawn(move || worker.trigger_json("shop::handler", &json!({"n": 1})).unwrap());
    let asked = shop.client.answer(|_| json!({"result": 2}));
    assert_eq!((&asked["data"], plain.join().unwrap()), (&json!({"n": 1}), json!(2)));
    assert_eq!(shop.stage.face.counters().channels.created, 0);

    let call = |request: &Value| {
        let message = ringway::Message::json(request).unwrap();
        shop.native.handle("shop::handler").stream(&message, &CallOptions::new()).unwrap()
    };
    let refused = call(&json!([1])).end().unwrap_err();
    assert!(refused.message.contains("`request_body`"), "{refused}");
    let mut streaming = call(&json!({}));
    streaming.send(ringway::Message::bytes(b"in")).unwrap();
    streaming.finish();
    let asked = shop.client.of_type("invokefunction");
    let mut reader = shop.channel(&asked["data"]["request_body"]);
    assert_eq!(reader.read().unwrap(), Message::binary(b"in".to_vec()));
    let mut writer = shop.channel(&asked["data"]["response"]);
    writer.send(Message::binary(b"out".to_vec())).unwrap();
    writer.close(None).unwrap();
    assert_eq!(streaming.recv().unwrap().unwrap().body(), b"out");
    assert!(streaming.recv().unwrap().is_none());
    assert_eq!(streaming.end().unwrap().body(), b"null");
}
