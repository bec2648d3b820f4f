//! What happened to a key, and how it lies in the outbox until the functions of triggers know. Made by `plan`, told by
//! `delivery` and `watch`. It must not know who is told.

use std::sync::Arc;

use ringway::TraceContext;
use serde_json::{Value, json};

use crate::keys;
use crate::record::{Record, Unreadable};

/// The format in which entries of the outbox are written. The one before it, without a trace, is read too.
const VERSION: u8 = 2;
const VERSION_WITHOUT_TRACE: u8 = 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Created,
    Updated,
    Deleted,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "state:created",
            Self::Updated => "state:updated",
            Self::Deleted => "state:deleted",
        }
    }
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Scope and key, joined.
    pub(crate) key: Arc<[u8]>,
    pub(crate) old: Option<Record>,
    pub(crate) new: Option<Record>,
}

impl Change {
    pub(crate) fn kind(&self) -> Kind {
        match (&self.old, &self.new) {
            (None, Some(_)) => Kind::Created,
            (_, None) => Kind::Deleted,
            (Some(_), Some(_)) => Kind::Updated,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let length = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.bytes().len());
        self.key.len() + length(&self.old) + length(&self.new) + 64
    }

    /// What functions and watchers are told.
    pub(crate) fn payload(&self) -> Result<Value, Unreadable> {
        let damaged = |record: &Record| Unreadable::Damaged(record.bytes().len());
        let value = |record: &Option<Record>| match record {
            Some(record) => record.value().map_err(|_| damaged(record)),
            None => Ok(Value::Null),
        };
        let (scope, key) = keys::split(&self.key).ok_or(Unreadable::Damaged(self.key.len()))?;
        Ok(json!({
            "type": "state",
            "event_type": self.kind().name(),
            "scope": scope,
            "key": key,
            "old_value": value(&self.old)?,
            "new_value": value(&self.new)?,
        }))
    }
}

/// A change that functions are still to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) created_ms: u64,
    /// Where whoever changed it stands in its trace, so that what is told belongs there too; all zeros if nowhere.
    pub(crate) trace: TraceContext,
    /// Which triggers want it, by what outlives a restart: see `trigger`.
    pub(crate) targets: Vec<Arc<str>>,
    pub(crate) change: Change,
}

impl Event {
    /// Version, time, trace, then each part behind its length in four bytes: key, old and new record (empty for none), targets.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.change.bytes() + 64);
        out.push(VERSION);
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.trace.to_bytes());
        let mut part = |bytes: &[u8]| {
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        part(&self.change.key);
        part(self.change.old.as_ref().map_or(&[], |record| record.bytes()));
        part(self.change.new.as_ref().map_or(&[], |record| record.bytes()));
        self.targets.iter().for_each(|target| part(target.as_bytes()));
        out
    }

    /// When it happened, without a look at the rest.
    pub(crate) fn created_ms(bytes: &[u8]) -> Result<u64, Unreadable> {
        Ok(Self::head(bytes)?.0)
    }

    /// The time, the trace, and what follows them.
    fn head(bytes: &[u8]) -> Result<(u64, TraceContext, &[u8]), Unreadable> {
        let damaged = || Unreadable::Damaged(bytes.len());
        let (version, rest) = bytes.split_first().ok_or_else(damaged)?;
        if ![VERSION, VERSION_WITHOUT_TRACE].contains(version) {
            return Err(Unreadable::Format { found: *version });
        }
        let (time, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let time = u64::from_le_bytes(*time);
        if *version == VERSION_WITHOUT_TRACE {
            return Ok((time, TraceContext::default(), rest));
        }
        let (trace, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        Ok((time, TraceContext::from_bytes(trace), rest))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let damaged = || Unreadable::Damaged(bytes.len());
        let (created_ms, trace, mut rest) = Self::head(bytes)?;
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(bytes)
        };
        let mut needed = || part().ok_or_else(damaged);
        let record = |bytes: &[u8]| match bytes {
            [] => Ok(None),
            bytes => Record::read(bytes.into()).map(Some),
        };
        let key: Arc<[u8]> = needed()?.into();
        let (old, new) = (record(needed()?)?, record(needed()?)?);
        let mut targets = Vec::new();
        while let Some(target) = part() {
            targets.push(std::str::from_utf8(target).map_err(|_| damaged())?.into());
        }
        if !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Self { created_ms, trace, targets, change: Change { key, old, new } })
    }
}

#[cfg(test)]
mod tests {
    use ringway::protocol::trace::TRACE_CONTEXT_BYTES;
    use ringway::{SpanId, TraceId};

    use super::*;
    use crate::record::Form;

    fn event() -> Event {
        let change = Change {
            key: keys::join("orders", "7").unwrap().into(),
            old: Some(Record::new(Form::Json, b"{\"n\":1}", None)),
            new: Some(Record::new(Form::Bytes, b"\x01", Some(5))),
        };
        let trace = TraceContext {
            trace_id: TraceId::from_bytes([7; 16]),
            span_id: SpanId::from_bytes([8; 8]),
            flags: 1,
        };
        Event { created_ms: 9, trace, targets: vec!["a::b {}".into(), "".into()], change }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let mut event = event();
        assert_eq!(Event::decode(&event.encode()), Ok(event.clone()));
        assert_eq!(Event::created_ms(&event.encode()), Ok(event.created_ms));
        event.change.new = None;
        event.targets.clear();
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }

    #[test]
    fn a_damaged_event_is_told() {
        let bytes = event().encode();
        let whole = [bytes.len(), bytes.len() - 4, bytes.len() - 4 - "a::b {}".len() - 4];
        for length in 0..bytes.len() {
            // Without its last targets it is whole, and shorter.
            assert_eq!(Event::decode(&bytes[..length]).is_err(), !whole.contains(&length), "{length}");
        }
        let mut newer = bytes;
        newer[0] = 3;
        assert_eq!(Event::decode(&newer), Err(Unreadable::Format { found: 3 }));
    }

    #[test]
    fn an_event_of_the_version_before_is_read() {
        let mut event = event();
        let mut bytes = event.encode();
        bytes[0] = VERSION_WITHOUT_TRACE;
        bytes.drain(9..9 + TRACE_CONTEXT_BYTES);
        event.trace = TraceContext::default();
        assert_eq!(Event::decode(&bytes), Ok(event));
    }

    #[test]
    fn a_payload_has_the_shape_that_functions_know() {
        let mut change = event().change;
        assert_eq!(
            change.payload().unwrap(),
            json!({"type": "state", "event_type": "state:updated", "scope": "orders", "key": "7",
                   "old_value": {"n": 1}, "new_value": {"$bytes": "AQ=="}})
        );
        change.new = None;
        assert_eq!(change.payload().unwrap()["event_type"], "state:deleted");
        assert_eq!(change.payload().unwrap()["new_value"], Value::Null);
        (change.old, change.new) = (None, event().change.old);
        assert_eq!(change.payload().unwrap()["event_type"], "state:created");
    }
}
