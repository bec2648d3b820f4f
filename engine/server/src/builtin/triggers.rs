//! Bindings that outlive the connection of whoever asked for them.

use std::sync::Arc;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_engine_core::{Event, Zone};
use ringway_protocol::control::TriggerSpec;
use ringway_protocol::{FunctionId, naming};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, read};
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
        let id = format!("kept-{:016x}", crate::engine::random());
        let mut spec = TriggerSpec::new(id.clone(), wanted.trigger_type, wanted.function_id);
        spec.config = wanted.config;
        spec.metadata = wanted.metadata;
        spec.trigger_namespace = wanted.trigger_namespace;
        shared.core.read().check_kept_trigger(&zone, &spec)?;
        shared.tell(Command::Event(Box::new(Event::TriggerKept { zone, spec })));
        Ok(json!({ "id": id }))
    })
    .description("creates a binding that outlives its maker's connection")
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
