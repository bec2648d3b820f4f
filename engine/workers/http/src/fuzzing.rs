//! The parsers of this crate for fuzz targets, which see only what is public. It is compiled for them alone.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::config::route::BodyMode;
use crate::request::{self, Fields, Text};
use crate::response::Answer;
use crate::{proxy, streams, webhook};

/// What functions answer: an answer is one that can be sent.
pub fn answer(text: &[u8]) {
    if let Ok(answer) = Answer::of_json(Bytes::copy_from_slice(text), None) {
        let _sent = answer.into_response();
    }
    let event = streams::sse::item(text);
    assert!(event.ends_with(b"\n\n"));
}

/// Bodies of all types, of which JSON is made, and fields of forms.
///
/// # Panics
/// When what was made is no JSON.
pub fn body(text: &[u8]) {
    let kinds = [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "a/b",
    ];
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    for kind in kinds {
        let bytes = Bytes::copy_from_slice(text);
        let Ok(content) = runtime.block_on(request::read(BodyMode::Auto, Some(kind), &bytes)) else {
            continue;
        };
        let mut told = Text::default();
        content.write(told.raw("{"));
        told.raw("}");
        assert!(serde_json::from_slice::<Value>(&told.into_bytes()).is_ok(), "{kind}");
    }
    let _either_way = Fields::read(text);
}

/// Headers that are parsed here: signatures, and who asked.
///
/// # Panics
/// When a signature that nobody made holds.
pub fn head(text: &str) {
    let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
    if let Ok(network) = proxy::Network::parse(first) {
        let peer = std::net::IpAddr::from([10, 0, 0, 1]);
        let lines = [first.as_bytes(), second.as_bytes()];
        let _client = proxy::client(peer, lines.into_iter(), &[network]);
    }
    for scheme in ["github", "stripe", "standard", "hmac_sha256"] {
        let config = serde_json::json!({"scheme": scheme, "secret": "0123456789"});
        let Ok(settings) = serde_json::from_value::<webhook::Webhook>(config) else { continue };
        let Ok(checker) = settings.checker() else { continue };
        let mut headers = HeaderMap::new();
        for name in
            ["x-hub-signature-256", "stripe-signature", "webhook-signature", "webhook-id", "x-signature"]
        {
            if let Ok(value) = HeaderValue::from_str(first) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers.insert("webhook-timestamp", HeaderValue::from_static("0"));
        assert!(checker.verify(&headers, second.as_bytes(), 0).is_err());
    }
}
