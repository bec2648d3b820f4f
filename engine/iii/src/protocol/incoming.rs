//! Messages of a client. Unknown fields are ignored, null is as good as absent, and payloads stay text. It must not know
//! what becomes of them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::ErrorBody;
use super::observing::{Ack, Delivered, LocalStats, NewObserver, ObservedItem, activation_of, ids};
use super::registration::{NewFunction, NewTrigger, NewTriggerType, Registration};
use super::values::{text, value, value_as};

/// A message that cannot be used. It is dropped; its connection stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is no JSON object, or has a field twice.
    #[error("wanted a JSON object, found something else: {0}")]
    Json(String),
    /// It does not say what it is.
    #[error("wanted a `type`, found none")]
    Type,
    /// Nobody knows what it is.
    #[error("wanted a known `type`, found `{0}`")]
    Unknown(String),
    /// Something that it needs is missing, or no text.
    #[error("wanted `{field}` in a `{kind}`, found none")]
    Missing {
        /// The message's type.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// What a client says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming<'a> {
    /// Its earlier connection is to be ended.
    Reattach {
        /// The earlier connection's worker.
        previous: Cow<'a, str>,
        /// The proof that it is its own.
        token: Option<Cow<'a, str>>,
    },
    /// Registers something, or takes it back.
    Register(Registration),
    /// Answers a binding that was handed to it.
    TriggerResult {
        /// The binding's id.
        id: Cow<'a, str>,
        /// Why it cannot be bound.
        error: Option<ErrorBody>,
    },
    /// Calls.
    Invoke(Invoke<'a>),
    /// Answers a call.
    Result {
        /// Which.
        invocation_id: Cow<'a, str>,
        /// How it ended.
        outcome: Outcome<'a>,
        /// What became of its observers.
        delivered: Delivered,
    },
    /// Accepts an observer of one of its functions, or does not.
    ObserverAck(Ack),
    /// Calls within the client that observers want to know of.
    Observed(Vec<ObservedItem<'a>>),
    /// How often it called itself.
    LocalStats(LocalStats),
    /// Wants a pong.
    Ping,
    /// Needs nothing: a pong, a service, or what only this side says.
    Nothing,
}

/// A call.
#[derive(Debug)]
pub struct Invoke<'a> {
    /// The caller's name for it; none where no answer is wanted.
    pub invocation_id: Option<Cow<'a, str>>,
    /// What is called.
    pub function_id: Cow<'a, str>,
    /// The payload, as JSON.
    pub data: &'a str,
    /// How it is called.
    pub action: Action<'a>,
    /// Passed to the handler beside the payload, as JSON.
    pub metadata: Option<&'a str>,
    /// W3C trace context.
    pub traceparent: Option<Cow<'a, str>>,
    /// W3C baggage.
    pub baggage: Option<Cow<'a, str>>,
    /// Where the function is; none: in `default`.
    pub namespace: Option<Cow<'a, str>>,
    /// The handler that calls, as JSON, where the client says so.
    pub caller: Option<&'a str>,
    /// How many observers there are between the first call and this one.
    pub observe_depth: u32,
    /// The observer whose target is called.
    pub observer: Option<String>,
}

/// How something is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// The answer is waited for.
    Wait,
    /// No answer is wanted.
    Void,
    /// A queue keeps it.
    Enqueue(Cow<'a, str>),
    /// Something newer.
    Unknown(String),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// With a value, as JSON; none for null.
    Value(Option<&'a str>),
    /// With an error.
    Error(ErrorBody),
}

/// Every field of every message; what a message does not know is ignored, whatever it is.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    invocation_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    action: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    baggage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_format: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow, default)]
    invocation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    trigger_request_format: Option<&'a RawValue>,
    #[serde(borrow, default)]
    call_request_format: Option<&'a RawValue>,
    #[serde(borrow, default)]
    trigger_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    config: Option<&'a RawValue>,
    #[serde(borrow, default)]
    trigger_namespace: Option<&'a RawValue>,
    #[serde(borrow, default)]
    previous_worker_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reattach_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    caller: Option<&'a RawValue>,
    #[serde(borrow, default)]
    observe_depth: Option<&'a RawValue>,
    #[serde(borrow, default)]
    activation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    matched: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delivered: Option<&'a RawValue>,
    #[serde(borrow, default)]
    observe: Option<&'a RawValue>,
    #[serde(borrow, default)]
    args_format: Option<&'a RawValue>,
    #[serde(borrow, default)]
    private: Option<&'a RawValue>,
    #[serde(borrow, default)]
    observable: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    target: Option<&'a RawValue>,
    #[serde(borrow, default)]
    max_fires: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires_in_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    max_in_flight: Option<&'a RawValue>,
    #[serde(borrow, default)]
    revision: Option<&'a RawValue>,
    #[serde(borrow, default)]
    items: Option<&'a RawValue>,
    #[serde(borrow, default)]
    functions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    window_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    dropped_reports: Option<&'a RawValue>,
}

/// Reads a message.
///
/// # Errors
/// [`DecodeError`]: what it lacks.
pub fn decode(message: &str) -> Result<Incoming<'_>, DecodeError> {
    if !message.trim_start().starts_with('{') {
        return Err(DecodeError::Json("it does not begin with a brace".to_owned()));
    }
    let fields: Fields<'_> =
        serde_json::from_str(message).map_err(|error| DecodeError::Json(error.to_string()))?;
    let kind = text(fields.kind).ok_or(DecodeError::Type)?;
    let register = |registration| Ok(Incoming::Register(registration));
    match &*kind {
        "invokefunction" => fields.invoke(),
        "invocationresult" => fields.result(),
        "registerfunction" => register(fields.register_function()?),
        "unregisterfunction" => register(Registration::NoFunction(fields.own_id("unregisterfunction")?)),
        "registertriggertype" => register(fields.register_trigger_type()?),
        "unregistertriggertype" => {
            register(Registration::NoTriggerType(fields.own_id("unregistertriggertype")?))
        }
        "registertrigger" => register(fields.register_trigger()?),
        "unregistertrigger" => register(Registration::NoTrigger(fields.own_id("unregistertrigger")?)),
        "triggerregistrationresult" => fields.trigger_result(),
        "reattach" => fields.reattach(),
        "observe" => register(fields.observe()?),
        "unobserve" => register(Registration::NoObserver(fields.own_id("unobserve")?)),
        "observerack" => fields.observer_ack(),
        "invocationsobserved" => Ok(Incoming::Observed(ObservedItem::all(fields.items))),
        "localinvocationstats" => Ok(Incoming::LocalStats(LocalStats {
            window_ms: value_as(fields.window_ms).unwrap_or_default(),
            functions: value_as(fields.functions).unwrap_or_default(),
            dropped: value_as(fields.dropped_reports).unwrap_or_default(),
        })),
        "ping" => Ok(Incoming::Ping),
        "pong" | "registerservice" | "workerregistered" | "registrationrejected" => Ok(Incoming::Nothing),
        other => Err(DecodeError::Unknown(other.to_owned())),
    }
}

