//! What lies on disk: tables, keys, values. Each value begins with a byte for its version, followed by JSON, or by the
//! message's data as it came. The README describes them. Used by the machine, which writes records, and by whoever reads
//! them back; it must not know when they are written.

use std::fmt;
use std::sync::Arc;

use ringway_store::Batch;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::blobs::BlobRef;

/// Messages that are to be delivered or dead, by place.
pub(crate) const MESSAGE: &str = "queue.message";
/// Data that is too long to lie in its message's record, by place.
pub(crate) const BODY: &str = "queue.body";
/// Attempts that failed, by place and number.
pub(crate) const ATTEMPT: &str = "queue.attempt";
/// Why a message is dead, by place.
pub(crate) const DEAD: &str = "queue.dead";
/// Results of finished steps, by place, ordinal and name.
pub(crate) const STEP: &str = "queue.step";
/// How a message ended, by place.
pub(crate) const DONE: &str = "queue.done";
/// The place of a message whose sender chose its id, by id.
pub(crate) const RECEIPT: &str = "queue.receipt";
/// The message that an idempotency key stands for, by queue and key.
pub(crate) const IDEMPOTENCY: &str = "queue.idempotency";
/// What is to be forgotten, by time.
pub(crate) const EXPIRY: &str = "queue.expiry";
/// What was set by function, by queue.
pub(crate) const SETTINGS: &str = "queue.settings";
/// Who gets what is published, by topic and function.
pub(crate) const SUBSCRIPTION: &str = "queue.subscription";
/// Below which number the messages of a queue were for a subscription that has ended, by queue.
pub(crate) const ENDED: &str = "queue.ended";
/// What is about all queues.
pub(crate) const META: &str = "queue.meta";
/// Numbers below these may have been given out.
pub(crate) const NUMBERS: &[u8] = b"numbers";
/// How often the worker had started, when numbers began with that.
pub(crate) const EPOCH: &[u8] = b"epoch";
/// When it was last looked whether the store takes something.
pub(crate) const PROBE: &[u8] = b"probe";

/// Numbers that are noted as given out with one commit. Few in tests, so that they run out.
pub(crate) const BLOCK: u64 = if cfg!(test) { 16 } else { 1 << 20 };

/// The version that is written and read.
const VERSION: u8 = 1;

/// Data of up to this length lies in the message's record, in bytes.
pub(crate) const INLINE_BYTES_MAX: usize = 1024;

/// A record that cannot be read; it stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {key} of table {table} cannot be read: {reason}")]
pub(crate) struct Unreadable {
    pub(crate) table: &'static str,
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl Unreadable {
    pub(crate) fn new(table: &'static str, key: &[u8], reason: impl fmt::Display) -> Self {
        Self { table, key: key.escape_ascii().to_string(), reason: reason.to_string() }
    }
}

/// Puts the version before a value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Arc<[u8]> {
    let mut bytes = vec![VERSION];
    // Records are structs of texts and numbers, and writing to memory does not fail.
    serde_json::to_writer(&mut bytes, value).unwrap_or_else(|error| unreachable!("{error}"));
    bytes.into()
}

/// Reads a value back.
pub(crate) fn decode<T: DeserializeOwned>(
    table: &'static str,
    key: &[u8],
    bytes: &[u8],
) -> Result<T, Unreadable> {
    let json = strip_version(table, key, bytes)?;
    serde_json::from_slice(json).map_err(|error| Unreadable::new(table, key, error))
}

/// Data with its version before it.
pub(crate) fn encode_body(data: &RawValue) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(data.get().len() + 1);
    bytes.push(VERSION);
    bytes.extend_from_slice(data.get().as_bytes());
    bytes.into()
}

/// Data read back.
pub(crate) fn decode_body(key: &[u8], bytes: &[u8]) -> Result<Box<RawValue>, Unreadable> {
    let json = strip_version(BODY, key, bytes)?;
    serde_json::from_slice(json).map_err(|error| Unreadable::new(BODY, key, error))
}

