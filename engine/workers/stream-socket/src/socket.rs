//! The WebSocket of a request, over whatever the server speaks, with a note of when
//! something was last written. It must not know what is said over it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ringway_worker_listen::READ_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// An open WebSocket.
pub(crate) type Socket = WebSocketStream<Watched>;

/// When the other side last took something.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(crate) fn last(&self) -> Instant {
        *self.0.lock()
    }
}

/// A connection that notes when the other side takes something.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: TokioIo<Upgraded>,
    progress: Progress,
}

impl Watched {
    /// What it notes, for whoever waits.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            *self.progress.0.lock() = Instant::now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Bytes of a message of a client.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// Answers a request for a WebSocket, and has the socket served once the answer is sent.
pub(crate) fn upgrade<F>(
    request: Request,
    runtime: &Handle,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    ringway_worker_listen::upgrade(request, runtime, |upgraded| async {
        let settings = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX))
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES);
        let progress = Progress(Arc::new(Mutex::new(Instant::now())));
        let io = Watched { inner: TokioIo::new(upgraded), progress };
        serve(WebSocketStream::from_raw_socket(io, Role::Server, Some(settings)).await).await;
    })
}