fn wanted<'a>(
    found: Option<&'a RawValue>,
    kind: &'static str,
    field: &'static str,
) -> Result<Cow<'a, str>, DecodeError> {
    text(found).filter(|text| !text.is_empty()).ok_or(DecodeError::Missing { kind, field })
}

fn owned(found: Option<&RawValue>) -> Option<String> {
    text(found).map(Cow::into_owned)
}

impl<'a> Fields<'a> {
    fn own_id(&self, kind: &'static str) -> Result<String, DecodeError> {
        wanted(self.id, kind, "id").map(Cow::into_owned)
    }

    fn invoke(&self) -> Result<Incoming<'a>, DecodeError> {
        Ok(Incoming::Invoke(Invoke {
            invocation_id: text(self.invocation_id).filter(|id| !id.is_empty()),
            function_id: wanted(self.function_id, "invokefunction", "function_id")?,
            data: self.data.map_or("null", RawValue::get),
            action: action(self.action),
            metadata: self.metadata.map(RawValue::get),
            traceparent: text(self.traceparent),
            baggage: text(self.baggage),
            namespace: text(self.namespace),
            caller: self.caller.map(RawValue::get),
            observe_depth: value_as(self.observe_depth).unwrap_or_default(),
            observer: self.activation.and_then(activation_of),
        }))
    }

    fn result(&self) -> Result<Incoming<'a>, DecodeError> {
        let outcome = match self.error {
            Some(error) => Outcome::Error(error_body(error)),
            None => Outcome::Value(self.result.map(RawValue::get)),
        };
        let invocation_id = wanted(self.invocation_id, "invocationresult", "invocation_id")?;
        let delivered = Delivered {
            matched: self.matched.and_then(ids),
            by_host: value_as(self.delivered).unwrap_or_default(),
        };
        Ok(Incoming::Result { invocation_id, outcome, delivered })
    }

    fn register_function(&self) -> Result<Registration, DecodeError> {
        Ok(Registration::Function(Box::new(NewFunction {
            id: self.own_id("registerfunction")?,
            description: owned(self.description),
            request_format: value(self.request_format),
            response_format: value(self.response_format),
            metadata: value(self.metadata),
            invocation: value(self.invocation),
            observe: value(self.observe),
            args_format: value(self.args_format),
            private: value_as(self.private).unwrap_or_default(),
            observable: value_as(self.observable).unwrap_or(true),
        })))
    }

    fn observe(&self) -> Result<Registration, DecodeError> {
        Ok(Registration::Observer(Box::new(NewObserver {
            id: self.own_id("observe")?,
            source: value(self.source).unwrap_or_default(),
            target: value(self.target).unwrap_or_default(),
            metadata: value(self.metadata),
            max_fires: value(self.max_fires),
            expires_in_ms: value(self.expires_in_ms),
            max_in_flight: value(self.max_in_flight),
        })))
    }

    fn observer_ack(&self) -> Result<Incoming<'a>, DecodeError> {
        const KIND: &str = "observerack";
        Ok(Incoming::ObserverAck(Ack {
            function: wanted(self.function_id, KIND, "function_id")?.into_owned(),
            id: self.own_id(KIND)?,
            revision: value_as(self.revision).unwrap_or_default(),
            error: self.error.map(error_body),
        }))
    }

    fn register_trigger_type(&self) -> Result<Registration, DecodeError> {
        Ok(Registration::TriggerType(NewTriggerType {
            id: self.own_id("registertriggertype")?,
            description: owned(self.description).unwrap_or_default(),
            trigger_request_format: value(self.trigger_request_format),
            call_request_format: value(self.call_request_format),
            namespace: owned(self.namespace),
        }))
    }

    fn register_trigger(&self) -> Result<Registration, DecodeError> {
        const KIND: &str = "registertrigger";
        Ok(Registration::Trigger(NewTrigger {
            id: self.own_id(KIND)?,
            trigger_type: wanted(self.trigger_type, KIND, "trigger_type")?.into_owned(),
            function_id: wanted(self.function_id, KIND, "function_id")?.into_owned(),
            config: value(self.config).unwrap_or_default(),
            metadata: value(self.metadata),
            namespace: owned(self.namespace),
            trigger_namespace: owned(self.trigger_namespace),
        }))
    }

    fn trigger_result(&self) -> Result<Incoming<'a>, DecodeError> {
        let id = wanted(self.id, "triggerregistrationresult", "id")?;
        Ok(Incoming::TriggerResult { id, error: self.error.map(error_body) })
    }

    fn reattach(&self) -> Result<Incoming<'a>, DecodeError> {
        let previous = wanted(self.previous_worker_id, "reattach", "previous_worker_id")?;
        Ok(Incoming::Reattach { previous, token: text(self.reattach_token) })
    }
}

