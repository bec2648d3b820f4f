//! The trigger type `state`: which changes a trigger watches for, and finding those that watch for a change without looking
//! at all of them. Read by `core` at every change and by `delivery`. It must not know how functions are called.

use std::collections::HashMap;
use std::sync::Arc;

use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, ErrorCode, Worker};
use ringway_worker_kit::text::sorted;
use ringway_worker_kit::{Binding, Condition};
use serde_json::{Value, json};

use crate::change::Change;
use crate::keys;

/// The name of the trigger type.
pub(crate) const TYPE: &str = "state";

/// What a trigger watches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    scope: Option<String>,
    key: Option<String>,
    /// The whole configuration as text.
    text: String,
}

/// Reads a trigger's configuration.
pub(crate) fn parse(config: &Value) -> Result<Filter, CallError> {
    let wrong = |text: String| CallError::new(ErrorCode::InvalidRegistration, text);
    if !config.is_object() && !config.is_null() {
        return Err(wrong(format!("the configuration of a state trigger is an object, found {config}")));
    }
    let name = |field: &str| match config.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(other) => {
            Err(wrong(format!("`{field}` of a state trigger is a text or left out, found {other}")))
        }
    };
    Ok(Filter { scope: name("scope")?, key: name("key")?, text: sorted(config) })
}

/// By what a trigger is known again after a restart, whatever its id is then: function, configuration, metadata.
fn label(binding: &Binding<Filter>) -> Arc<str> {
    let known = format!("{} {}", binding.function_id, binding.config.text);
    match &binding.metadata {
        Some(metadata) => format!("{known} {}", sorted(metadata)).into(),
        None => known.into(),
    }
}

/// What the engine tells of the trigger type.
pub(crate) fn spec() -> TriggerTypeSpec {
    let text = json!({"type": "string"});
    TriggerTypeSpec {
        id: TYPE.to_owned(),
        description:
            "Fires after a value was created, updated or deleted; in order for each key, at least once"
                .to_owned(),
        configuration_schema: Some(json!({
            "type": "object",
            "properties": {
                "scope": {"type": "string", "description": "Only changes in this scope"},
                "key": {"type": "string", "description": "Only changes of this key"},
                "condition_function_id": {
                    "type": "string", "description": "Only changes for which this function does not answer false",
                },
                "condition": {"type": "string", "description": "Only changes for which this CEL expression is true"},
            },
        })),
        request_schema: Some(json!({
            "type": "object",
            "required": ["type", "event_type", "scope", "key", "old_value", "new_value"],
            "properties": {
                "type": {"const": "state"},
                "event_type": {"enum": ["state:created", "state:updated", "state:deleted"]},
                "scope": text, "key": text, "old_value": {}, "new_value": {},
            },
        })),
        response_schema: None,
    }
}

/// A live trigger with the label by which events remember it.
#[derive(Debug, Clone)]
struct Target {
    label: Arc<str>,
    binding: Arc<Binding<Filter>>,
}

/// The live triggers by what they watch for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    everywhere: Vec<Target>,
    by_scope: HashMap<String, Vec<Target>>,
    by_key: HashMap<String, Vec<Target>>,
    by_both: HashMap<String, HashMap<String, Vec<Target>>>,
    by_label: HashMap<Arc<str>, Arc<Binding<Filter>>>,
}

impl Index {
    pub(crate) fn of(bindings: &[Arc<Binding<Filter>>]) -> Self {
        let mut index = Self::default();
        for binding in bindings {
            let filter = &binding.config;
            let label = label(binding);
            let target = Target { label: Arc::clone(&label), binding: Arc::clone(binding) };
            let place = match (filter.scope.clone(), filter.key.clone()) {
                (None, None) => &mut index.everywhere,
                (Some(scope), None) => index.by_scope.entry(scope).or_default(),
                (None, Some(key)) => index.by_key.entry(key).or_default(),
                (Some(scope), Some(key)) => index.by_both.entry(scope).or_default().entry(key).or_default(),
            };
            place.push(target);
            index.by_label.insert(label, Arc::clone(binding));
        }
        index
    }

    /// A live trigger with this label.
    pub(crate) fn labelled(&self, label: &str) -> Option<Arc<Binding<Filter>>> {
        self.by_label.get(label).cloned()
    }

    /// The labels of triggers that were bound since another index was made, those that replace one included.
    pub(crate) fn labels_beside<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let is_new = |(label, binding): &(&Arc<str>, &Arc<Binding<Filter>>)| {
            other.by_label.get(*label).is_none_or(|before| !Arc::ptr_eq(before, binding))
        };
        self.by_label.iter().filter(is_new).map(|(label, _)| label)
    }

    /// The labels of the triggers that are to be told of a change. An expression is worked out here; one that cannot be for
    /// this change is reported and does not hold. Functions of conditions are asked later.
    pub(crate) fn targets(&self, worker: &Worker, change: &Change) -> Vec<Arc<str>> {
        if self.by_label.is_empty() {
            return Vec::new();
        }
        let Some((scope, key)) = keys::split(&change.key) else { return Vec::new() };
        let both = self.by_both.get(&scope).and_then(|keys| keys.get(key));
        let found = [Some(&self.everywhere), self.by_scope.get(&scope), self.by_key.get(key), both];
        let mut payload = None;
        let mut wanted = |target: &&Target| match &target.binding.condition {
            Condition::Always | Condition::Function(_) => true,
            condition @ Condition::Expression(_) => {
                let payload = payload.get_or_insert_with(|| change.payload());
                let Ok(payload) = payload else { return true };
                condition.holds(worker, payload).unwrap_or_else(|error| {
                    tracing::warn!(trigger = target.binding.id, %error, "the condition does not fit this change");
                    false
                })
            }
        };
        found
            .into_iter()
            .flatten()
            .flatten()
            .filter(|target| wanted(target))
            .map(|target| Arc::clone(&target.label))
            .collect()
    }
}
