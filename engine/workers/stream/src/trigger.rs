//! The trigger types `stream`, `stream:join` and `stream:leave`: what a trigger watches for. Read when one is bound, asked at
//! every entry and every subscriber. It must not know how functions are called.

use std::sync::Arc;

use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, ErrorCode};
use ringway_worker_kit::Binding;
use ringway_worker_kit::text::sorted;
use serde_json::{Value, json};

use crate::place::Place;

/// Fires at entries.
pub(crate) const STREAM: &str = "stream";

/// Fires before a subscriber is let in, and may refuse.
pub(crate) const JOIN: &str = "stream:join";

/// Fires after a subscriber has gone.
pub(crate) const LEAVE: &str = "stream:leave";

/// What a trigger watches for; what is left out matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) stream: Option<Arc<str>>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) item: Option<Arc<str>>,
    text: String,
}

/// Reads a trigger's configuration.
pub(crate) fn parse(config: &Value) -> Result<Filter, CallError> {
    let wrong = |text: String| CallError::new(ErrorCode::InvalidRegistration, text);
    if !config.is_object() && !config.is_null() {
        return Err(wrong(format!("the configuration of a stream trigger is an object, found {config}")));
    }
    let name = |field: &str| match config.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.as_str().into())),
        Some(other) => {
            Err(wrong(format!("`{field}` of a stream trigger is a text or left out, found {other}")))
        }
    };
    let (stream, group, item) = (name("stream_name")?, name("group_id")?, name("item_id")?);
    Ok(Filter { stream, group, item, text: sorted(config) })
}

impl Filter {
    /// Whether a group is watched, all of it or some items.
    pub(crate) fn covers(&self, place: &Place) -> bool {
        covers(self.stream.as_deref(), self.group.as_deref(), place)
    }

    /// Whether something about an item, or about none, is watched in a group that is.
    pub(crate) fn wants(&self, item: Option<&str>) -> bool {
        self.item.is_none() || self.item.as_deref() == item
    }
}

/// Whether these names, where they are given, are those of a group.
pub(crate) fn covers(stream: Option<&str>, group: Option<&str>, place: &Place) -> bool {
    stream.is_none_or(|stream| *stream == *place.stream) && group.is_none_or(|group| *group == *place.group)
}

/// What a trigger is known by, whatever its id is after a restart: function, configuration, metadata.
pub(crate) fn label(binding: &Binding<Filter>) -> Arc<str> {
    let metadata = binding.metadata.as_ref().map(sorted).unwrap_or_default();
    format!("{} {} {metadata}", binding.function_id, binding.config.text).into()
}

fn configuration(item: &str) -> Option<Value> {
    Some(json!({
        "type": "object",
        "properties": {
            "stream_name": {"type": "string", "description": "Only this stream"},
            "group_id": {"type": "string", "description": "Only this group"},
            "item_id": {"type": "string", "description": item},
            "condition_function_id": {
                "type": "string", "description": "Only where this function does not answer false",
            },
            "condition": {"type": "string", "description": "Only where this CEL expression is true"},
        },
    }))
}

/// What the engine tells of the trigger types.
pub(crate) fn specs() -> [TriggerTypeSpec; 3] {
    let text = json!({"type": "string"});
    let optional = json!({"type": ["string", "null"]});
    let entry = json!({
        "type": "object",
        "required": ["type", "timestamp", "streamName", "groupId", "id", "event", "sequence"],
        "properties": {
            "type": {"const": "stream"}, "timestamp": {"type": "integer"}, "streamName": text, "groupId": text,
            "id": optional, "sequence": {"type": "integer"},
            "event": {
                "type": "object", "required": ["type"],
                "properties": {"type": {"enum": ["create", "update", "delete", "event", "append"]}},
            },
        },
    });
    let subscriber = json!({
        "type": "object",
        "required": ["subscription_id", "stream_name", "group_id", "id", "context"],
        "properties": {
            "subscription_id": text, "stream_name": text, "group_id": text, "id": optional, "context": {},
        },
    });
    let answer = json!({"type": ["object", "null"], "properties": {"unauthorized": {"type": "boolean"}}});
    let spec =
        |id: &str, description: &str, item: &str, request: &Value, response: Option<Value>| TriggerTypeSpec {
            id: id.to_owned(),
            description: description.to_owned(),
            configuration_schema: configuration(item),
            request_schema: Some(request.clone()),
            response_schema: response,
        };
    [
        spec(
            STREAM,
            "Fires after an item changed, or something was sent or appended; in order for each group, at least once",
            "Only what is about this item",
            &entry,
            None,
        ),
        spec(
            JOIN,
            "Fires before a subscriber is let in; {\"unauthorized\": true}, or a failure, keeps it out",
            "Only subscribers of this item",
            &subscriber,
            Some(answer),
        ),
        spec(LEAVE, "Fires after a subscriber has gone", "Only subscribers of this item", &subscriber, None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_what_it_names() {
        let check = |config: Value, expected: bool| {
            let filter = parse(&config).unwrap();
            let place = Place::new("s", "g").unwrap();
            assert_eq!(filter.covers(&place) && filter.wants(Some("i")), expected, "{config}");
        };
        check(json!(null), true);
        check(json!({}), true);
        check(json!({"stream_name": "s", "group_id": "g", "item_id": "i"}), true);
        check(json!({"stream_name": "t"}), false);
        check(json!({"stream_name": "s", "group_id": "h"}), false);
        check(json!({"item_id": "j"}), false);
        assert!(!parse(&json!({"item_id": "i"})).unwrap().wants(None));
    }

    #[test]
    fn a_wrong_configuration_is_refused() {
        for (config, words) in [
            (json!([]), "an object"),
            (json!({"stream_name": 7}), "`stream_name`"),
            (json!({"item_id": []}), "text"),
        ] {
            let error = parse(&config).unwrap_err();
            assert!(error.message.contains(words), "{error}");
            assert_eq!(error.code, ErrorCode::InvalidRegistration);
        }
    }
}
