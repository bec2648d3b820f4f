//! What a client registers, in the order in which it says so, once it is known in which namespace. It must not know
//! sockets.

use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::naming::is_reserved;
use ringway::{CallError, Context, ErrorCode, Function, HandlerResult, Message};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

use super::announce::Announcement;
use super::{Serving, Session, bodies, outbound, requests};
use crate::config::Replicas;
use crate::observers::Declared;
use crate::protocol::{ErrorBody, Frame, NewFunction, Registration, code, uuid_of};

/// The variable that overrides how long registrations wait for a namespace.
const GRACE: &str = "III_NAMESPACE_GRACE_MS";

/// How many registrations are taken together.
const BATCH_MAX: usize = 1024;

/// Something to register, and the room that it takes until that is done.
#[derive(Debug)]
pub(super) struct Registering {
    pub(super) registration: Registration,
    pub(super) _held: OwnedSemaphorePermit,
}

/// A function to register, and what is said of it beyond that.
struct Wanted {
    function: Function,
    own: Arc<str>,
    declared: Declared,
    elsewhere: bool,
}

/// Waits until the client has said who it is, or has not for too long; then takes what it registers, in order.
pub(super) async fn run(
    session: Arc<Session>,
    mut announced: UnboundedReceiver<Announcement>,
    mut queue: UnboundedReceiver<Registering>,
) {
    let grace = std::env::var(GRACE).ok().and_then(|text| text.trim().parse().ok());
    let grace = grace.unwrap_or(session.place.shared.config.registration_namespace_grace_ms);
    let first = tokio::time::timeout(Duration::from_millis(grace), announced.recv()).await;
    if first.is_err() {
        tracing::warn!(
            worker = %session.uuid, grace_ms = grace,
            "a client did not say who it is; what it registers goes into the namespace `default`"
        );
    }
    let attaching = Arc::clone(&session);
    let attach = move || attaching.attach(first.ok().flatten().as_ref());
    if !tokio::task::spawn_blocking(attach).await.unwrap_or(false) {
        return;
    }
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(announcement) = announced.recv() => {
                let session = Arc::clone(&session);
                drop(tokio::task::spawn_blocking(move || session.describe(&announcement)).await);
            }
            taken = queue.recv_many(&mut batch, BATCH_MAX) => {
                if taken == 0 {
                    return;
                }
                let (session, batch) = (Arc::clone(&session), std::mem::take(&mut batch));
                if let Err(error) = tokio::task::spawn_blocking(move || session.register(batch)).await {
                    tracing::error!(%error, "registrations were lost");
                }
            }
        }
    }
}

impl Session {
    /// Registers in order; functions that follow each other go in one message. Blocks until the engine has answered.
    fn register(self: &Arc<Self>, batch: Vec<Registering>) {
        let mut functions = Vec::new();
        for Registering { registration, _held } in batch {
            match registration {
                Registration::Function(function) => functions.extend(self.function(*function)),
                other => {
                    self.register_functions(std::mem::take(&mut functions));
                    self.register_other(other);
                }
            }
        }
        self.register_functions(functions);
    }

    fn register_other(self: &Arc<Self>, registration: Registration) {
        match registration {
            Registration::Function(_) => {}
            Registration::NoFunction(id) => self.unregister_function(&id),
            Registration::TriggerType(asked) => self.register_trigger_type(asked),
            Registration::NoTriggerType(id) => self.unregister_trigger_type(&id),
            Registration::Trigger(asked) => self.register_trigger(asked),
            Registration::NoTrigger(id) => self.unregister_trigger(&id),
            Registration::Observer(asked) => self.observe(&asked),
            Registration::NoObserver(id) => self.unobserve(&id),
        }
    }

