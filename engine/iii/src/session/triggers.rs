//! Kinds of events that this client watches for, and triggers that it binds. It must not know what the events are.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ringway::protocol::FunctionId;
use ringway::protocol::control::{TriggerSpec, TriggerTypeSpec};
use ringway::protocol::naming::{NAMESPACE_DEFAULT, UNREGISTER_TRIGGER};
use ringway::{BindAnswer, CallError, ErrorCode, TriggerProvider};
use serde_json::{Value, json};

use super::Session;
use crate::protocol::{ErrorBody, Frame, NewTrigger, NewTriggerType, code};

/// Watches for events by asking the client to.
struct Provider {
    session: Weak<Session>,
    trigger_type: String,
    /// The triggers that the client was asked to watch for.
    bound: Mutex<HashSet<String>>,
}

impl TriggerProvider for Provider {
    fn bind(&self, _: &TriggerSpec) -> Result<(), CallError> {
        Ok(())
    }

    fn bind_later(&self, binding: &TriggerSpec, answer: BindAnswer) {
        let Some(session) = self.session.upgrade() else {
            return answer.send(Err(CallError::new(ErrorCode::WorkerGone, "the provider has left")));
        };
        self.bound.lock().insert(binding.id.clone());
        // The last question counts; what was asked before is answered by that.
        drop(session.bindings.lock().insert(binding.id.clone(), answer));
        let other = |namespace: Option<&str>| {
            namespace.filter(|namespace| *namespace != NAMESPACE_DEFAULT).map(str::to_owned)
        };
        let home = session.peer.get().map(|peer| peer.namespace.as_str());
        session.send(
            Frame::new("registertrigger")
                .text("id", &binding.id)
                .text("trigger_type", &binding.trigger_type)
                .text("function_id", &binding.function_id)
                .json("config", &binding.config.to_string())
                .maybe_json("metadata", binding.metadata.as_ref().map(ToString::to_string).as_deref())
                .maybe_text("namespace", other(binding.namespace.as_deref()).as_deref())
                .maybe_text("trigger_namespace", other(home).as_deref()),
        );
    }

    fn unbind(&self, id: &str) {
        if !self.bound.lock().remove(id) {
            return;
        }
        if let Some(session) = self.session.upgrade() {
            drop(session.bindings.lock().remove(id));
            session.send(
                Frame::new("unregistertrigger").text("id", id).text("trigger_type", &self.trigger_type),
            );
        }
    }
}

impl Session {
    /// The client says whether it watches for a trigger.
    pub(super) fn trigger_answered(&self, id: &str, error: Option<ErrorBody>) {
        let answer = self.bindings.lock().remove(id);
        if let Some(answer) = answer {
            answer.send(match error {
                None => Ok(()),
                Some(body) => Err(body.into_failure().into_error()),
            });
        }
    }

    pub(super) fn register_trigger_type(self: &Arc<Self>, said: NewTriggerType) {
        let NewTriggerType { id, description, trigger_request_format, call_request_format, namespace } = said;
        let Some(peer) = self.peer.get() else { return };
        if let Some(namespace) = namespace.filter(|namespace| *namespace != peer.namespace) {
            tracing::warn!(worker = %self.uuid, trigger_type = id, namespace, "a trigger type was refused: it is in another namespace than its worker");
            return;
        }
        if !self.granted.may_register_trigger_types() {
            tracing::warn!(worker = %self.uuid, trigger_type = id, "the client may not register trigger types");
            return;
        }
        let hook = self.place.rules.rbac.as_ref();
        let hook = hook.and_then(|rbac| rbac.on_trigger_type_registration_function_id.as_deref());
        let asked = json!({"trigger_type_id": id, "description": description});
        let Some(changed) = self.asked_hook(hook, asked) else { return };
        let text = |field: &str| changed.get(field).and_then(Value::as_str).map(str::to_owned);
        let (id, description) =
            (text("trigger_type_id").unwrap_or(id), text("description").unwrap_or(description));
        let provider =
            Provider { session: Arc::downgrade(self), trigger_type: id.clone(), bound: Mutex::default() };
        let spec = TriggerTypeSpec {
            id,
            description,
            configuration_schema: trigger_request_format,
            request_schema: call_request_format,
            response_schema: None,
        };
        if let Err(error) = peer.worker.register_trigger_type(spec, provider) {
            tracing::warn!(worker = %self.uuid, %error, "a trigger type was not registered");
        }
    }

    pub(super) fn unregister_trigger_type(&self, id: &str) {
        let Some(peer) = self.peer.get() else { return };
        if let Err(error) = peer.worker.unregister_trigger_type(id) {
            tracing::debug!(worker = %self.uuid, trigger_type = id, %error, "a trigger type was not taken back");
        }
    }

