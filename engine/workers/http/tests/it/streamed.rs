//! Streams in both directions: bodies, lines, events, WebSockets.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use ringway::{Context, Failure, Function, HandlerResult, Message, StreamReader, StreamWriter};
use ringway_worker_http::routes::Pattern;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Sent};

use crate::raw::Raw;
use crate::stage::Stage;

fn register(
    stage: &Stage,
    id: &str,
    handler: impl Fn(&Context, Message, StreamReader, StreamWriter) -> HandlerResult<Message>
    + Send
    + Sync
    + 'static,
) {
    stage.client.register(Function::stream(id, handler)).unwrap();
}

#[test]
fn a_body_goes_in_and_comes_out_as_it_is() {
    let stage = Stage::with(json!({"body_bytes_max": 4_000_000}));
    register(&stage, "test::through", |_, _, input, output| {
        output.send(Message::json(&json!({"type": "set_status", "status_code": 202}))?)?;
        output
            .send(Message::json(&json!({"type": "set_headers", "headers": {"content-type": "text/x"}}))?)?;
        while let Some(item) = input.recv()? {
            output.send(item)?;
        }
        Ok(Message::empty())
    });
    stage.bind("test::through", json!({"api_path": "/through", "http_method": "POST"}));
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let got = stage.ask("POST", "/through", &[("content-type", "application/octet-stream")], &body);
    assert_eq!((got.status, got.header("content-type")), (202, Some("text/x")));
    assert!(got.body == body);
    // A body that is too long, or cut short, is not taken for a whole one.
    let mut raw = Raw::open(&stage.address());
    raw.write("POST /through HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    raw.until("abc");
    raw.write("zzz\r\n");
    assert!(!raw.rest().contains("\r\n0\r\n\r\n"));
}

#[test]
fn items_are_lines_or_events() {
    let stage = Stage::new();
    register(&stage, "test::count", |_, request, _, output| {
        let asked: Value = serde_json::from_slice(request.body())?;
        for number in 0..3 {
            output.send(Message::json(&json!({"n": number}))?)?;
        }
        match asked["query_params"]["fail"].as_str() {
            Some(_) => Err(Failure::with_code("BROKEN", "half way")),
            None => Ok(Message::json(&json!("done"))?),
        }
    });
    stage.bind("test::count", json!({"api_path": "/count"}));
    stage.bind("test::count", json!({"api_path": "/sse", "respond": "sse"}));
    let lines = stage.get("/count");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.text(), "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n");
    let accept = [("accept", "text/event-stream")];
    for (path, headers) in [("/count", &accept[..]), ("/sse", &[])] {
        let events = stage.ask("GET", path, headers, b"");
        assert_eq!(events.header("content-type"), Some("text/event-stream"));
        let expected =
            "data: {\"n\":0}\n\ndata: {\"n\":1}\n\ndata: {\"n\":2}\n\nevent: result\ndata: \"done\"\n\n";
        assert_eq!(events.text(), expected);
    }
    let broken = stage.get("/sse?fail=1").text();
    assert!(
        broken.ends_with("event: error\ndata: {\"code\":\"BROKEN\",\"message\":\"half way\"}\n\n"),
        "{broken}"
    );
    // Lines have no place for an error: the connection breaks off before the end of the body.
    let mut raw = Raw::open(&stage.address());
    raw.write("GET /count?fail=1 HTTP/1.1\r\nhost: a\r\n\r\n");
    let text = raw.rest();
    assert!(text.contains("{\"n\":2}") && !text.ends_with("0\r\n\r\n"), "{text}");
}

#[test]
fn a_function_with_streams_may_answer_once() {
    let stage = Stage::new();
    register(&stage, "test::sum", |_, _, input, _| {
        let mut bytes = 0;
        while let Some(item) = input.recv()? {
            bytes += item.body().len();
        }
        Message::json(&json!({"status_code": 201, "body": bytes}))
    });
    stage.bind("test::sum", json!({"api_path": "/sum", "http_method": "POST", "body": "stream"}));
    let got = stage.post("/sum", &json!({"a": "b"}));
    assert_eq!((got.status, got.json()), (201, json!(9)));
}

