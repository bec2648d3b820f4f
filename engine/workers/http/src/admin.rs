//! Whether this lives (`/livez`) and takes requests (`/readyz`), for whoever watches over it, at a port of its own that no
//! client reaches. It must not know routes.

use std::sync::Arc;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;

use crate::body::Body;
use crate::door::Door;
use crate::serve::Ending;

/// How long a request may take to come.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Connections at a time; whoever watches needs one.
const CONNECTIONS_MAX: usize = 64;

/// Answers until it is told to end, and for as long as requests are still served then.
pub(crate) async fn accept(listener: TcpListener, door: Arc<Door>, ending: Ending) {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    // The last to go: while others end it is said that this takes no more.
    drop(ending.left);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let door = Arc::clone(&door);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&door, &request);
                std::future::ready(Ok::<_, std::convert::Infallible>(answer))
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

fn answer<B>(door: &Door, request: &Request<B>) -> Response<Body> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, told) = match request.uri().path() {
        _ if !reads => {
            (StatusCode::METHOD_NOT_ALLOWED, json!({"status": "only GET and HEAD are asked here"}))
        }
        "/livez" => (StatusCode::OK, json!({"status": "live"})),
        "/readyz" => {
            let (attached, ending) = (door.worker.is_attached(), door.is_ending());
            let ready = attached && !ending;
            let told = json!({
                "status": if ready { "ready" } else { "not ready" },
                "engine": if attached { "attached" } else { "not there" },
                "ending": ending,
                "requests": door.gate.taken(),
            });
            (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, told)
        }
        _ => (StatusCode::NOT_FOUND, json!({"status": "wanted is /livez or /readyz"})),
    };
    let mut response = Response::new(Body::full(told.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