    fn function(self: &Arc<Self>, said: NewFunction) -> Option<Wanted> {
        let declared = match self.declared(&said) {
            Ok(declared) => declared,
            Err(error) => {
                self.refused(&said.id, &error);
                return None;
            }
        };
        let NewFunction {
            id,
            description,
            request_format,
            response_format,
            metadata,
            invocation,
            private,
            ..
        } = said;
        let id = id.as_str();
        if !self.granted.may_register_functions() {
            tracing::warn!(worker = %self.uuid, function = id, "the client may not register functions");
            return None;
        }
        let namespace = self.peer.get().map(|peer| peer.namespace.as_str());
        let hook = self.place.rules.rbac.as_ref();
        let hook = hook.and_then(|rbac| rbac.on_function_registration_function_id.as_deref());
        let asked = json!({"function_id": id, "description": description, "metadata": metadata,
            "namespace": namespace});
        let changed = self.asked_hook(hook, asked)?;
        let text = |field: &str| changed.get(field).and_then(Value::as_str).map(str::to_owned);
        let registered = self.granted.prefixed(text("function_id").as_deref().unwrap_or(id));
        let description = text("description").or(description);
        let metadata = changed.get("metadata").filter(|value| !value.is_null()).cloned().or(metadata);
        let (session, name) = (Arc::downgrade(self), Arc::<str>::from(id));
        let known = Arc::<str>::from(registered.as_str());
        // Both ask at once, so that calls reach the client in the order in which they came.
        let there = move || -> HandlerResult<Arc<Self>> {
            let gone = || CallError::new(ErrorCode::WorkerGone, "the worker has left").into();
            session.upgrade().ok_or_else(gone)
        };
        let own = Arc::clone(&name);
        let (whether, its, same) = (there.clone(), Arc::clone(&name), Arc::clone(&known));
        let handler = move |context: Context, message: Message| {
            requests::answered(
                there().and_then(|session| session.serve((&name, &known), &context, &message, None)),
            )
        };
        let streamed = move |context: Context, message: Message, input, output| {
            let begun =
                whether().and_then(|session| session.serve_streams((&its, &same), &context, &message));
            bodies::answered(begun, input, output)
        };
        let elsewhere = invocation.is_some();
        self.keep(&registered, Serving { own: id.into(), elsewhere, private });
        let mut function = match invocation {
            // The client does not serve it: somebody else does, over HTTP.
            Some(invocation) => outbound::function(&registered, invocation, Arc::downgrade(self)),
            None => Function::json_text_or_stream_async(&registered, handler, streamed),
        };
        if let Some(description) = description {
            function = function.description(description);
        }
        if let Some(metadata) = metadata {
            function = function.metadata(metadata);
        }
        let function = function.schema(request_format, response_format);
        let function = match self.place.shared.config.replicas {
            Replicas::Reject => function.exclusive(),
            Replicas::Share => function,
        };
        Some(Wanted { function, own, declared, elsewhere })
    }

    fn register_functions(&self, functions: Vec<Wanted>) {
        let Some(peer) = self.peer.get() else { return };
        // An id that is none is refused alone; the engine would refuse all.
        let (valid, wrong): (Vec<_>, Vec<_>) = functions
            .into_iter()
            .partition(|wanted| ringway::protocol::FunctionId::new(wanted.function.id()).is_ok());
        for wanted in &wrong {
            tracing::warn!(worker = %self.uuid, function = wanted.function.id(), "the id of a function is not valid");
        }
        if valid.is_empty() {
            return;
        }
        let split = |wanted: Wanted| {
            let id = wanted.function.id().to_owned();
            (wanted.function, (id, wanted.own, wanted.declared, wanted.elsewhere))
        };
        let (functions, said): (Vec<_>, Vec<_>) = valid.into_iter().map(split).unzip();
        match peer.worker.register_each(functions) {
            Ok(results) => {
                for ((id, own, declared, elsewhere), result) in said.into_iter().zip(results) {
                    match result {
                        Ok(()) => self.hosts(&id, &own, declared, elsewhere),
                        Err(error) => self.rejected(&id, &error),
                    }
                }
            }
            Err(error) => tracing::warn!(worker = %self.uuid, %error, "functions were not registered"),
        }
    }

    /// Tells the client that a function is somebody else's.
    fn rejected(&self, id: &str, error: &CallError) {
        let Some(peer) = self.peer.get() else { return };
        let serving = self.serving(id);
        let own = serving.as_ref().map_or(id, |serving| &serving.own);
        tracing::warn!(worker = %self.uuid, function = id, %error, "a function was not registered");
        let catalog = peer.worker.catalog();
        let owner = catalog.functions.iter().find(|function| {
            function.id.as_str() == id
                && function.namespace == peer.namespace
                && function.worker != self.worker_id
        });
        let owner = owner.filter(|_| !is_reserved(id)).map(|function| uuid_of(function.worker));
        self.send(
            Frame::new("registrationrejected")
                .text("code", code::FUNCTION_NAMESPACE_CONFLICT)
                .text("namespace", &peer.namespace)
                .text("function_id", own)
                .text("owner_worker_id", &owner.unwrap_or_default()),
        );
    }

    /// Tells the client why one of its functions is none.
    fn refused(&self, own: &str, error: &ErrorBody) {
        tracing::warn!(worker = %self.uuid, function = own, error = error.message, "a function was not registered");
        if !self.features().observes {
            // Others take a code that they do not know for the end of their connection.
            return;
        }
        let namespace = self.peer.get().map(|peer| peer.namespace.as_str()).unwrap_or_default();
        self.send(
            Frame::new("registrationrejected")
                .text("code", &error.code)
                .text("namespace", namespace)
                .text("function_id", own)
                .plain("owner_worker_id", ""),
        );
    }

    fn unregister_function(&self, id: &str) {
        let Some(peer) = self.peer.get() else { return };
        let registered =
            self.serving.read().iter().find(|(_, serving)| *serving.own == *id).map(|(id, _)| id.clone());
        let registered = registered.as_deref().unwrap_or(id);
        let unregistered = peer.worker.unregister(registered);
        self.hosts_no_longer(registered);
        self.serving.write().remove(registered);
        if let Err(error) = unregistered {
            tracing::debug!(worker = %self.uuid, function = id, %error, "a function was not taken back");
        }
    }
}
