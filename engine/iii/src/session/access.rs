//! What this connection may do, asked of those who know: the authentication function at its beginning, hooks before it
//! registers something, middleware in place of what it calls. It must not know how decisions are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::naming::{ENGINE_PREFIX, FUNCTIONS_INFO, FUNCTIONS_LIST, NAMESPACE_DEFAULT};
use ringway::{CallOptions, Encoding, Message};
use serde_json::{Value, json};

use super::calls::{ReplyTo, Shape};
use super::{Opening, Session};
use crate::listener::Place;
use crate::protocol::{Action, ErrorBody, Frame, Invoke, code};
use crate::rbac::{Decision, Granted};

/// How long an authentication function or a hook may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks who connects and what they may do; an error is what they are told before they are sent away.
pub(crate) async fn authenticate(place: &Place, opening: &Opening) -> Result<Granted, ErrorBody> {
    let rbac = place.rules.rbac.as_ref();
    let Some(function) = rbac.and_then(|rbac| rbac.auth_function_id.as_deref()) else {
        return Ok(Granted::everything());
    };
    let mut headers = BTreeMap::new();
    for (name, value) in &opening.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // Several of one name are one list, as HTTP has it.
        headers
            .entry(name.as_str())
            .and_modify(|known: &mut String| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert(value);
    }
    let request = json!({
        "headers": headers,
        "query_params": opening.query_params(),
        "ip_address": opening.peer.ip().to_string(),
    });
    let options = CallOptions::new().timeout(PATIENCE);
    let handle = place.shared.worker.handle_in(NAMESPACE_DEFAULT, function);
    let message = Message::from_vec(Encoding::Json, request.to_string().into_bytes());
    let started = tokio::task::block_in_place(|| handle.start(&message, &options));
    let refused = |message: String| {
        tracing::warn!(peer = %opening.peer, message, "a connection was refused");
        ErrorBody::new(code::AUTH_ERROR, message)
    };
    let answered = match started {
        Ok(pending) => pending.await,
        Err(error) => Err(error),
    };
    let answer = answered.map_err(|error| refused(error.message))?;
    let answer: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    Granted::read(&answer).map_err(refused)
}

impl Opening {
    /// The query, each name with all its values.
    fn query_params(&self) -> BTreeMap<String, Vec<String>> {
        let mut params = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            params.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        params
    }
}

impl Session {
    /// Whether the rules of the listener let a call pass as it is. If not, what becomes of it is settled here.
    pub(super) fn admits(self: &Arc<Self>, namespace: &str, invoke: &Invoke<'_>, reply: &ReplyTo) -> bool {
        let rules = &self.place.rules;
        if rules.rbac.is_none() && rules.middleware_function_id.is_none() {
            return true;
        }
        match self.granted.decide(rules.rbac.as_ref(), namespace, &invoke.function_id, None) {
            Decision::Deny(words) => {
                self.reply(reply, Err(ErrorBody::new(code::FORBIDDEN, words)));
                false
            }
            Decision::Allow => self.goes_straight(namespace, invoke, reply),
            Decision::ByMetadata => {
                // The engine is asked, and the call made when it has answered.
                let (session, namespace, reply) = (Arc::clone(self), namespace.to_owned(), reply.clone());
                let kept = Kept::of(invoke);
                tokio::spawn(async move {
                    let metadata = session.metadata_of(&namespace, &kept.function).await;
                    let rbac = session.place.rules.rbac.as_ref();
                    match session.granted.decide(rbac, &namespace, &kept.function, Some(&metadata)) {
                        Decision::Allow => kept.with(|invoke| {
                            if session.goes_straight(&namespace, invoke, &reply) {
                                session.call_admitted(&namespace, invoke, reply);
                            }
                        }),
                        Decision::Deny(words) => {
                            session.reply(&reply, Err(ErrorBody::new(code::FORBIDDEN, words)));
                        }
                        Decision::ByMetadata => {}
                    }
                });
                false
            }
        }
    }

    /// What a function's owner says of it; null where nothing is known.
    async fn metadata_of(&self, namespace: &str, function: &str) -> Value {
        let question = json!({"function_id": function, "namespace": namespace});
        let worker = &self.place.shared.worker;
        let answer = worker.trigger_json_async(FUNCTIONS_INFO, &question, &CallOptions::new()).await;
        answer.ok().and_then(|mut info| info.get_mut("metadata").map(Value::take)).unwrap_or_default()
    }

