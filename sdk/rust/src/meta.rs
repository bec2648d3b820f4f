//! Metadata of a frame: baggage, trace state, the caller's own metadata, shapes of tensors.
//!
//! On the wire a list of `tag: u8, length: u16, bytes`; unknown tags are skipped, so that more can be added.

use ringway_protocol::baggage::Baggage;
use serde_json::Value;

use crate::durable::KeptSteps;
use crate::message::Attachment;

pub(crate) const TAG_BAGGAGE: u8 = 1;
pub(crate) const TAG_TRACE_STATE: u8 = 2;
pub(crate) const TAG_METADATA: u8 = 3;
pub(crate) const TAG_DIMS: u8 = 4;

/// What a caller sends beside the body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meta {
    pub(crate) baggage: Option<Baggage>,
    pub(crate) trace_state: Option<String>,
    pub(crate) metadata: Option<Value>,
    /// What the handler of a delivery has learned about its steps; it does not travel.
    pub(crate) steps: KeptSteps,
}

impl Meta {
    /// The most bytes of metadata that are read, whatever a peer claims.
    pub(crate) const BYTES_MAX: u64 = 256 << 10;

    pub(crate) fn is_empty(&self) -> bool {
        self.baggage.is_none() && self.trace_state.is_none() && self.metadata.is_none()
    }

    pub(crate) fn encode(&self, attachments: &[Attachment]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |tag: u8, value: &[u8]| {
            // What is too long for its length field is left out rather than cut in the middle.
            if let Ok(len) = u16::try_from(value.len())
                && !value.is_empty()
            {
                bytes.push(tag);
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes.extend_from_slice(value);
            }
        };
        if let Some(baggage) = &self.baggage {
            put(TAG_BAGGAGE, baggage.format().as_bytes());
        }
        if let Some(state) = &self.trace_state {
            put(TAG_TRACE_STATE, state.as_bytes());
        }
        if let Some(metadata) = &self.metadata {
            put(TAG_METADATA, metadata.to_string().as_bytes());
        }
        let dims: Vec<u8> =
            attachments.iter().flat_map(|part| &part.shape).flat_map(|dim| dim.to_le_bytes()).collect();
        put(TAG_DIMS, &dims);
        bytes
    }

    /// The value of the first entry with `tag`.
    pub(crate) fn find(mut bytes: &[u8], tag: u8) -> Option<&[u8]> {
        while let [found, low, high, rest @ ..] = bytes {
            let (value, next) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
            if *found == tag {
                return Some(value);
            }
            bytes = next;
        }
        None
    }

    /// Reads what a peer sent; entries that do not parse count as absent.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let text = |tag| Self::find(bytes, tag).and_then(|value| std::str::from_utf8(value).ok());
        Self {
            baggage: text(TAG_BAGGAGE).and_then(|text| Baggage::parse(text).ok()),
            trace_state: text(TAG_TRACE_STATE).map(str::to_owned),
            metadata: Self::find(bytes, TAG_METADATA).and_then(|value| serde_json::from_slice(value).ok()),
            steps: KeptSteps::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_survive() {
        let mut baggage = Baggage::default();
        baggage.set("tenant", "acme").unwrap();
        let meta = Meta {
            baggage: Some(baggage),
            trace_state: Some("a=b".into()),
            metadata: Some(serde_json::json!({"n": 1})),
            ..Meta::default()
        };
        let read = Meta::decode(&meta.encode(&[]));
        assert_eq!(read.baggage.unwrap().get("tenant"), Some("acme"));
        assert_eq!(read.trace_state.as_deref(), Some("a=b"));
        assert_eq!(read.metadata, meta.metadata);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _meta = Meta::decode(&bytes);
        }
    }
}
