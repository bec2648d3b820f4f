//! What a function answered, as an answer of HTTP: `{status_code, headers, body}` as iii reads it, or any other value as the
//! body; null is 204. JSON passes as the text that it is. It must not know requests.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use ringway::{Encoding, Message};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::Body;
use crate::problem::{Code, Problem};

/// Headers that say how an answer is sent (RFC 9110, section 7.6.1), which is not the function's to say.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An answer that is whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer as iii's functions write it.
#[derive(Debug, Default)]
struct Shaped<'a> {
    status_code: Option<&'a RawValue>,
    headers: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
    body_base64: Option<&'a RawValue>,
    /// Whether there is anything else.
    others: bool,
}

impl<'de> Deserialize<'de> for Shaped<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Shaped<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shaped<'de>, A::Error> {
                let mut shaped = Shaped::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    match &*name {
                        "status_code" => shaped.status_code = Some(value),
                        "headers" => shaped.headers = Some(value),
                        "body" => shaped.body = Some(value),
                        "body_base64" => shaped.body_base64 = Some(value),
                        _ => shaped.others = true,
                    }
                }
                Ok(shaped)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Shaped<'_> {
    /// An object is an answer if it has a status, or has nothing but what an answer has.
    fn is_answer(&self) -> bool {
        let some = self.headers.is_some() || self.body.is_some() || self.body_base64.is_some();
        self.status_code.is_some() || (some && !self.others)
    }
}

fn wrong(text: String) -> Box<Problem> {
    // What a function did wrong is not the client's business.
    tracing::warn!(target: "ringway", "an answer of a function cannot be sent: {text}");
    Problem::new(Code::InvalidAnswer, "what the function answered is in the log")
}

/// A message whose body may be kept as it lies.
struct Kept(Message);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}

