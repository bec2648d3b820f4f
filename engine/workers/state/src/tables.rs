//! The tables of the store that belong to this worker, and how their keys are made. What a value in them looks like is said
//! by `record` and `change`. Used by whoever reads or writes the store.

use std::sync::Arc;

pub(crate) use ringway_worker_kit::names::{MARK, expiry_key, split_expiry};

use crate::error::WriteError;
use crate::keys;
use crate::record::{Record, Unreadable};

/// Records by scope and key.
pub(crate) const VALUES: &str = "state";

/// Nothing but a mark, by the time of expiry (milliseconds since 1970, big-endian), scope and key.
pub(crate) const EXPIRIES: &str = "state.expiry";

/// Events that functions are still to be told, by a number that grows (big-endian).
pub(crate) const OUTBOX: &str = "state.outbox";

/// Nothing but a mark, by the number of an event (big-endian) and the place (four bytes, big-endian) among its targets of
/// one that has been told while others have not.
pub(crate) const TOLD: &str = "state.told";

/// Events that no function took in time, by the number that they had in the outbox and the place of the target.
pub(crate) const UNDELIVERED: &str = "state.undelivered";

pub(crate) fn told_key(number: u64, target: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &target.to_be_bytes()].concat()
}

pub(crate) fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Reads a record, or says which key holds none.
pub(crate) fn record(key: &[u8], bytes: Arc<[u8]>) -> Result<Record, WriteError> {
    Record::read(bytes).map_err(|error| unreadable(key, &error))
}

pub(crate) fn unreadable(key: &[u8], error: &Unreadable) -> WriteError {
    let text = match keys::split(key) {
        Some((scope, key)) => format!("the value of key `{key}` in scope `{scope}` cannot be read: {error}"),
        None => format!("an entry of the store is no key of a value: {error}"),
    };
    WriteError::Unreadable(text)
}
