//! Observers, which 0.25 brought. It must not know what they observe.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::actor::{Actor, lock, text};
use crate::iii_sdk::{ObserverHandle, ObserverOptions, Source};

/// How long an observer may take to become active.
const PATIENCE: Duration = Duration::from_secs(10);

/// Registers the functions.
pub(crate) fn serve(actor: &Actor) {
    let observers: Arc<Mutex<HashMap<String, ObserverHandle>>> = Arc::default();
    let (own, kept) = (actor.clone(), Arc::clone(&observers));
    actor.serve("observe", move |data, _| {
        let (kept, actor) = (Arc::clone(&kept), own.clone());
        async move {
            let mut source = Source::function(text(&data, "source"));
            if !data["args"].is_null() {
                source = source.args(data["args"].clone());
            }
            if !data["filters"].is_null() {
                source = source.filters(data["filters"].clone());
            }
            let options = match &data["metadata"] {
                Value::Null => ObserverOptions::default(),
                metadata => ObserverOptions::default().metadata(metadata.clone()),
            };
            let handle = actor.iii.observe_with(source, text(&data, "target"), options);
            let settled = tokio::time::timeout(PATIENCE, handle.ready()).await;
            let reason = settled.ok().and_then(Result::err).map(|error| error.to_string());
            let state = serde_json::to_value(handle.state()).unwrap_or_default();
            lock(&kept).insert(text(&data, "key"), handle);
            Ok(json!({ "state": state, "reason": reason }))
        }
    });
    actor.serve("unobserve", move |data, _| {
        let handle = lock(&observers).remove(&text(&data, "key"));
        async move {
            if let Some(handle) = handle {
                handle.dispose().await?;
            }
            Ok(Value::Null)
        }
    });
}
