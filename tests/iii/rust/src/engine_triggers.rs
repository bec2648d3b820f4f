//! Triggers for an SDK that has none: the engine's own functions register them for whoever asks. It must not know what
//! fires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::actor::{Actor, lock, text};

/// Registers the functions of triggers.
pub(crate) fn serve(actor: &Actor) {
    let triggers: Arc<Mutex<HashMap<String, Value>>> = Arc::default();
    let (kept, own) = (Arc::clone(&triggers), actor.clone());
    actor.serve("bind", move |data, _| {
        let (kept, actor) = (Arc::clone(&kept), own.clone());
        async move {
            let request = json!({
                "trigger_type": data["type"],
                "function_id": data["function"],
                "config": data["config"],
                "metadata": data["metadata"],
            });
            let bound = actor.trigger("engine::register_trigger", request).await?;
            lock(&kept).insert(text(&data, "key"), bound["id"].clone());
            Ok(Value::Null)
        }
    });
    let own = actor.clone();
    actor.serve("unbind", move |data, _| {
        let (id, actor) = (lock(&triggers).remove(&text(&data, "key")), own.clone());
        async move {
            if let Some(id) = id {
                actor.trigger("engine::unregister_trigger", json!({ "id": id })).await?;
            }
            Ok(Value::Null)
        }
    });
}
