//! Channels that payloads name: a value in a request that stands for a stream, to be read or written beside the call, by
//! whoever gets it. iii's SDKs pass HTTP bodies and other long things so. The engine's listener for those SDKs keeps them;
//! here is how a worker makes one and opens an end. It must not know how they are kept.

use std::fmt;
use std::time::Duration;

use ringway_protocol::{CallError, naming};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::CallOptions;
use crate::error::Failure;
use crate::message::Message;
use crate::stream_call::StreamCall;
use crate::worker::Worker;

/// How long an end may be held open: a time that no channel lives to see, since a stream without any would end with the
/// worker's default timeout.
const OPEN_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Which end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The end that is read.
    Read,
    /// The end that is written.
    Write,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// One end of a channel, as it travels in payloads. Whoever has it may take that end, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelRef {
    /// Which channel.
    pub channel_id: String,
    /// What proves that its holder may take it.
    pub access_key: String,
    /// Which end.
    pub direction: Direction,
}

impl fmt::Debug for ChannelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is a secret, and this ends up in logs.
        f.debug_struct("ChannelRef")
            .field("channel_id", &self.channel_id)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// Both ends of a new channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelPair {
    /// The end that is written.
    pub writer: ChannelRef,
    /// The end that is read.
    pub reader: ChannelRef,
}

impl Worker {
    /// Makes a channel. Both ends have to be taken within five minutes.
    ///
    /// # Errors
    /// `not_found` where the engine has no listener for iii's SDKs, `busy` where there are too many channels.
    pub fn create_channel(&self) -> Result<ChannelPair, CallError> {
        let made = self.trigger_json(naming::CHANNELS_CREATE, &serde_json::json!({}))?;
        serde_json::from_value(made).map_err(|error| Failure::invalid(error.to_string()).into_error())
    }

    /// Opens an end of a channel. The end to read is a call that streams what is written: bytes, or text as a JSON string; after
    /// the last, [`StreamCall::end`] says whether the writer was done or has gone.
    /// The end to write is a call that takes what is to be written, and [`StreamCall::end`] says that this was all; dropped
    /// before that, the reader may be told that something is missing.
    ///
    /// # Errors
    /// `not_found` where there is no such channel, or no listener for iii's SDKs. That an end was taken before is told by the
    /// stream, as `busy`.
    pub fn open_channel(&self, end: &ChannelRef) -> Result<StreamCall, CallError> {
        let id = match end.direction {
            Direction::Read => naming::CHANNELS_READ,
            Direction::Write => naming::CHANNELS_WRITE,
        };
        let request = Message::json(end).map_err(Failure::into_error)?;
        self.handle(id).stream(&request, &CallOptions::new().timeout(OPEN_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_looks_as_in_iii_and_keeps_its_secret() {
        let end = ChannelRef {
            channel_id: "c".to_owned(),
            access_key: "secret".to_owned(),
            direction: Direction::Read,
        };
        let json = serde_json::json!({"channel_id": "c", "access_key": "secret", "direction": "read"});
        assert_eq!(serde_json::to_value(&end).unwrap(), json);
        assert_eq!(serde_json::from_value::<ChannelRef>(json).unwrap(), end);
        assert!(!format!("{end:?}").contains("secret"));
    }
}
