//! Messages to a client, written as text in one pass; what is JSON already is put in as it is. It must not know when they
//! are sent.

use std::fmt::Write;

use super::body::ErrorBody;
use super::values::is_object;

/// What stands for who called, in a payload that is an object.
pub(crate) const CALLER: &str = "_caller_worker_id";

/// A message on its way to be text.
#[derive(Debug)]
pub(crate) struct Frame(String);

impl Frame {
    /// A message of a type.
    pub(crate) fn new(kind: &str) -> Self {
        Self::with_room(kind, 128)
    }

    /// A message of a type that will have about so many bytes more.
    pub(crate) fn with_room(kind: &str, bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes + 64);
        text.push_str("{\"type\":\"");
        text.push_str(kind);
        text.push('"');
        Self(text)
    }

    /// An object that is no message, with room for about so many bytes.
    pub(crate) fn object(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes + 64);
        text.push('{');
        Self(text)
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(if self.0.len() > 1 { ",\"" } else { "\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// A field that is text.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        push_text(&mut self.0, text);
        self
    }

    /// A field that is text without anything to escape, such as an id that is made here.
    pub(crate) fn plain(mut self, name: &str, text: impl std::fmt::Display) -> Self {
        self.name(name);
        let _always_written = write!(self.0, "\"{text}\"");
        self
    }

    /// A field that is text, if there is any.
    pub(crate) fn maybe_text(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// A field whose JSON is there.
    pub(crate) fn json(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.0.push_str(json);
        self
    }

    /// A field whose JSON is there, if it is.
    pub(crate) fn maybe_json(self, name: &str, json: Option<&str>) -> Self {
        match json {
            Some(json) => self.json(name, json),
            None => self,
        }
    }

    /// The payload of a call; an object is told who called, whatever it says itself.
    pub(crate) fn payload(mut self, json: &str, caller: Option<&str>) -> Self {
        let Some(caller) = caller.filter(|_| is_object(json)) else { return self.json("data", json) };
        self.name("data");
        let said =
            json.contains(CALLER).then(|| serde_json::from_str::<serde_json::Map<_, _>>(json).ok()).flatten();
        let cleaned = said.map(|mut fields: serde_json::Map<String, serde_json::Value>| {
            fields.remove(CALLER);
            serde_json::Value::Object(fields).to_string()
        });
        let json = cleaned.as_deref().unwrap_or(json);
        // It ends in the brace that closes it.
        let open = json[..json.len() - 1].trim_end();
        self.0.push_str(open);
        if open.len() > 1 {
            self.0.push(',');
        }
        let _always_written = write!(self.0, "\"{CALLER}\":\"{caller}\"}}");
        self
    }

    /// The error of a result.
    pub(crate) fn error(mut self, error: &ErrorBody) -> Self {
        self.name("error");
        self.0.push_str("{\"code\":");
        push_text(&mut self.0, &error.code);
        self.0.push_str(",\"message\":");
        push_text(&mut self.0, &error.message);
        if let Some(trace) = &error.stacktrace {
            self.0.push_str(",\"stacktrace\":");
            push_text(&mut self.0, trace);
        }
        self.0.push('}');
        self
    }

    /// The text.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn push_text(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn objects_are_told_who_called() {
        let check = |data: &str, expected: Value| {
            let text = Frame::new("x").payload(data, Some("me")).end();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["data"], expected, "{text}");
            assert_eq!(text.matches(CALLER).count(), usize::from(expected.is_object()));
        };
        check("{}", json!({CALLER: "me"}));
        check("{ }", json!({CALLER: "me"}));
        check(r#"{"a":1 }"#, json!({"a": 1, CALLER: "me"}));
        check(r#"{"_caller_worker_id":"you","b":[2]}"#, json!({"b": [2], CALLER: "me"}));
        check("[1]", json!([1]));
        check("null", json!(null));
        check("\"{\"", json!("{"));
        let text = Frame::new("x").payload("{}", None).end();
        assert_eq!(text, r#"{"type":"x","data":{}}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written(text: String, code: String) {
            let error = ErrorBody { code, message: text.clone(), stacktrace: None };
            let frame = Frame::new("x").text("a", &text).error(&error).end();
            let read: Value = serde_json::from_str(&frame).unwrap();
            prop_assert_eq!(&read["a"], &Value::from(text.clone()));
            prop_assert_eq!(&read["error"]["message"], &Value::from(text));
        }
    }
}