    /// Whether there is no middleware for a call; where there is, it is asked instead.
    fn goes_straight(self: &Arc<Self>, namespace: &str, invoke: &Invoke<'_>, reply: &ReplyTo) -> bool {
        let Some(middleware) = self.place.rules.middleware_function_id.as_deref() else { return true };
        if invoke.function_id.starts_with(ENGINE_PREFIX) {
            return true;
        }
        let action = match &invoke.action {
            Action::Void => Some(json!({"type": "void"}).to_string()),
            Action::Enqueue(queue) => Some(json!({"type": "enqueue", "queue": queue}).to_string()),
            Action::Wait | Action::Unknown(_) => None,
        };
        let request = Frame::object(invoke.data.len() + 256)
            .text("function_id", &invoke.function_id)
            .json("payload", invoke.data)
            .json("action", action.as_deref().unwrap_or("null"))
            .json("context", &self.granted.context.to_string())
            .text("namespace", namespace)
            .end();
        let route = self.route(namespace, middleware);
        self.start(route, request.as_bytes(), invoke, reply.clone(), Shape::Plain);
        false
    }

    /// Whether the client may call a function, as far as is known without asking anybody.
    pub(super) fn may_call(&self, namespace: &str, function: &str, metadata: Option<&Value>) -> bool {
        let rbac = self.place.rules.rbac.as_ref();
        rbac.is_none()
            || self.granted.decide(rbac, namespace, function, metadata.or(Some(&Value::Null)))
                == Decision::Allow
    }

    /// Whether an answer names functions that the client may not all know.
    pub(super) fn is_listing(&self, function: &str) -> bool {
        self.place.rules.rbac.is_some() && (function == FUNCTIONS_LIST || function == FUNCTIONS_INFO)
    }

    /// A list of functions as far as the client may call them.
    pub(super) fn only_callable(&self, listing: &str) -> Result<String, ErrorBody> {
        let mut listing: Value = serde_json::from_str(listing).unwrap_or_default();
        let callable = |function: &Value| {
            let text = |field: &str| function.get(field).and_then(Value::as_str).unwrap_or_default();
            self.may_call(text("namespace"), text("function_id"), function.get("metadata"))
        };
        if let Some(functions) = listing.get_mut("functions").and_then(Value::as_array_mut) {
            functions.retain(|function| function.get("error").is_some() || callable(function));
        } else if !callable(&listing) {
            let function = listing.get("function_id").and_then(Value::as_str).unwrap_or_default();
            let text = format!("function '{function}' not allowed (add to rbac.expose_functions)");
            return Err(ErrorBody::new(code::FORBIDDEN, text));
        }
        Ok(listing.to_string())
    }

    /// Asks a hook of the listener; none where it refuses. Without a hook nothing changes. Blocks until it has answered.
    pub(super) fn asked_hook(&self, hook: Option<&str>, mut request: Value) -> Option<Value> {
        let Some(hook) = hook else { return Some(json!({})) };
        request["context"] = self.granted.context.clone();
        let message = Message::from_vec(Encoding::Json, request.to_string().into_bytes());
        let handle = self.place.shared.worker.handle_in(NAMESPACE_DEFAULT, hook);
        match handle.call_with(&message, &CallOptions::new().timeout(PATIENCE)) {
            Ok(answer) => serde_json::from_slice(answer.body()).ok().filter(Value::is_object),
            Err(error) => {
                tracing::info!(worker = %self.uuid, hook, %error, "a hook refused a registration");
                None
            }
        }
    }
}

/// A call that is kept while somebody is asked about it.
struct Kept {
    function: String,
    data: String,
    action: Action<'static>,
    metadata: Option<String>,
    traceparent: Option<String>,
    baggage: Option<String>,
    caller: Option<String>,
    observe_depth: u32,
}

impl Kept {
    fn of(invoke: &Invoke<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            function: invoke.function_id.clone().into_owned(),
            data: invoke.data.to_owned(),
            action: match &invoke.action {
                Action::Wait => Action::Wait,
                Action::Void => Action::Void,
                Action::Enqueue(queue) => Action::Enqueue(queue.clone().into_owned().into()),
                Action::Unknown(said) => Action::Unknown(said.clone()),
            },
            metadata: invoke.metadata.map(str::to_owned),
            traceparent: owned(&invoke.traceparent),
            baggage: owned(&invoke.baggage),
            caller: invoke.caller.map(str::to_owned),
            observe_depth: invoke.observe_depth,
        }
    }

    /// The call as it came; where its answer goes is known already.
    fn with(self, make: impl FnOnce(&Invoke<'_>)) {
        make(&Invoke {
            invocation_id: None,
            function_id: self.function.as_str().into(),
            data: &self.data,
            action: self.action,
            metadata: self.metadata.as_deref(),
            traceparent: self.traceparent.as_deref().map(Into::into),
            baggage: self.baggage.as_deref().map(Into::into),
            namespace: None,
            caller: self.caller.as_deref(),
            observe_depth: self.observe_depth,
            observer: None,
        });
    }
}
