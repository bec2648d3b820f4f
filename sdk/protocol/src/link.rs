//! What the two ends of a link tell each other beside frames: messages of a few topics, most of them those of the control
//! socket as they are. Used by a remote worker and by the engine's end. It must not know how messages travel.
//!
//! A message of the control socket that carries the descriptor of a channel names the channel's number on the link in its
//! place: `connect`, `connected` and `incoming` are [`Topic::Channel`] messages, with four bytes of number before the JSON.

use serde::{Deserialize, Serialize};

use crate::control::Change;
use crate::error::CallError;
use crate::ids::WorkerId;
use crate::telemetry::RecordBytes;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Topic {
    /// A message of the control socket, as JSON.
    Control = 0,
    /// The same, with a channel's number, little-endian, before the JSON.
    Channel = 1,
    /// Telemetry records, each behind its length in one byte, with times of the engine's clock, as far as the sender knows it.
    Telemetry = 2,
}

impl Topic {
    /// Finds a topic by its number.
    #[must_use]
    pub const fn from_u64(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Control),
            1 => Some(Self::Channel),
            2 => Some(Self::Telemetry),
            _ => None,
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self as u64
    }
}

/// Puts a channel's number before a message.
#[must_use]
pub fn with_channel(number: u32, json: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(json);
    bytes
}

/// Takes a channel's number off a message; none where there is none.
#[must_use]
pub fn split_channel(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, json) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), json))
}

/// Appends a record to a message of [`Topic::Telemetry`]; what is longer than a record is cut.
pub fn push_record(message: &mut Vec<u8>, record: &[u8]) {
    let record = &record[..record.len().min(size_of::<RecordBytes>())];
    message.push(u8::try_from(record.len()).unwrap_or(u8::MAX));
    message.extend_from_slice(record);
}

/// The records of a message of [`Topic::Telemetry`]; ends at the first that is not whole.
pub fn records(mut message: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = message.split_first()?;
        let (record, rest) = rest.split_at_checked(usize::from(*len))?;
        message = rest;
        Some(record)
    })
}

/// What two engines tell each other: [`Topic::Control`] messages, and those about a channel as [`Topic::Channel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineLinkMessage {
    /// What the other engine's workers may call here, as it changes. Workers that serve nothing are left out.
    Offer {
        /// Everything that was offered before is gone.
        #[serde(default)]
        reset: bool,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// A worker of the sender's calls one of the receiver's: the receiver is to open the other end of the channel.
    Open {
        /// The caller.
        from: WorkerId,
        /// Its name.
        name: String,
        /// The callee.
        to: WorkerId,
    },
    /// The other end of a channel cannot be opened.
    Refused {
        /// Why.
        error: CallError,
    },
}

/// The bit of a channel's number that says who chose it: set by whoever dialled.
pub const DIALLER: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_records_come_off_as_they_were_put_on() {
        assert_eq!(split_channel(&with_channel(77, b"{}")), Some((77, &b"{}"[..])));
        assert_eq!(split_channel(b"abc"), None);
        let mut message = Vec::new();
        push_record(&mut message, b"one");
        push_record(&mut message, &[]);
        push_record(&mut message, &[7; 192]);
        let found: Vec<&[u8]> = records(&message).collect();
        assert_eq!(found, [&b"one"[..], &[], &[7; 192]]);
        assert_eq!(records(&message[..message.len() - 1]).count(), 2, "what is torn is left out");
        assert!((0..3).all(|number| Topic::from_u64(number).unwrap().to_u64() == number));
        assert_eq!(Topic::from_u64(3), None);
    }
}
