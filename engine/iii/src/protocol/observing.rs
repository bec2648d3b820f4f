//! What clients say of observers: who wants one, who accepts one, which calls within a client one wants to know of. It must
//! not know what becomes of it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::ErrorBody;
use super::values::text;

/// An observer that a client wants. What is in it is read by whoever keeps observers, as each fault has an answer.
#[derive(Debug, Clone)]
pub struct NewObserver {
    /// Its id, chosen by the client.
    pub id: String,
    /// What is observed.
    pub source: Value,
    /// What is called.
    pub target: Value,
    /// Passed to the target beside its payload.
    pub metadata: Option<Value>,
    /// How often it fires at most.
    pub max_fires: Option<Value>,
    /// How long it lives, in milliseconds.
    pub expires_in_ms: Option<Value>,
    /// How many of its calls run at once.
    pub max_in_flight: Option<Value>,
}

/// A host's answer about an observer of one of its functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The function, as the host calls it.
    pub function: String,
    /// The observer.
    pub id: String,
    /// What the host was told with the observer.
    pub revision: u64,
    /// Why it is refused; none where it is accepted.
    pub error: Option<ErrorBody>,
}

/// What a host says, with the answer to a call, of those who observe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Those that want the call; none where the host does not choose.
    pub matched: Option<Vec<String>>,
    /// The host has told them itself.
    pub by_host: bool,
}

/// A call within a client that observers want to know of. Values are JSON.
#[derive(Debug, Default, Deserialize)]
pub struct ObservedItem<'a> {
    #[serde(borrow, default)]
    function_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    invocation_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    matched: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    caller: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    baggage: Option<&'a RawValue>,
    #[serde(default)]
    started_at_ms: Value,
    #[serde(default)]
    duration_ms: Value,
    #[serde(default)]
    observe_depth: Value,
    #[serde(default)]
    output_is_input: Value,
}

impl<'a> ObservedItem<'a> {
    /// All that can be read.
    pub(super) fn all(items: Option<&'a RawValue>) -> Vec<Self> {
        let items: Vec<&RawValue> =
            items.and_then(|items| serde_json::from_str(items.get()).ok()).unwrap_or_default();
        items.into_iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect()
    }

    /// The function, as its host calls it.
    #[must_use]
    pub fn function(&self) -> Cow<'a, str> {
        text(self.function_id).unwrap_or_default()
    }

    /// The call.
    #[must_use]
    pub fn invocation_id(&self) -> Cow<'a, str> {
        text(self.invocation_id).unwrap_or_default()
    }

    /// Those that want to know of it.
    #[must_use]
    pub fn matched(&self) -> Vec<String> {
        self.matched.and_then(ids).unwrap_or_default()
    }

    /// Whether it ended well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        text(self.status).is_none_or(|status| status == "success")
    }

    /// The payload, if it was captured.
    #[must_use]
    pub fn input(&self) -> Option<&'a str> {
        self.input.map(RawValue::get)
    }

    /// The value, if it was captured.
    #[must_use]
    pub fn output(&self) -> Option<&'a str> {
        if self.output_is_input == true { self.input() } else { self.output.map(RawValue::get) }
    }

    /// The error, if it was captured.
    #[must_use]
    pub fn error(&self) -> Option<&'a str> {
        self.error.map(RawValue::get)
    }

    /// Who called, if it was captured.
    #[must_use]
    pub fn caller(&self) -> Option<&'a str> {
        self.caller.map(RawValue::get)
    }

    /// What was beside the payload, if it was captured.
    #[must_use]
    pub fn metadata(&self) -> Option<&'a str> {
        self.metadata.map(RawValue::get)
    }

    /// W3C trace context.
    #[must_use]
    pub fn traceparent(&self) -> Option<Cow<'a, str>> {
        text(self.traceparent)
    }

    /// W3C baggage.
    #[must_use]
    pub fn baggage(&self) -> Option<Cow<'a, str>> {
        text(self.baggage)
    }

    /// When it began, in milliseconds of Unix time.
    #[must_use]
    pub fn started_at_ms(&self) -> u64 {
        self.started_at_ms.as_u64().unwrap_or_default()
    }

    /// How long it took, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> f64 {
        self.duration_ms.as_f64().unwrap_or_default()
    }

    /// How many observers there are between the first call and this one.
    #[must_use]
    pub fn observe_depth(&self) -> u32 {
        self.observe_depth.as_u64().and_then(|depth| depth.try_into().ok()).unwrap_or_default()
    }
}

