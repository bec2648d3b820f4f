//! A call of a function that somebody observes, from its beginning to its end, and what an observer is given of it. It must
//! not know who observes.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use iii_filter::Doc;
use serde_json::{Map, Value, json};

use super::spec::{Deliver, Name, Spec};
use crate::protocol::{CALLER, ErrorBody, Frame, Outcome};

/// A call that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) name: Name,
    pub(crate) invocation_id: String,
    /// The payload, without what this side puts in.
    input: String,
    caller: Option<String>,
    metadata: Option<String>,
    pub(crate) depth: u32,
    traceparent: Option<String>,
    baggage: Option<String>,
    started_at_ms: u64,
    started: Instant,
}

/// What is known of a call that begins.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    pub(crate) name: Name,
    pub(crate) invocation_id: String,
    pub(crate) input: &'a str,
    pub(crate) caller: Option<String>,
    pub(crate) metadata: Option<&'a str>,
    pub(crate) depth: u32,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) baggage: Option<&'a str>,
}

impl Begun {
    /// Keeps what observers may want to know of a call.
    pub(crate) fn now(beginning: Beginning<'_>) -> Box<Self> {
        let Beginning { name, invocation_id, input, caller, metadata, depth, traceparent, baggage } =
            beginning;
        Box::new(Self {
            name,
            invocation_id,
            input: without_caller(input).into_owned(),
            caller,
            // No metadata and null are the same.
            metadata: metadata.filter(|metadata| *metadata != "null").map(str::to_owned),
            depth,
            traceparent: traceparent.map(str::to_owned),
            baggage: baggage.map(str::to_owned),
            started_at_ms: now_ms(),
            started: Instant::now(),
        })
    }

    /// The call has ended.
    pub(crate) fn ended<'a>(&'a self, outcome: &'a Outcome<'_>) -> Ended<'a> {
        let (output, error) = match outcome {
            Outcome::Value(value) => (Some(value.unwrap_or("null")), None),
            Outcome::Error(error) => (None, Some(told(error).into())),
        };
        Ended {
            name: Cow::Borrowed(&self.name),
            invocation_id: self.invocation_id.as_str().into(),
            success: error.is_none(),
            input: Some(&self.input),
            output,
            error,
            caller: self.caller.as_deref(),
            metadata: self.metadata.as_deref(),
            started_at_ms: self.started_at_ms,
            duration_ms: self.started.elapsed().as_secs_f64() * 1e3,
            depth: self.depth,
            traceparent: self.traceparent.as_deref().map(Into::into),
            baggage: self.baggage.as_deref().map(Into::into),
        }
    }
}

/// An error as observers see it.
fn told(error: &ErrorBody) -> String {
    json!({ "code": error.code, "message": error.message }).to_string()
}

/// The time, in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A payload without who called, which a callee that passes its own payload on leaves in it.
fn without_caller(input: &str) -> Cow<'_, str> {
    if !input.contains(CALLER) {
        return input.into();
    }
    match serde_json::from_str::<Map<String, Value>>(input) {
        Ok(mut fields) => {
            fields.remove(CALLER);
            Value::Object(fields).to_string().into()
        }
        Err(_) => input.into(),
    }
}

/// A call that has ended; values are JSON, and absent where nobody captured them.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) name: Cow<'a, Name>,
    pub(crate) invocation_id: Cow<'a, str>,
    pub(crate) success: bool,
    pub(crate) input: Option<&'a str>,
    pub(crate) output: Option<&'a str>,
    pub(crate) error: Option<Cow<'a, str>>,
    pub(crate) caller: Option<&'a str>,
    pub(crate) metadata: Option<&'a str>,
    pub(crate) started_at_ms: u64,
    pub(crate) duration_ms: f64,
    pub(crate) depth: u32,
    pub(crate) traceparent: Option<Cow<'a, str>>,
    pub(crate) baggage: Option<Cow<'a, str>>,
}

/// What filters are held against.
#[derive(Debug)]
pub(crate) struct Document {
    input: Option<Value>,
    output: Option<Value>,
    error: Option<Value>,
    caller: Option<Value>,
    metadata: Option<Value>,
}

impl Document {
    /// As filters take it.
    pub(crate) fn view(&self) -> Doc<'_> {
        Doc {
            input: self.input.as_ref(),
            output: self.output.as_ref(),
            error: self.error.as_ref(),
            caller: self.caller.as_ref(),
            metadata: self.metadata.as_ref(),
        }
    }
}

