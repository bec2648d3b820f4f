//! What every answer gets before it is sent: names, what pages of other origins may read, an `ETag` or 304, compression.
//! It must not know what was asked.

use std::sync::Arc;

use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use ring::digest;
use ringway::protocol::ids::put_hex;
use tower::ServiceExt as _;
use tower_http::compression::Compression;
use tower_http::compression::predicate::SizeAbove;

use crate::body::Body;
use crate::door::{Door, Named, put_names};
use crate::route::Route;

/// Less than this is not compressed, in bytes: it would hardly be less.
const COMPRESSED_BYTES_MIN: u64 = 860;

/// Makes an answer ready.
pub(crate) async fn finish(
    door: &Door,
    route: Option<&Arc<Route>>,
    parts: &Parts,
    named: &Named,
    mut response: Response<Body>,
) -> Response<Body> {
    mark(door, route, parts, named, &mut response);
    let etag = route.map_or(door.config.etag, |route| route.etag);
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if etag && reads && response.status() == StatusCode::OK {
        tag(&mut response);
    }
    if reads && response.status() == StatusCode::OK && is_known(&parts.headers, response.headers()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().remove(CONTENT_LENGTH);
        return response;
    }
    let compressed = route.map_or(door.config.compression, |route| route.compression);
    if compressed && parts.headers.contains_key(ACCEPT_ENCODING) && may_be_compressed(&response) {
        return Box::pin(compress(parts, response)).await;
    }
    response
}

/// Names, and who may read.
pub(crate) fn mark(
    door: &Door,
    route: Option<&Arc<Route>>,
    parts: &Parts,
    named: &Named,
    response: &mut Response<Body>,
) {
    put_names(named, response);
    let policy = route.map_or(door.cors.as_ref(), |route| route.cors.as_ref());
    if let Some(policy) = policy {
        let _allowed = policy.mark(&parts.headers, response.headers_mut());
    }
}

/// Gives what is whole a tag by its bytes, unless it has one.
fn tag(response: &mut Response<Body>) {
    let stored = response.headers().get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    if response.headers().contains_key(ETAG) || stored.is_some_and(|value| value.contains("no-store")) {
        return;
    }
    let Some(bytes) = response.body().bytes().filter(|bytes| !bytes.is_empty()) else { return };
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut text = *b"W/\"000000000000000000000000\"";
    put_hex(hash.as_ref(), &mut text[3..27]);
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// Whether the client has what would be sent (RFC 9110, section 13.1.2: compared weakly).
fn is_known(asked: &HeaderMap, answer: &HeaderMap) -> bool {
    let Some(tag) = answer.get(ETAG).and_then(|tag| tag.to_str().ok()) else { return false };
    let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let own = weak(tag);
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|line| line.split(',')).any(|known| known.trim() == "*" || weak(known) == own)
}

fn may_be_compressed(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let unchanged = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    if headers.contains_key(CONTENT_ENCODING) || unchanged.is_some_and(|value| value.contains("no-transform"))
    {
        return false;
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let compact =
        ["image/", "video/", "audio/", "font/", "application/zip", "application/gzip", "application/pdf"];
    // Events are sent one by one; a compressor would hold them back.
    let is_text_image = kind.starts_with("image/svg");
    (is_text_image || !compact.iter().any(|compact| kind.starts_with(compact)))
        && !kind.starts_with("text/event-stream")
        && !kind.starts_with("application/x-ndjson")
        && !matches!(response.status().as_u16(), 101 | 204 | 206 | 304)
}

async fn compress(parts: &Parts, response: Response<Body>) -> Response<Body> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    for value in parts.headers.get_all(ACCEPT_ENCODING) {
        request.headers_mut().append(ACCEPT_ENCODING, value.clone());
    }
    let mut held = Some(response);
    let service = tower::service_fn(move |_: Request<()>| {
        let response = held.take().unwrap_or_else(|| Response::new(Body::empty()));
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    match Compression::new(service).compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN)).oneshot(request).await
    {
        Ok(response) => response.map(Body::streamed),
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(kind: &'static str, body: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::full(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    #[test]
    fn equal_bytes_have_equal_tags_that_clients_know_again() {
        let tagged = |body| {
            let mut response = response("text/plain", body);
            tag(&mut response);
            response.headers().get(ETAG).cloned()
        };
        assert_eq!(tagged("a"), tagged("a"));
        assert_ne!(tagged("a"), tagged("b"));
        assert_eq!(tagged(""), None);
        let known = |line: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
            let mut answer = HeaderMap::new();
            answer.insert(ETAG, HeaderValue::from_static("W/\"x\""));
            is_known(&asked, &answer)
        };
        assert!(known("\"x\"") && known("\"a\", W/\"x\"") && known("*") && !known("\"xy\""));
    }

    #[test]
    fn what_is_compact_or_comes_bit_by_bit_is_not_compressed() {
        for (kind, expected) in [
            ("application/json", true),
            ("image/svg+xml", true),
            ("image/png", false),
            ("text/event-stream", false),
        ] {
            assert_eq!(may_be_compressed(&response(kind, "a")), expected, "{kind}");
        }
    }
}