    pub(super) fn register_trigger(self: &Arc<Self>, said: NewTrigger) {
        let rules = self.place.rules.rbac.as_ref();
        if rules.is_none() {
            self.place.shared.keep_trigger(self, &said);
            if self.bridges(&said) {
                return;
            }
        }
        let NewTrigger { id, trigger_type, function_id, config, metadata, namespace, trigger_namespace } =
            said;
        let Some(peer) = self.peer.get() else { return };
        let blank = |namespace: &Option<String>| {
            namespace.as_ref().is_some_and(|namespace| namespace.trim().is_empty())
        };
        let refused =
            Refused { id: id.clone(), trigger_type: trigger_type.clone(), function_id: function_id.clone() };
        if blank(&namespace) || blank(&trigger_namespace) {
            let text = "the namespace is blank; leave it out to mean `default`";
            return self.trigger_refused(&refused, &ErrorBody::new(code::INVALID_NAMESPACE, text));
        }
        if !self.granted.may_bind(&trigger_type) {
            tracing::warn!(worker = %self.uuid, trigger_type, "the client may not bind triggers of this type");
            return;
        }
        let hook = self.place.rules.rbac.as_ref();
        let hook = hook.and_then(|rbac| rbac.on_trigger_registration_function_id.as_deref());
        let asked = json!({"trigger_id": id, "trigger_type": trigger_type, "function_id": function_id,
            "config": config, "metadata": metadata, "namespace": namespace});
        let Some(changed) = self.asked_hook(hook, asked) else { return };
        let text = |field: &str| changed.get(field).and_then(Value::as_str).map(str::to_owned);
        let (id, trigger_type) =
            (text("trigger_id").unwrap_or(id), text("trigger_type").unwrap_or(trigger_type));
        let config = changed.get("config").cloned().unwrap_or(config);
        let function_id = self.granted.prefixed(text("function_id").as_deref().unwrap_or(&function_id));
        let target = namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        // Its own functions it may bind, whoever may call them.
        let own = self.granted.function_registration_prefix.is_some() || self.has(&function_id);
        if !own && !self.may_call(target, &function_id, None) {
            let text = format!("function '{function_id}' not allowed (add to rbac.expose_functions)");
            return self.trigger_refused(&refused, &ErrorBody::new(code::FORBIDDEN, text));
        }
        let function = match FunctionId::new(&function_id) {
            Ok(function) => function,
            Err(error) => {
                let body = ErrorBody::new(code::TRIGGER_REGISTRATION_FAILED, error.to_string());
                return self.trigger_refused(&refused, &body);
            }
        };
        let mut spec = TriggerSpec::new(id, trigger_type, function);
        spec.namespace = Some(namespace.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()));
        spec.trigger_namespace = trigger_namespace;
        spec.config = config;
        spec.metadata = metadata;
        let (session, told) = (Arc::downgrade(self), refused.clone());
        let bound = peer.worker.bind_trigger(spec, move |answer| {
            if let (Err(error), Some(session)) = (answer, session.upgrade()) {
                session.trigger_refused(&told, &trigger_error(&error));
            }
        });
        if let Err(error) = bound {
            self.trigger_refused(&refused, &trigger_error(&error));
        }
    }

    /// Whether the client serves a function.
    fn has(&self, function: &str) -> bool {
        self.peer.get().is_some_and(|peer| {
            let worker = &peer.worker;
            worker.handle_in(&peer.namespace, function).sole_worker() == Some(self.worker_id)
        })
    }

    pub(super) fn trigger_refused(&self, refused: &Refused, error: &ErrorBody) {
        tracing::debug!(worker = %self.uuid, id = refused.id, ?error, "a trigger was refused");
        self.place.shared.forget_trigger(self, &refused.id);
        self.send(
            Frame::new("triggerregistrationresult")
                .text("id", &refused.id)
                .text("trigger_type", &refused.trigger_type)
                .text("function_id", &refused.function_id)
                .error(error),
        );
    }

    /// Takes a trigger back: its own, or, where the listener has no rules, one of another worker, as iii allows.
    pub(super) fn unregister_trigger(&self, id: &str) {
        let Some(peer) = self.peer.get() else { return };
        if self.unbridges(id) {
            return;
        }
        let own = peer.worker.unregister_trigger(id);
        if self.place.rules.rbac.is_some() {
            if let Err(error) = own {
                tracing::debug!(worker = %self.uuid, id, %error, "a trigger was not taken back");
            }
            return;
        }
        let other = peer.worker.trigger_json(UNREGISTER_TRIGGER, &json!({ "id": id }));
        if let (Err(own), Err(other)) = (own, other) {
            tracing::debug!(worker = %self.uuid, id, %own, %other, "a trigger was not taken back");
        }
    }
}

/// What a client is told of a trigger that was refused.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    id: String,
    trigger_type: String,
    function_id: String,
}

impl Refused {
    pub(super) fn of(trigger: &NewTrigger) -> Self {
        let NewTrigger { id, trigger_type, function_id, .. } = trigger;
        Self { id: id.clone(), trigger_type: trigger_type.clone(), function_id: function_id.clone() }
    }
}

fn trigger_error(error: &CallError) -> ErrorBody {
    let code = error.user_code.as_deref().unwrap_or(code::TRIGGER_REGISTRATION_FAILED);
    ErrorBody::new(code, error.message.clone())
}
