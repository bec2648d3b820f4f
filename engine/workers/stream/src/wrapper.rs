//! How an entry of a log looks to those who are told of it: the object that iii's clients know, with the entry's number
//! added. Used by triggers, subscriptions and readers. It must not know who is told.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::place::Place;
use crate::reader::json_of;
use crate::record::{Entry, Kind};

fn data(entry: &Entry) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(json_of(&entry.data))
}

/// What an entry tells, in iii's shape; an appended one has the type `append`.
pub(crate) fn event(entry: &Entry) -> Result<Value, serde_json::Error> {
    let data = data(entry)?;
    Ok(match entry.kind {
        Kind::Event => json!({"type": "event", "event": {"type": entry.name, "data": data}}),
        kind => json!({"type": kind.name(), "data": data}),
    })
}

/// The object around something that is told of a group or of one of its items.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wrapper<'a, E> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: u64,
    stream_name: &'a str,
    group_id: &'a str,
    id: Option<&'a str>,
    event: E,
    sequence: u64,
}

/// Puts that object around an event.
pub(crate) fn wrap<'a, E>(
    place: &'a Place,
    id: Option<&'a str>,
    timestamp: u64,
    event: E,
    sequence: u64,
) -> Wrapper<'a, E> {
    Wrapper {
        kind: "stream",
        timestamp,
        stream_name: &place.stream,
        group_id: &place.group,
        id,
        event,
        sequence,
    }
}

/// An entry as triggers and subscribers are told.
pub(crate) fn told(place: &Place, sequence: u64, entry: &Entry) -> Result<Value, serde_json::Error> {
    serde_json::to_value(wrap(place, entry.item.as_deref(), entry.time_ms, event(entry)?, sequence))
}

/// An entry as readers of the log see it.
pub(crate) fn read(sequence: u64, entry: &Entry) -> Result<Value, serde_json::Error> {
    let mut read = json!({
        "offset": sequence,
        "timestamp": entry.time_ms,
        "type": entry.kind.name(),
        "data": data(entry)?,
    });
    let mut also = |name: &str, text: &Option<Arc<str>>| {
        if let Some(text) = text {
            read[name] = json!(text);
        }
    };
    also("id", &entry.item);
    also("event_type", &entry.name);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use ringway::TraceContext;

    use super::*;

    fn entry(kind: Kind) -> Entry {
        let name = (kind == Kind::Event).then(|| "hello".into());
        let trace = TraceContext::default();
        Entry { time_ms: 5, kind, item: Some("i".into()), name, data: (*b"[1]").into(), trace }
    }

    #[test]
    fn the_shapes_are_those_that_clients_know() {
        let place = Place::new("s", "g").unwrap();
        assert_eq!(
            told(&place, 7, &entry(Kind::Create)).unwrap(),
            json!({
                "type": "stream", "timestamp": 5, "streamName": "s", "groupId": "g", "id": "i", "sequence": 7,
                "event": {"type": "create", "data": [1]},
            })
        );
        assert_eq!(
            event(&entry(Kind::Event)).unwrap(),
            json!({"type": "event", "event": {"type": "hello", "data": [1]}})
        );
        assert_eq!(event(&entry(Kind::Append)).unwrap()["type"], "append");
        assert_eq!(
            read(7, &entry(Kind::Event)).unwrap(),
            json!({
                "offset": 7, "timestamp": 5, "type": "event", "data": [1], "id": "i", "event_type": "hello",
            })
        );
        let alone = Entry { item: None, ..entry(Kind::Append) };
        assert_eq!(told(&place, 7, &alone).unwrap()["id"], Value::Null);
        assert_eq!(read(7, &alone).unwrap().get("id"), None);
    }
}
