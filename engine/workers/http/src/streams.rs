//! Functions with streams: the body of a request as items, as it comes; items as the body of an answer, as they come, bytes
//! as they are, JSON as lines or as the events of `text/event-stream`. What iii's functions write into their `response`
//! channel to set status and headers means the same here. Whoever stops to read, or goes, ends the call. It must not know
//! what items mean.

mod pump;
pub(crate) mod sse;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use ringway::{CallError, Encoding, Handle, Message, Pending, StreamReader};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::body::{Body, BoxError};
use crate::config::route::Respond;
use crate::exchange::Exchange;
use crate::problem::{Code, Problem};
use crate::response::{self, Answer};
use crate::route::text;
use crate::{call, middleware, socket};
use pump::Pump;

/// How often an event stream without events says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where the items for the function come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// From a body that was read.
    Whole(Bytes),
    /// From one that is to be read.
    Coming(Incoming),
}

/// What an item says of how the answer is sent, as iii's channels have it: text of JSON.
#[derive(Debug)]
enum Control {
    Status(String),
    Headers(String),
}

/// Such an item as it is written.
#[derive(Debug, Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    status_code: Option<&'a RawValue>,
    #[serde(default, borrow)]
    headers: Option<&'a RawValue>,
}

/// How items become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Bytes,
    Lines,
    Events,
}

/// A call with streams that goes on.
#[derive(Debug)]
struct Going {
    reader: StreamReader,
    pending: Pending,
    pump: Pump,
}

impl Going {
    /// The next item; a body that could not be read ends the call.
    async fn next(&mut self) -> Result<Option<Message>, Box<Ended>> {
        tokio::select! {
            biased;
            problem = self.pump.failed() => Err(Box::new(Ended::Body(problem))),
            item = self.reader.recv_async() => item.map_err(|error| Box::new(Ended::Call(error))),
        }
    }
}

/// How a call with streams ended before its time.
#[derive(Debug)]
enum Ended {
    Body(Box<Problem>),
    Call(CallError),
}

impl Ended {
    fn problem(self, exchange: &Exchange<'_>) -> Box<Problem> {
        match self {
            Self::Body(problem) => problem,
            Self::Call(error) => exchange.failed(&error),
        }
    }
}

/// Calls a function with streams, and answers with what it sends.
///
/// # Errors
/// The call failed before anything was sent.
pub(crate) async fn answer(
    exchange: &Exchange<'_>,
    handle: &Handle,
    message: Message,
    source: Source,
    context: Map<String, Value>,
) -> Result<Response<Body>, Box<Problem>> {
    let once = exchange.route.config.respond == Respond::Once;
    let options = if once { exchange.options() } else { exchange.untimed() };
    let call = call::stream(handle, message, options).await.map_err(|error| exchange.failed(&error))?;
    let (writer, reader, pending) = call.split();
    if exchange.route.config.respond == Respond::Websocket {
        return socket::answer(exchange, writer, reader, pending);
    }
    let bytes_max = exchange.route.body_bytes_max;
    let pump = Pump::start(source, writer, bytes_max, exchange.door.config.body_timeout());
    let mut going = Going { reader, pending, pump };
    let (mut status, mut headers) = (None, HeaderMap::new());
    if exchange.route.config.respond == Respond::Sse {
        return Ok(respond(going, None, StatusCode::OK, headers, Framing::Events));
    }
    let until = tokio::time::Instant::now() + exchange.route.timeout;
    let first = loop {
        let next = tokio::time::timeout_at(until, going.next()).await;
        let next = next.map_err(|_| {
            Problem::new(Code::Timeout, "there was no answer in the time that this route has")
        })?;
        let Some(item) = next.map_err(|ended| ended.problem(exchange))? else { break None };
        match control(&item) {
            Some(Control::Status(given)) => status = Some(response::status(&given)?),
            Some(Control::Headers(given)) => headers.extend(response::read_headers(&given)?),
            None => break Some(item),
        }
    };
    let Some(first) = first else {
        return whole(exchange, going, until, (status, headers), context).await;
    };
    let asked = text(&exchange.parts.headers, ACCEPT).unwrap_or_default();
    let framing = match (exchange.route.config.respond, first.encoding()) {
        (_, encoding) if encoding != Encoding::Json => Framing::Bytes,
        (Respond::Ndjson, _) => Framing::Lines,
        _ if asked.contains("text/event-stream") => Framing::Events,
        _ => Framing::Lines,
    };
    Ok(respond(going, Some(first), status.unwrap_or(StatusCode::OK), headers, framing))
}