impl Ended<'_> {
    /// What filters are held against. Costs the parsing of all values.
    pub(crate) fn document(&self) -> Document {
        let parsed = |json: Option<&str>| json.and_then(|json| serde_json::from_str(json).ok());
        Document {
            input: parsed(self.input),
            output: parsed(self.output),
            error: parsed(self.error.as_deref()),
            caller: parsed(self.caller),
            metadata: parsed(self.metadata),
        }
    }

    /// What an observer's target is called with.
    pub(crate) fn payload(&self, spec: &Spec, activation_id: &str) -> String {
        match spec.deliver {
            Deliver::Input => return self.input.unwrap_or("null").to_owned(),
            Deliver::Output => return self.output.unwrap_or("null").to_owned(),
            Deliver::Envelope => {}
        }
        let capture = spec.capture;
        let wanted = |is_wanted: bool, json: Option<&str>| json.filter(|_| is_wanted).map(str::to_owned);
        let (input, output) = (wanted(capture.input, self.input), wanted(capture.output, self.output));
        let room = input.as_ref().map_or(0, String::len) + output.as_ref().map_or(0, String::len) + 512;
        Frame::object(room)
            .text("observer_id", &spec.id)
            .text("activation_id", activation_id)
            .text("function_id", &self.name.id)
            .text("namespace", &self.name.namespace)
            .text("invocation_id", &self.invocation_id)
            .text("status", if self.success { "success" } else { "error" })
            .maybe_json("input", input.as_deref())
            .maybe_json("output", output.as_deref())
            .maybe_json("error", wanted(capture.error, self.error.as_deref()).as_deref())
            .maybe_json("caller", wanted(capture.caller, self.caller).as_deref())
            .maybe_json("metadata", wanted(capture.metadata, self.metadata).as_deref())
            .json("started_at_ms", &self.started_at_ms.to_string())
            .json("duration_ms", &json!(self.duration_ms).to_string())
            .end()
    }

    /// Who the target's caller is: the function that was called.
    pub(crate) fn as_caller(&self, host: Option<(&str, Option<&str>)>) -> String {
        let said = json!({ "function_id": self.name.id, "invocation_id": self.invocation_id }).to_string();
        match host {
            Some((worker, name)) => super::hop::stamped(Some(&said), worker, name),
            None => said,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observers::spec::observing;

    fn spec(source: &Value) -> Spec {
        observing(source.clone(), "a::t").unwrap()
    }

    fn begun(input: &str) -> Box<Begun> {
        Begun::now(Beginning {
            name: Name::new("default", "a::b"),
            invocation_id: "I".to_owned(),
            input,
            caller: Some(r#"{"worker_id":"W"}"#.to_owned()),
            metadata: Some("null"),
            depth: 0,
            traceparent: None,
            baggage: None,
        })
    }

    #[test]
    fn an_observer_is_given_what_it_captures() {
        let check = |source: &str, outcome: &Outcome<'_>, expected: Value| {
            let source: Value = serde_json::from_str(source).unwrap();
            let call = begun(r#"{"n":1,"_caller_worker_id":"W"}"#);
            let payload = call.ended(outcome).payload(&spec(&source), "A");
            let mut found: Value = serde_json::from_str(&payload).unwrap();
            if let Some(fields) = found.as_object_mut() {
                for field in ["started_at_ms", "duration_ms", "activation_id", "observer_id", "namespace"] {
                    fields.remove(field);
                }
            }
            assert_eq!(found, expected, "{source}");
        };
        let (well, badly) = (Outcome::Value(None), Outcome::Error(ErrorBody::new("E", "m")));
        let base = json!({ "function_id": "a::b", "invocation_id": "I" });
        let and = |more: Value| {
            let mut all = base.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        check(
            r#"{"function_id":"a::b"}"#,
            &well,
            and(
                json!({ "status": "success", "input": { "n": 1 }, "output": null, "caller": { "worker_id": "W" } }),
            ),
        );
        check(
            r#"{"function_id":"a::b","capture":["error","metadata"]}"#,
            &badly,
            and(json!({ "status": "error", "error": { "code": "E", "message": "m" } })),
        );
        check(r#"{"function_id":"a::b","capture":[]}"#, &well, and(json!({ "status": "success" })));
        check(r#"{"function_id":"a::b","deliver":"input"}"#, &well, json!({ "n": 1 }));
        check(r#"{"function_id":"a::b","deliver":"output"}"#, &Outcome::Value(Some("[2]")), json!([2]));
    }

    #[test]
    fn filters_see_all_of_a_call_whatever_is_captured() {
        let wants = |filters: Value| {
            let spec = spec(&json!({ "function_id": "a::b", "capture": [], "filters": filters }));
            let call = begun(r#"{"n":1,"_caller_worker_id":"W"}"#);
            let outcome = Outcome::Value(Some("true"));
            spec.filter.matches(&call.ended(&outcome).document().view())
        };
        assert!(wants(json!({ "input.n": { "$eq": 1 }, "output": { "$eq": true } })));
        assert!(wants(json!({ "caller.worker_id": { "$eq": "W" }, "metadata": { "$exists": false } })));
        assert!(!wants(json!({ "input._caller_worker_id": { "$exists": true } })));
        assert!(!wants(json!({ "error": { "$exists": true } })));
    }
}
