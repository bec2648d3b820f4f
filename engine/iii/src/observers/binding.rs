//! The engine's own events: a trigger for each observer that wants some, bound by the listener's worker, in the order in
//! which observers come and go. Where nothing has to be looked at between them, the trigger calls the target itself; else
//! it calls a function here. It must not know which events there are.

use std::sync::Arc;

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::protocol::naming::NAMESPACE_DEFAULT;
use ringway::{Context, Encoding, ErrorCode, Failure, Function, HandlerResult, Message};
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;

use super::delivery::{Shot, event_of};
use super::hop::Hop;
use super::registry::Fired;
use super::spec::Spec;
use super::{Observers, code, sources};
use crate::protocol::{ErrorBody, uuid_of};
use crate::shared::Shared;

/// What triggers call that cannot call the target themselves.
const EVENT: &str = "engine::observers::event";

/// What the engine is asked.
#[derive(Debug)]
pub(crate) enum Binding {
    /// Events for an observer.
    Wanted(Arc<Spec>),
    /// None any more.
    Unwanted(String),
}

/// The trigger of an observer.
fn trigger_id(observer: &str) -> String {
    format!("observer:{observer}")
}

impl Observers {
    /// Has the engine asked, after what it was asked before. Does not wait.
    pub(super) fn bind(&self, binding: Binding) {
        let mut bindings = self.bindings.lock();
        let sender = bindings.get_or_insert_with(|| {
            let (sender, mut wanted) = unbounded_channel::<Binding>();
            if let Some(shared) = self.shared.upgrade() {
                let (runtime, shared) = (shared.runtime.clone(), Arc::downgrade(&shared));
                runtime.spawn(async move {
                    while let Some(binding) = wanted.recv().await {
                        let Some(shared) = shared.upgrade() else { return };
                        tokio::task::block_in_place(|| shared.observers.ask_for(&shared, binding));
                    }
                });
            }
            sender
        });
        let _the_listener_ends = sender.send(binding);
    }

    fn ask_for(&self, shared: &Arc<Shared>, binding: Binding) {
        match binding {
            Binding::Wanted(spec) => {
                let Some(source) = sources::find(&spec.source.namespace, &spec.source.id) else { return };
                let Some(trigger_type) = source.trigger_type else {
                    return self.step(|registry, _| registry.bound(&spec, Ok(())));
                };
                let straight = source.goes_straight(&spec);
                let function = if straight { spec.target.id.as_str() } else { EVENT };
                let Ok(function) = FunctionId::new(function) else { return };
                let mut trigger = TriggerSpec::new(trigger_id(&spec.id), trigger_type, function);
                let namespace = if straight { spec.target.namespace.as_str() } else { NAMESPACE_DEFAULT };
                trigger.namespace = Some(namespace.to_owned());
                trigger.config = source.config(&spec);
                trigger.metadata =
                    if straight { spec.metadata.clone() } else { Some(json!({ "observer": spec.id })) };
                let (told, asked) = (Arc::downgrade(shared), Arc::clone(&spec));
                let answered = move |answer: Result<(), ringway::CallError>| {
                    let answer =
                        answer.map_err(|error| source.refusal(error.user_code.as_deref(), &error.message));
                    if let Some(shared) = told.upgrade() {
                        shared.observers.step(|registry, _| registry.bound(&asked, answer));
                    }
                };
                match shared.worker.bind_trigger(trigger, answered) {
                    // Its provider may come yet, and answers then.
                    Ok(live) => {
                        tracing::debug!(observer = spec.id, trigger_type, live, "events are asked for");
                    }
                    Err(error) => {
                        let refusal = source.refusal(error.user_code.as_deref(), &error.message);
                        self.step(|registry, _| registry.bound(&spec, Err(refusal)));
                    }
                }
            }
            Binding::Unwanted(id) => {
                if let Err(error) = shared.worker.unregister_trigger(&trigger_id(&id)) {
                    tracing::debug!(observer = id, %error, "the events of an observer were not taken back");
                }
            }
        }
    }
}

