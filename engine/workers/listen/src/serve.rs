//! An address, and what comes there: connections, their requests, and the handshake of those that want a WebSocket. It must
//! not know which routes there are.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as Bound};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

/// How long a listener rests when the system has no more sockets to give.
const REST: Duration = Duration::from_millis(50);

/// How long a connection may be silent before the system asks whether the other host is still there, and how long it then
/// waits for an answer, three times.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}; another engine may have it")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub reason: io::Error,
}

/// Takes an address.
///
/// # Errors
/// [`BindError`].
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let bound = Bound::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|reason| BindError { address, reason })
}

/// Threads that serve connections, under this name.
///
/// # Errors
/// The system gives no more threads.
pub fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

/// Takes connections until the runtime ends. Each may take so long to send the head of a request; its requests have its
/// address, a [`SocketAddr`], as an extension. The name is for the log.
pub async fn serve(bound: Bound, name: &'static str, head: Duration, router: Router) {
    let listener = match TcpListener::from_std(bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, name, "a listener could not be set up");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => drop(tokio::spawn(connection(stream, peer, head, router.clone()))),
            Err(error) => {
                tracing::warn!(%error, name, "a listener could not take a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, head: Duration, router: Router) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, %peer, "a client left at once");
        return;
    }
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a request was not served");
    }
}

/// Nothing waits to be sent; and the system finds out when the other host has gone, also for sockets on which nobody is asked
/// to answer a ping.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// How much a WebSocket reads at a time. Its library fills that much with zeros before each read: with the 128 KiB that it
/// takes by itself that costs more than all else that is done for a short message.
pub const READ_BYTES: usize = 16 << 10;

/// Answers a request for a WebSocket, and has the connection served there once the answer is sent. A request for anything else
/// is told what was wanted.
pub fn upgrade<F>(
    mut request: Request,
    runtime: &Handle,
    serve: impl FnOnce(Upgraded) -> F + Send + 'static,
) -> Response
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
            Ok(upgraded) => serve(upgraded).await,
            Err(error) => tracing::debug!(%error, "a client left during its handshake"),
        }
    });
    response
}
