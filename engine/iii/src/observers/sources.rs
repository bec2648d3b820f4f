//! What the engine itself can be observed for: sources that no client serves, each standing on a trigger type of this engine.
//! It must not know who observes.

use std::sync::LazyLock;

use iii_filter::Doc;
use jsonschema::Validator;
use ringway::protocol::naming::NAMESPACE_DEFAULT;
use serde_json::{Map, Value, json};

use super::code;
use super::spec::{On, Spec, fits, validator};
use crate::protocol::{ErrorBody, with_uuids};

/// The one that stands on no trigger type: what observers themselves do.
pub(crate) const OBSERVERS_CHANGED: &str = "engine::on-observers-changed";

/// A source.
#[derive(Debug)]
pub(crate) struct Source {
    id: &'static str,
    /// What its events come from; none where they come from here.
    pub(crate) trigger_type: Option<&'static str>,
    /// Its arguments: their names here, and in the trigger's configuration; the first so many are required.
    args: &'static [(&'static str, &'static str, Kind)],
    required: usize,
    /// The trigger's own configuration, as JSON.
    fixed: &'static str,
    /// Whoever caused the event waits for what the target answers, and the target is given the event as it is.
    pub(crate) answers: bool,
    /// What of the event is told differently.
    shape: fn(&mut Map<String, Value>),
}

/// What an argument is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Any,
}

const fn plain(id: &'static str, trigger_type: &'static str) -> Source {
    let (trigger_type, shape) = (Some(trigger_type), as_it_is as fn(&mut Map<String, Value>));
    Source { id, trigger_type, args: &[], required: 0, fixed: "{}", answers: false, shape }
}

const fn as_it_is(_: &mut Map<String, Value>) {}

/// All of them. The first ten are those that iii's SDKs name; the others are what else has a trigger type here.
static SOURCES: &[Source] = &[
    Source {
        id: OBSERVERS_CHANGED,
        trigger_type: None,
        args: &[],
        required: 0,
        fixed: "{}",
        answers: false,
        shape: as_it_is,
    },
    plain("engine::on-functions-changed", "engine::functions-available"),
    plain("engine::on-workers-changed", "engine::workers-available"),
    Source { fixed: r#"{"level":"all"}"#, shape: level, ..plain("observability::on-log", "log") },
    plain("observability::on-span", "trace"),
    plain("configuration::on-updated", "configuration"),
    Source {
        args: &[
            ("stream_name", "stream_name", Kind::Text),
            ("group_id", "group_id", Kind::Text),
            ("item_id", "item_id", Kind::Text),
        ],
        shape: snake_case,
        ..plain("stream::on-changed", "stream")
    },
    Source {
        args: &[("stream_name", "stream_name", Kind::Text)],
        answers: true,
        ..plain("stream::on-join", "stream:join")
    },
    Source {
        args: &[("stream_name", "stream_name", Kind::Text)],
        ..plain("stream::on-leave", "stream:leave")
    },
    Source {
        args: &[
            ("path", "api_path", Kind::Text),
            ("method", "http_method", Kind::Text),
            ("middleware_function_ids", "middleware_function_ids", Kind::Texts),
        ],
        required: 1,
        answers: true,
        ..plain("http::on-request", "http")
    },
    Source {
        args: &[("expression", "expression", Kind::Text)],
        required: 1,
        ..plain("cron::on-tick", "cron")
    },
    Source {
        args: &[("topic", "topic", Kind::Text), ("queue_config", "queue_config", Kind::Any)],
        required: 1,
        answers: true,
        ..plain("queue::on-message", "durable:subscriber")
    },
    Source {
        args: &[("topic", "topic", Kind::Text)],
        required: 1,
        ..plain("pubsub::on-message", "subscribe")
    },
    Source {
        args: &[("scope", "scope", Kind::Text), ("key", "key", Kind::Text)],
        ..plain("state::on-changed", "state")
    },
];

/// A log's level by the word that filters ask for.
fn level(log: &mut Map<String, Value>) {
    let said = log.get("severity_text").and_then(Value::as_str).map(str::to_lowercase);
    if let Some(said) = said {
        log.entry("level").or_insert_with(|| said.into());
    }
}

/// A stream's event under the names that filters ask for, beside its own.
fn snake_case(event: &mut Map<String, Value>) {
    for (own, asked) in [("streamName", "stream_name"), ("groupId", "group_id"), ("id", "item_id")] {
        if let Some(value) = event.get(own).cloned() {
            event.entry(asked).or_insert(value);
        }
    }
}

/// A source by its id.
pub(crate) fn find(namespace: &str, id: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| namespace == NAMESPACE_DEFAULT && source.id == id)
}

/// The schemas of all arguments, in the order of [`SOURCES`].
static FORMATS: LazyLock<Vec<Option<Validator>>> =
    LazyLock::new(|| SOURCES.iter().map(|source| validator(&source.args_format()).ok()).collect());

/// Whether an observer wants one of these, and what is wrong with it if so.
pub(crate) fn judge(spec: &Spec) -> Option<Result<(), ErrorBody>> {
    let at = SOURCES
        .iter()
        .position(|source| spec.source.namespace == NAMESPACE_DEFAULT && source.id == spec.source.id)?;
    if spec.on == On::Error {
        let text = format!("{} tells of events, and none of them is an error", spec.source);
        return Some(Err(ErrorBody::new(code::NOT_OBSERVABLE, text)));
    }
    Some(FORMATS.get(at).and_then(Option::as_ref).map_or(Ok(()), |format| fits(format, spec)))
}

