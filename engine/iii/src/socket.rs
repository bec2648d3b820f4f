//! The WebSocket of a request: the handshake, and the socket after it. It must not know what is said over it.

use std::future::Future;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::limits::MESSAGE_BYTES_MAX;

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// What newer clients learn from the answer to their handshake: this side never waits to send a small frame.
const CAPABILITIES: (&str, HeaderValue) = ("x-iii-capabilities", HeaderValue::from_static("tcp-nodelay"));

/// Answers a request for a WebSocket, and has the socket served once the answer is sent. A request for anything else is
/// told what was wanted.
pub(crate) fn upgrade<F>(mut request: Request, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => {
            let text = format!("wanted a WebSocket handshake: {error}");
            let upgrade = [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade")];
            return (StatusCode::UPGRADE_REQUIRED, upgrade, text).into_response();
        }
    };
    response.headers_mut().insert(CAPABILITIES.0, CAPABILITIES.1);
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, "a client left during its handshake");
                return;
            }
        };
        // Sockets of this listener are plain TCP, so that the layers of the handshake can be taken away.
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
            tracing::error!("a socket of the iii listener is no TCP stream");
            return;
        };
        let (stream, early) = (parts.io.into_inner(), parts.read_buf.to_vec());
        serve(WebSocketStream::from_partially_read(stream, early, Role::Server, Some(settings())).await)
            .await;
    });
    response
}

fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        // Messages are written when there are no more to write with them; see `session`.
        .write_buffer_size(64 << 10)
        .max_write_buffer_size(usize::MAX)
}
