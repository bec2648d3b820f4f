//! Connections: accepted as many as may be, served by HTTP/1.1 or HTTP/2, let go when they are idle or do not get on, and at
//! the end in peace. It must not know what requests mean.

mod patient;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::Config;
use crate::door::{Door, Peer};
use crate::tls::Certificates;
use patient::{Activity, Patient};

/// Streams of one connection of HTTP/2 at a time.
const STREAMS_MAX: u32 = 256;

/// How long to wait after the system has refused a connection, for want of descriptors perhaps.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Whoever serves connections holds one; when all are gone, no connection is left.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) told: watch::Receiver<bool>,
    pub(crate) left: tokio::sync::mpsc::Sender<()>,
}

/// Accepts connections until it is told to end.
pub(crate) async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    tls: Option<Arc<Certificates>>,
    mut ending: Ending,
) {
    let builder = Arc::new(builder(&door.config));
    let room = Arc::new(Semaphore::new(door.config.connections_max));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.told.wait_for(|over| *over) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(target: "ringway", %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (door, builder) = (Arc::clone(&door), Arc::clone(&builder));
        tokio::spawn(connection(stream, address, door, tls.clone(), builder, ending.clone(), place));
    }
}

fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let header_bytes = u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX);
    // The patience below sees to what is slow, at one timer for each connection in place of one for each request.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(config.header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    door: Arc<Door>,
    tls: Option<Arc<Certificates>>,
    builder: Arc<Builder<TokioExecutor>>,
    ending: Ending,
    place: OwnedSemaphorePermit,
) {
    // Small answers go out at once.
    let _unsupported = stream.set_nodelay(true);
    let patience = Duration::from_millis(door.config.header_timeout_ms);
    let Some(tls) = tls else {
        let peer = Peer { address: address.ip(), port: address.port(), certificate: None };
        return serve(stream, peer, door, builder, ending, place).await;
    };
    let shaken = tokio::time::timeout(patience, tls.acceptor().accept(stream)).await;
    match shaken {
        Ok(Ok(stream)) => {
            let certificate = crate::tls::fingerprint(stream.get_ref().1);
            let peer = Peer { address: address.ip(), port: address.port(), certificate };
            serve(stream, peer, door, builder, ending, place).await;
        }
        Ok(Err(error)) => tracing::debug!(target: "ringway", %address, %error, "a connection was no TLS"),
        Err(_) => tracing::debug!(target: "ringway", %address, "a client took too long to begin TLS"),
    }
}

async fn serve<S>(
    stream: S,
    peer: Peer,
    door: Arc<Door>,
    builder: Arc<Builder<TokioExecutor>>,
    mut ending: Ending,
    place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new(place));
    let idle = Duration::from_millis(door.config.header_timeout_ms);
    let patient = Patient::new(stream, Arc::clone(&activity), idle, door.config.body_timeout());
    let peer = Arc::new(peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, peer, active) = (Arc::clone(&door), Arc::clone(&peer), activity.begin());
        async move {
            let mut response = door.answer(peer, request).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                active.upgraded(response.body_mut().take_held());
            }
            response.body_mut().hold(active);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(patient), service));
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(target: "ringway", error, "a connection ended");
                }
                return;
            }
            _ = ending.told.wait_for(|over| *over), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
