//! What is told of observers to whoever asks: one of them by its id, or those of a function, a target, a state. It must not
//! know connections.

use std::sync::{Arc, Weak};

use ringway::{Failure, Function, HandlerResult};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::delivery::Shot;
use super::registry::Observer;
use super::{binding, code};
use crate::protocol::uuid_of;
use crate::shared::Shared;

/// Which observer.
#[derive(Debug, Deserialize, JsonSchema)]
struct Which {
    /// Its id.
    id: String,
}

/// Which observers; all, where nothing is said.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Wanted {
    /// Those of this function.
    function_id: Option<String>,
    /// Those of functions in this namespace.
    namespace: Option<String>,
    /// Those that call this function.
    target: Option<String>,
    /// Those in this state.
    state: Option<String>,
    /// Those of this worker, by its UUID.
    worker_id: Option<String>,
}

/// The functions, for the listener's own worker.
pub(crate) fn all(shared: &Arc<Shared>) -> Vec<Function> {
    let (of_one, of_all) = (Arc::downgrade(shared), Arc::downgrade(shared));
    vec![
        Function::json("engine::observers::get", move |_, asked: Which| get(&of_one, &asked))
            .pooled()
            .internal()
            .description("Tells of one observer"),
        Function::json("engine::observers::list", move |_, asked: Wanted| list(&of_all, &asked))
            .pooled()
            .internal()
            .description("Tells of observers, the oldest first"),
        binding::function(shared),
    ]
}

fn up(shared: &Weak<Shared>) -> HandlerResult<Arc<Shared>> {
    shared.upgrade().ok_or_else(|| Failure::new("the listener is about to end"))
}

fn get(shared: &Weak<Shared>, asked: &Which) -> HandlerResult<Value> {
    let shared = up(shared)?;
    let registry = shared.observers.registry.lock();
    match registry.get(&asked.id) {
        Some(observer) => Ok(json!({ "observer": view(observer) })),
        None => {
            let text = format!("no observer has the id '{}'", asked.id);
            Err(Failure::with_code(code::OBSERVER_NOT_FOUND, text))
        }
    }
}

fn list(shared: &Weak<Shared>, asked: &Wanted) -> HandlerResult<Value> {
    let shared = up(shared)?;
    let registry = shared.observers.registry.lock();
    let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let wanted = |observer: &&Observer<Shot>| {
        let spec = &observer.spec;
        is(&asked.function_id, &spec.source.id)
            && is(&asked.namespace, &spec.source.namespace)
            && is(&asked.target, &spec.target.id)
            && is(&asked.state, observer.state.word())
            && is(&asked.worker_id, &observer.client.map(uuid_of).unwrap_or_default())
    };
    let views: Vec<Value> = registry.all().filter(wanted).map(view).collect();
    Ok(json!({ "observers": views }))
}

fn view(observer: &Observer<Shot>) -> Value {
    let spec = &observer.spec;
    let mut view = spec.view();
    let (in_flight, waiting) = observer.lane.counts();
    let reason =
        observer.reason.as_ref().map(|error| json!({ "code": error.code, "message": error.message }));
    let more = json!({
        "function_id": spec.source.id,
        "namespace": spec.source.namespace,
        "target_namespace": spec.target.namespace,
        "deliver": spec.deliver.word(),
        "state": observer.state.word(),
        "reason": reason,
        "worker_id": observer.client.map(uuid_of),
        "fires": observer.fires,
        "max_fires": spec.max_fires,
        "expires_in_ms": spec.expires_in_ms,
        "max_in_flight": spec.in_flight_max(),
        "in_flight": in_flight,
        "waiting": waiting,
        "dropped": observer.dropped,
    });
    if let (Value::Object(view), Value::Object(more)) = (&mut view, more) {
        view.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    view
}
