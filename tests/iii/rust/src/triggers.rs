//! Triggers as the SDKs up to 0.25 have them: binding to a type, and providing one. It must not know what fires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::actor::{Actor, lock, request, text};
use crate::iii_sdk::protocol::RegisterTriggerInput;
use crate::iii_sdk::trigger::{Trigger, TriggerConfig, TriggerHandler};
use crate::iii_sdk::{Error, RegisterTriggerType};

/// The triggers of one type that this actor was given, by their ids.
#[derive(Clone, Default)]
struct Given(Arc<Mutex<HashMap<String, TriggerConfig>>>);

#[async_trait::async_trait]
impl TriggerHandler for Given {
    async fn register_trigger(&self, config: TriggerConfig) -> Result<(), Error> {
        if let Some(reason) = config.config["refuse"].as_str() {
            return Err(Error::Handler(reason.to_owned()));
        }
        lock(&self.0).insert(config.id.clone(), config);
        Ok(())
    }

    async fn unregister_trigger(&self, config: TriggerConfig) -> Result<(), Error> {
        lock(&self.0).remove(&config.id);
        Ok(())
    }
}

/// Registers the functions of triggers.
pub(crate) fn serve(actor: &Actor) {
    binding(actor);
    providing(actor);
}

fn binding(actor: &Actor) {
    let triggers: Arc<Mutex<HashMap<String, Trigger>>> = Arc::default();
    let (kept, own) = (Arc::clone(&triggers), actor.clone());
    actor.serve("bind", move |data, _| {
        let input = RegisterTriggerInput {
            trigger_type: text(&data, "type"),
            function_id: text(&data, "function"),
            config: data["config"].clone(),
            metadata: Some(data["metadata"].clone()).filter(|metadata| !metadata.is_null()),
            namespace: None,
            trigger_namespace: None,
        };
        let bound = own.iii.register_trigger(input).map(|trigger| {
            lock(&kept).insert(text(&data, "key"), trigger);
            Value::Null
        });
        std::future::ready(bound)
    });
    actor.serve("unbind", move |data, _| {
        if let Some(trigger) = lock(&triggers).remove(&text(&data, "key")) {
            trigger.unregister();
        }
        std::future::ready(Ok(Value::Null))
    });
}

fn providing(actor: &Actor) {
    let types: Arc<Mutex<HashMap<String, Given>>> = Arc::default();
    let given = move |types: &Mutex<HashMap<String, Given>>, data: &Value| {
        lock(types).get(&text(data, "type")).cloned().unwrap_or_default()
    };
    let (kept, own) = (Arc::clone(&types), actor.clone());
    actor.serve("provide", move |data, _| {
        let (id, mine) = (text(&data, "type"), Given::default());
        lock(&kept).insert(id.clone(), mine.clone());
        let description = format!("fired by {}", own.name);
        own.iii.register_trigger_type(RegisterTriggerType::new(id, description, mine));
        std::future::ready(Ok(Value::Null))
    });
    let kept = Arc::clone(&types);
    actor.serve("bindings", move |data, _| {
        let given = given(&kept, &data);
        let bindings: Vec<Value> = lock(&given.0)
            .values()
            .map(|one| json!({ "id": one.id, "function_id": one.function_id, "config": one.config, "metadata": one.metadata }))
            .collect();
        std::future::ready(Ok(json!({ "bindings": bindings })))
    });
    let own = actor.clone();
    actor.serve("fire", move |data, _| {
        let (actor, given) = (own.clone(), given(&types, &data));
        async move {
            let all: Vec<TriggerConfig> = lock(&given.0).values().cloned().collect();
            for one in &all {
                let request = request(&one.function_id, data["data"].clone());
                match &one.metadata {
                    Some(metadata) => actor.iii.trigger(request.metadata(metadata.clone())).await?,
                    None => actor.iii.trigger(request).await?,
                };
            }
            Ok(json!({ "fired": all.len() }))
        }
    });
}