#[test]
fn a_client_that_goes_ends_the_stream() {
    let stage = Stage::new();
    let (tell, told) = std::sync::mpsc::channel();
    register(&stage, "test::endless", move |_, _, _, output| {
        let ended = loop {
            if let Err(error) = output.send(Message::json(&json!("tick"))?) {
                break error;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        tell.send(()).unwrap();
        Err(ended.into())
    });
    stage.bind("test::endless", json!({"api_path": "/endless", "respond": "sse"}));
    let mut raw = Raw::open(&stage.address());
    raw.write("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n");
    raw.until("tick");
    drop(raw);
    told.recv_timeout(ringway_worker_bed::PATIENCE).unwrap();
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_websocket_is_items_in_both_directions() {
    let stage = Stage::new();
    register(&stage, "test::echo", |_, request, input, output| {
        let asked: Value = serde_json::from_slice(request.body())?;
        output.send(Message::json(&asked["query_params"])?)?;
        while let Some(item) = input.recv()? {
            if item.body() == b"\"end\"" {
                return Ok(Message::empty());
            }
            output.send(item)?;
        }
        Ok(Message::empty())
    });
    stage.bind(
        "test::echo",
        json!({"api_path": "/ws", "respond": "websocket", "websocket": {"protocols": ["a", "b"]}}),
    );
    stage.bind(
        "test::echo",
        json!({"api_path": "/text", "respond": "websocket", "websocket": {"plain_text": true}}),
    );
    let address = stage.address();
    let open = async |path: &str, headers: &[(&'static str, &str)]| {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await
    };
    now(async {
        let (mut socket, answer) = open("/ws?q=1", &[("sec-websocket-protocol", "c, b")]).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "b");
        assert_eq!(socket.next().await.unwrap().unwrap(), Sent::text("{\"q\":\"1\"}"));
        for sent in [Sent::text("{\"a\": 1}"), Sent::binary(vec![0, 255]), Sent::text("[]")] {
            socket.send(sent.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), sent);
        }
        socket.send(Sent::text("\"end\"")).await.unwrap();
        let Sent::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
            panic!("a close is awaited")
        };
        assert_eq!(frame.code, CloseCode::Normal);

        let (mut socket, _) = open("/ws", &[]).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.send(Sent::text("no json")).await.unwrap();
        let Sent::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
            panic!("a close is awaited")
        };
        assert_eq!(frame.code, CloseCode::Invalid);

        let (mut socket, _) = open("/text", &[]).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.send(Sent::text("no json")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Sent::text("no json"));
        // RFC 6455, section 5.5.1: who is sent a close sends one back.
        let close = CloseFrame { code: CloseCode::Library(4001), reason: "done".into() };
        socket.send(Sent::Close(Some(close.clone()))).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Sent::Close(Some(close)));
        assert!(socket.next().await.is_none());

        let same = format!("http://{address}");
        assert!(open("/ws", &[("origin", &same)]).await.is_ok());
        let Err(Error::Http(refused)) = open("/ws", &[("origin", "https://evil.example")]).await else {
            panic!()
        };
        assert_eq!(refused.status(), 403);
    });
    assert_eq!(stage.get("/ws").problem(), (426, "upgrade_required".to_owned()));
}

#[test]
fn a_websocket_counts_for_as_long_as_it_is_open() {
    let stage = Stage::new();
    register(&stage, "test::hold", |_, _, input, _| {
        while input.recv()?.is_some() {}
        Ok(Message::empty())
    });
    let config = json!({"api_path": "/ws", "respond": "websocket", "concurrency_max": 1});
    stage.bind("test::hold", config.clone());
    let open = async |address: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await
    };
    let address = stage.address();
    now(async {
        let first = open(&address).await.unwrap();
        let Err(Error::Http(refused)) = open(&address).await else { panic!("the first one is open") };
        assert_eq!(refused.status(), 503);
        drop(first);
        let begun = std::time::Instant::now();
        while open(&address).await.is_err() {
            assert!(begun.elapsed() < ringway_worker_bed::PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let stage = Stage::with(json!({"connections_max": 1}));
    register(&stage, "test::hold", |_, _, input, _| {
        while input.recv()?.is_some() {}
        Ok(Message::empty())
    });
    stage.bind("test::hold", config);
    let address = stage.address();
    now(async {
        let _first = open(&address).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(200), open(&address)).await;
        assert!(second.is_err(), "{second:?}");
    });
}

#[test]
fn a_client_is_not_taken_for_gone_while_the_function_does_not_read() {
    let stage = Stage::new();
    register(&stage, "test::late", |_, _, input, _| {
        std::thread::sleep(Duration::from_millis(400));
        while input.recv()?.is_some_and(|item| item.body() != b"\"end\"") {}
        Ok(Message::empty())
    });
    let config = json!({"api_path": "/ws", "respond": "websocket", "websocket": {"ping_ms": 50}});
    stage.bind("test::late", config);
    let address = stage.address();
    now(async {
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.unwrap();
        let text = json!("x".repeat(10_000)).to_string();
        for _ in 0..1000 {
            socket.send(Sent::text(text.clone())).await.unwrap();
        }
        socket.send(Sent::text("\"end\"")).await.unwrap();
        let close = loop {
            match socket.next().await.unwrap().unwrap() {
                Sent::Close(frame) => break frame.unwrap(),
                _ => continue,
            }
        };
        assert_eq!(close.code, CloseCode::Normal);
    });
}

#[test]
fn a_router_is_mounted_below_a_path() {
    use axum::routing::get;
    let stage = Stage::new();
    let router = axum::Router::new().route("/hello", get(async || "mounted"));
    stage.worker().mount("/streams", router);
    assert_eq!(stage.get("/streams/hello").text(), "mounted");
    assert_eq!(stage.get("/streams/none").status, 404);
    assert!(Pattern::parse("/streams").is_ok());
}
