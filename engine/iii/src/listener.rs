//! Sockets and routes of one address: who connects, whether they may, and what they ask for. It must not know what a
//! connection says.

use std::net::{SocketAddr, TcpListener as Bound};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::config::Listener;
use crate::session::Opening;
use crate::shared::Shared;
use crate::{channels, otel, session, socket};

/// How long the listener rests when the system has no more sockets to give.
const REST: Duration = Duration::from_millis(50);

/// One address, with its rules.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rules: Listener,
}

/// Takes connections until the runtime ends.
pub(crate) async fn serve(bound: Bound, place: Arc<Place>) {
    let listener = match TcpListener::from_std(bound) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the iii listener could not be set up");
            return;
        }
    };
    let router = router(&place);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, Arc::clone(&place), router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the iii listener could not take a connection");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn router(place: &Arc<Place>) -> Router {
    Router::new()
        .route("/", get(worker))
        .route("/otel", get(telemetry))
        .route("/ws/channels/{id}", get(channel))
        .with_state(Arc::clone(place))
}

async fn connection(stream: TcpStream, peer: SocketAddr, place: Arc<Place>, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left at once");
        return;
    }
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let head = Duration::from_millis(place.rules.handshake_timeout_ms);
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

async fn worker(
    State(place): State<Arc<Place>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    if let Some(refusal) = refusal(&place, request.headers()) {
        return refusal;
    }
    let Some(admitted) = place.shared.admit() else { return full() };
    let opening = Opening::of(&request, peer);
    socket::upgrade(request, move |socket| async move {
        session::serve(place, opening, socket).await;
        drop(admitted);
    })
}

async fn telemetry(
    State(place): State<Arc<Place>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    if let Some(refusal) = refusal(&place, request.headers()) {
        return refusal;
    }
    let Some(admitted) = place.shared.admit() else { return full() };
    let opening = Opening::of(&request, peer);
    socket::upgrade(request, move |socket| async move {
        otel::serve(place, opening, socket).await;
        drop(admitted);
    })
}

/// Whoever has the key of a channel may take its end, from wherever.
async fn channel(
    State(place): State<Arc<Place>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let Some(admitted) = place.shared.admit() else { return full() };
    channels::connect(
        place.shared.channels.clone(),
        id,
        query.as_deref().unwrap_or_default(),
        request,
        admitted,
    )
}

fn full() -> Response {
    let text = "as many connections as `workers.iii.connections_max` allows are open";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text).into_response()
}

/// A page in a browser can connect to any address, so what it says of its origin must be known. Other clients say nothing.
fn refusal(place: &Place, headers: &HeaderMap) -> Option<Response> {
    let origin = headers.get(header::ORIGIN)?;
    let origin = origin.to_str().unwrap_or_default();
    if is_of_this_host(origin) || place.rules.origins.iter().any(|known| known == origin) {
        return None;
    }
    tracing::warn!(origin, "a page was refused; `workers.iii.origins` names those that may connect");
    let text = format!("the origin `{origin}` is not among `workers.iii.origins`");
    Some((StatusCode::FORBIDDEN, text).into_response())
}

/// Whether a page was served by this host itself.
fn is_of_this_host(origin: &str) -> bool {
    let Some(rest) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let host = match rest.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => rest.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_this_host_are_told_from_others() {
        for origin in
            ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80", "http://app.localhost"]
        {
            assert!(is_of_this_host(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://evil",
            "ftp://localhost",
        ] {
            assert!(!is_of_this_host(origin), "{origin}");
        }
    }
}