/// The answer of a function that sent no item of a body: what it returned, with the status and headers that it set.
async fn whole(
    exchange: &Exchange<'_>,
    going: Going,
    until: tokio::time::Instant,
    (status, headers): (Option<StatusCode>, HeaderMap),
    context: Map<String, Value>,
) -> Result<Response<Body>, Box<Problem>> {
    let Going { pending, pump, reader } = going;
    let reply = tokio::time::timeout_at(until, pending).await;
    let reply = reply
        .map_err(|_| Problem::new(Code::Timeout, "there was no answer in the time that this route has"))?;
    // Until here both were needed: dropped, they would have ended the call.
    drop((pump, reader));
    let set = status.is_some() || !headers.is_empty();
    let mut answer = Answer::of(reply.map_err(|error| exchange.failed(&error))?)?;
    if set && answer.status == StatusCode::NO_CONTENT {
        answer.status = StatusCode::OK;
    }
    answer.status = status.unwrap_or(answer.status);
    answer.headers.extend(headers);
    if !exchange.route.after.is_empty() || !exchange.door.after.is_empty() {
        answer = Box::pin(middleware::after(exchange, answer, context)).await?;
    }
    Ok(answer.into_response())
}

fn control(item: &Message) -> Option<Control> {
    // Most items are no such; what does not begin so need not be parsed.
    let begins = |bytes: &[u8]| bytes == b"\"set_s" || bytes == b"\"set_h";
    if item.encoding() != Encoding::Json || !item.body().windows(6).any(begins) {
        return None;
    }
    let said: Said<'_> = serde_json::from_slice(item.body()).ok()?;
    match &*said.kind {
        "set_status" => said.status_code.map(|given| Control::Status(given.get().to_owned())),
        "set_headers" => said.headers.map(|given| Control::Headers(given.get().to_owned())),
        _ => None,
    }
}

fn respond(
    going: Going,
    first: Option<Message>,
    status: StatusCode,
    headers: HeaderMap,
    framing: Framing,
) -> Response<Body> {
    let state = Some((going, first));
    let items = unfold(state, move |state| async move {
        let (mut going, first) = state?;
        let next = match first {
            Some(first) => Ok(Some(first)),
            None if framing == Framing::Events => {
                match tokio::time::timeout(KEEP_ALIVE, going.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        return Some((Ok(Frame::data(Bytes::from_static(b":\n\n"))), Some((going, None))));
                    }
                }
            }
            None => going.next().await,
        };
        match next {
            Ok(Some(item)) => Some((Ok(Frame::data(framed(&item, framing))), Some((going, None)))),
            Ok(None) => ended(going, framing).await.map(|last| (last, None)),
            Err(ended) => Some((broken(*ended, framing).await, None)),
        }
    });
    let mut response = Response::new(Body::streamed(StreamBody::new(items.fuse())));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let (kind, cache) = match framing {
        Framing::Bytes => ("application/octet-stream", None),
        Framing::Lines => ("application/x-ndjson", None),
        Framing::Events => ("text/event-stream", Some("no-cache")),
    };
    let headers = response.headers_mut();
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    if let Some(cache) = cache {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static(cache));
        // What nginx looks at, which would hold events back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}

type Sent = Result<Frame<Bytes>, BoxError>;

/// What is sent when a function has sent its last item: what it returned, to who reads events or lines.
async fn ended(going: Going, framing: Framing) -> Option<Sent> {
    let Going { pending, reader, pump } = going;
    let reply = pending.await;
    drop((reader, pump));
    match reply {
        Ok(reply) => {
            let text = reply.body();
            let says = reply.encoding() == Encoding::Json && !text.is_empty() && text != b"null";
            (says && framing == Framing::Events)
                .then(|| Ok(Frame::data(sse::event(Some("result"), None, text))))
        }
        Err(error) => Some(broken(Ended::Call(error), framing).await),
    }
}

/// What is sent when it has ended badly: an event that says so, or nothing, and the connection breaks off, so that nobody takes
/// what there is for all.
async fn broken(ended: Ended, framing: Framing) -> Sent {
    let (code, text) = match &ended {
        Ended::Body(problem) => (problem.code.as_str().to_owned(), problem.detail.to_string()),
        Ended::Call(error) => {
            let own = error.user_code.clone().unwrap_or_else(|| error.code.to_string());
            (
                own,
                if error.user_code.is_some() {
                    error.message.clone()
                } else {
                    "what happened is in the trace".to_owned()
                },
            )
        }
    };
    tracing::warn!(target: "ringway", code, ?ended, "a stream broke off");
    if framing == Framing::Events {
        let told = serde_json::json!({"code": code, "message": text}).to_string();
        return Ok(Frame::data(sse::event(Some("error"), None, told.as_bytes())));
    }
    // The connection is over with this, what lies in its buffer included: what came before is sent first.
    tokio::task::yield_now().await;
    Err(format!("the stream broke off: {code}").into())
}

fn framed(item: &Message, framing: Framing) -> Bytes {
    match framing {
        Framing::Events if item.encoding() == Encoding::Json => sse::item(item.body()),
        Framing::Lines if item.encoding() == Encoding::Json => {
            let mut line = Vec::with_capacity(item.body().len() + 1);
            // A line break between values would be read as the end of one.
            line.extend(
                item.body().iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }),
            );
            line.push(b'\n');
            Bytes::from(line)
        }
        _ => Bytes::copy_from_slice(item.body()),
    }
}
