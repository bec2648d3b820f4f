//! WebSockets (RFC 6455) to functions with streams: a message is an item, in both directions. A text is JSON, or becomes a text
//! of JSON where the route says so; what is binary is bytes. It must not know what messages mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::{
    CONNECTION, HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ringway::{CallError, Encoding, ErrorCode, Message, Pending, StreamReader, StreamWriter};
use ringway_worker_listen::READ_BYTES;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Sent};

use crate::body::Body;
use crate::exchange::Exchange;
use crate::problem::{Code, Problem};
use crate::route::text;

/// How often it is asked whether a client is still there.
const PING: Duration = Duration::from_secs(30);

/// How long a message may take to be sent to a client that does not read.
const SEND_MAX: Duration = Duration::from_secs(30);

/// How long the other side may take to say that it closes too.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The longest reason of a close, in bytes (RFC 6455, section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// Whether a request opens a WebSocket, and whether its page may.
///
/// # Errors
/// It does not, or may not.
pub(crate) fn check(exchange: &Exchange<'_>) -> Result<(), Box<Problem>> {
    let Parts { method, headers, .. } = exchange.parts;
    let has = |name, wanted: &str| {
        let lines = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let opens = method == Method::GET
        && has(&CONNECTION, "upgrade")
        && has(&UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && exchange.parts.extensions.get::<OnUpgrade>().is_some();
    if !opens {
        let text = "this route takes WebSockets of version 13 over HTTP/1.1";
        return Err(Problem::new(Code::UpgradeRequired, text)
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13"));
    }
    let policy = exchange.route.cors.as_ref();
    if may_open(headers, exchange.parts, |origin| policy.is_some_and(|policy| policy.allows(origin))) {
        return Ok(());
    }
    let text = "pages of this origin may not open a WebSocket here: name it in `cors.origins`";
    Err(Problem::new(Code::OriginForbidden, text))
}

/// Browsers open WebSockets from any page, with cookies, and look at no CORS: so the server does. What names no origin is no
/// browser.
fn may_open(headers: &HeaderMap, parts: &Parts, allowed: impl Fn(&str) -> bool) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = text(headers, HOST).or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str));
    let same = origin
        .split_once("://")
        .is_some_and(|(_, of_page)| host.is_some_and(|host| host.eq_ignore_ascii_case(of_page)));
    same || allowed(origin)
}

/// Answers that the WebSocket is open, and serves it until one side ends.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn answer(
    exchange: &Exchange<'_>,
    writer: Option<StreamWriter>,
    reader: StreamReader,
    pending: Pending,
) -> Result<Response<Body>, Box<Problem>> {
    let headers = &exchange.parts.headers;
    let upgrade = exchange.parts.extensions.get::<OnUpgrade>().cloned();
    let (Some(key), Some(upgrade)) = (headers.get(SEC_WEBSOCKET_KEY), upgrade) else {
        return Err(Problem::new(Code::UpgradeRequired, "this connection cannot become a WebSocket"));
    };
    let settings = exchange.route.config.websocket.clone().unwrap_or_default();
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let offered: Vec<&str> = text(headers, SEC_WEBSOCKET_PROTOCOL)
        .map(|line| line.split(',').map(str::trim).collect())
        .unwrap_or_default();
    if let Some(protocol) = settings.protocols.iter().find(|protocol| offered.contains(&protocol.as_str()))
        && let Ok(value) = HeaderValue::from_str(protocol)
    {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    let bytes_max = settings.message_bytes_max.unwrap_or(exchange.route.body_bytes_max);
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let config = WebSocketConfig::default()
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max))
        .read_buffer_size(READ_BYTES);
    let served = Served {
        plain_text: settings.plain_text,
        ping: settings.ping_ms.map_or(PING, Duration::from_millis),
        function: exchange.route.function_id.clone(),
    };
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        served.run(socket, writer, reader, pending).await;
    });
    Ok(response)
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

struct Served {
    plain_text: bool,
    ping: Duration,
    function: String,
}

/// Signs that the client is there.
#[derive(Debug)]
struct Signs {
    /// Something has come since the last ping.
    heard: AtomicBool,
    /// The function has yet to take what came, so that nothing is read: its client is not the one who is slow.
    unread: AtomicBool,
}

