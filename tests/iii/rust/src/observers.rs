//! Observers, which 0.25 brought. It must not know what they observe.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::actor::{Actor, lock, text};
use crate::iii_sdk::{ObserverHandle, Source};

/// How long an observer may take to become active.
const PATIENCE: Duration = Duration::from_secs(10);

/// Registers the function.
pub(crate) fn serve(actor: &Actor) {
    let observers: Arc<Mutex<HashMap<String, ObserverHandle>>> = Arc::default();
    let own = actor.clone();
    actor.serve("observe", move |data, _| {
        let (kept, actor) = (Arc::clone(&observers), own.clone());
        async move {
            let mut source = Source::function(text(&data, "source"));
            if !data["args"].is_null() {
                source = source.args(data["args"].clone());
            }
            let handle = actor.iii.observe(source, text(&data, "target"));
            let settled = tokio::time::timeout(PATIENCE, handle.ready()).await;
            let reason = settled.ok().and_then(Result::err).map(|error| error.to_string());
            let state = serde_json::to_value(handle.state()).unwrap_or_default();
            lock(&kept).insert(text(&data, "key"), handle);
            Ok(json!({ "state": state, "reason": reason }))
        }
    });
}
