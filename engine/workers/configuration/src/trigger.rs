//! Who is told of changes: triggers of type `configuration`. Events come in the order of the commits, from the store's
//! thread, and one thread delivers them one after the other. It must not know how a change is made.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, CallOptions, ErrorCode, Failure, TraceContext, Worker};
use ringway_worker_kit::{Bindings, deliver};
use serde_json::{Value, json};

use crate::check;
use crate::store::{Entry, STORE_ERROR};

/// The trigger type's id.
pub(crate) const TRIGGER_TYPE: &str = "configuration";

/// Events that may wait to be delivered; further changes are refused with `busy` until there is room.
const WAITING_MAX: usize = 10_000;

/// What a trigger may wait for, in iii's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Registered,
    Updated,
    Deleted,
}

impl Happened {
    const ALL: [Self; 3] = [Self::Registered, Self::Updated, Self::Deleted];

    const fn word(self) -> &'static str {
        match self {
            Self::Registered => "configuration:registered",
            Self::Updated => "configuration:updated",
            Self::Deleted => "configuration:deleted",
        }
    }
}

/// A change that is on disk.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) happened: Happened,
    pub(crate) old: Option<Entry>,
    pub(crate) new: Option<Entry>,
    /// Where whoever changed it stands in its trace; what triggers do belongs there too.
    pub(crate) trace: TraceContext,
}

/// What a trigger's config says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    id: Option<String>,
    /// All, if none is named.
    events: Vec<Happened>,
    /// Values with their variables as they were set.
    raw: bool,
}

/// Reads a trigger's config.
pub(crate) fn watch(config: &Value) -> Result<Watch, CallError> {
    let wrong = |text: String| CallError::new(ErrorCode::InvalidRegistration, text);
    let id = match config.get("configuration_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => {
            check::id(id).map_err(|failure| wrong(failure.into_error().message))?;
            Some(id.clone())
        }
        Some(other) => return Err(wrong(format!("`configuration_id` is a text, found {other}"))),
    };
    let words = match config.get("event_types") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(words)) => words.clone(),
        Some(other) => return Err(wrong(format!("`event_types` is a list, found {other}"))),
    };
    let event = |word: &Value| {
        Happened::ALL.into_iter().find(|happened| word == happened.word()).ok_or_else(|| {
            let known = Happened::ALL.map(Happened::word).join("`, `");
            wrong(format!("there is no event type {word}; known are `{known}`"))
        })
    };
    let events = words.iter().map(event).collect::<Result<_, _>>()?;
    let raw = match config.get("raw") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(raw)) => *raw,
        Some(other) => return Err(wrong(format!("`raw` is true or false, found {other}"))),
    };
    Ok(Watch { id, events, raw })
}

impl Watch {
    fn wants(&self, event: &Event) -> bool {
        let of_id = self.id.as_ref().is_none_or(|id| event.entry().is_some_and(|entry| entry.id == *id));
        of_id && (self.events.is_empty() || self.events.contains(&event.happened))
    }
}

impl Event {
    fn entry(&self) -> Option<&Entry> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// The payload in iii's shape, and the version beside it. A value whose variables are not set is told as it was set.
    fn payload(&self, raw: bool) -> Value {
        let Some(entry) = self.entry() else { return Value::Null };
        let read = |entry: &Option<Entry>| match entry {
            None => Value::Null,
            Some(entry) if raw => entry.value.clone(),
            Some(entry) => check::expand(&entry.id, &entry.value).unwrap_or_else(|_| entry.value.clone()),
        };
        let mut payload = json!({
            "type": TRIGGER_TYPE,
            "event_type": self.happened.word(),
            "id": entry.id,
            "name": entry.name,
            "description": entry.description,
            "schema": entry.schema,
            "old_value": read(&self.old),
            "new_value": read(&self.new),
            "version": entry.version,
        });
        if let Some(metadata) = &entry.metadata {
            payload["metadata"] = metadata.clone();
        }
        payload
    }
}