/// Why no more comes from the client.
#[derive(Debug)]
enum Left {
    /// It said that it closes, or its messages are at an end.
    Closed,
    /// It went without a word, or broke the protocol.
    Gone,
    /// It sent what is none that this route takes.
    Refused(CloseCode, &'static str),
}

impl Served {
    async fn run(self, socket: Socket, writer: Option<StreamWriter>, reader: StreamReader, pending: Pending) {
        let (mut sink, mut stream) = socket.split();
        let signs = Arc::new(Signs { heard: AtomicBool::new(true), unread: AtomicBool::new(false) });
        let (seen, plain_text) = (Arc::clone(&signs), self.plain_text);
        // Reading and writing go on beside each other, so that neither waits for the other's reader.
        let mut receiving = Box::pin(async move {
            let left = receive(&mut stream, writer, plain_text, &seen).await;
            (left, stream)
        });
        let mut receiving_over = None;
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + self.ping, self.ping);
        let close = loop {
            tokio::select! {
                (left, stream) = &mut receiving, if receiving_over.is_none() => match left {
                    Left::Closed => receiving_over = Some(stream),
                    // Dropping the call tells the function.
                    Left::Gone => return,
                    Left::Refused(code, reason) => break (code, reason.to_owned()),
                },
                item = reader.recv_async() => match item {
                    Ok(Some(item)) => {
                        let sent = tokio::time::timeout(SEND_MAX, sink.send(self.sent(&item))).await;
                        if !matches!(sent, Ok(Ok(()))) {
                            return;
                        }
                    }
                    Ok(None) => break ended(&self.function, pending.await.map(|_| ())),
                    Err(error) => break ended(&self.function, Err(error)),
                },
                _ = pings.tick() => {
                    let alive = signs.heard.swap(false, Ordering::Relaxed) || signs.unread.load(Ordering::Relaxed);
                    let ping = Sent::Ping(tungstenite::Bytes::new());
                    if !alive || !matches!(tokio::time::timeout(SEND_MAX, sink.send(ping)).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
        };
        let (code, mut reason) = close;
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let frame = CloseFrame { code, reason: reason.into() };
        let _gone = tokio::time::timeout(CLOSE_MAX, async {
            let _gone = sink.send(Sent::Close(Some(frame))).await;
            if receiving_over.is_none() {
                let _closed = receiving.await;
            }
        })
        .await;
    }

    fn sent(&self, item: &Message) -> Sent {
        match (item.encoding(), std::str::from_utf8(item.body())) {
            (Encoding::Json, Ok(text)) => {
                let plain = if self.plain_text { serde_json::from_str::<String>(text).ok() } else { None };
                Sent::text(plain.unwrap_or_else(|| text.to_owned()))
            }
            _ => Sent::binary(item.body().to_vec()),
        }
    }
}

fn ended(function: &str, ended: Result<(), CallError>) -> (CloseCode, String) {
    match ended {
        Ok(()) => (CloseCode::Normal, String::new()),
        Err(error) => {
            tracing::warn!(target: "ringway", function, %error, "a WebSocket's function failed");
            let code = match error.code {
                ErrorCode::Draining | ErrorCode::WorkerGone => CloseCode::Restart,
                ErrorCode::Busy => CloseCode::Again,
                _ => CloseCode::Error,
            };
            (code, error.user_code.unwrap_or_else(|| error.code.to_string()))
        }
    }
}

async fn receive(
    stream: &mut futures_util::stream::SplitStream<Socket>,
    writer: Option<StreamWriter>,
    plain_text: bool,
    signs: &Signs,
) -> Left {
    let Some(writer) = writer else { return Left::Closed };
    while let Some(received) = stream.next().await {
        signs.heard.store(true, Ordering::Relaxed);
        let item = match received {
            Ok(Sent::Text(text)) if plain_text => Message::json(text.as_str()).unwrap_or_default(),
            Ok(Sent::Text(text)) => {
                if serde_json::from_str::<&serde_json::value::RawValue>(text.as_str()).is_err() {
                    return Left::Refused(CloseCode::Invalid, "texts are JSON here");
                }
                Message::new(Encoding::Json, text.as_bytes())
            }
            Ok(Sent::Binary(bytes)) => Message::bytes(&bytes),
            Ok(Sent::Close(_)) => {
                // The answer to it goes out when more is read.
                while let Some(Ok(_)) = stream.next().await {}
                return Left::Closed;
            }
            Ok(Sent::Ping(_) | Sent::Pong(_) | Sent::Frame(_)) => continue,
            Err(tungstenite::Error::Capacity(_)) => {
                return Left::Refused(CloseCode::Size, "the message is too long");
            }
            Err(tungstenite::Error::Protocol(_)) => {
                return Left::Refused(CloseCode::Protocol, "this is no WebSocket");
            }
            Err(tungstenite::Error::Utf8(_)) => return Left::Refused(CloseCode::Invalid, "a text is UTF-8"),
            Err(_) => return Left::Gone,
        };
        // A function that takes no more may still send.
        signs.unread.store(true, Ordering::Relaxed);
        if writer.send_async(item).await.is_err() {
            return Left::Closed;
        }
        signs.heard.store(true, Ordering::Relaxed);
        signs.unread.store(false, Ordering::Relaxed);
    }
    Left::Gone
}
