//! Triggers for an SDK that has none: it observes the source that a trigger type has; what has none, as somebody else's types,
//! the engine's own functions register for whoever asks. It must not know what fires.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::actor::{Actor, lock, text};
use crate::iii_sdk::{Deliver, ObserverHandle, ObserverOptions, Source};

/// What stands for a trigger.
enum Bound {
    Observer(ObserverHandle),
    Trigger(Value),
}

/// The source of a trigger type, with what its configuration becomes.
fn source(trigger_type: &str, config: &Value) -> Option<Source> {
    // What a source has no argument for, only a trigger can be told.
    let known = ["topic", "scope", "key", "stream_name", "expression", "api_path", "http_method", "configuration_id", "level"];
    let fields = config.as_object().into_iter().flatten();
    if fields.map(|(name, _)| name.as_str()).any(|name| !known.contains(&name)) {
        return None;
    }
    let args = |names: &[(&str, &str)]| {
        let given = names.iter().filter(|(of, _)| !config[of].is_null());
        let args: serde_json::Map<_, _> =
            given.map(|(of, name)| ((*name).to_owned(), config[of].clone())).collect();
        Value::Object(args)
    };
    let of = |id: &str, names: &[(&str, &str)]| {
        let args = args(names);
        let source = Source::function(id).deliver(Deliver::Input);
        Some(if args == json!({}) { source } else { source.args(args) })
    };
    let only = |source: Option<Source>, path: &str, value: &Value| {
        let source = source?;
        Some(if value.is_null() { source } else { source.filters(json!({ path: { "$eq": value } })) })
    };
    match trigger_type {
        "subscribe" => of("pubsub::on-message", &[("topic", "topic")]),
        "durable:subscriber" => of("queue::on-message", &[("topic", "topic")]),
        "state" => of("state::on-changed", &[("scope", "scope"), ("key", "key")]),
        "stream" => of("stream::on-changed", &[("stream_name", "stream_name")]),
        "stream:join" => of("stream::on-join", &[("stream_name", "stream_name")]),
        "stream:leave" => of("stream::on-leave", &[("stream_name", "stream_name")]),
        "cron" => of("cron::on-tick", &[("expression", "expression")]),
        "http" => of("http::on-request", &[("api_path", "path"), ("http_method", "method")]),
        "configuration" => only(of("configuration::on-updated", &[]), "input.id", &config["configuration_id"]),
        "log" => only(of("observability::on-log", &[]), "input.level", &config["level"]),
        "trace" => of("observability::on-span", &[]),
        "engine::functions-available" => of("engine::on-functions-changed", &[]),
        "engine::workers-available" => of("engine::on-workers-changed", &[]),
        _ => None,
    }
}

/// Registers the functions of triggers.
pub(crate) fn serve(actor: &Actor) {
    let triggers: Arc<Mutex<HashMap<String, Bound>>> = Arc::default();
    let (kept, own) = (Arc::clone(&triggers), actor.clone());
    actor.serve("bind", move |data, _| {
        let (kept, actor) = (Arc::clone(&kept), own.clone());
        async move {
            let bound = match source(&text(&data, "type"), &data["config"]) {
                Some(source) => {
                    let options = ObserverOptions::default().metadata(data["metadata"].clone());
                    let handle = actor.iii.observe_with(source, text(&data, "function"), options);
                    handle.ready().await?;
                    Bound::Observer(handle)
                }
                None => {
                    let request = json!({
                        "trigger_type": data["type"],
                        "function_id": data["function"],
                        "config": data["config"],
                        "metadata": data["metadata"],
                    });
                    let bound = actor.trigger("engine::register_trigger", request).await?;
                    Bound::Trigger(bound["id"].clone())
                }
            };
            lock(&kept).insert(text(&data, "key"), bound);
            Ok(Value::Null)
        }
    });
    let own = actor.clone();
    actor.serve("unbind", move |data, _| {
        let (bound, actor) = (lock(&triggers).remove(&text(&data, "key")), own.clone());
        async move {
            match bound {
                Some(Bound::Observer(handle)) => handle.dispose().await?,
                Some(Bound::Trigger(id)) => {
                    actor.trigger("engine::unregister_trigger", json!({ "id": id })).await?;
                }
                None => {}
            }
            Ok(Value::Null)
        }
    });
}