impl Answer {
    /// Reads what a function returned.
    ///
    /// # Errors
    /// It is none that can be sent; the reason is logged.
    pub(crate) fn of(reply: Message) -> Result<Self, Box<Problem>> {
        match reply.encoding() {
            Encoding::None => Ok(Self::empty(StatusCode::NO_CONTENT)),
            Encoding::Json => {
                let attached =
                    reply.attachments().first().map(|first| Bytes::copy_from_slice(first.payload()));
                Self::of_json(kept(reply), attached)
            }
            _ => {
                let mut answer = Self::empty(StatusCode::OK);
                answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                answer.body = kept(reply);
                Ok(answer)
            }
        }
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Reads JSON; `attached` is a body beside it.
    pub(crate) fn of_json(text: Bytes, attached: Option<Bytes>) -> Result<Self, Box<Problem>> {
        let first = text.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let shaped = match first {
            None => return Ok(Self::empty(StatusCode::NO_CONTENT)),
            Some(b'{') => {
                let read: Shaped<'_> = serde_json::from_slice(&text)
                    .map_err(|error| wrong(format!("it is no JSON: {error}")))?;
                read.is_answer().then_some(read)
            }
            Some(b'n') => return Ok(Self::empty(StatusCode::NO_CONTENT)),
            Some(_) => None,
        };
        let Some(shaped) = shaped else {
            let mut answer = Self::empty(StatusCode::OK);
            answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer.body = text;
            return Ok(answer);
        };
        let mut answer = Self::empty(status(shaped.status_code.map_or("null", RawValue::get))?);
        if let Some(headers) = shaped.headers {
            answer.headers = read_headers(headers.get())?;
        }
        let body = match (shaped.body_base64, attached) {
            (Some(encoded), _) => {
                let encoded = serde_json::from_str::<Cow<'_, str>>(encoded.get()).unwrap_or_default();
                let decoded = STANDARD.decode(&*encoded);
                Some(Bytes::from(decoded.map_err(|error| wrong(format!("its `body_base64`: {error}")))?))
            }
            (None, attached) => attached,
        };
        match body {
            Some(bytes) => {
                let bytes_type = HeaderValue::from_static("application/octet-stream");
                answer.headers.entry(CONTENT_TYPE).or_insert(bytes_type);
                answer.body = bytes;
            }
            None => answer.put(&text, shaped.body)?,
        }
        if matches!(answer.status.as_u16(), 100..200 | 204 | 304) {
            answer.body = Bytes::new();
            answer.headers.remove(CONTENT_TYPE);
        }
        Ok(answer)
    }

    /// Puts the body in as iii does: JSON, unless the function's own content type is another.
    fn put(&mut self, text: &Bytes, body: Option<&RawValue>) -> Result<(), Box<Problem>> {
        let own_type = self.headers.get(CONTENT_TYPE);
        let is_text = body.is_some_and(|body| body.get().starts_with('"'));
        match (own_type, body) {
            (None, None) => self.body = Bytes::from_static(b"{}"),
            (Some(_), None) => {}
            (Some(_), Some(body)) if body.get() == "null" => {}
            // iii sends a text as it is even where the type is JSON: it is JSON then that the function wrote itself.
            (Some(_), Some(body)) if is_text => {
                let plain: String = serde_json::from_str(body.get())
                    .map_err(|error| wrong(format!("its body is no text: {error}")))?;
                self.body = Bytes::from(plain);
            }
            (_, Some(body)) => self.body = text.slice_ref(body.get().as_bytes()),
        }
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        Ok(())
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Bytes of a message, copied where that is cheaper than to keep it.
fn kept(message: Message) -> Bytes {
    if message.body().len() <= 4096 {
        Bytes::copy_from_slice(message.body())
    } else {
        Bytes::from_owner(Kept(message))
    }
}

/// The status that a function gave; 200 where it gave none.
pub(crate) fn status(found: &str) -> Result<StatusCode, Box<Problem>> {
    if found == "null" {
        return Ok(StatusCode::OK);
    }
    let number = found.parse().ok().filter(|number: &u16| (200..600).contains(number));
    let status = number.and_then(|number| StatusCode::from_u16(number).ok());
    status.ok_or_else(|| wrong(format!("its `status_code` is {found}, wanted is 200 to 599")))
}

/// The headers that a function gave: an object of texts or of lists of texts, or a list of lines.
pub(crate) fn read_headers(text: &str) -> Result<HeaderMap, Box<Problem>> {
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(format!("its headers: {error}")))?;
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| -> Result<(), Box<Problem>> {
        let unfit = || wrong(format!("its header `{name}` is none, or its value"));
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| unfit())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| unfit())?;
        if !OF_CONNECTION.contains(&name.as_str()) {
            headers.append(name, value);
        }
        Ok(())
    };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(value) => add(&name, &value)?,
                    Value::Array(values) => {
                        for value in &values {
                            add(
                                &name,
                                value
                                    .as_str()
                                    .ok_or_else(|| wrong(format!("its header `{name}` is no text")))?,
                            )?;
                        }
                    }
                    Value::Number(number) => add(&name, &number.to_string())?,
                    Value::Bool(value) => add(&name, &value.to_string())?,
                    Value::Null => {}
                    Value::Object(_) => return Err(wrong(format!("its header `{name}` is an object"))),
                }
            }
        }
        Value::Array(lines) => {
            for line in &lines {
                let parts = line.as_str().and_then(|line| line.split_once(':'));
                let (name, value) =
                    parts.ok_or_else(|| wrong(format!("its header {line} is no line `Name: value`")))?;
                add(name, value)?;
            }
        }
        other => return Err(wrong(format!("its headers are {other}"))),
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Answer {
        Answer::of_json(Bytes::copy_from_slice(text.as_bytes()), None).unwrap()
    }

    fn shown(text: &str) -> (u16, String, String) {
        let answer = of(text);
        let kind = answer.headers.get(CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap()).to_owned();
        (answer.status.as_u16(), kind, String::from_utf8(answer.body.to_vec()).unwrap())
    }

    #[test]
    fn answers_are_sent_as_iii_sends_them() {
        let own = |kind: &str, body: &str| {
            format!(r#"{{"status_code":200,"headers":{{"Content-Type":"{kind}"}},"body":{body}}}"#)
        };
        for (text, status, kind, body) in [
            (r#"{"status_code":201,"body":{"id":7}}"#.to_owned(), 201, "application/json", r#"{"id":7}"#),
            (r#"{"body": "a"}"#.to_owned(), 200, "application/json", "\"a\""),
            (r#"{"status_code":202}"#.to_owned(), 202, "application/json", "{}"),
            (own("text/html", r#""<p>\"""#), 200, "text/html", "<p>\""),
            (own("text/csv", "null"), 200, "text/csv", ""),
            (own("text/csv", "[1]"), 200, "text/csv", "[1]"),
            (own("application/json", r#""{}""#), 200, "application/json", "{}"),
            (r#"{"status_code":204,"body":{"a":1}}"#.to_owned(), 204, "", ""),
            (
                r#"{"headers":["A: b","Content-Type: text/plain"],"body":"x"}"#.to_owned(),
                200,
                "text/plain",
                "x",
            ),
            (
                r#"{"status_code":200,"body_base64":"iQ==","headers":{"content-type":"text/x"}}"#
                    .replace("iQ==", "YQ=="),
                200,
                "text/x",
                "a",
            ),
        ] {
            assert_eq!(shown(&text), (status, kind.to_owned(), body.to_owned()), "{text}");
        }
    }

    #[test]
    fn any_other_value_is_the_body() {
        let json = "application/json";
        for text in [
            "\"hello\"",
            "[1,2]",
            "7",
            "true",
            r#"{"id":7}"#,
            "{}",
            r#"{"body":1,"id":7}"#,
            r#"{"headers":7,"x":1}"#,
        ] {
            assert_eq!(shown(text), (200, json.to_owned(), text.to_owned()));
        }
        assert_eq!(shown("null"), (204, String::new(), String::new()));
        assert_eq!(shown(""), (204, String::new(), String::new()));
    }

    #[test]
    fn what_cannot_be_sent_is_an_error() {
        for text in [
            r#"{"status_code":99}"#,
            r#"{"status_code":101}"#,
            r#"{"status_code":"200"}"#,
            r#"{"status_code":200,"headers":{"a b":"c"}}"#,
            r#"{"status_code":200,"headers":{"a":"b\r\nc: d"}}"#,
            r#"{"status_code":200,"headers":["nothing"]}"#,
            r#"{"status_code":200,"body_base64":"!"}"#,
            "{",
        ] {
            let found = Answer::of_json(Bytes::copy_from_slice(text.as_bytes()), None);
            assert_eq!(found.unwrap_err().code, Code::InvalidAnswer, "{text}");
        }
    }

    #[test]
    fn headers_may_come_several_times_and_do_not_say_how_the_answer_is_sent() {
        let answer = of(
            r#"{"headers":{"Set-Cookie":["a=1","b=2"],"Content-Length":"9","Keep-Alive":"a","Upgrade":"b","x-n":7},"body":1}"#,
        );
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        assert!(OF_CONNECTION.iter().all(|name| !answer.headers.contains_key(*name)));
        assert_eq!(answer.headers["x-n"], "7");
    }

    proptest! {
        #[test]
        fn no_answer_panics(text in "\\PC{0,100}|\\{(\"(status_code|headers|body|x)\":(1|\"a\"|\\[\\]|\\{\\}|null),?){0,4}\\}") {
            let _either_way = Answer::of_json(Bytes::from(text), None);
        }
    }
}
