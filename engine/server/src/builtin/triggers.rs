//! Bindings that outlive the connection of whoever asked for them.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_engine_core::{Event, Zone};
use ringway_protocol::control::TriggerSpec;
use ringway_protocol::{FunctionId, naming};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, read};
use crate::limits;
use crate::shared::{Command, Shared};

#[derive(Deserialize)]
struct Wanted {
    trigger_type: String,
    function_id: FunctionId,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    trigger_namespace: Option<String>,
}

#[derive(Deserialize)]
struct Unwanted {
    id: String,
}

fn zone_of(shared: &Shared, context: &Context) -> HandlerResult<Zone> {
    let core = shared.core.read();
    let zone = core.worker(context.caller()).map(|worker| Zone::clone(&worker.zone));
    zone.ok_or_else(|| Failure::with_code("FORBIDDEN", "the caller is no longer attached"))
}

pub(super) fn register(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::REGISTER_TRIGGER, |shared, context, input| {
        let wanted: Wanted = read(input)?;
        let zone = zone_of(shared, context)?;
        if !shared.core.read().may_call(context.caller(), &zone, wanted.function_id.as_str()) {
            return Err(Failure::with_code(
                "FORBIDDEN",
                format!("the caller may not call {}", wanted.function_id),
            ));
        }
        let id = new_id();
        let mut spec = TriggerSpec::new(id.clone(), wanted.trigger_type, wanted.function_id);
        spec.config = wanted.config;
        spec.metadata = wanted.metadata;
        spec.trigger_namespace = wanted.trigger_namespace;
        shared.core.read().check_kept_trigger(&zone, &spec)?;
        let (answer, answered) = sync_channel(1);
        shared.settling.lock().insert(id.clone(), answer);
        shared.tell(Command::Event(Box::new(Event::TriggerKept { zone: Zone::clone(&zone), spec })));
        // A provider that says nothing is taken to agree.
        let refusal = answered.recv_timeout(limits::PROVIDER_TIME_MAX).unwrap_or_default();
        shared.settling.lock().remove(&id);
        if let Some(error) = refusal {
            shared.tell(Command::Event(Box::new(Event::TriggerRemoved { zone, id })));
            return Err(Failure::with_code("trigger_registration_failed", error.message));
        }
        Ok(json!({ "id": id }))
    })
    .description("creates a binding that outlives its maker's connection")
}

/// Draws an id in the form of a random UUID (RFC 9562, version 4).
fn new_id() -> String {
    let (high, low) = (crate::engine::random(), crate::engine::random());
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

pub(super) fn unregister(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::UNREGISTER_TRIGGER, |shared, context, input| {
        let unwanted: Unwanted = read(input)?;
        let zone = zone_of(shared, context)?;
        let question = json!({ "id": &unwanted.id });
        let caller = Some(context.caller());
        let known = shared.core.read().query(caller, naming::REGISTERED_TRIGGERS_INFO, &question).is_ok();
        shared.tell(Command::Event(Box::new(Event::TriggerRemoved { zone, id: unwanted.id })));
        Ok(json!({ "removed": known }))
    })
    .description("removes a binding")
}
