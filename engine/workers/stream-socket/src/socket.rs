//! The WebSocket of a request: the handshake, and the socket after it, over whatever the server speaks. It must not know what
//! is said over it.

use std::future::Future;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Bytes of a message of a client.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// Answers a request for a WebSocket, and has the socket served once the answer is sent.
pub(crate) fn upgrade<F>(mut request: Request, runtime: &Handle, serve: impl FnOnce(Socket) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => {
            let text = format!("wanted a WebSocket handshake: {error}");
            let upgrade = [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade")];
            return (StatusCode::UPGRADE_REQUIRED, upgrade, text).into_response();
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    runtime.spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let settings = WebSocketConfig::default()
                    .max_message_size(Some(MESSAGE_BYTES_MAX))
                    .max_frame_size(Some(MESSAGE_BYTES_MAX))
                    .write_buffer_size(WRITE_BYTES);
                let io = TokioIo::new(upgraded);
                serve(WebSocketStream::from_raw_socket(io, Role::Server, Some(settings)).await).await;
            }
            Err(error) => tracing::debug!(%error, "a client left during its handshake"),
        }
    });
    response
}
