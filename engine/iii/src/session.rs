//! One worker's connection, from its first frame to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use futures_util::StreamExt;

use crate::listener::Place;
use crate::socket::Socket;

/// How a connection began: what its authentication is told.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) query: String,
    pub(crate) peer: SocketAddr,
}

impl Opening {
    pub(crate) fn of(request: &Request, peer: SocketAddr) -> Self {
        let query = request.uri().query().unwrap_or_default().to_owned();
        Self { headers: request.headers().clone(), query, peer }
    }
}

/// Serves a connection until its end.
pub(crate) async fn serve(_place: Arc<Place>, _opening: Opening, mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}
