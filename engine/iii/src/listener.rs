//! The routes of one address: who connects, whether they may, and what they ask for. It must not know what a
//! connection says.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use ringway_worker_listen::strange_origin;

use crate::config::Listener;
use crate::session::Opening;
use crate::shared::Shared;
use crate::socket::Socket;
use crate::{channels, otel, session, socket};

/// One address, with its rules.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rules: Listener,
}

pub(crate) fn router(place: &Arc<Place>) -> Router {
    Router::new()
        .route("/", get(worker))
        .route("/otel", get(telemetry))
        .route("/ws/channels/{id}", get(channel))
        .with_state(Arc::clone(place))
}

async fn worker(
    State(place): State<Arc<Place>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    admit(place, peer, request, session::serve)
}

async fn telemetry(
    State(place): State<Arc<Place>>,
    Extension(peer): Extension<SocketAddr>,
    request: Request,
) -> Response {
    admit(place, peer, request, otel::serve)
}

/// Has a client served whose page may connect and for whom there is a place.
fn admit<F>(
    place: Arc<Place>,
    peer: SocketAddr,
    request: Request,
    serve: impl FnOnce(Arc<Place>, Opening, Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    if let Some(refusal) = refusal(&place, request.headers()) {
        return refusal;
    }
    let Some(admitted) = place.shared.places.admit() else { return full() };
    let opening = Opening::of(&request, peer);
    socket::upgrade(request, move |socket| async move {
        serve(place, opening, socket).await;
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
    let Some(admitted) = place.shared.places.admit() else { return full() };
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

fn refusal(place: &Place, headers: &HeaderMap) -> Option<Response> {
    let origin = strange_origin(headers, &place.rules.origins)?;
    tracing::warn!(origin, "a page was refused; `workers.iii.origins` names those that may connect");
    let text = format!("the origin `{origin}` is not among `workers.iii.origins`");
    Some((StatusCode::FORBIDDEN, text).into_response())
}
