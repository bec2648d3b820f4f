//! The tables of the store that belong to this worker. What a value in them looks like is said by `record`, how keys are made
//! by `place`. Used by whoever reads or writes the store.

/// What is known of each group, by its place.
pub(crate) const HEADS: &str = "stream.head";

/// Items, by place and id.
pub(crate) const ITEMS: &str = "stream.item";

/// Entries of logs, by place and number (big-endian).
pub(crate) const LOG: &str = "stream.log";

/// Nothing but a mark, by the time of expiry (milliseconds since 1970, big-endian) and the key of an item.
pub(crate) const EXPIRIES: &str = "stream.expiry";

/// How far somebody has read, by place and reader.
pub(crate) const CURSORS: &str = "stream.cursor";

/// Triggers that were bound, by number (big-endian).
pub(crate) const TRIGGERS: &str = "stream.trigger";

/// Entries that a trigger's function did not take in time, by place, entry and the trigger's number.
pub(crate) const UNDELIVERED: &str = "stream.undelivered";

/// A number that groups begin after, under one key.
pub(crate) const FLOOR: (&str, &[u8]) = ("stream.floor", b"");

/// What an entry of [`EXPIRIES`] holds: its format.
pub(crate) const MARK: [u8; 1] = [1];

pub(crate) fn expiry_key(at_ms: u64, key: &[u8]) -> Vec<u8> {
    [&at_ms.to_be_bytes(), key].concat()
}

pub(crate) fn split_expiry(joined: &[u8]) -> Option<(u64, &[u8])> {
    let (time, key) = joined.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), key))
}

/// The number that a key is, or ends with.
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}
