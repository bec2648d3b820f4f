//! What is written down of a request with a key: JSON, so that a later version can read it. It must not know the store.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::response::Answer;

/// The format of a record.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// What the request was.
    pub(super) fingerprint: String,
    /// How long it is remembered, in milliseconds since 1970.
    pub(super) until_ms: u64,
    #[serde(flatten)]
    pub(super) state: State,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum State {
    /// The function was called, or is about to be.
    Begun {
        /// Until when whoever called it may be taken to be there, in milliseconds since 1970.
        lease_ms: u64,
    },
    /// It answered.
    Ended { status: u16, headers: Vec<(String, String)>, body: String },
}

impl Record {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == VERSION)
    }

    fn write(&self) -> Arc<[u8]> {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn begun(fingerprint: &str, until_ms: u64, lease_ms: u64) -> Arc<[u8]> {
        let state = State::Begun { lease_ms };
        Self { version: VERSION, fingerprint: fingerprint.to_owned(), until_ms, state }.write()
    }

    pub(super) fn ended(fingerprint: &str, until_ms: u64, answer: &Answer) -> Arc<[u8]> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let (status, body) = (answer.status.as_u16(), STANDARD.encode(&answer.body));
        let state = State::Ended { status, headers, body };
        Self { version: VERSION, fingerprint: fingerprint.to_owned(), until_ms, state }.write()
    }

    /// The answer, where there was one.
    pub(super) fn answer(self) -> Option<Answer> {
        let State::Ended { status, headers, body } = self.state else { return None };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(&value).ok()?);
        }
        let body = Bytes::from(STANDARD.decode(body).ok()?);
        Some(Answer { status: StatusCode::from_u16(status).ok()?, headers: map, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let mut answer = Answer::empty(StatusCode::CREATED);
        answer.headers.append("set-cookie", HeaderValue::from_static("a=1"));
        answer.headers.append("set-cookie", HeaderValue::from_static("b=2"));
        answer.body = Bytes::from_static(b"\x00\xff");
        let record = Record::read(&Record::ended("f", 7, &answer)).unwrap();
        assert_eq!((record.fingerprint.as_str(), record.until_ms), ("f", 7));
        assert_eq!(record.answer(), Some(answer));
        let begun = Record::read(&Record::begun("f", 7, 3)).unwrap();
        assert!(matches!(begun.state, State::Begun { lease_ms: 3 }) && begun.answer().is_none());
        assert!(Record::read(b"{}").is_none());
    }
}