fn strip_version<'b>(table: &'static str, key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((found, _)) => {
            let reason = format!("wanted version {VERSION}, found {found}; run the version that wrote it");
            Err(Unreadable::new(table, key, reason))
        }
        None => Err(Unreadable::new(table, key, "it is empty")),
    }
}

/// Where a message stands: its queue, and its number, which is given out once and only grows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) queue: Arc<str>,
    pub(crate) seq: u64,
}

impl Place {
    pub(crate) fn new(queue: &str, seq: u64) -> Self {
        Self { queue: queue.into(), seq }
    }

    /// The key of the message's records: the queue's name, a zero byte, the number.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = queue_prefix(&self.queue);
        key.extend_from_slice(&self.seq.to_be_bytes());
        key
    }

    /// The key of the record of an attempt.
    pub(crate) fn attempt_key(&self, attempt: u32) -> Vec<u8> {
        let mut key = self.key();
        key.extend_from_slice(&attempt.to_be_bytes());
        key
    }

    /// The key of the result of a step.
    pub(crate) fn step_key(&self, ordinal: u32, name: &str) -> Vec<u8> {
        let mut key = self.attempt_key(ordinal);
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// Reads ordinal and name of the key of a step.
    pub(crate) fn parse_step(key: &[u8]) -> Result<(u32, String), Unreadable> {
        let wrong = || Unreadable::new(STEP, key, "wanted a place, 4 bytes of ordinal, and a name");
        let (_, rest) = Self::parse(STEP, key)?;
        let (ordinal, name) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
        let name = std::str::from_utf8(name).map_err(|_| wrong())?;
        Ok((u32::from_be_bytes(*ordinal), name.to_owned()))
    }

    /// Reads a key of a message; what follows it is returned as well.
    pub(crate) fn parse<'k>(table: &'static str, key: &'k [u8]) -> Result<(Self, &'k [u8]), Unreadable> {
        let wrong = || Unreadable::new(table, key, "wanted a queue's name, a zero byte and 8 bytes");
        let zero = key.iter().position(|byte| *byte == 0).ok_or_else(wrong)?;
        let name = std::str::from_utf8(&key[..zero]).map_err(|_| wrong())?;
        let (seq, rest) = key[zero + 1..].split_first_chunk::<8>().ok_or_else(wrong)?;
        Ok((Self::new(name, u64::from_be_bytes(*seq)), rest))
    }

    /// The id of a message whose sender chose none.
    pub(crate) fn id(&self) -> String {
        format!("{}:{:x}", self.queue, self.seq)
    }

    /// Reads such an id.
    pub(crate) fn from_id(id: &str) -> Option<Self> {
        let (queue, seq) = id.rsplit_once(':')?;
        Some(Self::new(queue, u64::from_str_radix(seq, 16).ok()?))
    }
}

/// What the keys of a queue's messages begin with.
pub(crate) fn queue_prefix(queue: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(queue.len() + 9);
    prefix.extend_from_slice(queue.as_bytes());
    prefix.push(0);
    prefix
}

/// A key of two texts.
pub(crate) fn pair_key(first: &str, second: &str) -> Vec<u8> {
    let mut key = queue_prefix(first);
    key.extend_from_slice(second.as_bytes());
    key
}

/// A message, but for data that is too long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The function to call; `None` for whatever is bound to the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    pub(crate) enqueued_ms: u64,
    /// Not to be delivered before.
    #[serde(default)]
    pub(crate) due_ms: u64,
    /// Dead from then on if it still waits; 0 for never.
    #[serde(default)]
    pub(crate) expires_ms: u64,
    #[serde(default)]
    pub(crate) priority: u8,
    /// Its message group, or the key of its share.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) lane: String,
    /// The id that its sender chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<String>,
    /// W3C `traceparent` of its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
    /// W3C baggage of its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) baggage: Option<String>,
    /// Where the data lies, if it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<BlobRef>,
    /// The data, if it is short.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub(crate) data: Option<Box<RawValue>>,
}

