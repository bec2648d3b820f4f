//! UUIDs: the names of workers and invocations on the wire. A worker's is made of its number here, so that either can be
//! told from the other. It must not know who has which.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway::WorkerId;
use serde_json::Value;
use uuid::Uuid;

/// Bytes of an invocation's id that say whose it is; the others count.
const PREFIX_BYTES: usize = 9;

/// Draws a random UUID.
pub(crate) fn uuid_random() -> String {
    Uuid::new_v4().to_string()
}

/// The UUID of a worker: its number, in the form of a random one (RFC 9562, version 4).
pub(crate) fn uuid_of(worker: WorkerId) -> String {
    let id = worker.get();
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        id >> 32,
        id >> 16 & 0xffff,
        id >> 4 & 0xfff,
        (id & 0xf) << 8,
        id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
    )
}

/// JSON in which workers have the UUIDs that clients know them by.
pub(crate) fn with_uuids(json: &str) -> String {
    fn put(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let id = (name == "id" || name == "worker_id").then(|| value.as_str()).flatten();
                    match id.and_then(|id| id.parse::<WorkerId>().ok()) {
                        Some(id) => *value = uuid_of(id).into(),
                        None => put(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(put),
            _ => {}
        }
    }
    match serde_json::from_str(json) {
        Ok(mut value) => {
            put(&mut value);
            value.to_string()
        }
        Err(_) => json.to_owned(),
    }
}

/// The invocations of one callee: a number each, in the form of a UUID that only this callee can have.
#[derive(Debug)]
pub(crate) struct Invocations {
    prefix: [u8; PREFIX_BYTES],
    next: AtomicU64,
}

impl Invocations {
    pub(crate) fn new() -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&Uuid::new_v4().as_bytes()[..PREFIX_BYTES]);
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// The next number.
    pub(crate) fn draw(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A number as a UUID.
    pub(crate) fn name(&self, number: u64) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        bytes[PREFIX_BYTES..].copy_from_slice(&number.to_be_bytes()[1..]);
        Uuid::from_bytes(bytes)
    }

    /// The number of a UUID; none if it is not of this callee.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let bytes = *Uuid::try_parse(name).ok()?.as_bytes();
        let (prefix, counted) = bytes.split_at(PREFIX_BYTES);
        let mut number = [0; 8];
        number[1..].copy_from_slice(counted);
        (prefix == self.prefix).then(|| u64::from_be_bytes(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_are_found_by_their_names() {
        let (ours, theirs) = (Invocations::new(), Invocations::new());
        for _ in 0..3 {
            let number = ours.draw();
            let name = ours.name(number);
            assert_eq!(name.get_version_num(), 4);
            assert_eq!(ours.number(&name.to_string()), Some(number));
            assert_eq!(ours.number(&name.to_string().to_uppercase()), Some(number));
            assert_eq!(theirs.number(&name.to_string()), None);
        }
        assert_eq!(ours.number("no uuid"), None);
    }

    #[test]
    fn workers_are_named_by_their_uuids() {
        let named = with_uuids(r#"{"workers":[{"id":"fedcba9876543210","name":"0123456789abcdef"}]}"#);
        let uuid = uuid_of(WorkerId::new(0xfedc_ba98_7654_3210));
        assert_eq!(named, format!(r#"{{"workers":[{{"id":"{uuid}","name":"0123456789abcdef"}}]}}"#));
        assert_eq!(with_uuids("no json"), "no json");
    }

    #[test]
    fn a_worker_has_one_uuid() {
        let uuid = uuid_of(WorkerId::new(0xfedc_ba98_7654_3210));
        assert_eq!(&uuid[..24], "fedcba98-7654-4321-8000-");
        assert_eq!(Uuid::try_parse(&uuid).unwrap().get_version_num(), 4);
        assert_ne!(uuid_of(WorkerId::new(1)), uuid_of(WorkerId::new(2)));
    }
}
