//! Who may connect: how many, from which pages, and whom the auth function lets in. Everything that goes wrong while that is
//! found out keeps a client out. It must not know what a client says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ringway::{CallError, CallOptions, ErrorCode, Worker};
use ringway_worker_listen::{Admitted, Places, strange_origin};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::client;
use crate::config::Config;
use crate::counters::{Counting, count};
use crate::socket::upgrade;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) worker: Worker,
    pub(crate) config: Config,
    pub(crate) counters: Counting,
    pub(crate) places: Arc<Places>,
    pub(crate) runtime: Handle,
    closing: watch::Sender<bool>,
}

impl Place {
    pub(crate) fn new(worker: Worker, config: Config, runtime: Handle) -> Self {
        let places = Places::new(config.connections_max);
        let closing = watch::channel(false).0;
        Self { worker, config, counters: Counting::default(), places, runtime, closing }
    }

    /// Has all clients told that the engine ends.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Ready when it ends.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is here, so it is not gone.
        let _closed = closing.wait_for(|closing| *closing).await;
    }
}

pub(crate) fn router(place: &Arc<Place>) -> Router {
    Router::new().route("/", get(connect)).with_state(Arc::clone(place))
}

async fn connect(State(place): State<Arc<Place>>, request: Request) -> Response {
    // The request itself cannot be held while the auth function is asked.
    let entered = match enter(&place, &request) {
        Ok((admitted, asked)) => ask(&place, asked).await.map(|context| (admitted, context)),
        Err(refusal) => Err(refusal),
    };
    match entered {
        Ok((admitted, context)) => {
            let runtime = place.runtime.clone();
            upgrade(request, &runtime, move |socket| async move {
                client::serve(place, context, socket).await;
                drop(admitted);
            })
        }
        Err((status, text)) => {
            count(&place.counters.refused);
            tracing::info!(%status, text, "a client was refused");
            (status, text).into_response()
        }
    }
}

/// What can be told at once; gives the client's place, and what the auth function is told of it.
fn enter(place: &Arc<Place>, request: &Request) -> Result<(Admitted, Value), (StatusCode, String)> {
    if let Some(origin) = strange_origin(request.headers(), &place.config.origins) {
        let text = format!("the origin `{origin}` is not among `workers.stream-socket.origins`");
        return Err((StatusCode::FORBIDDEN, text));
    }
    let Some(admitted) = place.places.admit() else {
        let text =
            "as many clients as `workers.stream-socket.connections_max` allows are connected".to_owned();
        return Err((StatusCode::SERVICE_UNAVAILABLE, text));
    };
    Ok((admitted, asked(request)))
}

/// Asks the auth function, if there is one; gives its context.
async fn ask(place: &Place, asked: Value) -> Result<Value, (StatusCode, String)> {
    let Some(function) = &place.config.auth_function else { return Ok(Value::Null) };
    let options = CallOptions::new().timeout(Duration::from_millis(place.config.auth_timeout_ms));
    context(place.worker.trigger_json_async(function, &asked, &options).await)
}

/// What the auth function's answer means. Only an object that does not say otherwise lets a client in.
fn context(answer: Result<Value, CallError>) -> Result<Value, (StatusCode, String)> {
    match answer {
        Ok(Value::Object(mut answer))
            if answer.get("unauthorized").is_none_or(|no| no == &Value::Bool(false)) =>
        {
            Ok(answer.remove("context").unwrap_or_default())
        }
        Ok(_) => Err((StatusCode::UNAUTHORIZED, "the auth function did not let the client in".to_owned())),
        // Its words are for whoever runs the engine, not for whoever knocks.
        Err(error) if error.code == ErrorCode::HandlerError => {
            tracing::warn!(%error, "the auth function refused a client");
            Err((StatusCode::UNAUTHORIZED, "the auth function did not let the client in".to_owned()))
        }
        Err(error) => {
            tracing::warn!(%error, "the auth function could not be asked, so nobody is let in");
            Err((StatusCode::SERVICE_UNAVAILABLE, "the auth function could not be asked".to_owned()))
        }
    }
}

/// What the auth function is told.
fn asked(request: &Request) -> Value {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        query.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    let extensions = request.extensions();
    let peer = extensions
        .get::<SocketAddr>()
        .or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer));
    let addr = peer.map(ToString::to_string).unwrap_or_default();
    json!({"headers": headers, "path": request.uri().path(), "query_params": query, "addr": addr})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_lets_in() {
        for (yes, expected) in [
            (json!({"context": {"user": 7}}), json!({"user": 7})),
            (json!({}), Value::Null),
            (json!({"unauthorized": false, "context": 1}), json!(1)),
        ] {
            assert_eq!(context(Ok(yes)).ok(), Some(expected));
        }
        for no in [
            json!(null),
            json!(true),
            json!("ok"),
            json!([]),
            json!({"unauthorized": true}),
            json!({"unauthorized": "no"}),
        ] {
            assert_eq!(context(Ok(no.clone())).unwrap_err().0, StatusCode::UNAUTHORIZED, "{no}");
        }
        let check = |code: ErrorCode, status: StatusCode| {
            let (found, text) = context(Err(CallError::new(code, "secret words"))).unwrap_err();
            assert_eq!(found, status);
            assert!(!text.contains("secret"));
        };
        check(ErrorCode::HandlerError, StatusCode::UNAUTHORIZED);
        for broken in [
            ErrorCode::NotFound,
            ErrorCode::DeadlineExceeded,
            ErrorCode::WorkerGone,
            ErrorCode::HandlerPanicked,
        ] {
            check(broken, StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn the_auth_function_sees_all_that_was_said() {
        let request = Request::builder()
            .uri("/x?token=a&token=b%20c&empty")
            .header("X-A", "1")
            .header("x-a", "2")
            .extension("10.0.0.1:5".parse::<SocketAddr>().unwrap())
            .body(axum::body::Body::empty())
            .unwrap();
        let expected = json!({
            "headers": {"x-a": "1, 2"}, "path": "/x", "addr": "10.0.0.1:5",
            "query_params": {"token": ["a", "b c"], "empty": [""]},
        });
        assert_eq!(asked(&request), expected);
    }
}