impl Source {
    fn args_format(&self) -> Value {
        let schema = |kind: Kind| match kind {
            Kind::Text => json!({ "type": "string", "minLength": 1 }),
            Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Kind::Any => json!(true),
        };
        let properties: Map<String, Value> =
            self.args.iter().map(|(name, _, kind)| ((*name).to_owned(), schema(*kind))).collect();
        let required: Vec<&str> = self.args.iter().take(self.required).map(|(name, ..)| *name).collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }

    /// The configuration of the trigger that brings an observer's events.
    pub(crate) fn config(&self, spec: &Spec) -> Value {
        let mut config: Map<String, Value> = serde_json::from_str(self.fixed).unwrap_or_default();
        for (name, own, _) in self.args {
            if let Some(value) = spec.args.as_ref().and_then(|args| args.get(name)) {
                config.insert((*own).to_owned(), value.clone());
            }
        }
        config.into()
    }

    /// Whether the trigger can call the observer's target itself: nothing has to be looked at between them.
    pub(crate) fn goes_straight(&self, spec: &Spec) -> bool {
        self.answers && spec.filter.is_match_all() && spec.max_fires.is_none() && spec.max_in_flight.is_none()
    }

    /// An event as observers see it.
    pub(crate) fn event(&self, body: &str) -> String {
        let body = with_uuids_of_workers(self.trigger_type, body);
        match serde_json::from_str::<Map<String, Value>>(&body) {
            Ok(mut fields) => {
                (self.shape)(&mut fields);
                Value::Object(fields).to_string()
            }
            Err(_) => body,
        }
    }

    /// What whoever caused an event is answered that the observer's filter does not want.
    pub(crate) fn unwanted(&self) -> Value {
        if self.trigger_type == Some("http") {
            let error = json!({ "code": "CONDITION_NOT_MET", "message": "the route's filters do not match" });
            return json!({ "status_code": 422, "body": { "error": error, "skipped": true } });
        }
        Value::Null
    }

    /// Why the engine does not bring an observer's events, in iii's codes.
    pub(crate) fn refusal(&self, own_code: Option<&str>, message: &str) -> ErrorBody {
        let code = match (self.trigger_type, own_code) {
            (_, Some(code)) => code,
            (Some("http"), None) if message.contains("conflicts") => "HTTP_ROUTE_CONFLICT",
            _ => code::OBSERVE_REJECTED,
        };
        ErrorBody::new(code, message)
    }
}

/// Events about workers name them as clients know them.
fn with_uuids_of_workers(trigger_type: Option<&str>, body: &str) -> String {
    match trigger_type {
        Some("engine::workers-available") => with_uuids(body),
        _ => body.to_owned(),
    }
}

/// Whether an event is wanted by an observer of a source here.
pub(crate) fn wants(spec: &Spec, event: &str) -> bool {
    if spec.filter.is_match_all() {
        return true;
    }
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    spec.filter.matches(&Doc { input: Some(&event), output: Some(&event), ..Doc::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observers::spec::observing;

    fn spec(source: &Value) -> Spec {
        observing(source.clone(), "a::t").unwrap()
    }

    #[test]
    fn every_source_says_what_it_is_asked_with() {
        assert!(FORMATS.iter().all(Option::is_some) && FORMATS.len() == SOURCES.len());
        let check = |source: Value, expected: Option<Result<Value, &str>>| {
            let spec = spec(&source);
            let found = judge(&spec).map(|judged| match judged {
                Ok(()) => Ok(find("default", &spec.source.id).unwrap().config(&spec)),
                Err(error) => Err(error.code),
            });
            assert_eq!(found, expected.map(|expected| expected.map_err(str::to_owned)), "{source}");
        };
        let route = json!({ "method": "GET", "path": "/a/:b", "middleware_function_ids": ["m"] });
        check(
            json!({ "function_id": "http::on-request", "args": route }),
            Some(Ok(json!({ "http_method": "GET", "api_path": "/a/:b", "middleware_function_ids": ["m"] }))),
        );
        check(json!({ "function_id": "http::on-request" }), Some(Err("INVALID_ARGS")));
        check(json!({ "function_id": "cron::on-tick", "args": { "expr": "x" } }), Some(Err("INVALID_ARGS")));
        check(json!({ "function_id": "observability::on-log" }), Some(Ok(json!({ "level": "all" }))));
        check(json!({ "function_id": "stream::on-join", "on": "error" }), Some(Err("NOT_OBSERVABLE")));
        check(json!({ "function_id": "http::on-request", "namespace": "n" }), None);
        check(json!({ "function_id": "orders::create" }), None);
    }

    #[test]
    fn events_have_the_names_that_filters_ask_for() {
        let check = |id: &str, event: Value, path: &str| {
            let source = json!({ "function_id": id, "filters": { path: { "$eq": "x" } } });
            let event = find("default", id).unwrap().event(&event.to_string());
            assert!(wants(&spec(&source), &event), "{event}");
        };
        check("observability::on-log", json!({ "severity_text": "X" }), "input.level");
        check("stream::on-changed", json!({ "streamName": "x" }), "input.stream_name");
        check("stream::on-changed", json!({ "groupId": "x" }), "output.group_id");
        check("state::on-changed", json!({ "scope": "x" }), "input.scope");
        let spec = spec(
            &json!({ "function_id": "state::on-changed", "filters": { "input.scope": { "$eq": "y" } } }),
        );
        assert!(!wants(&spec, r#"{"scope":"x"}"#));
    }
}
