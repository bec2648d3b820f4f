//! The WebSocket of a request, as this listener's clients expect it. It must not know what is said over it.

use std::future::Future;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use ringway_worker_listen::READ_BYTES;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::limits::MESSAGE_BYTES_MAX;

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// What newer clients learn from the answer to their handshake: this side never waits to send a small frame.
const CAPABILITIES: (&str, HeaderValue) = ("x-iii-capabilities", HeaderValue::from_static("tcp-nodelay"));

/// Answers a request for a WebSocket, and has the socket served once the answer is sent.
pub(crate) fn upgrade<F>(request: Request, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut response = ringway_worker_listen::upgrade(request, &Handle::current(), |upgraded| async {
        // Sockets of this listener are plain TCP, so that the layers of the handshake can be taken away.
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
            tracing::error!("a socket of the iii listener is no TCP stream");
            return;
        };
        let (stream, early) = (parts.io.into_inner(), parts.read_buf.to_vec());
        serve(WebSocketStream::from_partially_read(stream, early, Role::Server, Some(settings())).await)
            .await;
    });
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CAPABILITIES.0, CAPABILITIES.1);
    }
    response
}

fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(READ_BYTES)
        // Messages are written when there are no more to write with them; see `session`.
        .write_buffer_size(64 << 10)
        .max_write_buffer_size(usize::MAX)
}