impl Head {
    /// Whether the data lies in a record of its own.
    pub(crate) fn is_long(&self) -> bool {
        self.data.is_none() && self.blob.is_none()
    }
}

/// Data that is there may be `null`, which is not the same as none.
fn there<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(value).map(Some)
}

/// How one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptRecord {
    pub(crate) at_ms: u64,
    /// When the next one may begin.
    pub(crate) due_ms: u64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Why a message is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadRecord {
    pub(crate) at_ms: u64,
    pub(crate) attempts: u32,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// An attempt succeeded.
    Done,
    /// It was cancelled.
    Cancelled,
    /// It was dead and was thrown away.
    Discarded,
}

/// The receipt of a message that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneRecord {
    pub(crate) end: End,
    pub(crate) at_ms: u64,
    pub(crate) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<String>,
    /// There are results of steps, which are forgotten with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) steps: bool,
}

/// Where a message with a chosen id stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReceiptRecord {
    pub(crate) queue: String,
    pub(crate) seq: u64,
}

/// What an idempotency key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    pub(crate) id: String,
    pub(crate) expires_ms: u64,
}

/// Whether a queue takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It takes and gives.
    #[default]
    Active,
    /// It takes and gives nothing.
    Paused,
    /// It gives and takes nothing.
    Draining,
}

/// What was set of a queue by function.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SettingsRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<crate::config::QueueSettings>,
    #[serde(default)]
    pub(crate) mode: Mode,
}

/// Numbers of messages and of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) seq: u64,
    pub(crate) token: u64,
}

impl Numbers {
    /// The first numbers behind the block that begins with these.
    pub(crate) fn after_block(self) -> Self {
        Self { seq: self.seq.saturating_add(BLOCK), token: self.token.saturating_add(BLOCK) }
    }

    /// Numbers above all that were given out by so many starts, when the upper bits were the number of the start.
    pub(crate) fn after_epoch(epoch: u64) -> Self {
        let first = epoch.saturating_add(1).saturating_mul(1 << 40);
        Self { seq: first, token: first }
    }
}

/// Who gets what is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    /// The queue with its copies.
    pub(crate) queue: String,
    #[serde(default)]
    pub(crate) settings: crate::config::SubscriberSettings,
}

/// What is to be forgotten at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forget {
    /// The receipt of a message that has ended.
    Done(Vec<u8>),
    /// An idempotency key.
    Idempotency(Vec<u8>),
}

impl Forget {
    /// The key that says so.
    pub(crate) fn key(&self, at_ms: u64) -> Vec<u8> {
        let (tag, rest) = match self {
            Self::Done(key) => (b'd', key),
            Self::Idempotency(key) => (b'i', key),
        };
        let mut key = at_ms.to_be_bytes().to_vec();
        key.push(tag);
        key.extend_from_slice(rest);
        key
    }

    /// Reads such a key.
    pub(crate) fn parse(key: &[u8]) -> Result<(u64, Self), Unreadable> {
        let wrong = || Unreadable::new(EXPIRY, key, "wanted 8 bytes of time, `d` or `i`, and a key");
        let (at, rest) = key.split_first_chunk::<8>().ok_or_else(wrong)?;
        let what = match rest.split_first() {
            Some((b'd', rest)) => Self::Done(rest.to_vec()),
            Some((b'i', rest)) => Self::Idempotency(rest.to_vec()),
            _ => return Err(wrong()),
        };
        Ok((u64::from_be_bytes(*at), what))
    }
}

/// Changes that are written together or not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    pub(crate) changes: Vec<Write>,
    /// Records that must be as they were when they were read, by the revision that they had then.
    expected: Vec<(&'static str, Vec<u8>, u64)>,
}