/// The function that triggers call.
pub(super) fn function(shared: &Arc<Shared>) -> Function {
    let shared = Arc::downgrade(shared);
    let event = move |context: Context, message: Message| {
        let shared = shared.upgrade();
        async move {
            match shared {
                Some(shared) => event(&shared, &context, &message).await,
                None => Err(Failure::new("the listener is about to end")),
            }
        }
    };
    Function::json_text_async(EVENT, event)
        .internal()
        .description("Takes the events of the engine that observers want")
}

fn json_reply(json: impl Into<Vec<u8>>) -> Message {
    Message::from_vec(Encoding::Json, json.into())
}

/// An event has come for an observer.
async fn event(shared: &Arc<Shared>, context: &Context, message: &Message) -> HandlerResult<Message> {
    let observers = &shared.observers;
    // A queue says more beside what the trigger says.
    let said = match context.delivery() {
        Some(_) => context.metadata().and_then(|delivery| delivery.get("trigger")),
        None => context.metadata(),
    };
    let id = said.and_then(|said| said.get("observer")).and_then(|id| id.as_str()).unwrap_or_default();
    let spec = observers.registry.lock().get(id).map(|observer| Arc::clone(&observer.spec));
    let source = spec.as_ref().and_then(|spec| sources::find(&spec.source.namespace, &spec.source.id));
    let (Some(spec), Some(source)) = (spec, source) else {
        let text = format!("no observer has the id '{id}'");
        return Err(Failure::with_code(code::OBSERVER_NOT_FOUND, text));
    };
    let body = std::str::from_utf8(message.body()).unwrap_or("null");
    let event = source.event(if body.is_empty() { "null" } else { body });
    if !sources::wants(&spec, &event) {
        return Ok(json_reply(source.unwanted().to_string()));
    }
    let depth = Hop::read(context.baggage(), &uuid_of(context.caller())).depth;
    let mut fired = None;
    observers.step(|registry, now| {
        let mut effects = Vec::new();
        fired = registry.fire(id, &spec.source, depth, now, &mut effects);
        effects
    });
    let Some(fired) = fired else {
        let text = format!("observer '{id}' is not active");
        return Err(Failure::with_code(code::OBSERVER_NOT_ACTIVE, text));
    };
    let trace = context.trace();
    let traceparent = trace.is_valid().then(|| trace.to_string());
    let baggage = context.baggage().map(ringway::Baggage::format);
    if source.answers {
        let shot = Shot::plain(&spec, &event, None, depth).under(traceparent.as_deref(), baggage.as_deref());
        return answer(shared, fired, &shot).await;
    }
    let mut call = event_of(&spec.source, &event, depth);
    (call.traceparent, call.baggage) = (traceparent.map(Into::into), baggage.map(Into::into));
    observers.deliver(&call, fired, None);
    Ok(json_reply("null"))
}

/// Calls the target for somebody who waits for it.
async fn answer(shared: &Arc<Shared>, fired: Fired<Shot>, shot: &Shot) -> HandlerResult<Message> {
    let Fired { spec, lane } = fired;
    // Where nothing was said of a limit, whoever causes the events has one.
    let limited = spec.max_in_flight.is_some();
    if limited && !lane.enter() {
        shared.observers.dropped(&spec.id, code::OVERFLOW);
        let text = format!("{} calls of observer '{}' are under way", spec.in_flight_max(), spec.id);
        return Err(Failure::with_code(code::OVERFLOW, text));
    }
    let ended = match shot.start(shared) {
        Ok(started) => started.ended().await,
        Err(error) => Err(error),
    };
    if limited {
        shared.observers.left(lane);
    }
    ended.map_err(|error| match error.code {
        ErrorCode::NotFound => ErrorBody::new(code::TARGET_UNAVAILABLE, error.message).into_failure(),
        _ => error.into(),
    })
}