/// How often a client called its own functions itself.
#[derive(Debug, Clone, Default)]
pub struct LocalStats {
    /// In what time, in milliseconds.
    pub window_ms: u64,
    /// Of each function.
    pub functions: Vec<LocalCalls>,
    /// Reports that the client could not make.
    pub dropped: Vec<DroppedReports>,
}

/// Calls of one function within its client.
#[derive(Debug, Clone, Deserialize)]
pub struct LocalCalls {
    /// The function, as its host calls it.
    pub function_id: String,
    /// How many.
    pub count: u64,
    /// Those that failed.
    #[serde(default)]
    pub errors: u64,
    /// How long all of them took, in milliseconds.
    #[serde(default)]
    pub duration_ms_sum: f64,
}

/// Reports of one function that its client could not make.
#[derive(Debug, Clone, Deserialize)]
pub struct DroppedReports {
    /// The function, as its host calls it.
    pub function_id: String,
    /// Why, in iii's codes.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// The texts of a list.
pub(super) fn ids(list: &RawValue) -> Option<Vec<String>> {
    serde_json::from_str(list.get()).ok()
}

/// The observer by which something is called.
pub(super) fn activation_of(said: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        observer_id: Option<String>,
    }
    serde_json::from_str::<Said>(said.get()).ok()?.observer_id
}

#[cfg(test)]
mod tests {
    use super::super::incoming::{Incoming, decode};
    use super::super::registration::Registration;

    #[test]
    fn reports_are_read_as_they_came() {
        let text = r#"{"type":"invocationsobserved","items":[
            {"function_id":"a::b","invocation_id":"I","matched":["o","p"],"status":"error","input":{"n": 1},
             "error":{"code":"E","message":"m"},"started_at_ms":5,"duration_ms":1.5,"observe_depth":2},
            {"function_id":"a::b","matched":["o"],"status":"success","input":[1],"output_is_input":true},
            7]}"#;
        let Incoming::Observed(items) = decode(text).unwrap() else { panic!() };
        let [first, second] = &items[..] else { panic!("{items:?}") };
        assert_eq!((&*first.function(), first.matched().len(), first.succeeded()), ("a::b", 2, false));
        assert_eq!((first.input(), first.output()), (Some(r#"{"n": 1}"#), None));
        assert_eq!((first.started_at_ms(), first.observe_depth()), (5, 2));
        assert_eq!((second.input(), second.output()), (Some("[1]"), Some("[1]")));
    }

    #[test]
    fn an_observer_needs_an_id_and_nothing_else_to_be_answered() {
        let Incoming::Register(Registration::Observer(said)) =
            decode(r#"{"type":"observe","id":"o","max_fires":"many"}"#).unwrap()
        else {
            panic!()
        };
        assert_eq!((said.id.as_str(), said.source.is_null()), ("o", true));
        assert!(decode(r#"{"type":"observe"}"#).is_err());
    }

    #[test]
    fn an_answer_says_who_wants_the_call() {
        let read = |more: &str| {
            let text = format!(r#"{{"type":"invocationresult","invocation_id":"I","result":1{more}}}"#);
            let Incoming::Result { delivered, .. } = decode(&text).unwrap() else { panic!() };
            (delivered.matched, delivered.by_host)
        };
        assert_eq!(read(""), (None, false));
        assert_eq!(read(r#","matched":[]"#), (Some(Vec::new()), false));
        assert_eq!(read(r#","matched":["o"],"delivered":true"#), (Some(vec!["o".to_owned()]), true));
        assert_eq!(read(r#","matched":null,"delivered":null"#), (None, false));
    }
}