/// What the engine's catalog tells of the trigger type.
pub(crate) fn spec() -> TriggerTypeSpec {
    let words: Vec<_> = Happened::ALL.into_iter().map(Happened::word).collect();
    TriggerTypeSpec {
        id: TRIGGER_TYPE.to_owned(),
        description: "A configuration was registered, updated or deleted".to_owned(),
        configuration_schema: Some(json!({
            "type": "object",
            "properties": {
                "configuration_id": { "type": "string", "description": "Only this one. Default: all." },
                "event_types": { "type": "array", "items": { "enum": words }, "description": "Only these. Default: all." },
                "raw": { "type": "boolean", "description": "Values with their variables as they were set. Default: false." },
                "condition_function_id": { "type": "string", "description": "Asked with the payload; no ends it." },
                "condition": { "type": "string", "description": "A CEL expression over the payload." },
            },
        })),
        request_schema: Some(json!({
            "type": "object",
            "properties": {
                "type": { "const": TRIGGER_TYPE },
                "event_type": { "enum": words },
                "id": { "type": "string" },
                "name": { "type": "string" },
                "description": { "type": "string" },
                "schema": {}, "old_value": {}, "new_value": {}, "metadata": {},
                "version": { "type": "integer" },
            },
        })),
        response_schema: None,
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// One is being delivered.
    busy: bool,
    ended: bool,
}

/// Events on their way from the commits to the thread that delivers.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Events {
    /// Refuses when too many wait.
    pub(crate) fn room(&self) -> Result<(), Failure> {
        let waiting = self.queue.lock().waiting.len();
        if waiting < WAITING_MAX {
            return Ok(());
        }
        let text = format!(
            "{waiting} changes wait to be told to triggers, no more are taken: look for a slow function"
        );
        Err(Failure::from(CallError::new(ErrorCode::Busy, text).with_user_code(STORE_ERROR)))
    }

    pub(crate) fn push(&self, event: Event) {
        self.queue.lock().waiting.push_back(event);
        self.changed.notify_all();
    }

    /// Delivers until it is ended.
    pub(crate) fn deliver_all(
        &self,
        worker: &Worker,
        bindings: &Bindings<Watch>,
        timeout: &dyn Fn() -> Duration,
    ) {
        let mut queue = self.queue.lock();
        loop {
            queue.busy = false;
            self.changed.notify_all();
            while queue.waiting.is_empty() && !queue.ended {
                self.changed.wait(&mut queue);
            }
            if queue.ended {
                return;
            }
            let Some(event) = queue.waiting.pop_front() else { continue };
            queue.busy = true;
            drop(queue);
            for binding in bindings.all().iter().filter(|binding| binding.config.wants(&event)) {
                let payload = event.payload(binding.config.raw);
                let options = CallOptions::new().timeout(timeout()).parent(event.trace);
                if let Err(error) = deliver(worker, binding, &payload, options) {
                    tracing::warn!(
                        trigger = binding.id, function = binding.function_id, %error,
                        "a function was not told of a change of a configuration"
                    );
                }
            }
            queue = self.queue.lock();
        }
    }

    /// Waits until everything is delivered, at most so long, and ends the delivery.
    pub(crate) fn end(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut queue = self.queue.lock();
        while queue.busy || !queue.waiting.is_empty() {
            if self.changed.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        let left = queue.waiting.len();
        if left > 0 {
            tracing::warn!(left, "changes of configurations were not told to triggers before the end");
        }
        queue.ended = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_says_what_it_waits_for() {
        let read =
            watch(&json!({"configuration_id": "a", "event_types": ["configuration:updated"]})).unwrap();
        assert_eq!(read, Watch { id: Some("a".to_owned()), events: vec![Happened::Updated], raw: false });
        assert_eq!(watch(&Value::Null).unwrap(), Watch { id: None, events: Vec::new(), raw: false });
        let check = |config: Value, expected: &str| {
            let error = watch(&config).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRegistration);
            assert!(error.message.contains(expected), "{error}");
        };
        check(json!({"configuration_id": 1}), "a text");
        check(json!({"configuration_id": "A B"}), "a-z");
        check(json!({"event_types": "all"}), "a list");
        check(json!({"event_types": ["updated"]}), "`configuration:updated`");
        check(json!({"raw": "yes"}), "true or false");
    }
}
