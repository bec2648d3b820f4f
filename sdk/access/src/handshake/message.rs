//! The messages of a handshake, as JSON, and the checks that each field has to pass before anybody uses it. A message is
//! written as `{"hello": {…}}`: that way it is read field by field, and what is not known takes no memory. It must not
//! know in which order messages come.

use std::fmt;

use ringway_protocol::CallError;
use ringway_protocol::ids::WorkerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::HandshakeError;
use crate::grant::Grant;
use crate::text::{NoRandomnessError, base64url, fixed_from_base64url, is_name, random};

/// The longest name of a release, in bytes.
const RELEASE_BYTES_MAX: usize = 64;

/// What is at an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// One worker.
    Worker,
    /// An engine, with the workers behind it.
    Engine,
}

/// What a process's clocks said at one moment. Two ends compare them to place times of one on the other's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockReading {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// The time of day, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl ClockReading {
    /// Returns the time of day in whole seconds since 1970, as tokens count.
    #[must_use]
    pub const fn unix_s(&self) -> u64 {
        self.unix_ms / 1000
    }
}

/// Who an end says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// What it is.
    pub kind: PeerKind,
    /// Its id: the worker's, or the engine's.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// The release of Ringway that it runs.
    pub release: String,
}

impl Introduction {
    /// Says whether the texts are ones that can be shown and kept.
    pub(super) fn check(&self) -> Result<(), HandshakeError> {
        if !is_name(&self.name) {
            let wanted = "1 to 256 bytes without control characters";
            return Err(HandshakeError::Field { field: "name", wanted });
        }
        if !is_name(&self.release) || self.release.len() > RELEASE_BYTES_MAX {
            let wanted = "1 to 64 bytes without control characters";
            return Err(HandshakeError::Field { field: "release", wanted });
        }
        Ok(())
    }
}

/// Bytes that are drawn anew for each handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce([u8; 32]);

impl Nonce {
    pub(super) fn draw() -> Result<Self, NoRandomnessError> {
        random().map(Self)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64url(&self.0))
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = fixed_from_base64url(&String::deserialize(deserializer)?);
        bytes.map(Self).ok_or_else(|| de::Error::custom("wanted 32 bytes as base64url"))
    }
}

/// The client's first words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version of frames and control messages that it speaks.
    pub(super) protocol: u32,
    pub(super) me: Introduction,
    pub(super) nonce: Nonce,
    pub(super) clock: ClockReading,
}

/// The server's answer to a hello.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) nonce: Nonce,
}

/// The client's credentials. Empty where it has none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Proof {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// Of the holder's key, as base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<String>,
}

/// The server's last words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) me: Introduction,
    pub(super) link: u64,
    pub(super) limits: Value,
    pub(super) clock: ClockReading,
    pub(super) grant: Grant,
}

/// No, from the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: CallError,
}

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromClient {
    Hello(Hello),
    Proof(Proof),
}

/// What a server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromServer {
    Challenge(Challenge),
    Accepted(Box<Welcome>),
    Refused(Refusal),
}

/// Writes a message.
pub(super) fn to_json(message: &impl Serialize, wanted: &'static str) -> Result<Vec<u8>, HandshakeError> {
    let json = serde_json::to_vec(message);
    json.map_err(|error| HandshakeError::Message { wanted, problem: error.to_string() })
}

/// Reads a message.
pub(super) fn from_json<'a, T: Deserialize<'a>>(
    json: &'a [u8],
    wanted: &'static str,
) -> Result<T, HandshakeError> {
    // Where it is wrong and in what way, but nothing of what it holds: that may be a secret that was sent here by mistake.
    serde_json::from_slice(json).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or of another kind",
            serde_json::error::Category::Eof => "it ends too early",
            _ => "it is no JSON",
        };
        HandshakeError::Message { wanted, problem: format!("{kind}, at byte {}", error.column()) }
    })
}

/// The error for a message that came out of turn.
pub(super) fn out_of_turn(wanted: &'static str) -> HandshakeError {
    HandshakeError::Message { wanted, problem: "it is another message".to_owned() }
}