fn action(found: Option<&RawValue>) -> Action<'_> {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(rename = "type", borrow, default)]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        queue: Option<&'a RawValue>,
    }
    let Some(found) = found else { return Action::Wait };
    let unknown = || Action::Unknown(found.get().to_owned());
    let Ok(said) = serde_json::from_str::<Said<'_>>(found.get()) else { return unknown() };
    match (text(said.kind).as_deref(), text(said.queue)) {
        (Some("void"), _) => Action::Void,
        (Some("enqueue"), Some(queue)) => Action::Enqueue(queue),
        _ => unknown(),
    }
}

/// An error in whatever shape it came: what lacks a code has iii's word for that.
fn error_body(found: &RawValue) -> ErrorBody {
    #[derive(Deserialize)]
    struct Said {
        code: Option<Value>,
        message: Option<Value>,
        stacktrace: Option<Value>,
    }
    let plain = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    match serde_json::from_str::<Said>(found.get()) {
        Ok(said) => ErrorBody {
            code: said.code.map_or_else(|| "UNKNOWN".to_owned(), plain),
            message: said.message.map_or_else(|| found.get().to_owned(), plain),
            stacktrace: said.stacktrace.map(plain),
        },
        Err(_) => ErrorBody::new(
            "UNKNOWN",
            text(Some(found)).map_or_else(|| found.get().to_owned(), Cow::into_owned),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invoke(message: &str) -> Invoke<'_> {
        match decode(message).unwrap() {
            Incoming::Invoke(invoke) => invoke,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_is_read_however_it_is_written() {
        let call = invoke(
            r#"{"type":"invokefunction","invocation_id":"i","function_id":"a::b","data":{"x":[1, 2]},"metadata":null,
            "action":null,"namespace":"n","id":7,"later":{}}"#,
        );
        assert_eq!((call.invocation_id.as_deref(), &*call.function_id), (Some("i"), "a::b"));
        assert_eq!(
            (call.data, call.metadata, call.namespace.as_deref()),
            (r#"{"x":[1, 2]}"#, None, Some("n"))
        );
        assert_eq!(call.action, Action::Wait);
        let call = invoke(r#"{"function_id":"\u0061","type":"invokefunction"}"#);
        assert_eq!((call.invocation_id, &*call.function_id, call.data), (None, "a", "null"));
        let action = |json: &str| {
            let text = format!(r#"{{"type":"invokefunction","function_id":"f","action":{json}}}"#);
            match invoke(&text).action {
                Action::Enqueue(queue) => Action::Enqueue(queue.into_owned().into()),
                Action::Wait => Action::Wait,
                Action::Void => Action::Void,
                Action::Unknown(said) => Action::Unknown(said),
            }
        };
        assert_eq!(action(r#"{"type":"void"}"#), Action::Void);
        assert_eq!(action(r#"{"type":"enqueue","queue":"q"}"#), Action::Enqueue("q".into()));
        assert_eq!(action(r#"{"type":"enqueue"}"#), Action::Unknown(r#"{"type":"enqueue"}"#.into()));
        assert_eq!(action("3"), Action::Unknown("3".into()));
    }

    #[test]
    fn results_are_read_however_they_are_written() {
        let check = |message: &str, expected: Outcome<'_>| match decode(message).unwrap() {
            Incoming::Result { invocation_id, outcome, .. } => {
                assert_eq!((&*invocation_id, outcome), ("i", expected));
            }
            other => panic!("{other:?}"),
        };
        check(r#"{"type":"invocationresult","invocation_id":"i"}"#, Outcome::Value(None));
        check(r#"{"type":"invocationresult","invocation_id":"i","result":null}"#, Outcome::Value(None));
        check(
            r#"{"type":"invocationresult","invocation_id":"i","result":0,"error":null}"#,
            Outcome::Value(Some("0")),
        );
        check(
            r#"{"type":"invocationresult","invocation_id":"i","result":0,"error":{"code":"C","message":"m"}}"#,
            Outcome::Error(ErrorBody::new("C", "m")),
        );
        check(
            r#"{"type":"invocationresult","invocation_id":"i","error":"boom"}"#,
            Outcome::Error(ErrorBody::new("UNKNOWN", "boom")),
        );
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let check = |message: &str, words: &str| {
            let error = decode(message).unwrap_err().to_string();
            assert!(error.contains(words), "{message}: {error}");
        };
        check("", "JSON object");
        check("[]", "JSON object");
        check("{}", "`type`");
        check(r#"{"type":5}"#, "`type`");
        check(r#"{"type":"dance"}"#, "dance");
        check(r#"{"type":"registerfunction"}"#, "`id` in a `registerfunction`");
        check(r#"{"type":"registerfunction","id":""}"#, "`id`");
        check(r#"{"type":"invokefunction","data":1}"#, "function_id");
        check(r#"{"type":"registertrigger","id":"1","trigger_type":"t"}"#, "function_id");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _either_way = decode(&text);
        }

        #[test]
        fn any_fields_are_read_without_panic(
            kind in "(invokefunction|invocationresult|register(function|trigger|triggertype)|reattach|ping)",
            field in "(id|function_id|data|error|action|config|invocation_id|trigger_type|result)",
            json in "(null|[0-9]|\"[a-z\\\\n]{0,3}\"|\\{\"type\":\"void\"\\}|\\[\\]|\\{\"code\":1\\})",
        ) {
            let _either_way = decode(&format!(r#"{{"type":"{kind}","{field}":{json}}}"#));
        }
    }
}