/// One of them; no value removes the key.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) table: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Arc<[u8]>>,
}

impl Write {
    /// Table and key.
    pub(crate) fn place(&self) -> (&'static str, Vec<u8>) {
        (self.table, self.key.clone())
    }
}

impl Writes {
    pub(crate) fn put<T: Serialize>(&mut self, table: &'static str, key: Vec<u8>, value: &T) {
        self.put_bytes(table, key, encode(value));
    }

    pub(crate) fn put_bytes(&mut self, table: &'static str, key: Vec<u8>, value: Arc<[u8]>) {
        self.changes.push(Write { table, key, value: Some(value) });
    }

    pub(crate) fn delete(&mut self, table: &'static str, key: Vec<u8>) {
        self.changes.push(Write { table, key, value: None });
    }

    pub(crate) fn forget(&mut self, at_ms: u64, what: &Forget) {
        self.put_bytes(EXPIRY, what.key(at_ms), [VERSION].into());
    }

    /// Nothing is written unless this record is as it was then.
    pub(crate) fn expect(&mut self, table: &'static str, key: Vec<u8>, revision: u64) {
        self.expected.push((table, key, revision));
    }

    /// As the store takes them.
    pub(crate) fn into_batch(self) -> Batch {
        let expect = |batch: Batch, (table, key, revision): (&str, Vec<u8>, u64)| {
            batch.expect_revision(table, &key, revision)
        };
        let batch = self.expected.into_iter().fold(Batch::new(), expect);
        self.changes.into_iter().fold(batch, |batch, write| match write.value {
            Some(value) => batch.put(write.table, &write.key, value),
            None => batch.delete(write.table, &write.key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_keep_their_order_in_keys_and_survive_ids() {
        let check = |queue: &str, seq: u64| {
            let place = Place::new(queue, seq);
            assert_eq!(Place::parse(MESSAGE, &place.key()).unwrap(), (place.clone(), &[][..]));
            assert_eq!(Place::from_id(&place.id()), Some(place));
        };
        check("orders", 0);
        check("topic/a:b/c::d", u64::MAX);
        assert!(Place::new("a", 255).key() < Place::new("a", 256).key());
        assert_eq!(Place::from_id("orders"), None);
    }

    #[test]
    fn data_that_is_null_is_there() {
        let head: Head = serde_json::from_str(r#"{"enqueued_ms":1,"data":null}"#).unwrap();
        assert_eq!(head.data.as_deref().map(RawValue::get), Some("null"));
        let again: Head = decode(MESSAGE, b"k", &encode(&head)).unwrap();
        assert!(again.data.is_some());
        let long: Head = serde_json::from_str(r#"{"enqueued_ms":1}"#).unwrap();
        assert!(long.data.is_none());
    }

    #[test]
    fn another_version_is_told_and_not_guessed() {
        let record = DeadRecord { at_ms: 1, attempts: 2, code: "c".into(), message: "m".into() };
        let mut bytes = encode(&record).to_vec();
        assert_eq!(decode::<DeadRecord>(DEAD, b"k", &bytes).unwrap(), record);
        bytes[0] = 9;
        let error = decode::<DeadRecord>(DEAD, b"k", &bytes).unwrap_err();
        assert!(error.reason.contains("version 1, found 9"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _head = decode::<Head>(MESSAGE, &bytes, &bytes);
            let _place = Place::parse(MESSAGE, &bytes);
            let _forget = Forget::parse(&bytes);
            let _body = decode_body(&bytes, &bytes);
        }

        #[test]
        fn what_is_to_be_forgotten_is_read_back(at: u64, key: Vec<u8>) {
            for forget in [Forget::Done(key.clone()), Forget::Idempotency(key)] {
                prop_assert_eq!(Forget::parse(&forget.key(at)).unwrap(), (at, forget));
            }
        }
    }
}
